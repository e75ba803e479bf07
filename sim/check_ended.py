"""What `sim.check` holds the end of every run to: no request lost or doubled, and quanta that were kept."""

from __future__ import annotations

from collections import defaultdict

from policies.contract import Policy
from policies.controller import Controller
from policies.guard import broken
from policies.job import Job
from traces.request import Request


def check_conservation(policy: Policy, controller: Controller, requests: list[Request]) -> None:
    """Whether every request ended once, having done its steps, and no replica did two things at once.

    Raises:
        PolicyError: not so.
    """
    lost = {job.earlier for job in controller.jobs}
    ended = {job.request.request_id: job for job in controller.jobs if job not in lost}
    if [ended[request.request_id].asked for request in requests if request.request_id in ended] != requests:
        raise broken(policy, "lost or changed a request")
    done: dict[tuple[str, str], int] = defaultdict(int)
    free_at: dict[tuple[int, int], float] = defaultdict(float)
    for launch, outcome, end_s in sorted(controller.launched, key=lambda record: record[0].launch_id):
        for device in launch.devices:
            if launch.start_s < free_at[launch.replica, device]:
                raise broken(policy, f"has two launches at once on a device of replica {launch.replica}")
            free_at[launch.replica, device] = end_s
        for segment in launch.done(outcome.steps_done):
            for job in launch.jobs:
                done[job.request.request_id, segment.stage] += segment.steps
    for job in controller.jobs:
        name = job.request.request_id
        if not job.ended:
            raise broken(policy, f"left request {name!r} {job.state}")
        if job.state == "dropped" and not job.reason:
            raise broken(policy, f"dropped request {name!r} without a reason")
        for leg in _undisturbed(job) if job.state == "finished" else ():
            for stage, wanted in leg.recipe:
                if done[name, stage] != wanted:
                    raise broken(policy, f"ran {done[name, stage]} steps of {stage} for {name!r}, not {wanted}")


def _undisturbed(job: Job) -> list[Job]:
    """A job and the legs of its request before it; none, if one of them was begun again."""
    legs = [job]
    while legs[-1].earlier is not None:
        legs.append(legs[-1].earlier)
        if legs[-1].state != "passed":
            return []
    return legs


def check_promise(policy: Policy, quantum: Controller, oracle: Controller) -> None:
    """Whether planning at every step boundary gave the same.

    Raises:
        PolicyError: not so.
    """
    for job, stepped in zip(quantum.jobs, oracle.jobs, strict=True):
        if (job.state, job.finish_s, job.replica) != (stepped.state, stepped.finish_s, stepped.replica):
            raise broken(
                policy,
                f"breaks the promise of its quanta: request {job.request.request_id!r} ends as {job.state} at "
                f"{job.finish_s} s, but as {stepped.state} at {stepped.finish_s} s when planned at every step boundary"
                "; name a running launch in recalls when something happens that it would be planned otherwise for, or "
                "decide for fewer steps at once",
            )
