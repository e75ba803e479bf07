"""Spikes of load laid over a trace."""

from __future__ import annotations

import numpy as np
import pytest

from traces.errors import BadInput
from traces.request import Request
from traces.spikes import Spike, parse_spike, with_spikes
from traces.streams import stream
from traces.trace import Trace


def steady(count: int = 1000, **fields) -> Trace:
    return Trace.from_requests([Request(f"r{i}", float(i), 512, 512, 20, **fields) for i in range(count)])


def test_a_spike_multiplies_the_requests_of_its_span_and_no_others() -> None:
    trace = with_spikes(steady(), [Spike(200.0, 100.0, 3.0)], stream(0, "spikes"))
    arrival = trace.frame["arrival_s"].to_numpy()
    inside = (arrival >= 200) & (arrival < 300)
    assert inside.sum() == 300
    assert (~inside).sum() == 900
    assert trace.frame["request_id"].is_unique
    assert (np.diff(arrival) >= 0).all()


def test_a_broken_factor_is_right_on_average_and_below_one_requests_are_left_out() -> None:
    more = with_spikes(steady(), [Spike(0.0, 1000.0, 2.5)], stream(0, "spikes"))
    less = with_spikes(steady(), [Spike(0.0, 1000.0, 0.25)], stream(0, "spikes"))
    assert 2400 < len(more) < 2600
    assert 200 < len(less) < 300
    assert set(less.frame["request_id"]) < {f"r{i}" for i in range(1000)}


def test_copies_keep_their_span_to_the_deadline() -> None:
    requests = [Request(f"r{i}", float(i), 512, 512, 20, deadline_s=i + 7.0) for i in range(50)]
    frame = with_spikes(Trace.from_requests(requests), [Spike(10.0, 20.0, 2.0)], stream(1, "spikes")).frame
    assert (frame["deadline_s"] - frame["arrival_s"]).to_numpy() == pytest.approx(np.full(len(frame), 7.0))


def test_the_same_seed_gives_the_same_trace() -> None:
    one, two = (with_spikes(steady(), [Spike(5.0, 50.0, 1.7)], stream(3, "spikes")) for _ in range(2))
    assert one.requests() == two.requests()


@pytest.mark.parametrize("text", ["600", "a:b:c", "-1:10:2", "1:0:2", "1:10:-1", "1:10:inf", "1:2:3:4"])
def test_what_is_no_spike_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="expected start:seconds:factor"):
        parse_spike(text)
    assert parse_spike("600:120:3") == Spike(600.0, 120.0, 3.0)


@pytest.mark.parametrize(
    ("text", "said"),
    [("0:20:1e7", "with a number of 0 to 100,000 times in"), ("1e300:1:1", "10,000,000,000 s"), ("0:nan:1", "nan")],
)
def test_numbers_of_a_spike_have_limits(text: str, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        parse_spike(text)
