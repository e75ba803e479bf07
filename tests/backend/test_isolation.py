"""Requests of one pipeline do not touch each other, whatever the pipeline keeps while it runs."""

from __future__ import annotations

import copy
import gc
import threading
import types
import weakref
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from diffusers import FirstBlockCacheConfig  # noqa: E402
from diffusers.guiders import SkipLayerGuidance  # noqa: E402
from greenlet import greenlet  # noqa: E402
from PIL import Image  # noqa: E402

from backend import executor as executing  # noqa: E402
from backend.coroutine import DenoiserCall, Finished, RequestRun, intercept_denoisers, pipeline_arguments  # noqa: E402
from backend.executor import Executor  # noqa: E402
from backend.inputs import Start  # noqa: E402
from backend.isolation import Changes, own_pipeline  # noqa: E402
from tests.backend import tiny_image_to_video, tiny_pipelines, tiny_stateful, tiny_unets  # noqa: E402
from traces.errors import BadInput  # noqa: E402
from traces.request import Request  # noqa: E402

torch.set_num_threads(1)
PICTURE = {"image": Image.fromarray(np.arange(32 * 48 * 3, dtype=np.uint8).reshape(32, 48, 3))}
SHORT = {"max_sequence_length": 24}
EMBEDDED = {
    "prompt": None,
    "prompt_embeds": torch.ones(1, 4, 16, dtype=torch.float64),
    "pooled_prompt_embeds": torch.ones(1, 16, dtype=torch.float64),
    "prompt_attention_mask": torch.ones(1, 4),
}


class Case(NamedTuple):
    """A pipeline, the side of its smaller request in pixels, frames, and arguments that a request cannot give."""

    build: Callable[[], Any]
    side: int = 16
    frames: int = 1
    arguments: Mapping[str, Any] = {}


CASES = {
    "sd15-checked": Case(lambda: tiny_stateful.stable_diffusion(checked=True)),
    "sd15-image-to-image": Case(tiny_stateful.image_to_image, arguments={**PICTURE, "strength": 1.0}),
    "sd15-unet": Case(tiny_unets.sd15),
    "sdxl": Case(tiny_pipelines.sdxl),
    "sdxl-heun": Case(lambda: tiny_pipelines.sdxl(heun=True)),
    "sd3": Case(tiny_pipelines.sd3, arguments=SHORT),
    "flux": Case(tiny_pipelines.flux, arguments=SHORT),
    "pixart": Case(tiny_pipelines.pixart, 16, arguments={**SHORT, "use_resolution_binning": False}),
    "hunyuan-image": Case(tiny_stateful.hunyuan_image),
    "wan-2.2-5b": Case(lambda: tiny_pipelines.wan(expand_timesteps=True), 32, 5, SHORT),
    "wan-2.2-14b": Case(tiny_stateful.wan_of_two, 16, 5, SHORT),
    "cogvideox-1.5": Case(tiny_image_to_video.cogvideox15, 16, 9, SHORT),
    "hunyuan-video": Case(tiny_pipelines.hunyuan_video, frames=5),
    "ltx2": Case(tiny_stateful.ltx2, 32, 5, SHORT),
    "wan-i2v": Case(tiny_image_to_video.wan_image_to_video, 16, 5, {**PICTURE, **SHORT}),
    "cogvideox-i2v": Case(tiny_image_to_video.cogvideox_image_to_video, 16, 9, {**PICTURE, **SHORT}),
    "hunyuan-video-i2v": Case(
        lambda: tiny_image_to_video.hunyuan_video_image_to_video("latent_concat"), 16, 5, {**PICTURE, **EMBEDDED}
    ),
}


def requests_of(case: Case) -> list[Request]:
    """Two: with other prompts, seeds, steps, guidance and sizes."""
    side, frames = case.side, case.frames
    return [
        Request("a", 0.0, side, side, steps=3, frames=frames, seed=1, prompt="a cat", guidance_scale=4.0),
        Request("b", 0.0, side, 2 * side, steps=2, frames=frames, seed=2, prompt="two red dogs", guidance_scale=2.0),
    ]


def alone(pipeline: Any, request: Request, arguments: Mapping[str, Any]) -> np.ndarray[Any, Any]:
    """What the stock pipeline makes of a request."""
    with torch.no_grad():
        output = pipeline(**{**pipeline_arguments(pipeline, request), **arguments})
    return np.asarray(output.images if hasattr(output, "images") else output.frames)


