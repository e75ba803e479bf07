"""The process of a replica that `backend.replicas.process` started: ``python -m backend.replicas.worker SOCKET``.

Signals that end a command are left to the process that started it: Slurm sends them to every process, and a replica
that left at once would fail the requests under way. That the socket ends means that the other process is dead, and so
is this one, whatever it is computing.
"""

from __future__ import annotations

import os
import pickle
import queue
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable

from backend.child import lasting
from backend.replicas.stream import Stream

_SENT_S = 30.0
_PULSE_S = 0.5
"""Between two signs of life."""


def main() -> None:
    """Serve until told to end, or until the other process is gone."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    stream = Stream(socket.socket(fileno=int(sys.argv[1])))
    orders: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    told: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    threading.Thread(target=_follow, args=(stream, orders), daemon=True).start()
    sender = threading.Thread(target=_send, args=(stream, told), daemon=True)
    sender.start()
    serve(orders.get, told.put)
    told.put(None)
    sender.join(_SENT_S)
    sys.stderr.flush()
    os._exit(0)  # threads of libraries need not be waited for


def serve(receive: Callable[[], bytes], send: Callable[[bytes], None]) -> None:
    """Be the host that the first message says, for the messages after it.

    Args:
        receive: waits for the next message.
        send: takes one for the replay, on any thread.
    """
    threading.Thread(target=_pulse, args=(send,), daemon=True).start()  # before anything large is imported
    from backend.replicas.host import Host
    from backend.replicas.messages import Ended, Told, Unready

    def tell(message: Told) -> None:
        if isinstance(message, Unready):
            message = Unready(_plain(message.error))
        elif isinstance(message, Ended) and isinstance(message.outcome, Exception):
            message = message._replace(outcome=_plain(message.outcome))
        send(pickle.dumps(message, protocol=5))

    message = receive()
    with lasting():
        make, prepare, describe = pickle.loads(message)
    host = Host(make, prepare, describe, tell)

    def pass_on() -> None:
        while True:
            host.take(pickle.loads(receive()))

    threading.Thread(target=pass_on, daemon=True).start()
    host.run()


def _pulse(send: Callable[[bytes], None]) -> None:
    """Give signs of life while other threads load and compute."""
    from backend.replicas.messages import Alive

    alive = pickle.dumps(Alive(), protocol=5)
    while True:
        send(alive)
        time.sleep(_PULSE_S)


def _plain(error: Exception) -> Exception:
    """An error as another process can read it."""
    from policies.contract import PolicyError
    from traces.errors import BadInput

    if isinstance(error, PolicyError):
        return PolicyError(str(error))
    foreseen = isinstance(error, BadInput | MemoryError | OSError)
    return error if foreseen else RuntimeError(f"{type(error).__name__}: {error}")


def _follow(stream: Stream, orders: queue.SimpleQueue[bytes]) -> None:
    while True:
        try:
            orders.put(stream.receive())
        except (EOFError, OSError):
            os._exit(0)


def _send(stream: Stream, told: queue.SimpleQueue[bytes | None]) -> None:
    while (message := told.get()) is not None:
        try:
            stream.send(message)
        except OSError:
            os._exit(0)


if __name__ == "__main__":
    main()
