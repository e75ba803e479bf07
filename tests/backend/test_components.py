"""Text encoders and decoders run once for the requests of a launch, and each request gets what it gets alone."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.utils._pytree import tree_leaves  # noqa: E402

from backend.alike import alike  # noqa: E402
from backend.components import Components  # noqa: E402
from backend.coroutine import DenoiserCall, pipeline_arguments  # noqa: E402
from backend.executor import Executor  # noqa: E402
from tests.backend import tiny_families, tiny_pipelines, tiny_stateful  # noqa: E402
from tests.backend.families import FAMILIES  # noqa: E402
from traces.request import Request  # noqa: E402

torch.set_num_threads(1)


def requests_of(count: int = 3, side: int = 16, **more: Any) -> list[Request]:
    prompts = ("a red cat", "a cat red", "red a cat")  # of as many tokens
    return [Request(f"r{i}", 0.0, side, side, 1, seed=i, prompt=prompts[i], **more) for i in range(count)]


def served(executor: Executor, requests: list[Request]) -> dict[str, np.ndarray[Any, Any]]:
    made: dict[str, np.ndarray[Any, Any]] = {}
    for stage in ("encode", "denoise", "decode"):
        outcome = executor.execute(stage, requests, deliver=lambda r, pixels: made.update({r.request_id: pixels}))
        assert outcome.failed is None
    return made


def counted(pipeline: Any) -> Counter[tuple[str, int]]:
    """How often each network is really run, and with how many rows; to be asked for before an executor is made."""
    seen: Counter[tuple[str, int]] = Counter()

    def watch(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            seen[name, len(next(x for x in (*args, *kwargs.values()) if isinstance(x, torch.Tensor)))] += 1
            return function(*args, **kwargs)

        return run

    pipeline.text_encoder.forward = watch("text", pipeline.text_encoder.forward)
    pipeline.vae.decoder.forward = watch("decoder", pipeline.vae.decoder.forward)
    return seen


@pytest.mark.parametrize(
    ("build", "more"),
    [
        (tiny_pipelines.sdxl, {}),
        (tiny_stateful.stable_diffusion, {}),  # whose decoder is given the request's generator
        (tiny_pipelines.flux, {}),
        (tiny_families.qwen_image, {}),  # whose text encoder would keep its keys
        (tiny_pipelines.wan, {"frames": 5}),
    ],
)
def test_a_launch_encodes_and_decodes_once(build: Callable[[], Any], more: dict[str, Any]) -> None:
    requests, pipeline = requests_of(**more), build().to(torch.float64)
    with torch.no_grad():
        alone = [pipeline(**pipeline_arguments(pipeline, request)) for request in requests]
    expected = [made(output) for output in alone]
    seen = counted(pipeline)
    executor = Executor(pipeline)
    for _ in range(2):  # the first time, forms are checked
        seen.clear()
        pixels = served(executor, requests)
        for request, picture in zip(requests, expected, strict=True):
            np.testing.assert_allclose(pixels[request.request_id], picture, rtol=0, atol=1e-6)
    rows = {name: [count for which, count in seen.elements() if which == name] for name in ("text", "decoder")}
    assert set(rows["text"]) == {3}
    assert set(rows["decoder"]) == {3}


def made(output: Any) -> np.ndarray[Any, Any]:
    return np.asarray(output.images if hasattr(output, "images") else output.frames)


def calls_of(name: str, count: int, *shape: int, **more: Any) -> list[DenoiserCall]:
    random = torch.Generator().manual_seed(1)
    numbers = torch.randn(count, 1, *shape, generator=random, dtype=torch.float64)
    return [DenoiserCall((number,), {"return_dict": False, **more}, denoiser=name) for number in numbers]


def test_what_is_decoded_at_once_is_what_each_is_alone_to_1e_12() -> None:
    vae = tiny_pipelines.sdxl().to(torch.float64).vae
    rows: list[int] = []
    functions = {"vae": lambda z, **more: rows.append(len(z)) or vae.decode(z, **more)}
    pipeline = tiny_pipelines.sdxl()
    calls = calls_of("vae", 5, 4, 8, 8, generator=torch.Generator())
    picture = vae.decode(calls[0].args[0]).sample.numel()
    components = Components(pipeline, functions, at_once=2 * picture)
    alone = [vae.decode(call.args[0]).sample for call in calls]
    for expected_rows in ([1] * 5 + [2], [2, 2, 1]):  # checked, then trusted, no more at once than there is room for
        rows.clear()
        for (given,), picture_alone in zip(components.run(calls), alone, strict=True):
            assert (given - picture_alone).abs().max() <= 1e-12
        assert rows == expected_rows
    assert len({components.key(call) for call in [*calls, *calls_of("vae", 2, 4, 8, 6)]}) == 2
    two = Components(pipeline, functions, at_once=picture)  # there is room for one
    rows.clear()
    assert len(two.run(calls)) == len(two.run(calls)) == 5
    assert set(rows) == {1}


def test_a_network_that_mixes_rows_is_found_out() -> None:
    pipeline = tiny_pipelines.sdxl()
    calls = calls_of("text_encoder", 3, 4)
    components = Components(pipeline, {"text_encoder": lambda x, **_: (x - x.mean(0, keepdim=True),)})
    for _ in range(2):
        for (given,) in components.run(calls):
            assert not given.any()  # alone, a row is its mean


def test_a_pipeline_that_changes_its_decoder_for_a_call_has_it_to_itself() -> None:
    """SDXL's, in half precision: each request would find the others' format, and fail."""
    pipeline = tiny_pipelines.sdxl().to(torch.float16)
    pipeline.vae.register_to_config(force_upcast=True)
    formats: set[torch.dtype] = set()
    forward = pipeline.vae.decoder.forward
    pipeline.vae.decoder.forward = lambda z, *more: formats.add(z.dtype) or forward(z, *more)
    served(Executor(pipeline), requests_of(2))
    assert formats == {torch.float32}
    assert pipeline.vae.dtype == torch.float16


def test_one_that_is_no_picture_fails_alone() -> None:
    executor, requests = Executor(tiny_pipelines.sdxl()), requests_of(3)
    served(executor, requests)
    executor.execute("encode", requests)
    executor.execute("denoise", requests)
    latents = executor.latents("r1")
    assert latents is not None
    latents[:] = float("nan")
    made: list[str] = []
    outcome = executor.execute("decode", requests, deliver=lambda request, _: made.append(request.request_id))
    assert outcome.failed == {"r1": "FloatingPointError: not a number in the decoded picture"}
    assert made == ["r0", "r2"]
    assert executor.resident == []


def test_one_that_there_is_no_memory_for_fails_alone() -> None:
    pipeline = tiny_pipelines.sdxl()
    encode = pipeline.text_encoder.forward
    words = pipeline.tokenizer("a cat red", padding="max_length", max_length=24).input_ids

    def failing(ids: torch.Tensor, **more: Any) -> Any:
        if words in ids.tolist():
            raise torch.OutOfMemoryError("tried to allocate too much")
        return encode(ids, **more)

    pipeline.text_encoder.forward = failing
    executor = Executor(pipeline)
    outcome = executor.execute("encode", requests_of(3))
    assert outcome.failed == {"r1": "out of device memory: tried to allocate too much"}
    assert executor.resident == ["r0", "r2"]


def test_texts_that_are_made_token_by_token_do_not_come_between_each_other() -> None:
    """GLM-Image's encoder keeps in itself where it is in a text."""
    made = FAMILIES["GLM-Image"].pipeline
    requests = [replace(request, steps=1) for request in FAMILIES["GLM-Image"].requests(made())[:2]]
    alone = {}
    for request in requests:
        alone |= first_calls(Executor(made()), [request])
    together = first_calls(Executor(made()), requests)
    assert all(alike(together[name], alone[name]) for name in alone)


def first_calls(executor: Executor, requests: list[Request]) -> dict[str, Any]:
    """The tensors of what requests ask their denoiser first."""
    assert executor.execute("encode", requests).failed is None
    runs = {name: executor._active(name) for name in executor.resident}
    asked = {name: tree_leaves(run.pending.kwargs) for name, run in runs.items() if run.pending is not None}
    return {name: [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)] for name, leaves in asked.items()}
