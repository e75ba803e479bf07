"""Refinement by tiles against the stock pipelines, and the executor around it."""

from __future__ import annotations

import gc
import inspect
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from diffusers import (  # noqa: E402
    CogVideoXVideoToVideoPipeline,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FluxImg2ImgPipeline,
    HeunDiscreteScheduler,
    StableDiffusion3Img2ImgPipeline,
    StableDiffusionXLImg2ImgPipeline,
    UniPCMultistepScheduler,
    WanVideoToVideoPipeline,
)

from backend.coroutine import pipeline_arguments  # noqa: E402
from backend.executor import Executor  # noqa: E402
from backend.tiled.adapter import Adapter  # noqa: E402
from backend.tiled.coroutines import begin_at  # noqa: E402
from backend.tiled.pixels import as_pixels, drawn_noise, enlarged, noisy  # noqa: E402
from policies.caching import FixedInterval, RegionAware, Threshold  # noqa: E402
from tests.backend import tiny_pipelines  # noqa: E402
from tests.backend.tiled_runs import (  # noqa: E402
    decoded,
    executor_of,
    latents_of,
    made,
    refine,
    retile,
    rule_of,
    upscaled,
)
from tests.sweep import some  # noqa: E402
from traces.request import Request  # noqa: E402

torch.set_num_threads(1)

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def with_sampler(build: Callable[[], Any], sampler: Any) -> Callable[[], Any]:
    def built() -> Any:
        pipeline = build()
        pipeline.scheduler = sampler
        return pipeline

    return built


def request_of(side: int, wide: int = 0, **more: Any) -> Request:
    fields: dict[str, Any] = {"steps": 4, "seed": 5, "prompt": "a cat", "guidance_scale": 3.0}
    return Request("a", 0.0, side, wide or side, **{**fields, **more})


SDXL = {"build": tiny_pipelines.sdxl, "stock": StableDiffusionXLImg2ImgPipeline, "native": (16, 16), "side": 32}
WAN = {"build": tiny_pipelines.wan, "stock": WanVideoToVideoPipeline, "native": (16, 16), "side": 32}
FLOW_UNIPC = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
CASES: dict[str, dict[str, Any]] = {
    "sdxl-euler": SDXL,
    "sdxl-two-unguided": {**SDXL, "more": {"images": 2, "guidance_scale": 1.0}},
    "sdxl-heun": {**SDXL, "build": lambda: tiny_pipelines.sdxl(heun=True)},
    "sdxl-ddim": {**SDXL, "build": with_sampler(tiny_pipelines.sdxl, DDIMScheduler(**BETAS))},
    "sdxl-dpm": {**SDXL, "build": with_sampler(tiny_pipelines.sdxl, DPMSolverMultistepScheduler(**BETAS))},
    "sd3": {
        "build": tiny_pipelines.sd3, "stock": StableDiffusion3Img2ImgPipeline, "native": (16, 16), "side": 32,
        "more": {"images": 2},
    },
    "flux": {"build": tiny_pipelines.flux, "stock": FluxImg2ImgPipeline, "native": (16, 16), "side": 32},
    "wan": {**WAN, "more": {"frames": 5}},
    "wan-unipc": {**WAN, "build": with_sampler(tiny_pipelines.wan, FLOW_UNIPC), "more": {"frames": 5}},
    "cogvideox": {
        "build": tiny_pipelines.cogvideox, "stock": CogVideoXVideoToVideoPipeline, "native": (16, 16), "side": 32,
        "more": {"frames": 9},
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "share"),
    [*((name, 0.5) for name in CASES), *((name, 1.0) for name in some(CASES, "sdxl-heun", "flux", "wan-unipc"))],
)
def test_one_tile_is_what_the_stock_image_to_image_pipeline_makes(name: str, share: float) -> None:
    case = CASES[name]
    request = request_of(case["side"], **case.get("more", {}))
    start, ours = refined_as_one_tile(case["build"](), case["native"], request, share)
    parts = case["build"]().to(torch.float64).components
    stock = case["stock"](**{part: parts[part] for part in inspect.signature(case["stock"].__init__).parameters
                             if part in parts})  # fmt: skip
    stock.set_progress_bar_config(disable=True)
    given: dict[str, Any] = {"latents": start, "strength": share, "output_type": "latent"}
    if request.frames == 1:
        given["image"] = torch.zeros(request.images, 3, *request.size[:2], dtype=torch.float64)
    with torch.no_grad():
        output = stock(**{**pipeline_arguments(stock, request), **given})
    expected = output.images if request.frames == 1 else output.frames
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)
    assert (ours - start).abs().max() > 0.01


