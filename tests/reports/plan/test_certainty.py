"""A plan is no surer than its seconds: fewest, most and likeliest replicas, and what measuring would settle."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reports.plan.answer import answer, key_figures
from reports.plan.certainty import certainty, keeps_in, likeliest, replicas_in_range
from reports.plan.frames import frames
from reports.plan.markdown import markdown
from reports.plan.page import page
from reports.plan.result import CarriedRange, Plan
from tests.reports.plans import plan, uncertain


def test_measured_seconds_need_no_such_sentence() -> None:
    assert certainty(plan()) == ""
    assert frames(plan())["speeds"].empty


def test_fewest_most_likely_and_what_would_settle_it() -> None:
    said = certainty(uncertain())
    assert said.startswith(
        "3 to 5 × a100-80gb with lookahead, most likely 4, for 95 % of deadlines at 0.220 requests/s"
    )
    assert "ESTIMATED and may be wrong by ×/÷ 1.39 (80 %)" in said
    assert "5 keep the promise in 90 % of what is possible; ten measurements would settle it." in said
    assert answer(uncertain()).startswith(said + " By the best guess, 4 × a100-80gb with lookahead keep it for 7.56")


@pytest.mark.parametrize(
    ("replicas", "reach", "said"),
    [
        ((3, 3, 4, 5, 5), 1, "ten measurements would narrow it, to 3 to 5 if the best guess is right"),
        ((3, 4, 4, 4, 5), 2, "ten measurements would hardly narrow it"),
        ((2, 3, 4, 5, 7), 0, "ten measurements would settle it"),
        (
            (4, 4, 4, 4, 4),
            1,
            "4 × a100-80gb with lookahead keep 95 % of deadlines at 0.220 requests/s, also in 90 % of what is possible",
        ),
        ((4, 4, 4, None, None), 1, "4 × a100-80gb with lookahead keep 95 % of deadlines at 0.220 requests/s in 50 %"),
        ((3, 4, 4, 5, None), 1, "3 or more than were considered × a100-80gb"),
        ((3, 4, 4, 5, None), 1, "None of the clusters considered keeps the promise in 90 % of what is possible"),
    ],
)
def test_other_answers(replicas: tuple[int | None, ...], reach: int, said: str) -> None:
    assert said in certainty(uncertain(replicas, reach))


def test_the_likeliest_is_the_best_guess_where_others_are_as_likely() -> None:
    assert likeliest(uncertain((3, 3, 4, 4, 5)).speeds) == 4
    assert likeliest(uncertain((3, 3, 3, 4, 4)).speeds) == 3


def test_in_how_much_of_what_is_possible_so_many_keep_the_promise() -> None:
    speeds = uncertain().speeds
    assert [keeps_in(speeds, replicas) for replicas in (2, 3, 4, 5)] == [0.0, 0.1, 0.7, 0.9]


def test_what_is_to_be_bought_is_a_range() -> None:
    assert key_figures(uncertain())[0] == ("Buy", "3 to 5 × a100-80gb", "4 most likely, 5 in 90 %; lookahead")
    assert key_figures(uncertain((4, 4, 4, 4, 4)))[0] == ("Buy", "4 × a100-80gb", "lookahead")
    assert key_figures(uncertain((4, 4, 4, 5, None)))[0].hint == "4 most likely; lookahead"


def test_what_a_cluster_carries_is_no_surer_than_its_seconds() -> None:
    made = uncertain((4, 4, 4, None, None))
    made = replace(made, asked_about=made.answer.candidate, carried=CarriedRange(1.39, 0.187, 0.361))
    assert answer(made).startswith(
        "4 × a100-80gb with lookahead carry 0.260 ± 0.004 requests/s with 95 % of deadlines kept, and 0.187 to 0.361 "
        "if the times, ESTIMATED, are wrong by ×/÷ 1.39 (80 %). That is 1.18 ± 0.02 times the demand. They keep 95 % "
        "of deadlines at 0.220 requests/s in 50 % of what is possible for "
    )
    load = next(figure for figure in key_figures(made) if figure.label == "Load it can carry")
    assert load.hint == "0.260 requests/s, 0.187 to 0.361 by the error of the times"
    assert Plan.from_json(made.to_json()).carried == made.carried


def test_every_form_shows_the_speeds() -> None:
    made = uncertain()
    assert replicas_in_range(made) == "3 to 5"
    assert frames(made)["speeds"]["replicas"].tolist() == [3, 4, 4, 4, 5]
    for text in (page(made), markdown(made)):
        assert "How sure it is" in text
        assert "1.39× the best guess" in text
    assert Plan.from_json(made.to_json()).to_json() == made.to_json()
