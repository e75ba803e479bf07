"""From what a controller holds at the end of a run to its arrays, and from these to the tables of the run log.

Both drivers use it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from itertools import chain
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from policies.contract import Launch, LaunchWork, Outcome, joined
from policies.controller import Controller, LaunchRecord
from policies.events import Ledger
from policies.job import Job
from policies.legs import standalone_on
from policies.pool import Pool, extrapolates_on
from policies.run_arrays import STATUSES, PoolShape, RequestArrays, RunArrays, StepArrays
from policies.runlog import REQUEST_COLUMNS, STEP_COLUMNS
from policies.scaling.elastic import Lifetime
from traces.composition import Composition, format_composition
from traces.request import Request
from traces.stages import STAGES

Whole = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Outage = tuple[int, float, float | None]
_STATUS = {status: code for code, status in enumerate(STATUSES)}
"""Codes of the states in which a request has ended; one whose replica took it along has not."""
_CANCELLED = _STATUS["cancelled"]
_ROUNDING = 1e-9
"""Sums of the same seconds in another order differ in their last digits."""
NEVER_SUBMITTED = "the run was interrupted before it arrived"
INTERRUPTED = "the run was interrupted"
"""Why a request was cancelled that the run did not come to the end of."""
Extrapolates = Callable[[str, Launch], bool]
Served = Controller | Ledger
"""What came of a run: its jobs, and the launches that ended."""


def run_arrays(
    run: Served,
    trace: Sequence[Request],
    pools: Sequence[Pool],
    outages: Sequence[Outage] | None = None,
    lifetimes: Sequence[Lifetime] | None = None,
) -> RunArrays:
    """What figures are computed on: what the log of the run would give, without making any.

    Args:
        run: over, all of its requests ended.
        trace: its requests, submitted or not.
        pools: of the cluster, with what was known of costs before it ran.
        outages: as the controller has them; None: there could be none.
        lifetimes: as the controller has them; None: all replicas were always there.
    """
    recorded = _recorded(run, extrapolates_on(pools))
    requests = _requests(run, trace, standalone_on(pools), recorded.extrapolated_ids(), math.nan)
    return RunArrays.whole(requests, recorded.steps, [PoolShape.of(pool) for pool in pools], outages, lifetimes)


def step_table(run: Served, extrapolates: Extrapolates) -> pd.DataFrame:
    """``steps.parquet`` of a run: one row a launch and stage, in order of the launches' starts.

    Args:
        run: over.
        extrapolates: whether a stage of a launch lies outside what was measured.
    """
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
            "composition": _texts([format_composition(each) for each in compositions], composition),
            "request_ids": np.fromiter(names, dtype=object, count=len(names))[rows.launch],
            "predicted_s": steps.predicted_s,
            "computed": steps.computed,
            "reused": steps.reused,
            "extrapolated": steps.extrapolated,
            "device_s": steps.device_s,
            "checkpoint": _texts(steps.checkpoints, steps.checkpoint),
            "devices": _spelled_devices(launches, rows),
            "moved_bytes": steps.moved_bytes,
        },
        columns=list(STEP_COLUMNS),
    )


class _Recorded(NamedTuple):
    """Launches in order of their ids, the stages that each went through, and these as arrays; ``composition`` is a
    position in ``compositions`` for each of them."""

    launches: list[Launch]
    rows: _Rows
    compositions: tuple[Composition, ...]
    composition: Whole
    steps: StepArrays

    def extrapolated_ids(self) -> set[str]:
        """Requests of which a launch was predicted outside the measured range."""
        outside = np.unique(self.rows.launch[self.steps.extrapolated]).tolist()
        return {job.request.request_id for launch in outside for job in self.launches[launch].jobs}


def _recorded(run: Served, extrapolates: Extrapolates) -> _Recorded:
    records = sorted(run.launched, key=_launch_id)
    launches = [record[0] for record in records]
    of_launch, of_outcome = _columns(Launch, launches), _columns(Outcome, [record[1] for record in records])
    works = _Works.of(of_launch["work"])
    rows = _rows(works, of_launch, of_outcome, [record[2] for record in records])
    codes, batches = _coded([work.batch.composition for work in works.values])
    batch = codes[works.codes[rows.launch]]
    images = np.array([sum([n for _, n in composition]) for composition in batches], dtype=np.int64)
    image_steps = images[batch] * rows.steps
    # where a cache counts in units of its own; a launch has at most one such stage
    cached = np.isin(rows.stage, [code for code, name in enumerate(rows.stages) if STAGES[name].cache])
    others = np.bincount(rows.launch, np.where(cached, 0, image_steps), len(records)).astype(np.int64)
    computed = _whole(of_outcome["computed"]) - others
    replica = _whole(of_launch["replica"])[rows.launch]
    # launches of one replica that compute the same are asked about once
    alike = (replica * len(works.values) + works.codes[rows.launch]) * len(rows.stages) + rows.stage
    _, first, of_asked = np.unique(alike, return_index=True, return_inverse=True)
    outside = [
        bool(launches[launch].composition) and extrapolates(rows.stages[stage], launches[launch])
        for launch, stage in zip(rows.launch[first].tolist(), rows.stage[first].tolist(), strict=True)
    ]
    checkpoint = _coded(
        [
            jobs[0].request.checkpoint if load is None else load.checkpoint
            for jobs, load in zip(of_launch["jobs"], of_launch["load"], strict=True)
        ]
    )
    steps = StepArrays(
        launch=_whole(of_launch["launch_id"])[rows.launch],
        replica=replica,
        stage=rows.stage,
        start_s=rows.start_s,
        end_s=rows.end_s,
        steps=rows.steps,
        requests=_whole(list(map(len, of_launch["jobs"])))[rows.launch],
        mixed=np.array([len(composition) > 1 for composition in batches], dtype=bool)[batch],
        predicted_s=rows.predicted_step_s * rows.steps,
        computed=np.where(cached, np.maximum(0, computed[rows.launch]), image_steps),
        reused=np.where(cached, _whole(of_outcome["reused"])[rows.launch], 0),
        extrapolated=np.array(outside, dtype=bool)[of_asked],
        device_s=_device_s(rows, of_outcome["device_s"]),
        moved_bytes=_moved_bytes(rows, of_outcome["moved_bytes"]),
        checkpoint=checkpoint.codes[rows.launch],
        stages=tuple(rows.stages),
        checkpoints=checkpoint.values,
    )
    return _Recorded(launches, rows, batches, batch, steps)


_Columns = dict[str, Sequence[Any]]


def _columns(kind: type[Launch] | type[Outcome], rows: Sequence[tuple[Any, ...]]) -> _Columns:
    """What the rows have in each field of their kind."""
    columns: Sequence[Sequence[Any]] = list(zip(*rows, strict=True)) if rows else [()] * len(kind._fields)
    return dict(zip(kind._fields, columns, strict=True))


class _Works(NamedTuple):
    """What launches compute: positions in its values, each object once. Launches that compute the same share it."""

    codes: Whole
    values: list[LaunchWork]

    @classmethod
    def of(cls, column: Sequence[LaunchWork]) -> _Works:
        same = list(map(id, column))
        return cls(_coded(same).codes, list(dict(zip(same, column, strict=True)).values()))


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


def _rows(works: _Works, of_launch: _Columns, of_outcome: _Columns, ends_s: Sequence[float]) -> _Rows:
    # What a work says is looked up once for all launches that share it; what was predicted is each launch's own.
    kind = works.codes
    segments = [segment for work in works.values for segment in work.stages]
    stages = sorted({stage for stage, _ in segments})
    codes = {name: code for code, name in enumerate(stages)}
    count = _whole([len(work.stages) for work in works.values])
    first = np.cumsum(count) - count
    planned = _whole([steps for _, steps in segments])
    before = np.cumsum(planned) - planned
    before -= np.repeat(before[first], count)

    launch, position = _numbered(count[kind])
    segment = first[kind][launch] + position
    predicted_step_s = np.fromiter(chain.from_iterable(of_launch["predicted_step_s"]), np.float64, len(launch))
    steps_done = _whole(of_outcome["steps_done"])
    reached = (before[segment] < steps_done[launch]) | (position == 0)
    launch, position, segment = launch[reached], position[reached], segment[reached]

    stage_ends_s = np.array([at_s for of_one in of_outcome["stage_ends_s"] for at_s in of_one], dtype=np.float64)
    borders = _whole(list(map(len, of_outcome["stage_ends_s"])))
    since_s, until_s = np.array(of_launch["start_s"], dtype=np.float64)[launch], np.array(ends_s)[launch]
    border = (np.cumsum(borders) - borders)[launch] + position
    within = position < borders[launch]
    until_s[within] = stage_ends_s[border[within]]
    since_s[position > 0] = stage_ends_s[border[position > 0] - 1]
    return _Rows(
        launch=launch,
        stages=stages,
        stage=_whole([codes[stage] for stage, _ in segments])[segment],
        steps=np.minimum(planned[segment], steps_done[launch] - before[segment]),
        planned_steps=planned[segment],
        predicted_step_s=predicted_step_s[reached],
        start_s=since_s,
        end_s=until_s,
    )


def _numbered(counts: Whole) -> tuple[Whole, Whole]:
    """For counts (2, 1): whose each is (0, 0, 1) and which of these (0, 1, 0)."""
    whose = np.repeat(np.arange(len(counts)), counts)
    return whose, np.arange(len(whose)) - (np.cumsum(counts) - counts)[whose]


def _device_s(rows: _Rows, of_devices: Sequence[Sequence[float]]) -> Floats:
    """Busy seconds over all devices: those of a row, or where a stage uses several what the other stages leave.

    Of two such stages, the sampler's has had all devices as long as it ran, and the other what is left.
    """
    seconds = rows.end_s - rows.start_s
    devices = _whole(list(map(len, of_devices)))
    if not (devices > 1).any():
        return seconds
    whole_s = np.array([sum(of_launch) for of_launch in of_devices], dtype=np.float64)

    def shared(stages: list[str]) -> tuple[Any, Any]:
        """The rows of some stages that use several devices, and the seconds of all other rows of each launch."""
        own = np.isin(rows.stage, [code for code, name in enumerate(rows.stages) if name in stages])
        return own & (devices > 1)[rows.launch], np.bincount(rows.launch, np.where(own, 0.0, seconds), len(devices))

    several = [name for name in rows.stages if STAGES[name].devices or STAGES[name].divides]
    sampling, elsewhere_s = shared([name for name in several if STAGES[name].sampler])
    left_s = np.maximum(0.0, (whole_s - elsewhere_s)[rows.launch])
    most_s = seconds * devices[rows.launch]
    found = np.where(sampling, np.where(left_s > most_s * (1 + _ROUNDING), most_s, left_s), seconds)
    others, _ = shared([name for name in several if not STAGES[name].sampler])
    rest_s = whole_s - np.bincount(rows.launch, np.where(others, 0.0, found), len(devices))
    return np.where(others, np.maximum(seconds, rest_s[rows.launch]), found)


def _moved_bytes(rows: _Rows, of_launches: Sequence[int]) -> Whole:
    """Bytes that each row brought from elsewhere: those of a launch, by the first of its stages that moves any."""
    moved = _whole(of_launches)[rows.launch]
    if not moved.any():
        return moved
    moves = np.isin(rows.stage, [code for code, name in enumerate(rows.stages) if STAGES[name].moves])
    _, first = np.unique(np.where(moves, rows.launch, -1), return_index=True)
    begins = np.zeros(len(moves), dtype=bool)
    begins[first] = True
    return np.where(moves & begins, moved, 0)


def _spelled_devices(launches: Sequence[Launch], rows: _Rows) -> Any:
    coded = _coded([launch.devices for launch in launches])
    return _texts([" ".join(map(str, devices)) for devices in coded.values], coded.codes[rows.launch])


def _launch_id(record: LaunchRecord) -> int:
    return record[0].launch_id


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
    ways = [" ".join(map(str, way)) for way in requests.ways]
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
        "replicas": [ways[code] for code in requests.way.tolist()],
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
    fates = [_fate(jobs.get(request.request_id), until_s) for request in trace]
    status, first_start_s, finish_s, ran_on, attempts = zip(*fates, strict=True) if fates else [()] * 5
    way = _coded(ran_on)
    last = _whole([each[-1] if each else -1 for each in way.values])
    # Requests of a kind are alike in size, pictures and seconds, so that these are looked up once for all of them.
    kinds = [
        (r.model, r.height, r.width, r.frames, r.images, r.steps, r.guided, r.adapters, r.reference_pixels)
        for r in trace
    ]
    kind, one_of = _coded(kinds), dict(zip(kinds, trace, strict=True)).values()
    size, model = _coded([request.size for request in one_of]), _coded([request.model for request in one_of])
    checkpoint, tenant = (_coded([getattr(request, name) for request in trace]) for name in ("checkpoint", "tenant"))
    due_s = np.array([request.deadline for request in trace], dtype=np.float64)
    return RequestArrays(
        arrival_s=np.array([request.arrival_s for request in trace], dtype=np.float64),
        deadline_s=np.where(np.isinf(due_s), math.nan, due_s),
        standalone_s=np.array([standalone(request) for request in one_of], dtype=np.float64)[kind.codes],
        first_start_s=np.array(first_start_s, dtype=np.float64),
        finish_s=np.array(finish_s, dtype=np.float64),
        status=_whole(status),
        images=_whole([request.images for request in one_of])[kind.codes],
        attempts=_whole(attempts),
        replica=last[way.codes] if len(last) else way.codes,
        way=way.codes,
        extrapolated=np.array([request.request_id in extrapolated for request in trace], dtype=bool),
        size=size.codes[kind.codes],
        checkpoint=checkpoint.codes,
        model=model.codes[kind.codes],
        tenant=tenant.codes,
        sizes=size.values,
        checkpoints=checkpoint.values,
        models=model.values,
        tenants=tenant.values,
        ways=way.values,
    )


_Value = TypeVar("_Value", bound=Hashable)


class _Coded(NamedTuple, Generic[_Value]):
    """A column as positions in its values, each once, in order of appearance."""

    codes: Whole
    values: tuple[_Value, ...]


def _coded(column: Sequence[_Value]) -> _Coded[_Value]:
    codes = {value: code for code, value in enumerate(dict.fromkeys(column))}
    return _Coded(_whole([codes[value] for value in column]), tuple(codes))


def _fate(job: Job | None, until_s: float) -> tuple[int, float, float, tuple[int, ...], int]:
    """Status, first start, end, replicas and attempts of a request by its last job; None: it was never submitted.

    The replicas are those of its legs, in order: where each ran last.
    """
    if job is None:
        return _CANCELLED, math.nan, math.nan, (), 0
    first, start_s, attempts = job, job.first_start_s, 1
    ran_on = (job.replica,) if job.replica >= 0 else ()
    while first.earlier is not None:
        first = first.earlier
        if first.state == "passed":
            ran_on = (first.replica, *ran_on)
        else:
            attempts += 1
        start_s = start_s if first.first_start_s is None else first.first_start_s
    started = math.nan if start_s is None else start_s
    if (status := _STATUS.get(job.state)) is None:
        return _CANCELLED, started, until_s, ran_on, attempts
    return status, started, math.nan if job.finish_s is None else job.finish_s, ran_on, attempts


def _told(request: Request, job: Job | None) -> tuple[str, str, int]:
    """Why a request did not finish, what else its client should know, and denoising steps done."""
    if job is None:
        return NEVER_SUBMITTED, "", 0
    done = request.steps - job.request.steps + job.sampled  # before a failure, and not again; and since
    notes, before = [job.note], job.earlier
    while before is not None:
        if before.state == "passed":
            done += before.sampled
            notes.append(before.note)
        before = before.earlier
    note = joined(*reversed(notes)) if len(notes) > 1 else job.note
    return job.reason if job.state in _STATUS else INTERRUPTED, note, done
