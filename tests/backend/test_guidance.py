"""True CFG and negative prompts: what a request asks for reaches its pipeline, and is predicted as it runs."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from backend.coroutine import pipeline_arguments, unused_arguments  # noqa: E402
from backend.executor import Executor  # noqa: E402
from backend.loading import denoiser_name, geometry_of_pipeline, guidance_of  # noqa: E402
from backend.merge import rows_of  # noqa: E402
from backend.tiled.execution import Tiling  # noqa: E402
from policies.caching import CachingPolicy, FixedInterval, Flags, Signals  # noqa: E402
from policies.tiling.recipe import TilingRule  # noqa: E402
from tests.backend import tiny_pipelines  # noqa: E402
from traces.geometry import GEOMETRIES, KNOWN_MODELS, ModelGeometry  # noqa: E402
from traces.request import Request  # noqa: E402
from traces.trace import Trace  # noqa: E402

TRUE_CFG = {"negative_prompt": "a small red bird", "true_cfg_scale": 4.0}
SEED = 2**64 - 1


def asked(name: str, **more: Any) -> Request:
    return Request(name, 0.0, **{"height": 16, "width": 16, "steps": 3, "prompt": "two dogs", "seed": SEED, **more})


@functools.cache
def stock_pipeline(name: str) -> Any:
    return getattr(tiny_pipelines, name)()


def stock(request: Request) -> np.ndarray[Any, Any]:
    pipeline = stock_pipeline("flux")
    with torch.no_grad():
        return np.asarray(pipeline(**pipeline_arguments(pipeline, request)).images)


def served(requests: list[Request], **settings: Any) -> dict[str, np.ndarray[Any, Any]]:
    executor = Executor(tiny_pipelines.flux(), **settings)
    pixels: dict[str, np.ndarray[Any, Any]] = {}
    for stage, steps in executor.recipe(requests[0]):
        outcome = executor.execute(stage, requests, steps, deliver=lambda r, p: pixels.update({r.request_id: p}))
        assert not outcome.failed
    return pixels


@pytest.mark.parametrize("mode", ["whole", "packed"])
def test_true_cfg_in_a_batch_equals_the_stock_pipeline_alone(mode: str) -> None:
    requests = [
        asked("guided", **TRUE_CFG),
        asked("plain"),
        asked("two", **{**TRUE_CFG, "true_cfg_scale": 2.0}, images=2, prompt="a cat"),
        asked("wide", **TRUE_CFG, width=24),
        asked("no negative", true_cfg_scale=4.0),
    ]
    pixels = served(requests, mode=mode)
    for request in requests:
        np.testing.assert_allclose(pixels[request.request_id], stock(request), atol=2e-5)
    assert np.abs(pixels["guided"] - pixels["plain"]).max() > 1e-3
    np.testing.assert_allclose(pixels["no negative"], pixels["plain"], atol=2e-5)


@pytest.mark.parametrize("mode", ["whole", "patched"])
def test_a_negative_prompt_is_what_the_stock_pipeline_makes_of_it(mode: str) -> None:
    requests = [
        asked("negative", height=32, width=32, steps=2, negative_prompt="a small red bird"),
        asked("plain", height=32, width=32, steps=2),
        asked("not guided", height=32, width=48, steps=2, negative_prompt="a small red bird", guidance_scale=1.0),
    ]
    executor, pixels = Executor(tiny_pipelines.sdxl(), mode), {}
    for stage, steps in executor.recipe(requests[0]):
        assert not executor.execute(
            stage, requests, steps, deliver=lambda r, p: pixels.update({r.request_id: p})
        ).failed
    pipeline = tiny_pipelines.sdxl()
    for request in requests:
        with torch.no_grad():
            alone = pipeline(**pipeline_arguments(pipeline, request)).images
        np.testing.assert_allclose(pixels[request.request_id], alone, atol=1e-4)
    assert np.abs(pixels["negative"] - pixels["plain"]).max() > 1e-3


class Everything(CachingPolicy):
    """Computes everything."""

    def decide(self, signals: Signals) -> Flags:
        return np.ones(len(signals.unit), dtype=np.bool_)


def test_a_cache_keeps_the_two_calls_of_a_step_apart() -> None:
    requests = [
        asked("guided", **TRUE_CFG, steps=4),
        asked("plain", steps=4),
        asked("other", **TRUE_CFG, width=24, steps=4),
    ]
    exact = served(requests, mode="packed", caching=Everything())
    for request in requests:
        np.testing.assert_allclose(exact[request.request_id], stock(request), atol=2e-5)
    reused = served(requests, mode="packed", caching=FixedInterval(2, warmup=1))
    for request in requests:
        alone = served([request], mode="packed", caching=FixedInterval(2, warmup=1))[request.request_id]
        np.testing.assert_allclose(reused[request.request_id], alone, atol=2e-5)


@pytest.mark.parametrize("caching", [None, FixedInterval(2, warmup=1)])
def test_tiles_take_true_cfg(caching: FixedInterval | None) -> None:
    rule = TilingRule(ModelGeometry("flux-16", 2, 1, 4, (16, 16), patch=2), refine=0.7)
    guided, plain = (
        served([asked("r", height=32, width=32, steps=4, **more)], tiling=Tiling(rule, caching=caching))["r"]
        for more in (TRUE_CFG, {})
    )
    assert guided.shape == plain.shape == (1, 32, 32, 3)
    assert np.isfinite(guided).all()
    assert np.abs(guided - plain).max() > 1e-3


@pytest.mark.parametrize("name", ["sdxl", "flux", "wan", "sd3", "pixart", "cogvideox", "hunyuan_video"])
@pytest.mark.parametrize("more", [{"guidance_scale": 1.0}, {"guidance_scale": 5.0}, TRUE_CFG, {"true_cfg_scale": 4.0}])
def test_rows_of_a_step_are_those_that_are_predicted(
    name: str, more: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = stock_pipeline(name)
    geometry = geometry_of_pipeline(pipeline, "mine")
    frames = 5 if geometry.frame_factor > 1 else 1
    side = 256 if name == "pixart" else 16
    trace = Trace.from_requests([asked("r", **{"height": side, "width": side, "frames": frames, "steps": 2, **more})])
    [request] = trace.guided_as(geometry)[0]
    rows = 0
    denoiser = getattr(pipeline, denoiser_name(pipeline))
    forward = denoiser.forward

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal rows
        from backend.coroutine import DenoiserCall

        rows += rows_of(DenoiserCall(args, kwargs))
        return forward(*args, **kwargs)

    monkeypatch.setattr(denoiser, "forward", counted)
    with torch.no_grad():
        pipeline(**{**pipeline_arguments(pipeline, request), "output_type": "latent"})
    assert rows == 2 * (2 if request.guided else 1)


PIPELINES = {
    "sd15": "StableDiffusionPipeline",
    "sd21-base": "StableDiffusionPipeline",
    "sdxl": "StableDiffusionXLPipeline",
    "sd3": "StableDiffusion3Pipeline",
    "sd3.5-medium": "StableDiffusion3Pipeline",
    "sd3.5-large": "StableDiffusion3Pipeline",
    "flux": "FluxPipeline",
    "flux-schnell": "FluxPipeline",
    "chroma": "ChromaPipeline",
    "flux2-dev": "Flux2Pipeline",
    "flux2-dev-edit": "Flux2Pipeline",
    "flux2-klein-4b": "Flux2KleinPipeline",
    "flux2-klein-9b": "Flux2KleinPipeline",
    "qwen-image": "QwenImagePipeline",
    "z-image": "ZImagePipeline",
    "pixart-alpha": "PixArtAlphaPipeline",
    "pixart-sigma": "PixArtSigmaPipeline",
    "sana": "SanaPipeline",
    "wan-1.3b": "WanPipeline",
    "wan-14b": "WanPipeline",
    "wan-i2v-14b": "WanImageToVideoPipeline",
    "wan-2.2-ti2v-5b": "WanPipeline",
    "wan-2.2-a14b": "WanPipeline",
    "wan-2.2-i2v-a14b": "WanImageToVideoPipeline",
    "ltx-13b": "LTXPipeline",
    "ltx-2": "LTX2Pipeline",
    "cogvideox-2b": "CogVideoXPipeline",
    "cogvideox-5b": "CogVideoXPipeline",
    "cogvideox-1.5": "CogVideoXPipeline",
    "hunyuanvideo": "HunyuanVideoPipeline",
    "hunyuanvideo-1.5": "HunyuanVideo15Pipeline",
    "mochi": "MochiPipeline",
    "latte": "LattePipeline",
}
"""Of the models whose networks were counted."""

BY_MODEL_CARD = {
    "flux-schnell": {"steps", "guidance_scale"},
    "flux2-klein-4b": {"steps", "guidance_scale"},
    "flux2-klein-9b": {"steps", "guidance_scale"},
    "wan-2.2-ti2v-5b": {"height", "width", "frames"},
    "wan-2.2-a14b": {"height", "width", "steps", "guidance_scale"},
    "wan-2.2-i2v-a14b": {"steps", "guidance_scale"},
    "ltx-2": {"steps", "guidance_scale"},
    "mochi": {"frames"},
}
"""What models are asked for otherwise than their pipelines' signatures say: distilled ones, and later checkpoints."""


