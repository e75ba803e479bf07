"""Jobs that a user's policy writes to, against what is there: `tests.cli.test_broken_scheduling` has the writes."""

from __future__ import annotations

from typing import Any

import pytest

from policies.contract import Outcome, PolicyError
from policies.controller import Controller
from policies.guard import is_users
from policies.job import Job
from policies.load import KINDS
from policies.scheduling import FCFS
from tests.policies.costs import FlatCosts
from traces.request import Request


class Writes(FCFS):
    """Writes to a job when it has ended."""

    def ended(self, job: Job, now: float) -> None:
        object.__setattr__(job, "first_start_s", 0.25)


class Reads(FCFS):
    """Does nothing of its own."""


def test_no_policy_that_ships_is_watched() -> None:
    for kind, known in KINDS.items():
        for cls in known.values():
            assert not is_users(object.__new__(cls)), (kind, cls)
    assert is_users(Reads())


def _done(policy: Any) -> Controller:
    controller = Controller(policy, FlatCosts(), 1)
    controller.submit(Request("r", 0.0, 64, 64, 1), 0.0)
    while controller.open:
        for launch in controller.launches(1.0):
            controller.complete(launch, Outcome(launch.steps), 2.0)
    return controller


def test_a_job_is_compared_after_its_end_too() -> None:
    with _done(Reads()).audited():
        pass
    written = r"policy Writes has written to request 'r': its first_start_s is 0.25, expected 1.0; policies only read"
    with pytest.raises(PolicyError, match=written), _done(Writes()).audited():
        pass


def test_what_was_written_is_said_rather_than_what_came_of_it() -> None:
    with pytest.raises(PolicyError, match="its first_start_s is"), _done(Writes()).audited():
        raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError), _done(Reads()).audited():
        raise ZeroDivisionError
