"""Replications of a demand: as many traces like a given one as a statement with a confidence interval needs.

A recorded trace is one draw of what users ask for. Drawing single requests anew would lose what makes it hard to serve:
bursts, and the course of the day. So whole blocks are drawn, with everything in them: arrivals, sizes, steps, images,
checkpoints, deadlines (moving-block bootstrap, Künsch 1989; in a circle, Politis and Romano 1992).

For one seed the first n requests of a longer replication are those of a shorter one, so that a horizon can be doubled
without starting over, and candidates that are compared see the same requests (common random numbers).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd

from traces.errors import BadInput
from traces.streams import stream
from traces.trace import Trace
from traces.workload import Workload

DAY_S = 86400.0
LEAST_DAYS = 2
"""Whole days that a trace must hold for its days to be drawn rather than runs of requests."""

_EVEN = 1e-9  # rounding of a ratio of rates
_CHUNK = 1000  # requests, about, of a workload that are drawn at a time


@dataclass(frozen=True, eq=False)
class Bootstrap:
    """Replications made of blocks of a trace: its days if it holds at least two, else runs of requests.

    Attributes:
        trace: what was recorded.

    Raises:
        BadInput: fewer than 2 requests, or all at one time.
    """

    trace: Trace

    def __post_init__(self) -> None:
        arrival = self._arrival
        if len(arrival) < 2 or not arrival[-1] > arrival[0]:
            raise BadInput(f"{self.trace.source}: replications need requests at two times or more")

    @property
    def days(self) -> int:
        """Whole days of the trace, from time 0 of its clock."""
        return int(self._arrival[-1] // DAY_S)

    @property
    def daily(self) -> bool:
        """Whether days are drawn."""
        return self.days >= LEAST_DAYS

    @property
    def block(self) -> int:
        """Requests of a run where no days are drawn: the root of how many there are."""
        return math.isqrt(len(self.trace) - 1) + 1

    @property
    def recorded(self) -> int:
        """Requests that replications are drawn from."""
        return int(np.searchsorted(self._arrival, self.days * DAY_S)) if self.daily else len(self.trace)

    @property
    def rate_rps(self) -> float:
        """Requests a second, in the mean of all blocks."""
        arrival = self._arrival
        if self.daily:
            return float(np.searchsorted(arrival, self.days * DAY_S)) / (self.days * DAY_S)
        return float((len(arrival) - 1) / (arrival[-1] - arrival[0]))

    @property
    def how(self) -> str:
        """How a replication comes about."""
        if self.daily:
            return f"days drawn with replacement from the {self.days} whole days of the trace"
        return f"runs of {self.block} requests drawn with replacement from the {len(self.trace)} of the trace"

    def draw(self, requests: int, seed: int) -> Trace:
        """The first ``requests`` requests of replication ``seed``; ids are row numbers.

        Raises:
            BadInput: ``requests`` is below 1.
        """
        if requests < 1:
            raise BadInput(f"cannot draw {requests} requests, expected at least 1")
        rng = stream(seed, "bootstrap")
        blocks = self._days(rng) if self.daily else self._runs(rng)
        rows: list[npt.NDArray[np.intp]] = []
        times: list[npt.NDArray[np.float64]] = []
        drawn = 0
        while drawn < requests:
            which, arrivals = next(blocks)
            rows.append(which)
            times.append(arrivals)
            drawn += len(which)
        chosen, arrival = np.concatenate(rows)[:requests], np.concatenate(times)[:requests]
        return self.trace.rearranged(chosen, arrival)

    def _days(self, rng: np.random.Generator) -> Iterator[tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]]:
        edges = np.searchsorted(self._arrival, np.arange(self.days + 1) * DAY_S)
        start_s = 0.0
        while True:
            day = int(rng.integers(self.days))
            rows = np.arange(edges[day], edges[day + 1])
            yield rows, start_s + (self._arrival[rows] - day * DAY_S)
            start_s += DAY_S

    def _runs(self, rng: np.random.Generator) -> Iterator[tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]]:
        count = len(self._arrival)
        gaps = np.diff(self._arrival, prepend=self._arrival[0] - 1 / self.rate_rps)
        start_s = 0.0
        while True:
            rows = (int(rng.integers(count)) + np.arange(self.block)) % count
            arrival = start_s + np.cumsum(gaps[rows])
            yield rows, arrival
            start_s = float(arrival[-1])

    @cached_property
    def _arrival(self) -> npt.NDArray[np.float64]:
        return self.trace.frame["arrival_s"].to_numpy()


@dataclass(frozen=True)
class Fitted:
    """Replications drawn from a workload.

    Attributes:
        workload: what is drawn from.
        recorded: requests of the trace that it was fitted to; infinity: none, it is what is meant.
    """

    workload: Workload
    recorded: float = math.inf

    @property
    def rate_rps(self) -> float:
        """Requests a second."""
        return self.workload.rate

    @property
    def daily(self) -> bool:
        """Whether demand has a course of the day."""
        return self.workload.arrivals.profile is not None

    @property
    def how(self) -> str:
        """How a replication comes about."""
        return f"drawn from a fitted workload with {self.workload.arrivals.burst.spell()} arrivals"

    def draw(self, requests: int, seed: int) -> Trace:
        """The first ``requests`` requests of replication ``seed``; ids are row numbers.

        Raises:
            BadInput: ``requests`` is below 1.
        """
        if requests < 1:
            raise BadInput(f"cannot draw {requests} requests, expected at least 1")
        span_s = _CHUNK / self.workload.rate
        if self.daily:
            span_s = DAY_S * math.ceil(span_s / DAY_S)
        frames, drawn, number = [], 0, 0
        while drawn < requests:
            part = self.workload.generate(span_s, rng=stream(seed, f"workload/{number}")).frame
            frames.append(part.assign(arrival_s=part["arrival_s"] + number * span_s))
            drawn += len(part)
            number += 1
        frame = pd.concat(frames, ignore_index=True).head(requests)
        return Trace.from_frame(frame.assign(request_id=[str(row) for row in range(1, requests + 1)]), "workload")


def draws_at(demand: Bootstrap | Fitted, rate_rps: float, span_s: float, seed: int) -> Iterator[Trace]:
    """A draw of a demand until a time, at another rate than its own: one trace, or several that are to be merged.

    Demand without a course of the day is taken faster or slower. Where it has one, so many independent draws are laid
    over each other as the rate takes, the last one thinned, so that noon stays noon.

    Args:
        demand: what is drawn.
        rate_rps: requests a second, in the mean.
        span_s: seconds from the beginning to the end.
        seed: the same draws the same.
    """
    factor = rate_rps / demand.rate_rps
    if not demand.daily:
        yield _until(demand, span_s * factor, seed).scale_rate(factor)
        return
    for copy in range(math.ceil(factor - _EVEN)):
        part, share = _until(demand, span_s, 1_000_003 * copy + seed), factor - copy
        if share < 1 - _EVEN:
            rows = np.flatnonzero(stream(seed, "bootstrap/thinned").random(len(part)) < share)
            part = part.rearranged(rows, part.frame["arrival_s"].to_numpy()[rows])
        yield part


def _until(demand: Bootstrap | Fitted, span_s: float, seed: int) -> Trace:
    """The requests of a draw that arrive before a time."""
    count = math.ceil(span_s * demand.rate_rps) + 1
    while (found := demand.draw(count, seed)).span[1] < span_s:
        count *= 2
    return found.slice(0.0, span_s, rebase=False)
