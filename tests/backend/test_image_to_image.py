"""Image to image: the steps that a pipeline makes of its schedule, and what it is shown."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import diffusers  # noqa: E402
from PIL import Image  # noqa: E402

from backend.coroutine import pipeline_arguments, unused_arguments  # noqa: E402
from backend.executor import Executor  # noqa: E402
from backend.inputs import check_arguments, image_use, takes_mask  # noqa: E402
from backend.profiling import measure_profile  # noqa: E402
from tests.backend import tiny_pipelines  # noqa: E402
from tests.backend.short_texts import read_short  # noqa: E402
from tests.backend.tiny_families import qwen_image, z_image  # noqa: E402
from traces.errors import BadInput  # noqa: E402
from traces.request import Request  # noqa: E402
from traces.strength import IMAGE_TO_IMAGE  # noqa: E402


def _of(cls: type, made: Any, **others: Any) -> Any:
    read_short(cls)
    pipeline = cls(**{**made.components, **others})
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _sdxl(sampler: type | None = None, heun: bool = False) -> Any:
    made = tiny_pipelines.sdxl(heun)
    others = {} if sampler is None else {"scheduler": sampler.from_config(made.scheduler.config)}
    return _of(diffusers.StableDiffusionXLImg2ImgPipeline, made, **others)


MADE: dict[str, Callable[[], Any]] = {
    "sdxl": _sdxl,
    "sdxl heun": lambda: _sdxl(heun=True),
    "sdxl ddim": lambda: _sdxl(diffusers.DDIMScheduler),
    "sdxl pndm": lambda: _sdxl(diffusers.PNDMScheduler),
    "flux": lambda: _of(diffusers.FluxImg2ImgPipeline, tiny_pipelines.flux()),
    "sd3": lambda: _of(diffusers.StableDiffusion3Img2ImgPipeline, tiny_pipelines.sd3()),
    "qwen-image": lambda: _of(diffusers.QwenImageImg2ImgPipeline, qwen_image()),
    "z-image": lambda: _of(diffusers.ZImageImg2ImgPipeline, z_image()),
    "sdxl inpaint": lambda: _of(diffusers.StableDiffusionXLInpaintPipeline, tiny_pipelines.sdxl()),
    "flux inpaint": lambda: _of(diffusers.FluxInpaintPipeline, tiny_pipelines.flux()),
    "flux fill": tiny_pipelines.flux_fill,
    "sd3 inpaint": lambda: _of(diffusers.StableDiffusion3InpaintPipeline, tiny_pipelines.sd3(16)),
    "qwen-image inpaint": lambda: _of(diffusers.QwenImageInpaintPipeline, qwen_image()),
    "z-image inpaint": lambda: _of(diffusers.ZImageInpaintPipeline, z_image()),
}
STEPS = 5
"""Of the schedules; a strength leaves some of them out."""
PACKED = ("flux fill", "sd3 inpaint", "qwen-image inpaint", "z-image")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for index, colour in enumerate([(200, 60, 30), (20, 60, 200)]):
        Image.new("RGB", (32, 32), colour).save(tmp_path / f"{index}.png")
        mask = np.zeros((32, 32), dtype=np.uint8)
        mask[:, : 16 + 8 * index] = 255
        Image.fromarray(mask).save(tmp_path / f"mask{index}.png")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "mode"), [*((name, "whole") for name in MADE), *((name, "packed") for name in PACKED)]
)
def test_two_requests_together_are_the_stock_pipelines_alone(name: str, mode: str, pictures: Path) -> None:
    torch.set_num_threads(1)
    pipeline = MADE[name]()
    ways = IMAGE_TO_IMAGE[type(pipeline).__name__]
    requests, wanted = [], []
    for index, strength in enumerate((None, 0.55)):
        asked = Request(
            str(index),
            0.0,
            32,
            32,
            STEPS,
            prompt="a cat" * (1 + index),
            image=f"{index}.png",
            seed=index,
            strength=strength,
        )
        shown = {"image": Image.open(pictures / asked.image)}
        if takes_mask(pipeline):
            asked = replace(asked, mask=f"mask{index}.png")
            shown["mask_image"] = Image.open(pictures / asked.mask)
        stock = copy.copy(pipeline)
        stock.scheduler = copy.deepcopy(pipeline.scheduler)
        with torch.no_grad():
            wanted.append(stock(**pipeline_arguments(stock, asked), **shown).images)
        steps = ways.steps(STEPS, strength or ways.strength)
        requests.append(replace(asked, steps=steps, schedule_steps=STEPS, strength=strength or ways.strength))
    executor, made = Executor(pipeline, mode, images=pictures), {}
    outcomes = [executor.execute("encode", requests)]
    for step in range(max(request.steps for request in requests)):
        going = [request for request in requests if request.steps > step]
        outcomes.append(executor.execute("denoise", going))
    outcomes.append(executor.execute("decode", requests, deliver=lambda r, pixels: made.update({r.request_id: pixels})))
    assert [outcome.failed for outcome in outcomes] == [None] * len(outcomes)
    for request, picture in zip(requests, wanted, strict=True):
        assert np.abs(made[request.request_id] - picture).max() < 1e-5


def test_the_table_is_what_diffusers_does() -> None:
    """Of every class in it: the strength it defaults to, and how many timesteps are left."""
    for name, ways in IMAGE_TO_IMAGE.items():
        pipeline = getattr(diffusers, name)
        assert inspect.signature(pipeline.__call__).parameters["strength"].default == ways.strength, name
        for steps in (1, 3, 10, 25, 50):
            for strength in (0.05, 0.29, 0.3, 0.55, 0.58, 0.9999, 1.0):
                sampler = diffusers.FlowMatchEulerDiscreteScheduler()
                sampler.set_timesteps(steps)
                more = {"device": "cpu"} if "device" in inspect.signature(pipeline.get_timesteps).parameters else {}
                left, told = pipeline.get_timesteps(SimpleNamespace(scheduler=sampler), steps, strength, **more)
                assert ways.steps(steps, strength) == len(left) == told, (name, steps, strength)


def test_a_picture_is_needed_optional_or_none() -> None:
    def use(name: str) -> str:
        return image_use(getattr(diffusers, name).__new__(getattr(diffusers, name)))

    assert {use(name) for name in ("StableDiffusionXLPipeline", "FluxPipeline", "WanPipeline")} == {"none"}
    assert {use(name) for name in ("Flux2Pipeline", "FluxKontextPipeline")} == {"optional"}
    needing = ("WanImageToVideoPipeline", "LTXImageToVideoPipeline", "QwenImageEditPipeline", *IMAGE_TO_IMAGE)
    assert {use(name) for name in needing} == {"required"}


def test_pipelines_that_need_more_than_requests_have_are_refused() -> None:
    controlled = object.__new__(diffusers.FluxControlInpaintPipeline)
    with pytest.raises(BadInput, match="FluxControlInpaintPipeline needs 'control_image'"):
        check_arguments(controlled)


def test_a_mask_is_there_lies_in_the_folder_and_is_as_large_as_its_picture(pictures: Path) -> None:
    Image.new("L", (16, 32)).save(pictures / "narrow.png")
    executor = Executor(MADE["sdxl inpaint"](), images=pictures)
    good = Request("r", 0.0, 32, 32, 10, image="0.png", mask="mask0.png")
    executor.check(good)
    for mask, words in (
        ("", "mask is empty, but the model paints inside one"),
        ("9.png", r"cannot open mask '9\.png'"),
        ("../0.png", r"mask '\.\./0\.png' lies outside"),
        ("narrow.png", r"mask 'narrow\.png' is 32x16, expected the 32x32 of image '0\.png'"),
    ):
        with pytest.raises(BadInput, match=words):
            executor.check(replace(good, mask=mask))
    assert unused_arguments(_sdxl(), [good]) == [
        "mask of 1 requests has no effect: StableDiffusionXLImg2ImgPipeline takes none"
    ]


def test_what_a_request_starts_from_is_checked_before_any_work(pictures: Path) -> None:
    shown, plain = Executor(_sdxl(), images=pictures), Executor(tiny_pipelines.sdxl(), images=pictures)
    good = Request("r", 0.0, 32, 32, 10, image="0.png")
    shown.check(good)
    plain.check(replace(good, image=""))
    for executor, request, words in (
        (shown, replace(good, image=""), "image is empty"),
        (shown, replace(good, image="9.png"), "cannot open image '9.png'"),
        (shown, replace(good, height=64), "image '0.png' is 32x32, expected the 64x32 of the request"),
        (plain, good, "can be refined only by tiles"),
    ):
        with pytest.raises(BadInput, match=words):
            executor.check(request)


@pytest.mark.usefixtures("loads_not_measured")
def test_a_model_that_starts_from_pictures_is_measured(tmp_path: Path) -> None:
    _sdxl().save_pretrained(tmp_path / "mine")
    profile = measure_profile(str(tmp_path / "mine"), sizes=[(16, 16, 1), (16, 32, 1)], max_batch=2, repeats=1)
    assert set(profile.frame["stage"]) == {"encode", "denoise", "decode"}
    assert profile.metadata["pipeline"] == "StableDiffusionXLImg2ImgPipeline"
