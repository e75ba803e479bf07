"""What a scheduling policy may answer, by its form: for the answers that a first look did not pass.

Whether an answer makes sense in the state the cluster is in, `policies.controller` says. A list in the place of a tuple
and a whole number of numpy in the place of an ``int`` are taken for what they mean.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from inspect import iscoroutine
from math import isfinite
from numbers import Integral, Real
from typing import Any

from policies.contract import Load, Policy
from policies.guard import broken, short
from policies.job import Job

LATEST_S = 1e12
"""The latest time that a policy can ask to be woken at, seconds: 30,000 years."""


def no_decision(answer: Any) -> str:
    """What is wrong with an answer of ``plan``."""
    if iscoroutine(answer):
        answer.close()
    return f"answers plan with {short(answer)}, expected a Decision or None"


def batch(policy: Policy, jobs: Any, steps: Any) -> tuple[tuple[Job, ...], int]:
    """The jobs and steps of a decision."""
    if not isinstance(jobs, tuple | list):
        raise broken(policy, f"answers plan with jobs = {short(jobs)}, expected a tuple of jobs")
    if not _is_whole(steps):
        raise broken(policy, f"answers plan with steps = {short(steps)}, expected a whole number of at least 1")
    return tuple(jobs), int(steps)


def drops(policy: Policy, answer: Any) -> list[tuple[Job, str]]:
    """The (job, reason) pairs of a decision."""
    if not isinstance(answer, tuple | list):
        raise broken(policy, f"answers plan with drop = {short(answer)}, expected (job, reason) pairs")
    for pair in answer:
        if not isinstance(pair, tuple | list) or len(pair) != 2 or type(pair[0]) is not Job:
            raise broken(policy, f"drops {short(pair)}, expected a (job, reason) pair")
        if not isinstance(pair[1], str) or not pair[1].strip():
            raise broken(policy, f"drops request {pair[0].request.request_id!r} without a reason")
    return [(job, str(reason)) for job, reason in answer]


def load(policy: Policy, answer: Any) -> Load:
    """The load of a decision."""
    if type(answer) is not Load:
        raise broken(policy, f"answers plan with load = {short(answer)}, expected a Load")
    checkpoint, evict, expected_s = answer
    if not isinstance(checkpoint, str):
        raise broken(policy, f"loads {short(checkpoint)}, expected the name of a checkpoint")
    if not isinstance(evict, tuple | list) or not all(isinstance(name, str) for name in evict):
        raise broken(policy, f"evicts {short(evict)}, expected names of checkpoints")
    if len(set(evict)) < len(evict):
        raise broken(policy, f"evicts a checkpoint twice in {short(evict)}")
    if not _is_real(expected_s) or not (isfinite(expected_s) and expected_s >= 0):
        raise broken(policy, f"expects a load to take {short(expected_s)}, expected seconds of at least 0")
    return Load(checkpoint, tuple(evict), float(expected_s))


def launch_ids(policy: Policy, answer: Any, so_far: int) -> Sequence[int]:
    """The launches that ``recalls`` names; ``so_far`` were ever started."""
    if isinstance(answer, str | bytes) or not isinstance(answer, Sequence | Set):
        raise broken(policy, f"answers recalls with {short(answer)}, expected a list of launch ids")
    for launch_id in answer:
        if not _is_whole(launch_id) or not 0 <= launch_id < so_far:
            raise broken(policy, f"recalls {short(launch_id)}, which is the id of no launch")
    return sorted(answer) if isinstance(answer, Set) else answer


def wakeup_s(policy: Policy, answer: Any) -> float:
    """The time that ``wakeup`` names."""
    if type(answer) is float and -LATEST_S < answer < LATEST_S:
        return answer
    if not _is_real(answer) or not -LATEST_S < answer < LATEST_S:
        raise broken(
            policy,
            f"answers wakeup with {short(answer)}, expected a time in seconds below {LATEST_S:g}, or None for never",
        )
    return float(answer)


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_real(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
