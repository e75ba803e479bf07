"""From what a controller holds at the end of a run to the tables of the run log. Both drivers use it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from policies.contract import Launch, Outcome
from policies.controller import LaunchRecord
from policies.job import Job
from policies.runlog import REQUEST_COLUMNS, STEP_COLUMNS
from traces.composition import Composition, spell
from traces.request import Request
from traces.stages import STAGES

Whole = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
NEVER_SUBMITTED = "the run was interrupted before it arrived"
INTERRUPTED = "the run was interrupted"
"""Why a request was cancelled that the run did not come to the end of."""


class Served(Protocol):
    """What came of a run: `policies.controller.Controller`, or `policies.events.Ledger`."""

    @property
    def jobs(self) -> Sequence[Job]: ...
    @property
    def launched(self) -> Sequence[LaunchRecord]: ...


def step_table(run: Served, extrapolates: Callable[[str, Composition], bool]) -> pd.DataFrame:
    """``steps.parquet`` of a run: one row a launch and stage, in order of the launches' starts."""
    records = sorted(run.launched, key=_launch_id)
    launches, outcomes = [record[0] for record in records], [record[1] for record in records]
    rows = _rows(records)
    batches: dict[Composition, int] = {}
    batch = _whole([batches.setdefault(launch.composition, len(batches)) for launch in launches])[rows.launch]
    images = np.array([sum([n for _, n in composition]) for composition in batches], dtype=np.int64)
    image_steps = images[batch] * rows.steps
    # where a cache counts in units of its own; a launch has at most one such stage
    cached = np.isin(rows.stage, [code for code, name in enumerate(rows.stages) if STAGES[name].cache])
    others = np.bincount(rows.launch, np.where(cached, 0, image_steps), len(records)).astype(np.int64)
    computed = _whole([outcome.computed for outcome in outcomes]) - others
    names = [[job.request.request_id for job in launch.jobs] for launch in launches]
    asked, of_asked = np.unique(rows.stage * len(batches) + batch, return_inverse=True)
    known = [(name, composition) for name in rows.stages for composition in batches]
    outside = [bool(known[each][1]) and extrapolates(*known[each]) for each in asked.tolist()]
    return pd.DataFrame(
        {
            "launch_id": _whole([launch.launch_id for launch in launches])[rows.launch],
            "replica": _whole([launch.replica for launch in launches])[rows.launch],
            "stage": _texts(rows.stages, rows.stage),
            "start_s": rows.start_s,
            "end_s": rows.end_s,
            "steps": rows.steps,
            "planned_steps": rows.planned_steps,
            "requests": _whole([len(launch.jobs) for launch in launches])[rows.launch],
            "composition": _texts([spell(composition) for composition in batches], batch),
            "request_ids": np.fromiter(names, dtype=object, count=len(names))[rows.launch],
            "predicted_s": rows.predicted_step_s * rows.steps,
            "computed": np.where(cached, np.maximum(0, computed[rows.launch]), image_steps),
            "reused": np.where(cached, _whole([outcome.reused for outcome in outcomes])[rows.launch], 0),
            "extrapolated": np.array(outside, dtype=bool)[of_asked],
            "device_s": _device_s(rows, outcomes),
            "checkpoint": _texts([_checkpoint(launch) for launch in launches], rows.launch),
        },
        columns=list(STEP_COLUMNS),
    )


class _Rows(NamedTuple):
    """One entry for every stage that a launch reached, in order; ``launch`` and ``stage`` are positions in lists."""

    launch: Whole
    stages: list[str]
    stage: Whole
    steps: Whole
    planned_steps: Whole
    predicted_step_s: Floats
    start_s: Floats
    end_s: Floats


def _rows(records: Sequence[LaunchRecord]) -> _Rows:
    # Launches that do the same share their segments, so what these say is looked up once for all of them.
    kinds: dict[int, int] = {}
    kind = _whole([kinds.setdefault(id(launch.segments), len(kinds)) for launch, _, _ in records])
    alike = {id(launch.segments): launch.segments for launch, _, _ in records}
    segments = [segment for of_kind in alike.values() for segment in of_kind]
    stages = sorted({segment.stage for segment in segments})
    codes = {name: code for code, name in enumerate(stages)}
    count = _whole([len(of_kind) for of_kind in alike.values()])
    first = np.cumsum(count) - count
    planned = _whole([segment.steps for segment in segments])
    before = np.cumsum(planned) - planned
    before -= np.repeat(before[first], count)

    launch, position = _numbered(count[kind])
    segment = first[kind][launch] + position
    steps_done = _whole([outcome.steps_done for _, outcome, _ in records])
    reached = (before[segment] < steps_done[launch]) | (position == 0)
    launch, position, segment = launch[reached], position[reached], segment[reached]

    times: list[float] = []
    for of_launch, outcome, end_s in records:
        times += (of_launch.start_s, *outcome.borders_s, end_s)
    moments = _whole([2 + len(outcome.borders_s) for _, outcome, _ in records])
    start = (np.cumsum(moments) - moments)[launch] + position
    time_s = np.array(times, dtype=np.float64)
    return _Rows(
        launch,
        stages,
        _whole([codes[each.stage] for each in segments])[segment],
        np.minimum(planned[segment], steps_done[launch] - before[segment]),
        planned[segment],
        np.array([each.predicted_step_s for each in segments], dtype=np.float64)[segment],
        time_s[start],
        time_s[start + 1],
    )


