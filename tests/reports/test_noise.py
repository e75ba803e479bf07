"""The verdict of a comparison knows the noise of what it compares: calibrated where the truth is known."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from policies.pool import extrapolates_on
from policies.record import request_table, step_table
from policies.runlog import Run
from reports.checks import checked
from reports.fidelity import UNKNOWN, Answer, Fidelity, NoiseRange
from reports.figures import summary
from reports.noise import Outcomes, ranges, share_range
from reports.validate import Validation, side_by_side
from tests.cli.run_command import run
from tilecast.scenario import load_scenario
from tilecast.setup import Prepared, prepare
from tilecast.simulation import run_simulation

SCENARIO = Path("examples/tiny_image.toml")
LIMITS = ("latency_p50_s", "latency_p95_s", "latency_p99_s", "slo_attainment")


def prepared(folder: Path, duration_s: int) -> Prepared:
    """The example's workload for so long a time."""
    trace = folder / f"trace-{duration_s}.parquet"
    if not trace.exists():
        run(
            "trace", "generate", "--rate", 1.25, "--duration", duration_s, "--arrivals", "gamma:1.5", "--steps", 20,
            "--sizes", "96x96:1,128x128:2,192x192:1", "--model", "tiny-image", "--seed", 3, "-o", trace,
        )  # fmt: skip
    return prepare(load_scenario(SCENARIO, {"trace.path": str(trace.resolve())}))


def simulated(ready: Prepared, seed: int, slowdown: float = 1.0) -> Run:
    """One run on a machine so many times slower than its profile says."""
    world = ready.scenario.world.model_copy(update={"slowdown": slowdown})
    own = ready.running(ready.scenario.model_copy(update={"seed": seed, "world": world}), ready.trace)
    controller = run_simulation(own)
    steps = step_table(controller, extrapolates_on(own.pools))
    requests = request_table(controller, own.requests, steps, own.costs.standalone_s)
    return Run(Path(f"s{seed}"), requests, steps, own.info("simulation"))


