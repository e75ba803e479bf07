"""Edits: each request in a mix is what the stock pipeline makes of it and its pictures alone, and costs its tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from diffusers.pipelines.flux.pipeline_flux_kontext import PREFERRED_KONTEXT_RESOLUTIONS  # noqa: E402
from diffusers.pipelines.flux2.image_processor import Flux2ImageProcessor  # noqa: E402
from diffusers.pipelines.qwenimage.pipeline_qwenimage_edit import calculate_dimensions  # noqa: E402
from PIL import Image  # noqa: E402

from backend.coroutine import pipeline_arguments  # noqa: E402
from backend.executor import Executor  # noqa: E402
from backend.loading import denoiser_name, geometry_of_pipeline  # noqa: E402
from tests.backend import tiny_families, tiny_pipelines  # noqa: E402
from tests.backend.mixed import largest_difference, latents_together  # noqa: E402
from traces import references  # noqa: E402
from traces.errors import BadInput  # noqa: E402
from traces.references import REFERENCES, pictures_of, sides_in  # noqa: E402
from traces.request import Request  # noqa: E402
from traces.trace import Trace  # noqa: E402

torch.set_num_threads(1)
MADE = {
    "kontext": tiny_pipelines.kontext,
    "qwen-image-edit": tiny_families.qwen_image_edit,
    "flux.2 klein": tiny_families.flux2_klein,
}
SIDE = 32
"""Of what the tiny Qwen-Image-Edit makes of the pictures that it is shown, instead of a megapixel."""


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two pictures, and references as small as those of the tiny pipelines."""
    monkeypatch.setattr(references, "_KONTEXT_SIDES", tiny_pipelines.KONTEXT_SIDES)
    monkeypatch.setattr(references, "_QWEN_AREA", SIDE * SIDE)
    rng = np.random.default_rng(0)
    for name, (width, height) in {"wide": (96, 64), "square": (64, 64)}.items():
        Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(tmp_path / f"{name}.png")
    return tmp_path


def made(name: str) -> Any:
    torch.manual_seed(0)
    return MADE[name]().to(torch.float64)


def served(pipeline: Any, requests: list[Request], folder: Path) -> list[Request]:
    """What a scenario would make of them."""
    reference, geometry = REFERENCES[type(pipeline).__name__], geometry_of_pipeline(pipeline, "mine")
    trace = Trace.from_requests(requests).with_references(reference, geometry.size_multiple, sides_in(folder))
    return trace.guided_as(geometry)[0].requests()


def latents_alone(pipeline: Any, request: Request, folder: Path) -> torch.Tensor:
    """What the sampler of the stock pipeline gives last."""
    shown = [Image.open(folder / name) for name in pictures_of(request.image)]
    more = {"image": shown if len(shown) > 1 else shown[0]} if shown else {}
    latents: list[torch.Tensor] = []
    pipeline.scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config)
    step = pipeline.scheduler.step
    pipeline.scheduler.step = lambda *args, **kwargs: (latents.append(step(*args, **kwargs)[0]) or latents[-1],)
    with torch.no_grad():
        pipeline(**{**pipeline_arguments(pipeline, request), "output_type": "latent"}, **more)
    return latents[-1]


def asked(several: bool, needed: bool, multiple: int) -> list[Request]:
    one = Request("one", 0.0, 2 * multiple, 2 * multiple, 2, prompt="a cat", image="wide.png", true_cfg_scale=1.0)
    return [
        one,
        Request("other", 0.0, 2 * multiple, 3 * multiple, 3, prompt="two dogs", image="square.png", seed=3),
        Request(
            "negative", 0.0, 2 * multiple, multiple, 2, image="wide.png", negative_prompt="red", true_cfg_scale=3.0
        ),
        *([Request("two", 0.0, multiple, multiple, 2, prompt="dog", image="wide.png;square.png")] if several else []),
        *([] if needed else [Request("none", 0.0, 2 * multiple, 2 * multiple, 3, prompt="a cat")]),
    ]


@pytest.mark.parametrize("name", MADE)
def test_a_mix_of_edits_is_each_alone_and_of_as_many_tokens_as_are_predicted(name: str, pictures: Path) -> None:
    pipeline, stock = made(name), made(name)
    reference, geometry = REFERENCES[type(pipeline).__name__], geometry_of_pipeline(pipeline, "mine")
    requests = served(pipeline, asked(reference.several, reference.needed, geometry.size_multiple), pictures)
    seen: list[int] = []
    getattr(stock, denoiser_name(stock)).register_forward_pre_hook(
        lambda module, args, given: seen.append(given["hidden_states"].shape[1]), with_kwargs=True
    )
    alone = {}
    for request in requests:
        seen.clear()
        alone[request.request_id] = latents_alone(stock, request, pictures)
        assert seen == [geometry.tokens(request.shape)] * (request.steps * (1 + request.guided)), request
    executor = Executor(pipeline, "packed", images=pictures)
    for request in requests:
        executor.check(request)
    together = latents_together(executor, requests, pause="other")
    assert largest_difference(alone, together) <= 1e-12


def test_the_pictures_are_resized_as_diffusers_does() -> None:
    for height, width in ((512, 512), (1000, 3000), (1536, 640), (64, 96), (2000, 1999), (1024, 1024)):
        expected_width, expected_height, _ = calculate_dimensions(1024 * 1024, width / height)
        for name in ("QwenImageEditPipeline", "QwenImageEditPlusPipeline"):
            assert REFERENCES[name].resized((height, width)) == (expected_height, expected_width)
        _, w, h = min((abs(width / height - w / h), w, h) for w, h in PREFERRED_KONTEXT_RESOLUTIONS)
        assert REFERENCES["FluxKontextPipeline"].resized((height, width)) == (h, w)
        picture = Flux2ImageProcessor._resize_if_exceeds_area(Image.new("L", (width, height)))
        assert REFERENCES["Flux2Pipeline"].resized((height, width)) == (picture.height, picture.width)


def test_one_picture_too_many_is_told(pictures: Path) -> None:
    executor = Executor(tiny_pipelines.kontext(), images=pictures)
    with pytest.raises(
        BadInput, match="request 'r': image names several pictures, but FluxKontextPipeline starts from one"
    ):
        executor.check(Request("r", 0.0, 64, 64, 2, image="wide.png;square.png"))
