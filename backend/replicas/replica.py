"""A replica as the replay holds it, whatever carries the messages to where its model lies."""

from __future__ import annotations

import threading
from collections.abc import Callable

from backend.replicas.host import Describe, Host, Make, nothing
from backend.replicas.messages import Asked, Told

Hear = Callable[[Told], None]
"""Takes what a replica tells, on any thread."""


class ServingReplica:
    """Base of the ways to reach a replica. It can be started again when it was lost or killed.

    Args:
        make: makes what carries out launches.
        prepare: warms it up.
        describe: what it says of itself at the end.

    Attributes:
        bare: makes it after a failure, without what lies there from the beginning; None: as ever.
    """

    bare: Make | None = None

    def __init__(self, make: Make, prepare: Describe = nothing, describe: Describe = nothing) -> None:
        self.make = make
        self.prepare = prepare
        self.describe = describe

    def start(self, hear: Hear, failed: bool = False) -> None:
        """Begin to load its model.

        Args:
            hear: told what becomes of it.
            failed: it comes back after a failure.
        """
        raise NotImplementedError

    def tell(self, message: Asked) -> None:
        """Pass a message on; one to a replica that is gone is lost with it."""
        raise NotImplementedError

    def kill(self) -> None:
        """End it at once, whatever it computes."""
        raise NotImplementedError

    def join(self, timeout_s: float) -> None:
        """Wait until it has left, and do not leave it behind."""
        raise NotImplementedError


class ThreadReplica(ServingReplica):
    """On a thread of this process: for one replica, which has nobody to share the interpreter with."""

    def start(self, hear: Hear, failed: bool = False) -> None:
        self._host = Host(self.make, self.prepare, self.describe, hear)
        self._thread = threading.Thread(target=self._host.run, daemon=True)
        self._thread.start()

    def tell(self, message: Asked) -> None:
        self._host.take(message)

    def kill(self) -> None:
        raise RuntimeError("a replica on a thread cannot be killed")

    def join(self, timeout_s: float) -> None:
        self._thread.join(timeout_s)
