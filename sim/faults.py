"""What goes wrong in a simulation: replicas fail and are repaired, some run slowly for a while, clients give up.

Every source draws from a random stream of its own, ``faults/<replica>/...`` and ``faults/patience``, so that two
schedulers meet the same failures at the same times.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count

from sim.driver import Happening
from traces.errors import BadInput
from traces.request import Request
from traces.streams import stream

_Change = tuple[float, int, float]
"""Seconds, a number that orders what happens at once, and what changes: +1 down, -1 up, or a factor of pace."""


@dataclass(frozen=True)
class Faults:
    """What goes wrong, all times in seconds on the trace's clock.

    Attributes:
        mtbf_s: mean time between failures of a replica that works, exponential; None: none fails by chance.
        repair_s: from a failure to the end of its repair.
        cold_start_s: what a replica needs from its repair until it takes work.
        starts_cold: whether all replicas need that at the beginning, too.
        outages: failures at given times, like ``600:0:300``: start, replica, seconds until it is repaired.
        straggler_every_s: mean time between the slow spells of a replica, exponential; None: none is slow by chance.
        straggler_for_s: mean length of a spell, exponential.
        straggler_slowdown: every step takes so many times as long in a spell.
        slow: spells at given times, like ``600:0:300:2``: start, replica, seconds, slowdown.
        patience_s: mean time after which a client leaves who has not got its pictures, exponential; None: all wait.

    Raises:
        BadInput: a time or a factor that cannot be.
    """

    mtbf_s: float | None = None
    repair_s: float = 300.0
    cold_start_s: float = 0.0
    starts_cold: bool = False
    outages: tuple[str, ...] = ()
    straggler_every_s: float | None = None
    straggler_for_s: float = 60.0
    straggler_slowdown: float = 2.0
    slow: tuple[str, ...] = ()
    patience_s: float | None = None

    def __post_init__(self) -> None:
        for text in self.outages:
            _numbers("faults.outages", text, "start:replica:seconds, like 600:0:300", 3)
        for text in self.slow:
            _numbers("faults.slow", text, "start:replica:seconds:slowdown, like 600:0:300:2", 4)

    def check(self, replicas: int) -> None:
        """Raise BadInput for the first outage or spell of a replica that is not there."""
        for field, texts in (("faults.outages", self.outages), ("faults.slow", self.slow)):
            for text in texts:
                if not 0 <= (replica := float(text.split(":")[1])) < replicas or replica % 1:
                    raise BadInput(f"{field}: {text!r} names replica {replica:g}, expected 0 to {replicas - 1}")

    def happenings(self, replicas: int, requests: Sequence[Request], seed: int) -> Iterator[Happening]:
        """All of it in order of time; endless when something happens by chance.

        Args:
            replicas: of the cluster.
            requests: of the trace.
            seed: of the random streams.
        """
        sources: list[Iterable[Happening]] = [self._cancelled(requests, seed)]
        for replica in range(replicas):
            sources += [self._downs(replica, seed), self._paces(replica, seed)]
        return heapq.merge(*sources, key=_time)

    def _cancelled(self, requests: Sequence[Request], seed: int) -> list[Happening]:
        if self.patience_s is None:
            return []
        patience = stream(seed, "faults/patience").exponential(self.patience_s, len(requests)).tolist()
        leaving = [
            Happening(request.arrival_s + after, "cancel", request_id=request.request_id)
            for request, after in zip(requests, patience, strict=True)
        ]
        return sorted(leaving, key=_time)

    def _downs(self, replica: int, seed: int) -> Iterator[Happening]:
        """Failures of a replica; those that overlap are one."""
        planned: list[_Change] = [(0.0, -1, 1), (self.cold_start_s, -1, -1)] if self.starts_cold else []
        for at, text in enumerate(self.outages):
            start, of, seconds = map(float, text.split(":"))
            if of == replica:
                planned += [(start, at, 1), (start + seconds + self.cold_start_s, at, -1)]
        depth = 0
        for at_s, _, change in heapq.merge(sorted(planned), self._chance_failures(replica, seed)):
            before, depth = depth, depth + int(change)
            if not (before and depth):
                yield Happening(at_s, "down" if depth else "up", replica)

    def _chance_failures(self, replica: int, seed: int) -> Iterator[_Change]:
        if self.mtbf_s is None:
            return
        rng = stream(seed, f"faults/{replica}/failures")
        now = 0.0
        for number in count(len(self.outages)):
            now += float(rng.exponential(self.mtbf_s))
            yield now, number, 1
            now += self.repair_s + self.cold_start_s
            yield now, number, -1

    def _paces(self, replica: int, seed: int) -> Iterator[Happening]:
        """Slow spells of a replica; where several overlap their slowdowns multiply."""
        planned: list[_Change] = []
        for at, text in enumerate(self.slow):
            start, of, seconds, slowdown = map(float, text.split(":"))
            if of == replica:
                planned += [(start, at, slowdown), (start + seconds, at, 1.0)]
        running: dict[int, float] = {}
        for at_s, number, slowdown in heapq.merge(sorted(planned), self._chance_spells(replica, seed)):
            running[number] = slowdown
            if slowdown == 1.0:
                del running[number]
            pace = 1.0
            for factor in running.values():
                pace *= factor
            yield Happening(at_s, "pace", replica, max(1, round(1000 * pace)))

    def _chance_spells(self, replica: int, seed: int) -> Iterator[_Change]:
        if self.straggler_every_s is None:
            return
        rng = stream(seed, f"faults/{replica}/stragglers")
        now = 0.0
        for number in count(len(self.slow)):
            now += float(rng.exponential(self.straggler_every_s))
            yield now, number, self.straggler_slowdown
            now += float(rng.exponential(self.straggler_for_s))
            yield now, number, 1.0


def _time(happening: Happening) -> float:
    return happening.at_s


def _numbers(field: str, text: str, right: str, count: int) -> None:
    try:
        values = [float(part) for part in text.split(":")]
    except ValueError:
        values = []
    positive = values[2:]
    if len(values) != count or not values[0] >= 0 or not all(0 < value < float("inf") for value in positive):
        raise BadInput(f"{field}: {text!r}, expected {right}")
