"""Rounds, by hand: a 64 px step alone takes 0.2 s, a 128 px one 0.5 s, and 0.1 s of that is shared in a batch."""

from __future__ import annotations

import pytest

from policies.scheduling import Rounds
from tests.policies.driving import Driven, names, request


def test_a_round_is_over_after_its_steps_and_arrivals_wait_for_the_next() -> None:
    d = Driven(Rounds(round_steps=3))
    d.submit(request("a", steps=7, slo_s=90.0))
    (launch,) = d.start()
    assert launch.steps == 3
    d.submit(request("b", steps=7, slo_s=90.0))
    assert d.recalled() == []
    d.end(launch)
    (both,) = d.start()
    assert (set(names(both)), both.steps) == ({"a", "b"}, 3)
    d.end(both)
    (last,) = d.start()
    assert (set(names(last)), last.steps) == ({"a", "b"}, 1)


def test_a_round_encodes_its_newcomers_and_runs_through_the_last_decode() -> None:
    d = Driven(Rounds(round_steps=3), stages=("encode", "denoise", "decode"))
    d.submit(request("a", steps=5, slo_s=90.0))
    (launch,) = d.start()
    assert launch.segments[0].stage == "encode"
    assert launch.steps == 4
    d.end(launch)
    d.submit(request("b", steps=5, slo_s=90.0))
    (encode,) = d.start()
    assert (encode.stage, names(encode)) == ("encode", ["b"])
    d.end(encode)
    (both,) = d.start()
    assert (set(names(both)), both.steps) == ({"a", "b"}, 2)
    d.end(both)
    (decode,) = d.start()
    assert (decode.stage, names(decode)) == ("decode", ["a"])


def test_two_cheap_requests_are_saved_rather_than_a_dear_one() -> None:
    """Each would be lost if it waited: the large one's two steps alone take 1.0 s, the small ones' 0.6 s together."""
    d = Driven(Rounds(round_steps=2))
    d.submit(request("large", side=128, slo_s=2.3), request("s1", slo_s=1.25), request("s2", slo_s=1.25))
    (launch,) = d.start()
    assert names(launch) == ["s1", "s2"]


def test_the_dear_one_is_saved_when_the_cheap_ones_can_wait() -> None:
    """Five steps each: the small ones still need 1.0 s after the large one's 1.0 s."""
    d = Driven(Rounds(round_steps=2))
    d.submit(*[request(f"s{i}", steps=5, slo_s=2.1) for i in range(2)])
    d.submit(request("large", side=128, steps=5, slo_s=2.55))
    (launch,) = d.start()
    assert names(launch) == ["large"]
    assert launch.steps == 2


def test_spare_time_goes_to_those_that_could_wait() -> None:
    d = Driven(Rounds(round_steps=2))
    d.submit(request("at risk", steps=4, slo_s=1.6), request("relaxed", steps=4, slo_s=50.0), request("never", steps=4))
    (launch,) = d.start()
    assert names(launch) == ["at risk", "relaxed", "never"]


def test_the_degrees_bound_a_round() -> None:
    d = Driven(Rounds(round_steps=2, degrees=(1, 2)))
    d.submit(*[request(f"r{i}", slo_s=50.0) for i in range(4)])
    (launch,) = d.start()
    assert len(launch.jobs) == 2


@pytest.mark.parametrize("drop_late", [True, False])
def test_what_is_lost_is_dropped_or_comes_last(drop_late: bool) -> None:
    d = Driven(Rounds(degrees=(1,), drop_late=drop_late))
    d.submit(request("lost", slo_s=0.7), request("fine", slo_s=9.0), request("never"))
    order = []
    while d.controller.open:
        (launch,) = d.start()
        order += names(launch)
        d.end(launch)
    assert order == (["fine", "never"] if drop_late else ["fine", "never", "lost"])
    assert d.reason("lost") == ("cannot meet its deadline any more, even alone" if drop_late else "")
