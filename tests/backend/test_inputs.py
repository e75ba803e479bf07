"""Requests that start from a picture or clip."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from backend.executor import Executor
from backend.inputs import start_of
from backend.loading import geometry_of_pipeline, load_pipeline
from backend.tiled.execution import Tiling
from policies.tiling.recipe import TilingRule
from tests.backend.tiny_image_to_video import wan_image_to_video
from traces.errors import BadInput
from traces.geometry import geometry_of
from traces.request import Request

PROMPT = "a red circle on blue"


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def request(image: str, height: int = 256, width: int = 256, frames: int = 1, **more: Any) -> Request:
    return Request("r", 0.0, height, width, 4, frames, prompt=PROMPT, image=image, guidance_scale=3.0, **more)


def picture(path: Path, side: int = 128) -> np.ndarray[Any, Any]:
    """A red disc on blue, written to ``path``."""
    y, x = np.mgrid[:side, :side]
    disc = (y - side / 2) ** 2 + (x - side / 2) ** 2 < (side / 4) ** 2
    pixels = np.where(disc[..., None], (220, 30, 30), (30, 60, 220)).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def test_a_picture_is_read_as_pixels_to_refine(tmp_path: Path) -> None:
    pixels = picture(tmp_path / "disc.png", 64)
    start = start_of(request("disc.png"), tmp_path, takes_image=False)
    assert start.arguments == {}
    assert start.pixels is not None
    assert start.pixels.shape == (1, 3, 1, 64, 64)
    assert np.allclose(start.pixels[0, :, 0].permute(1, 2, 0).numpy() * 255, pixels, atol=1e-4)


def test_a_clip_is_read_frame_by_frame_and_must_have_as_many(tmp_path: Path) -> None:
    shades = [Image.new("RGB", (32, 32), (shade, 0, 0)) for shade in (10, 120, 250)]
    shades[0].save(tmp_path / "clip.gif", save_all=True, append_images=shades[1:], duration=100)
    start = start_of(request("clip.gif", frames=3), tmp_path, takes_image=False)
    assert start.pixels is not None
    assert start.pixels.shape == (1, 3, 3, 32, 32)
    assert (start.pixels[0, 0, :, 0, 0] * 255).round().tolist() == pytest.approx([10, 120, 250], abs=8)
    with pytest.raises(BadInput, match=r"has 3 frames, expected the 5"):
        start_of(request("clip.gif", frames=5), tmp_path, takes_image=False)


@pytest.mark.parametrize(
    ("name", "message"),
    [("../secret.png", "lies outside"), ("none.png", "cannot open image"), ("text.png", "cannot open image")],
)
def test_what_is_no_picture_of_the_folder_is_refused(tmp_path: Path, name: str, message: str) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    picture(tmp_path / "secret.png")
    (folder / "text.png").write_text("no picture")
    with pytest.raises(BadInput, match=message):
        start_of(request(name), folder, takes_image=False)
    with pytest.raises(BadInput, match=r"set trace\.images"):
        start_of(request(name), None, takes_image=False)


def test_a_picture_is_refined_by_tiles_instead_of_a_sketch(tmp_path: Path) -> None:
    """The disc is still there, at twice its size; another seed gives another picture of it."""
    pixels = picture(tmp_path / "disc.png")
    executor = Executor(
        load_pipeline("tiny-image"), tiling=Tiling(TilingRule(geometry_of("tiny-image"), refine=0.25)), images=tmp_path
    )
    made = []
    for seed in (0, 1):
        wanted = request("disc.png", seed=seed)
        recipe = executor.recipe(wanted)
        assert [stage for stage, _ in recipe] == ["encode", "upscale", "refine", "decode"]
        for stage, steps in recipe:
            outcome = executor.execute(stage, [wanted], steps, deliver=lambda _, result: made.append(result[0]))
            assert outcome.failed is None
    enlarged = pixels.repeat(2, 0).repeat(2, 1) / 255.0
    for result in made:
        assert result.shape == (256, 256, 3)
        assert np.abs(result - enlarged).mean() < 0.12
    assert not np.array_equal(*made)
    assert executor.resident == []


def test_a_picture_that_nobody_refines_fails_its_request_alone(tmp_path: Path) -> None:
    picture(tmp_path / "disc.png")
    executor = Executor(load_pipeline("tiny-image"), images=tmp_path)
    failed = executor.execute("encode", [request("disc.png", 128, 128)]).failed
    assert failed is not None
    assert "can be refined only by tiles" in failed["r"]


def test_an_image_to_video_model_is_shown_the_picture_small_and_on_the_canvas(tmp_path: Path) -> None:
    """The condition is part of every call: another picture gives another clip, and none is refused."""
    picture(tmp_path / "disc.png", 32)
    Image.new("RGB", (32, 32), (255, 255, 0)).save(tmp_path / "plain.png")
    pipeline = wan_image_to_video()
    native = (32, 32)
    geometry = replace(geometry_of_pipeline(pipeline, "wan-i2v"), native_size=native)
    with pytest.raises(BadInput, match="needs 'condition'"):
        Executor(pipeline, tiling=Tiling(TilingRule(geometry)))
    executor = Executor(pipeline, tiling=Tiling(TilingRule(geometry, image="condition", refine=0.5)), images=tmp_path)
    clips = []
    for image in ("disc.png", "plain.png"):
        wanted = request(image, 2 * native[0], 2 * native[1], 5)
        recipe = executor.recipe(wanted)
        assert [stage for stage, _ in recipe] == ["encode", "sketch", "upscale", "refine", "decode"]
        for stage, steps in recipe:
            outcome = executor.execute(stage, [wanted], steps, deliver=lambda _, result: clips.append(result[0]))
            assert outcome.failed is None
    assert clips[0].shape == (5, 2 * native[0], 2 * native[1], 3)
    assert np.abs(clips[0] - clips[1]).max() > 1e-3
    failed = executor.execute("encode", [request("", 2 * native[0], 2 * native[1], 5)]).failed
    assert failed is not None
    assert "makes all from a picture" in failed["r"]
