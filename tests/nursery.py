"""Ranks, replicas and commands of tests begin with everything imported: they are forked from a process that waits.

To import torch and diffusers takes six seconds of a processor, to fork a tenth of one. That process is forked itself
from the one that has imported all tests, before anything has run. Signals, process groups and exit codes are those of
any process; `started_anew` has children started as users' are.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import pytest

from backend import child
from tests.waiting import PATIENCE_S

_WHERE = ("backend.ranks.launch.start_child", "backend.replicas.process.start_child")
_POLL_S = 0.01


class Forked:
    """A child's process; like `subprocess.Popen`, as far as it goes."""

    def __init__(self, pid: int, ended: int, stdin: Any) -> None:
        self.pid = pid
        self.stdin = stdin
        self.returncode: int | None = None
        self._ended = ended
        self._looking = threading.Lock()

    def poll(self) -> int | None:
        """Its exit code, or -n for a signal n; None: it runs."""
        with self._looking:
            if self.returncode is None and select.select([self._ended], [], [], 0)[0]:
                self.returncode = int(os.read(self._ended, 20))
                os.close(self._ended)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, when it has ended."""
        until = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if until is not None and time.monotonic() > until:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
            time.sleep(_POLL_S)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)


class Nursery:
    """The process that forks children, as this one sees it."""

    def __init__(self) -> None:
        self._socket, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(PATIENCE_S)
        self._asking = threading.Lock()
        self._pid = os.fork()
        if not self._pid:
            _serve(its)
        its.close()

    def close(self) -> None:
        """End it, not those that it forked, which end with whoever started them."""
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        self._socket.close()

    def start_child(self, module: str, handed: int, threads: int | None, stdin: int = subprocess.DEVNULL) -> Forked:
        """As `backend.child.start_child`."""
        ended, its_ended = os.pipe()
        source, own = os.pipe() if stdin == subprocess.PIPE else (os.open(os.devnull, os.O_RDONLY), None)
        order = {"module": module, "environment": child.child_environment(threads), "folder": str(Path.cwd())}
        pid = self._ask(order, its_ended, source, 2, handed)
        os.close(source)
        os.close(its_ended)
        return Forked(pid, ended, None if own is None else os.fdopen(own, "wb"))

    def start_command(self, words: Sequence[object], folder: Path, said: Path) -> Forked:
        """Start ``tilecast WORDS`` in a folder, in a session of its own; what it prints goes into a file."""
        ended, its_ended = os.pipe()
        environment = child.child_environment(1)
        order = {"words": list(map(str, words)), "environment": environment, "folder": str(folder)}
        with Path(os.devnull).open("rb") as source, said.open("wb") as printed:
            pid = self._ask(order, its_ended, source.fileno(), printed.fileno(), source.fileno())
        os.close(its_ended)
        return Forked(pid, ended, None)

    def _ask(self, order: dict[str, Any], *descriptors: int) -> int:
        with self._asking:
            socket.send_fds(self._socket, [json.dumps(order).encode()], descriptors)
            return int(self._socket.recv(20))


def _serve(asked: socket.socket) -> NoReturn:
    """Fork children and tell how they ended, until the process that asks is gone."""
    os.setpgid(0, 0)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _close_all_but({0, 1, 2, asked.fileno()})
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    running: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([asked, woken], [], [])
        if woken in ready:
            os.read(woken, 4096)
            for pid in list(running):
                _, status = ended = os.waitpid(pid, os.WNOHANG)
                if ended[0]:
                    told = running.pop(pid)
                    with contextlib.suppress(BrokenPipeError):  # nobody waits for it
                        os.write(told, str(os.waitstatus_to_exitcode(status)).encode())
                    os.close(told)
        if asked in ready:
            message, descriptors, _, _ = socket.recv_fds(asked, 1 << 20, 4)
            if not message:
                os._exit(0)
            pid = os.fork()
            if not pid:
                _be(json.loads(message), *descriptors[1:])
            running[pid], *others = descriptors
            for each in others:
                os.close(each)
            asked.send(str(pid).encode())


def _be(order: dict[str, Any], source: int, error: int, handed: int) -> NoReturn:
    """Be the child that was ordered, as if it had been started anew."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if "words" in order:
            os.setsid()
        else:
            os.setpgid(0, 0)
        for target, descriptor in ((0, source), (1, error), (2, error)):
            os.dup2(descriptor, target)
        _close_all_but({0, 1, 2, handed})
        sys.stdin = os.fdopen(0)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1) for number in (1, 2))
        faulthandler.enable()
        warnings.resetwarnings()
        os.chdir(order["folder"])
        os.environ.clear()
        os.environ.update(order["environment"])
        sys.path[:] = dict.fromkeys([*os.environ["PYTHONPATH"].split(os.pathsep), *sys.path])
        if "words" in order:
            code = _command(order["words"])
        else:
            sys.argv = [order["module"], str(handed)]
            importlib.import_module(order["module"]).main()
            code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _command(words: list[str]) -> int:
    """Run ``tilecast WORDS``; its exit code."""
    sys.argv = ["tilecast", *words]
    try:
        importlib.import_module("cli.main").main()
    except SystemExit as ended:
        sys.stdout.flush()
        return int(ended.code or 0)
    return 0


def _close_all_but(kept: set[int]) -> None:
    for opened in list(Path("/proc/self/fd").iterdir()):
        if int(opened.name) not in kept:
            with contextlib.suppress(OSError):  # the one that lists them
                os.close(int(opened.name))


@contextlib.contextmanager
def forked(nursery: Nursery) -> Iterator[None]:
    """Meanwhile ranks and replicas that start are forked there."""
    with pytest.MonkeyPatch.context() as patch:
        for where in _WHERE:
            patch.setattr(where, nursery.start_child)
        yield


@contextlib.contextmanager
def started_anew() -> Iterator[None]:
    """Meanwhile they start as users' do."""
    with pytest.MonkeyPatch.context() as patch:
        for where in _WHERE:
            patch.setattr(where, child.start_child)
        yield
