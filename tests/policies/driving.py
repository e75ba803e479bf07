"""Driving a controller by hand, for tests of schedulers."""

from __future__ import annotations

from typing import Any

from policies.contract import Launch, Outcome, SchedulingPolicy
from policies.controller import Controller
from policies.routing import RoutingPolicy
from tests.policies.costs import FlatCosts
from traces.request import Request


def request(name: str, arrival_s: float = 0.0, side: int = 64, steps: int = 4, **more: Any) -> Request:
    """A request; a step of a 64 px one alone takes 0.2 s, of a 128 px one 0.5 s (`FlatCosts`)."""
    return Request(name, arrival_s, side, side, steps, **more)


class Driven:
    """One controller and its clock, in seconds."""

    def __init__(
        self,
        policy: SchedulingPolicy,
        replicas: int = 1,
        stages: tuple[str, ...] = ("denoise",),
        routing: RoutingPolicy | None = None,
    ) -> None:
        self.controller = Controller(policy, FlatCosts(), replicas, stages, routing=routing)
        self.now = 0.0

    def submit(self, *requests: Request) -> None:
        """Requests arrive now."""
        for one in requests:
            self.controller.submit(one, self.now)

    def start(self) -> list[Launch]:
        """Work to start now."""
        return self.controller.launches(self.now)

    def end(self, launch: Launch, steps: int | None = None, late_s: float = 0.0) -> None:
        """A launch ends after some steps, all by default, when it was predicted to or ``late_s`` after that."""
        done = launch.steps if steps is None else steps
        self.now = launch.start_s + sum(s.steps * s.predicted_step_s for s in launch.done(done)) + late_s
        self.controller.complete(launch, Outcome(done), self.now)

    def recalled(self) -> list[int]:
        """Launches that an arrival made obsolete."""
        return self.controller.recalls(self.now)

    def states(self) -> dict[str, str]:
        """The state of every request."""
        return {job.request.request_id: job.state for job in self.controller.jobs}

    def reason(self, name: str) -> str:
        """Why a request was dropped."""
        return next(job.reason for job in self.controller.jobs if job.request.request_id == name)


def names(launch: Launch) -> list[str]:
    """The requests of a launch."""
    return [job.request.request_id for job in launch.jobs]
