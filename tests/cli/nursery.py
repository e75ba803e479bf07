"""Commands in processes of their own that begin with everything imported: they are forked from one that waits.

To import torch and diffusers takes ten seconds of a processor, to fork a tenth of one. Signals, sessions and exit codes
are those of any process.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_MODULES = (
    *("cli.app", "cli.profile", "cli.replay", "tilecast.replaying"),
    *("backend.executor", "backend.pictures", "backend.profiling", "backend.replay", "backend.tiled.execution"),
)
_CLASSES = {
    "diffusers": ("AutoencoderKL", "EulerDiscreteScheduler", "StableDiffusionXLPipeline", "UNet2DConditionModel"),
    "transformers": ("CLIPTextModel", "CLIPTextModelWithProjection", "CLIPTokenizer"),
}
"""What these import when they are asked for it."""


class Nursery:
    """A process that forks commands; a context manager."""

    def __enter__(self) -> Nursery:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.cli.nursery"],
            cwd=_ROOT,
            env={**os.environ, "PYTHONPATH": str(_ROOT), "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *raised: object) -> None:
        self._process.communicate()  # it ends with its input

    def ask(self, **question: object) -> int | None:
        """What it answers."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(question), file=self._process.stdin, flush=True)
        answer: int | None = json.loads(self._process.stdout.readline())
        return answer

    def start(self, folder: Path, *words: object) -> Forked:
        """Start ``tilecast WORDS`` in a folder, in a session of its own."""
        said = folder.parent / f"{folder.name}.said"
        pid = self.ask(start=list(map(str, words)), folder=str(folder), said=str(said))
        assert pid is not None
        return Forked(self, pid, said)


class Forked:
    """A command that runs; like `subprocess.Popen`, as far as it goes."""

    returncode: int | None = None

    def __init__(self, nursery: Nursery, pid: int, said: Path) -> None:
        self.pid = pid
        self._nursery = nursery
        self._said = said

    def poll(self) -> int | None:
        """Its exit code, or -n for a signal n; None: it runs."""
        if self.returncode is None:
            self.returncode = self._nursery.ask(poll=self.pid)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def communicate(self, timeout: float) -> tuple[str, None]:
        """What it printed, when it has ended."""
        until = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > until:
                raise subprocess.TimeoutExpired(str(self.pid), timeout, self._said.read_text())
            time.sleep(0.01)
        return self._said.read_text(), None


def _serve() -> list[str] | None:
    """Fork commands and say how they ended; in the process that is to be one its words; None: the input ended."""
    for line in sys.stdin:
        order = json.loads(line)
        if "poll" in order:
            pid, status = os.waitpid(order["poll"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        else:
            answer = os.fork()
            if not answer:
                _leave(Path(order["folder"]), order["said"])
                return list(order["start"])
        print(json.dumps(answer), flush=True)
    return None


def _leave(folder: Path, said: str) -> None:
    """Be a process as a shell starts one."""
    os.setsid()
    os.chdir(folder)
    for target, flags in ((0, os.O_RDONLY), (1, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)):
        opened = os.open(os.devnull if target == 0 else said, flags, 0o600)
        os.dup2(opened, target)
        os.close(opened)
    os.dup2(1, 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _import_all() -> None:
    """What replays and profiles import."""
    for name in _MODULES:
        importlib.import_module(name)
    for package, names in _CLASSES.items():
        for name in names:
            getattr(importlib.import_module(package), name)


if __name__ == "__main__":
    _import_all()
    words = _serve()
    if words is not None:
        from cli.main import main

        sys.argv = ["tilecast", *words]
        main()
