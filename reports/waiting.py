"""Why requests waited: every second in which a request was there and no launch of it ran, by what went on meanwhile.

A log says when each request came, ran and ended, and what each replica did at any time. So a second of waiting can be
held against that time: were all devices busy, with batches as large as any, was a device idle that the request was not
given, did weights come, was a replica down, or starting, or not even ordered? Each second counts once, by the first of
`CAUSES` that holds; so the shares add up to one, and no model of what might have been is needed. They say *while*, not
*because*: what one more replica would change, only a simulation tells.

The replica that matters is the one on which the request ran next; of one that never ran, its pool alone is asked.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd

from policies.run_arrays import PoolShape, RunArrays
from policies.runlog import Run
from reports.checks import checked
from reports.figures import value
from reports.formatting import format_value, percent
from reports.output_analysis import quantiles
from reports.reasons import reasons
from traces.sizes import format_size
from traces.stages import STAGES

Floats = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]

CAUSES: dict[str, str] = {
    "idle": "a device of the replica on which they were to run was idle",
    "elsewhere": "that replica was busy and another idle",
    "weights": "weights came onto that replica",
    "failed": "all devices there were busy and a replica was down",
    "starting": "all devices there were busy and a replica was starting",
    "scaled": "all devices there were busy and there were fewer replicas than there may be",
    "full": "all devices were busy, and as many requests ran together as ever did",
    "room": "all devices were busy with smaller batches",
    "busy": "all devices were busy, and the request never ran",
}
"""What went on while a request waited, by name; each second of waiting is of one of them."""

GROUPS: dict[str, tuple[str, tuple[str, ...]]] = {
    "load": ("all devices were busy", ("full", "room", "busy")),
    "policy": ("a device was idle that they were not given", ("idle", "elsewhere")),
    "weights": ("weights were loaded", ("weights",)),
    "scaling": ("replicas were starting or not yet ordered", ("starting", "scaled")),
    "failures": ("a replica was down", ("failed",)),
}
"""Causes that are mended alike, and what went on meanwhile."""

PARTS = ("size", "model", "tenant", "pool")
"""What requests can be told apart by."""

SLICES = 20
_LEAST_S = 1e-9
"""Shorter gaps between two launches are rounding."""
_LEAST_SHARE = 0.005
_FREQUENT = 0.01

_ORDER = list(CAUSES)
_IDLE, _ABSENT, _LOADS, _FULL, _ROOM = range(5)
_SOME_IDLE, _SOME_DOWN, _SOME_STARTING, _FEWER, _ALL_BUSY = range(5)
_POOL_CAUSES = {_SOME_DOWN: "failed", _SOME_STARTING: "starting", _FEWER: "scaled"}


def _cause(own: int, pool: int) -> str:
    """Of a second in which the own replica and its pool are in these states."""
    if own == _IDLE:
        return "idle"
    if own == _LOADS:
        return "weights"
    if pool == _SOME_IDLE:
        return "elsewhere"
    return _POOL_CAUSES.get(pool, "full" if own == _FULL else "room")


_OF_OWN = np.zeros((5, 5, len(CAUSES)))
"""By the states of the own replica and of the pool: 1 where a second is of that cause."""
for _own in range(5):
    for _pool in range(5):
        _OF_OWN[_own, _pool, _ORDER.index(_cause(_own, _pool))] = 1.0
_OF_POOL = np.zeros((5, len(CAUSES)))
"""The same of requests that never ran."""
for _pool in range(5):
    _OF_POOL[_pool, _ORDER.index({_SOME_IDLE: "idle", **_POOL_CAUSES}.get(_pool, "busy"))] = 1.0


@dataclass(frozen=True, eq=False)
class Waiting:
    """How long the requests of a run waited, and while what.

    Attributes:
        run: its log.
        arrays: the same, to compute figures on.
        seconds: by request in the order of the log, and by cause in that of `CAUSES`.
        largest: the most requests that ran together.
    """

    run: Run
    arrays: RunArrays
    seconds: Floats
    largest: int

    @classmethod
    def of(cls, run: Run) -> Waiting:
        """That of a run log.

        Raises:
            BadInput: the log breaks conservation.
        """
        arrays = checked(run)
        launches = _Launches.of(run, arrays)
        seconds = np.zeros((len(arrays.requests), len(CAUSES)))
        for pieces, meanwhile in _pieces(run, arrays, launches):
            np.add.at(seconds, pieces.request, meanwhile)
        return cls(run, arrays, seconds, int(launches.requests.max(initial=0)))

    @cached_property
    def total_s(self) -> Floats:
        """Seconds that each request waited."""
        return np.asarray(self.seconds.sum(axis=1))

    @property
    def mean_s(self) -> float:
        """Of all requests that came; NaN: none did."""
        return float(self.total_s[self._came].mean()) if self._came.any() else math.nan

    @property
    def share(self) -> float:
        """The part of the time in which requests were there that they waited; NaN: none was."""
        there_s = float(self.arrays.requests.latency_s[self._came].sum())
        return float(self.total_s.sum()) / there_s if there_s > 0 else math.nan

    @property
    def by_cause(self) -> dict[str, float]:
        """The share of all waiting by cause; empty: nobody waited."""
        whole = float(self.seconds.sum())
        return {} if whole <= 0 else dict(zip(_ORDER, (self.seconds.sum(axis=0) / whole).tolist(), strict=True))

    @property
    def by_group(self) -> dict[str, float]:
        """The share of all waiting by `GROUPS`, the largest first; empty: nobody waited."""
        shares = self.by_cause
        found = {name: sum([shares.get(cause, 0.0) for cause in of]) for name, (_, of) in GROUPS.items()}
        return dict(sorted(found.items(), key=lambda each: -each[1])) if shares else {}

    def by(self, part: str) -> pd.DataFrame:
        """Who waited most: a row a part, ``requests`` and ``waited_s``, the mean of each, the longest first.

        Args:
            part: one of `PARTS`; the pool is that in which each ran last.
        """
        requests = self.arrays.requests
        if part == "pool":
            firsts = np.cumsum([pool.replicas for pool in self.arrays.pools])
            codes = np.where(requests.replica < 0, -1, np.searchsorted(firsts, requests.replica, side="right"))
            names = [pool.name for pool in self.arrays.pools]
        else:
            codes = getattr(requests, part)
            names = list(map(format_size, requests.sizes)) if part == "size" else list(getattr(requests, f"{part}s"))
        known = self._came & (codes >= 0)
        frame = pd.DataFrame({"code": codes[known], "waited_s": self.total_s[known]})
        table = pd.DataFrame(frame.groupby("code")["waited_s"].agg(requests="size", waited_s="mean"))
        table.index = pd.Index([names[code] for code in table.index], name=part)
        return table.sort_values("waited_s", ascending=False, kind="stable")

    @property
    def late(self) -> tuple[int, int]:
        """How many requests finished late, and how many of them by less than they had waited."""
        requests = self.arrays.requests
        late = requests.finished & (requests.finish_s > requests.deadline_s) & ~requests.met
        by_less = late & (requests.finish_s - requests.deadline_s <= self.total_s)
        return int(late.sum()), int(by_less.sum())

    @property
    def crowded(self) -> tuple[float, float, float]:
        """The part of the time whose arrivals had half of the waiting, as a share; and the twentieth of the time whose
        arrivals waited most, from and to, in seconds. NaN: all came at once."""
        arrival_s = self.arrays.requests.arrival_s[self._came]
        if len(arrival_s) < 2 or np.ptp(arrival_s) <= 0:
            return math.nan, math.nan, math.nan
        edges = np.linspace(arrival_s.min(), arrival_s.max(), SLICES + 1)
        at = np.clip(np.searchsorted(edges, arrival_s, side="right") - 1, 0, SLICES - 1)
        waited = np.bincount(at, weights=self.total_s[self._came], minlength=SLICES)
        most = np.sort(waited)[::-1].cumsum()
        needed = int(np.searchsorted(most, most[-1] / 2)) + 1
        top = int(waited.argmax())
        return needed / SLICES, float(edges[top]), float(edges[top + 1])

    @property
    def load(self) -> float:
        """Seconds that all requests take one at a time, over those in which they came, times the replicas; NaN: not
        known, or there are several pools."""
        requests, came = self.arrays.requests, self._came
        span_s = float(np.ptp(requests.arrival_s[came])) if came.any() else 0.0
        if len(self.arrays.pools) > 1 or span_s <= 0 or not self.arrays.replicas:
            return math.nan
        return float(requests.standalone_s[came].sum()) / (span_s * self.arrays.replicas)

    def sentences(self) -> list[str]:
        """The answer in five sentences, or as many of them as there is something to say."""
        if not self._came.any():
            return ["There are no requests."]
        if not self.by_cause:
            return [f"None of the {int(self._came.sum()):,} requests waited: each ran from its arrival to its end."]
        return [
            said for said in (self._how_long(), self._while_what(), self._main(), self._who(), self._late()) if said
        ]

    @property
    def _came(self) -> npt.NDArray[np.bool_]:
        return self.arrays.requests.submitted

    def _how_long(self) -> str:
        (p95,) = quantiles(self.total_s[self._came], [0.95])
        busy = value("utilisation", self.arrays)
        devices = "" if math.isnan(busy) else f"; devices were busy for {_share(busy)} of the time"
        return (
            f"{int(self._came.sum()):,} requests waited {_seconds(self.mean_s)} in the mean (P95 {_seconds(p95)}), "
            f"{_share(self.share)} of the time that they were there{devices}."
        )

    def _while_what(self) -> str:
        told = [
            f"{_share(share)} was while {GROUPS[name][0]} ({name})"
            for name, share in self.by_group.items()
            if share >= _LEAST_SHARE
        ]
        return f"Of that waiting, {_listed(told)}."

    def _main(self) -> str:
        """What there is to know of the group of causes with the largest share."""
        of = {
            "load": self._of_load,
            "policy": self._of_policy,
            "weights": self._of_weights,
            "scaling": self._of_scaling,
            "failures": self._of_failures,
        }
        return of[next(iter(self.by_group))]()

    def _of_load(self) -> str:
        shares, told = self.by_cause, []
        if self.largest == 1:
            told.append("requests ran one at a time")
        elif (ran := shares["full"] + shares["room"]) > 0:
            told.append(
                f"the largest batch had {self.largest} requests, and for {_share(shares['full'] / ran)} of this "
                "waiting one as large was running"
            )
        if not math.isnan(self.load):
            filled = f"{self.load:.3g} times" if self.load > 1 else f"{_share(self.load)} of"
            told.append(f"served one at a time, all requests would take {filled} the time that the replicas had")
        return f"Load: {'; '.join(told)}." if told else ""

    def _of_policy(self) -> str:
        shares = self.by_cause
        where = (
            f"in {_share(shares['idle'])} of all waiting their own replica was idle, in {_share(shares['elsewhere'])} "
            "only another one"
        )
        return f"Policy: {where}; {self._scheduler} and the routing decide that."

    def _of_weights(self) -> str:
        loads, loading = value("loads", self.arrays), value("loading", self.arrays)
        return f"Weights: {loads:,.0f} loads took {_share(loading)} of the time of the replicas."

    def _of_scaling(self) -> str:
        run, shares = self.arrays, self.by_cause
        starts, mean = value("starts", run), value("replicas_mean", run)
        return (
            f"Scaling: {_share(shares['starting'])} of all waiting was while a replica was starting, "
            f"{_share(shares['scaled'])} while none was and more were allowed; {starts:,.0f} were started, "
            f"{mean:.3g} of {run.replicas:,} were paid for in the mean."
        )

    def _of_failures(self) -> str:
        failed, down = len(self.arrays.outages or ()), 1.0 - value("availability", self.arrays)
        return f"Failures: {failed:,} of them; replicas were down for {_share(down)} of the time."

    def _who(self) -> str:
        told = []
        for part in PARTS:
            table = self.by(part)
            frequent = table[table["requests"] >= _FREQUENT * table["requests"].sum()]
            if len(table) > 1 and len(frequent):
                name, waited_s = frequent.index[0], float(frequent["waited_s"].iloc[0])
                told.append(f"{part} {name or '(none)'} ({_seconds(waited_s)} in the mean)")
        share, from_s, to_s = self.crowded
        when = ""
        if not math.isnan(share):
            when = f"half of all waiting is of requests that came in {_share(share)} of the time"
            when += f", most of it of those from {_seconds(from_s)} to {_seconds(to_s)}"
        longest = f"longest waited {_listed(told)}" if told else ""
        said = "; ".join([part for part in (longest, when) if part])
        return f"{said[0].upper()}{said[1:]}." if said else ""

    def _late(self) -> str:
        requests = self.arrays.requests
        late, by_less = self.late
        told = [f"{late:,} finished late, {by_less:,} of them by less than they had waited"] if late else []
        lost = []
        if dropped := int((requests.ended_as("dropped") & self._came).sum()):
            lost.append(f"{dropped:,} dropped by {self._scheduler}{self._why_dropped()}")
        for status in ("failed", "cancelled"):
            if count := int((requests.ended_as(status) & self._came).sum()):
                lost.append(f"{count:,} {status}")
        told += [f"never finished: {_listed(lost)}"] if lost else []
        if not told and self._deadlines:
            told.append("none was late")
        said = "; ".join(told)
        return f"{said[0].upper()}{said[1:]}." if said else ""

    def _why_dropped(self) -> str:
        told = reasons(self.run)
        why = told.loc[told["status"] == "dropped", "reason"].iloc[0]
        return f" (mostly: {why})" if why else ""

    @property
    def _scheduler(self) -> str:
        return str(self.run.info.get("scheduler") or "the scheduler")

    @property
    def _deadlines(self) -> bool:
        return bool((~np.isnan(self.arrays.requests.deadline_s)).any())


def why(run: Run) -> list[str]:
    """Why the requests of a run waited, in five sentences with figures; see `Waiting` for the figures themselves.

    Raises:
        BadInput: the log breaks conservation.
    """
    return Waiting.of(run).sentences()


@dataclass(frozen=True, eq=False)
class _Launches:
    """Launches of a log, one entry each in every array, in order of their ids; ``full`` says which had as many requests
    as any of their pool."""

    replica: Whole
    start_s: Floats
    end_s: Floats
    requests: Whole
    devices: Whole
    loads: npt.NDArray[np.bool_]
    full: npt.NDArray[np.bool_]
    row: Whole  # of the first stage of each, in the table

    @classmethod
    def of(cls, run: Run, arrays: RunArrays) -> _Launches:
        steps = run.steps.reset_index(drop=True)
        grouped = steps.groupby("launch_id", sort=True)
        first = grouped.head(1).sort_values("launch_id")
        ends = grouped["end_s"].max()
        starts = grouped["start_s"].min()
        replica = first["replica"].to_numpy(np.int64)
        requests = grouped["requests"].max().to_numpy(np.int64)
        loads = first["stage"].isin(STAGES.named(lambda stage: not stage.serves)).to_numpy(bool)
        largest = np.zeros(len(first), dtype=np.int64)
        for pool in arrays.pools:
            own = np.isin(replica, arrays.replicas_of(pool))
            largest[own] = requests[own].max(initial=0)
        return cls(
            replica=replica,
            start_s=starts.to_numpy(np.float64),
            end_s=ends.to_numpy(np.float64),
            requests=requests,
            devices=np.array([max(1, len(each.split())) for each in first["devices"]], dtype=np.int64),
            loads=loads,
            full=(requests == largest) & ~loads,
            row=first.index.to_numpy(np.int64),
        )


@dataclass(frozen=True, eq=False)
class _Pieces:
    """Spans in which a request waited: whose, from, to; and the replica on which it ran next (-1: it never ran)."""

    request: Whole
    from_s: Floats
    to_s: Floats
    replica: Whole

    def where(self, chosen: npt.NDArray[np.bool_]) -> _Pieces:
        return _Pieces(self.request[chosen], self.from_s[chosen], self.to_s[chosen], self.replica[chosen])


def _waits(run: Run, arrays: RunArrays, launches: _Launches) -> _Pieces:
    """All spans in which requests waited."""
    requests = arrays.requests
    lists = run.steps["request_ids"].to_numpy()[launches.row]
    counts = np.array([len(each) for each in lists], dtype=np.int64)
    names = pd.Index(run.requests["request_id"])
    who = names.get_indexer(
        np.concatenate([np.zeros(0, dtype=object), *[np.asarray(each, dtype=object) for each in lists]])
    )
    launch = np.repeat(np.arange(len(lists)), counts)
    order = np.lexsort((launches.start_s[launch], who))
    who, launch = who[order], launch[order]
    start_s, end_s, replica = launches.start_s[launch], launches.end_s[launch], launches.replica[launch]
    first = np.concatenate([[True], who[1:] != who[:-1]]) if len(who) else np.zeros(0, dtype=bool)
    last = np.concatenate([who[1:] != who[:-1], [True]]) if len(who) else first
    before_s = np.where(first, requests.arrival_s[who], np.concatenate([[math.nan], end_s[:-1]])[: len(who)])
    never = np.setdiff1d(np.flatnonzero(requests.submitted), who)
    pieces = _Pieces(
        request=np.concatenate([who, who[last], never]),
        from_s=np.concatenate([before_s, end_s[last], requests.arrival_s[never]]),
        to_s=np.concatenate([start_s, requests.finish_s[who[last]], requests.finish_s[never]]),
        replica=np.concatenate([replica, replica[last], np.full(len(never), -1)]),
    )
    return pieces.where(pieces.to_s - pieces.from_s > _LEAST_S)


class _Meanwhile:
    """Seconds until a time in each of several states, of which one holds at any time.

    Args:
        times: from which on each state holds, ascending.
        states: by those times.
        seconds: until each of the times, by what is counted.
    """

    def __init__(self, times: Floats, states: Whole, seconds: Floats) -> None:
        self.times = times
        self.states = states
        self.seconds = seconds

    @classmethod
    def of(cls, times: Floats, states: Whole, count: int) -> _Meanwhile:
        """Of states that are counted themselves."""
        seconds = np.zeros((len(times), count))
        seconds[np.arange(1, len(times)), states[:-1]] = np.diff(times)
        return cls(times, states, seconds.cumsum(axis=0))

    def at(self, times: Floats) -> Whole:
        """Which of the states holds at each time."""
        return np.clip(np.searchsorted(self.times, times, side="right") - 1, 0, len(self.times) - 1)

    def until(self, times: Floats) -> Floats:
        """Seconds in each state until each time."""
        at = self.at(times)
        found = self.seconds[at].copy()
        found[np.arange(len(times)), self.states[at]] += times - self.times[at]
        return found


def _pieces(run: Run, arrays: RunArrays, launches: _Launches) -> Iterator[tuple[_Pieces, Floats]]:
    """Spans of waiting with the seconds by cause of each, replica by replica."""
    waits = _waits(run, arrays, launches)
    if not len(waits.request):
        return
    begin_s = float(waits.from_s.min())
    pool_of = _pool_of_model(run, arrays)[arrays.requests.model]
    for number, pool in enumerate(arrays.pools):
        members = {index: _replica(arrays, launches, index, pool, begin_s) for index in arrays.replicas_of(pool)}
        state = _pool_state(list(members.values()), pool)
        for index, member in members.items():
            own = waits.where(waits.replica == index)
            if len(own.request):
                yield own, _by_cause(member, state, own)
        never = waits.where((waits.replica < 0) & (pool_of[waits.request] == number))
        if len(never.request):
            meanwhile = state.until(never.to_s) - state.until(never.from_s)
            yield never, meanwhile @ _OF_POOL


def _pool_of_model(run: Run, arrays: RunArrays) -> Whole:
    """The number of the first pool that serves each of the run's models."""
    pools = run.info.get("pools")
    served = [set(pool.get("models") or ()) for pool in (pools if isinstance(pools, list) else [])]
    found = [[number for number, models in enumerate(served) if name in models] for name in arrays.requests.models]
    return np.array([numbers[0] if numbers else 0 for numbers in found], dtype=np.int64)


