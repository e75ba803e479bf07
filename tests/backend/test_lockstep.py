"""In step, by layers or blocks: any transformer, any mix of sizes, as each pipeline alone; the model stays the same."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from backend.coroutine import DenoiserCall, RequestRun, intercept_denoisers, pipeline_arguments  # noqa: E402
from backend.executor import Executor  # noqa: E402
from backend.loading import geometry_of_pipeline  # noqa: E402
from backend.merge import run_merged  # noqa: E402
from backend.packed import lockstep  # noqa: E402
from backend.packed.blocks import Blocks  # noqa: E402
from backend.packed.lockstep import Lockstep, treats_tokens_alone  # noqa: E402
from backend.profiling import measure_profile  # noqa: E402
from policies.caching import CachingPolicy, Flags, Signals  # noqa: E402
from tests.backend import tiny_families, tiny_pipelines, tiny_stateful  # noqa: E402
from traces.errors import BadInput  # noqa: E402
from traces.request import Request  # noqa: E402

torch.set_num_threads(1)
FAMILIES: dict[str, Callable[[], Any]] = {
    "ltx": tiny_families.ltx,
    "sana": tiny_families.sana,
    "mochi": tiny_families.mochi,
    "lumina 2": tiny_families.lumina2,
    "z-image": tiny_families.z_image,
    "qwen-image": tiny_families.qwen_image,
    "hunyuan image": tiny_stateful.hunyuan_image,
}
OTHERS = {
    "ltx 2": tiny_stateful.ltx2,  # its pipeline hands out latents that its sampler never saw: compared by pixels
    "sd3": tiny_pipelines.sd3,
    "flux": tiny_pipelines.flux,
    "pixart": tiny_pipelines.pixart,
    "wan": tiny_pipelines.wan,
    "cogvideox": tiny_pipelines.cogvideox,
    "hunyuan video": tiny_pipelines.hunyuan_video,
}
"""Families of which single calls are compared; the blocks of most are known, layer by layer they come to the same."""
UNIT = {"hunyuan video": 16, "pixart": 128, "ltx 2": 32}
"""Where a pipeline wants larger multiples than its latents do."""


def mixed_requests(pipeline: Any, unit: int, seed: int = 0) -> list[Request]:
    """Sizes, steps, guidance and lengths of prompts differ; two are alike in size."""
    geometry = geometry_of_pipeline(pipeline, "mine")
    unit = unit or geometry.size_multiple
    rng = random.Random(seed)
    frames = [1 + geometry.frame_factor * n if geometry.frame_factor > 1 else 1 for n in (1, 2)]
    sizes = rng.sample([(1, 2), (2, 1), (2, 2), (2, 3), (3, 1)], 2)
    return [
        Request(
            name,
            0.0,
            width * unit,
            height * unit,
            steps=rng.randint(2, 3),
            seed=seed + index,
            frames=rng.choice(frames),
            prompt="a small red bird by the sea"[: rng.randint(3, 27)],
            guidance_scale=rng.choice([1.0, 3.0]),
        )
        for index, (name, (width, height)) in enumerate(zip("abc", [*sizes, sizes[0]], strict=True))
    ]


def test_a_clip_and_its_sound_go_together() -> None:
    pipeline = tiny_stateful.ltx2().to(torch.float64)
    requests = mixed_requests(pipeline, UNIT["ltx 2"])
    alone = {r.request_id: pipeline(**pipeline_arguments(pipeline, r)).frames for r in requests}
    executor = Executor(pipeline, "packed")
    executor.execute("encode", requests)
    for steps in range(max(r.steps for r in requests)):
        executor.execute("denoise", [r for r in requests if r.steps > steps])
    made: dict[str, Any] = {}
    executor.execute("decode", requests, deliver=lambda request, pixels: made.update({request.request_id: pixels}))
    assert made.keys() == alone.keys()
    for name, pixels in made.items():
        np.testing.assert_allclose(pixels, alone[name], rtol=0, atol=1e-6)


def caught(pipeline: Any, requests: list[Request]) -> list[DenoiserCall]:
    """The first denoiser call of each request, exactly as its pipeline makes it."""
    intercept_denoisers(pipeline)
    return first_calls(pipeline, requests)


def first_calls(pipeline: Any, requests: list[Request]) -> list[DenoiserCall]:
    return [RequestRun(pipeline, request).resume() for request in requests]  # type: ignore[misc]


def outputs(given: list[Any]) -> list[Any]:
    return [part for output in given for part in (output[0] if isinstance(output[0], list) else [output[0]])]


def errors(pipeline: Any, mixer: Lockstep, calls: list[DenoiserCall]) -> float:
    """Largest difference of anything from the model's own forward of each call, in standard deviations."""
    with torch.no_grad():
        expected = outputs([pipeline.transformer(*call.args, **call.kwargs) for call in calls])
    given = outputs(mixer.run_in_step(calls))
    return max(float((own - alone).abs().max() / alone.std()) for own, alone in zip(given, expected, strict=True))