@torch.no_grad()
def by_turns(pipeline: Any, requests: list[Request], arguments: Mapping[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """What requests make when each goes on to its next stop in turn."""
    forwards = intercept_denoisers(pipeline)
    runs = [RequestRun(pipeline, request, arguments) for request in requests]
    made: dict[str, np.ndarray[Any, Any]] = {}
    while len(made) < len(runs):
        for run in runs:
            if run.request.request_id in made:
                continue
            call = run.pending
            stop = run.resume(None if call is None else forwards[call.denoiser](*call.args, **call.kwargs))
            if isinstance(stop, Finished):
                made[run.request.request_id] = np.asarray(stop.output)
                run.close()
    return made


@torch.no_grad()
def batched(executor: Executor, requests: list[Request]) -> dict[str, np.ndarray[Any, Any]]:
    """What an executor makes of requests, a step of all of them a launch; the second joins after the first's first."""
    made: dict[str, np.ndarray[Any, Any]] = {}
    first, second = requests
    launches = [("encode", [first]), ("denoise", [first]), ("encode", [second])]
    launches += [("denoise", requests)] * second.steps + [("decode", requests)]
    for stage, together in launches:
        outcome = executor.execute(stage, together, deliver=lambda r, pixels: made.update({r.request_id: pixels}))
        assert outcome.failed is None, outcome.failed
    return made


@pytest.mark.parametrize("name", CASES)
def test_requests_together_are_what_each_is_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES[name]
    pipeline = case.build().to(torch.float64)
    monkeypatch.setattr(executing, "start_of", lambda *_: Start(dict(case.arguments), None))
    turns = by_turns(copy.deepcopy(pipeline), requests_of(case), case.arguments)
    made = batched(Executor(copy.deepcopy(pipeline)), requests_of(case))
    for request in requests_of(case):
        expected = alone(copy.deepcopy(pipeline), request, case.arguments)
        np.testing.assert_array_equal(turns[request.request_id], expected)
        np.testing.assert_allclose(made[request.request_id], expected, rtol=0, atol=1e-9)


def test_whatever_is_no_module_is_a_request_s_own() -> None:
    pipeline = tiny_stateful.hunyuan_image()
    pipeline.notes = [{"seen": [pipeline.guider]}, pipeline.transformer]
    own, before = own_pipeline(pipeline), pipeline.guider.momentum_buffer
    own.guider.momentum_buffer = own._guidance_scale = 1.0
    own.notes[0]["seen"].append("a cat")
    assert pipeline.guider.momentum_buffer is before
    assert not hasattr(pipeline, "_guidance_scale")
    assert len(pipeline.notes[0]["seen"]) == 1
    assert own.notes[0]["seen"][0] is own.guider
    assert own.notes[1] is own.transformer is pipeline.transformer
    assert own.tokenizer is pipeline.tokenizer


def test_what_cannot_be_copied_is_named() -> None:
    pipeline = tiny_pipelines.sdxl()
    pipeline.lock = threading.Lock()
    with pytest.raises(BadInput, match=r"StableDiffusionXLPipeline.lock cannot be copied .* requests would share it"):
        own_pipeline(pipeline)


@torch.no_grad()
def test_a_request_is_freed_when_it_is_given_up() -> None:
    pipeline = tiny_stateful.hunyuan_image()
    intercept_denoisers(pipeline)
    run = RequestRun(pipeline, requests_of(CASES["hunyuan-image"])[0])
    call = run.resume()
    assert isinstance(call, DenoiserCall)
    held = [weakref.ref(x) for x in (run, run._own, run._own.guider, run._sampler, call.kwargs["hidden_states"])]
    gc.collect()
    gc.disable()
    try:
        run.close()
        del run, call
        assert [ref() for ref in held] == [None] * len(held)
    finally:
        gc.enable()


def test_a_denoiser_that_remembers_its_last_call_is_refused() -> None:
    cached = tiny_pipelines.flux()
    cached.transformer.enable_cache(FirstBlockCacheConfig())
    with pytest.raises(BadInput, match=r"FluxTransformer2DModel has a \w+, which keeps what the last call left"):
        Executor(cached)


def test_a_guider_that_changes_the_denoiser_is_refused() -> None:
    pipeline = tiny_stateful.hunyuan_image()
    pipeline.guider = SkipLayerGuidance(skip_layer_guidance_layers=[0])
    with pytest.raises(BadInput, match="guider is a SkipLayerGuidance, which changes the denoiser for single calls"):
        Executor(pipeline)


def test_a_pipeline_that_changes_the_denoiser_fails_every_request_alike() -> None:
    executor = Executor(tiny_stateful.perturbed())
    for request in requests_of(CASES["sd15-checked"]):
        outcome = executor.execute("encode", [request])
        assert outcome.failed is not None
        assert "its pipeline changes mid_block" in outcome.failed[request.request_id]


def test_an_exchange_is_seen_even_where_the_new_part_lies_where_the_old_one_lay() -> None:
    """The first processor is gone when the second is made, which may then have its address."""
    module = torch.nn.Identity()
    for _ in range(50):
        vars(module)["processor"] = first = types.SimpleNamespace()
        changes = Changes(module)
        del first
        vars(module)["processor"] = None
        vars(module)["processor"] = types.SimpleNamespace()
        with pytest.raises(BadInput, match="changes the denoiser"):
            changes.check()


@torch.no_grad()
def test_a_launch_goes_on_after_it_gave_up_a_request_that_another_launch_ran() -> None:
    pipeline = tiny_stateful.hunyuan_image()
    intercept_denoisers(pipeline)
    run = RequestRun(pipeline, requests_of(CASES["hunyuan-image"])[0])
    heard: list[str] = []

    def begins() -> str:
        run.resume()
        return "begun"

    def gives_up() -> str:
        run.close()
        heard.append("given up")
        return "ended"

    assert greenlet(begins).switch() == "begun"
    assert greenlet(gives_up).switch() == "ended"
    assert heard == ["given up"]
