"""Batched, step-level execution against the stock pipeline run alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from diffusers import EulerAncestralDiscreteScheduler  # noqa: E402

from backend.coroutine import DenoiserCall, pipeline_arguments  # noqa: E402
from backend.executor import Executor  # noqa: E402
from backend.merge import merge  # noqa: E402
from backend.prompts import CutPrompts  # noqa: E402
from policies.caching import Threshold  # noqa: E402
from tests.backend import tiny_families, tiny_pipelines, tiny_stateful  # noqa: E402
from tests.backend.mixed import largest_difference, latents_alone, latents_together  # noqa: E402
from traces.errors import BadInput  # noqa: E402
from traces.request import Request  # noqa: E402

torch.set_num_threads(1)


def stock(pipeline: Any, request: Request) -> np.ndarray:
    with torch.no_grad():
        output = pipeline(**pipeline_arguments(pipeline, request))
    return np.asarray(getattr(output, "images", None) if hasattr(output, "images") else output.frames)


def with_noise(pipeline: Any) -> Any:
    """The pipeline with a sampler that draws noise at each step."""
    pipeline.scheduler = EulerAncestralDiscreteScheduler.from_config(pipeline.scheduler.config)
    return pipeline


def requests_of(side: int, **common: Any) -> list[Request]:
    """Different prompts, seeds, steps, guidance and numbers of images; one of another size."""
    return [
        Request("a", 0.0, side, side, steps=3, seed=1, prompt="a cat", **common),
        Request("b", 0.0, side, side, steps=3, seed=2, prompt="two dogs", images=2, guidance_scale=3.0, **common),
        Request("c", 0.0, side, side, steps=2, seed=3, prompt="a bird", guidance_scale=1.0, **common),
        Request("d", 0.0, side, 2 * side, steps=2, seed=4, prompt="a whale", **common),
    ]


def run_joining_and_leaving(executor: Executor, requests: list[Request]) -> dict[str, np.ndarray]:
    """Denoise one step a launch; a request joins at each of the first steps, and leaves when it is done."""
    pixels: dict[str, np.ndarray] = {}
    left = {r.request_id: r.steps for r in requests}
    joined: list[Request] = []
    arriving = list(requests)
    while any(left.values()):
        if arriving:
            joined.append(arriving.pop(0))
            outcome = executor.execute("encode", [joined[-1]])
            assert outcome.failed is None
        active = [r for r in joined if left[r.request_id]]
        outcome = executor.execute("denoise", active, 1)
        assert outcome.failed is None
        assert outcome.steps_done == 1
        for request in active:
            left[request.request_id] -= 1
    executor.execute("decode", requests, deliver=lambda r, image: pixels.update({r.request_id: image}))
    return pixels


@pytest.mark.parametrize(
    ("build", "side", "common"),
    [
        (tiny_pipelines.sdxl, 16, {}),
        (lambda: tiny_pipelines.sdxl(heun=True), 16, {}),
        (lambda: with_noise(tiny_pipelines.sdxl()), 16, {}),
        (tiny_pipelines.flux, 16, {}),
        (tiny_pipelines.wan, 16, {"frames": 5}),
    ],
    ids=["sdxl", "sdxl-heun", "sdxl-ancestral", "flux", "wan"],
)
def test_equals_the_stock_pipeline_run_alone(build: Any, side: int, common: dict[str, Any]) -> None:
    requests = requests_of(side, **common)
    alone = {r.request_id: stock(build(), r) for r in requests}
    executor = Executor(build())
    together = run_joining_and_leaving(executor, requests)
    for name, expected in alone.items():
        assert together[name].shape == expected.shape
        np.testing.assert_allclose(together[name], expected, atol=1e-5)
    assert executor.resident == []


def watched(look: Callable[[torch.Tensor], None]) -> Any:
    """A pipeline whose denoiser shows its sample before every forward that is really run."""
    pipeline = tiny_pipelines.sdxl()
    forward = pipeline.unet.forward

    def looking(sample: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        look(sample)
        return forward(sample, *args, **kwargs)

    pipeline.unet.forward = looking
    return pipeline


def test_equal_sizes_share_a_forward_at_different_steps() -> None:
    rows: list[int] = []
    executor = Executor(watched(lambda sample: rows.append(sample.shape[0])))
    first, second, _, wide = requests_of(16)
    executor.execute("encode", [first])
    executor.execute("denoise", [first], 1)
    executor.execute("encode", [second, wide])
    rows.clear()
    executor.execute("denoise", [first, second, wide], 1)
    assert sorted(rows) == [2, 6]  # the wide one alone; one image and two images, each with and without text


def test_a_model_that_takes_lists_is_stacked_too() -> None:
    """Z-Image, whose texts may differ in length; a list that is not of rows (residuals of a ControlNet) is shared."""
    pipeline = tiny_families.z_image().to(torch.float64)
    requests = [
        Request("a", 0.0, 16, 8, steps=3, seed=1, prompt="a cat"),
        Request("b", 0.0, 16, 8, steps=3, seed=2, prompt="two small dogs and a bird by the sea", images=2),
        Request("c", 0.0, 16, 8, steps=2, seed=3, prompt="x"),
    ]
    alone = {r.request_id: latents_alone(pipeline, r) for r in requests}
    seen: list[int] = []
    forward = pipeline.transformer.forward
    pipeline.transformer.forward = lambda x, *args, **kwargs: seen.append(len(x)) or forward(x, *args, **kwargs)
    together = latents_together(Executor(pipeline), requests)
    assert largest_difference(alone, together) <= 1e-12
    assert max(seen) == 2 + 4 + 2
    residuals = [torch.ones(1, 4), torch.zeros(1, 4)]
    plain = DenoiserCall((torch.ones(2, 4, 8),), {"controlnet_block_samples": residuals})
    assert merge([plain, plain]).kwargs["controlnet_block_samples"][0].shape == (1, 4)


def test_float64_is_exact() -> None:
    request = requests_of(16)[0]
    other = Request("x", 0.0, 16, 16, steps=4, seed=9, prompt="x")
    expected = stock(tiny_pipelines.sdxl().to(torch.float64), request)
    executor = Executor(tiny_pipelines.sdxl().to(torch.float64))
    together = run_joining_and_leaving(executor, [other, request])
    np.testing.assert_allclose(together["a"], expected, atol=1e-12)


def test_a_recalled_launch_ends_at_the_next_boundary() -> None:
    executor = Executor(tiny_pipelines.sdxl())
    request = requests_of(16)[1]
    executor.execute("encode", [request])
    answers = iter([False, True])
    assert executor.execute("denoise", [request], 3, recalled=lambda: next(answers)).steps_done == 2
    assert executor.execute("denoise", [request], 1).steps_done == 1


def test_a_stage_that_no_executor_knows_is_an_error() -> None:
    executor = Executor(tiny_pipelines.sdxl())
    request = requests_of(16)[0]
    executor.execute("encode", [request])
    with pytest.raises(ValueError, match="no executor knows a stage 'bake'"):
        executor.execute("bake", [request])


def test_a_bad_request_fails_alone() -> None:
    executor = Executor(tiny_pipelines.sdxl())
    good = requests_of(16)[0]
    bad = Request("bad", 0.0, 17, 16, steps=3)
    outcome = executor.execute("encode", [good, bad])
    assert outcome.failed is not None
    assert list(outcome.failed) == ["bad"]
    assert "divisible" in outcome.failed["bad"]
    assert executor.resident == ["a"]


def test_numbers_that_are_not_finite_fail_alone() -> None:
    executor = Executor(tiny_pipelines.sdxl())
    first, second = requests_of(16)[:2]
    executor.execute("encode", [first, second])
    sample = executor._runs["b"].pending.args[0]  # type: ignore[union-attr]
    sample[:] = float("nan")
    outcome = executor.execute("denoise", [first, second], 1)
    assert outcome.failed is not None
    assert set(outcome.failed) == {"b"}
    assert "not a number" in outcome.failed["b"]


def test_a_failing_forward_takes_only_its_own_request() -> None:
    poison: list[torch.Tensor] = []

    def fail_on_poison(sample: torch.Tensor) -> None:
        if any(torch.equal(rows, poison[0]) for rows in sample.split(2)):
            raise torch.OutOfMemoryError("tried to allocate too much")

    executor = Executor(watched(fail_on_poison))
    first, second = requests_of(16)[0], Request("b", 0.0, 16, 16, steps=3, seed=2, prompt="zzz")
    executor.execute("encode", [first, second])
    poison.append(executor._runs["b"].pending.args[0].clone())  # type: ignore[union-attr]
    outcome = executor.execute("denoise", [first, second], 1)
    assert outcome.failed == {"b": "out of device memory: tried to allocate too much"}
    assert executor.execute("denoise", [first], 2).failed is None


def test_dropped_requests_are_freed() -> None:
    executor = Executor(tiny_pipelines.sdxl())
    first, second = requests_of(16)[:2]
    executor.execute("encode", [first, second])
    executor.execute("denoise", [first, second], 1)
    executor.keep_only({"b"})
    assert executor.resident == ["b"]


def test_a_prompt_that_is_cut_is_said_and_by_whom() -> None:
    """SDXL's tokenizers read 24 tokens, two of them not of the text; Flux's T5 reads as many as its pipeline says."""
    fits, cut = (Request(name, 0.0, 16, 16, steps=1, prompt="a" * n) for name, n in (("fits", 22), ("cut", 23)))
    outcome = Executor(tiny_pipelines.sdxl()).execute("encode", [fits, cut])
    note = "the prompt was longer than the text encoder reads and was cut"
    assert outcome.notes == {"cut": f"{note} (tokenizer: 24 tokens, tokenizer_2: 24 tokens)"}
    assert Executor(tiny_pipelines.flux()).execute("encode", [fits, cut]).notes == {
        "cut": f"{note} (tokenizer: 24 tokens)"
    }
    clip = Request("clip", 0.0, 16, 16, steps=1, prompt="a" * 600, frames=5)
    assert Executor(tiny_pipelines.wan()).execute("encode", [clip]).notes == {"clip": f"{note} (tokenizer: 31 tokens)"}


def test_a_tokenizer_that_looks_on_answers_as_before() -> None:
    pipeline = tiny_pipelines.sdxl()
    cut = CutPrompts(pipeline)
    watched = cut.watch(pipeline.tokenizer)
    assert isinstance(watched, type(pipeline.tokenizer))
    for given in ({"truncation": True, "max_length": 5, "padding": "max_length"}, {"padding": "longest"}, {}):
        texts = ["a cat", "two", "whales"]
        assert watched(texts, **given) == pipeline.tokenizer(texts, **given)
    assert cut.limits == {"tokenizer": 5}


@pytest.mark.parametrize("images", [1, 2])
def test_a_picture_that_is_blacked_out_is_said(images: int) -> None:
    request = Request("a", 0.0, 16, 16, steps=1, images=images)
    executor = Executor(tiny_stateful.stable_diffusion(checked=True))
    shown: list[np.ndarray[Any, Any]] = []
    executor.execute("encode", [request])
    executor.execute("denoise", [request])
    outcome = executor.execute("decode", [request], deliver=lambda _, pixels: shown.append(pixels))
    assert not shown[0].any()
    which = "the picture was" if images == 1 else "2 of 2 pictures were"
    assert outcome.notes == {"a": f"{which} blacked out by the safety checker"}


@pytest.mark.parametrize(
    ("build", "request_", "note"),
    [
        (tiny_pipelines.wan, Request("a", 0.0, 16, 16, 1, frames=7), "the pipeline made 16x16x5, not 16x16x7 as asked"),
        (tiny_stateful.hunyuan_image, Request("a", 0.0, 18, 16, 1), "the pipeline made 16x16, not 18x16 as asked"),
    ],
)
def test_a_size_that_the_pipeline_rounds_is_said(build: Any, request_: Request, note: str) -> None:
    executor = Executor(build())
    for stage in ("encode", "denoise", "decode"):
        outcome = executor.execute(stage, [request_])
    assert outcome.failed is None
    assert outcome.notes == {"a": note}


@pytest.mark.parametrize("mode", ["whole", "packed"])
def test_both_denoisers_are_batched(mode: str) -> None:
    """Wan 2.2: requests on both sides of the boundary run side by side, each half with its own."""
    pipeline = tiny_stateful.wan_of_two().to(torch.float64)
    sizes = [(32, 16, 5), (32, 16, 5), (32, 16, 5)] if mode == "whole" else [(32, 16, 5), (16, 16, 9), (32, 32, 5)]
    requests = [
        Request(name, 0.0, width, height, steps=6, seed=seed, frames=frames, prompt=name * 5)
        for seed, (name, (width, height, frames)) in enumerate(zip("abc", sizes, strict=True))
    ]
    forwards: dict[str, list[int]] = {"transformer": [], "transformer_2": []}
    for name, seen in forwards.items():
        first = next(iter(getattr(pipeline, name).blocks))
        first.ffn.register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args[0].shape[0]))
    alone = {r.request_id: latents_alone(pipeline, r) for r in requests}
    one_by_one = {name: len(seen) for name, seen in forwards.items()}
    executor = Executor(pipeline, mode)
    first, second, late = requests
    executor.execute("encode", [first, second])
    executor.execute("denoise", [first, second], 3)
    executor.execute("encode", [late])
    executor.execute("denoise", requests, 3)
    executor.execute("denoise", [late], 3)
    together = {r.request_id: executor.latents(r.request_id) for r in requests}
    assert largest_difference(alone, together) <= 1e-12
    for name, seen in forwards.items():
        assert 0 < len(seen) - one_by_one[name] < one_by_one[name]
    assert executor.notes == []


def test_no_cache_for_two_denoisers() -> None:
    with pytest.raises(BadInput, match="WanPipeline has transformer_2 too"):
        Executor(tiny_stateful.wan_of_two(), "packed", Threshold(0.1))
