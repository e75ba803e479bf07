"""Who is guided depends on the model: by the guidance scale, by true CFG beside a negative prompt, or never."""

from __future__ import annotations

import pytest

from traces.errors import BadInput
from traces.geometry import GEOMETRIES, ModelGeometry, geometry_of
from traces.request import Request
from traces.trace import Trace

NEVER = ModelGeometry("fill", 8, 16, 16, (1024, 1024), guidance="never")
QWEN = ModelGeometry("qwen", 8, 16, 16, (1024, 1024), guidance="true", true_cfg_scale=4.0)


def request(**more: object) -> Request:
    return Request("r", 0.0, 1024, 1024, 20, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("geometry", "more", "guided"),
    [
        (geometry_of("sdxl"), {}, True),
        (geometry_of("sdxl"), {"guidance_scale": 1.0}, False),
        (geometry_of("sdxl"), {"guidance_scale": 1.0, "negative_prompt": "x", "true_cfg_scale": 4.0}, False),
        (geometry_of("flux"), {}, False),
        (geometry_of("flux"), {"negative_prompt": "x"}, False),
        (geometry_of("flux"), {"true_cfg_scale": 4.0}, False),
        (geometry_of("flux"), {"negative_prompt": " ", "true_cfg_scale": 4.0, "guidance_scale": 1.0}, True),
        (geometry_of("hunyuanvideo"), {"negative_prompt": "x", "true_cfg_scale": 6.0}, True),
        (QWEN, {}, False),
        (QWEN, {"negative_prompt": "x"}, True),
        (QWEN, {"negative_prompt": "x", "true_cfg_scale": 1.0}, False),
        (NEVER, {"negative_prompt": "x", "true_cfg_scale": 4.0}, False),
    ],
)
def test_guided(geometry: ModelGeometry, more: dict[str, object], guided: bool) -> None:
    trace, _ = Trace.from_requests([request(**more)]).guided_as(geometry)
    assert trace.requests()[0].guided is guided
    assert trace.guided_as(geometry)[0].requests() == trace.requests()


@pytest.mark.parametrize(
    ("geometry", "more", "said"),
    [
        (geometry_of("sdxl"), {"negative_prompt": "x"}, []),
        (
            geometry_of("sdxl"),
            {"true_cfg_scale": 4.0},
            ["true_cfg_scale of 1 requests has no effect: sdxl is guided by"],
        ),
        (
            geometry_of("sdxl"),
            {"negative_prompt": "x", "guidance_scale": 1.0},
            ["negative_prompt of 1 requests has no"],
        ),
        (geometry_of("flux"), {"negative_prompt": "x", "true_cfg_scale": 4.0}, []),
        (geometry_of("flux"), {"negative_prompt": "x"}, ["negative_prompt of 1 requests has no effect: flux needs a"]),
        (geometry_of("flux"), {"true_cfg_scale": 4.0}, ["true_cfg_scale of 1 requests has no effect: flux needs a"]),
        (NEVER, {"negative_prompt": "x"}, ["negative_prompt of 1 requests has no effect: fill evaluates no negative"]),
    ],
)
def test_what_has_no_effect_is_said(geometry: ModelGeometry, more: dict[str, object], said: list[str]) -> None:
    _, notes = Trace.from_requests([request(**more)]).guided_as(geometry)
    assert len(notes) == len(said)
    assert all(note.startswith(begins) for note, begins in zip(notes, said, strict=True))


def test_guidance_is_one_of_three_ways() -> None:
    ways = {name: geometry.guidance for name, geometry in GEOMETRIES.items()}
    assert (ways["sdxl"], ways["flux"], ways["qwen-image"], ways["flux2-dev"]) == ("scale", "true", "true", "never")
    with pytest.raises(BadInput, match="guidance is 'cfg', expected one of scale, true, never"):
        ModelGeometry("m", 8, 4, 8, (512, 512), guidance="cfg")
