"""Packing: clips and images of any sizes in one forward equal the stock pipeline run alone, every ingredient needed."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from diffusers.models.embeddings import PatchEmbed  # noqa: E402
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from backend.coroutine import DenoiserCall, RequestRun, intercept_denoisers  # noqa: E402
from backend.executor import Executor  # noqa: E402
from backend.kernels import modulate_triton  # noqa: E402
from backend.kernels.choice import Kernels  # noqa: E402
from backend.kernels.graphs import Recorder  # noqa: E402
from backend.loading import load_pipeline  # noqa: E402
from backend.packed import Blocks, CachedBlocks, arguments, trust, within  # noqa: E402
from backend.packed.entries import RowEntries  # noqa: E402
from backend.packed.pack import Arrangement  # noqa: E402
from backend.recent import Recent  # noqa: E402
from policies.caching import CachingPolicy, Flags, Signals  # noqa: E402
from tests.backend import tiny_pipelines  # noqa: E402
from tests.backend.mixed import largest_difference, latents_alone, latents_together  # noqa: E402
from tests.sweep import some  # noqa: E402
from traces.errors import BadInput  # noqa: E402
from traces.request import Request  # noqa: E402

torch.set_num_threads(1)
CPU = torch.device("cpu")

FAMILIES = {
    "sd3": tiny_pipelines.sd3,
    "flux": tiny_pipelines.flux,
    "pixart": tiny_pipelines.pixart,
    "wan": tiny_pipelines.wan,
    "cogvideox": tiny_pipelines.cogvideox,
    "hunyuan_video": tiny_pipelines.hunyuan_video,
}
VARIANTS = {
    **FAMILIES,
    "wan-2.2-5b": lambda: tiny_pipelines.wan(expand_timesteps=True),
    "cogvideox-2b": lambda: tiny_pipelines.cogvideox(rotary=False),
}
CLIPS = ("wan", "cogvideox", "hunyuan_video")


def mixed_requests(name: str) -> list[Request]:
    """Sizes, steps, guidance, lengths of prompts and of clips and numbers of images all differ."""
    unit = 128 if name == "pixart" else 4 if name in ("sd3", "flux") else 16
    short, long = ({"frames": 5}, {"frames": 9}) if name.startswith(CLIPS) else ({}, {})
    images = 1 if name.startswith("cogvideox") else 2  # its pipeline makes one clip a prompt
    two = {"prompt": "two dogs", "images": images, "guidance_scale": 3.0, **short}
    unguided = {"prompt": "a small red bird", "guidance_scale": 1.0, **long}
    return [
        Request("square", 0.0, 2 * unit, 2 * unit, steps=2, seed=1, prompt="a cat", **short),
        Request("two", 0.0, 3 * unit, unit, steps=3, seed=2, **two),
        Request("unguided", 0.0, unit, 2 * unit, steps=2, seed=3, **unguided),
        Request("again", 0.0, 2 * unit, 2 * unit, steps=3, seed=4, prompt="a whale", **short),
    ]


def equal_to_alone(name: str, dtype: Any, requests: list[Request] | None = None) -> float:
    requests = requests or mixed_requests(name)
    pipeline = VARIANTS[name]().to(dtype)
    alone = {r.request_id: latents_alone(pipeline, r) for r in requests}
    return largest_difference(alone, latents_together(Executor(pipeline, "packed"), requests, pause="square"))


@pytest.mark.parametrize("name", VARIANTS)
def test_equals_the_stock_pipeline_run_alone(name: str) -> None:
    assert equal_to_alone(name, torch.float64) <= 1e-12


@pytest.mark.parametrize("name", some(VARIANTS, "sd3", "wan"))
def test_in_single_precision_it_stays_within_its_rounding(name: str) -> None:
    assert equal_to_alone(name, torch.float32) <= 1e-4


def across_images(q: Any, k: Any, v: Any, queries: Any, keys: Any, fused: bool) -> Any:
    heads = [x.transpose(0, 1)[None] for x in (q, k, v)]
    return within.scaled_dot_product_attention(*heads)[0].transpose(0, 1)


def without_attention_per_image(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(within, "attend", across_images)
    patch.setattr(within.RowAttention, "row_by_row", lambda _, attention, q, k, v, mask: attention(q, k, v, mask))


def without_modulation_per_token(patch: pytest.MonkeyPatch) -> None:
    """Every token is modulated as the first row's are."""
    patch.setattr(RowEntries, "by_row", lambda one, ndim: one.values.squeeze(1)[:1].expand(len(one.values), -1))


