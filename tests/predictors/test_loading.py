"""What weights take: memory, and time from disk or from the host's memory."""

from __future__ import annotations

import pytest

from predictors.costs import Batch
from predictors.loading import AdapterCosts, LoadRate, LoadRates, LoadTimes, Weights, with_adapters
from sim.check_worlds import IrregularCosts
from traces.errors import BadInput
from traces.request import Request


def test_a_load_from_the_host_is_faster_until_the_host_has_forgotten() -> None:
    weights = Weights(10.0, 4.0, host_gb=10.0, disk_gb_per_s=2.0, host_gb_per_s=20.0, load_s=0.5, of={"small": 1.0})
    loads = LoadTimes(weights, [[], ["there"]])
    assert loads.expected(0, "a") == 0.5 + 4 / 2
    assert loads.expected(1, "there") == 0.5 + 4 / 20
    assert [loads.seconds(0, name) for name in ("a", "small", "b", "a")] == [2.5, 1.0, 2.5, 0.7]
    assert loads.seconds(0, "c") == 2.5  # small and b, the oldest, make room
    assert [loads.expected(0, name) for name in ("a", "small", "b", "c")] == [0.7, 1.0, 2.5, 0.7]
    assert loads.expected(1, "a") == 2.5
    loads.lost(0)
    assert loads.expected(0, "a") == 2.5
    assert loads.expected(1, "there") == 0.7


def test_without_host_memory_everything_comes_from_disk() -> None:
    loads = LoadTimes(Weights(10.0, 4.0), [["a"]])
    assert loads.seconds(0, "a") == loads.seconds(0, "a") == 2.0


def test_a_host_does_not_forget_all_for_what_it_cannot_hold() -> None:
    loads = LoadTimes(Weights(10.0, 1.0, host_gb=2.0, of={"large": 5.0}), [[]])
    loads.seconds(0, "a")
    loads.seconds(0, "large")
    assert loads.expected(0, "a") == 1.0 / 20


def test_a_fitted_rate_meets_the_whole_checkpoint_and_follows_its_parts() -> None:
    parts = [(0.5, 0.35), (1.0, 0.6), (2.5, 1.35)]  # half a second a GB, and 0.1 s each
    rate = LoadRate.fitted(parts, 4.0, 2.4)
    assert rate == pytest.approx((2.0, 0.4))
    assert LoadRate.fitted([(1.0, 0.5)], 1.0, 0.5) == (2.0, 0.0)
    assert LoadRate.fitted([(1.0, 0.5), (2.0, 0.1)], 3.0, 0.6) == pytest.approx((5.0, 0.0))  # noise


def test_rates_are_a_text_of_a_profile_and_host_memory_has_a_constant_of_its_own() -> None:
    rates = LoadRates(LoadRate(2.5, 0.3), LoadRate(20.0, 0.05))
    assert LoadRates.of(rates.text) == rates
    weights = Weights(10.0, 5.0, disk_gb_per_s=2.5, host_gb_per_s=20.0, load_s=0.3, host_load_s=0.05)
    assert (weights.disk_s("a"), weights.host_s("a")) == pytest.approx((2.3, 0.3))
    for text in ("[]", "{}", '{"disk": {"gb_per_s": 0}, "host": {"gb_per_s": 1}}', '{"disk": 1, "host": 2}', "x"):
        with pytest.raises(BadInput, match="the profile's loads are"):
            LoadRates.of(text)


def test_what_fits() -> None:
    weights = Weights(0.3, 0.1)
    assert weights.fit(["a", "b", "c"])  # 0.1 + 0.1 + 0.1 is more than 0.3 in floats
    assert not weights.fit(["a", "b", "c", "d"])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ((10.0, 11.0), "weights.weights_gb is 11.0 GB, expected more than 0 and at most memory_gb, 10.0"),
        ((10.0, 4.0, 0.0, 0.0), "weights.disk_gb_per_s is 0.0, expected a number above 0"),
        ((10.0, 4.0, 0.0, 1.0, 1.0, 0.0, {"m": 12.0}), "checkpoint 'm' is 12.0 GB"),
    ],
)
def test_sizes_that_cannot_be(fields: tuple, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        Weights(*fields)


def test_adapters_are_a_stage_of_the_requests_that_have_them() -> None:
    plain, adapted = (Request("r", 0.0, 256, 256, 4, adapters=text) for text in ("", "a+b:0.5+c"))
    table = IrregularCosts()
    costs = AdapterCosts(table, 0.25)
    assert with_adapters(plain, costs.recipe(plain)) == costs.recipe(plain)
    assert costs.recipe(adapted)[0] == ("adapt", 3)
    assert costs.standalone_s(plain) == table.standalone_s(plain)
    assert costs.standalone_s(adapted) == pytest.approx(0.75 + table.standalone_s(plain))
    assert costs.scaled(2.0).step_s("adapt", Batch("sd3", ())) == 0.5
    assert not costs.extrapolates("adapt", ())
