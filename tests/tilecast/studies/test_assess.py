"""How much is simulated for a verdict, and that candidates are compared on the same demands."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from predictors.basis import ESTIMATED, MEASURED
from reports.plan.formatting import rejection
from reports.plan.result import Candidate, Demand, Memory, Plan
from tilecast.studies.assess import Assessor, Effort, SloTarget, key
from tilecast.studies.experiment import Change, Experiment
from tilecast.studies.headroom import headroom
from tilecast.studies.planner import Wanted, make_plan
from tilecast.studies.replication import Replication
from tilecast.studies.search import Option
from tilecast.studies.whatif import load_curve

EFFORT = Effort(seeds=4, max_seeds=16, requests=1000, max_requests=8000)
OPTIONS = [Option("a", 1, "fcfs", 2.0, 8, MEASURED), Option("b", 1, "fcfs", 3.0, 8, MEASURED)]
CARRIES_RPS = {"a": 1.0, "b": 1.4}
DEMAND = Demand("trace", "model", 3.0, 1.0, (("512x512", 1.0),), "drawn")


def replication(ask: Experiment, attained: float, growth: float = 0.0) -> Replication:
    seconds = ask.requests / CARRIES_RPS[ask.candidate.hardware] if ask.saturate else 0.0
    same = math.nan
    return Replication(
        ask.requests, math.inf, ask.requests, ask.requests, 1000.0, 0.0, True, attained, 1.0, 1.0, 1.0, 1.0, 0.1, 1.0,
        1.0, 1.0, 0.5, (0.5,), 1.0, 1, 1.0, 0.0, 0.0, 0.0, {"denoise": 1.0}, same, 0.0, (1.0, 1.0 + 100 * growth),
        (1.0, 1.0 + 100 * growth), growth, growth, seconds, (), (),
    )  # fmt: skip


class Queues:
    """Answers by formula, and remembers what it was asked."""

    def __init__(
        self, attained: Callable[[Experiment], float], growth: Callable[[Experiment], float] = lambda _: 0.0
    ) -> None:
        self.asked: list[Experiment] = []
        self.attained = attained
        self.growth = growth

    def __call__(self, asks: Sequence[Experiment]) -> list[Replication]:
        self.asked += asks
        return [replication(ask, self.attained(ask), self.growth(ask)) for ask in asks]

    def of(self, candidate: Candidate, change: Change | None = None) -> list[tuple[int, int]]:
        """(Seed, requests) of what was asked of a candidate, without the overload."""
        asks = {ask for ask in self.asked if ask.candidate == candidate and not ask.saturate}
        return sorted((ask.seed, ask.requests) for ask in asks if change in (None, ask.change))


def assessor(queues: Queues) -> Assessor:
    return Assessor(queues, {key(option): option for option in OPTIONS}, SloTarget(0.9, 0.95, 3.0), EFFORT)


def test_a_clear_case_takes_the_least_effort() -> None:
    for attained, kept, seeds in ((0.99, True, 4), (0.5, False, 3)):
        queues = Queues(lambda ask, attained=attained: attained)
        assert assessor(queues)(OPTIONS[0].cluster(4)).keeps is kept
        assert queues.of(OPTIONS[0].cluster(4)) == [(seed, 1000) for seed in range(seeds)]


def test_replications_are_added_while_the_promise_is_not_decided() -> None:
    queues = Queues(lambda ask: 0.92 if ask.seed % 2 else 0.885)
    assert assessor(queues)(OPTIONS[0].cluster(4)).keeps is None
    assert queues.of(OPTIONS[0].cluster(4)) == [(seed, 1000) for seed in range(16)]


def test_what_hardware_of_another_speed_would_do_is_decided_by_fewer_replications() -> None:
    for change, most in ((Change(), 16), (Change(rate_scale=1.2), 16), (Change(slowdown=1.2), 8)):
        queues = Queues(lambda ask: 0.92 if ask.seed % 2 else 0.885)
        assert assessor(queues)(OPTIONS[0].cluster(4), change).keeps is None
        assert len(queues.of(OPTIONS[0].cluster(4), change)) == most


def test_a_cluster_whose_steadiness_does_not_show_is_run_longer() -> None:
    unclear = {1000: 0.2, 2000: 0.1, 4000: 0.05, 8000: 0.05}
    queues = Queues(lambda ask: 0.99, lambda ask: unclear.get(ask.requests, 0.0) * (1 if ask.seed % 2 else -1))
    assessor(queues)(OPTIONS[0].cluster(4))
    assert {requests for _, requests in queues.of(OPTIONS[0].cluster(4))} == {1000, 2000, 4000, 8000}


def test_seconds_that_are_not_certain_ask_for_the_least_cluster_at_every_speed() -> None:
    def attained(ask: Experiment) -> float:
        carries = CARRIES_RPS[ask.candidate.hardware] * ask.candidate.replicas / ask.change.slowdown
        return 0.99 if carries > 3.0 * ask.change.rate_scale else 0.3

    sure = replace(OPTIONS[0], max_replicas=20)
    unsure = replace(sure, log_sd=0.3, measured_error_ratio=0.3, label=ESTIMATED)
    for option in (sure, unsure):
        queues = Queues(attained)
        assess = Assessor(queues, {key(option): option}, SloTarget(0.9, 0.95, 3.0), EFFORT)
        plan = make_plan(assess, Wanted(("fcfs",)), DEMAND, "")
        assert plan.answer is not None
        assert plan.answer.candidate.replicas == 4
        if option is sure:
            assert plan.speeds == ()
            continue
        slowdowns = [speed.slowdown for speed in plan.speeds]
        assert slowdowns == sorted(slowdowns)
        assert math.isclose(slowdowns[-1], math.exp(1.2816 * 0.3), rel_tol=1e-3)
        least = [speed.evaluation.candidate.replicas for speed in plan.speeds if speed.evaluation]
        assert least == [math.floor(3 * slowdown) + 1 for slowdown in slowdowns] == [3, 3, 4, 4, 5]
        assert plan.speeds_if_measured == 1
        assert {ask.change.slowdown for ask in queues.asked if ask.saturate} == {1.0}
        assert assess.load(option.cluster(4), Change(slowdown=1.5)).mean == pytest.approx(1.5 * 3.0 / 4)
        looked = {(ask.change.slowdown, ask.candidate.replicas) for ask in queues.asked if not ask.saturate}
        assert all(replicas >= 4 for slowdown, replicas in looked if slowdown > 1.1)  # three do not do faster
        assert all(replicas <= 4 for slowdown, replicas in looked if slowdown < 0.9)  # four do slower
        asked_about = make_plan(assess, Wanted(("fcfs",), (option.cluster(4),)), DEMAND, "")
        assert [speed.evaluation is not None for speed in asked_about.speeds] == [True, True, True, True, False]


def policies(attained: Callable[[Experiment], float], *clusters: Candidate) -> Plan:
    """A plan for two policies, the first of them the scenario's."""
    options = [replace(OPTIONS[0], scheduler=name) for name in ("own", "rival")]
    assess = Assessor(Queues(attained), {key(option): option for option in options}, SloTarget(0.9, 0.95, 3.0), EFFORT)
    return make_plan(assess, Wanted(("own", "rival"), clusters, growth=0.3, months=1), DEMAND, "soon")


