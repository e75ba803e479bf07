"""Caching policies: what they reuse, and the bounds they keep."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.caching import CACHES, CachingPolicy, FirstBlock, FixedInterval, ForestReuse, Signals, Threshold
from policies.caching.bounded import DataSteps
from policies.caching.step import decide_block
from policies.contract import PolicyError
from predictors.forest import Forest, features
from predictors.forest_fit import fit_forest
from tests.examples_tried import examples
from tests.predictors.recordings import made_up
from traces.errors import BadInput


def signals(
    change: list[list[float]],
    step: int | list[int] = 3,
    block: int = 0,
    names: tuple[str, ...] | None = None,
    skip: float = 0.0,
    blocks: int = 3,
    steps: int = 10,
) -> Signals:
    """One block of requests r0, r1, ...; ``change`` holds the input change of each one's units."""
    of = np.repeat(np.arange(len(change)), [len(units) for units in change])
    at = np.array([step] * len(change) if isinstance(step, int) else step)[of]
    return Signals(
        names or tuple(f"r{i}" for i in range(len(change))),
        of,
        np.concatenate([np.arange(len(units)) for units in change]),
        block,
        blocks,
        at,
        np.full(len(of), steps),
        np.concatenate([np.array(units, dtype=float) for units in change]),
        np.full(len(of), skip),
    )


def begun(policy: CachingPolicy) -> CachingPolicy:
    policy.reset()
    return policy


def computed_steps(policy: CachingPolicy, changes: list[float], steps: int = 10, block: int = 0) -> list[int]:
    """The steps at which the only unit of a request is computed; ``changes`` by steps since it was last computed."""
    policy.reset()
    done: list[int] = []
    for step in range(steps):
        change = changes[min(step - done[-1], len(changes)) - 1] if done else np.inf
        if decide_block(policy, signals([[change]], step, block, steps=steps))[0]:
            done.append(step)
    return done


def test_an_interval_counts_from_the_end_of_the_warm_up_and_computes_the_last_step() -> None:
    assert computed_steps(FixedInterval(every=3, warmup=2), [9.9]) == [0, 1, 4, 7, 9]
    assert computed_steps(FixedInterval(every=2, warmup=1), [9.9]) == [0, 2, 4, 6, 8, 9]


def test_a_threshold_is_held_against_the_change_since_the_unit_was_computed() -> None:
    assert computed_steps(Threshold(0.1, warmup=1, max_reuse=9), [0.04, 0.08, 0.12]) == [0, 3, 6, 9]


def test_a_threshold_looks_at_the_skips_too() -> None:
    policy = begun(Threshold(0.1))
    decide_block(policy, signals([[np.inf]], 2))
    assert not policy.decide(signals([[0.01]], skip=0.02))[0]
    assert policy.decide(signals([[0.01]], skip=0.2))[0]


def test_reuse_ends_after_max_reuse_steps() -> None:
    assert computed_steps(Threshold(0.1, warmup=1, max_reuse=2), [0.0]) == [0, 3, 6, 9]


def test_the_first_block_decides_for_the_others_of_its_request_alone() -> None:
    policy = begun(FirstBlock(0.1, warmup=1))
    calm, busy = [0.05, 0.09], [0.05, 0.3]  # one unit of the second has changed much, and so has its mean
    never = [np.inf, np.inf]
    answers = {
        (step, block): decide_block(policy, signals([calm, busy] if step else [never, never], step, block)).tolist()
        for step in (0, 3)
        for block in (0, 1, 2)
    }
    assert all(all(answers[0, block]) for block in range(3))
    assert all(answers[3, 0])
    assert answers[3, 1] == answers[3, 2] == [False, False, True, True]


def test_the_first_block_policy_follows_what_was_done_and_not_what_it_said() -> None:
    policy = begun(FirstBlock(0.1, warmup=1))
    first = signals([[0.0]], 3, 1)
    assert not policy.decide(first)[0]
    policy.commit(first, np.array([True]))
    assert policy.decide(signals([[0.0]], 3, 2))[0]


@pytest.fixture(scope="module")
def forest_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("forest") / "made-up.parquet"
    fit_forest(made_up(12)).save(path)
    return path


def test_the_forest_reuses_what_it_expects_to_come_out_nearly_the_same(forest_file: Path) -> None:
    policy = begun(ForestReuse(str(forest_file), threshold=0.03))
    asked = signals([[0.001, 0.01, 0.02, 0.05, 0.5, 5.0]], 5)
    x = features(asked.step, asked.steps, np.ones(6, dtype=int), asked.input_change, asked.skip_change)
    expected = Forest.load(forest_file).output_change(0, x)
    answer = policy.decide(asked)
    assert answer.tolist() == (expected >= 0.03).tolist()
    assert not answer[0]
    assert answer[-1]


def test_the_forest_is_told_how_old_an_output_is(tmp_path: Path) -> None:
    left, column, threshold, value = [1, 1, 2], [1, 0, 0], [0.25, 0.0, 0.0], [0.0, -3.0, 1.0]
    nodes = (np.zeros(3, dtype=int), np.zeros(3, dtype=int), *map(np.array, (left, column, threshold, value)))
    Forest.of_nodes(*nodes, metadata={}).save(tmp_path / "old.parquet")  # wrong once older than a quarter of the run
    assert computed_steps(ForestReuse(str(tmp_path / "old.parquet"), max_reuse=9), [0.0]) == [0, 1, 4, 7, 9]


