"""Whether a cluster keeps up, keeps its promise, and what limits it."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from functools import partial

import pytest

from benchmarks.queues import CONSTANT, Queue, daily, doubled, run
from policies.scheduling import EDF
from reports.output_analysis import Interval
from reports.plan.result import NEAR_KNEE, STABLE, UNSTABLE, SizeFigures, Window
from tilecast.studies.replication import Replication
from tilecast.studies.verdict import (
    Throughput,
    attainment,
    by_size,
    completed,
    figures,
    grows,
    growth,
    judge,
    keeps,
    need_longer,
    shown_load,
)

SEEDS = range(5)
PROMISE = 0.95


def cluster(load: float, requests: int, seed: int, slo_s: float = 100.0) -> Replication:
    """A server of constant service time, 1 s."""
    return run(Queue(CONSTANT), load, requests, seed, slo_s=slo_s)


@pytest.fixture(scope="module")
def calm() -> list[Replication]:
    return [cluster(0.7, 1000, seed) for seed in SEEDS]


def test_the_trap_a_cluster_that_looks_fine_on_1000_requests_is_unstable_on_10000() -> None:
    overloaded = partial(cluster, 1.03)
    short = [overloaded(1000, seed) for seed in SEEDS]
    assert attainment(short).mean == 1.0  # every one of the first 1,000 in time
    assert judge(short, None, PROMISE).state != STABLE
    assert need_longer(short)
    long = doubled(overloaded, SEEDS, most=16_000)
    assert long[0].submitted >= 8_000
    verdict = judge(long, None, PROMISE)
    assert verdict.state == UNSTABLE
    assert "backlog grows from" in verdict.detail
    assert verdict.broken_by == "the queue grows"
    assert verdict.keeps is not True


def test_a_cluster_with_room_to_spare_is_stable_and_soon_known_to_be() -> None:
    runs = doubled(partial(cluster, 0.85), SEEDS)
    assert runs[0].submitted <= 2_000
    verdict = judge(runs, None, PROMISE)
    assert (verdict.state, verdict.reason, verdict.keeps, verdict.broken_by) == (STABLE, "", True, "")
    assert "The backlog stays at" in verdict.detail


def test_a_clear_overload_is_known_at_once() -> None:
    runs = [cluster(1.2, 1000, seed) for seed in SEEDS]
    assert not need_longer(runs)
    verdict = judge(runs, None, PROMISE)
    assert (verdict.state, verdict.reason, verdict.keeps) == (UNSTABLE, "compute", False)


def test_false_alarms_are_rare() -> None:
    for load in (0.7, 0.85):
        groups = [[cluster(load, 1000, 5 * group + seed) for seed in SEEDS] for group in range(5)]
        assert not any(grows(runs) for runs in groups)


def test_an_overload_that_drops_hide_is_unstable() -> None:
    dropping = EDF(max_batch=1, drop_late=True)

    def cluster(load: float, requests: int, seed: int) -> Replication:
        return run(Queue(CONSTANT), load, requests, seed, policy=dropping, slo_s=20.0)

    runs = doubled(partial(cluster, 1.1), SEEDS)
    assert not grows(runs)  # drops keep the backlog short
    assert shown_load(runs).mean == pytest.approx(1.1, abs=0.03)
    verdict = judge(runs, None, PROMISE)
    assert verdict.state == UNSTABLE
    assert "are dropped" in verdict.detail
    assert re.fullmatch(r"the demand is 1\.\d\d times what it can do", verdict.broken_by)
    assert judge(doubled(partial(cluster, 0.7), SEEDS), None, PROMISE).state == STABLE


def test_what_is_completed_is_what_is_asked_for_less_what_is_lost_and_what_piles_up(calm: list[Replication]) -> None:
    dropping = EDF(max_batch=1, drop_late=True)
    over = [run(Queue(CONSTANT), 1.25, 2000, seed, policy=dropping, slo_s=20.0) for seed in SEEDS]
    assert completed(over).mean == pytest.approx(1 / 1.25, abs=0.02)
    growing = [cluster(1.25, 2000, seed) for seed in SEEDS]
    assert completed(growing).mean == pytest.approx(1 / 1.25, abs=0.02)
    assert completed(calm) == Interval(1.0, 0.0, len(SEEDS))
    assert judge(calm, None, PROMISE, throughput=Throughput(0.7, 0.7)).keeps is True
    lossy = [replace(run, finished=run.requests - 20 - run.requests % 7) for run in calm]
    verdict = judge(lossy, None, PROMISE, throughput=Throughput(0.7, 0.7))
    assert (verdict.state, verdict.keeps) == (STABLE, False)
    assert re.fullmatch(r"throughput 2,4\d\d/h of 2,520/h", verdict.broken_by)
    share = completed(lossy).mean
    assert judge(lossy, None, PROMISE, throughput=Throughput(0.7, 0.7 * share)).keeps is None
    assert judge(lossy, None, PROMISE, throughput=Throughput(0.7, 0.68 * share)).keeps is True


def test_a_busy_time_of_day_is_not_growth() -> None:
    day_s = 500.0
    days = daily(day_s, 0.4)
    for requests in (1050, 1400, 1750):  # of 350 a day: the last day whole or in the middle
        told = [run(Queue(CONSTANT), 0.7, requests, s, slo_s=100.0, arrivals=days, period_s=day_s) for s in SEEDS]
        untold = [run(Queue(CONSTANT), 0.7, requests, s, slo_s=100.0, arrivals=days) for s in SEEDS]
        assert judge(told, None, PROMISE).state == STABLE
        assert not grows(untold)
    rising = [run(Queue(CONSTANT), 0.7, 630, s, arrivals=daily(1000.0, -0.5)) for s in SEEDS]  # ends after the peak
    assert growth(rising).low > 0
    assert not grows(rising)


def test_an_overload_shows_through_the_days() -> None:
    days = daily(500.0, 0.4)
    runs = [run(Queue(CONSTANT), 1.1, 4000, s, slo_s=100.0, arrivals=days, period_s=500.0) for s in SEEDS]
    assert judge(runs, None, PROMISE).state == UNSTABLE


def test_a_load_that_is_known_counts(calm: list[Replication]) -> None:
    assert judge(calm, 0.7, PROMISE).state == STABLE
    assert judge(calm, 0.93, PROMISE).state == NEAR_KNEE
    assert judge(calm, Interval(0.93, 0.2, 3), PROMISE).state == NEAR_KNEE
    busy = [cluster(1.02, 1000, seed) for seed in SEEDS]
    assert grows(busy) is None
    verdict = judge(busy, Interval(1.02, 0.01, 3), PROMISE)
    assert (verdict.state, verdict.keeps) == (UNSTABLE, False)
    assert verdict.detail.startswith("The demand is 1.02 times what it can do;")


def test_a_load_above_1_that_runs_do_not_show_is_not_believed(calm: list[Replication]) -> None:
    assert judge(calm, 1.2, PROMISE).state == NEAR_KNEE


def test_near_its_knee_is_what_a_little_more_load_breaks(calm: list[Replication]) -> None:
    harder = [replace(r, attainment=0.9) for r in calm]
    assert judge(calm, None, PROMISE, harder=calm).state == STABLE
    assert judge(calm, None, PROMISE, harder=harder).state == NEAR_KNEE
    between = [replace(r, attainment=a) for r, a in zip(calm, (0.9, 0.95, 0.96, 0.97, 0.99), strict=True)]
    verdict = judge(between, None, PROMISE)
    assert (verdict.state, verdict.keeps) == (NEAR_KNEE, None)
    assert verdict.detail.startswith("It meets 95.4 (88.9–100) % of deadlines, 95.0 % are promised;")


def test_one_replication_decides_nothing(calm: list[Replication]) -> None:
    assert need_longer(calm[:1])
    assert keeps(calm[:1], PROMISE) is None


def test_the_promise_is_kept_broken_or_open(calm: list[Replication]) -> None:
    def of(*values: float) -> bool | None:
        return keeps([replace(r, attainment=value) for r, value in zip(calm, values, strict=True)], PROMISE)

    assert of(0.98, 0.985, 0.98, 0.985, 0.98) is True
    assert of(0.92, 0.925, 0.92, 0.925, 0.92) is False
    assert of(0.9, 0.95, 0.96, 0.97, 0.99) is None


IDLE, PEAK = Window(0.0, 90.0, 5, 0.0, 0.5, 0.1), Window(90.0, 100.0, 60, 20.0, 4.0, 0.97)
LAZY = replace(PEAK, utilisation=0.6)


@pytest.mark.parametrize(
    ("reason", "seen", "evidence"),
    [
        ("weights", {"stage_s": {"load": 40.0, "denoise": 60.0}}, "40% of the busy time goes into loading models"),
        ("placement", {"imbalance": 1.6}, "the busiest device of a replica has 1.60 times the mean to refine"),
        ("placement", {"replica_utilisation": (0.98, 0.5)}, "the busiest replica is busy 98% of the time"),
        ("batch cap", {"utilisation": 0.99, "batch_cap": 4, "at_cap": 0.97}, "97% of the denoising time"),
        ("compute", {"utilisation": 0.99, "batch_cap": 4, "at_cap": 0.3, "batch": 2.5}, "devices are 99% busy, 2.5"),
        ("compute", {"utilisation": 0.99}, "devices are 99% busy, one request at a time"),
        ("compute", {"wait_mean_s": 0.1, "latency_mean_s": 5.0}, "requests wait 0.1 s of the 5 s they take"),
        ("compute", {"windows": (IDLE, PEAK)}, "devices are 97% busy while requests wait: peaks decide"),
        ("policy", {"utilisation": 0.62, "windows": (IDLE, LAZY)}, "devices are 62% busy, and requests wait"),
    ],
)
def test_what_limits_a_cluster(calm: list[Replication], reason: str, seen: dict[str, object], evidence: str) -> None:
    late = [replace(r, attainment=0.5 + 0.001 * i, **seen) for i, r in enumerate(calm)]  # type: ignore[arg-type]
    verdict = judge(late, 0.7, PROMISE)
    assert verdict.keeps is False
    assert verdict.reason == reason
    assert evidence in verdict.detail


def test_figures_are_means_over_replications(calm: list[Replication]) -> None:
    found = figures(calm, 2.0, 0.7)
    assert (found.rate_scale, found.rate_rps) == (2.0, 0.7)
    assert found.utilisation.mean == pytest.approx(sum(r.utilisation for r in calm) / 5)
    assert found.utilisation.low < 0.7 < found.utilisation.high
    assert found.goodput_rps.mean == pytest.approx(0.7, rel=0.05)
    assert found.attainment.high > 1.0 > found.attainment.low > 0.999
    assert found.requests == pytest.approx(900, abs=20)
    assert found.warm_up_s == pytest.approx(100 / 0.7, rel=0.05)


def test_sizes_are_pooled(calm: list[Replication]) -> None:
    def of(*sizes: SizeFigures) -> Replication:
        return replace(calm[0], sizes=sizes)

    nan = (math.nan,) * 6
    runs = [
        of(SizeFigures("64x64", 10, 0.5, (1.0,) * 6), SizeFigures("9x9", 1, 0.0, nan)),
        of(SizeFigures("64x64", 30, 0.9, (3.0,) * 6)),
    ]
    large, small = by_size(runs)
    assert large == SizeFigures("64x64", 40, 0.8, (2.0,) * 6)
    assert (small.size, small.requests) == ("9x9", 1)
    assert all(math.isnan(value) for value in small.latency_s)


def test_a_quantile_that_few_replications_miss_is_that_of_the_others(calm: list[Replication]) -> None:
    def seen(*latencies_s: float, met: float = 0.97) -> float:
        size = [SizeFigures("64x64", 100, met, (1.0, 1.0, 1.0, 1.0, latency_s, math.inf)) for latency_s in latencies_s]
        runs = [
            replace(run, attainment=met, latency_p95_s=latency_s, sizes=(of_size,))
            for run, latency_s, of_size in zip(calm, latencies_s, size, strict=False)
        ]
        found = figures(runs, 1.0, 0.7)
        (of_size,) = by_size(runs)
        assert of_size.latency_s[4] == found.latency_p95_s.mean
        assert of_size.latency_s[5] == math.inf
        return found.latency_p95_s.mean

    assert seen(2.0, 3.0, 4.0, 5.0, math.inf) == 4.0
    assert seen(2.0, 3.0, math.inf, math.inf, math.inf) == 3.0  # 97 % are in time, so P95 is of one that finished
    assert seen(2.0, 3.0, math.inf, math.inf, math.inf, met=0.9) == math.inf
    assert seen(2.0, 3.0, 4.0, 5.0, 6.0) == 4.0