def with_each(replicas: int) -> list[Candidate]:
    return [Candidate("a", 1, replicas, name) for name in ("own", "rival")]


def test_the_cheapest_of_the_policies_is_the_answer() -> None:
    def attained(ask: Experiment) -> float:
        carries = ask.candidate.replicas * (1.2 if ask.candidate.scheduler == "rival" else 0.8)
        return 0.99 if carries > 3.0 * ask.change.rate_scale else 0.5

    made = policies(attained)
    assert made.answer is not None
    assert made.answer.candidate == Candidate("a", 1, 3, "rival")
    assert [(cost.scheduler, cost.evaluation.price_per_hour) for cost in made.policies if cost.evaluation] == [
        ("own", 8.0),
        ("rival", 6.0),
    ]
    about = policies(attained, *with_each(3))
    assert about.answer == made.answer
    assert [cost.evaluation.keeps for cost in about.policies if cost.evaluation] == [False, True]


def test_of_policies_that_cost_as_much_the_one_with_the_most_room_is_the_answer() -> None:
    for roomier in ("own", "rival"):

        def attained(ask: Experiment, roomier: str = roomier) -> float:
            carries = 1.3 if ask.candidate.scheduler == roomier else 1.15
            best = 0.95 if ask.candidate.scheduler == roomier else 0.99  # that is no room
            return best if ask.candidate.replicas * carries / 3 > ask.change.rate_scale else 0.5

        made = policies(attained)
        assert made.answer is not None
        assert made.answer.candidate == Candidate("a", 1, 3, roomier)
        later = [month.evaluation.candidate for month in made.growth if month.evaluation]
        assert later == [Candidate("a", 1, replicas, roomier) for replicas in (3, 4)]


