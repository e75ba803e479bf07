"""PatchedServe's admission, by hand. A step of n 64 px requests takes 0.1 + 0.1 n s, a 128 px one counts four."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.scheduling import PatchedServe, PatchedServeJoins
from tests.examples_tried import examples
from tests.policies.driving import Driven, names, request


def test_the_least_slack_is_admitted_first() -> None:
    d = Driven(PatchedServe(max_batch=1))
    d.submit(request("relaxed", slo_s=9.0), request("tight", slo_s=1.0), request("never"))
    (launch,) = d.start()
    assert names(launch) == ["tight"]


def test_slack_is_counted_in_standalone_seconds() -> None:
    """Four steps take 0.8 s small and 2.0 s large; 1.5 s to spare are 1.9 and 0.75 of that. One step's table of costs
    has encode and decode too, so standalone is 1.2 and 3.0 s here: still the large one has less slack."""
    d = Driven(PatchedServe(max_batch=1, relaxed_slack=9.0))
    d.submit(request("small", slo_s=2.3), request("large", side=128, slo_s=3.5))
    (launch,) = d.start()
    assert names(launch) == ["large"]


def test_in_seconds_a_large_request_has_more_slack() -> None:
    """1.4 s to spare for the small one and 1.5 s for the large: less in seconds, more in multiples of 1.2 and 3.0 s."""
    for slack, expected in (("seconds", "small"), ("multiples", "large")):
        d = Driven(PatchedServe(max_batch=1, relaxed_slack=9.0, slack=slack))  # type: ignore[arg-type]
        d.submit(request("large", side=128, slo_s=3.5), request("small", slo_s=2.2))
        (launch,) = d.start()
        assert names(launch) == [expected]


def test_slack_in_another_unit_is_refused() -> None:
    with pytest.raises(ValueError, match="slack is 'hours', expected one of multiples, seconds"):
        PatchedServeJoins(slack="hours")  # type: ignore[arg-type]


def test_who_would_miss_in_the_batch_is_dropped_with_the_reason() -> None:
    """Together a step takes 0.3 s, four of them 1.2 s."""
    d = Driven(PatchedServe(relaxed_slack=9.0))
    d.submit(request("a", slo_s=1.0), request("b", slo_s=1.1))
    (launch,) = d.start()
    assert names(launch) == ["a"]
    assert d.states()["b"] == "dropped"
    assert d.reason("b") == "would miss its deadline by 0.1 s in a batch with 1 others"


def test_who_cannot_make_it_alone_is_dropped_and_the_next_is_tried() -> None:
    d = Driven(PatchedServe())
    d.submit(request("late", slo_s=0.7), request("fine", slo_s=20.0))
    (launch,) = d.start()
    assert names(launch) == ["fine"]
    assert d.reason("late").startswith("would miss its deadline by 0.1 s")


def test_admission_stops_before_the_active_one_misses() -> None:
    """a has 0.3 s to spare over 4 steps: one more small request costs it 0.4 s."""
    d = Driven(PatchedServe(relaxed_slack=9.0))
    d.submit(request("a", slo_s=1.1), request("b", slo_s=9.0))
    (launch,) = d.start()
    assert names(launch) == ["a"]
    assert d.states()["b"] == "waiting"


def test_relaxed_requests_are_admitted_by_throughput() -> None:
    """Both could run; the large one has less slack, but a step with the small one is shorter."""
    tight, relaxed = PatchedServe(max_batch=1, relaxed_slack=9.0), PatchedServe(max_batch=1, relaxed_slack=1.0)
    for policy, expected in ((tight, "large"), (relaxed, "small")):
        d = Driven(policy)
        d.submit(request("large", side=128, slo_s=10.0), request("small", slo_s=10.0))
        (launch,) = d.start()
        assert names(launch) == [expected]


def test_a_request_without_a_deadline_is_never_dropped() -> None:
    d = Driven(PatchedServe(max_batch=2))
    d.submit(*[request(f"r{i}", steps=50) for i in range(4)])
    while d.controller.open:
        (launch,) = d.start()
        assert len(launch.jobs) == 2
        d.end(launch)
    assert set(d.states().values()) == {"finished"}


def test_as_published_nothing_joins_a_batch_that_is_denoising() -> None:
    d = Driven(PatchedServe())
    d.submit(request("a", steps=2), request("b", steps=6))
    (both,) = d.start()
    d.submit(request("c", slo_s=30.0))
    assert d.recalled() == []
    d.end(both)
    (rest,) = d.start()
    assert names(rest) == ["b"]
    d.end(rest)
    (launch,) = d.start()
    assert names(launch) == ["c"]


def test_with_joins_it_is_admitted_at_the_next_step_boundary() -> None:
    d = Driven(PatchedServeJoins())
    d.submit(request("a", steps=6, slo_s=30.0))
    (alone,) = d.start()
    d.submit(request("b", slo_s=30.0))
    assert d.recalled() == [alone.launch_id]
    d.end(alone, 1)
    (both,) = d.start()
    assert names(both) == ["a", "b"]


def test_with_joins_a_blocked_request_is_asked_about_again_as_soon_as_it_fits() -> None:
    """a: 10 steps of 0.2 s, due at 2.45. With b a step takes 0.3 s, so b fits once a has 4 steps left: 1.2 + 1.2 s."""
    d = Driven(PatchedServeJoins(relaxed_slack=9.0))
    d.submit(request("a", steps=10, slo_s=2.45), request("b", slo_s=50.0))
    (alone,) = d.start()
    assert (names(alone), alone.steps) == (["a"], 6)
    d.end(alone)
    (both,) = d.start()
    assert (names(both), both.steps) == (["a", "b"], 4)
    d.end(both)
    assert d.controller.jobs[0].finish_s == pytest.approx(2.4)


@settings(max_examples=examples(13), deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([64, 128]), st.integers(1, 8), st.floats(1.0, 9.0)), min_size=1, max_size=12),
    st.booleans(),
)
def test_every_request_runs_to_its_end_or_is_dropped_for_its_deadline(
    drawn: list[tuple[int, int, float]], joins: bool
) -> None:
    d = Driven(PatchedServe(joins=joins))
    d.submit(*[request(f"r{i}", side=side, steps=steps, slo_s=slo) for i, (side, steps, slo) in enumerate(drawn)])
    started = set()
    while d.controller.open:
        for launch in d.start():
            started |= set(names(launch))
            d.end(launch)
    for name, state in d.states().items():
        assert state == ("finished" if name in started else "dropped")
        assert (state == "dropped") == ("would miss its deadline by" in d.reason(name))
