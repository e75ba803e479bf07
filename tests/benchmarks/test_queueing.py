"""Formulas of queues, by hand and against the real simulator and controller."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from benchmarks.queueing import (
    erlang_b,
    erlang_c,
    ggc_wait_s,
    least_servers,
    md1_wait_s,
    mg1_wait_s,
    mmc_wait_s,
    wait_quantile_s,
)
from benchmarks.queues import CONSTANT, EXPONENTIAL, HYPEREXPONENTIAL, Queue, poisson, run
from reports.output_analysis import Interval, interval
from tests.examples_tried import examples
from tilecast.studies.replication import WARM_UP
from traces.streams import stream


def test_formulas_by_hand() -> None:
    assert erlang_b(1.0, 2) == pytest.approx(1 / 5)
    assert erlang_c(1.0, 2) == pytest.approx(1 / 3)
    assert mmc_wait_s(0.8, 1.0) == pytest.approx(4.0)
    assert mmc_wait_s(1.0, 1.0, 2) == pytest.approx(1 / 3)
    assert md1_wait_s(0.8, 1.0) == pytest.approx(2.0)
    assert mg1_wait_s(0.8, 1.0, 3.0) == pytest.approx(8.0)
    assert ggc_wait_s(0.8, 1.0, 1, 1.0, 3.0) == pytest.approx(8.0)
    assert wait_quantile_s(0.9, 0.8, 1.0) == pytest.approx(math.log(8) / 0.2)
    assert wait_quantile_s(0.1, 0.8, 1.0) == 0.0


def test_more_than_can_be_done_waits_for_ever() -> None:
    waits = [mmc_wait_s(2.0, 1.0, 2), mg1_wait_s(1.0, 1.0, 0.0), wait_quantile_s(0.5, 3.0, 1.0, 2)]
    assert waits == [math.inf] * 3
    assert least_servers(2.0, 1.0) == 3
    assert least_servers(0.0, 1.0) == 1


def test_thousands_of_servers_do_not_overflow() -> None:
    assert 0 < erlang_c(4900.0, 5000) < 1


offered = st.tuples(st.floats(0.05, 0.98), st.integers(1, 60))


@settings(max_examples=examples(12), deadline=None)
@given(offered, st.floats(0.1, 20), st.floats(0, 4))
def test_the_mean_wait_is_the_mean_of_the_quantiles(at: tuple[float, int], service_s: float, scv: float) -> None:
    busy, servers = at
    rate = busy * servers / service_s
    waits = erlang_c(busy * servers, servers)
    assume(waits > 1e-6)
    shares = 1 - waits * (1 - (np.arange(1000) + 0.5) / 1000)  # of those who wait
    quantiles = [wait_quantile_s(float(p), rate, service_s, servers, 1.0, scv) for p in shares]
    assert waits * np.mean(quantiles) == pytest.approx(ggc_wait_s(rate, service_s, servers, 1.0, scv), rel=0.01)


@settings(deadline=None)
@given(st.floats(0.1, 30), st.floats(0.1, 5), st.floats(0.01, 20), st.floats(0.5, 0.999), st.floats(0, 4))
def test_the_fewest_servers_keep_up_and_one_less_does_not(
    rate: float, service_s: float, wait_s: float, share: float, scv: float
) -> None:
    servers = least_servers(rate, service_s, wait_s, share, service_scv=scv)
    assert wait_quantile_s(share, rate, service_s, servers, 1.0, scv) <= wait_s
    assert servers == 1 or wait_quantile_s(share, rate, service_s, servers - 1, 1.0, scv) > wait_s


def simulated(queue: Queue, load: float, servers: int, requests: int) -> Interval:
    return interval([run(queue, load, requests, seed, servers).wait_mean_s for seed in range(8)], 0.99)


@pytest.mark.parametrize(
    ("ratios", "load", "servers"),
    [
        (EXPONENTIAL, 0.8, 1),
        (EXPONENTIAL, 0.8, 8),
        (CONSTANT, 0.8, 1),
        (HYPEREXPONENTIAL, 0.5, 1),
    ],
)
def test_the_simulator_agrees_with_theory(ratios: tuple[float, ...], load: float, servers: int) -> None:
    queue = Queue(ratios)
    found = simulated(queue, load, servers, 1500 * min(servers, 2))
    theory = ggc_wait_s(load * servers, 1.0, servers, service_scv=queue.scv)  # exact for these
    assert found.low <= theory <= found.high
    assert found.half_width < 0.3 * theory  # else nothing would be shown


@pytest.mark.parametrize("seed", range(3))
def test_waits_are_those_of_lindleys_recursion(seed: int) -> None:
    requests, busy = 2000, 0.9
    arrivals_s = poisson(requests, busy, stream(seed, "arrivals"))
    waits_s = [0.0]
    for gap_s in np.diff(arrivals_s):
        waits_s.append(max(0.0, waits_s[-1] + 1.0 - gap_s))
    measured = arrivals_s >= WARM_UP * arrivals_s[-1]
    assert run(Queue(CONSTANT), busy, requests, seed).wait_mean_s == pytest.approx(np.mean(np.array(waits_s)[measured]))


def test_the_simulator_disagrees_with_a_wrong_theory() -> None:
    found = simulated(Queue(CONSTANT), 0.95, 1, 6000)
    assert found.low <= md1_wait_s(0.95, 1.0) <= found.high
    assert not found.low <= md1_wait_s(0.95, 1.03) <= found.high
