"""What a controller holds at the end of a run, as arrays: figures of 100,000 requests then take tenths of a second."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from policies.controller import Controller, LaunchRecord
from policies.job import Job
from traces.composition import Composition
from traces.stages import STAGES

Numbers = npt.NDArray[np.float64]

ROUNDING_S = 1e-9
"""Seconds past its deadline at which a request still counts as in time, as in reports."""


class Requests:
    """All requests of a run, in order of arrival; one whose replica failed counts once, with its last attempt's end.

    Attributes:
        arrival_s, start_s, end_s: times; ``start_s`` is NaN where it never started.
        state: ``finished``, ``dropped``, ``failed`` or ``cancelled``.
        finished: whether.
        met: whether in time; one without deadline only has to finish.
        images: pictures of each.
        size: (height, width, frames) of each.
    """

    def __init__(self, controller: Controller) -> None:
        jobs = sorted([j for j in controller.jobs if j.state != "lost"], key=lambda job: job.request.arrival_s)
        asked = [job.request for job in jobs]
        self.arrival_s: Numbers = np.array([request.arrival_s for request in asked], dtype=float)
        self.start_s: Numbers = np.array([_first(job).first_start_s for job in jobs], dtype=float)
        self.end_s: Numbers = np.array([job.finish_s for job in jobs], dtype=float)
        self.state = np.array([job.state for job in jobs], dtype=object)
        self.finished = self.state == "finished"
        deadline_s = np.array([request.deadline for request in asked], dtype=float)
        self.met = self.finished & (self.end_s <= deadline_s + ROUNDING_S)
        self.images: Numbers = np.array([job.images for job in jobs], dtype=float)
        self.size = [request.size for request in asked]


class Launches:
    """All launches of a run, and the stages that each went through.

    Attributes:
        start_s, end_s: of each launch.
        replica: which it ran on.
        busy_s: device seconds of each.
        served_s: replica seconds of each that requests had; loading a model has none.
        asked_s: arrival of each job of the controller.
        work_s: replica seconds that it took; those of a batch share them evenly.
    """

    def __init__(self, controller: Controller) -> None:
        self._records = controller.launched
        self._tiled: list[LaunchRecord] = []
        starts, replicas, requests, busy, orders = [], [], [], [], []
        # One entry a stage that a launch reached, in order; its last one ends with the launch.
        reached, stages = [], []
        to: list[float] = []
        for record in self._records:
            launch, outcome, end_s = record
            jobs, borders_s, device_s = launch.jobs, outcome.borders_s, outcome.device_s
            starts.append(launch.start_s)
            replicas.append(launch.replica)
            requests.append(len(jobs))
            orders.extend([job.order for job in jobs])
            if len(device_s) > 1:
                self._tiled.append(record)
            busy.append(sum(device_s) if device_s else end_s - launch.start_s)
            reached.append(1 + len(borders_s))
            stages.extend([segment.stage for segment in launch.segments[: 1 + len(borders_s)]])
            to.extend(borders_s)
            to.append(end_s)
        self._names = {name: code for code, name in enumerate(sorted(set(stages)))}
        self._stage = np.array([self._names[name] for name in stages], dtype=int)
        self._launch = np.repeat(np.arange(len(starts)), reached)
        self._requests = np.array(requests, dtype=int)
        self._to_s: Numbers = np.array(to, dtype=float)
        lasts = np.cumsum(reached, dtype=int) - 1
        self.start_s: Numbers = np.array(starts, dtype=float)
        self.end_s = self._to_s[lasts]
        self._from_s: Numbers = np.roll(self._to_s, 1)
        self._from_s[lasts - np.array(reached, dtype=int) + 1] = self.start_s
        self.replica = np.array(replicas, dtype=int)
        self.busy_s: Numbers = np.array(busy, dtype=float)
        took_s = self.end_s - self.start_s
        self.served_s: Numbers = np.where(self._requests > 0, took_s, 0.0)
        self.asked_s: Numbers = np.array([job.request.arrival_s for job in controller.jobs], dtype=float)
        self.work_s: Numbers = np.zeros(len(controller.jobs))
        each_s = took_s / np.maximum(self._requests, 1)
        np.add.at(self.work_s, np.array(orders, dtype=int), np.repeat(each_s, self._requests))

    def within(self, start_s: float, end_s: float) -> Numbers:
        """Device seconds of each launch between two times."""
        return self.rate * _overlap(self.start_s, self.end_s, start_s, end_s)

    @property
    def rate(self) -> Numbers:
        """Devices busy in each launch, mean over its time."""
        took_s = self.end_s - self.start_s
        return np.divide(self.busy_s, took_s, out=np.zeros_like(took_s), where=took_s > 0)

    def by_stage(self, start_s: float, end_s: float) -> dict[str, float]:
        """Replica seconds of each stage between two times."""
        seconds_s = _overlap(self._from_s, self._to_s, start_s, end_s)
        return {name: float(seconds_s[self._stage == code].sum()) for name, code in self._names.items()}

    def batches(self, start_s: float, end_s: float) -> tuple[float, int, float]:
        """Requests in a denoising launch between two times: mean by time, most, share of the time with the most."""
        denoising = np.isin(self._stage, [code for name, code in self._names.items() if STAGES[name].sampler])
        seconds = _overlap(self._from_s, self._to_s, start_s, end_s)[denoising]
        requests = self._requests[self._launch[denoising]]
        total = seconds.sum()
        if not total:
            return math.nan, 0, math.nan
        most = int(requests[seconds > 0].max())
        return float(requests @ seconds / total), most, float(seconds[requests == most].sum() / total)

    def imbalance(self) -> float:
        """Seconds of the busiest device over the mean of all devices of its replica, in refinement; NaN without."""
        busiest = mean = 0.0
        for launch, outcome, end_s in self._tiled:
            times = (launch.start_s, *outcome.borders_s, end_s)
            stages = zip(launch.segments, times, times[1:], strict=False)
            others_s = sum([to_s - from_s for segment, from_s, to_s in stages if not STAGES[segment.stage].devices])
            devices = [outcome.device_s[0] - others_s, *outcome.device_s[1:]]
            busiest += max(devices)
            mean += sum(devices) / len(devices)
        return busiest / mean if mean > 1e-9 else math.nan

    def share_of_time(self, chosen: Callable[[str, Composition], bool]) -> float:
        """Share of all time that launches of a chosen stage and composition took; loading is never chosen."""
        known = lru_cache(maxsize=None)(chosen)
        names = list(self._names)
        inside = np.zeros(len(self._stage), dtype=bool)
        for entry, (launch, stage) in enumerate(zip(self._launch.tolist(), self._stage.tolist(), strict=True)):
            composition = self._records[launch][0].composition
            inside[entry] = bool(composition) and known(names[stage], composition)
        seconds = self._to_s - self._from_s
        return float(seconds[inside].sum() / seconds.sum()) if seconds.sum() else 0.0


def area(times_s: Numbers, at_s: Numbers, weights: Numbers | None = None) -> Numbers:
    """Integral up to each of ``at_s`` of a count that grows by one (or a weight) at each of ``times_s``.

    Times that are NaN never come. All levels over time are differences of such areas, exactly: requests in the system
    are arrivals less ends; busy devices are the integral of starts less ends, and so forth.
    """
    there = ~np.isnan(times_s)
    times_s, weights = times_s[there], np.ones(int(there.sum())) if weights is None else weights[there]
    order = np.argsort(times_s, kind="stable")
    times_s, weights = times_s[order], weights[order]
    so_far = np.searchsorted(times_s, at_s, side="right")
    total = np.concatenate([[0.0], np.cumsum(weights)])[so_far]
    moment = np.concatenate([[0.0], np.cumsum(weights * times_s)])[so_far]
    return total * at_s - moment


def _first(job: Job) -> Job:
    while job.earlier is not None:
        job = job.earlier
    return job


def _overlap(from_s: Numbers, to_s: Numbers, start_s: float, end_s: float) -> Numbers:
    return to_s.clip(start_s, end_s) - from_s.clip(start_s, end_s)