@dataclass(frozen=True, eq=False)
class _Replica:
    """What a replica did: from each time on its own state, and whether it is up, down, starting, or up and idle."""

    times: Floats
    state: Whole
    counts: Whole  # columns: up, down, starting, idle


def _replica(arrays: RunArrays, launches: _Launches, index: int, pool: PoolShape, begin_s: float) -> _Replica:
    own = launches.replica == index
    # columns: busy devices, launches, loads, full launches, down, present, starting
    changes = _Changes(7)
    ones = np.ones(int(own.sum()), dtype=np.int64)
    marks = np.stack([launches.devices[own], ones, launches.loads[own], launches.full[own]], axis=1)
    changes.add(launches.start_s[own], launches.end_s[own], marks, 0)
    for replica, from_s, to_s in arrays.outages or ():
        if replica == index:
            changes.add_one(from_s, to_s, 4)
    if arrays.lifetimes is None:
        changes.add_one(-math.inf, None, 5)
    for replica, ordered_s, ready_s, gone_s in arrays.lifetimes or ():
        if replica == index:
            if ordered_s is not None:
                changes.add_one(ordered_s, gone_s if ready_s is None else ready_s, 6)
            there_s = -math.inf if ordered_s is None else ready_s
            if there_s is not None:
                changes.add_one(there_s, gone_s, 5)
    times, now = changes.summed(begin_s)
    up = (now[:, 5] > 0) & (now[:, 4] == 0)
    idle = up & (now[:, 0] < pool.devices)
    busy = np.select([now[:, 2] > 0, now[:, 3] > 0], [_LOADS, _FULL], _ROOM)
    state = np.where(idle, _IDLE, np.where(up, busy, _ABSENT))
    down = (now[:, 4] > 0) & (now[:, 5] > 0)
    counts = np.stack([up, down, now[:, 6] > 0, idle], axis=1).astype(np.int64)
    return _Replica(times, state, counts)


