"""From what a controller holds at the end of a run to its arrays, and from these to the tables of the run log.

Both drivers use it.
"""

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
from policies.run_arrays import STATUSES, RequestArrays, RunArrays, StepArrays
from policies.runlog import REQUEST_COLUMNS, STEP_COLUMNS
from traces.composition import Composition, spell
from traces.request import Request, Size
from traces.stages import STAGES

Whole = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Outage = tuple[int, float, float | None]
_STATUS = {status: code for code, status in enumerate(STATUSES)}
_CANCELLED = _STATUS["cancelled"]
NEVER_SUBMITTED = "the run was interrupted before it arrived"
INTERRUPTED = "the run was interrupted"
"""Why a request was cancelled that the run did not come to the end of."""


class Served(Protocol):
    """What came of a run: `policies.controller.Controller`, or `policies.events.Ledger`."""

    @property
    def jobs(self) -> Sequence[Job]: ...
    @property
    def launched(self) -> Sequence[LaunchRecord]: ...


def run_arrays(
    run: Served,
    trace: Sequence[Request],
    standalone: Callable[[Request], float],
    extrapolates: Callable[[str, Composition], bool],
    replicas: int,
    devices: int = 1,
    outages: Sequence[Outage] | None = None,
) -> RunArrays:
    """What figures are computed on: what the log of the run would give, without making any.

    Args:
        run: over, all of its requests ended.
        trace: its requests, submitted or not.
        standalone: predicted seconds of a request alone.
        extrapolates: whether a launch of this stage and composition lies outside what was measured.
        replicas: of the cluster.
        devices: per replica.
        outages: as the controller has them; None: there could be none.
    """
    recorded = _recorded(run, extrapolates)
    requests = _requests(run, trace, standalone, recorded.extrapolated_ids(), math.nan)
    return RunArrays.whole(requests, recorded.steps, replicas, devices, outages)


def step_table(run: Served, extrapolates: Callable[[str, Composition], bool]) -> pd.DataFrame:
    """``steps.parquet`` of a run: one row a launch and stage, in order of the launches' starts."""
    launches, rows, compositions, composition, steps = _recorded(run, extrapolates)
    names = [[job.request.request_id for job in launch.jobs] for launch in launches]
    return pd.DataFrame(
        {
            "launch_id": steps.launch,
            "replica": steps.replica,
            "stage": _texts(steps.stages, steps.stage),
            "start_s": steps.start_s,
            "end_s": steps.end_s,
            "steps": steps.steps,
            "planned_steps": rows.planned_steps,
            "requests": steps.requests,
            "composition": _texts([spell(each) for each in compositions], composition),
            "request_ids": np.fromiter(names, dtype=object, count=len(names))[rows.launch],
            "predicted_s": steps.predicted_s,
            "computed": steps.computed,
            "reused": steps.reused,
            "extrapolated": steps.extrapolated,
            "device_s": steps.device_s,
            "checkpoint": _texts(steps.checkpoints, steps.checkpoint),
        },
        columns=list(STEP_COLUMNS),
    )


class _Recorded(NamedTuple):
    """Launches in order of their ids, the stages that each went through, and these as arrays; ``composition`` is a
    position in ``compositions`` for each of them."""

    launches: list[Launch]
    rows: _Rows
    compositions: list[Composition]
    composition: Whole
    steps: StepArrays

    def extrapolated_ids(self) -> set[str]:
        """Requests of which a launch was predicted outside the measured range."""
        outside = np.unique(self.rows.launch[self.steps.extrapolated]).tolist()
        return {job.request.request_id for launch in outside for job in self.launches[launch].jobs}


