"""The controller alone: events in, launches out."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.contract import Decision, Outcome, PolicyError, Replica, SchedulingPolicy
from policies.controller import Controller
from policies.job import ENDED, TRANSITIONS, Job
from policies.scheduling import EDF, FCFS, SCHEDULERS, SameSizeContinuous, SameSizeDynamic, UrgencyPolicy
from tests.examples_tried import examples
from tests.policies.costs import FlatCosts
from traces.request import Request


def request(name: str, arrival_s: float = 0.0, side: int = 64, steps: int = 4, **more: Any) -> Request:
    return Request(name, arrival_s, side, side, steps, **more)


def controller(policy: SchedulingPolicy, replicas: int = 1) -> Controller:
    return Controller(policy, FlatCosts(), replicas)


def names(launch: Any) -> list[str]:
    return [job.request.request_id for job in launch.jobs]


def test_a_request_goes_through_its_stages_in_one_quantum_and_finishes() -> None:
    c = controller(FCFS())
    c.submit(request("a"), 0.0)
    (launch,) = c.launches(0.0)
    assert [segment[:2] for segment in launch.segments] == [("encode", 1), ("denoise", 4), ("decode", 1)]
    assert launch.steps == 6
    assert c.launches(0.0) == []
    c.complete(launch, Outcome(6), 3.0)
    (job,) = c.jobs
    assert (job.state, job.first_start_s, job.finish_s, job.steps_done) == ("finished", 0.0, 3.0, 4)


def test_a_launch_that_ends_early_is_planned_again() -> None:
    c = controller(FCFS())
    c.submit(request("a"), 0.0)
    c.complete(c.launches(0.0)[0], Outcome(1), 1.0)
    (job,) = c.jobs
    assert (job.state, job.stage, job.stage_left) == ("resident", "denoise", 4)
    c.complete(c.launches(1.0)[0], Outcome(3), 2.0)
    (launch,) = c.launches(2.0)
    assert [segment[:2] for segment in launch.segments] == [("denoise", 1), ("decode", 1)]
    assert [segment[:2] for segment in launch.done(1)] == [("denoise", 1)]


def test_a_failed_request_ends_with_its_reason_and_the_others_go_on() -> None:
    c = controller(SameSizeDynamic(max_batch=2, window_s=0.0))
    c.submit(request("a"), 0.0)
    c.submit(request("b"), 0.0)
    (launch,) = c.launches(0.0)
    assert names(launch) == ["a", "b"]
    c.complete(launch, Outcome(1, {"a": "out of memory"}), 1.0)
    assert [(job.state, job.reason) for job in c.jobs] == [("failed", "out of memory"), ("resident", "")]
    assert names(c.launches(1.0)[0]) == ["b"]


def test_notes_of_launches_are_kept_with_their_requests() -> None:
    c = controller(FCFS())
    c.submit(request("a"), 0.0)
    (launch,) = c.launches(0.0)
    c.complete(launch, Outcome(1, notes={"a": "the prompt was cut"}), 1.0)
    (launch,) = c.launches(1.0)
    c.complete(launch, Outcome(launch.steps, notes={"a": "the picture was blacked out"}), 2.0)
    assert [(job.state, job.note) for job in c.jobs] == [
        ("finished", "the prompt was cut; the picture was blacked out")
    ]


def test_a_waiting_request_is_cancelled_at_once_and_a_running_one_at_the_next_boundary() -> None:
    c = controller(FCFS())
    c.submit(request("a"), 0.0)
    c.submit(request("b"), 0.0)
    (launch,) = c.launches(0.0)
    c.cancel("b", 0.5)
    c.cancel("a", 0.5)
    assert c.recalls(0.5) == [launch.launch_id]
    assert c.recalls(0.5) == []
    c.complete(launch, Outcome(1), 1.0)
    assert [job.state for job in c.jobs] == ["cancelled", "cancelled"]
    assert c.launches(1.0) == []
    c.cancel("a", 2.0)  # its client leaves twice: nothing happens


def test_requests_of_one_size_join_and_leave_between_steps() -> None:
    c = controller(SameSizeContinuous(max_batch=2))
    c.submit(request("a", steps=3), 0.0)
    c.complete(c.launches(0.0)[0], Outcome(1), 1.0)
    (running,) = c.launches(1.0)
    c.submit(request("b", 1.5, steps=5), 1.5)
    assert c.recalls(1.5) == [running.launch_id]
    c.complete(running, Outcome(1), 2.0)
    (joining,) = c.launches(2.0)
    assert (joining.stage, names(joining)) == ("encode", ["b"])
    c.complete(joining, Outcome(1), 3.0)
    (both,) = c.launches(3.0)
    assert (both.stage, names(both), both.steps) == ("denoise", ["a", "b"], 2)
    c.complete(both, Outcome(2), 4.0)
    (decode,) = c.launches(4.0)
    assert (decode.stage, names(decode)) == ("decode", ["a"])


def test_other_sizes_are_not_starved() -> None:
    c = controller(SameSizeContinuous(max_batch=4, drain_after=2.0))
    c.submit(request("small", side=64, steps=50), 0.0)
    c.complete(c.launches(0.0)[0], Outcome(1), 0.1)
    (running,) = c.launches(0.1)
    c.submit(request("large", 0.2, side=128), 0.2)
    c.submit(request("small-2", 0.3, side=64), 0.3)
    assert c.recalls(0.3) == [running.launch_id]
    c.complete(running, Outcome(49), 1000.0)  # by now the large one has waited long
    assert names(c.launches(1000.0)[0]) == ["small"]
    assert c.launches(1000.0) == []


def test_an_urgent_arrival_preempts_at_the_next_boundary() -> None:
    c = controller(EDF(max_batch=1))
    c.submit(request("relaxed", slo_s=100.0), 0.0)
    c.complete(c.launches(0.0)[0], Outcome(1), 1.0)
    (running,) = c.launches(1.0)
    c.submit(request("later", 1.2, slo_s=200.0), 1.2)
    assert c.recalls(1.2) == []
    c.submit(request("urgent", 1.5, slo_s=3.0), 1.5)
    assert c.recalls(1.5) == [running.launch_id]
    c.complete(running, Outcome(1), 2.0)
    assert names(c.launches(2.0)[0]) == ["urgent"]


def test_a_dynamic_batch_waits_for_its_window() -> None:
    c = controller(SameSizeDynamic(max_batch=2, window_s=1.0))
    c.submit(request("a"), 0.0)
    assert c.launches(0.0) == []
    assert c.wakeup(0.0) == 1.0
    assert names(c.launches(1.0)[0]) == ["a"]


def test_late_requests_are_dropped_with_a_reason() -> None:
    c = controller(EDF(drop_late=True))
    c.submit(request("late", slo_s=0.5), 0.0)
    c.submit(request("fine", slo_s=500.0), 0.0)
    assert names(c.launches(100.0)[0]) == ["fine"]
    late = c.jobs[0]
    assert late.state == "dropped"
    assert "would miss its deadline by" in late.reason


class Answers(SchedulingPolicy):
    """Gives the answers it was built with."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)

    def plan(self, replica: Replica, now: float) -> Decision | None:
        answer = self.answers.pop(0)
        return answer(self.cluster) if answer else None


