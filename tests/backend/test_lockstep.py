"""In step, layer by layer: any transformer and mix of sizes, as each pipeline alone; the model is left as it was."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from backend.coroutine import DenoiserCall, RequestRun, intercept_denoiser, pipeline_arguments  # noqa: E402
from backend.executor import Executor  # noqa: E402
from backend.loading import geometry_of_pipeline  # noqa: E402
from backend.packed import lockstep  # noqa: E402
from backend.packed.lockstep import Lockstep, treats_tokens_alone  # noqa: E402
from policies.caching import CachingPolicy, Flags, Signals  # noqa: E402
from tests.backend import tiny_families, tiny_pipelines, tiny_stateful  # noqa: E402
from tests.backend.mixed import largest_difference, latents_alone, latents_together  # noqa: E402
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
EXACT = {"mochi": 1e-5}
"""Mochi guides and samples in float32, whatever its weights are."""
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
    sizes = [(rng.randint(1, 4), rng.randint(1, 4)) for _ in range(2)]
    return [
        Request(
            name,
            0.0,
            width * unit,
            height * unit,
            steps=rng.randint(2, 4),
            seed=seed + index,
            frames=rng.choice(frames),
            prompt="a small red bird by the sea"[: rng.randint(3, 27)],
            guidance_scale=rng.choice([1.0, 3.0]),
        )
        for index, (name, (width, height)) in enumerate(zip("abc", [*sizes, sizes[0]], strict=True))
    ]


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", FAMILIES)
def test_equals_the_stock_pipeline_run_alone(name: str, seed: int) -> None:
    pipeline = FAMILIES[name]().to(torch.float64)
    requests = mixed_requests(pipeline, UNIT.get(name, 0), seed)
    alone = {r.request_id: latents_alone(pipeline, r) for r in requests}
    together = latents_together(Executor(pipeline, "packed"), requests, pause="a")
    assert largest_difference(alone, {name: x.to(alone[name].dtype) for name, x in together.items()}) <= EXACT.get(
        name, 1e-12
    )


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
    intercept_denoiser(pipeline)
    return [RequestRun(pipeline, request).resume() for request in requests]  # type: ignore[misc]


def outputs(given: list[Any]) -> list[Any]:
    return [part for output in given for part in (output[0] if isinstance(output[0], list) else [output[0]])]


@pytest.mark.parametrize("name", [*FAMILIES, *OTHERS])
def test_most_layers_run_once_for_all(name: str) -> None:
    """And a layer that mixes tokens must not meet: then what is given differs."""
    pipeline = (FAMILIES | OTHERS)[name]().to(torch.float64)
    mixer = Lockstep(pipeline.transformer)
    calls = caught(pipeline, mixed_requests(pipeline, UNIT.get(name, 0)))
    with torch.no_grad():
        expected = outputs([pipeline.transformer(*call.args, **call.kwargs) for call in calls])
    given = outputs(mixer.run_in_step(calls))
    for own, alone in zip(given, expected, strict=True):
        assert (own - alone).abs().max() <= 1e-9 * alone.std()
    layers = sum(treats_tokens_alone(layer) for layer in pipeline.transformer.modules())
    assert mixer.shared >= 0.5 * layers
    assert mixer.apart <= mixer.shared


def test_a_layer_that_mixes_tokens_must_not_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rule that tells layers apart is needed: a norm over a whole picture is none that treats tokens alone."""

    class OverAll(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x - x.mean(-2, keepdim=True)

    pipeline = tiny_families.qwen_image().to(torch.float64)
    pipeline.transformer.img_in = torch.nn.Sequential(pipeline.transformer.img_in, OverAll())
    calls = caught(pipeline, mixed_requests(pipeline, 0))
    with torch.no_grad():
        expected = outputs([pipeline.transformer(*call.args, **call.kwargs) for call in calls])
    mixer = Lockstep(pipeline.transformer)
    for own, alone in zip(outputs(mixer.run_in_step(calls)), expected, strict=True):
        assert (own - alone).abs().max() <= 1e-9 * alone.std()
    rule = lockstep.treats_tokens_alone
    monkeypatch.setattr(lockstep, "treats_tokens_alone", lambda layer: isinstance(layer, OverAll) or rule(layer))
    wrong = outputs(mixer.run_in_step(calls))
    assert max((own - alone).abs().max() / alone.std() for own, alone in zip(wrong, expected, strict=True)) > 1e-3


def test_the_model_is_left_as_it_was_even_when_a_call_fails() -> None:
    pipeline = tiny_families.qwen_image()
    model = pipeline.transformer
    calls = caught(pipeline, mixed_requests(pipeline, 0))

    def state() -> list[Any]:
        return [vars(module).get("forward") for module in model.modules()]

    mixer, before = Lockstep(model), state()
    mixer.run_in_step(calls)
    assert state() == before
    broken = DenoiserCall((), {**calls[1].kwargs, "encoder_hidden_states": calls[1].kwargs["hidden_states"][..., :3]})
    with pytest.raises(RuntimeError):
        mixer.run_in_step([calls[0], broken, calls[2]])
    assert state() == before


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

    with pytest.raises(BadInput, match="QwenImageTransformer2DModel is packed layer by layer"):
        Executor(tiny_families.qwen_image(), "packed", Some())