def test_short_faithful_runs_are_rarely_called_unfaithful(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reports.noise.RESAMPLES", 199)  # ends are rounded outwards, of fewer a little further
    ready = prepared(tmp_path, 12)
    assert 20 <= len(ready.requests) <= 30
    runs = [simulated(ready, seed) for seed in range(40)]
    figures = [pd.Series(summary(checked(each))) for each in runs]
    seen, _ = side_by_side(runs, runs[:1])
    answers = Counter(
        Fidelity.of(
            pd.DataFrame({"sim": figures[sim], "real": figures[sim - 1]}), ranges([seen[sim]], [seen[sim - 1]]), 27
        ).answer
        for sim in range(40)
    )
    assert answers[Answer.NOT_FAITHFUL] <= 2, answers
    assert answers.total() == 40


def test_a_profile_20_percent_wrong_is_found_out(tmp_path: Path) -> None:
    ready = prepared(tmp_path, 400)
    assert len(ready.requests) >= 500
    for seed in range(3):
        verdict = Validation.of(simulated(ready, seed), simulated(ready, seed + 100, 1.2)).fidelity
        assert verdict.answer is Answer.NOT_FAITHFUL
        assert verdict.ranges["latency_p50_s"].high < -0.05


def test_a_wrong_profile_is_never_called_faithful_for_want_of_requests(tmp_path: Path) -> None:
    ready = prepared(tmp_path, 12)
    answers = Counter(
        Validation.of(simulated(ready, seed), simulated(ready, seed + 100, 1.05)).fidelity.answer for seed in range(5)
    )
    assert answers[Answer.FAITHFUL] == 0, answers


def outcomes(latency_s: np.ndarray) -> Outcomes:
    return Outcomes(latency_s, latency_s < 10)


def test_the_same_runs_have_the_same_ranges() -> None:
    rng = np.random.default_rng(1)
    sim, real = (outcomes(rng.exponential(4, 60)) for _ in range(2))
    assert ranges([sim], [real]) == ranges([sim], [real])
    assert ranges([sim, real], [real]) == ranges([sim, real], [real])
    assert ranges([sim], [sim]) == dict.fromkeys(LIMITS, NoiseRange(0.0, 0.0))


def test_requests_that_never_finish_lie_beyond_every_limit() -> None:
    lost, done = np.full(40, math.inf), np.full(40, 3.0)
    found = ranges([outcomes(done)], [outcomes(lost)])
    assert found["latency_p50_s"] == NoiseRange(-math.inf, -math.inf)
    assert found["slo_attainment"].low > 0.8
    half = np.where(np.arange(40) % 2, 3.0, math.inf)
    assert ranges([outcomes(half)], [outcomes(done)])["latency_p99_s"].high == math.inf


def test_nothing_is_known_of_a_request_alone() -> None:
    one = outcomes(np.array([1.0]))
    assert ranges([one], [one]) == dict.fromkeys(LIMITS, UNKNOWN)


def test_attainment_that_is_alike_is_not_known_to_the_last_request() -> None:
    rng = np.random.default_rng(1)
    for count, wide in ((30, 0.13), (400, 0.01)):
        sim, real = (outcomes(rng.uniform(1, 2, count)) for _ in range(2))
        lies = ranges([sim], [real])["slo_attainment"]
        assert -lies.low == lies.high == pytest.approx(1 - 0.025 ** (1 / count))  # Clopper and Pearson, none of them
        assert lies.high < wide


def test_requests_that_were_never_submitted_have_no_latency(interrupted_run: Run, make_run) -> None:
    verdict = Validation.of(make_run("sim"), interrupted_run).fidelity
    assert set(verdict.ranges) == set(LIMITS)
    assert not any(math.isnan(end) for lies in verdict.ranges.values() for end in lies)


def test_block_bootstrap_is_wider_where_requests_are_late_together() -> None:
    """Noise that lasts for some requests leaves less independent evidence than as much noise a request."""
    rng = np.random.default_rng(4)
    base = 5 + pd.Series(rng.normal(size=400)).to_numpy()
    alone = base + rng.normal(0, 0.5, 400)
    together = base + np.repeat(rng.normal(0, 0.5, 20), 20)
    narrow, wide = (ranges([outcomes(base)], [outcomes(real)])["latency_p50_s"] for real in (alone, together))
    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)


def test_the_range_of_a_share_holds_the_share_of_a_long_run_though_requests_are_late_together() -> None:
    """One server at 0.8 of its capacity; a request that waits for more than four services is late."""

    def met(requests: int, rng: np.random.Generator) -> np.ndarray:
        service_s, gap_s = rng.exponential(0.8, requests), rng.exponential(1.0, requests)
        walk = np.concatenate([[0.0], np.cumsum(service_s[:-1] - gap_s[1:])])
        return walk - np.minimum.accumulate(walk) < 4 * 0.8

    truth = met(1_000_000, np.random.default_rng(0)).mean()
    ends = [share_range(met(2_000, np.random.default_rng(seed))) for seed in range(1, 201)]
    held = np.mean([low <= truth <= high for low, high in ends])
    assert 0.85 <= held <= 0.99
    alone = 1.96 * math.sqrt(truth * (1 - truth) / 2_000)
    assert np.median([high - low for low, high in ends]) > 3 * 2 * alone


def test_a_share_that_none_missed_is_not_sure_and_two_requests_say_hardly_anything() -> None:
    low, high = share_range(np.ones(300, dtype=bool))
    assert low == pytest.approx(1 - 0.0122, abs=1e-4)  # the exact interval of 300 successes in 300 trials
    assert high == 1.0
    assert share_range(np.ones(1, dtype=bool)) == (0.0, 1.0)
    assert share_range(np.array([True, False])).high - share_range(np.array([True, False])).low > 0.9
