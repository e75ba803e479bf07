"""What policies may answer, by its form: every answer is made plain here, once, before anything else looks at it.

An answer may be of a class of the user's own, whose methods raise, lie, or say something else the second time. So what
comes out is of the language's own classes (and our jobs), copied, and only that is judged; what looking at an answer
raises, the policy's hook has raised. A list in the place of a tuple and a whole number of numpy in the place of an
``int`` are taken for what they mean. Whether an answer makes sense in the state the cluster is in, says
`policies.rules`; the controller passes the plain answers of a scheduling policy at sight.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from functools import wraps
from inspect import iscoroutine
from math import isfinite
from numbers import Integral, Real
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt

from policies.contract import Decision, Load, Policy, Replica
from policies.guard import broken, fail, guarded, is_of, one_line, short
from policies.job import Job

LATEST_S = 1e12
"""The latest time that a policy can ask to be woken at, seconds: 30,000 years."""


P = ParamSpec("P")
R = TypeVar("R")


def _of(hook: str) -> Callable[[Callable[Concatenate[Policy, P], R]], Callable[Concatenate[Policy, P], R]]:
    """Whatever looking at an answer of this hook raises, the policy's hook has raised."""

    def looking(look: Callable[Concatenate[Policy, P], R]) -> Callable[Concatenate[Policy, P], R]:
        @guarded
        @wraps(look)
        def run(policy: Policy, /, *arguments: P.args, **named: P.kwargs) -> R:
            try:
                return look(policy, *arguments, **named)
            except BaseException as error:
                fail(policy, hook, error)

        return run

    return looking


@_of("plan")
def decision(policy: Policy, answer: Any) -> Decision:
    """An answer of ``plan`` that is not None; what lies in its fields is not looked at."""
    if is_of(answer, Decision):
        return Decision._make(tuple.__iter__(answer))
    if iscoroutine(answer):
        answer.close()
    raise broken(policy, f"answers plan with {short(answer)}, expected a Decision or None")


@_of("plan")
def batch(policy: Policy, jobs: Any, steps: Any) -> tuple[tuple[Job, ...], int]:
    """The jobs and steps of a decision."""
    if not is_of(jobs, tuple, list):
        raise broken(policy, f"answers plan with jobs = {short(jobs)}, expected a tuple of jobs")
    whole = _whole(steps)
    if whole is None:
        raise broken(policy, f"answers plan with steps = {short(steps)}, expected a whole number of at least 1")
    return _items(jobs), whole


@_of("plan")
def drops(policy: Policy, answer: Any) -> list[tuple[Job, str]]:
    """The (job, reason) pairs of a decision; a reason in one line of printable text."""
    if not is_of(answer, tuple, list):
        raise broken(policy, f"answers plan with drop = {short(answer)}, expected (job, reason) pairs")
    found = []
    for pair in _items(answer):
        items = _items(pair) if is_of(pair, tuple, list) else ()
        if len(items) != 2 or type(items[0]) is not Job:
            raise broken(policy, f"drops {short(pair)}, expected a (job, reason) pair")
        job, reason = items
        text = one_line(_text(reason) or "")
        if not text:
            raise broken(policy, f"drops request {job.request.request_id!r} without a reason")
        found.append((job, text))
    return found


@_of("plan")
def load(policy: Policy, answer: Any) -> Load:
    """The load of a decision."""
    if type(answer) is not Load:
        raise broken(policy, f"answers plan with load = {short(answer)}, expected a Load")
    checkpoint, evict, expected_s = answer
    wanted = _text(checkpoint)
    if wanted is None:
        raise broken(policy, f"loads {short(checkpoint)}, expected the name of a checkpoint")
    texts = [_text(name) for name in _items(evict)] if is_of(evict, tuple, list) else [None]
    names = tuple([text for text in texts if text is not None])
    if len(names) < len(texts):
        raise broken(policy, f"evicts {short(evict)}, expected names of checkpoints")
    if len(set(names)) < len(names):
        raise broken(policy, f"evicts a checkpoint twice in {short(evict)}")
    seconds = _real(expected_s)
    if seconds is None or not (isfinite(seconds) and seconds >= 0):
        raise broken(policy, f"expects a load to take {short(expected_s)}, expected seconds of at least 0")
    return Load(wanted, names, seconds)


