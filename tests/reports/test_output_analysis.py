"""Statistics of simulation output."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest

from reports.output_analysis import interval, paired, share, share_ends, warm_up
from traces.streams import stream


def test_an_interval_by_hand() -> None:
    found = interval([1.0, 2.0, 3.0, math.nan])
    assert (found.mean, found.replications) == (2.0, 3)
    assert found.half_width == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)  # t of 2 degrees of freedom, 97.5 %
    assert interval([1.0, 2.0, 3.0], 0.99).half_width == pytest.approx(9.924843 / math.sqrt(3), rel=1e-6)


def test_one_value_says_nothing_about_its_error_and_none_nothing_at_all() -> None:
    assert interval([4.0]).half_width == math.inf
    assert interval([4.0]).mean == 4.0
    nothing = interval([math.nan])
    assert math.isnan(nothing.mean)
    assert nothing.replications == 0
    assert not nothing.low > 0


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    samples = stream(1, "normal").normal(3.0, 1.0, (2000, 5))
    inside = np.mean([(found := interval(sample, 0.9)).low <= 3.0 <= found.high for sample in samples])
    assert inside == pytest.approx(0.9, abs=0.02)


def test_a_share_that_never_varied_is_not_certain() -> None:
    found = share([1.0] * 5, [2000] * 5)
    assert found.mean == 1.0
    assert found.low == pytest.approx(0.025 ** (1 / 10_000))  # what one late request more would be as likely as 2.5 %
    assert share([0.0] * 5, [2000] * 5).high == pytest.approx(1 - found.low)
    assert share([0.4, 0.6, 0.5], [1000] * 3).half_width < interval([0.4, 0.6, 0.5]).half_width


def test_the_ends_of_a_share_are_wide_below_and_within_what_is_possible() -> None:
    values, counts = [0.9, 0.99, 0.98, 0.999], [2000] * 4
    low, high = share_ends(values, counts)
    found, evenly = share(values, counts), interval(values)
    assert low < evenly.low < found.mean < high < 1 < evenly.high
    assert found.low == pytest.approx(low)
    for end in (low, high):  # as far off as a share of that height may be
        ratio = end * (1 - end) / (found.mean * (1 - found.mean))
        assert abs(end - found.mean) == pytest.approx(evenly.half_width * ratio**0.55)


def test_a_few_late_requests_in_one_run_leave_a_share_near_one_where_it_is() -> None:
    low, high = share_ends([1.0] * 9 + [0.998], [2000] * 10, recorded=2000)
    assert 0.98 < low < 0.9998 < high


@pytest.mark.parametrize("usual", [0.97, 0.99])
def test_a_recording_that_lacks_its_worst_hours_promises_little(usual: float) -> None:
    """Runs near a knee: the log-odds of what a run attains fall with its load, which differs from recording to
    recording as it does from run to run. The truth is claimed to be higher than it is by one recording in twenty; as if
    shares scattered alike at every height, by two and more."""
    rng = np.random.default_rng(11)

    def attained(load: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return 1 / (1 + np.exp(load) * (1 - usual) / usual)

    runs = attained(rng.normal(size=(600, 1)) + rng.normal(size=(600, 10)))
    truth = attained(rng.normal(size=100_000)).mean()
    claimed = np.mean([share_ends(list(of_one), [2000] * 10, recorded=2000)[0] > truth for of_one in runs])
    evenly = np.mean([interval(list(of_one), luck=1.0).low > truth for of_one in runs])
    assert claimed <= 0.05
    assert evenly > 0.1


@pytest.mark.parametrize("truth", [0.9, 0.99, 0.999])
def test_a_share_is_rarely_claimed_to_be_higher_than_it_is(truth: float) -> None:
    hits = stream(2, f"binomial/{truth}").binomial(1000, truth, (600, 5)) / 1000
    claimed = np.mean([share(list(values), [1000] * 5).low > truth for values in hits])
    assert claimed < 0.04


def test_differences_under_common_random_numbers_are_known_better() -> None:
    rng = stream(3, "common")
    common = rng.normal(10.0, 5.0, 8)
    before, after = common + rng.normal(0.0, 0.1, 8), common + 0.5 + rng.normal(0.0, 0.1, 8)
    found = paired(list(before), list(after), 0.99)
    assert found.low > 0
    assert found.low < 0.5 < found.high
    assert interval(list(after)).low < interval(list(before)).high  # each alone shows nothing


def test_the_warm_up_ends_where_the_level_is_reached() -> None:
    level = np.concatenate([np.linspace(0, 10, 200), np.full(1800, 10.0)])
    found = warm_up(level + stream(4, "noise").normal(0.0, 1.0, 2000))
    assert found.settled
    assert 120 <= found.cut <= 260


def test_what_keeps_growing_is_never_settled() -> None:
    noise = stream(5, "noise").normal(0.0, 5.0, 2000)
    assert not warm_up(np.linspace(0, 100, 2000) + noise).settled
    assert warm_up(noise).settled


def test_a_short_series_has_no_warm_up_that_could_be_found() -> None:
    assert warm_up([]) == warm_up([1.0, 2.0]) == (0, False)


def test_cutting_each_run_where_the_rule_says_makes_queues_look_shorter() -> None:
    """Why `tilecast.studies.replication.WARM_UP` is a fixed share: waits in M/D/1 at a load of 0.8, whose mean is 2."""
    runs, requests = 400, 2000
    gaps = stream(6, "gaps").exponential(1 / 0.8, (requests, runs))
    waits = np.zeros((requests, runs))
    for i in range(1, requests):
        waits[i] = np.maximum(0.0, waits[i - 1] + 1.0 - gaps[i])
    fixed = interval(list(waits[requests // 10 :].mean(axis=0)))
    chosen = interval([float(run[warm_up(run).cut :].mean()) for run in waits.T])
    assert fixed.low < 2.0 < fixed.high
    assert chosen.high < 2.0


@pytest.mark.parametrize("times_as_long", [0.5, 1.0, 2.0])
def test_an_interval_with_luck_holds_the_truth_behind_a_recording(times_as_long: float) -> None:
    """Recordings of 400 exponential values of mean 1, and eight replications drawn from each: nineteen of twenty
    intervals hold the mean, of intervals that take the recording for the truth far fewer."""
    rng = np.random.default_rng(7)
    length = int(400 * times_as_long)
    held = {0.0: 0, times_as_long: 0}
    for _ in range(400):
        recording = rng.exponential(size=400)
        means = rng.choice(recording, size=(8, length)).mean(axis=1).tolist()
        for luck in held:
            found = interval(means, 0.95, luck)
            held[luck] += found.low <= 1.0 <= found.high
    assert held[times_as_long] / 400 > 0.925
    assert held[0.0] / 400 < 0.8


def test_a_share_of_a_short_recording_is_known_no_better_than_by_its_requests() -> None:
    known, recorded = share([1.0] * 5, [2000] * 5), share([1.0] * 5, [2000] * 5, recorded=300)
    assert known.low > 0.999
    assert recorded.low == pytest.approx(0.025 ** (1 / 291), rel=1e-3)  # Clopper-Pearson of 291 requests, all in time
