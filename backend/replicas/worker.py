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
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection

_SENT_S = 30.0


def main() -> None:
    """Serve until told to end, or until the other process is gone."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    connection = Connection(int(sys.argv[1]))
    orders: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    told: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    threading.Thread(target=_follow, args=(connection, orders), daemon=True).start()
    sender = threading.Thread(target=_send, args=(connection, told), daemon=True)
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
        send: takes one for the replay; called on this thread.
    """
    from backend.replicas.host import Host
    from backend.replicas.messages import Ended, Told, Unready

    def tell(message: Told) -> None:
        if isinstance(message, Unready):
            message = Unready(_plain(message.error))
        elif isinstance(message, Ended) and isinstance(message.outcome, Exception):
            message = message._replace(outcome=_plain(message.outcome))
        send(pickle.dumps(message, protocol=5))

    make, prepare, describe = pickle.loads(receive())
    host = Host(make, prepare, describe, tell)

    def pass_on() -> None:
        while True:
            host.take(pickle.loads(receive()))

    threading.Thread(target=pass_on, daemon=True).start()
    host.run()


def _plain(error: Exception) -> Exception:
    """An error as another process can read it."""
    from policies.contract import PolicyError
    from traces.errors import BadInput

    if isinstance(error, PolicyError):
        return PolicyError(str(error))
    foreseen = isinstance(error, BadInput | MemoryError | OSError)
    return error if foreseen else RuntimeError(f"{type(error).__name__}: {error}")


def _follow(connection: Connection, orders: queue.SimpleQueue[bytes]) -> None:
    while True:
        try:
            orders.put(connection.recv_bytes())
        except (EOFError, OSError):
            os._exit(0)


def _send(connection: Connection, told: queue.SimpleQueue[bytes | None]) -> None:
    while (message := told.get()) is not None:
        try:
            connection.send_bytes(message)
        except OSError:
            os._exit(0)


if __name__ == "__main__":
    main()
