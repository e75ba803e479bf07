"""Arrivals have the rate and burstiness asked for; a fitted workload makes traces like the fitted one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from traces.arrivals import DAY_S, Arrivals, DailyProfile, Gamma, Mmpp, Poisson, parse_arrivals
from traces.errors import BadInput
from traces.mix import Mix
from traces.sizes import parse_sizes
from traces.streams import stream
from traces.trace import Trace
from traces.workload import Workload, fit, generate

SIZES = parse_sizes("512x512:3,768x512:1")
RATES = st.lists(st.floats(0.01, 10), min_size=1, max_size=30).map(tuple)


def cv(times: np.ndarray) -> float:
    gaps = np.diff(times)
    return float(gaps.std() / gaps.mean())


@pytest.mark.parametrize(
    ("text", "expected_cv"), [("poisson", 1.0), ("gamma:3", 3.0), ("gamma:0.3", 0.3), ("gamma:2", 2.0)]
)
def test_arrivals_have_the_rate_and_cv_asked_for(text: str, expected_cv: float) -> None:
    times = parse_arrivals(text).times(5.0, 8000, stream(0, text))
    assert len(times) / 8000 == pytest.approx(5.0, rel=0.06)
    assert cv(times) == pytest.approx(expected_cv, rel=0.06)


def test_renewal_arrivals_start_in_equilibrium() -> None:
    counts = [len(Gamma(4.0).points(1.0, 5.0, stream(seed, "start"))) for seed in range(3000)]
    assert np.mean(counts) == pytest.approx(5.0, rel=0.1)


def test_mmpp_switches_between_two_rates() -> None:
    times = Mmpp(8.0, 50.0).points(4.0, 20000, stream(0, "mmpp"))
    counts = np.bincount((times // 10).astype(int))
    assert len(times) / 20000 == pytest.approx(4.0, rel=0.08)
    assert counts.var() / counts.mean() > 5
    even = Mmpp(1.0, 50.0).points(4.0, 5000, stream(0, "even"))
    assert cv(even) == pytest.approx(1.0, rel=0.05)


def test_a_sine_of_a_day_moves_arrivals_to_its_crest() -> None:
    times = parse_arrivals("diurnal:0.8").times(0.05, 2 * DAY_S, stream(0, "day"))
    share = np.mean(times % DAY_S < DAY_S / 2)
    assert share == pytest.approx(0.5 + 0.8 / np.pi, abs=0.02)
    assert len(times) / (2 * DAY_S) == pytest.approx(0.05, rel=0.05)


def test_hours_without_rate_stay_empty() -> None:
    profile = DailyProfile((0.0,) * 8 + (1.0,) * 8 + (0.0,) * 8)
    times = Arrivals(Gamma(2.0), profile).times(0.05, 3 * DAY_S, stream(0, "shift"))
    hours = times % DAY_S / 3600
    assert len(times) > 5000
    assert (hours >= 8).all()
    assert (hours <= 16).all()


@given(RATES, st.lists(st.floats(0, 10 * DAY_S), min_size=1))
def test_the_clock_of_a_profile_is_undone_by_its_inverse(rates: tuple[float, ...], at: list[float]) -> None:
    profile = DailyProfile(rates)
    t = np.sort(np.array(at))
    even = profile.operational(t)
    assert (np.diff(even) >= 0).all()
    np.testing.assert_allclose(profile.clock(even), t, atol=1e-3)
    np.testing.assert_allclose(profile.operational(np.array([0.0, DAY_S])), [0, DAY_S], atol=1e-6)


@pytest.mark.parametrize("burst", [Poisson(), Gamma(2.5), Mmpp(4.0, 60.0)])
def test_a_process_is_read_back_as_spelled(burst: Poisson | Gamma | Mmpp) -> None:
    assert parse_arrivals(burst.spell()) == Arrivals(burst)


def test_a_process_and_a_profile_are_joined() -> None:
    assert parse_arrivals("gamma:2+diurnal:0.5") == Arrivals(Gamma(2.0), DailyProfile.sinusoid(0.5))
    hourly = "hourly:" + ",".join(str(hour) for hour in range(24))
    assert parse_arrivals(hourly).profile == DailyProfile(tuple(float(hour) for hour in range(24)))


BAD_ARRIVALS = [
    "",
    "uniform",
    "gamma",
    "gamma:0",
    "gamma:x",
    "gamma:nan",
    "poisson:1",
    "mmpp:4",
    "mmpp:0.5:60",
    "mmpp:4:0",
    "diurnal:2",
    "hourly",
    "hourly:1,2",
    "poisson+gamma:2",
    "diurnal:0.1+diurnal:0.2",
    "+",
    "hourly:" + ",".join("0" * 24),
]


@pytest.mark.parametrize("text", BAD_ARRIVALS)
def test_text_that_spells_no_arrivals_is_refused(text: str) -> None:
    with pytest.raises(BadInput):
        parse_arrivals(text)


@pytest.mark.parametrize(("rate", "duration"), [(0, 1), (1, 0), (np.nan, 1), (1, np.inf), (1e9, 1e9)])
def test_a_rate_or_duration_that_cannot_be_is_refused(rate: float, duration: float) -> None:
    with pytest.raises(BadInput):
        generate(rate, duration, SIZES)


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        trace = generate(2, 60, SIZES, arrivals="gamma:2", images="1:3,4:1", seed=5)
        trace.save(tmp_path / f"{name}.parquet")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert generate(2, 60, SIZES, arrivals="gamma:2", seed=6).requests() != trace.requests()


def test_a_change_in_one_mix_leaves_the_rest_as_it_was() -> None:
    one = generate(2, 60, SIZES).frame
    two = generate(2, 60, parse_sizes("64x64"), steps="20:1,30:1").frame
    same = ["arrival_s", "images", "seed"]
    pd.testing.assert_frame_equal(one[same], two[same])


def test_a_workload_is_read_back_as_saved(tmp_path: Path) -> None:
    workload = Workload(
        rate=0.1,
        sizes=parse_sizes("480x832x81:0.3,512x512:7"),
        arrivals=Arrivals(Gamma(1.7), DailyProfile((0.1, 2.0, 0.3))),
        steps=Mix((20, 30), (1.0, 2.5)),
        images=Mix((1, 4), (3.0, 1.0)),
        model='my "model"\n\x7f',
        guidance_scale=1,
    )
    workload.save(tmp_path / "w.toml")
    assert Workload.load(tmp_path / "w.toml") == workload


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rate = ", "w.toml is not TOML"),
        ("rate = 1", "w.toml: key 'sizes' is missing"),
        ("speed = 1\nrate = 1\n[sizes]\n8x8 = 1", "w.toml: unknown key 'speed'; known: rate, sizes, "),
        ("rade = 1\nrate = 1\n[sizes]\n8x8 = 1", "w.toml: unknown key 'rade'; did you mean 'rate'?"),
        ("rate = '1'\n[sizes]\n8x8 = 1", "w.toml: rate is '1': input should be a valid number"),
        ("rate = true\n[sizes]\n8x8 = 1", "w.toml: rate is True: input should be a valid number"),
        ("rate = 1\nmodel = 3\n[sizes]\n8x8 = 1", "w.toml: model is 3: input should be a valid string"),
        ("rate = 1\nsizes = '8x8'", "w.toml: sizes is '8x8': input should be a valid dictionary"),
        ("rate = 1\n[sizes]\nlarge = 1", "w.toml: size 'large' is not like"),
        ("rate = 1\n[sizes]\n8x8 = 'often'", "w.toml: sizes.8x8 is 'often': input should be a valid number"),
        (
            "rate = 1\nprofile = [-1]\n[sizes]\n8x8 = 1",
            "w.toml: profile.0 is -1: input should be greater than",
        ),
        ("rate = 1\narrivals = 'x'\n[sizes]\n8x8 = 1", "w.toml: arrivals 'x'"),
        ("rate = 1\narrivals = 'diurnal:1'\nprofile = [1]\n[sizes]\n8x8 = 1", "w.toml: both a profile and"),
        ("rate = 1\n[sizes]\n8x8 = 1\n[steps]\nmany = 1", "w.toml: steps 'many'"),
        ("rate = 1\n[sizes]\n8x8 = 1\n[steps]\n'20,30' = 1", "w.toml: steps '20,30' is not like '30'"),
        ("rate = 1\n[sizes]\n8x8 = nan", "w.toml: sizes.8x8 is nan: input should be a finite number"),
        ("rate = 1\n[sizes]\n8x8 = 0", "w.toml: the weights of a mix sum to 0"),
    ],
)
def test_a_bad_workload_is_named(text: str, message: str) -> None:
    with pytest.raises(BadInput) as caught:
        Workload.from_toml(text, "w.toml")
    assert str(caught.value).startswith(message)


def test_a_fit_finds_what_a_trace_was_generated_from() -> None:
    made = Workload(
        0.3,
        SIZES,
        parse_arrivals("gamma:2+diurnal:0.6"),
        Mix((20, 30), (1.0, 3.0)),
        Mix((1, 4), (3.0, 1.0)),
        "sdxl",
    )
    fitted = fit(made.generate(4 * DAY_S, rng=stream(0, "made")))
    assert fitted.rate == pytest.approx(0.3, rel=0.05)
    assert isinstance(fitted.arrivals.burst, Gamma)
    assert fitted.arrivals.burst.cv == pytest.approx(2.0, rel=0.05)
    assert fitted.arrivals.profile is not None
    sine = 1 + 0.6 * np.sin(2 * np.pi * (np.arange(24) + 0.5) / 24)
    np.testing.assert_allclose(fitted.arrivals.profile.rates, sine, atol=0.12)
    assert dict(zip(fitted.steps.values, fitted.steps.weights, strict=True))[30] == pytest.approx(
        0.75 * sum(fitted.steps.weights), rel=0.03
    )
    assert fitted.model == "sdxl"
    again = fitted.generate(4 * DAY_S, rate_scale=2.0, rng=stream(1, "again"))
    assert again.summary().rate == pytest.approx(0.6, rel=0.05)


def test_poisson_arrivals_are_fitted_as_such_and_short_traces_have_no_profile() -> None:
    fitted = fit(generate(5, 1000, SIZES))
    assert fitted.arrivals == Arrivals(Poisson())
    assert fit(generate(0.05, 2 * DAY_S, SIZES)).arrivals.profile is not None


def test_what_cannot_be_fitted_is_refused() -> None:
    trace = generate(5, 10, SIZES)
    with pytest.raises(BadInput, match="requests at two times or more, the trace has 1"):
        fit(trace.head(1))
    with pytest.raises(BadInput, match="several models, expected one: 'a', ''"):
        fit(trace.with_model("a").merge(trace.head(1)))


def test_a_fitted_workload_can_be_changed() -> None:
    workload = fit(generate(5, 100, SIZES))
    grown = replace(workload, rate=2 * workload.rate, steps=Mix((8,), (1.0,)))
    trace: Trace = grown.generate(100)
    assert {request.steps for request in trace} == {8}
