"""Messages over a socket between two processes of this machine: eight bytes of length, then as many of message."""

from __future__ import annotations

import socket
import time

_LENGTH = 8
_STOOD_STILL_S = 0.5
"""Who wakes so much later than a wait ends stood still itself, as the other may have on a machine that stalls."""


class Stream:
    """One end of it.

    Args:
        connection: to the other process; its timeout bounds how long one that is silent, or takes nothing, is waited
            for.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def send(self, message: bytes) -> None:
        """Pass a message on, one thread at a time.

        Raises:
            OSError: the other process is gone, or takes nothing for too long (TimeoutError).
        """
        self._connection.sendall(len(message).to_bytes(_LENGTH, "big"))
        self._connection.sendall(message)

    def receive(self) -> bytes:
        """Wait for the next message.

        Raises:
            EOFError: the other process is gone.
            TimeoutError: nothing has come for too long.
        """
        return bytes(self._bytes(int.from_bytes(self._bytes(_LENGTH), "big")))

    def _bytes(self, count: int) -> bytearray:
        found = bytearray(count)
        rest = memoryview(found)
        while rest:
            began = time.monotonic()
            try:
                got = self._connection.recv_into(rest)
            except TimeoutError:
                if time.monotonic() - began > (self._connection.gettimeout() or 0.0) + _STOOD_STILL_S:
                    continue
                raise
            except ConnectionError as error:
                raise EOFError("the connection is broken") from error
            if not got:
                raise EOFError("the connection has ended")
            rest = rest[got:]
        return found
