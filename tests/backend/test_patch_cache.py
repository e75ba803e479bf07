"""The patch cache: exact where nothing changed, exact when everything is computed, bounded, and per request."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from backend.cached_state import CachedState, Member  # noqa: E402
from backend.coroutine import DenoiserCall  # noqa: E402
from backend.executor import Executor  # noqa: E402
from backend.patched.unet import PatchedUNet  # noqa: E402
from policies.caching import CachingPolicy, Flags, Signals  # noqa: E402
from tests.backend import tiny_pipelines, tiny_unets  # noqa: E402
from tests.backend.mixed import largest_difference, latents_alone, latents_together  # noqa: E402
from tests.backend.test_patched import mixed_requests  # noqa: E402
from traces.request import Request  # noqa: E402

torch.set_num_threads(1)


class Everything(CachingPolicy):
    """Computes everything, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Signals] = []

    def decide(self, signals: Signals) -> Flags:
        return np.ones(len(signals.unit), dtype=np.bool_)

    def commit(self, signals: Signals, computed: Flags) -> None:
        self.asked.append(signals)


class Random(CachingPolicy):
    """Computes a random half, whole blocks or nothing; what has nothing to reuse is up to the executor."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self.shares: list[float] = []

    def decide(self, signals: Signals) -> Flags:
        share = self._rng.choice([0.0, 0.5, 0.5, 0.5, 1.0])
        return self._rng.random(len(signals.unit)) < share

    def commit(self, signals: Signals, computed: Flags) -> None:
        self.shares.append(float(computed.mean()))


class Nothing(CachingPolicy):
    """Reuses whatever it can."""

    def watches(self, block: int) -> bool:
        return False

    def decide(self, signals: Signals) -> Flags:
        return np.isinf(signals.input_change)


def calls_of(pipeline: Any, sizes: list[tuple[int, int]], step: int = 0, seed: int = 0) -> list[DenoiserCall]:
    """Guided denoiser calls of one request a size, in float64."""
    draw = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Any:
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    calls = []
    for index, (height, width) in enumerate(sizes):
        settings: dict[str, Any] = {"encoder_hidden_states": random(2, 24, 32), "return_dict": False}
        settings["added_cond_kwargs"] = {"text_embeds": random(2, 16), "time_ids": random(2, 6)}
        args = (random(2, 4, height, width), torch.tensor(900.0 - 100 * index))
        calls.append(DenoiserCall(args, settings, f"r{index}", step, 10))
    return calls


@pytest.mark.parametrize("seed", range(3))
def test_where_nothing_changed_any_choice_of_patches_gives_the_same(seed: int) -> None:
    """Every part of what is kept is needed here: borders, corners, moments, keys, values, skips and outputs."""
    pipeline = tiny_pipelines.sdxl().to(torch.float64)
    policy = Random(seed)
    mixer = PatchedUNet(pipeline, caching=policy, cache_patch=4)
    sizes = [(8, 8), (12, 8), (4, 16), (8, 8)]
    calls = calls_of(pipeline, sizes)
    with torch.no_grad():
        expected = PatchedUNet(tiny_pipelines.sdxl().to(torch.float64)).run(calls)
        for again in range(4):
            for given, wanted in zip(mixer.run(calls), expected, strict=True):
                assert (given[0] - wanted[0]).abs().max() < 1e-12, again
    assert any(0 < share < 1 for share in policy.shares)


def test_computing_everything_equals_no_cache_while_requests_join_leave_and_rest() -> None:
    requests, stock = mixed_requests(8), tiny_pipelines.sdxl().to(torch.float64)
    alone = {r.request_id: latents_alone(stock, r) for r in requests}
    executor = Executor(tiny_pipelines.sdxl().to(torch.float64), "patched", Everything(), cache_patch=4)
    assert largest_difference(alone, latents_together(executor, requests, pause="square")) <= 1e-12
    assert executor.cache is not None
    assert executor.cache.kept.bytes == 0


def test_a_request_is_served_the_same_whoever_runs_beside_it() -> None:
    """Reuse is a matter of each request alone: others joining, leaving and pausing change nothing."""
    request = mixed_requests(8)[1]
    others = [r for r in mixed_requests(8) if r != request]
    executor = Executor(tiny_pipelines.sdxl().to(torch.float64), "patched", EverySecond(), cache_patch=4)
    together = latents_together(executor, [request, *others], pause="square")[request.request_id]
    alone = latents_together(
        Executor(tiny_pipelines.sdxl().to(torch.float64), "patched", EverySecond(), cache_patch=4), [request]
    )[request.request_id]
    assert (together - alone).abs().max() < 1e-12
    exact = latents_alone(tiny_pipelines.sdxl().to(torch.float64), request)
    assert (together - exact).abs().max() > 1e-3  # it did reuse


class EverySecond(CachingPolicy):
    """Computes odd patches at odd steps and even ones at even steps."""

    def decide(self, signals: Signals) -> Flags:
        chosen: Flags = (signals.unit + signals.step) % 2 == 0
        return chosen


def test_signals_say_how_much_a_patch_has_changed() -> None:
    pipeline = tiny_pipelines.sdxl().to(torch.float64)
    policy = Everything()
    mixer = PatchedUNet(pipeline, caching=policy, cache_patch=4)
    call = calls_of(pipeline, [(8, 8)])[0]
    with torch.no_grad():
        mixer.run([call])
        sample = call.args[0].clone()
        sample[1, :, :4, :4] *= 2  # the first patch of the guided row
        mixer.run([call._replace(args=(sample, call.args[1]), step=1)])
    blocks = policy.asked[0].blocks
    first, later = policy.asked[:blocks], policy.asked[blocks:]
    assert [signals.block for signals in later] == list(range(blocks))
    assert all(np.isinf(signals.input_change).all() for signals in first)
    assert later[0].request_ids == ("r0",)
    assert later[0].unit.tolist() == list(range(8))
    assert later[0].step.tolist() == [1] * 8
    assert later[0].steps.tolist() == [10] * 8
    change = later[0].input_change
    assert change.argmax() == 4
    assert change[:4].max() == 0  # the unguided row did not change
    assert change[7] > 0 or change[5] > 0  # its neighbours see it through the first convolution
    assert later[0].skip_change.max() == 0
    assert later[-1].skip_change.max() > 0


def test_a_block_of_which_nothing_is_computed_is_not_run() -> None:
    pipeline = tiny_pipelines.sdxl()
    ran: list[int] = []
    for index, block in enumerate((*pipeline.unet.down_blocks, pipeline.unet.mid_block, *pipeline.unet.up_blocks)):
        block.register_forward_pre_hook(lambda *_, index=index: ran.append(index))
        inner = block.resnets[0]
        inner.register_forward_pre_hook(lambda *_, index=index: ran.append(100 + index))
    executor = Executor(pipeline, "patched", Nothing(), cache_patch=8)
    request = dataclasses.replace(mixed_requests(8)[0], steps=3)
    executor.execute("encode", [request])
    first = executor.execute("denoise", [request], 1)
    assert (first.computed, first.reused) == (5 * 2, 0)  # five blocks, two rows of one patch
    ran.clear()
    second = executor.execute("denoise", [request], 2)
    assert (second.computed, second.reused) == (0, 2 * 5 * 2)
    assert not [index for index in ran if index >= 100]


def test_what_does_not_fit_runs_without_a_cache_and_the_budget_holds() -> None:
    requests = [Request(f"r{i}", 0.0, 16, 16, steps=4, seed=i, prompt="x") for i in range(4)]
    executor = Executor(tiny_pipelines.sdxl(), "patched", Everything(), cache_patch=8)
    assert executor.cache is not None
    executor.execute("encode", requests)
    executor.execute("denoise", requests[:1], 1)
    one = executor.cache.kept.bytes
    assert one > 0
    executor.cache.kept.budget_bytes = int(2.5 * one)
    for _ in range(3):
        assert executor.execute("denoise", requests, 1).failed is None
        assert 0 < executor.cache.kept.bytes <= 2.5 * one
    assert len(executor.cache.kept.requests) == 2
    assert one < executor.cache.kept.peak_bytes <= 2.5 * one


def test_a_failed_forward_leaves_no_torn_state() -> None:
    pipeline = tiny_pipelines.sdxl().to(torch.float64)
    mixer = PatchedUNet(pipeline, caching=Nothing(), cache_patch=4)
    calls = calls_of(pipeline, [(8, 8), (8, 12)])
    assert mixer.cache is not None
    with torch.no_grad():
        mixer.run(calls)
        broken = pipeline.unet.conv_out.register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(RuntimeError("no")))
        with pytest.raises(RuntimeError, match="no"):
            mixer.run(calls)
        broken.remove()
        assert mixer.cache.kept.bytes == 0
        fresh = PatchedUNet(tiny_pipelines.sdxl().to(torch.float64)).run(calls)
        for given, wanted in zip(mixer.run(calls), fresh, strict=True):
            assert (given[0] - wanted[0]).abs().max() < 1e-12


def test_resting_requests_are_evicted_first_and_whole() -> None:
    kept = CachedState(budget_bytes=100)
    a, b = Member("a", 2, "p"), Member("b", 1, "p")
    state, known = kept.arrange([a])
    assert known.tolist() == [False, False]
    state["x"] = torch.ones(2, 8)  # 64 bytes
    kept.settle("p")
    assert kept.arrange([a])[1].tolist() == [True, True]
    state, known = kept.arrange([b])
    assert known.tolist() == [False]
    state["x"] = torch.full((1, 8), 2.0)
    kept.settle("p")
    assert kept.bytes == 96
    state, known = kept.arrange([b, a])
    assert known.tolist() == [True] * 3
    assert state["x"].tolist() == [[2.0] * 8, [1.0] * 8, [1.0] * 8]
    kept.arrange([b])
    kept.budget_bytes = 40
    kept.settle("p")
    assert kept.evicted == ["a"]
    assert kept.bytes == 32


def test_a_batch_of_another_patch_leaves_the_first_where_it_is() -> None:
    kept = CachedState(budget_bytes=200)
    a, b = Member("a", 2, "p"), Member("b", 1, "q")
    first, _ = kept.arrange([a])
    first["x"] = torch.ones(2, 8)
    second, _ = kept.arrange([b])
    second["x"] = torch.ones(1, 4)
    assert kept.arrange([a])[0] is first
    assert kept.arrange([b])[0] is second
    kept.settle("q")
    kept.forget("a")
    assert kept.requests == ["b"]
    assert kept.admit([Member("c", 1, "q"), Member("d", 40, "q")]) == [True, False]


def test_sd15_is_cached_too() -> None:
    request = Request("r", 0.0, 16, 24, steps=4, seed=1, prompt="x")
    alone = {"r": latents_alone(tiny_unets.sd15().to(torch.float64), request)}
    executor = Executor(tiny_unets.sd15().to(torch.float64), "patched", Everything(), cache_patch=4)
    assert largest_difference(alone, latents_together(executor, [request])) <= 1e-12


def test_uncut_images_of_the_same_patch_do_not_spoil_the_cache_of_cut_ones() -> None:
    pipeline = tiny_pipelines.sdxl().to(torch.float64)
    policy = Random(3)
    mixer = PatchedUNet(pipeline, caching=policy, cache_patch=8)
    calls = calls_of(pipeline, [(8, 8), (16, 8), (8, 8)])
    assert mixer.cache is not None
    with torch.no_grad():
        expected = PatchedUNet(tiny_pipelines.sdxl().to(torch.float64)).run(calls)
        mixer.run(calls[:1])
        for _ in range(4):
            mixer.cache.start_count()
            for given, wanted in zip(mixer.run(calls), expected, strict=True):
                assert (given[0] - wanted[0]).abs().max() < 1e-12
        assert sorted(mixer.cache.kept.requests) == ["r0", "r1", "r2"]


def test_what_runs_without_a_cache_counts_as_computed() -> None:
    requests = [Request(f"r{i}", 0.0, 16, 16, steps=4, seed=i, prompt="x") for i in range(2)]
    executor = Executor(tiny_pipelines.sdxl(), "patched", Nothing(), cache_bytes=1, cache_patch=8)
    executor.execute("encode", requests)
    executor.execute("denoise", requests, 1)
    outcome = executor.execute("denoise", requests, 2)
    assert (outcome.computed, outcome.reused) == (2 * 2 * 2 * 5, 0)  # steps, requests, rows, blocks


def test_the_calls_of_a_step_are_kept_and_evicted_together() -> None:
    kept = CachedState(budget_bytes=10_000)
    text, no_text = Member("a", 1, 0), Member("a\0" + "1", 1, 1)
    for member in (text, no_text):
        kept.arrange([member])[0]["x"] = torch.ones(1, 8)
        kept.settle(member.shape)
    kept.budget_bytes = 70
    assert kept.admit([text, Member("b", 1, 0)]) == [True, False]  # the other call of a is not idle
    assert kept.admit([Member("b", 1, 0)]) == [True]
    assert sorted(kept.evicted) == ["a", "a\0" + "1"]


def test_a_resting_request_does_not_hold_the_memory_of_its_former_batch() -> None:
    kept = CachedState(budget_bytes=10_000)
    a, b, c = (Member(name, 1, "p") for name in "abc")
    kept.arrange([a, b, c])[0]["x"] = torch.ones(3, 8)
    kept.forget("a")
    kept.arrange([b])
    _, own = kept._resting["c"]
    assert own["x"].untyped_storage().nbytes() == own["x"].nbytes