@pytest.mark.parametrize("name", [*FAMILIES, *OTHERS])
def test_most_layers_run_once_for_all(name: str) -> None:
    pipeline = (FAMILIES | OTHERS)[name]().to(torch.float64)
    mixer = Lockstep(pipeline.transformer)
    assert errors(pipeline, mixer, caught(pipeline, mixed_requests(pipeline, UNIT.get(name, 0)))) <= 1e-9
    layers = sum(treats_tokens_alone(layer) for layer in pipeline.transformer.modules())
    assert mixer.shared >= 0.5 * layers
    assert mixer.apart <= mixer.shared


@pytest.mark.parametrize("name", [*FAMILIES, *OTHERS])
def test_whole_blocks_run_once_for_all(name: str) -> None:
    """A second time too, when they are trusted; where a block cannot be packed it is said why."""
    pipeline = (FAMILIES | OTHERS)[name]().to(torch.float64)
    mixer = Blocks(pipeline.transformer)
    intercept_denoisers(pipeline)
    first, other = (first_calls(pipeline, mixed_requests(pipeline, UNIT.get(name, 0), seed)) for seed in (0, 1))
    for calls in (first, first, other):
        assert errors(pipeline, mixer, calls) <= 1e-9
    if name in ("sana", "mochi"):
        assert not mixer.packed
        assert "packed layer by layer, not as a block: it calls" in mixer.notes[0]
    else:
        assert mixer.packed


