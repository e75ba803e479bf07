"""A replica that is not in this process: its messages go through a channel, to a process or to a Ray actor."""

from __future__ import annotations

import contextlib
import sys
import threading
from typing import Any, Protocol

import cloudpickle

from backend.replicas.host import Describe, Make, nothing
from backend.replicas.messages import Alive, Asked, Left, Lost, Told, Unready
from backend.replicas.replica import Hear, ServingReplica

SILENCE_S = 60.0
"""The longest that a replica may give no sign of life, where nothing else is said."""


class Channel(Protocol):
    """Carries messages to the host of a replica and back. What it is given to carry are bytes of cloudpickle."""

    def send(self, message: bytes) -> None:
        """Pass a message on.

        Raises:
            OSError: the other side is gone.
        """

    def receive(self) -> bytes:
        """Wait for the next message.

        Raises:
            EOFError: the other side is gone; the message says how.
            TimeoutError: it has shown no sign of life for too long; the message says for how long.
        """

    def kill(self) -> None:
        """End the other side at once."""

    def close(self, timeout_s: float) -> None:
        """Wait for its end for so long, then end it; nothing of it is left."""


class RemoteReplica(ServingReplica):
    """A replica at the other end of a channel, which subclasses open.

    It gives signs of life while it loads and computes. One that gives none for too long has stopped, or its machine
    has: it is ended, and lost like one that died.

    Args:
        make: makes what carries out launches.
        prepare: warms it up.
        describe: what it says of itself at the end.
        silence_s: so long may it give no sign of life, once it has given one.
    """

    def __init__(
        self, make: Make, prepare: Describe = nothing, describe: Describe = nothing, silence_s: float = SILENCE_S
    ) -> None:
        super().__init__(make, prepare, describe)
        self.silence_s = silence_s
        self._channel: Channel | None = None

    def connect(self) -> Channel:
        """A new process, or what else there may be, and the way to it.

        Raises:
            BadInput: there is none to be had.
        """
        raise NotImplementedError

    def start(self, hear: Hear, failed: bool = False) -> None:
        if self._channel is not None:
            self._channel.close(0.0)
        make = (self.bare if failed else None) or self.make
        self._channel = channel = self.connect()
        threading.Thread(target=self._listen, args=(channel, hear), daemon=True).start()
        _send(channel, dumped((make, self.prepare, self.describe)))

    def tell(self, message: Asked) -> None:
        if self._channel is not None:
            _send(self._channel, dumped(message))

    def kill(self) -> None:
        if self._channel is not None:
            self._channel.kill()

    def join(self, timeout_s: float) -> None:
        if self._channel is not None:
            self._channel.close(timeout_s)

    def _listen(self, channel: Channel, hear: Hear) -> None:
        while True:
            try:
                told: Told = cloudpickle.loads(channel.receive())
            except TimeoutError as silence:
                channel.kill()  # it may wake up
                hear(Lost(str(silence)))
                return
            except EOFError as end:
                hear(Lost(str(end) or "it is gone"))
                return
            if isinstance(told, Alive):
                continue
            hear(told)
            if isinstance(told, Left | Unready):
                return


def _send(channel: Channel, message: bytes) -> None:
    with contextlib.suppress(OSError):  # it is gone, as whoever listens hears
        channel.send(message)


def dumped(value: Any) -> bytes:
    """A value for another process; what is of a user's policy files travels whole, as nobody can import it there."""
    own = [module for name, module in list(sys.modules.items()) if name.startswith("user_policy_")]
    for module in own:
        cloudpickle.register_pickle_by_value(module)
    try:
        return cloudpickle.dumps(value)
    finally:
        for module in own:
            cloudpickle.unregister_pickle_by_value(module)