def _numbered(counts: Whole) -> tuple[Whole, Whole]:
    """For counts (2, 1): whose each is (0, 0, 1) and which of these (0, 1, 0)."""
    whose = np.repeat(np.arange(len(counts)), counts)
    return whose, np.arange(len(whose)) - (np.cumsum(counts) - counts)[whose]


def _device_s(rows: _Rows, outcomes: Sequence[Outcome]) -> Floats:
    """Busy seconds over all devices: those of a row, or where a stage uses them all what the other stages leave."""
    seconds = rows.end_s - rows.start_s
    on_all = np.isin(rows.stage, [code for code, name in enumerate(rows.stages) if STAGES[name].devices])
    if not on_all.any():
        return seconds
    shared = on_all & (_whole([len(outcome.device_s) for outcome in outcomes]) > 1)[rows.launch]
    elsewhere_s = np.bincount(rows.launch, np.where(on_all, 0.0, seconds), len(outcomes))
    whole_s = np.array([sum(outcome.device_s) for outcome in outcomes], dtype=np.float64)
    return np.where(shared, np.maximum(0.0, (whole_s - elsewhere_s)[rows.launch]), seconds)


def _launch_id(record: LaunchRecord) -> int:
    return record[0].launch_id


def _checkpoint(launch: Launch) -> str:
    return launch.jobs[0].request.checkpoint if launch.load is None else launch.load.checkpoint


def _whole(values: Sequence[int]) -> Whole:
    return np.array(values, dtype=np.int64)


def _texts(values: Sequence[str], rows: Whole) -> Any:
    """A column of text that holds ``values[row]`` for each of ``rows``."""
    return pd.array(list(values), dtype="str").take(rows)


def request_table(
    run: Served,
    trace: Sequence[Request],
    steps: pd.DataFrame,
    standalone: Callable[[Request], float],
    until_s: float = math.nan,
) -> pd.DataFrame:
    """``requests.parquet`` of a run: one row for every request of the trace, submitted or not, in trace order.

    A request that was begun several times, because its replica failed or the run was resumed, has its last job's end,
    and the first start of all. One not ended is cancelled at ``until_s``, seconds: what is known of the run ends there.
    """
    jobs = {job.request.request_id: job for job in run.jobs}
    extrapolated = {name for names in steps.loc[steps["extrapolated"], "request_ids"] for name in names}
    alone: dict[Any, float] = {}
    rows = []
    for request in trace:
        name = request.request_id
        size = (request.height, request.width, request.frames)
        key = (*size, request.images, request.steps, request.guided, request.adapters)
        if key not in alone:
            alone[key] = standalone(request)
        deadline = request.deadline
        rows.append(
            (
                name,
                request.arrival_s,
                request.height,
                request.width,
                request.frames,
                request.steps,
                request.images,
                request.model,
                request.tenant,
                request.priority,
                math.nan if deadline == math.inf else deadline,
                alone[key],
                *_fate(request, jobs.get(name), until_s),
                name in extrapolated,
                request.checkpoint,
                request.adapters,
            )
        )
    attempts = [_attempts(jobs.get(request.request_id)) for request in trace]
    columns = [*(zip(*rows, strict=True) if rows else [()] * (len(REQUEST_COLUMNS) - 1)), attempts]
    return pd.DataFrame(
        {
            name: pd.array(values, dtype="str") if dtype == "str" else np.array(values, dtype=dtype)
            for (name, dtype), values in zip(REQUEST_COLUMNS.items(), columns, strict=True)
        }
    )


def _fate(request: Request, job: Job | None, until_s: float) -> tuple[str, str, str, float, float, int, int]:
    if job is None:
        return ("cancelled", NEVER_SUBMITTED, "", math.nan, math.nan, 0, -1)
    kept = request.steps - job.request.steps  # done before a failure, and not again
    first, start_s = job, job.first_start_s
    while first.earlier is not None:
        first = first.earlier
        start_s = start_s if first.first_start_s is None else first.first_start_s
    started = math.nan if start_s is None else start_s
    if not job.ended:
        return ("cancelled", INTERRUPTED, job.note, started, until_s, kept + job.steps_done, job.replica)
    finish_s = math.nan if job.finish_s is None else job.finish_s
    return (job.state, job.reason, job.note, started, finish_s, kept + job.steps_done, job.replica)


def _attempts(job: Job | None) -> int:
    """How often a request was begun or waited for anew: 1, and as often as a replica or the run ended under it."""
    attempts = 0
    while job is not None:
        attempts += 1
        job = job.earlier
    return attempts