def test_a_layer_that_mixes_tokens_must_not_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rule that tells layers apart is needed: a norm over a whole picture is none that treats tokens alone."""

    class OverAll(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x - x.mean(-2, keepdim=True)

    pipeline = tiny_families.qwen_image().to(torch.float64)
    pipeline.transformer.img_in = torch.nn.Sequential(pipeline.transformer.img_in, OverAll())
    calls = caught(pipeline, mixed_requests(pipeline, 0))
    mixer = Lockstep(pipeline.transformer)
    assert errors(pipeline, mixer, calls) <= 1e-9
    rule = lockstep.treats_tokens_alone
    monkeypatch.setattr(lockstep, "treats_tokens_alone", lambda layer: isinstance(layer, OverAll) or rule(layer))
    assert errors(pipeline, mixer, calls) > 1e-3


class Mixing(torch.nn.Module):
    """A block that lets tokens see each other in a way that no function alone betrays."""

    def __init__(self, block: torch.nn.Module, shift: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.block = block
        self.shift = shift

    def forward(
        self,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        encoder_hidden_states_mask: torch.Tensor | None,
        temb: torch.Tensor,
        image_rotary_emb: Any = None,
        joint_attention_kwargs: Any = None,
        modulate_index: Any = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        text, image = self.block(
            hidden_states=hidden_states,
            encoder_hidden_states=encoder_hidden_states,
            encoder_hidden_states_mask=encoder_hidden_states_mask,
            temb=temb,
            image_rotary_emb=image_rotary_emb,
            joint_attention_kwargs=joint_attention_kwargs,
            modulate_index=modulate_index,
        )
        return text, image + 0.1 * self.shift(image)


@pytest.mark.parametrize(
    ("shift", "reason"),
    [
        (lambda x: x.mean(1, keepdim=True), "it calls mean over tokens"),
        (lambda x: torch.roll(x, 1, 1), "it calls roll"),
        (lambda x: torch.cat([x[:, 1:], x[:, :1]], 1), "packed, it gives other values than alone"),
        (lambda x: x - x[:, :1], "packed, it gives other values than alone"),
        (lambda x: x / x.shape[1], "packed, it gives other values than alone"),
    ],
)
def test_a_block_that_mixes_tokens_is_found_out(shift: Callable[..., Any], reason: str) -> None:
    pipeline = tiny_families.qwen_image().to(torch.float64)
    blocks = pipeline.transformer.transformer_blocks
    blocks[0] = Mixing(blocks[0], shift)
    mixer = Blocks(pipeline.transformer)
    calls = caught(pipeline, mixed_requests(pipeline, 0))
    for _ in range(2):
        assert errors(pipeline, mixer, calls) <= 1e-9
    assert not mixer.packed
    assert mixer.notes == [f"Mixing is packed layer by layer, not as a block: {reason}"]


@pytest.mark.parametrize("way", [Lockstep, Blocks])
def test_the_model_is_left_as_it_was_even_when_a_call_fails(way: type[Lockstep]) -> None:
    pipeline = tiny_families.qwen_image()
    model = pipeline.transformer
    calls = caught(pipeline, mixed_requests(pipeline, 0))

    def state() -> list[Any]:
        return [vars(module).get("forward") for module in model.modules()]

    mixer, before = way(model), state()
    mixer.run_in_step(calls)
    assert state() == before
    broken = DenoiserCall((), {**calls[1].kwargs, "encoder_hidden_states": calls[1].kwargs["hidden_states"][..., :3]})
    with pytest.raises(RuntimeError):
        mixer.run_in_step([calls[0], broken, calls[2]])
    assert state() == before


def test_one_bad_call_does_not_take_the_others_with_it() -> None:
    pipeline = tiny_families.qwen_image().to(torch.float64)
    mixer = Blocks(pipeline.transformer)
    first, second, third = caught(pipeline, mixed_requests(pipeline, 0))
    broken = DenoiserCall((), {**second.kwargs, "encoder_hidden_states": second.kwargs["hidden_states"][..., :3]})
    _, failed = run_merged(mixer, [first, broken, third])
    assert set(failed) == {1}
    assert errors(pipeline, mixer, [first, second, third]) <= 1e-9
    assert mixer.packed


def test_calls_with_other_scales_of_lora_weights_run_apart() -> None:
    pipeline = tiny_families.qwen_image()
    mixer = Lockstep(pipeline.transformer)
    first, second, _ = caught(pipeline, mixed_requests(pipeline, 0))
    second.kwargs["attention_kwargs"] = {"scale": 0.5}
    assert mixer.key(first) != mixer.key(second)
    first.kwargs["attention_kwargs"] = {"scale": 0.5}
    assert mixer.key(first) == mixer.key(second)


def test_a_cache_needs_blocks() -> None:
    class Some(CachingPolicy):
        def decide(self, signals: Signals) -> Flags:
            return np.ones(len(signals.unit), dtype=bool)

    pipeline = tiny_families.qwen_image()
    del pipeline.transformer.transformer_blocks
    with pytest.raises(BadInput, match="QwenImageTransformer2DModel has no list of blocks that a caching policy could"):
        Executor(pipeline, "packed", Some())


@pytest.mark.usefixtures("loads_not_measured")
def test_a_profile_says_which_blocks_are_not_packed(tmp_path: Path) -> None:
    tiny_families.sana().save_pretrained(tmp_path / "sana")
    sizes = [(32, 32, 1), (64, 32, 1)]
    profile = measure_profile(
        str(tmp_path / "sana"), sizes=sizes, max_batch=2, repeats=1, minutes=1, mode="packed", mixes=1
    )
    assert "SanaTransformerBlock is packed layer by layer, not as a block: it calls pad" in profile.metadata["note"]
