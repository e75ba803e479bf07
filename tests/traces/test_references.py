"""Reference pictures: which pixels of them are seen, and what they cost."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from policies.job import Job
from predictors.features import FeatureMap
from traces.composition import format_composition, parse
from traces.errors import BadInput
from traces.geometry import geometry_of
from traces.references import REFERENCES, sides_in
from traces.request import Request
from traces.trace import Trace

FLUX = geometry_of("flux")
KONTEXT, FLUX2, QWEN = (REFERENCES[name] for name in ("FluxKontextPipeline", "Flux2Pipeline", "QwenImageEditPipeline"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, size in {"small": (512, 256), "square": (2048, 2048)}.items():
        Image.new("RGB", size).save(tmp_path / f"{name}.png")
    return tmp_path


def asked(*images: str, **more: int) -> Trace:
    return Trace.from_requests(
        [Request(str(index), 0.0, 512, 512, 4, image=image, **more) for index, image in enumerate(images)], "mine"
    )


def test_the_pixels_that_are_seen_follow_from_the_pictures(folder: Path) -> None:
    trace, sides = asked("", "small.png", "square.png", "small.png; square.png", "gone.png"), sides_in(folder)
    several = trace.with_references(FLUX2, 16, sides).frame["reference_pixels"].tolist()
    assert several == [0, 512 * 256, 1024 * 1024, 512 * 256 + 1024 * 1024, 1024 * 1024]
    one = asked("", "small.png").with_references(QWEN, 32, sides).frame["reference_pixels"].tolist()
    assert one == [1024 * 1024, 1440 * 736]  # a megapixel at two to one
    assert asked("small.png").with_references(KONTEXT, 16, sides).frame["reference_pixels"].tolist() == [1456 * 720]
    said = asked("small.png", reference_pixels=77).with_references(FLUX2, 16, sides)
    assert said.frame["reference_pixels"].tolist() == [77]
    with pytest.raises(BadInput, match="mine: request '3': image names 2 pictures, expected one"):
        trace.with_references(KONTEXT, 16, sides)
    with pytest.raises(BadInput, match=r"image '\.\./x\.png' lies outside"):
        asked("../x.png").with_references(KONTEXT, 16, sides)


def test_an_edit_costs_what_a_picture_of_all_its_tokens_does_and_is_decoded_as_its_own() -> None:
    edit, plain, large = (
        Job(Request("r", 0.0, 512, side, 4, reference_pixels=seen, guidance_scale=1.0), 0)
        for side, seen in ((512, 512 * 1024), (512, 0), (3 * 512, 0))
    )
    denoise, decode = (FeatureMap(FLUX, stage, "packed") for stage in ("denoise", "decode"))
    assert denoise.row(edit.alone) == denoise.row(large.alone)
    assert decode.row(edit.alone) == decode.row(plain.alone)
    assert FLUX.tokens(edit.request.shape) == 3 * FLUX.tokens(plain.request.shape)
    assert edit.batch_key != plain.batch_key
    assert edit.kind is not plain.kind


def test_a_composition_says_how_many_pixels_are_seen() -> None:
    text = "1@512x512+2@512x512r1048576+1@480x832x81"
    assert format_composition(parse(text)) == "1@480x832x81+1@512x512+2@512x512r1048576"
    assert parse("2@512x512r1048576") == (((512, 512, 1, 1048576), 2),)
