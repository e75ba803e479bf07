"""From what a controller holds at the end of a run to the tables of the run log. Both drivers use it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from policies.controller import Controller
from policies.job import DENOISING, Job
from policies.runlog import REQUEST_COLUMNS, STEP_COLUMNS
from traces.composition import Composition, spell
from traces.request import Request

_CACHED = DENOISING - {"sketch"}  # where a cache counts in units of its own; a launch has at most one of them
NEVER_SUBMITTED = "the run was interrupted before it arrived"


def step_table(controller: Controller, extrapolates: Callable[[str, Composition], bool]) -> pd.DataFrame:
    """``steps.parquet`` of a run: one row a launch and stage, in order of the launches' starts."""
    known: dict[tuple[str, Composition], bool] = {}

    def outside(stage: str, composition: Composition) -> bool:
        key = (stage, composition)
        if key not in known:
            known[key] = extrapolates(*key)
        return known[key]

    rows = []
    for launch, outcome, end_s in sorted(controller.launched, key=lambda record: record[0].launch_id):
        reached = launch.done(outcome.steps_done)
        names = [job.request.request_id for job in launch.jobs]
        starts = (launch.start_s, *outcome.borders_s)
        ends = (*outcome.borders_s, end_s)
        images = sum([n for _, n in launch.composition])
        seconds = [end - start for start, end in zip(starts, ends, strict=False)]
        others = images * sum([segment.steps for segment in reached if segment.stage not in _CACHED])
        elsewhere_s = sum([s for segment, s in zip(reached, seconds, strict=False) if segment.stage != "refine"])
        for index, (segment, planned) in enumerate(zip(reached, launch.segments, strict=False)):
            counts = segment.stage in _CACHED
            shared = segment.stage == "refine" and len(outcome.device_s) > 1
            rows.append(
                (
                    launch.launch_id,
                    launch.replica,
                    segment.stage,
                    starts[index],
                    ends[index],
                    segment.steps,
                    planned.steps,
                    len(names),
                    spell(launch.composition),
                    names,
                    segment.predicted_step_s * segment.steps,
                    max(0, outcome.computed - others) if counts else images * segment.steps,
                    outcome.reused if counts else 0,
                    bool(names) and outside(segment.stage, launch.composition),
                    max(0.0, sum(outcome.device_s) - elsewhere_s) if shared else seconds[index],
                    launch.jobs[0].request.checkpoint if names else launch.load.checkpoint if launch.load else "",
                )
            )
    return pd.DataFrame(rows, columns=list(STEP_COLUMNS))


def request_table(
    controller: Controller, trace: Sequence[Request], steps: pd.DataFrame, standalone: Callable[[Request], float]
) -> pd.DataFrame:
    """``requests.parquet`` of a run: one row for every request of the trace, submitted or not, in trace order.

    A request whose replica failed has its last job's end, and its first job's start.
    """
    jobs = {job.request.request_id: job for job in controller.jobs}
    extrapolated = {name for names in steps.loc[steps["extrapolated"], "request_ids"] for name in names}
    alone: dict[Any, float] = {}
    rows = []
    for request in trace:
        key = (request.size, request.images, request.steps, request.guided, request.adapters)
        if key not in alone:
            alone[key] = standalone(request)
        job = jobs.get(request.request_id)
        rows.append(
            (
                request.request_id,
                request.arrival_s,
                request.height,
                request.width,
                request.frames,
                request.steps,
                request.images,
                request.model,
                request.tenant,
                request.priority,
                None if request.deadline == float("inf") else request.deadline,
                alone[key],
                *_fate(request, job),
                request.request_id in extrapolated,
                request.checkpoint,
                request.adapters,
                len(_attempts(job)),
            )
        )
    return pd.DataFrame(rows, columns=list(REQUEST_COLUMNS))


def _fate(request: Request, job: Job | None) -> tuple[str, str, float | None, float | None, int, int]:
    if job is None:
        return ("cancelled", NEVER_SUBMITTED, None, None, 0, -1)
    kept = 0 if job.tiled else request.steps - job.request.steps  # done before a failure, and not again
    return (job.state, job.reason, _attempts(job)[-1].first_start_s, job.finish_s, kept + job.steps_done, job.replica)


def _attempts(job: Job | None) -> list[Job]:
    """A job and those before it, back to the request's first."""
    attempts = []
    while job is not None:
        attempts.append(job)
        job = job.earlier
    return attempts
