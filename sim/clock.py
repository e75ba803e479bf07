"""What the simulator adds to SimPy: the ends of launches as events, and a shorter loop over events that cannot fail."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop
from typing import Any

import simpy
from simpy.events import Event

from policies.contract import Launch
from sim.world import StepClock

Part = tuple[str, int, int, int, StepClock, list[int]]
"""A segment of a launch in simulated terms: stage, steps, picoseconds in all, nanoseconds a step without noise, noise;
where steps differ (with a cache, in refinement), the picoseconds to the end of each of them instead of the nanoseconds.
"""


class Clock(simpy.Environment):
    """SimPy's environment, with a shorter way through events that cannot fail."""

    def run_callbacks(self) -> None:
        """What `run` does as long as no process runs: only in these an exception becomes an event that has failed."""
        queue = self._queue
        while queue:
            self._now, _, _, event = heappop(queue)
            callbacks, event.callbacks = event.callbacks, None  # type: ignore[assignment]
            for callback in callbacks:
                callback(event)


class Due(Event):
    """Something that is going to happen at a time that is known: what `simpy.Timeout` is, less what is not used."""

    _value = None
    _ok = True
    _defused = False

    def __init__(self, env: simpy.Environment, callback: Callable[[Any], None]) -> None:
        self.env = env
        self.callbacks = [callback]


class End(Due):
    """The scheduled end of a launch after ``steps`` steps. A recall replaces it by an earlier one."""

    def __init__(
        self,
        env: simpy.Environment,
        on_end: Callable[[Any], None],
        launch: Launch,
        start: int,
        parts: list[Part],
        steps: int,
    ) -> None:
        self.env = env
        self.callbacks = [on_end]
        self.launch = launch
        self.start = start
        self.parts = parts
        self.steps = steps