def pick(cluster: Any, *wanted: str) -> tuple[Job, ...]:
    return tuple(cluster.jobs[name] for name in wanted)


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (lambda c: Decision(()), "no jobs"),
        (lambda c: Decision(pick(c, "a"), 7), "asks for 7 steps"),
        (lambda c: Decision(pick(c, "a"), 0), "asks for 0 steps"),
        (lambda c: Decision(pick(c, "a", "a"), 1), "twice"),
        (lambda c: Decision((Job(request("stranger"), 9),), 1), "never submitted"),
        (lambda c: Decision(drop=((pick(c, "a")[0], ""),)), "without a reason"),
    ],
)
def test_answers_that_break_the_contract_are_refused(answer: Any, complaint: str) -> None:
    c = controller(Answers(answer))
    c.submit(request("a"), 0.0)
    with pytest.raises(PolicyError, match=complaint):
        c.launches(0.0)


def test_running_resident_and_mixed_jobs_are_guarded() -> None:
    run_a = lambda c: Decision(pick(c, "a"), 1)  # noqa: E731
    c = controller(Answers(run_a, run_a), replicas=2)
    c.submit(request("a"), 0.0)
    c.submit(request("b"), 0.0)
    with pytest.raises(PolicyError, match="running already"):
        c.launches(0.0)

    c = controller(Answers(run_a, None, None, run_a), replicas=2)
    c.submit(request("a"), 0.0)
    c.submit(request("b"), 0.0)
    (launch,) = c.launches(0.0)
    c.complete(launch, Outcome(1), 1.0)
    with pytest.raises(PolicyError, match="lives on replica 0"):
        c.launches(1.0)

    c = controller(Answers(run_a, lambda c: Decision(pick(c, "a", "b"), 1)))
    c.submit(request("a"), 0.0)
    c.submit(request("b"), 0.0)
    (launch,) = c.launches(0.0)
    c.complete(launch, Outcome(1), 1.0)
    with pytest.raises(PolicyError, match=r"mixes stages .*next_quantum"):
        c.launches(1.0)