def test_the_known_models_are_asked_for_what_their_pipelines_make() -> None:
    import inspect

    import diffusers

    fields = {"steps": "num_inference_steps", "guidance_scale": "guidance_scale", "frames": "num_frames"}
    for name, pipeline in PIPELINES.items():
        takes = inspect.signature(getattr(diffusers, pipeline).__call__).parameters
        asked = KNOWN_MODELS[name].defaults
        height, width, frames = asked.size
        values = {"height": height, "width": width, "frames": frames}
        values |= {"steps": asked.steps, "guidance_scale": asked.guidance_scale}
        otherwise = set()
        for field, value in values.items():
            default = takes[taken].default if (taken := fields.get(field, field)) in takes else None
            if default is not None and default != value:
                otherwise.add(field)
        assert otherwise == BY_MODEL_CARD.get(name, set()), name


def test_the_known_models_are_guided_as_their_pipelines_are() -> None:
    import diffusers

    from backend.shapes.models import MODELS

    assert set(PIPELINES) == set(MODELS) - {"tiny-image"}
    for name, pipeline in PIPELINES.items():
        if name == "sdxl":
            continue  # its unet says whether it is distilled
        guidance = guidance_of(object.__new__(getattr(diffusers, pipeline)))
        if name.startswith("flux2-klein"):
            guidance = {"guidance": "never"}  # as a distilled pipeline says of itself
        known = GEOMETRIES[name]
        assert {"true_cfg_scale": 1.0, **guidance} == {
            "guidance": known.guidance, "true_cfg_scale": known.true_cfg_scale
        }, name  # fmt: skip
    assert guidance_of(tiny_pipelines.sdxl()) == {"guidance": "scale"}
    assert guidance_of(object.__new__(diffusers.QwenImagePipeline)) == {"guidance": "true", "true_cfg_scale": 4.0}
    assert guidance_of(object.__new__(diffusers.FluxFillPipeline)) == {"guidance": "never"}


def test_what_a_pipeline_takes_no_argument_for_is_named() -> None:
    from diffusers import FluxControlPipeline

    requests = [asked("a", **TRUE_CFG), asked("b")]
    said = ["negative_prompt of 1 requests has no effect: FluxControlPipeline takes none"]
    assert unused_arguments(object.__new__(FluxControlPipeline), requests) == said
    assert unused_arguments(tiny_pipelines.flux(), requests) == []
