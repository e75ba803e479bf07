"""The process of a rank that `backend.ranks.launch.start_ranks` started: ``python -m backend.ranks.worker PULSE``.

Its order is the first line of standard input. The rest of it is never written: that it ends means that the process at
its other end closed it or is dead, and so does this one, whatever it is computing. Until the rank has started, it says
several times a second through the pipe ``PULSE`` that it lives; both begin before anything large is imported. Signals
that end a command are left to the process at the other end: Slurm sends them to every process, and a rank that left at
once would fail the requests under way.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from backend.child import lasting

PULSE_S = 0.25
"""Seconds between two signs of life of a rank that starts."""


def main() -> None:
    """Be the rank that the order says, until the group is closed or breaks."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    line = sys.stdin.buffer.readline()
    started = threading.Event()
    threading.Thread(target=_follow_parent, daemon=True).start()
    threading.Thread(target=_show_life, args=(int(sys.argv[1]), started), daemon=True).start()

    with lasting():
        import torch

        from backend.ranks.group import ProcessGroup
        from backend.ranks.heartbeat import LEFT, Heartbeat, RankLost, first_line, give_verdict, status_key
        from backend.ranks.launch import Order, connect
        from traces.errors import BadInput

    order = Order(*json.loads(line))
    leave = partial(os._exit, LEFT)
    torch.set_num_threads(order.threads)
    device = order.device
    if device == "cuda":
        device = f"cuda:{order.rank}"
        torch.cuda.set_device(order.rank)
    store = connect(order.port)
    try:
        with lasting():
            target = _imported(order.target)
        act = target(device, **order.args) if isinstance(target, type) else partial(target, **order.args)
        store.set(status_key(order.rank), "0 0")
        started.set()
        store.wait([status_key(rank) for rank in range(order.size)])
        heartbeat = Heartbeat(connect(order.port), order.rank, order.size, order.timeout_s, on_loss=leave)
        act(ProcessGroup(store, order.rank, order.size, order.timeout_s, heartbeat, device))
    except RankLost:
        leave()
    except BaseException as error:
        if not isinstance(error, BadInput):
            traceback.print_exc()
        sys.stderr.flush()
        give_verdict(store, f"rank {order.rank} failed: {type(error).__name__}: {first_line(error)}")
        leave()
    threading.Event().wait()  # for the other ranks: until `_follow_parent` ends the process


def _imported(name: str) -> Callable[..., Any]:
    module, _, function = name.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return found


def _follow_parent() -> None:
    while os.read(0, 1):
        pass
    os._exit(0)


def _show_life(pulse: int, started: threading.Event) -> None:
    with suppress(OSError):  # the parent has seen that it has started, or is dead
        os.write(pulse, b".")
        while not started.wait(PULSE_S):
            os.write(pulse, b".")
    os.close(pulse)


if __name__ == "__main__":
    main()