def test_one_tile_of_all_steps_is_what_the_text_to_video_pipeline_makes_of_the_same_latents() -> None:
    request = request_of(64, frames=5, prompt="a cat", guidance_scale=6.0)
    start, ours = refined_as_one_tile(tiny_pipelines.hunyuan_video(), (32, 32), request, 1.0)
    stock = tiny_pipelines.hunyuan_video().to(torch.float64)
    with torch.no_grad():
        arguments = pipeline_arguments(stock, request)
        expected = stock(**{**arguments, "latents": start, "output_type": "latent"}).frames
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)
    assert (ours - start).abs().max() > 0.01


def refined_as_one_tile(pipeline: Any, native: tuple[int, int], request: Request, share: float) -> tuple[Any, Any]:
    """The latents before and after a refinement whose only tile is the canvas."""
    executor = executor_of(pipeline.to(torch.float64), native, {"refine": share, "tile": request.size[:2]})
    upscaled(executor, request)
    start = latents_of(executor, request.request_id)
    return start, refine(executor, request)[request.request_id]


@pytest.mark.parametrize(
    ("build", "request_more"),
    [
        (tiny_pipelines.sdxl, {}),
        (tiny_pipelines.flux, {"images": 2}),
        (tiny_pipelines.wan, {"frames": 5}),
    ],
    ids=["sdxl", "flux", "wan"],
)
def test_a_denoiser_that_sees_one_pixel_makes_the_same_of_any_grid(
    build: Callable[[], Any], request_more: dict[str, Any]
) -> None:
    request = request_of(64, 96, steps=3, **request_more)
    pipeline = build().to(torch.float64)
    denoiser = getattr(pipeline, "unet", None) or pipeline.transformer
    denoiser.forward = lambda *args, **kwargs: (0.1 * (args[0] if args else kwargs["hidden_states"]),)
    executor = executor_of(pipeline, (32, 32), {"refine": 0.75})

    def latents(**rule: Any) -> Any:
        retile(executor, rule=rule_of(pipeline, (32, 32), refine=0.75, **rule))
        upscaled(executor, request)
        found = refine(executor, request)["a"]
        executor.keep_only(set())
        return found

    whole = latents(tile=request.size[:2])
    for index, tile in enumerate(((32, 32), (48, 32), (64, 48))):
        for mode, overlap in (("wrap", 8 * (index % 2)), ("clamp", 8 * ((index + 1) % 2))):
            found = latents(tile=tile, mode=mode, overlap=overlap, stride=0.3)
            torch.testing.assert_close(found, whole, rtol=0, atol=1e-12)


def test_a_denoiser_that_sees_a_window_makes_another_picture_of_another_grid() -> None:
    request = request_of(32, steps=2)
    tiles = [{"tile": (32, 32)}, {"tile": (16, 16)}, {"tile": (16, 32)}, {"tile": (16, 16), "mode": "clamp"}]
    executor = executor_of(tiny_pipelines.sdxl(), (16, 16))
    found = []
    for rule in tiles:
        retile(executor, rule=rule_of(executor.pipeline, (16, 16), **rule))
        upscaled(executor, request)
        found.append(refine(executor, request)["a"])
        executor.keep_only(set())
    for i, one in enumerate(found):
        assert all((one - other).abs().max() > 1e-4 for other in found[:i])