class _Changes:
    """Counts that rise and fall at times."""

    def __init__(self, columns: int) -> None:
        self._columns = columns
        self._times: list[Floats] = []
        self._by: list[Whole] = []

    def add(self, from_s: Floats, to_s: Floats, marks: Whole, column: int) -> None:
        by = np.zeros((len(from_s), self._columns), dtype=np.int64)
        by[:, column : column + marks.shape[1]] = marks
        self._times += [from_s, to_s]
        self._by += [by, -by]

    def add_one(self, from_s: float, to_s: float | None, column: int) -> None:
        self.add(np.array([from_s]), np.array([math.inf if to_s is None else to_s]), np.ones((1, 1), np.int64), column)

    def summed(self, begin_s: float) -> tuple[Floats, Whole]:
        """The times at which something changes, the first ``begin_s``, and the counts from each on."""
        times = np.concatenate([[begin_s], *self._times])
        by = np.concatenate([np.zeros((1, self._columns), np.int64), *self._by])
        known, at = np.unique(np.clip(times, begin_s, None), return_inverse=True)
        counts = np.zeros((len(known), self._columns), dtype=np.int64)
        np.add.at(counts, at, by)
        finite = np.isfinite(known)
        return known[finite], counts.cumsum(axis=0)[finite]


def _pool_state(members: Iterable[_Replica], pool: PoolShape) -> _Meanwhile:
    """What the replicas of a pool did together."""
    members = list(members)
    times = np.concatenate([member.times for member in members])
    by = np.concatenate([np.diff(member.counts, axis=0, prepend=0) for member in members])
    known, at = np.unique(times, return_inverse=True)
    counts = np.zeros((len(known), 4), dtype=np.int64)
    np.add.at(counts, at, by)
    up, down, starting, idle = counts.cumsum(axis=0).T
    state = np.select(
        [idle > 0, down > 0, starting > 0, up < pool.replicas],
        [_SOME_IDLE, _SOME_DOWN, _SOME_STARTING, _FEWER],
        _ALL_BUSY,
    )
    return _Meanwhile.of(known, state, 5)


def _by_cause(replica: _Replica, pool: _Meanwhile, pieces: _Pieces) -> Floats:
    """Seconds of each piece by cause, where the own replica was one thing and its pool another."""
    until = pool.until(replica.times)
    seconds = np.zeros((len(replica.times), len(CAUSES)))
    between = np.diff(until, axis=0)
    for own in range(5):
        rows = np.flatnonzero(replica.state[:-1] == own)
        seconds[rows + 1] = between[rows] @ _OF_OWN[own]
    seconds = seconds.cumsum(axis=0)

    def up_to(times: Floats) -> Floats:
        at = np.clip(np.searchsorted(replica.times, times, side="right") - 1, 0, len(replica.times) - 1)
        rest = pool.until(times) - until[at]
        return np.asarray(seconds[at] + np.einsum("tj,tjc->tc", rest, _OF_OWN[replica.state[at]]))

    return up_to(pieces.to_s) - up_to(pieces.from_s)


def _seconds(seconds: float) -> str:
    return format_value(seconds, "s")


def _share(share: float) -> str:
    return percent(round(share, 3))


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}" if parts else ""
