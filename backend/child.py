"""What a child process of this one is given: replicas, and the ranks of one."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_HOME = Path(__file__).resolve().parents[1]


def start_child(
    module: str, handed: int, threads: int | None, stdin: int = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    """A process that runs ``module`` with one argument, the number under which it has the descriptor ``handed``.

    It leads a process group of its own, and writes to this process's standard error alone.

    Args:
        module: dotted name.
        handed: an open file descriptor.
        threads: as for `child_environment`.
        stdin: as for `subprocess.Popen`.
    """
    return subprocess.Popen(
        [sys.executable, "-P", "-u", "-X", "faulthandler", "-m", module, str(handed)],
        stdin=stdin,
        stdout=2,
        env=child_environment(threads),
        process_group=0,
        pass_fds=(handed,),
    )


@contextmanager
def lasting() -> Iterator[None]:
    """What is imported meanwhile stays: it is not looked through for garbage, which takes a fifth of a start, and again
    whenever much has been computed."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def child_environment(threads: int | None) -> dict[str, str]:
    """The environment of a child that imports our packages, whatever of their names lies where this process runs.

    Args:
        threads: CPU threads of the child; None: its own choice.
    """
    paths = [str(_HOME), *(path or str(Path.cwd()) for path in sys.path)]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)),
        "TORCH_CPP_LOG_LEVEL": os.environ.get("TORCH_CPP_LOG_LEVEL", "ERROR"),  # a lost peer is reported, once
    }
    return environment if threads is None else environment | {"OMP_NUM_THREADS": str(threads)}
