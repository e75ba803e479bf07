"""Start the ranks of a replica and leave none behind.

Rank 0 is this process; the others are children, made anew rather than forked: threads and GPUs do not survive a fork.
A child ends when its target's group breaks, when this process closes it, and when this process dies in any way: it
reads a pipe of which only this process holds the other end. Each leads a process group of its own: a Ctrl-C reaches
this process, which ends them, and a stopped one that is orphaned is ended by the kernel. All ports are on the loopback
interface and chosen by the system.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

from backend.child import start_child
from backend.ranks.environment import torchrun
from backend.ranks.group import Group, OneRank, ProcessGroup
from backend.ranks.heartbeat import LEFT, Heartbeat, RankLost, how_it_ended, open_verdict, status_key, verdict_of
from traces.errors import BadInput

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_START_S = 600.0  # importing torch and making the target, which may load a large model
_SILENT_S = 15.0
"""The least time after which a starting rank without a sign of life is lost: large libraries are loaded in one go."""
_END_S = 1.0
_POLL_S = 0.02
_joined = itertools.count()


class Order(NamedTuple):
    """What a child is told to be, as one line of JSON on its standard input."""

    target: str
    args: dict[str, Any]
    rank: int
    size: int
    port: int
    timeout_s: float
    device: str
    threads: int


class Ranks:
    """The ranks of a replica, as the process of one of them holds them. A context manager that closes them.

    Attributes:
        group: this rank's view of the others.
    """

    def __init__(self, group: Group, children: Mapping[int, subprocess.Popen[bytes]]) -> None:
        self.group = group
        self._children = dict(children)

    @property
    def processes(self) -> dict[int, int]:
        """Process ids of the children, by rank."""
        return {rank: child.pid for rank, child in self._children.items()}

    def close(self) -> None:
        """End every child, also a hung or stopped one, and free the connections. Takes a few seconds at most."""
        if isinstance(self.group, ProcessGroup):
            self.group.close()
        end_children(self._children)

    def __enter__(self) -> Ranks:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def start_ranks(
    target: str | Callable[..., None],
    size: int,
    args: Mapping[str, Any] | None = None,
    timeout_s: float = 60.0,
    device: str = "cpu",
    threads: int = 1,
) -> Ranks:
    """Start ranks 1 .. ``size`` - 1, each of which calls ``target(group, **args)``. Rank 0's part is the caller's.

    A target that is a class is made by ``target(device, **args)`` before the ranks are connected, for instance to load
    a model, and called with the group alone.

    Args:
        target: ``module:name``, or a function or class that its module has under its own name.
        size: number of ranks.
        args: JSON-able keyword arguments.
        timeout_s: the longest wait for another rank in one exchange: what the slowest may compute between two. A rank
            may start for longer, but not without a sign of life for so long, or for 15 s if that is more.
        device: ``cpu``, or ``cuda``: rank r computes on GPU r.
        threads: CPU threads of each child. This process keeps its own number, which the same bits on every rank need.

    Raises:
        BadInput: fewer than one rank, or fewer GPUs than ranks.
        RankLost: a rank did not start. No process is left.
    """
    if size < 1:
        raise BadInput(f"a replica has at least one rank, not {size}")
    if device == "cuda" and torch.cuda.device_count() < size:
        raise BadInput(f"{size} ranks need {size} GPUs; this machine has {torch.cuda.device_count()}")
    if size == 1:
        return Ranks(OneRank(_device_of(device, 0)), {})
    store, port = _store_for(size)
    store.set(status_key(0), "0 0")
    orders = [
        Order(
            target=target if isinstance(target, str) else _name_of(target),
            args=dict(args or {}),
            rank=rank,
            size=size,
            port=port,
            timeout_s=timeout_s,
            device=device,
            threads=threads,
        )
        for rank in range(1, size)
    ]
    children = _started(store, orders)
    try:
        heartbeat = Heartbeat(connect(port), 0, size, timeout_s, children, on_loss=lambda: _kill(children))
        group = ProcessGroup(store, 0, size, timeout_s, heartbeat, _device_of(device, 0))
    except BaseException:
        end_children(children)
        raise
    return Ranks(group, children)


class RankProcesses:
    """Ranks that are all in processes of their own, as the process that started them holds them.

    Args:
        store: of their group.
        children: by their rank.
    """

    def __init__(self, store: Any, children: Mapping[int, subprocess.Popen[bytes]]) -> None:
        self._store = store
        self._children = dict(children)

    @property
    def processes(self) -> dict[int, int]:
        """Process ids, by rank."""
        return {rank: child.pid for rank, child in self._children.items()}

    def why_lost(self, rank: int) -> str:
        """One line on a rank that has gone."""
        until = time.monotonic() + _END_S
        while self._children[rank].poll() is None and time.monotonic() < until:
            time.sleep(_POLL_S)
        codes = {other: child.poll() for other, child in self._children.items()}
        died = [how_it_ended(other, code) for other, code in codes.items() if code is not None and code != LEFT]
        return died[0] if died else verdict_of(self._store) or f"rank {rank} closed its connection"

    def close(self) -> None:
        """End them all."""
        end_children(self._children)


def start_processes(
    target: str, size: int, args: Mapping[str, Any], timeout_s: float, device: str, threads: int
) -> RankProcesses:
    """Start ranks 0 .. ``size`` - 1, none of which is the caller's.

    Arguments, and what is raised, are those of `start_ranks`.
    """
    if device == "cuda" and torch.cuda.device_count() < size:
        raise BadInput(f"{size} ranks need {size} GPUs; this machine has {torch.cuda.device_count()}")
    store, port = _store_for(size)
    orders = [
        Order(
            target=target,
            args=dict(args),
            rank=rank,
            size=size,
            port=port,
            timeout_s=timeout_s,
            device=device,
            threads=threads,
        )
        for rank in range(size)
    ]
    return RankProcesses(store, _started(store, orders))


def _store_for(size: int) -> tuple[Any, int]:
    """The store of a new group, and its port."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=2 * size + 8)
    port = listener.getsockname()[1]
    store = dist.TCPStore(
        "127.0.0.1",
        port,
        is_master=True,
        wait_for_workers=False,
        timeout=timedelta(seconds=_START_S),
        master_listen_fd=listener.detach(),
    )
    open_verdict(store)
    return store, port


