"""Replicas in processes of their own, on this machine: none waits for the interpreter of another.

A process is made anew rather than forked: threads and GPUs do not survive a fork. It ends when it is told to, and when
this process dies in any way: it reads a socket of which only this process holds the other end. It leads a process group
of its own, so that a Ctrl-C reaches this process alone, which ends it in good order.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Sequence

from backend.child import start_child
from backend.replicas.host import Describe, Make, nothing
from backend.replicas.remote import SILENCE_S, RemoteReplica
from backend.replicas.stream import Stream

_END_S = 1.0
_BEGIN_S = 60.0
"""The longest wait for the first sign of life of a process, which has the interpreter's start behind it."""


class ProcessReplica(RemoteReplica):
    """A replica in a process of its own.

    Args:
        make: makes what carries out launches.
        prepare: warms it up.
        describe: what it says of itself at the end.
        threads: CPU threads of torch; None: its own choice.
        cores: the processor cores that it may run on; empty: all.
        silence_s: so long may it give no sign of life, once it has given one.
    """

    def __init__(
        self,
        make: Make,
        prepare: Describe = nothing,
        describe: Describe = nothing,
        threads: int | None = None,
        cores: Sequence[int] = (),
        silence_s: float = SILENCE_S,
    ) -> None:
        super().__init__(make, prepare, describe, silence_s)
        self.threads = threads
        self.cores = tuple(cores)

    @property
    def pid(self) -> int:
        """Of its process; of a replica that was started."""
        assert isinstance(self._channel, _Process)
        return self._channel.child.pid

    def connect(self) -> _Process:
        return _Process(self.threads, self.cores, self.silence_s)


class _Process:
    """A child process and the socket to it."""

    def __init__(self, threads: int | None, cores: Sequence[int], silence_s: float) -> None:
        mine, its = socket.socketpair()
        with its:
            self.child = start_child("backend.replicas.worker", its.fileno(), threads)
        if cores and hasattr(os, "sched_setaffinity"):
            with contextlib.suppress(OSError):  # fewer cores than were told, or it is dead already
                os.sched_setaffinity(self.child.pid, cores)
        self._silence_s = silence_s
        self._socket = mine
        self._socket.settimeout(max(_BEGIN_S, silence_s))
        self._stream = Stream(mine)
        self._sending = threading.Lock()

    def send(self, message: bytes) -> None:
        with self._sending:
            self._stream.send(message)

    def receive(self) -> bytes:
        try:
            message = self._stream.receive()
        except TimeoutError as error:
            raise TimeoutError(f"its process gave no sign of life for {self._socket.gettimeout():g} s") from error
        except (EOFError, OSError) as error:
            raise EOFError(self._how_it_ended()) from error
        self._socket.settimeout(self._silence_s)
        return message

    def kill(self) -> None:
        self.child.kill()
        self.child.send_signal(signal.SIGCONT)

    def close(self, timeout_s: float) -> None:
        try:
            self.child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.child.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.child.wait(_END_S if timeout_s else 0.0)
            self.kill()
            self.child.wait()

    def _how_it_ended(self) -> str:
        try:
            code = self.child.wait(_END_S)
        except subprocess.TimeoutExpired:
            return "its process closed the connection"
        except OSError:
            return "its process is gone"
        if code >= 0:
            return f"its process ended with exit code {code}"
        with contextlib.suppress(ValueError):
            return f"its process was ended by {signal.Signals(-code).name}"
        return f"its process was ended by signal {-code}"