def test_where_no_policy_keeps_the_promise_each_says_what_came_nearest() -> None:
    def attained(ask: Experiment) -> float:
        return 0.1 * ask.candidate.replicas if ask.candidate.scheduler == "own" else 0.3

    made = policies(attained)
    assert (made.answer, made.asked_about) == (None, None)
    assert [cost.evaluation.candidate.replicas for cost in made.policies[:1] if cost.evaluation] == [8]
    about = policies(attained, *with_each(4))
    assert about.answer is None
    assert about.asked_about == Candidate("a", 1, 4, "own")
    assert about.lost_replica is not None


def test_a_headroom_that_is_promised_is_bought() -> None:
    def attained(ask: Experiment) -> float:
        return 0.99 if CARRIES_RPS["a"] * ask.candidate.replicas > 3.0 * ask.change.rate_scale else 0.5

    least = {}
    for room in (0.0, 0.2, 0.4):
        target = SloTarget(0.9, 0.95, 3.0, headroom=room)
        assess = Assessor(Queues(attained), {key(OPTIONS[0]): OPTIONS[0]}, target, EFFORT)
        made = make_plan(assess, Wanted(("fcfs",), growth=0.5, months=1), DEMAND, "soon")
        assert made.answer is not None
        assert made.least_headroom == room
        assert made.answer.figures.rate_scale == 1.0  # figures are of the demand
        assert made.headroom.mean > 1 + room
        least[room] = [month.evaluation.candidate.replicas for month in made.growth if month.evaluation]
    assert least == {0.0: [4, 5], 0.2: [4, 6], 0.4: [5, 7]}
    [below] = [said for said in made.considered if said.candidate == OPTIONS[0].cluster(4)]
    assert below.keeps is False
    assert rejection(below, 0.9) == "99.0 % kept, but 50.0 % kept of 90 % at 1.4 times the load"


def test_a_throughput_is_promised_beside_deadlines() -> None:
    """One request in fifty is lost on three replicas, of 10,800 an hour that are asked for."""

    class Losing(Queues):
        def __call__(self, asks: Sequence[Experiment]) -> list[Replication]:
            lost = [20 if ask.candidate.replicas <= 3 else 0 for ask in asks]
            runs = zip(super().__call__(asks), lost, strict=True)
            return [replace(run, finished=run.requests - lost, dropped=lost / run.requests) for run, lost in runs]

    answers = []
    for throughput_rps in (0.0, 0.97 * 3.0, 0.99 * 3.0, 3.0):
        target = SloTarget(0.9, 0.95, 3.0, throughput_rps)
        assess = Assessor(Losing(lambda ask: 0.96), {key(OPTIONS[0]): OPTIONS[0]}, target, EFFORT)
        made = make_plan(assess, Wanted(("fcfs",)), DEMAND, "soon")
        assert made.answer is not None
        answers.append(made.answer.candidate.replicas)
    assert answers == [1, 1, 4, 4]
    [below] = [said for said in made.considered if said.candidate == OPTIONS[0].cluster(3)]
    assert rejection(below, 0.9) == "96.0 % kept, but throughput 10,584/h of 10,800/h"
    assert not assess(OPTIONS[0].cluster(3), Change(rate_scale=0.5)).keeps  # of half the demand half is promised


