"""Clockwork-like admission, by hand and as a property: what is admitted is in time."""

from __future__ import annotations

import dataclasses

from hypothesis import given, settings
from hypothesis import strategies as st

from policies.controller import Controller
from policies.scheduling import Clockwork
from sim.driver import Simulation
from sim.world import World
from tests.examples_tried import examples
from tests.policies.costs import FlatCosts
from tests.policies.driving import Driven, names, request
from traces.request import Request


def test_admitted_requests_run_in_order_of_deadline_as_wide_as_all_allow() -> None:
    """Alone 4 steps take 0.8 s, two together 1.2 s, three 1.6 s, four 2.0 s."""
    d = Driven(Clockwork())
    d.submit(*[request(name, slo_s=slo) for name, slo in (("d", 9.0), ("b", 1.9), ("c", 2.5), ("a", 1.3))])
    (launch,) = d.start()
    assert names(launch) == ["a", "b"]
    d.end(launch)
    (launch,) = d.start()
    assert names(launch) == ["c", "d"]


def test_a_wider_batch_is_taken_when_it_keeps_every_deadline() -> None:
    d = Driven(Clockwork())
    d.submit(*[request(name, slo_s=1.7) for name in "abc"], request("late", slo_s=1.8))
    (launch,) = d.start()
    assert names(launch) == ["a", "b", "c"]
    assert d.reason("late") == "not admitted: no batch width keeps its deadline and those of 3 others"


def test_who_cannot_make_it_alone_is_turned_away_at_the_next_step_boundary() -> None:
    d = Driven(Clockwork())
    d.submit(request("a", steps=20, slo_s=9.0))
    (launch,) = d.start()
    d.submit(request("hopeless", slo_s=0.5))
    assert d.recalled() == [launch.launch_id]
    d.end(launch, 1)
    (again,) = d.start()
    assert names(again) == ["a"]
    assert d.reason("hopeless") == "would miss its deadline by 0.5 s even alone"


def test_an_urgent_arrival_goes_first_if_all_still_make_it() -> None:
    d = Driven(Clockwork(max_batch=1))
    d.submit(request("a", steps=20, slo_s=9.0))
    (launch,) = d.start()
    d.submit(request("urgent", slo_s=1.5))
    assert d.recalled() == [launch.launch_id]
    d.end(launch, 1)
    (first,) = d.start()
    assert names(first) == ["urgent"]
    d.end(first)
    (rest,) = d.start()
    assert names(rest) == ["a"]


def test_what_was_admitted_and_became_hopeless_is_dropped_before_it_starts() -> None:
    d = Driven(Clockwork(max_batch=1))
    d.submit(request("a", slo_s=1.0), request("b", slo_s=1.7))
    (launch,) = d.start()
    d.end(launch, late_s=0.5)
    assert d.start() == []
    assert d.reason("b") == "was admitted, but would now miss its deadline by 0.4 s even alone"


def test_what_could_make_it_alone_but_not_in_its_turn_is_dropped_before_it_starts() -> None:
    """b would start at 1.6 s, after a, and end at 2.4."""
    d = Driven(Clockwork(max_batch=1))
    d.submit(request("x", slo_s=0.9), request("a", slo_s=1.9), request("b", slo_s=2.5))
    (first,) = d.start()
    d.end(first, late_s=0.2)
    (launch,) = d.start()
    assert names(launch) == ["a"]
    assert d.reason("b") == "was admitted, but would now miss its deadline in its turn"


def test_what_has_started_and_is_lost_makes_room() -> None:
    d = Driven(Clockwork(max_batch=1))
    d.submit(request("a", steps=10, slo_s=2.3))
    (launch,) = d.start()
    d.submit(request("b", slo_s=4.0))
    d.recalled()
    d.end(launch, 3, late_s=1.5)
    (again,) = d.start()
    assert names(again) == ["b"]
    assert d.reason("a") == "was admitted, but would now miss its deadline by 1.2 s even alone"


def test_those_without_a_deadline_run_beside_others_only_where_nobody_is_late() -> None:
    """Two take 1.2 s together and 0.8 s alone."""
    for slo, expected in ((1.1, ["due"]), (1.3, ["due", "never"])):
        d = Driven(Clockwork())
        d.submit(request("never"), request("due", slo_s=slo))
        (launch,) = d.start()
        assert names(launch) == expected


ASKED = st.builds(
    Request,
    request_id=st.just("drawn"),
    arrival_s=st.floats(0, 8),
    height=st.sampled_from([64, 128]),
    width=st.sampled_from([64, 96]),
    steps=st.integers(1, 7),
    images=st.sampled_from([1, 1, 2]),
    slo_s=st.sampled_from([None, 1.0, 3.0, 8.0]),
)


@settings(max_examples=examples(20), deadline=None)
@given(drawn=st.lists(ASKED, min_size=1, max_size=20), replicas=st.integers(1, 2), max_batch=st.integers(1, 12))
def test_what_is_admitted_is_in_time_when_predictions_hold(drawn: list[Request], replicas: int, max_batch: int) -> None:
    ordered = sorted(drawn, key=lambda request: request.arrival_s)
    requests = [dataclasses.replace(request, request_id=f"r{i}") for i, request in enumerate(ordered)]
    controller = Controller(Clockwork(max_batch), FlatCosts(), replicas)
    Simulation(controller, World(FlatCosts(), replicas)).run(requests)
    for job in controller.jobs:
        assert job.finish_s is not None
        if job.state == "finished":
            assert job.finish_s <= job.request.deadline + 1e-5
        else:
            assert job.request.slo_s is not None
            assert job.reason.startswith(("not admitted", "would miss"))