def test_a_forest_of_another_model_says_so(forest_file: Path) -> None:
    policy = begun(ForestReuse(str(forest_file)))
    with pytest.raises(BadInput, match="made-up knows 5 blocks, asked for block 6"):
        policy.decide(signals([[0.1]], block=6, blocks=9))
    with pytest.raises(BadInput, match="no such cache forest"):
        ForestReuse("nowhere").reset()


@pytest.mark.parametrize("policy", [Threshold, FirstBlock, ForestReuse])
def test_wrong_parameters_are_refused(policy: type[Threshold]) -> None:
    with pytest.raises(ValueError, match="warmup is 0"):
        policy(warmup=0)
    with pytest.raises(ValueError, match="every is 1"):
        FixedInterval(every=1)


def test_what_was_never_computed_is_computed_whatever_a_policy_says() -> None:
    class Eager(CachingPolicy):
        def decide(self, signals: Signals) -> np.ndarray:
            return np.zeros(len(signals.unit), dtype=bool)

        def commit(self, signals: Signals, computed: np.ndarray) -> None:
            self.told = computed.tolist()

    policy = Eager()
    assert decide_block(policy, signals([[0.1, np.inf]])).tolist() == policy.told == [False, True]


def test_an_answer_of_the_wrong_kind_is_refused() -> None:
    class Numbers(CachingPolicy):
        def decide(self, signals: Signals) -> np.ndarray:
            return np.ones(len(signals.unit))

    with pytest.raises(PolicyError, match="Numbers must answer an array"):
        decide_block(Numbers(), signals([[0.1]]))


def test_what_is_computed_from_old_data_is_old() -> None:
    policy = begun(Threshold(0.1, warmup=1, max_reuse=3))
    done = []
    for step in range(9):
        first = decide_block(policy, signals([[np.inf if step == 0 else 0.0]], step, 0, blocks=2))[0]
        second = decide_block(policy, signals([[0.5 if step in (2, 6) else np.inf if step == 0 else 0.0]], step, 1))[0]
        done.append((bool(first), bool(second)))
    # At steps 2 and 6 block 1 is computed, but of what block 0 kept since steps 0 and 4: it is no newer for that.
    assert [step for step, (first, _) in enumerate(done) if first] == [0, 4, 8]
    assert [step for step, (_, second) in enumerate(done) if second] == [0, 2, 4, 6, 8]


@settings(max_examples=examples(20), deadline=None)
@given(
    data=st.data(),
    name=st.sampled_from([n for n, policy in CACHES.items() if n not in ("none", "forest") and not policy.needs_gain]),
    warmup=st.integers(1, 4),
)
def test_bounds_hold_whatever_the_signals_say(data: st.DataObject, name: str, warmup: int) -> None:
    policy = begun(CACHES[name](warmup=warmup))  # type: ignore[call-arg]
    units, blocks, steps = 3, 3, 9
    holds = np.zeros((blocks, units), dtype=int)
    for step in range(steps):
        for block in range(blocks):
            drawn = data.draw(st.lists(st.floats(0, 0.2), min_size=units, max_size=units))
            change = [drawn if step else [np.inf] * units]
            computed = decide_block(policy, signals(change, step, block, blocks=blocks, steps=steps))
            assert step not in (*range(warmup), steps - 1) or computed.all()
            holds[block] = np.where(computed, holds[block - 1] if block else step, holds[block])
            assert step - holds[block].min() <= policy.max_reuse  # type: ignore[attr-defined]


class PlainSteps:
    """The same as `DataSteps`, one dictionary entry a unit."""

    def __init__(self) -> None:
        self.steps: dict[tuple[str, int, int], int] = {}

    def keys(self, s: Signals) -> list[tuple[str, int, int]]:
        return [(s.request_ids[r], s.block, u) for r, u in zip(s.request.tolist(), s.unit.tolist(), strict=True)]


@settings(max_examples=examples(20), deadline=None)
@given(data=st.data())
def test_steps_are_kept_by_request_block_and_unit(data: st.DataObject) -> None:
    kept, plain = DataSteps(), PlainSteps()
    for step in range(data.draw(st.integers(1, 12))):
        names = tuple(data.draw(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=4, unique=True)))
        sizes = [data.draw(st.integers(1, 5)) for _ in names]
        asked = signals([[0.1] * n for n in sizes], step, data.draw(st.integers(0, 2)), names=names)
        keys = plain.keys(asked)
        known = {name for name, _, _ in plain.steps}
        expected = [step - plain.steps.get(key, 0) if key[0] in known else 0 for key in keys]
        ages = kept.ages(asked).tolist()
        assert all(age in (wanted, 0) for age, wanted in zip(ages, expected, strict=True))
        assert all(age == step - plain.steps[key] for age, key in zip(ages, keys, strict=True) if key in plain.steps)
        computed = np.array(data.draw(st.lists(st.booleans(), min_size=sum(sizes), max_size=sum(sizes))))
        kept.record(asked, computed)
        for key, fresh in zip(keys, computed.tolist(), strict=True):
            coming = step if key[1] == 0 else plain.steps.get((key[0], key[1] - 1, key[2]), 0)
            plain.steps[key] = coming if fresh else plain.steps.get(key, 0)
        if data.draw(st.booleans()):
            kept.drop(names[0])
            plain.steps = {key: n for key, n in plain.steps.items() if key[0] != names[0]}
