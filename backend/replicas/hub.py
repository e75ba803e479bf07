"""Several launches at once on one thread: each waits for the devices that compute it, and the others go on meanwhile.

What is computed is elsewhere (`backend.devices.servers`). Here pipelines and samplers of all requests live, which take
turns: a launch runs until it has to wait for an answer, and goes on when it is there.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from queue import Empty, SimpleQueue
from socket import socket
from typing import Any

from greenlet import getcurrent, greenlet


class _Carrying(greenlet):
    """A launch that is being carried out."""

    hub: greenlet


class LaunchHub:
    """Carries out launches side by side."""

    def __init__(self) -> None:
        self._woken, self._wake = os.pipe()
        self._waiting: dict[socket, _Carrying] = {}

    def wake(self) -> None:
        """There is a new order; on any thread."""
        os.write(self._wake, b".")

    def wait_for(self, connection: socket) -> None:
        """Wait until there is something to read; other launches go on."""
        current = getcurrent()
        if isinstance(current, _Carrying):
            current.hub.switch(connection)
        else:  # before anything is served
            select.select([connection], [], [])

    def run(self, orders: SimpleQueue[Any], carry_out: Callable[[Any], None], is_launch: Callable[[Any], bool]) -> None:
        """Carry out orders as they come, until one that is no launch has come and all before it are done.

        Args:
            orders: whoever adds one calls `wake`.
            carry_out: what is done with one.
            is_launch: whether it is to be carried out.
        """
        ending = False
        while True:
            try:
                while not ending:
                    order = orders.get_nowait()
                    ending = not is_launch(order)
                    if not ending:
                        launch = _Carrying(carry_out)
                        launch.hub = getcurrent()
                        self._go_on(launch, order)
            except Empty:
                pass
            if ending and not self._waiting:
                return
            closed = [connection for connection in self._waiting if connection.fileno() < 0]
            watched: list[Any] = [self._woken, *self._waiting]
            ready = closed or select.select(watched, [], [])[0]
            for each in ready:
                if each == self._woken:
                    os.read(self._woken, 4096)
                else:
                    self._go_on(self._waiting.pop(each))

    def _go_on(self, launch: _Carrying, *order: Any) -> None:
        connection = launch.switch(*order)
        if not launch.dead:
            self._waiting[connection] = launch
