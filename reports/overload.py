"""Whether more was asked of a run than it served: then no figure of it is one of a steady state.

The trap: a trace ends, the queue is worked off, and the run log of a cluster that is asked for three times what it can
do looks like any other, with a latency that only says how long the trace was. So the log is asked whether a backlog
grew for as long as requests arrived.

The backlog is of *late* requests: those that are still there when, alone on an idle replica, they would have ended.
What a cluster merely has in hand is none, however short the trace. The time of the arrivals is cut into equal slices;
the backlog grows when its mean increase a slice is surely above zero by Student's interval over slices
(`reports.output_analysis.interval`). A burst raises one slice, a peak in the middle is worked off again, starting empty
raises the first slice: none of these makes the mean significant.

What a scheduler drops leaves no backlog and was asked for all the same. So dropped requests are taken for ones that
stay, less those that there would have been time for: what devices were idle, held against the device time that a
request took. Requests that could not have been in time even alone are not counted; no cluster serves them.

Pools that serve no model in common are asked one by one: what is too much for one is none the less so because another,
which cannot help it, is idle.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from policies.run_arrays import DEADLINE_SLACK_S, Floats, RequestArrays, RunArrays, Truth
from reports.output_analysis import interval

SLICES = 20
CONFIDENCE = 0.95

LEAST_SHARE = 0.04
"""A backlog of a smaller share of what arrived is no overload: 4 % more than is served."""

MOST_WAITING = 0.2
"""A trace that ends with a larger share of its requests late is too short to say anything lasting."""

FEW = 4
"""A backlog of so few requests says nothing."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """What was left undone when the last request arrived.

    Attributes:
        arrived: requests that would have ended by then, had each been alone.
        late: of these, those that had not.
        dropped: those that the scheduler had dropped, although alone they would have been in time.
        undone: late ones, and of the dropped as many as there was no time for.
        grows: whether the backlog grew all the time, so that it has no end, or would have without drops.
    """

    arrived: int
    late: int
    dropped: int
    undone: int
    grows: bool

    @property
    def load(self) -> float:
        """How many times as fast requests arrived as they were served; 1: the queue did not grow."""
        served = self.arrived - self.undone
        return self.arrived / served if served else float("inf")


def backlogs(run: RunArrays, served: Mapping[str, Collection[str]]) -> dict[tuple[str, ...], Backlog]:
    """The backlog of each part of a cluster that shares nothing with the others, by the names of its models.

    Args:
        run: arrays of the whole run.
        served: names of the models that each pool serves, by its name; empty: the cluster is one, and has no name.
    """
    parts = _apart(served)
    if len(parts) < 2:
        return {(): backlog(run)}
    return {models: backlog(run.of_part(pools, models)) for pools, models in parts}


def served_by(info: Mapping[str, Any]) -> dict[str, list[str]]:
    """Names of the models that each pool serves, from ``run.json``; empty: it does not say."""
    pools = info.get("pools")
    served = {str(pool["name"]): list(pool.get("models") or ()) for pool in (pools if isinstance(pools, list) else [])}
    return served if all(served.values()) else {}


def _apart(served: Mapping[str, Collection[str]]) -> list[tuple[set[str], tuple[str, ...]]]:
    """Pools that are connected by models they share, and these models, in order."""
    parts: list[tuple[set[str], set[str]]] = []
    for pool, models in served.items():
        joined = [part for part in parts if part[1].intersection(models)]
        parts = [part for part in parts if part not in joined]
        parts.append(({pool}.union(*[part[0] for part in joined]), set(models).union(*[part[1] for part in joined])))
    return [(pools, tuple(sorted(models))) for pools, models in parts]


def backlog(run: RunArrays) -> Backlog:
    """The backlog of a run at its last arrival, or when it was interrupted."""
    asked = run.requests.where(run.requests.submitted)
    if not len(asked):
        return Backlog(0, 0, 0, 0, False)
    arrival_s = asked.arrival_s
    due_s = np.sort(np.minimum(arrival_s + np.nan_to_num(asked.standalone_s), asked.finish_s))
    end_s = np.sort(asked.finish_s)
    edges = np.linspace(arrival_s.min(), arrival_s.max(), SLICES + 1)
    due = np.searchsorted(due_s, edges, side="right")
    late = due - np.searchsorted(end_s, edges, side="right")
    arrived, left = int(due[-1]), int(late[-1])
    hopeless = arrival_s + asked.standalone_s > asked.deadline_s + DEADLINE_SLACK_S
    dropped = asked.ended_as("dropped") & (asked.standalone_s > 0) & ~hopeless
    by_then = np.searchsorted(np.sort(asked.finish_s[dropped]), edges, side="right")
    undone = late + by_then - _spare(run, asked, dropped, edges) if dropped.any() else late.astype(np.float64)
    most = max(left, min(arrived, round(float(undone[-1]))))
    grows = any(
        each[-1] > max(FEW, LEAST_SHARE * arrived) and interval(np.diff(each).tolist(), CONFIDENCE).low > 0
        for each in (late, undone)
    )
    return Backlog(arrived, left, int(by_then[-1]), most, grows)


def _spare(run: RunArrays, asked: RequestArrays, dropped: Truth, edges: Floats) -> Floats:
    """How many of the dropped requests the devices that were idle until each time would have served."""
    steps, lives = run.steps, run.lives()
    devices = np.repeat([pool.devices for pool in run.pools], [pool.replicas for pool in run.pools])
    there_s = _until(lives.ready_s, lives.to_s, lives.devices.astype(np.float64), edges)
    for replica, from_s, to_s in run.outages or ():
        ends_s = run.end_s if to_s is None else to_s
        at = replica - run.first
        there_s -= _until(np.array([from_s]), np.array([ends_s]), np.array([float(devices[at])]), edges)
    took_s = np.maximum(steps.seconds, 1e-12)
    idle_s = np.maximum(0.0, there_s - _until(steps.start_s, steps.end_s, steps.device_s / took_s, edges))
    alone_s = np.nan_to_num(asked.standalone_s)
    served_s, lost_s = float(alone_s[asked.finished].sum()), float(alone_s[dropped].mean())
    each_s = lost_s * (float(steps.device_s.sum()) / served_s if served_s > 0 else float(devices.mean()))
    return idle_s / each_s


def _until(from_s: Floats, to_s: Floats, weight: Floats, times: Floats) -> Floats:
    """Weighted seconds of spans that lie before each time."""
    return np.array([float((weight * np.clip(at - from_s, 0.0, to_s - from_s)).sum()) for at in times])