def test_what_if_is_asked_of_the_replications_of_the_answer() -> None:
    def attained(ask: Experiment) -> float:
        load = 3.0 * ask.change.rate_scale * ask.change.slowdown / ask.candidate.replicas
        return min(1.0, max(0.0, 0.97 - (load / CARRIES_RPS[ask.candidate.hardware] - 0.8)))

    queues = Queues(attained)
    made = make_plan(assessor(queues), Wanted(("fcfs",), growth=0.2, months=3), DEMAND, "soon")
    assert made.answer is not None
    answer = made.answer.candidate
    assert answer == Candidate("a", 1, 4, "fcfs")  # 8.0; b takes 3 for 9.0
    seen = queues.of(answer, Change())
    assert seen == [(seed, 1000) for seed in range(4)]
    for what in (Change(rate_scale=1.2), Change(slowdown=1.1), Change(error=-0.2), Change(rate_scale=0.5)):
        assert queues.of(answer, what) == seen
    considered = {evaluation.candidate for evaluation in made.considered}
    assert considered >= {OPTIONS[0].cluster(replicas) for replicas in (3, 4, 5)}
    least = (0.97 - 0.9 + 0.8) * 4 / 3.0
    assert made.headroom.mean == pytest.approx(least, rel=1e-3)
    assert made.headroom.half_width < 1e-9  # every seed attains the same
    assert [month.evaluation.price_per_hour for month in made.growth if month.evaluation is not None] == [8, 9, 10, 12]
    assert math.isnan(make_plan(assessor(Queues(lambda ask: 0.1)), Wanted(("fcfs",)), DEMAND, "").headroom.mean)


def test_what_measured_hardware_takes_is_said_where_the_answer_is_estimated() -> None:
    options = [replace(OPTIONS[0], label=ESTIMATED), OPTIONS[1]]
    queues = Queues(lambda ask: 0.99 if ask.candidate.replicas * CARRIES_RPS[ask.candidate.hardware] > 3.5 else 0.5)
    assess = Assessor(queues, {key(option): option for option in options}, SloTarget(0.9, 0.95, 3.0), EFFORT)
    made = make_plan(assess, Wanted(("fcfs",)), DEMAND, "soon")
    assert made.answer is not None
    assert made.answer.candidate == Candidate("a", 1, 4, "fcfs")
    said = [note.text for note in made.notes]
    assert said == ["The least cluster of measured hardware is 3 x b with fcfs, for 9.00 an hour."]


@pytest.mark.parametrize(("wider", "other", "reason"), [(True, True, "batch cap"), (False, True, "policy")])
def test_the_reason_of_the_cluster_below_the_answer_is_confirmed(wider: bool, other: bool, reason: str) -> None:
    capped = Option("a", 1, "same-size", 2.0, 8, MEASURED, max_batch=4)
    rival = replace(OPTIONS[0], scheduler="rival")

    def attained(ask: Experiment) -> float:
        enough = ask.candidate.replicas >= 4
        enough |= (ask.change.max_batch == 8 and wider) or (ask.candidate.scheduler == "rival" and other)
        return 0.99 if enough else 0.5

    assess = Assessor(
        Queues(attained), {key(option): option for option in (capped, rival)}, SloTarget(0.9, 0.95, 3.0), EFFORT
    )
    made = make_plan(assess, Wanted(("same-size",)), DEMAND, "soon")
    assert made.answer is not None
    [below] = [said for said in made.considered if said.candidate == capped.cluster(3)]
    assert below.reason == reason
    assert "it attains 99.0 %" in below.detail


def test_a_policy_that_is_known_to_fail_is_not_simulated_to_confirm_a_reason() -> None:
    def attained(ask: Experiment) -> float:
        carries = ask.candidate.replicas * (1.2 if ask.candidate.scheduler == "rival" else 0.8)
        return 0.99 if carries > 3.0 * ask.change.rate_scale else 0.5

    queues = Queues(attained)
    options = [replace(OPTIONS[0], scheduler=name) for name in ("rival", "own")]
    assess = Assessor(queues, {key(option): option for option in options}, SloTarget(0.9, 0.95, 3.0), EFFORT)
    made = make_plan(assess, Wanted(("rival", "own")), DEMAND, "soon")
    assert made.answer is not None
    assert made.answer.candidate == options[0].cluster(3)
    tried = {ask.candidate.replicas for ask in queues.asked if ask.candidate.scheduler == "own" and not ask.saturate}
    assert tried == {3, 4}  # what the other one takes, and the next


