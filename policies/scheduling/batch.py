"""Pieces that batching policies share."""

from __future__ import annotations

from collections.abc import Collection

from policies.contract import Decision
from policies.job import Job

_TURN = {"decode": 0, "encode": 1, "denoise": 2}


def next_stage(jobs: Collection[Job]) -> Decision:
    """The next launch for a set of jobs that are to run together.

    A launch has one stage. What only needs decoding goes first (it is done but for that, and it frees the
    replica), then those that still need their prompt encoded (so that they can join), then one denoising launch
    with everything, for as many steps as the job nearest its end still has.
    """
    stage = min((job.stage for job in jobs), key=_TURN.__getitem__)
    chosen = tuple([job for job in jobs if job.stage == stage])
    return Decision(chosen, min([job.stage_left for job in chosen]))