def _recorded(run: Served, extrapolates: Callable[[str, Composition], bool]) -> _Recorded:
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
    asked, of_asked = np.unique(rows.stage * len(batches) + batch, return_inverse=True)
    known = [(name, composition) for name in rows.stages for composition in batches]
    outside = [bool(known[each][1]) and extrapolates(*known[each]) for each in asked.tolist()]
    checkpoints: dict[str, int] = {}
    checkpoint = _whole([checkpoints.setdefault(_checkpoint(launch), len(checkpoints)) for launch in launches])
    steps = StepArrays(
        launch=_whole([launch.launch_id for launch in launches])[rows.launch],
        replica=_whole([launch.replica for launch in launches])[rows.launch],
        stage=rows.stage,
        start_s=rows.start_s,
        end_s=rows.end_s,
        steps=rows.steps,
        requests=_whole([len(launch.jobs) for launch in launches])[rows.launch],
        mixed=np.array([len(composition) > 1 for composition in batches], dtype=bool)[batch],
        predicted_s=rows.predicted_step_s * rows.steps,
        computed=np.where(cached, np.maximum(0, computed[rows.launch]), image_steps),
        reused=np.where(cached, _whole([outcome.reused for outcome in outcomes])[rows.launch], 0),
        extrapolated=np.array(outside, dtype=bool)[of_asked],
        device_s=_device_s(rows, outcomes),
        checkpoint=checkpoint[rows.launch],
        stages=tuple(rows.stages),
        checkpoints=tuple(checkpoints),
    )
    return _Recorded(launches, rows, list(batches), batch, steps)


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
    extrapolated = {name for names in steps.loc[steps["extrapolated"], "request_ids"] for name in names}
    requests = _requests(run, trace, standalone, extrapolated, until_s)
    jobs = {job.request.request_id: job for job in run.jobs}
    told = [_told(request, jobs.get(request.request_id)) for request in trace]
    reasons, notes, steps_done = zip(*told, strict=True) if told else ((), (), ())
    columns: dict[str, Any] = {
        "request_id": [request.request_id for request in trace],
        "arrival_s": requests.arrival_s,
        "height": [request.height for request in trace],
        "width": [request.width for request in trace],
        "frames": [request.frames for request in trace],
        "steps": [request.steps for request in trace],
        "images": requests.images,
        "model": [request.model for request in trace],
        "tenant": [request.tenant for request in trace],
        "priority": [request.priority for request in trace],
        "deadline_s": requests.deadline_s,
        "standalone_s": requests.standalone_s,
        "status": [STATUSES[code] for code in requests.status.tolist()],
        "reason": reasons,
        "note": notes,
        "first_start_s": requests.first_start_s,
        "finish_s": requests.finish_s,
        "steps_done": steps_done,
        "replica": requests.replica,
        "extrapolated": requests.extrapolated,
        "checkpoint": [request.checkpoint for request in trace],
        "adapters": [request.adapters for request in trace],
        "attempts": requests.attempts,
    }
    return pd.DataFrame(
        {
            name: pd.array(list(columns[name]), dtype="str") if dtype == "str" else np.array(columns[name], dtype=dtype)
            for name, dtype in REQUEST_COLUMNS.items()
        }
    )


def _requests(
    run: Served,
    trace: Sequence[Request],
    standalone: Callable[[Request], float],
    extrapolated: set[str],
    until_s: float,
) -> RequestArrays:
    jobs = {job.request.request_id: job for job in run.jobs}
    alone: dict[Any, float] = {}
    sizes: dict[Size, int] = {}
    checkpoints: dict[str, int] = {}
    rows = []
    for request in trace:
        size = request.size
        key = (size, request.images, request.steps, request.guided, request.adapters)
        if key not in alone:
            alone[key] = standalone(request)
        rows.append(
            (
                request.arrival_s,
                request.deadline,
                alone[key],
                *_fate(jobs.get(request.request_id), until_s),
                request.images,
                sizes.setdefault(size, len(sizes)),
                checkpoints.setdefault(request.checkpoint, len(checkpoints)),
            )
        )
    arrival_s, deadline_s, standalone_s, *fates, images, size_code, checkpoint = (
        zip(*rows, strict=True) if rows else [()] * 11
    )
    status, first_start_s, finish_s, replica, attempts = fates
    due_s = np.array(deadline_s, dtype=np.float64)
    return RequestArrays(
        arrival_s=np.array(arrival_s, dtype=np.float64),
        deadline_s=np.where(np.isinf(due_s), math.nan, due_s),
        standalone_s=np.array(standalone_s, dtype=np.float64),
        first_start_s=np.array(first_start_s, dtype=np.float64),
        finish_s=np.array(finish_s, dtype=np.float64),
        status=_whole(status),
        images=_whole(images),
        attempts=_whole(attempts),
        replica=_whole(replica),
        extrapolated=np.array([request.request_id in extrapolated for request in trace], dtype=bool),
        size=_whole(size_code),
        checkpoint=_whole(checkpoint),
        sizes=tuple(sizes),
        checkpoints=tuple(checkpoints),
    )


def _fate(job: Job | None, until_s: float) -> tuple[int, float, float, int, int]:
    """Status, first start, end, replica and attempts of a request by its last job; None: it was never submitted."""
    if job is None:
        return _CANCELLED, math.nan, math.nan, -1, 0
    first, start_s, attempts = job, job.first_start_s, 1
    while first.earlier is not None:
        first = first.earlier
        attempts += 1
        start_s = start_s if first.first_start_s is None else first.first_start_s
    started = math.nan if start_s is None else start_s
    if not _over(job):
        return _CANCELLED, started, until_s, job.replica, attempts
    return _STATUS[job.state], started, math.nan if job.finish_s is None else job.finish_s, job.replica, attempts


def _over(job: Job) -> bool:
    """Whether the last job of a request has come to an end; one that its replica took along has not."""
    return job.ended and job.state != "lost"


def _told(request: Request, job: Job | None) -> tuple[str, str, int]:
    """Why a request did not finish, what else its client should know, and denoising steps done."""
    if job is None:
        return NEVER_SUBMITTED, "", 0
    kept = request.steps - job.request.steps  # done before a failure, and not again
    return job.reason if _over(job) else INTERRUPTED, job.note, kept + job.steps_done
