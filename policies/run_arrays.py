"""A run as arrays: what every figure of it is computed on, be it from a run log or from a finished controller.

A run log's tables are read by people and programs; figures of a hundred simulations are wanted without making any.
Both have the same columns here, so that a figure can be defined once, whoever asks for it. What a planner leaves out,
the time until a cluster is warm, is left out by `RunArrays.between`: the same columns, fewer rows.

Times are seconds on the run's clock.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from policies.pool import Pool
from policies.scaling.elastic import Lifetime
from traces.request import Size

Floats = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]
Truth = npt.NDArray[np.bool_]

STATUSES = ("finished", "dropped", "failed", "cancelled")
"""How a request can end."""

DEADLINE_SLACK_S = 1e-9
"""Seconds past its deadline at which a request still counts as in time: rounding of arrival + SLO."""

_Table = TypeVar("_Table", bound="_Rows")


@dataclass(frozen=True, eq=False)
class _Rows:
    def where(self: _Table, chosen: Truth) -> _Table:
        """The rows that are chosen."""
        at, columns = np.flatnonzero(chosen), [getattr(self, field.name) for field in fields(self)]
        return type(self)(*[column.take(at) if isinstance(column, np.ndarray) else column for column in columns])


@dataclass(frozen=True, eq=False)
class RequestArrays(_Rows):
    """Requests, one entry each in every array, in the order of the trace.

    Attributes:
        arrival_s: when each arrived.
        deadline_s: by when each should finish; NaN: it has no deadline.
        standalone_s: predicted seconds of each alone on an idle replica; NaN: unknown.
        first_start_s: NaN: never started.
        finish_s: when each ended, however it ended; NaN: never submitted, because the run was interrupted.
        status: position in `STATUSES`.
        images: pictures of each.
        attempts: how often each was begun, see `policies.runlog`.
        replica: where each ran last; -1: nowhere.
        way: position in ``ways``.
        extrapolated: whether a launch of it was predicted outside the measured range.
        size: position in ``sizes``.
        checkpoint: position in ``checkpoints``.
        model: position in ``models``.
        tenant: position in ``tenants``.
        sizes: (height, width, frames), each once.
        checkpoints: names of weights.
        models: names of models.
        tenants: names of tenants.
        ways: replicas that a request ran on, one for each of its legs.
    """

    arrival_s: Floats
    deadline_s: Floats
    standalone_s: Floats
    first_start_s: Floats
    finish_s: Floats
    status: Whole
    images: Whole
    attempts: Whole
    replica: Whole
    way: Whole
    extrapolated: Truth
    size: Whole
    checkpoint: Whole
    model: Whole
    tenant: Whole
    sizes: tuple[Size, ...]
    checkpoints: tuple[str, ...]
    models: tuple[str, ...]
    tenants: tuple[str, ...]
    ways: tuple[tuple[int, ...], ...]

    def __len__(self) -> int:
        return len(self.arrival_s)

    @property
    def finished(self) -> Truth:
        """Whether each finished."""
        return self.status == 0

    @property
    def submitted(self) -> Truth:
        """Whether each was asked for: not so what had not arrived when a run was interrupted."""
        return ~np.isnan(self.finish_s)

    @property
    def met(self) -> Truth:
        """Whether each finished within its deadline, or finished and has none."""
        late = self.finish_s > self.deadline_s + DEADLINE_SLACK_S
        return self.finished & ~late

    @property
    def latency_s(self) -> Floats:
        """Seconds from arrival to end of each, however it ended."""
        return self.finish_s - self.arrival_s

    def ran_on(self, replicas: Collection[int]) -> Truth:
        """Whether each ran on one of these; what was begun again after a failure, whether its last attempt did."""
        through = np.array([not set(replicas).isdisjoint(way) for way in self.ways], dtype=bool)
        return through[self.way] if len(through) else np.zeros(len(self), dtype=bool)

    def renumbered(self, numbers: Whole) -> RequestArrays:
        """The same with other numbers for the replicas."""
        ways = tuple([tuple(numbers[list(way)].tolist()) for way in self.ways])
        return replace(self, replica=numbers[self.replica], ways=ways)

    def ended_as(self, status: str) -> Truth:
        """Whether each ended so, one of `STATUSES`."""
        return self.status == STATUSES.index(status)


@dataclass(frozen=True, eq=False)
class StepArrays(_Rows):
    """Launches by stage, one entry in every array for each stage that a launch went through, in order of their starts.

    Attributes:
        launch: ids of launches.
        replica: which each ran on.
        stage: position in ``stages``.
        start_s, end_s: of each.
        steps: whole steps done.
        requests: served together; 0: it loads weights.
        mixed: whether these were of several sizes.
        predicted_s: the policy's prediction for the steps done; NaN: none.
        computed, reused: units, see `policies.runlog`.
        extrapolated: whether each was predicted outside the measured range.
        device_s: busy seconds over all devices of the replica.
        moved_bytes: of its requests, that it brought from elsewhere.
        checkpoint: whose weights ran, or were loaded: position in ``checkpoints``.
        stages: names, each once.
        checkpoints: names of weights.
    """

    launch: Whole
    replica: Whole
    stage: Whole
    start_s: Floats
    end_s: Floats
    steps: Whole
    requests: Whole
    mixed: Truth
    predicted_s: Floats
    computed: npt.NDArray[Any]
    reused: npt.NDArray[Any]
    extrapolated: Truth
    device_s: Floats
    moved_bytes: npt.NDArray[Any]
    checkpoint: Whole
    stages: tuple[str, ...]
    checkpoints: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.start_s)

    @property
    def seconds(self) -> Floats:
        """That each took."""
        return self.end_s - self.start_s

    def of(self, *stages: str) -> Truth:
        """Whether each is of one of these stages."""
        return np.isin(self.stage, [code for code, name in enumerate(self.stages) if name in stages])

    @property
    def predicted(self) -> Truth:
        """Whether the prediction of each can be judged: it has one, and did a step that took time."""
        return ~np.isnan(self.predicted_s) & (self.steps > 0) & (self.end_s > self.start_s)


class PoolShape(NamedTuple):
    """How much there is of a pool.

    Attributes:
        name: empty where it is the only one.
        replicas: how many.
        devices: of each replica.
        price_per_hour: of each device, in any currency; NaN: unknown.
    """

    name: str
    replicas: int
    devices: int = 1
    price_per_hour: float = math.nan

    @classmethod
    def of(cls, pool: Pool) -> PoolShape:
        """The shape of a pool."""
        return cls(pool.name, pool.replicas, pool.devices, pool.price_per_hour)


class Lives(NamedTuple):
    """What is paid for of replicas within the span of a run, an entry for every time that one was there.

    Attributes:
        replica: which.
        from_s, ready_s, to_s: when it is paid for, and from when on it takes requests.
        devices: of it.
        price_per_hour: of it, in any currency; NaN: unknown.
    """

    replica: Whole
    from_s: Floats
    ready_s: Floats
    to_s: Floats
    devices: Whole
    price_per_hour: Floats

    @property
    def paid_s(self) -> Floats:
        """Seconds that are paid for."""
        return self.to_s - self.from_s

    @property
    def starting_s(self) -> Floats:
        """Of them, those until it takes requests."""
        return self.ready_s - self.from_s


@dataclass(frozen=True, eq=False)
class RunArrays:
    """A run, or what lies in a span of its time.

    Attributes:
        requests: those that arrived in the span: shares, latencies and delays are of these.
        ended: those that ended in the span: rates are of these.
        steps: what ran in the span; of what reaches beyond it, the part inside.
        start_s, end_s: of the span: of a whole run its first arrival and the last end of a request or launch; NaN
            without requests.
        pools: of the cluster; replicas are numbered through them.
        outages: (replica, from, to) in seconds of every failure; to None: not repaired; None: there can be none.
        lifetimes: of all replicas where some come and go, see `policies.scaling.elastic.Lifetime`; None: all are there.
        first: number of the first replica.
    """

    requests: RequestArrays
    ended: RequestArrays
    steps: StepArrays
    start_s: float
    end_s: float
    pools: Sequence[PoolShape]
    outages: Sequence[tuple[int, float, float | None]] | None = None
    lifetimes: Sequence[Lifetime] | None = None
    first: int = 0

    @classmethod
    def whole(
        cls,
        requests: RequestArrays,
        steps: StepArrays,
        pools: Sequence[PoolShape],
        outages: Sequence[tuple[int, float, float | None]] | None = None,
        lifetimes: Sequence[Lifetime] | None = None,
    ) -> RunArrays:
        """A run from beginning to end."""
        ends = np.concatenate([requests.finish_s, steps.end_s])
        ends = ends[~np.isnan(ends)]
        known = len(requests) > 0 and len(ends) > 0
        start_s, end_s = (float(requests.arrival_s.min()), float(ends.max())) if known else (math.nan, math.nan)
        return cls(
            requests=requests,
            ended=requests,
            steps=steps,
            start_s=start_s,
            end_s=end_s,
            pools=pools,
            outages=outages,
            lifetimes=lifetimes,
        )

    def lives(self) -> Lives:
        """What is paid for of each replica within the span."""
        lifetimes = self.lifetimes
        if lifetimes is None:
            lifetimes = [(self.first + each, None, None, None) for each in range(self.replicas)]
        begin, end = self.start_s, self.end_s
        spans = []
        for replica, ordered, ready, gone in lifetimes:
            from_s, to_s = (-math.inf if ordered is None else ordered), (math.inf if gone is None else gone)
            ready_s = from_s if ordered is None else to_s if ready is None else ready
            spans.append((replica, *[min(end, max(begin, at)) for at in (from_s, ready_s, to_s)]))
        columns = np.array(spans, dtype=np.float64).reshape(-1, 4).T
        replica = columns[0].astype(np.int64)
        devices = np.repeat([pool.devices for pool in self.pools], [pool.replicas for pool in self.pools])
        price = np.repeat([pool.price_per_hour for pool in self.pools], [pool.replicas for pool in self.pools])
        at = replica - self.first
        return Lives(replica, columns[1], columns[2], columns[3], devices[at], price[at] * devices[at])

    @property
    def replicas(self) -> int:
        """Of all pools."""
        return sum([pool.replicas for pool in self.pools])

    @property
    def devices(self) -> int:
        """Of all replicas."""
        return sum([pool.replicas * pool.devices for pool in self.pools])

    def replicas_of(self, pool: PoolShape) -> range:
        """The replicas of a pool."""
        at = self.pools.index(pool)
        first = sum([before.replicas for before in self.pools[:at]])
        return range(first, first + pool.replicas)

    @property
    def span_s(self) -> float:
        """Seconds of the span."""
        return self.end_s - self.start_s

    def between(self, start_s: float, end_s: float) -> RunArrays:
        """What lies between two times; between the ends of the whole run that is the whole run, to the last bit."""
        requests, ended, steps = self.requests, self.ended, self.steps
        arrived = (requests.arrival_s >= start_s) & (requests.arrival_s <= end_s)
        done = (ended.finish_s >= start_s) & (ended.finish_s <= end_s)
        return replace(
            self,
            requests=requests.where(arrived),
            ended=ended.where(done),
            steps=_clipped(steps, start_s, end_s),
            start_s=start_s,
            end_s=end_s,
        )

    def of_sizes(self, sizes: Sequence[Size]) -> RunArrays:
        """With the requests of these sizes alone; launches are those of all."""
        return self.of_requests(lambda rows: np.isin(rows.size, [rows.sizes.index(size) for size in sizes]))

    def of_requests(self, chosen: Callable[[RequestArrays], Truth]) -> RunArrays:
        """With the requests alone that are chosen; launches are those of all."""
        requests, ended = (rows.where(chosen(rows)) for rows in (self.requests, self.ended))
        return replace(self, requests=requests, ended=ended)

    def of_replica(self, replica: int) -> RunArrays:
        """One replica, as if it were the cluster: its launches, and the requests that ran there."""
        (pool,) = [pool for pool in self.pools if replica in self.replicas_of(pool)]
        return self._of_replicas([replica], pool._replace(replicas=1))

    def of_pool(self, pool: PoolShape) -> RunArrays:
        """One pool, as if it were the cluster: its launches, and the requests that ran there."""
        return self._of_replicas(self.replicas_of(pool), pool)

    def _of_replicas(self, replicas: Sequence[int], pool: PoolShape) -> RunArrays:
        steps = self.steps.where(np.isin(self.steps.replica, replicas))
        requests, ended = (rows.where(rows.ran_on(replicas)) for rows in (self.requests, self.ended))
        outages = None if self.outages is None else [each for each in self.outages if each[0] in replicas]
        lifetimes = None if self.lifetimes is None else [each for each in self.lifetimes if each[0] in replicas]
        return replace(
            self,
            requests=requests,
            ended=ended,
            steps=steps,
            pools=(pool,),
            outages=outages,
            lifetimes=lifetimes,
            first=min(replicas),
        )

    def of_model(self, model: str, launches: Sequence[int], pools: Collection[str]) -> RunArrays:
        """One model, as if the pools that serve it were the cluster and served nothing else.

        Args:
            model: whose requests.
            launches: ids of its launches.
            pools: names of the pools that serve it.
        """
        shapes = [pool for pool in self.pools if pool.name in pools]
        numbers = [number for pool in shapes for number in self.replicas_of(pool)]
        numbered = np.full(self.replicas + 1, -1, dtype=np.int64)  # -1, nowhere, stays what it is
        numbered[numbers] = np.arange(len(numbers))
        code = self.requests.models.index(model) if model in self.requests.models else -1
        own = (rows.where(rows.model == code) for rows in (self.requests, self.ended))
        requests, ended = (rows.renumbered(numbered) for rows in own)
        steps = self.steps.where(np.isin(self.steps.launch, launches))
        steps = replace(steps, replica=numbered[steps.replica])
        return replace(self, requests=requests, ended=ended, steps=steps, pools=shapes)

    def of_part(self, pools: Collection[str], models: Collection[str]) -> RunArrays:
        """A part of the cluster that shares nothing with the rest, as if replicas of other pools had never been there.

        Args:
            pools: names of its pools.
            models: those that these serve, and no other pool.
        """
        there = {number for pool in self.pools if pool.name in pools for number in self.replicas_of(pool)}
        codes = [code for code, model in enumerate(self.requests.models) if model in models]
        lifetimes = self.lifetimes
        if lifetimes is None:
            lifetimes = [(self.first + number, None, None, None) for number in range(self.replicas)]
        return replace(
            self.of_requests(lambda rows: np.isin(rows.model, codes)),
            steps=self.steps.where(np.isin(self.steps.replica, list(there))),
            outages=None if self.outages is None else [each for each in self.outages if each[0] in there],
            lifetimes=[each for each in lifetimes if each[0] in there],
        )

    def of_steps(self, chosen: Truth) -> RunArrays:
        """With the launches alone that are chosen; requests are all."""
        return replace(self, steps=self.steps.where(chosen))


def _clipped(steps: StepArrays, start_s: float, end_s: float) -> StepArrays:
    """The part of every launch that lies between two times; what it did, it did evenly."""
    within = (steps.end_s >= start_s) & (steps.start_s <= end_s)
    within &= (np.minimum(steps.end_s, end_s) > np.maximum(steps.start_s, start_s)) | (steps.end_s == steps.start_s)
    whole = steps.where(within)
    from_s, to_s = np.maximum(whole.start_s, start_s), np.minimum(whole.end_s, end_s)
    took_s = whole.seconds
    share = np.divide(to_s - from_s, took_s, out=np.ones(len(took_s)), where=took_s > 0)
    return replace(
        whole,
        start_s=from_s,
        end_s=to_s,
        predicted_s=whole.predicted_s * share,
        computed=whole.computed * share,
        reused=whole.reused * share,
        device_s=whole.device_s * share,
        moved_bytes=whole.moved_bytes * share,
    )
