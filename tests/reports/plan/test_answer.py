"""The sentence a manager reads."""

from __future__ import annotations

import math
from dataclasses import replace

from predictors.basis import ESTIMATED, MEASURED
from reports.output_analysis import Interval
from reports.plan.answer import answer, key_figures, notes, promise
from reports.plan.formatting import kept, rejection
from reports.plan.result import UNSTABLE, Evaluation, WhatIf
from tests.reports import plans


def test_the_answer_says_what_to_buy_and_what_it_is_worth():
    assert answer(plans.plan()) == (
        "3 × h100-sxm with lookahead keep 95 % of deadlines at 0.220 requests/s for 8.97 an hour (8.71 per 1,000 "
        "images); they carry 1.18 ± 0.02 times this load, and with one replica less 7.5 ± 1.6 % are kept."
    )


def test_one_device_is_singular_and_an_unknown_price_is_not_mentioned():
    assert answer(plans.one_replication()) == (
        "1 × b200 with lookahead keeps 95 % of deadlines at 0.220 requests/s. It is close to its limit, limited by "
        "compute."
    )


def test_several_devices_a_replica():
    plan = replace(
        plans.plan(), answer=plans.evaluation("h100-sxm", 2, devices=2), headroom=Interval(math.nan, math.nan, 0)
    )
    assert answer(plan).startswith("2 replicas of 2 × h100-sxm with lookahead keep 95 % of deadlines")
    assert "carry" not in answer(plan)


def test_no_answer_names_the_best_and_what_limits_it():
    assert answer(plans.no_answer()) == (
        "None of the 3 clusters considered keeps 95 % of deadlines at 0.220 requests/s: the best, 7 × l40s with "
        "lookahead, reaches 9.5 ± 1.8 %, limited by batch cap."
    )
    one = replace(plans.no_answer(), considered=plans.no_answer().considered[:1])
    assert answer(one).startswith("The one cluster considered does not keep 95 % of deadlines")


def test_undecided_is_not_said_to_fail():
    undecided = replace(plans.evaluation("l40s", 9), keeps=None)
    text = answer(replace(plans.no_answer(), considered=(undecided, plans.evaluation("l40s", 7))))
    assert "None of the 2 clusters considered is known to keep" in text
    assert any("could not be decided" in note.text for note in notes(plans.plan()))


def test_nothing_was_simulated():
    assert answer(plans.nothing_simulated()) == (
        "No cluster is known to keep 95 % of deadlines at 0.220 requests/s: none could be simulated."
    )


def test_an_unstable_answer_says_so():
    best = replace(plans.plan().answer, state=UNSTABLE, reason="policy", keeps=False)
    text = answer(replace(plans.plan(), answer=best))
    assert "do not keep 95 %" in text
    assert text.endswith("It is UNSTABLE: its queue grows, limited by policy.")


def test_a_cluster_that_was_asked_about_is_told_of_although_it_fails():
    assert answer(plans.asked_about()) == (
        "8 × l40s with lookahead carry 0.185 ± 0.002 requests/s with 95 % of deadlines kept. That is 0.840 ± 0.010 "
        "times the demand. They do not keep 95 % of deadlines at 0.220 requests/s for 8.40 an hour (8.16 per 1,000 "
        "images), but 69.6 ± 3.6 %; with one replica less 9.5 ± 1.8 % are kept. It is close to its limit, limited by "
        "batch cap."
    )
    assert key_figures(plans.asked_about())[0] == ("Cluster", "8 × l40s", "lookahead")


def test_key_figures_leave_out_what_is_not_known():
    labels = [figure.label for figure in key_figures(plans.one_replication())]
    assert "Per hour" not in labels
    assert "Load it can carry" not in labels
    assert ("Load it can carry", "1.18 ± 0.02×", "0.260 requests/s") in key_figures(plans.plan())
    assert key_figures(plans.no_answer()) == []


def test_the_promise_names_the_demand():
    assert promise(plans.plan()) == (
        "The promise: 95 % of requests meet their deadline (5 times a request's latency alone). The demand: "
        "gentd26.parquet, sdxl, 0.220 requests/s, 1.30 images a request."
    )


def test_the_promise_says_what_is_promised_too():
    plan = replace(plans.plan(), throughput_rps=0.2, least_headroom=0.2)
    assert promise(plan).startswith(
        "The promise: 95 % of requests meet their deadline (5 times a request's latency alone), and 720/h are "
        "completed, at 1.2 times the demand, too. The demand: "
    )
    assert "keep 95 % of deadlines and 720/h at 0.220 requests/s with 20 % headroom for 8.97 an hour" in answer(plan)


def test_estimates_and_extrapolation_are_said():
    best = replace(plans.plan().answer, label=ESTIMATED, extrapolated=0.0004)
    told = " ".join(map(str, notes(replace(plans.plan(), answer=best))))
    assert "The figures are ESTIMATED" in told
    assert "< 0.1 % of its simulated time lies outside the measured range" in told
    sure = replace(best, label=MEASURED, extrapolated=0.0)
    assert "measured" not in " ".join(map(str, notes(replace(plans.plan(), answer=sure))))


def test_close_to_the_knee_a_latency_is_as_uncertain_as_a_step_many_times_over():
    def said(load: float) -> str:
        best = replace(plans.evaluation("h100-sxm", 3), load=load)
        return "\n".join(map(str, notes(replace(plans.plan(), answer=best))))

    assert "knee" not in said(0.94)
    assert "97 % of what it can do at most" in said(0.97)
    assert "1 % longer make waits about 48 % longer" in said(0.97)
    assert "no latency is certain" in said(0.995)
    assert "knee" not in said(1.02)


def test_a_promise_that_lateness_does_not_break_says_what_does():
    def reaching(mean: float, half_width: float, keeps: bool | None, broken_by: str = "") -> Evaluation:
        best = plans.evaluation("h100-sxm", 3)
        seen = replace(best.figures, attainment=Interval(mean, half_width, 5))
        return replace(best, figures=seen, keeps=keeps, broken_by=broken_by)

    grows = "the queue grows"
    for of, why, cell in (
        (reaching(0.971, 0.002, True), "", "yes"),
        (reaching(0.942, 0.002, False), "94.2 % kept of 95 %", "no"),
        (reaching(0.94998, 1e-5, False), "94.998 % kept of 95 %", "no"),
        (reaching(0.948, 0.006, None), "94.8 ± 0.6 % kept of 95 %, undecided", "undecided"),
        (reaching(0.971, 0.002, False, grows), "97.1 % kept, but the queue grows", "no: the queue grows"),
        (reaching(0.952, 0.006, False, grows), "95.2 ± 0.6 % kept of 95 %, but the queue grows", "no: the queue grows"),
        (reaching(0.901, 0.002, False, grows), "90.1 % kept of 95 %, and the queue grows", "no: the queue grows"),
    ):
        assert rejection(of, 0.95) == why
        assert kept(of) == cell
        shown = replace(plans.no_answer(), considered=(of,))
        if of.broken_by:
            assert f"has {why}" in answer(shown)
            less = replace(plans.plan(), lost_replica=WhatIf("a replica less", of.figures, of.keeps, of.broken_by))
            assert "are kept, but the queue grows" in answer(less)
