"""A run as arrays: what every figure of it is computed on, be it from a run log or from a finished controller.

A run log's tables are read by people and programs; figures of a hundred simulations are wanted without making any.
Both have the same columns here, so that a figure can be defined once, whoever asks for it. What a planner leaves out,
the time until a cluster is warm, is left out by `RunArrays.between`: the same columns, fewer rows.

Times are seconds on the run's clock.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

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
        extrapolated: whether a launch of it was predicted outside the measured range.
        size: position in ``sizes``.
        checkpoint: position in ``checkpoints``.
        sizes: (height, width, frames), each once.
        checkpoints: names of weights.
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
    extrapolated: Truth
    size: Whole
    checkpoint: Whole
    sizes: tuple[Size, ...]
    checkpoints: tuple[str, ...]

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


@dataclass(frozen=True, eq=False)
class RunArrays:
    """A run, or what lies in a span of its time.

    Attributes:
        requests: those that arrived in the span: shares, latencies and delays are of these.
        ended: those that ended in the span: rates are of these.
        steps: what ran in the span; of what reaches beyond it, the part inside.
        start_s, end_s: of the span: of a whole run its first arrival and the last end of a request or launch; NaN
            without requests.
        replicas: replicas of the cluster.
        devices: per replica.
        outages: (replica, from, to) in seconds of every failure; to None: not repaired; None: there can be none.
    """

    requests: RequestArrays
    ended: RequestArrays
    steps: StepArrays
    start_s: float
    end_s: float
    replicas: int
    devices: int
    outages: Sequence[tuple[int, float, float | None]] | None = None

    @classmethod
    def whole(
        cls,
        requests: RequestArrays,
        steps: StepArrays,
        replicas: int,
        devices: int,
        outages: Sequence[tuple[int, float, float | None]] | None = None,
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
            replicas=replicas,
            devices=devices,
            outages=outages,
        )

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

        def chosen(requests: RequestArrays) -> RequestArrays:
            return requests.where(np.isin(requests.size, [requests.sizes.index(size) for size in sizes]))

        return replace(self, requests=chosen(self.requests), ended=chosen(self.ended))

    def of_replica(self, replica: int) -> RunArrays:
        """One replica, as if it were the cluster: its launches, and the requests that ran there last."""
        steps = self.steps.where(self.steps.replica == replica)
        requests, ended = (rows.where(rows.replica == replica) for rows in (self.requests, self.ended))
        outages = None if self.outages is None else [each for each in self.outages if each[0] == replica]
        return replace(self, requests=requests, ended=ended, steps=steps, replicas=1, outages=outages)

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
    )
