"""What goes wrong: replicas fail and are repaired, some run slowly for a while, clients give up.

Every source draws from a random stream of its own, ``faults/<replica>/...`` and ``faults/patience``, so that two
schedulers meet the same failures at the same times. The clock of all of it starts at the first request: a trace that
counts seconds since 1970 has no failures to catch up with.
"""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple

from traces.errors import BadInput
from traces.limits import POSITIVE_SPAN, REPLICAS, SLOWDOWN, SPAN, Range
from traces.request import Request
from traces.streams import stream

MOST_HAPPENINGS = 10_000_000
"""Of the replicas of a simulation, beyond which it would take hours."""
REPLICA = Range(0, REPLICAS.most, whole=True)

_Planned = tuple[int, float, list[float]]
"""Its place in the scenario, when it starts, and how long and how much."""
_Change = tuple[float, int, float]
"""Seconds, a number that orders what happens at once, and what changes: +1 down, -1 up, or a factor of slowdown."""


class Happening(NamedTuple):
    """Something that happens to the cluster or a client, at a time in seconds.

    ``what`` is ``down`` or ``up`` (``replica`` fails, is repaired), ``slowdown`` (every step of ``replica`` takes so
    many thousandths of its time from now on), or ``cancel`` (the client of ``request_id`` leaves).
    """

    at_s: float
    what: str
    replica: int = -1
    slowdown: int = 1000
    request_id: str = ""


@dataclass(frozen=True)
class Faults:
    """What goes wrong, all times in seconds from the first request on.

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
        self._planned("faults.outages", self.outages)
        self._planned("faults.slow", self.slow)

    def check(self, replicas: int, span_s: float) -> None:
        """Raise BadInput for an outage or spell of a replica that is not there, or for more than can be simulated.

        Args:
            replicas: replicas of the cluster.
            span_s: from the first request to the last.
        """
        for field, texts in (("faults.outages", self.outages), ("faults.slow", self.slow)):
            for replica, planned in self._planned(field, texts).items():
                if replica >= replicas:
                    text = texts[planned[0][0]]
                    raise BadInput(f"{field}: {text!r} names replica {replica}, expected 0 to {replicas - 1}")
        failing_s = math.inf if self.mtbf_s is None else self.mtbf_s + self.repair_s + self.cold_start_s
        slowing_s = math.inf if self.straggler_every_s is None else self.straggler_every_s + self.straggler_for_s
        expected = 2 * replicas * span_s * (1 / failing_s + 1 / slowing_s)
        if expected > MOST_HAPPENINGS:
            raise BadInput(
                f"faults: {replicas} replicas fail, slow down and recover about {expected:,.0f} times in the "
                f"{span_s:,.0f} s of the trace, expected at most {MOST_HAPPENINGS:,}; raise faults.mtbf_s or "
                "faults.straggler_every_s, or take a part of the trace (trace.end_s)"
            )

    def happenings(self, replicas: int, requests: Sequence[Request], seed: int) -> Iterator[Happening]:
        """All of it in order of time; endless when something happens by chance.

        Args:
            replicas: replicas of the cluster.
            requests: requests of the trace.
            seed: seed of the random streams.
        """
        start_s = requests[0].arrival_s if requests else 0.0
        outages = self._planned("faults.outages", self.outages)
        slow = self._planned("faults.slow", self.slow)
        sources: list[Iterable[Happening]] = []
        for replica in range(replicas):
            sources += [self._downs(replica, outages[replica], seed), self._slowdowns(replica, slow[replica], seed)]
        of_replicas = (one._replace(at_s=start_s + one.at_s) for one in heapq.merge(*sources, key=_time))
        return heapq.merge(self._cancelled(requests, seed), of_replicas, key=_time)

    def _cancelled(self, requests: Sequence[Request], seed: int) -> list[Happening]:
        if self.patience_s is None:
            return []
        patience = stream(seed, "faults/patience").exponential(self.patience_s, len(requests)).tolist()
        leaving = [
            Happening(request.arrival_s + after, "cancel", request_id=request.request_id)
            for request, after in zip(requests, patience, strict=True)
        ]
        return sorted(leaving, key=_time)

    def _planned(self, field: str, texts: Sequence[str]) -> defaultdict[int, list[_Planned]]:
        """What is to happen at given times, by replica."""
        right = "start:replica:seconds, like 600:0:300"
        limits = [SPAN, REPLICA, POSITIVE_SPAN]
        if field == "faults.slow":
            right = "start:replica:seconds:slowdown, like 600:0:300:2"
            limits.append(SLOWDOWN)
        found: defaultdict[int, list[_Planned]] = defaultdict(list)
        for at, text in enumerate(texts):
            start, replica, *spell = _numbers(field, text, right, limits)
            found[int(replica)].append((at, start, spell))
        return found

    def _downs(self, replica: int, outages: list[_Planned], seed: int) -> Iterator[Happening]:
        """Failures of a replica; those that overlap are one."""
        planned: list[_Change] = [(0.0, -1, 1), (self.cold_start_s, -1, -1)] if self.starts_cold else []
        for at, start, [seconds] in outages:
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

    def _slowdowns(self, replica: int, slow: list[_Planned], seed: int) -> Iterator[Happening]:
        """Slow spells of a replica; where several overlap their slowdowns multiply."""
        planned: list[_Change] = []
        for at, start, [seconds, slowdown] in slow:
            planned += [(start, at, slowdown), (start + seconds, at, 1.0)]
        running: dict[int, float] = {}
        for at_s, number, slowdown in heapq.merge(sorted(planned), self._chance_spells(replica, seed)):
            running[number] = slowdown
            if slowdown == 1.0:
                del running[number]
            slowdown = 1.0
            for factor in running.values():
                slowdown = min(slowdown * factor, SLOWDOWN.most)
            yield Happening(at_s, "slowdown", replica, max(1, round(1000 * slowdown)))

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


def _numbers(field: str, text: str, right: str, limits: Sequence[Range]) -> list[float]:
    try:
        values = [float(part) for part in text.split(":")]
    except ValueError:
        values = []
    if len(values) != len(limits):
        raise BadInput(f"{field}: {text!r}, expected {right}")
    for value, limit in zip(values, limits, strict=True):
        if not limit.holds(value):
            raise BadInput(f"{field}: {value:g} in {text!r}, expected {limit}")
    return values