@_of("recalls")
def launch_ids(policy: Policy, answer: Any, so_far: float) -> Sequence[int]:
    """The launches that ``recalls`` names; ``so_far`` were ever started."""
    known_form = type(answer) is list or type(answer) is tuple  # asking `Sequence` is slow
    listed = known_form or is_of(answer, tuple, list)
    is_set = not listed and isinstance(answer, Set)
    if not (listed or is_set) and (is_of(answer, str, bytes) or not isinstance(answer, Sequence)):
        raise broken(policy, f"answers recalls with {short(answer)}, expected a list of launch ids")
    named: list[int] = []
    for item in _items(answer) if listed and not known_form else answer:
        launch_id = item if type(item) is int else _whole(item)
        if launch_id is None or not 0 <= launch_id < so_far:
            raise broken(policy, f"recalls {short(item)}, which is the id of no launch")
        named.append(launch_id)
    return sorted(named) if is_set else named


@_of("wakeup")
def wakeup_s(policy: Policy, answer: Any) -> float:
    """The time that ``wakeup`` names."""
    seconds = _real(answer)
    if seconds is None or not -LATEST_S < seconds < LATEST_S:
        raise broken(
            policy,
            f"answers wakeup with {short(answer)}, expected a time in seconds below {LATEST_S:g}, or None for never",
        )
    return seconds


@_of("assign")
def devices(policy: Policy, answer: Any, tiles: int, count: int) -> list[int]:
    """The device of each of so many tiles that ``assign`` names, of ``count``."""
    items = _items(answer) if is_of(answer, tuple, list) else ()
    if is_of(answer, np.ndarray):
        plain = _array(answer)
        items = tuple(plain.tolist()) if plain.ndim == 1 else ()
    found = [_whole(item) for item in items]
    named = [device for device in found if device is not None and 0 <= device < count]
    if not len(named) == len(found) == tiles or not is_of(answer, tuple, list, np.ndarray):
        wanted = f"a device from 0 to {count - 1} for each of {tiles} tiles"
        raise broken(policy, f"answers assign with {short(answer)}, expected {wanted}")
    return named


@_of("decide")
def flags(policy: Policy, answer: Any, units: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """The units to compute that ``decide`` names, an array of this shape."""
    plain = _array(answer) if is_of(answer, np.ndarray) else None
    if plain is None or plain.dtype != np.bool_ or plain.shape != units:
        raise broken(policy, "must answer an array of one True or False a unit")
    return plain.copy()


def truth(policy: Policy, answer: Any, hook: str) -> bool:
    """A truth value; neither of its classes can be derived from, so that nothing is called in looking at it."""
    if not is_of(answer, bool, np.bool_):
        raise broken(policy, f"answers {hook} with {short(answer)}, expected True or False")
    return bool(answer)


@_of("route")
def replica(policy: Policy, answer: Any, asked: Sequence[Replica]) -> int | None:
    """The index of the replica that ``route`` names, of those it was asked about; None: the queue that all share."""
    if answer is None:
        return None
    for one in asked:
        if answer is one:
            return one.index
    raise broken(policy, f"routes to {short(answer)}, expected one of the replicas that it is shown, or None")


@_of("wanted")
def wanted(policy: Policy, answer: Any, least: int, most: int) -> int:
    """How many replicas ``wanted`` names; the nearest number of those that a pool may have."""
    count = _whole(answer)
    if count is None or count < 0:
        raise broken(policy, f"answers wanted with {short(answer)}, expected a whole number of replicas")
    return max(least, min(most, count))


@_of("victim")
def victim(policy: Policy, answer: Any, asked: Sequence[str]) -> str:
    """The checkpoint that ``victim`` evicts, of those it was asked about."""
    name = _text(answer)
    if name is None or name not in asked:
        raise broken(policy, f"evicts {short(answer)}, expected one of: {', '.join(asked)}")
    return name


def _items(answer: Sequence[Any]) -> tuple[Any, ...]:
    """What lies in a tuple or list, whatever a class that is derived from them does instead."""
    return tuple(tuple.__iter__(answer) if is_of(answer, tuple) else list.__iter__(answer))  # type: ignore[arg-type]


def _array(answer: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """An array as one of numpy's own class."""
    return np.ndarray.view(answer, np.ndarray)


def _text(value: Any) -> str | None:
    """Text as it is; None: it is none."""
    return str.__str__(value) if is_of(value, str) else None


def _whole(value: Any) -> int | None:
    """A whole number, asked for once; None: it is none."""
    if type(value) is int:
        return value
    return int(value) if isinstance(value, Integral) and not is_of(value, bool) else None


def _real(value: Any) -> float | None:
    """A number, asked for once; None: it is none."""
    if type(value) is float:
        return value
    return float(value) if isinstance(value, Real) and not is_of(value, bool) else None
