"""What a scheduling policy may answer, by its form: for the answers that a first look did not pass.

Whether an answer makes sense in the state the cluster is in, `policies.controller` says. A list in the place of a tuple
and a whole number of numpy in the place of an ``int`` are taken for what they mean. An answer may be of a class of the
user's own, whose methods raise: that is the policy's doing, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from functools import wraps
from inspect import iscoroutine
from math import isfinite
from numbers import Integral, Real
from typing import Any, Concatenate, ParamSpec, TypeVar

from policies.contract import Decision, Load, Policy
from policies.guard import broken, fail, one_line, short
from policies.job import Job

LATEST_S = 1e12
"""The latest time that a policy can ask to be woken at, seconds: 30,000 years."""


P = ParamSpec("P")
R = TypeVar("R")


def _of(hook: str) -> Callable[[Callable[Concatenate[Policy, P], R]], Callable[Concatenate[Policy, P], R]]:
    """Whatever looking at an answer of this hook raises, the policy's hook has raised."""

    def guarded(look: Callable[Concatenate[Policy, P], R]) -> Callable[Concatenate[Policy, P], R]:
        @wraps(look)
        def run(policy: Policy, /, *arguments: P.args, **named: P.kwargs) -> R:
            try:
                return look(policy, *arguments, **named)
            except BaseException as error:
                fail(policy, hook, error)

        return run

    return guarded


@_of("plan")
def decision(policy: Policy, answer: Any) -> Decision:
    """An answer of ``plan`` that is not None; what lies in its fields is not looked at."""
    if isinstance(answer, Decision):
        return Decision._make(tuple.__iter__(answer))
    if iscoroutine(answer):
        answer.close()
    raise broken(policy, f"answers plan with {short(answer)}, expected a Decision or None")


@_of("plan")
def batch(policy: Policy, jobs: Any, steps: Any) -> tuple[tuple[Job, ...], int]:
    """The jobs and steps of a decision."""
    if not isinstance(jobs, tuple | list):
        raise broken(policy, f"answers plan with jobs = {short(jobs)}, expected a tuple of jobs")
    if not _is_whole(steps):
        raise broken(policy, f"answers plan with steps = {short(steps)}, expected a whole number of at least 1")
    return _items(jobs), int(steps)


@_of("plan")
def drops(policy: Policy, answer: Any) -> list[tuple[Job, str]]:
    """The (job, reason) pairs of a decision; a reason in one line of printable text."""
    if not isinstance(answer, tuple | list):
        raise broken(policy, f"answers plan with drop = {short(answer)}, expected (job, reason) pairs")
    found = []
    for pair in _items(answer):
        items = _items(pair) if isinstance(pair, tuple | list) else ()
        if len(items) != 2 or type(items[0]) is not Job:
            raise broken(policy, f"drops {short(pair)}, expected a (job, reason) pair")
        job, reason = items
        if not isinstance(reason, str) or not reason.strip():
            raise broken(policy, f"drops request {job.request.request_id!r} without a reason")
        found.append((job, one_line(reason)))
    return found


@_of("plan")
def load(policy: Policy, answer: Any) -> Load:
    """The load of a decision."""
    if type(answer) is not Load:
        raise broken(policy, f"answers plan with load = {short(answer)}, expected a Load")
    checkpoint, evict, expected_s = answer
    if not isinstance(checkpoint, str):
        raise broken(policy, f"loads {short(checkpoint)}, expected the name of a checkpoint")
    if not isinstance(evict, tuple | list) or not all(isinstance(name, str) for name in _items(evict)):
        raise broken(policy, f"evicts {short(evict)}, expected names of checkpoints")
    names = tuple([_plain(name) for name in _items(evict)])
    if len(set(names)) < len(names):
        raise broken(policy, f"evicts a checkpoint twice in {short(evict)}")
    if not _is_real(expected_s) or not (isfinite(expected_s) and expected_s >= 0):
        raise broken(policy, f"expects a load to take {short(expected_s)}, expected seconds of at least 0")
    return Load(_plain(checkpoint), names, float(expected_s))


@_of("recalls")
def launch_ids(policy: Policy, answer: Any, so_far: int) -> Sequence[int]:
    """The launches that ``recalls`` names; ``so_far`` were ever started."""
    known_form = type(answer) is list or type(answer) is tuple  # asking `Sequence` is slow
    if not known_form and (isinstance(answer, str | bytes) or not isinstance(answer, Sequence | Set)):
        raise broken(policy, f"answers recalls with {short(answer)}, expected a list of launch ids")
    named: list[int] = []
    for launch_id in _items(answer) if isinstance(answer, tuple | list) else answer:
        if not _is_whole(launch_id) or not 0 <= int(launch_id) < so_far:
            raise broken(policy, f"recalls {short(launch_id)}, which is the id of no launch")
        named.append(int(launch_id))
    return sorted(named) if isinstance(answer, Set) else named


@_of("wakeup")
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


def _items(answer: tuple[Any, ...] | list[Any]) -> tuple[Any, ...]:
    """What lies in a tuple or list, whatever a class that is derived from them does instead."""
    return tuple(tuple.__iter__(answer) if isinstance(answer, tuple) else list.__iter__(answer))


def _plain(text: str) -> str:
    return str.__str__(text)


def _is_whole(value: Any) -> bool:
    return type(value) is int or (isinstance(value, Integral) and not isinstance(value, bool))


def _is_real(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
