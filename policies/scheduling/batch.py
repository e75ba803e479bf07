"""Pieces that batching policies share."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from policies.contract import Decision
from policies.job import Job

_FIRST = ("decode", "encode", "upscale", "refine", "sketch", "denoise")
"""Whose turn it is, when jobs that run together are in several stages."""


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
        stage = min(stages, key=_FIRST.index)
        chosen = tuple([job for job in jobs if job.stage == stage])
        if stage in ("decode", "encode"):
            return Decision(chosen, 1)
        fresh = tuple([job for job in jobs if job.state == "waiting"])
        if fresh or stage == "upscale":
            return Decision(fresh or chosen, 1)
        return next_quantum(chosen)
    chosen = tuple(jobs)
    if chosen[0].tiled:
        return Decision(chosen, _in_step(chosen))
    left = [job.steps_left for job in chosen]
    least = min(left)
    if max(left) > least:
        least -= "decode" in chosen[0].stages
    return Decision(chosen, least)


def beside_first(jobs: Sequence[Job]) -> list[Job]:
    """Those of some jobs that can share a batch of mixed sizes with the first: a tiled request has one to itself."""
    if jobs and jobs[0].tiled:
        return [jobs[0]]
    return [job for job in jobs if not job.tiled]


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
