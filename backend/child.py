"""What a child process of this one is given: replicas, and the ranks of one."""

from __future__ import annotations

import os
import sys
from pathlib import Path

_HOME = Path(__file__).resolve().parents[1]


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
