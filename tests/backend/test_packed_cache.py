"""The patch cache of transformers: exact where nothing changed, exact when all is computed, and per request."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from backend.executor import Executor  # noqa: E402
from backend.packed import Blocks, CachedBlocks  # noqa: E402
from backend.packed.units import Units, unit_of_tokens  # noqa: E402
from backend.profiling import block_weights  # noqa: E402
from policies.caching import CachingPolicy, FirstBlock, FixedInterval, Flags, Signals, Threshold  # noqa: E402
from tests.backend.mixed import largest_difference, latents_alone, latents_together  # noqa: E402
from tests.backend.test_packed import FAMILIES, caught, mixed_requests  # noqa: E402
from tests.sweep import some  # noqa: E402
from traces.request import Request  # noqa: E402

torch.set_num_threads(1)


class Everything(CachingPolicy):
    """Computes everything, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Signals] = []

    def commit(self, signals: Signals, computed: Flags) -> None:
        self.asked.append(signals)

    def decide(self, signals: Signals) -> Flags:
        return np.ones(len(signals.unit), dtype=np.bool_)


class Random(CachingPolicy):
    """Computes a random half, all or nothing of each request; what has nothing to reuse is up to the executor."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self.shares: list[float] = []

    def decide(self, signals: Signals) -> Flags:
        share = self._rng.choice([0.0, 0.5, 0.5, 1.0], len(signals.request_ids))[signals.request]
        return self._rng.random(len(signals.unit)) < share

    def commit(self, signals: Signals, computed: Flags) -> None:
        self.shares.append(float(computed.mean()))


class Nothing(CachingPolicy):
    """Reuses whatever it can."""

    def watches(self, block: int) -> bool:
        return False

    def decide(self, signals: Signals) -> Flags:
        return np.isinf(signals.input_change)


class EverySecond(CachingPolicy):
    """Computes odd units at odd steps and even ones at even steps; at every third block nothing."""

    def decide(self, signals: Signals) -> Flags:
        return ((signals.unit + signals.step + signals.block) % 2 == 0) & (signals.block % 3 != 2)


def requests_of(name: str) -> list[Request]:
    """As in `mixed_requests`, large enough for several units each."""
    scale = 1 if name == "pixart" else 2
    return [dataclasses.replace(r, height=scale * r.height, width=scale * r.width) for r in mixed_requests(name)]


CACHE_PATCH = {"pixart": 16, "hunyuan_video": 2}
"""Latent pixels; units of 2x2 tokens in the others."""


def pipeline_of(name: str) -> Any:
    return FAMILIES[name]().to(torch.float64)


def cached(name: str, policy: CachingPolicy, cache_bytes: int = 2**30) -> Executor:
    return Executor(pipeline_of(name), "packed", policy, cache_bytes, CACHE_PATCH.get(name, 4))


def mixer_of(pipeline: Any, policy: CachingPolicy, name: str) -> CachedBlocks:
    return CachedBlocks(pipeline.transformer, policy, cache_patch=CACHE_PATCH.get(name, 4))


@pytest.mark.parametrize("name", FAMILIES)
def test_where_nothing_changed_any_choice_of_units_gives_the_same(name: str) -> None:
    """Keys, values and outputs of what is reused are all needed here."""
    pipeline, policy = pipeline_of(name), Random(0)
    mixer = mixer_of(pipeline, policy, name)
    plain = Blocks(pipeline.transformer)
    calls = caught(pipeline, requests_of(name))
    expected = plain.run(calls)
    for _ in range(4):
        for given_back, wanted in zip(mixer.run(calls), expected, strict=True):
            assert (given_back[0] - wanted[0]).abs().max() < 1e-12
    assert any(0 < share < 1 for share in policy.shares)
    assert mixer.cache is not None
    assert mixer.cache.computed > 0
    assert mixer.cache.reused > 0


@pytest.mark.parametrize("name", FAMILIES)
def test_computing_everything_equals_no_cache_while_requests_join_leave_and_rest(name: str) -> None:
    requests, stock = requests_of(name), pipeline_of(name)
    alone = {r.request_id: latents_alone(stock, r) for r in requests}
    executor = cached(name, Everything())
    assert largest_difference(alone, latents_together(executor, requests, pause="square")) <= 1e-12
    assert executor.cache is not None
    assert executor.cache.kept.bytes == 0


@pytest.mark.parametrize("name", some(FAMILIES, "flux", "pixart", "wan"))
def test_a_request_is_served_the_same_whoever_runs_beside_it(name: str) -> None:
    requests = requests_of(name)[:3]
    together = latents_together(cached(name, EverySecond()), requests, pause="square")
    for request in requests:
        alone = latents_together(cached(name, EverySecond()), [request])[request.request_id]
        assert (together[request.request_id] - alone).abs().max() < 1e-12
    stock = pipeline_of(name)
    exact = {r.request_id: latents_alone(stock, r) for r in requests}
    assert largest_difference(exact, together) > 1e-4  # it did reuse


def test_what_is_reused_is_the_last_computed_output() -> None:
    """With nothing computed after the first step only the head sees the new timestep."""
    pipeline = pipeline_of("sd3")
    model, mixer = pipeline.transformer, mixer_of(pipeline, Nothing(), "sd3")
    call = caught(pipeline, requests_of("sd3"))[0]
    seen: list[Any] = []
    handle = model.norm_out.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    mixer.run([call])
    later = call._replace(kwargs={**call.kwargs, "timestep": call.kwargs["timestep"] / 2}, step=1)
    patches = []
    model.proj_out.register_forward_hook(lambda _, args, out: patches.append(out))
    mixer.run([later])
    handle.remove()
    assert torch.equal(seen[0], seen[1])
    with torch.no_grad():
        temb = model.time_text_embed(later.kwargs["timestep"], later.kwargs["pooled_projections"])
        expected = model.proj_out(model.norm_out(seen[0].reshape(len(temb), -1, seen[0].shape[-1]), temb))
    torch.testing.assert_close(patches[0].reshape(expected.shape), expected, rtol=0, atol=1e-12)


def test_signals_are_the_relative_change_of_each_unit() -> None:
    pipeline = pipeline_of("pixart")
    policy = Everything()
    mixer = mixer_of(pipeline, policy, "pixart")
    call = caught(pipeline, requests_of("pixart"))[0]._replace(request_id="r", step=3, steps=9)
    changed = call.args[0].clone()
    changed[1, :, :16, 16:] += 0.5  # of the guided row only, the second of its units of 16x16 latent pixels
    mixer.run([call])
    mixer.run([call._replace(args=(changed,), step=4)])
    before, after = (pipeline.transformer.pos_embed(x)[1] for x in (call.args[0], changed))
    height, width = (side // 2 for side in changed.shape[-2:])
    of_unit = torch.from_numpy(unit_of_tokens((1, height, width), 8)) == 1
    expected = (after - before)[of_unit].square().mean() / before[of_unit].square().mean()
    first, second = policy.asked[0], policy.asked[2]  # block 0 of either step
    units = len(first.unit) // 2
    assert np.isinf(first.input_change).all()
    assert (second.request_ids, second.block, second.blocks) == (("r",), 0, 2)
    assert (set(second.step), set(second.steps)) == ({4}, {9})
    assert second.unit.tolist() == list(range(2 * units))
    assert np.flatnonzero(second.input_change).tolist() == [units + 1]
    assert second.input_change[units + 1] == pytest.approx(float(expected))


def test_calls_with_and_without_the_text_are_kept_apart() -> None:
    """Wan makes two calls a step."""
    policy = Everything()
    executor = cached("wan", policy)
    request = dataclasses.replace(requests_of("wan")[0], steps=3)
    executor.execute("encode", [request])
    executor.execute("denoise", [request], 2)
    assert {signals.request_ids for signals in policy_of(executor).asked} == {("square",), ("square\0001",)}
    assert executor.cache is not None
    assert sorted(executor.cache.kept.requests) == ["square", "square\0001"]
    kept = executor.cache.kept.bytes
    executor.execute("denoise", [request], 1)
    assert executor.cache.kept.bytes == kept
    executor.release("square")
    assert executor.cache.kept.requests == []


def test_the_time_of_each_block_is_measured_for_profiles() -> None:
    weights = block_weights(cached("flux", Everything()), [(32, 32, 1), (16, 32, 1)])
    assert len(weights) == 2  # one block of two streams, one of one
    assert sum(weights) == pytest.approx(1.0)
    assert min(weights) > 0


def policy_of(executor: Executor) -> Any:
    assert executor.cache is not None
    return executor.cache.policy


def test_a_request_without_room_runs_without_the_cache() -> None:
    requests, stock = requests_of("sd3")[:2], pipeline_of("sd3")
    exact = {r.request_id: latents_alone(stock, r) for r in requests}
    executor = cached("sd3", Nothing(), cache_bytes=1)
    assert largest_difference(exact, latents_together(executor, requests)) <= 1e-12
    roomy = cached("sd3", Nothing())
    assert largest_difference(exact, latents_together(roomy, requests)) > 1e-3


def test_a_forward_that_fails_keeps_nothing_of_its_batch() -> None:
    pipeline = pipeline_of("flux")
    mixer = mixer_of(pipeline, EverySecond(), "flux")
    calls = caught(pipeline, requests_of("flux"))
    mixer.run(calls)
    assert mixer.cache is not None
    assert mixer.cache.kept.bytes > 0
    block = pipeline.transformer.single_transformer_blocks[0]
    block.proj_out, projection = torch.nn.Linear(1, 1), block.proj_out
    with pytest.raises(RuntimeError):
        mixer.run([call._replace(step=1) for call in calls])
    assert mixer.cache.kept.bytes == 0
    block.proj_out = projection
    expected = Blocks(pipeline.transformer).run(calls)
    for given_back, wanted in zip(mixer.run([call._replace(step=2) for call in calls]), expected, strict=True):
        assert (given_back[0] - wanted[0]).abs().max() < 1e-12


@pytest.mark.parametrize("policy", [Threshold(0.3, warmup=1), FixedInterval(2), FirstBlock(0.5, warmup=1)])
def test_the_shipped_policies_run_on_transformers(policy: CachingPolicy) -> None:
    requests = [dataclasses.replace(r, steps=6) for r in requests_of("pixart")[:2]]
    executor = cached("pixart", policy)
    executor.execute("encode", requests)
    outcome = executor.execute("denoise", requests, 6)
    assert outcome.failed is None
    assert outcome.reused > 0
    assert outcome.computed > 0


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=4),
       st.integers(0, 4))  # fmt: skip
def test_units_are_near_squares_and_the_same_in_every_frame(grids: list[tuple[int, int, int]], side: int) -> None:
    units = Units(grids, side)
    start = 0
    for row, (frames, height, width) in enumerate(grids):
        of_row = unit_of_tokens((frames, height, width), side).reshape(frames, height, width)
        assert (of_row == of_row[0]).all()
        assert set(of_row.ravel()) == set(range(of_row.max() + 1))
        for unit in range(of_row.max() + 1):
            lines, columns = np.nonzero(of_row[0] == unit)
            block = of_row[0, lines.min() : lines.max() + 1, columns.min() : columns.max() + 1]
            assert (block == unit).all()
            if side:
                assert max(block.shape) < 2 * max(side, 1)
        assert (units.row[start : start + of_row.max() + 1] == row).all()
        start += int(of_row.max()) + 1
    assert len(units) == start
    assert units.tokens.sum() == len(units.of_token) == sum(f * h * w for f, h, w in grids)
    assert units.of_rows([len(grids)]) == [start]