def test_noise_is_added_by_the_samplers_formula() -> None:
    latents, noise = torch.randn(2, 2, 4, 1, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for sampler in (tiny_pipelines.sd3().scheduler, UniPCMultistepScheduler.from_config(FLOW_UNIPC.config)):
        sampler.set_timesteps(10)
        begin_at(sampler, 4)
        sigma = float(sampler.sigmas[4])
        expected = sigma * noise + (1 - sigma) * latents
        torch.testing.assert_close(noisy(sampler, latents, noise), expected, rtol=0, atol=1e-6)
    for sampler in (DDIMScheduler(**BETAS), DPMSolverMultistepScheduler(**BETAS)):
        sampler.set_timesteps(10)
        begin_at(sampler, 4)
        product = float(sampler.alphas_cumprod[int(sampler.timesteps[0])])
        expected = product**0.5 * latents + (1 - product) ** 0.5 * noise
        torch.testing.assert_close(noisy(sampler, latents, noise), expected, rtol=0, atol=1e-5)
    for sampler in (EulerDiscreteScheduler(**BETAS), HeunDiscreteScheduler(**BETAS)):
        sampler.set_timesteps(10)
        begin_at(sampler, 4 * sampler.order)
        product = float(sampler.alphas_cumprod[int(sampler.timesteps[0])])
        expected = latents + ((1 - product) / product) ** 0.5 * noise
        torch.testing.assert_close(noisy(sampler, latents, noise), expected, rtol=1e-5, atol=1e-5)


def test_noise_is_one_stream_an_image() -> None:
    pair, alone = (drawn_noise(request_of(32, images=n, seed=3), (4, 1, 8, 8), torch.zeros(1)) for n in (2, 1))
    second = drawn_noise(request_of(32, seed=4), (4, 1, 8, 8), torch.zeros(1))
    assert torch.equal(pair, torch.cat([alone, second]))


def test_enlarging_a_picture_leaves_frames_and_flat_areas_as_they_are() -> None:
    pixels = torch.rand(2, 3, 5, 1, 1).expand(2, 3, 5, 8, 12)
    large = enlarged(pixels, (16, 36, 5))
    assert large.shape == (2, 3, 5, 16, 36)
    torch.testing.assert_close(large, pixels[..., :1, :1].expand_as(large))
    step = torch.zeros(1, 3, 1, 8, 8)
    step[..., 4:] = 1.0
    large = enlarged(step, (16, 16, 1))
    assert large.min() >= 0
    assert large.max() <= 1
    rows = torch.nn.functional.interpolate(step[:, :, 0], (16, 16), mode="bicubic").clamp(0, 1)
    torch.testing.assert_close(large[:, :, 0], rows)


class _Given:
    """A distribution of the autoencoder that is one value."""

    def __init__(self, value: Any) -> None:
        self.latent_dist = self
        self.mode = lambda: value


def _sdxl_with_means() -> Any:
    pipeline = tiny_pipelines.sdxl()
    pipeline.vae.register_to_config(latents_mean=[0.1, -0.2, 0.3, 0.4], latents_std=[1.5, 0.5, 2.0, 1.0])
    return pipeline


@pytest.mark.parametrize(
    ("build", "more"),
    [
        (tiny_pipelines.sdxl, {"images": 2}),
        (_sdxl_with_means, {}),
        (tiny_pipelines.sd3, {"images": 2}),
        (tiny_pipelines.flux, {}),
        (tiny_pipelines.pixart, {"size": (256, 256)}),
        (tiny_pipelines.wan, {"frames": 5}),
        (tiny_pipelines.cogvideox, {"frames": 9}),
        (tiny_pipelines.hunyuan_video, {"frames": 5}),
    ],
)
def test_encoding_undoes_what_the_pipeline_does_before_it_decodes(
    build: Callable[[], Any], more: dict[str, Any]
) -> None:
    pipeline = build()
    height, width = more.pop("size", (32, 32))
    request = request_of(height, width, steps=1, **more)
    final, decoder_sees = [], []
    step, decode = pipeline.scheduler.step, pipeline.vae.decode

    def stepped(*args: Any, **kwargs: Any) -> Any:
        result = step(*args, **kwargs)
        final.append(result[0])
        return result

    def seen(latents: Any, *args: Any, **kwargs: Any) -> Any:
        decoder_sees.append(latents)
        return decode(latents, *args, **kwargs)

    pipeline.scheduler.step, pipeline.vae.decode = stepped, seen
    with torch.no_grad():
        pipeline(**{**pipeline_arguments(pipeline, request), "output_type": "pt"})
    adapter = Adapter(pipeline)
    factor = adapter.factor
    wanted = adapter.unpack(final[-1], (height // factor, width // factor))
    given = iter(decoder_sees[-1].split(1))
    pipeline.vae.encode = lambda pixels: _Given(next(given))
    frames = 1 if wanted.shape[2] == 1 else request.frames
    torch.testing.assert_close(
        adapter.encoded(torch.zeros(request.images, 3, frames, height, width)), wanted, rtol=0, atol=1e-5
    )


def test_an_autoencoder_that_overflows_in_half_precision_encodes_in_single() -> None:
    pipeline = tiny_pipelines.sdxl()
    adapter, vae = Adapter(pipeline), pipeline.vae.to(torch.float16)
    pixels = torch.rand(1, 3, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        half = adapter.encoded(pixels)
        assert vae.dtype == torch.float16
        vae.to(torch.float32)
        assert torch.equal(half, adapter.encoded(pixels))
        assert half.dtype == torch.float32


def test_a_video_pipelines_pixels_are_clips_and_an_image_pipelines_are_pictures() -> None:
    assert as_pixels([torch.zeros(3, 8, 8)] * 2).shape == (2, 3, 1, 8, 8)
    assert as_pixels(torch.zeros(2, 3, 8, 8)).shape == (2, 3, 1, 8, 8)
    assert as_pixels(torch.zeros(2, 5, 3, 8, 8)).shape == (2, 3, 5, 8, 8)


def several() -> list[Request]:
    """Tiled requests of different sizes, guidance and steps, and one that is not tiled."""
    return [
        request_of(32),
        Request("b", 0.0, 32, 48, 3, seed=1, prompt="two dogs", images=2, guidance_scale=1.0),
        Request("c", 0.0, 32, 32, 4, seed=2, prompt="a bird"),
        Request("small", 0.0, 16, 16, 5, seed=3, prompt="a whale"),
    ]


@pytest.mark.parametrize(
    ("build", "batches"),
    [(tiny_pipelines.sdxl, (1, 4)), (lambda: tiny_pipelines.sdxl(heun=True), (4,))],
    ids=["euler", "heun"],
)
def test_requests_join_pause_and_share_forwards_and_come_out_as_alone(
    build: Callable[[], Any], batches: tuple[int, ...]
) -> None:
    a, b, c, small = several()
    sampler_order = build().scheduler.order
    rule = {"refine": 0.75, "overlap": 4}
    executor = executor_of(build(), (16, 16), rule)
    alone = {r.request_id: made_of(executor, r) for r in (a, b, c, small)}
    for batch in batches:
        executor = executor_of(build(), (16, 16), rule, caching=None, batch=batch)
        upscaled(executor, a)
        refine(executor, a, steps=1)  # a waits while the others come
        assert executor.execute("encode", [small, b]).failed is None
        assert executor.execute("denoise", [small], 2).failed is None
        assert executor.execute("sketch", [b], 3).failed is None
        upscaled(executor, c)
        assert executor.execute("denoise", [small], 1).failed is None
        answers = iter([False, True])
        outcome = executor.execute("refine", [a, c], 3, recalled=lambda answers=answers: next(answers))
        assert outcome.steps_done == 2  # a is done; c has one left
        assert outcome.computed == (2 + 2 if sampler_order == 1 else 3 + 4) * 4  # evaluations of four tiles
        assert executor.execute("upscale", [b]).failed is None
        assert executor.execute("refine", [b, c], 1).failed is None
        assert executor.execute("refine", [b], 1).failed is None
        assert executor.execute("denoise", [small], 2).failed is None
        pixels = decoded(executor, a, b, c, small)
        assert executor.resident == []
        for name, expected in alone.items():
            np.testing.assert_allclose(pixels[name], expected, atol=1e-5)
            if batch == 1:
                np.testing.assert_array_equal(pixels[name], expected)


def made_of(executor: Executor, request: Request) -> Any:
    if executor.recipe(request)[1][0] == "denoise":
        for stage, steps in executor.recipe(request)[:-1]:
            executor.execute(stage, [request], steps)
        return decoded(executor, request)[request.request_id]
    return made(executor, request)[request.request_id]


def test_windows_of_several_requests_share_a_forward() -> None:
    rows: list[int] = []
    pipeline = tiny_pipelines.sdxl()
    forward = pipeline.unet.forward

    def counted(sample: Any, *args: Any, **kwargs: Any) -> Any:
        rows.append(len(sample))
        return forward(sample, *args, **kwargs)

    pipeline.unet.forward = counted
    a, _, c, _ = several()
    executor = executor_of(pipeline, (16, 16), batch=6)
    upscaled(executor, a, c)
    rows.clear()
    assert executor.execute("refine", [a, c], 1).failed is None
    assert rows == [12, 4]  # two requests of four tiles, each with and without text


def test_a_failing_tile_takes_only_its_own_request() -> None:
    a, b, c, _ = several()
    pipeline = tiny_pipelines.sdxl()
    forward = pipeline.unet.forward
    poison: list[Any] = []

    def failing(sample: Any, *args: Any, **kwargs: Any) -> Any:
        if any(torch.allclose(row, bad, atol=1e-5) for row in sample for bad in poison):
            raise torch.OutOfMemoryError("tried to allocate too much")
        return forward(sample, *args, **kwargs)

    for batch in (1, 4):
        pipeline.unet.forward = failing
        executor = executor_of(pipeline, (16, 16), batch=batch)
        upscaled(executor, a, c)
        poison.append(first_tile(executor, "c"))
        outcome = executor.execute("refine", [a, c], 2)
        poison.clear()
        assert outcome.failed == {"c": "out of device memory: tried to allocate too much"}
        assert executor.resident == ["a"]
        upscaled(executor, b)  # nobody else has to begin anew
        assert executor.execute("refine", [a, b], 1).failed is None


def first_tile(executor: Any, request_id: str) -> Any:
    """The first row that the denoiser will see of a request's first tile."""
    run = executor._runs[request_id]
    tile = run.shape.grid.tiles(run.shape.shifts.at(0))[0]
    canvas = run.shape.grid.canvas
    latents = run.active.latents[0][..., tile.window.rows(canvas[0])[:, None], tile.window.columns(canvas[1])]
    return latents * run.active.input_scale()


def test_a_request_whose_size_its_pipeline_changes_fails_alone() -> None:
    a, _, c, _ = several()
    executor = executor_of(tiny_pipelines.sdxl(), (16, 16))
    upscaled(executor, a, c)
    adapter: Any = executor.tiles._adapter  # type: ignore[union-attr]
    cut = adapter.cut

    def refusing(call: Any, *args: Any) -> Any:
        if call.request_id == "c":
            raise ValueError("cannot cut this")
        return cut(call, *args)

    adapter.cut = refusing
    assert executor.execute("refine", [a, c], 2).failed == {"c": "ValueError: cannot cut this"}
    assert executor.execute("refine", [a], 1).failed is None


def test_numbers_that_are_not_finite_are_named() -> None:
    a, _, c, _ = several()
    executor = executor_of(tiny_pipelines.sdxl(), (16, 16))
    upscaled(executor, a, c)
    executor.latents("c")[0, 0, 3, 3] = float("nan")  # type: ignore[index]
    outcome = executor.execute("refine", [a, c], 1)
    assert outcome.failed == {"c": "not a number in the latents after refinement step 1"}
    assert executor.resident == ["a"]


def test_a_cancelled_request_frees_its_memory_at_once() -> None:
    a, _, c, _ = several()
    executor = executor_of(
        with_sampler(tiny_pipelines.sdxl, DPMSolverMultistepScheduler(**BETAS))(), (16, 16), caching=Threshold(0.1)
    )
    upscaled(executor, a, c)
    refine(executor, a, c, steps=2)
    run: Any = executor._runs["a"]
    latents, refinement = run.active.latents, run.refinement
    kept = [latents, refinement._held[0], refinement._then, *run.active.tensors((latents,))]
    assert len(kept) >= 4
    dead = [weakref.ref(tensor) for tensor in kept]
    gc.collect()
    gc.disable()
    try:
        del run, kept, latents, refinement
        executor.keep_only({"c"})
        assert [ref() for ref in dead] == [None] * len(dead)
    finally:
        gc.enable()
    assert executor.resident == ["c"]
    assert executor.execute("refine", [c], 1).failed is None


@pytest.mark.parametrize("caching", [FixedInterval(2, warmup=1), Threshold(9.0, warmup=1), RegionAware(9.0, warmup=1)])
def test_requests_of_one_cache_do_not_disturb_each_other(caching: Any) -> None:
    _, b, c, _ = several()
    rule = {"refine": 1.0}
    alone = made(executor_of(tiny_pipelines.sdxl(), (16, 16), rule, caching=caching), b, c)
    executor = executor_of(tiny_pipelines.sdxl(), (16, 16), rule, caching=caching)
    upscaled(executor, b, c)
    outcome = executor.execute("refine", [b, c], 3)
    assert outcome.failed is None
    assert outcome.reused > 0
    refine(executor, c, steps=1)
    pixels = decoded(executor, b, c)
    for name, expected in alone.items():
        np.testing.assert_array_equal(pixels[name], expected)


def test_a_sampler_that_draws_noise_draws_each_requests_own() -> None:
    build = with_sampler(tiny_pipelines.sdxl, EulerAncestralDiscreteScheduler(**BETAS))
    a, _, c, _ = several()
    alone = made(executor_of(build(), (16, 16)), a)["a"]
    executor = executor_of(build(), (16, 16))
    upscaled(executor, c, a)
    refine(executor, c, a)
    np.testing.assert_array_equal(decoded(executor, c, a)["a"], alone)
