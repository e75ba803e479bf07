"""Plans: the real policy asked about modelled signals, and what follows from its answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from policies.caching import CachingPolicy, ComputeAll, FirstBlock, FixedInterval, ForestReuse, Signals, Threshold
from policies.caching.plan import CachePlans
from predictors.forest_fit import fit_forest
from predictors.reuse import ReuseModel
from tests.predictors.recordings import BLOCKS, made_up
from traces.errors import BadInput
from traces.request import Request


@pytest.fixture(scope="module")
def reuse() -> ReuseModel:
    return ReuseModel.fit(made_up(6))


def request(name: str = "a", steps: int = 8, **more: float) -> Request:
    return Request(name, 0.0, 96, 96, steps, **more)  # type: ignore[arg-type]


UNITS = 2 * 9 * BLOCKS


def test_without_a_cache_everything_is_computed(reuse: ReuseModel) -> None:
    plan = CachePlans(ComputeAll(), reuse).of(request())
    assert plan.shares == (1.0,) * 8
    assert plan.computed == tuple(UNITS * step for step in range(9))
    assert plan.units == UNITS


def test_an_interval_by_hand(reuse: ReuseModel) -> None:
    plan = CachePlans(FixedInterval(every=3), reuse).of(request())
    assert plan.shares == (1.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0)
    assert plan.computed == tuple(UNITS * n for n in (0, 1, 2, 2, 2, 3, 3, 3, 4))
    assert plan.share == 0.5


def test_blocks_weigh_what_they_cost(reuse: ReuseModel) -> None:
    plan = CachePlans(FirstBlock(threshold=1e9), reuse, block_weights=[6, 1, 1, 1, 1]).of(request())
    assert plan.shares[2:6] == pytest.approx([0.6] * 4)
    assert plan.computed[3] - plan.computed[2] == UNITS // BLOCKS
    for weights in ([1, 1], [0] * BLOCKS, [-1, 1, 1, 1, 1]):
        with pytest.raises(BadInput, match="block_weights"):
            CachePlans(ComputeAll(), reuse, block_weights=weights)


def test_plans_are_of_what_is_asked_and_of_their_seed_alone(reuse: ReuseModel) -> None:
    plans = CachePlans(Threshold(0.2), reuse)
    whole = plans.of(request())
    assert len(plans.of(request(steps=3)).shares) == 3  # goes on elsewhere after its replica failed
    assert plans.of(request()) == whole
    for seed in range(6):
        assert plans.seeded(seed).of(request()) == CachePlans(Threshold(0.2), reuse, seed=seed).of(request())


class Listens(CachingPolicy):
    """Reuses block 0 at every other step and keeps what it was told."""

    def reset(self) -> None:
        self.heard: dict[tuple[int, int], Signals] = {}

    def decide(self, signals: Signals) -> np.ndarray:
        first = np.isinf(signals.input_change)
        return first | (signals.block != 0) | (signals.step % 2 == 0)

    def commit(self, signals: Signals, computed: np.ndarray) -> None:
        self.heard[int(signals.step[0]), signals.block] = signals


def test_downstream_of_a_reuse_nothing_has_changed(reuse: ReuseModel) -> None:
    plans = CachePlans(Listens(), reuse)
    plans.of(request())
    heard = plans._policy.heard  # type: ignore[attr-defined]
    assert np.isinf(heard[0, 3].input_change).all()
    assert (heard[3, 0].input_change > 0).all()  # the latents have moved on
    for block in range(1, BLOCKS):
        assert (heard[3, block].input_change == 0).all()
        untouched = block < BLOCKS - 1  # the last block's skips begin before block 0
        assert (heard[3, block].skip_change == 0).all() == untouched
        assert (heard[4, block].input_change > 0).all()
        assert (heard[4, block].skip_change > 0).all() == (block > 2)


def test_a_request_has_one_plan_whatever_ran_before(reuse: ReuseModel, tmp_path: Path) -> None:
    fit_forest(made_up(6)).save(tmp_path / "forest.parquet")
    for policy in (Threshold(0.1), ForestReuse(str(tmp_path / "forest.parquet"), 0.05), FirstBlock(0.05)):
        names = [f"r{i}" for i in range(12)]
        forwards, backwards = CachePlans(policy, reuse), CachePlans(policy, reuse)
        first = {name: forwards.of(request(name)) for name in names}
        second = {name: backwards.of(request(name)) for name in reversed(names)}
        assert first == second
        assert len(set(first.values())) > 1
        mean = np.mean([forwards._plan(request(), draw).share for draw in range(reuse.draws)])
        assert forwards.expected_share(request()) == pytest.approx(mean)
        assert all(plan.shares[0] == plan.shares[1] == plan.shares[-1] == 1.0 for plan in first.values())
        assert 0.1 < forwards.expected_share(request()) < 0.95


def test_images_and_guidance_count_as_rows(reuse: ReuseModel) -> None:
    plans = CachePlans(FixedInterval(), reuse)
    assert plans.of(request("b", guidance_scale=1.0)).units == UNITS // 2
    assert plans.of(request("c", images=3)).units == 3 * UNITS
