"""The search for the least cluster, held against looking at every one."""

from __future__ import annotations

import math
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.queueing import wait_quantile_s
from predictors.basis import MEASURED
from reports.output_analysis import Interval
from reports.plan.result import STABLE, UNSTABLE, Candidate, Evaluation, Figures
from tests.examples_tried import examples
from tilecast.studies.search import Option, search, surprises

RATE_RPS = 3.0
TARGET = 0.95


def evaluation(candidate: Candidate, kept: bool | None, attained: float) -> Evaluation:
    same = Interval(attained, 0.0, 5)
    figures = Figures(1.0, RATE_RPS, same, same, same, same, same, same, same, same, same, 1000, 0.0)
    return Evaluation(candidate, MEASURED, STABLE if kept else UNSTABLE, "", "", kept, figures, 0.5)


class Queues:
    """M/M/c clusters: kept when 95 % wait less than five service times. Remembers what was looked at."""

    def __init__(self, service_s: dict[str, float], rate_rps: float = RATE_RPS) -> None:
        self.service_s = service_s
        self.rate_rps = rate_rps
        self.looked_at: set[Candidate] = set()

    def __call__(self, candidate: Candidate) -> Evaluation:
        self.looked_at.add(candidate)
        return self.true(candidate)

    def true(self, candidate: Candidate) -> Evaluation:
        seconds = self.service_s[candidate.hardware] / (1 + 0.8 * (candidate.devices - 1))
        wait_s = wait_quantile_s(TARGET, self.rate_rps, seconds, candidate.replicas)
        return evaluation(candidate, wait_s <= 5 * seconds, 1.0 if wait_s <= 5 * seconds else 0.5)


kinds = st.lists(
    st.tuples(
        st.floats(0.05, 8.0),  # service_s
        st.floats(0.1, 20.0),  # price
        st.integers(1, 3),  # devices
        st.integers(1, 40),  # max_replicas
        st.booleans(),  # whether a bound is known
    ),
    min_size=1,
    max_size=5,
)


def options_of(drawn: list[tuple[float, float, int, int, bool]], priced: bool) -> tuple[list[Option], dict[str, float]]:
    options, service_s = [], {}
    for number, (seconds, price, devices, most, bounded) in enumerate(drawn):
        name = f"kind{number}"
        service_s[name] = seconds
        capacity_rps = (1 + 0.8 * (devices - 1)) / seconds if bounded else math.inf
        price = price if priced else math.nan
        options.append(Option(name, devices, "fcfs", price, most, MEASURED, capacity_rps))
    return options, service_s


@given(drawn=kinds, priced=st.booleans(), off=st.floats(0.2, 4.0))
@settings(max_examples=examples(50), deadline=None)
def test_the_answer_is_that_of_looking_at_every_cluster(
    drawn: list[tuple[float, float, int, int, bool]], priced: bool, off: float
) -> None:
    options, service_s = options_of(drawn, priced)
    queues = Queues(service_s)
    found = search(options, RATE_RPS, queues, lambda option: round(off * RATE_RPS * service_s[option.hardware]), TARGET)
    keeping = [
        (option.rank(replicas), option.cluster(replicas))
        for option in options
        for replicas in range(1, option.max_replicas + 1)
        if queues.true(option.cluster(replicas)).keeps
    ]
    assert (found.answer is None) == (not keeping)
    if found.answer is not None:
        best = min(keeping)[1]
        assert found.answer.candidate == best
        fewer = replace(best, replicas=best.replicas - 1)
        bound = next(option for option in options if option.hardware == best.hardware).at_least(RATE_RPS)
        assert fewer.replicas < bound or fewer in queues.looked_at
        bought = next(option for option in options if option.hardware == best.hardware)
        assert not list(surprises(bought, found.answer, queues, TARGET))
    looked_at = {candidate.hardware for candidate in queues.looked_at}
    said = {refused.hardware for refused in found.refused}
    assert looked_at | said == {option.hardware for option in options}


def test_what_cannot_be_cheaper_is_not_simulated() -> None:
    cheap = Option("cheap", 1, "fcfs", 1.0, 64, MEASURED, 1.0)
    dear = Option("dear", 1, "fcfs", 9.0, 64, MEASURED, 2.0)
    queues = Queues({"cheap": 1.0, "dear": 0.5})
    found = search([dear, cheap], RATE_RPS, queues, lambda option: 3, TARGET)
    assert found.answer is not None
    assert found.answer.candidate.hardware == "cheap"
    assert {candidate.hardware for candidate in queues.looked_at} == {"cheap"}
    [refused] = found.refused
    assert refused.hardware == "dear"
    assert "2 or more, which is no cheaper than 4 x cheap" in refused.why


def test_few_clusters_of_many_are_simulated() -> None:
    option = Option("only", 1, "fcfs", 1.0, 1000, MEASURED)
    queues = Queues({"only": 50.0})
    found = search([option], RATE_RPS, queues, lambda option: 40, TARGET)
    assert found.answer is not None
    assert 150 < found.answer.candidate.replicas < 170
    assert len(queues.looked_at) < 20


def test_an_undecided_cluster_is_not_bought_and_a_surprise_is_said() -> None:
    kept = {1: False, 2: None, 3: True, 4: False}
    option = Option("odd", 1, "fcfs", 1.0, 4, MEASURED)

    def assess(candidate: Candidate) -> Evaluation:
        return evaluation(candidate, kept[candidate.replicas], 0.9)

    found = search([option], 1.0, assess, lambda _: 3, TARGET)
    assert found.answer is not None
    assert found.answer.candidate.replicas == 3
    [surprise] = surprises(option, found.answer, assess, TARGET)
    assert surprise == "3 x odd with fcfs keep the promise, 4 do not: 90.0 % kept of 95 %."


def test_a_demand_beyond_all_that_may_be_bought_is_refused_unseen() -> None:
    found = search(
        [Option("few", 1, "fcfs", 1.0, 2, MEASURED, 1.0)], RATE_RPS, Queues({"few": 1.0}), lambda _: 1, TARGET
    )
    assert found.answer is None
    assert "3 replicas or more, at most 2" in found.refused[0].why


def test_what_is_cheaper_and_does_not_do_says_the_reason_that_counts() -> None:
    sure, odd = Option("sure", 1, "fcfs", 1.0, 9, MEASURED, 1.0), Option("odd", 1, "fcfs", 4.0, 9, MEASURED)

    def assess(candidate: Candidate) -> Evaluation:
        if candidate.hardware == "sure":
            return evaluation(candidate, candidate.replicas >= 5, 0.99)
        return replace(evaluation(candidate, False, 0.971), broken_by="the queue grows")

    found = search([sure, odd], RATE_RPS, assess, lambda option: 4, TARGET)
    assert found.answer is not None
    assert found.answer.candidate == sure.cluster(5)
    [refused] = found.refused
    assert refused.why.endswith("the largest, 1 replica, does not do: 97.1 % kept, but the queue grows")
