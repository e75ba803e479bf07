"""Pieces that batching policies share."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from policies.contract import Decision
from policies.job import Job
from traces.stages import STAGES, Stage


def next_quantum(jobs: Collection[Job]) -> Decision:
    """The next launch for a set of jobs that are to run together, as long as it can be without planning again.

    What only needs decoding goes first (it is done but for that, and it frees the replica), then those that still need
    their prompt encoded (so that they can join), then denoising with everything. Tiled requests that are upscaled join
    those that are refined, and those are finished before others are sketched. Jobs that are in one stage go on
    through the stages together, until the one nearest its end needs decoding and another does not.
    """
    if len(jobs) == 1:
        (job,) = jobs
        return Decision((job,), job.steps_left)
    stages = {job.stage for job in jobs}
    if len(stages) > 1:
        stage = min([STAGES[name] for name in stages], key=_turn)
        chosen = tuple([job for job in jobs if job.stage == stage.name])
        if stage.prepares or stage.finishes:
            return Decision(chosen, 1)
        fresh = tuple([job for job in jobs if job.state == "waiting"])
        if fresh or not stage.sampler:
            return Decision(fresh or chosen, 1)
        return next_quantum(chosen)
    chosen = tuple(jobs)
    if not chosen[0].mixes:
        return Decision(chosen, _in_step(chosen))
    left = [job.steps_left for job in chosen]
    least = min(left)
    if max(left) > least:
        least = max(1, least - chosen[0].kind.finish_steps)
    return Decision(chosen, least)


def beside_first(jobs: Sequence[Job]) -> list[Job]:
    """Those of some jobs that can share a batch of mixed sizes with the first: itself, and others if it `mixes`."""
    return [job for job in jobs if job is jobs[0] or (job.mixes and jobs[0].mixes)]


def _turn(stage: Stage) -> tuple[int, str]:
    return stage.turn, stage.name


def _in_step(jobs: Sequence[Job]) -> int:
    """Steps until the stages of some jobs differ."""
    steps = 0
    for ahead in zip(*[job.segments(job.steps_left) for job in jobs], strict=False):
        counts = [count for _, count in ahead]
        if len({stage for stage, _ in ahead}) > 1:
            break
        steps += min(counts)
        if min(counts) < max(counts):
            break
    return steps