def _started(store: Any, orders: Sequence[Order]) -> dict[int, subprocess.Popen[bytes]]:
    """Children that have made their targets, by rank.

    Raises:
        RankLost: one did not start. No process is left.
    """
    children: dict[int, subprocess.Popen[bytes]] = {}
    pulses: dict[int, int] = {}
    try:
        for order in orders:
            children[order.rank], pulses[order.rank] = _start(order)
        _await_start(store, children, pulses, max(orders[0].timeout_s, _SILENT_S))
    except BaseException:
        end_children(children)
        raise
    finally:
        for pulse in pulses.values():
            os.close(pulse)
    return children


def ranks_from_environment(timeout_s: float = 60.0, device: str = "cpu") -> Ranks:
    """Join the ranks that torchrun started: this process is the one that ``RANK`` says, of ``WORLD_SIZE``.

    Raises:
        BadInput: the environment is not torchrun's, or says something impossible.
        RankLost: the ranks cannot be connected.
    """
    missing = [name for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
    if missing:
        raise BadInput(f"not started by torchrun: {', '.join(missing)} not set")
    place = torchrun()
    if place is None:
        return Ranks(OneRank(_device_of(device, 0)), {})
    rank, size = place.rank, place.size
    if not os.environ["MASTER_PORT"].isdecimal():
        raise BadInput(f"the environment's MASTER_PORT is {os.environ['MASTER_PORT']!r}, expected a port's number")
    device = _device_of(device, place.local)
    attempt = f"tilecast/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/{next(_joined)}"
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    base, _, _ = next(dist.rendezvous("env://", timeout=timedelta(seconds=_START_S)))
    store = dist.PrefixStore(attempt, base)
    own = dist.PrefixStore(attempt, connect(port, host))
    if rank == 0:
        open_verdict(store)
    store.set(status_key(rank), "0 0")
    store.wait([status_key(other) for other in range(size)])
    loopback = host in _LOOPBACK
    return Ranks(
        ProcessGroup(
            store=store,
            rank=rank,
            size=size,
            timeout_s=timeout_s,
            heartbeat=Heartbeat(own, rank, size, timeout_s),
            device=device,
            loopback=loopback,
        ),
        {},
    )


def connect(port: int, host: str = "127.0.0.1") -> Any:
    """A client of the group's store."""
    return dist.TCPStore(host, port, is_master=False, timeout=timedelta(seconds=_START_S))


def end_children(children: Mapping[int, subprocess.Popen[bytes]]) -> None:
    """End these processes and wait for them: asked first, then killed, stopped ones too."""
    for child in children.values():
        if child.stdin is not None:
            with contextlib.suppress(OSError):
                child.stdin.close()
        child.terminate()
        child.send_signal(signal.SIGCONT)
    until = time.monotonic() + _END_S
    while time.monotonic() < until and any(child.poll() is None for child in children.values()):
        time.sleep(_POLL_S)
    _kill(children)
    for child in children.values():
        child.wait()


def _start(order: Order) -> tuple[subprocess.Popen[bytes], int]:
    """The child, and the reading end of the pipe through which it shows that it lives."""
    pulse, written = os.pipe()
    os.set_blocking(pulse, False)
    try:
        started = start_child("backend.ranks.worker", written, order.threads, subprocess.PIPE)
    except BaseException:
        os.close(pulse)
        raise
    finally:
        os.close(written)
    assert started.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # it died already, which the caller will see
        started.stdin.write(json.dumps(order).encode() + b"\n")
        started.stdin.flush()
    return started, pulse


def _await_start(
    store: Any, children: Mapping[int, subprocess.Popen[bytes]], pulses: Mapping[int, int], silent_s: float
) -> None:
    until = time.monotonic() + _START_S
    seen = dict.fromkeys(children, time.monotonic())
    while not store.check([status_key(rank) for rank in children]):
        verdict = verdict_of(store)
        if verdict:
            raise RankLost(verdict)
        for rank, child in children.items():
            code = child.poll()
            if code is not None:
                raise RankLost(verdict_of(store) or how_it_ended(rank, code))
            if _beats(pulses[rank]) or store.check([status_key(rank)]):
                seen[rank] = time.monotonic()
            elif time.monotonic() - seen[rank] > silent_s:
                raise RankLost(f"rank {rank} has not answered for {silent_s:g} s while it started (no sign of life)")
        if time.monotonic() > until:
            late = [rank for rank in children if not store.check([status_key(rank)])]
            raise RankLost(f"rank {late[0]} did not start within {_START_S:g} s")
        time.sleep(_POLL_S)


def _beats(pulse: int) -> bool:
    """Whether a starting rank has shown since the last look that it lives."""
    try:
        return bool(os.read(pulse, 4096))
    except BlockingIOError:
        return False


def _kill(children: Mapping[int, subprocess.Popen[bytes]]) -> None:
    for child in children.values():
        child.kill()


def _device_of(device: str, index: int) -> str:
    if device != "cuda":
        return device
    torch.cuda.set_device(index)
    return f"cuda:{index}"


def _name_of(target: Callable[..., None]) -> str:
    module, name = target.__module__, target.__qualname__
    if module == "__main__" or not name.isidentifier():
        raise ValueError(f"{module}.{name} cannot be imported by another process: name it 'module:function'")
    return f"{module}:{name}"