def test_a_driver_that_misreports_is_refused() -> None:
    c = controller(FCFS())
    c.submit(request("a"), 0.0)
    with pytest.raises(ValueError, match="submitted twice"):
        c.submit(request("a"), 0.0)
    (launch,) = c.launches(0.0)
    with pytest.raises(ValueError, match="7 of 6 steps"):
        c.complete(launch, Outcome(7), 1.0)


def test_attributes_of_what_every_request_meets_are_found_fast() -> None:
    """Python keeps the keys of an object's attributes with its class where it has at most 30; else a run takes 10 %
    longer."""
    c = controller(FCFS())
    for met in (c, c._router, c._rules, c._cluster, c._occupancy, c.policy):
        assert len(getattr(met, "__dict__", ())) <= 30


def test_ended_states_lead_nowhere() -> None:
    assert {"finished", "passed", "dropped", "failed", "cancelled", "lost", "rerouted"} == ENDED
    assert set(TRANSITIONS) == {state for to in TRANSITIONS.values() for state in to} | {"waiting"}


@settings(max_examples=examples(20), deadline=None)
@given(st.data())
def test_every_request_ends_exactly_once_whatever_happens(data: st.DataObject) -> None:
    """Any order of arrivals, ends, early ends, failures and cancellations, for any shipped policy."""
    name = data.draw(st.sampled_from(sorted(SCHEDULERS)))
    options = {"drop_late": data.draw(st.booleans())} if issubclass(SCHEDULERS[name], UrgencyPolicy) else {}
    replicas = data.draw(st.integers(1, 3))
    c = controller(SCHEDULERS[name](**options), replicas)
    running: list[Any] = []
    now, submitted = 0.0, 0
    denoised: dict[str, int] = {}
    while submitted < 12 or c.open:
        now += data.draw(st.sampled_from([0.0, 0.3, 2.0]))
        choices = ["submit"] * (submitted < 12) + ["end", "fail"] * bool(running) + ["cancel"] * bool(c.open)
        verb = data.draw(st.sampled_from(choices)) if choices else "wait"
        if verb == "submit":
            side, steps = data.draw(st.sampled_from([(64, 1), (64, 4), (128, 3)]))
            slo = data.draw(st.sampled_from([None, 3.0, 30.0]))
            images = data.draw(st.sampled_from([1, 2, 9]))
            c.submit(request(f"r{submitted}", now, side, steps, slo_s=slo, images=images), now)
            submitted += 1
        elif verb in ("end", "fail"):
            launch = running.pop(data.draw(st.integers(0, len(running) - 1)))
            steps = launch.steps if submitted == 12 else data.draw(st.integers(1, launch.steps))
            failed = {names(launch)[0]: "broken"} if verb == "fail" else None
            for segment in launch.done(steps):
                for job_name in names(launch):
                    if segment.stage == "denoise":
                        denoised[job_name] = denoised.get(job_name, 0) + segment.steps
            c.complete(launch, Outcome(steps, failed), now)
        elif verb == "cancel":
            c.cancel(f"r{data.draw(st.integers(0, submitted - 1))}", now)
        running += c.launches(now)
        c.recalls(now)
        if not running and c.open:
            wakeup = c.wakeup(now)
            if submitted == 12:
                assert wakeup is not None
            now = max(now, wakeup or now)
            running += c.launches(now)
        replicas_busy = [launch.replica for launch in running]
        assert len(replicas_busy) == len(set(replicas_busy))
    assert len(c.jobs) == 12
    for job in c.jobs:
        assert job.state in ENDED
        assert job.finish_s is not None
        assert (job.reason == "") == (job.state == "finished")
        if job.state == "finished":
            assert denoised[job.request.request_id] == job.request.steps == job.steps_done


def test_idle_replicas_are_those_that_work_and_hold_nothing() -> None:
    c = controller(FCFS(), 3)
    cluster = c.policy.cluster

    def idle() -> list[int]:
        found = [replica.index for replica in cluster.idle]
        assert found == [r.index for r in cluster.replicas if r.up and not r.resident]
        assert len(cluster.idle) == len(found)
        return found

    assert idle() == [0, 1, 2]
    c.submit(request("a"), 0.0)
    (launch,) = c.launches(0.0)
    assert idle() == [1, 2]
    c.replica_down(1, 0.5)
    assert idle() == [2]
    c.complete(launch, Outcome(launch.steps), 1.0)
    c.replica_up(1, 1.5)
    assert idle() == [0, 1, 2]