def test_batches_that_memory_caps_are_limited_by_memory() -> None:
    for cap, room, reason in ((4, 4, "memory"), (4, 9, "batch cap")):
        option = replace(OPTIONS[0], max_batch=cap, memory=Memory(30e9, 80e9, room, ESTIMATED))
        queues = Queues(lambda ask: 0.5, lambda ask: 0.3)
        assess = Assessor(
            lambda asks, queues=queues: [replace(run, batch_cap=4, utilisation=0.99) for run in queues(asks)],
            {key(option): option},
            SloTarget(0.9, 0.95, 3.0),
            EFFORT,
        )
        assert assess(option.cluster(2)).reason == reason


def test_at_its_own_load_a_cluster_does_as_was_said_however_many_replications_that_took() -> None:
    def attained(ask: Experiment) -> float:
        return min(1.0, 0.925 + (0.03 if ask.seed % 2 else -0.03) - 0.2 * (ask.change.rate_scale - 1))

    assess, cluster = assessor(Queues(attained)), OPTIONS[0].cluster(4)
    said = assess(cluster)
    assert said.keeps
    assert said.figures.attainment.replications > 2 * EFFORT.seeds
    [unchanged] = [what_if for what_if in load_curve(assess, cluster) if what_if.what == "1 x load"]
    assert (unchanged.keeps, unchanged.figures) == (True, said.figures)
    assert headroom(assess, cluster).mean >= 1.0


@pytest.mark.parametrize("breaks_at", [0.003, 0.3, 0.97, 1.04, 1.33, 7.0, 900.0])
def test_the_headroom_is_where_each_seed_breaks_its_promise(breaks_at: float) -> None:
    """Each seed falls off a knee of its own, a percent or two beside the others."""

    def attained(ask: Experiment) -> float:
        knee = breaks_at * (1 + 0.01 * (ask.seed - 1.5))
        return 1 / (1 + math.exp(min(700, 40 * (ask.change.rate_scale / knee - 1) - math.log(9))))  # 0.9 at the knee

    queues = Queues(attained)
    found = headroom(assessor(queues), OPTIONS[0].cluster(math.ceil(4 * breaks_at)))
    assert found.mean == pytest.approx(breaks_at, rel=0.01)
    assert found.low <= breaks_at * 1.005
    assert found.high >= breaks_at * 0.995
    assert len({ask.change.rate_scale for ask in queues.asked}) <= 20


def test_a_cluster_that_does_not_keep_up_has_no_headroom_whatever_so_short_a_run_attains() -> None:
    queues = Queues(lambda ask: 0.99, lambda ask: 0.2 if ask.change.rate_scale > 1.15 else 0.0)
    assert 1.1 <= headroom(assessor(queues), OPTIONS[0].cluster(4)).mean <= 1.2


def test_a_headroom_without_end_or_beginning() -> None:
    assert headroom(assessor(Queues(lambda ask: 0.99)), OPTIONS[0].cluster(8)).mean == math.inf
    assert headroom(assessor(Queues(lambda ask: 0.1)), OPTIONS[0].cluster(8)).mean == 0.0


def test_a_recording_too_short_to_decide_is_not_drawn_from_for_ever() -> None:
    """Each replication is as long as the recording, so no number of them decides what lies so close to the promise."""

    class Recorded(Queues):
        def __call__(self, asks: Sequence[Experiment]) -> list[Replication]:
            return [
                replace(run, recorded=float(ask.requests))
                for ask, run in zip(asks, super().__call__(asks), strict=True)
            ]

    def attained(ask: Experiment) -> float:
        return 0.92 if ask.seed % 2 else 0.885

    cluster, looked = OPTIONS[0].cluster(4), []
    for queues in (Queues(attained), Recorded(attained)):
        assess = Assessor(queues, {key(OPTIONS[0]): OPTIONS[0]}, SloTarget(0.9, 0.95, 3.0), replace(EFFORT, seeds=5))
        assert assess(cluster).keeps is None
        looked.append(len(queues.of(cluster)))
    assert looked == [16, 10]
