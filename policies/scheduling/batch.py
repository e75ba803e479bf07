"""Pieces that batching policies share."""

from __future__ import annotations

from collections.abc import Collection

from policies.contract import Decision
from policies.job import Job


def next_quantum(jobs: Collection[Job]) -> Decision:
    """The next launch for a set of jobs that are to run together, as long as it can be without planning again.

    What only needs decoding goes first (it is done but for that, and it frees the replica), then those that still need
    their prompt encoded (so that they can join), then denoising with everything. Jobs that are in one stage go on
    through the stages together, until the one nearest its end needs decoding and another does not.
    """
    if len(jobs) == 1:
        (job,) = jobs
        return Decision((job,), job.steps_left)
    stages = {job.stage for job in jobs}
    if len(stages) > 1:
        stage = "decode" if "decode" in stages else "encode"
        return Decision(tuple([job for job in jobs if job.stage == stage]), 1)
    chosen = tuple(jobs)
    least = min([job.steps_left for job in chosen])
    if any(job.steps_left != least for job in chosen):
        least -= "decode" in chosen[0].stages
    return Decision(chosen, least)