def without_positions_per_image(patch: pytest.MonkeyPatch) -> None:
    """Rotary positions in the pack instead of in the image; no sine positions at all."""
    tensor = arguments.Packer._tensor

    def from_the_end_of_the_pack(packer: Any, *given: Any) -> Any:
        packed, along, over_joint = tensor(packer, *given)
        turned = along is not None and packed.is_floating_point()
        return packed.flip(along[0]) if turned else packed, along, over_joint

    patch.setattr(arguments.Packer, "_tensor", from_the_end_of_the_pack)
    patch.setattr(PatchEmbed, "forward", lambda embed, x: embed.proj(x).flatten(2).transpose(1, 2))


def trusting(patch: pytest.MonkeyPatch) -> None:
    """Blocks that give something else than alone are not found out."""
    patch.setattr(trust, "_compare", lambda *_: None)


@functools.cache
def first_calls(name: str) -> tuple[Any, list[DenoiserCall], list[Any]]:
    """A family's model, calls of it with timesteps of their own, and what it makes of each alone."""
    pipeline = FAMILIES[name]().to(torch.float64)
    calls = caught(pipeline, mixed_requests(name)[:3])
    for divisor, call in enumerate(calls, 1):
        call.kwargs["timestep"] = call.kwargs["timestep"] / divisor
    with torch.no_grad():
        return pipeline.transformer, calls, [pipeline.transformer(*call.args, **call.kwargs)[0] for call in calls]


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(
    "without", [without_attention_per_image, without_modulation_per_token, without_positions_per_image]
)
def test_every_ingredient_is_needed(name: str, without: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    model, calls, expected = first_calls(name)
    without(monkeypatch)
    trusting(monkeypatch)
    with torch.no_grad():
        together = Blocks(model).run(list(calls))
    apart = [(found - alone).abs().max() / alone.std() for (found,), alone in zip(together, expected, strict=True)]
    assert max(apart) > 1e-3


@pytest.mark.parametrize("name", some(FAMILIES, "flux", "wan"))
def test_a_pipeline_from_a_folder_is_exact_too(name: str, tmp_path: Path) -> None:
    FAMILIES[name]().save_pretrained(tmp_path)
    pipeline = load_pipeline(str(tmp_path), dtype="float64").to(torch.float64)  # Wan keeps part in float32 when loaded
    requests = [dataclasses.replace(r, steps=1) for r in mixed_requests(name)[1:3]]
    alone = {r.request_id: latents_alone(pipeline, r) for r in requests}
    executor = Executor(pipeline, "packed")
    executor.execute("encode", requests)
    assert executor.execute("denoise", requests, 1).failed is None
    together = {r.request_id: executor.latents(r.request_id) for r in requests}
    assert largest_difference(alone, together) <= 1e-12


@pytest.mark.parametrize("name", some(FAMILIES, "flux", "pixart", "wan", "hunyuan_video"))
def test_half_precision_stays_within_its_rounding(name: str, tmp_path: Path) -> None:
    FAMILIES[name]().save_pretrained(tmp_path)
    pipeline = load_pipeline(str(tmp_path), dtype="bfloat16")  # what the model keeps in float32 stays in float32
    calls = caught(pipeline, mixed_requests(name)[:3])
    with torch.no_grad():
        expected = [pipeline.transformer(*call.args, **call.kwargs)[0] for call in calls]
    for (given_back,), alone in zip(Blocks(pipeline.transformer).run(calls), expected, strict=True):
        assert given_back.dtype == torch.bfloat16
        assert (given_back - alone).abs().max() < 0.05 * alone.float().std()


def caught(pipeline: Any, requests: list[Request]) -> list[DenoiserCall]:
    """The first denoiser call of each request, exactly as its pipeline makes it."""
    intercept_denoisers(pipeline)
    calls = [RequestRun(pipeline, request).resume() for request in requests]
    assert all(isinstance(call, DenoiserCall) for call in calls)
    return calls  # type: ignore[return-value]


@pytest.mark.parametrize("name", some(VARIANTS, "sd3", "flux", "pixart", "wan-2.2-5b", "cogvideox"))
def test_fused_kernels_change_nothing_and_leave_nothing_to_plain_ones(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit by bit; no modulation is written out once a token, unless each token has a timestep of its own."""
    pipeline = VARIANTS[name]().to(torch.float64)
    calls = caught(pipeline, mixed_requests(name)[:3:2])
    expected = Blocks(pipeline.transformer).run_in_step(calls)
    launched: list[Any] = []
    launch = modulate_triton.multiply_add
    monkeypatch.setattr(modulate_triton, "multiply_add", lambda *args: launched.append(0) or launch(*args))
    monkeypatch.setattr(RowEntries, "of_tokens", lambda *_: pytest.fail("written out once a token"))
    with torch.no_grad():
        fused = Blocks(pipeline.transformer, kernels=Kernels(fused=True)).run_in_step(calls)
    assert bool(launched) == modulate_triton.runs_on(CPU) * (name != "wan-2.2-5b")
    for (given_back,), (plain,) in zip(fused, expected, strict=True):
        assert torch.equal(given_back, plain)


class Halves(CachingPolicy):
    """Computes every second unit, others in the next block."""

    def decide(self, signals: Signals) -> Flags:
        return ((signals.unit + signals.block) % 2 == 0) | np.isinf(signals.input_change)


@pytest.mark.parametrize("name", some(FAMILIES, "flux", "wan"))
def test_fused_kernels_change_nothing_when_a_cache_picks_the_tokens(name: str) -> None:
    pipeline = FAMILIES[name]().to(torch.float64)
    calls = caught(pipeline, mixed_requests(name)[:3:2])
    ways = [CachedBlocks(pipeline.transformer, Halves(), cache_patch=1, kernels=Kernels(f)) for f in (False, True)]
    for _ in range(2):
        for (fused,), (plain,) in zip(*(way.run(calls) for way in ways), strict=True):
            assert torch.equal(fused, plain)
    cache = ways[1].cache
    assert cache is not None
    assert cache.reused > 0


class Shapes(TorchDispatchMode):
    """The shapes of all tensors that are made, not those of views."""

    def __init__(self) -> None:
        super().__init__()
        self.made: set[tuple[int, ...]] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor) and not func.is_view:
            self.made.add(tuple(out.shape))
        return out


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize(("name", "chunks"), [("sd3", [6]), ("flux", [6, 3]), ("wan", [6])])
def test_modulations_take_no_memory_of_tokens(name: str, chunks: list[int], fused: bool) -> None:
    pipeline = FAMILIES[name]()
    model = pipeline.transformer
    calls = caught(pipeline, mixed_requests(name)[:3:2])
    inner = model.config.num_attention_heads * model.config.attention_head_dim
    rows = sum(len(call.kwargs["hidden_states"]) for call in calls)
    with torch.no_grad(), Shapes() as shapes:
        Blocks(model, kernels=Kernels(fused=fused)).run_in_step(calls)
    batches = {shape[1] for shape in shapes.made if shape[:1] == (1,) and shape[2:] == (inner,)}
    for each in chunks:
        wide = {shape[0] for shape in shapes.made if shape[1:] in {(each * inner,), (each, inner)}}
        assert max(wide) <= rows < max(batches)


@pytest.mark.parametrize("name", FAMILIES)
def test_texts_of_any_length_share_a_forward(name: str) -> None:
    pipeline = FAMILIES[name]().to(torch.float64)
    mixer = Blocks(pipeline.transformer)
    calls = caught(pipeline, mixed_requests(name))
    for index, call in enumerate(calls):
        for argument in ("encoder_hidden_states", "encoder_attention_mask", "txt_ids"):
            if argument in call.kwargs:
                texts = call.kwargs[argument]
                kept = texts[: 8 + index] if argument == "txt_ids" else texts[:, : 8 + index]
                call.kwargs[argument] = kept
    calls[0].kwargs.pop("return_dict")
    assert len({mixer.key(call) for call in calls}) == 1
    with torch.no_grad():
        expected = [pipeline.transformer(*call.args, **call.kwargs) for call in calls]
        outputs = mixer.run(calls)
    torch.testing.assert_close(outputs[0].sample, expected[0].sample, rtol=0, atol=1e-12)
    for output, alone in zip(outputs[1:], expected[1:], strict=True):
        torch.testing.assert_close(output, alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["pixart", "hunyuan_video"])
def test_masks_of_any_kind_mean_what_they_mean_to_the_model(name: str) -> None:
    """Holes in the text, padding before it, no text at all."""
    pipeline = FAMILIES[name]().to(torch.float64)
    first, second, third, fourth = calls = caught(pipeline, mixed_requests(name))
    first.kwargs["encoder_attention_mask"][:, ::2] = 0
    second.kwargs["encoder_attention_mask"] = second.kwargs["encoder_attention_mask"].flip(1)
    third.kwargs["encoder_attention_mask"][:] = 0
    fourth.kwargs["encoder_attention_mask"][:] = 1
    if name == "hunyuan_video":
        third.kwargs["encoder_attention_mask"][:, -1] = 1  # without any the model divides by zero
    with torch.no_grad():
        expected = [pipeline.transformer(*call.args, **call.kwargs)[0] for call in calls]
    for (given_back,), alone in zip(Blocks(pipeline.transformer).run(calls), expected, strict=True):
        assert (given_back - alone).abs().max() < 1e-9


def test_mixed_sizes_share_one_forward() -> None:
    pipeline = tiny_pipelines.sd3()
    executor = Executor(pipeline, "packed")
    requests = [dataclasses.replace(request, steps=3) for request in mixed_requests("sd3")]
    executor.execute("encode", requests)
    forwards: list[tuple[int, ...]] = []
    project = pipeline.transformer.proj_out.forward
    pipeline.transformer.proj_out.forward = lambda input: forwards.append(tuple(input.shape)) or project(input)
    executor.execute("denoise", requests, 1)
    tokens = [2 * 2 * 2, 2 * 2 * (3 * 1), 1 * 2, 2 * 2 * 2]  # rows x latent patches: guided twice, "two" twice again
    assert forwards == [(sum(tokens), 16)]
    forwards.clear()
    executor.execute("denoise", requests, 1)
    assert forwards == [(1, sum(tokens), 16)]  # in a chain of blocks now
    forwards.clear()
    executor.execute("denoise", [requests[0], requests[3]], 1)
    assert forwards == [(4, 4, 16)]  # equal shapes are stacked


def test_residuals_between_blocks_and_other_scales_of_weights() -> None:
    """A call that gets something between two blocks ends their chain, for as long as it is there."""
    pipeline = tiny_pipelines.flux().to(torch.float64)
    mixer = Blocks(pipeline.transformer)
    plain, residual, scaled, other = caught(pipeline, mixed_requests("flux"))
    samples = torch.ones_like(pipeline.transformer.x_embedder(residual.kwargs["hidden_states"]))
    scaled.kwargs["joint_attention_kwargs"] = {"scale": 0.5}
    assert mixer.key(scaled) != mixer.key(plain) == mixer.key(residual)
    assert mixer.key(plain) == mixer.key(DenoiserCall((), {**plain.kwargs, "joint_attention_kwargs": {}}))
    with_residual = DenoiserCall((), {**residual.kwargs, "controlnet_block_samples": [samples]})
    for calls in [(plain, residual, other)] * 3 + [(plain, with_residual, other)] * 3:
        with torch.no_grad():
            expected = [pipeline.transformer(**call.kwargs)[0] for call in calls]
        for (given_back,), alone in zip(mixer.run(list(calls)), expected, strict=True):
            torch.testing.assert_close(given_back, alone, rtol=0, atol=1e-12)
    assert not mixer.unpacked


class Loose(torch.nn.Module):
    """A block that takes any number of arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = torch.nn.Linear(6, 6)

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        gate, _ = args
        return hidden_states + self.inner(hidden_states) * gate * kwargs["scale"]


class OfLooseBlocks(torch.nn.Module):
    """Gives them a number that differs between calls, and that they do not look at."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = torch.nn.ModuleList(Loose() for _ in range(3))

    def forward(self, hidden_states: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
        count = hidden_states.shape[1]
        for block in self.blocks:
            hidden_states = block(hidden_states, gate, count, scale=0.5, tokens=count)
        return hidden_states


class ChainsSeen(Recorder):
    """Notes how many blocks ran as one."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[int] = []

    def run(self, key: Any, function: Callable[..., Any], *inputs: Any) -> Any:
        self.links.append(key[2])
        return super().run(key, function, *inputs)


def test_blocks_that_take_any_number_of_arguments_run_as_one() -> None:
    model, seen = OfLooseBlocks().double(), ChainsSeen()
    mixer = Blocks(model, recorder=seen)
    for lengths in ([5, 8], [5, 8], [9, 4], [3, 7]):
        calls = [
            DenoiserCall((torch.randn(1, n, 6, dtype=torch.float64), torch.randn(1, 1, 6, dtype=torch.float64)), {})
            for n in lengths
        ]
        for call, output in zip(calls, mixer.run(calls), strict=True):
            torch.testing.assert_close(output, model(*call.args), rtol=0, atol=1e-12)
    assert seen.links == [3, 3, 3]  # the first forward saw that the blocks feed each other
    assert not mixer.unpacked


def test_what_was_used_last_is_kept() -> None:
    kept: Recent[str, int] = Recent(2)
    kept.keep("a", 1)
    kept.keep("b", 2)
    assert kept.get("a") == 1
    kept.keep("c", 3)
    assert (kept.get("a"), kept.get("b"), kept.get("c"), len(kept)) == (1, None, 3, 2)


def test_a_forward_leaves_the_model_as_it_was_even_when_it_fails() -> None:
    pipeline = tiny_pipelines.hunyuan_video()
    model = pipeline.transformer

    def state() -> list[Any]:
        hooks = [(module, len(module._forward_hooks)) for module in model.modules()]
        return [model.attn_processors, [count for _, count in hooks], [module.forward for module, _ in hooks]]

    mixer = Blocks(model)
    calls = caught(pipeline, mixed_requests("hunyuan_video"))
    before = state()
    mixer.run_in_step(calls)
    assert state() == before
    broken = DenoiserCall((), {**calls[0].kwargs, "pooled_projections": calls[0].kwargs["pooled_projections"][:, :3]})
    with pytest.raises(RuntimeError):
        mixer.run_in_step([broken, *calls[1:]])
    model.single_transformer_blocks[0].proj_out = torch.nn.Linear(1, 1)
    with pytest.raises(RuntimeError):
        mixer.run_in_step(calls)
    assert state()[:2] == before[:2]


def test_two_replicas_run_in_two_threads() -> None:
    def work(name: str) -> float:
        torch.set_num_threads(1)
        return equal_to_alone(name, torch.float64)

    with ThreadPoolExecutor(2) as pool:
        assert max(pool.map(work, ("sd3", "cogvideox"))) <= 1e-12


def test_only_transformers_are_packed() -> None:
    with pytest.raises(BadInput, match="packs transformers, not UNet2DConditionModel; use 'patched'"):
        Executor(tiny_pipelines.sdxl(), "packed")


LENGTHS = st.lists(st.tuples(st.integers(0, 4), st.integers(1, 5)), min_size=1, max_size=6)


@given(LENGTHS)
@settings(deadline=None)
def test_rows_of_joined_streams_are_found_again(lengths: list[tuple[int, int]]) -> None:
    text, image = zip(*lengths, strict=True)
    joint = Arrangement(("text", "image"), (text, image), CPU)
    one_by_one = joint.row_by_row(joint.rows)
    assert torch.equal(one_by_one, joint.segments.rows)
    assert torch.equal(joint.arranged(one_by_one), joint.rows)
    for row, (t, i) in enumerate(lengths):
        assert joint.of_row(joint.rows, row, 0).tolist() == [row] * (t + i)
