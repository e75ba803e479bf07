"""What the suite measures, in order of value: when time runs out, what comes last is left out.

Ways of points, by group::

    ceiling   matmul: the data type; detail: the side of the matrices. copy: ``device`` or ``host-to-device`` (pinned);
              detail: MiB
    kernel    ``fused`` against ``reference``, for a batch of this composition of the model that detail names
    step      ``eager``: the stock model, images of one size stacked; ``compiled``: likewise; ``graph``: as it is served
              whole with `--kernels auto`; ``packed``: as images of several sizes are
    mix       ``patched`` or ``packed``, against other ways to run the same images
    decode    ``whole``: the stock decoder, in tiles where its pipeline needs them; ``patched``: Tilecast's
    encode    ``eager``: the prompts of so many images
    tile      ``tiled``: a step of so many tiles in one batch
    cached    ``patched`` or ``packed``, with a cache of which detail's share is computed
    replay    a scheduler's name
"""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks.gpu_suite.point import Point
from traces.composition import Composition, composition_of

EXECUTORS = {"sdxl": "patched", "sd3.5-medium": "packed", "flux": "packed", "wan-1.3b": "packed"}
"""How images of several sizes of a model run together."""

SCHEDULERS = ("lookahead", "same-size-continuous")
"""Of the replays."""

THREE = (512, 768, 1024)


def squares(*sides: int) -> Composition:
    """Square images, of so many pixels a side each."""
    return composition_of(((side, side, 1), 1) for side in sides)


def clips(height: int, width: int, *frames: int) -> Composition:
    """Clips of one frame size."""
    return composition_of(((height, width, each), 1) for each in frames)


def default_points() -> list[Point]:
    """For a GPU with the memory of the largest model, 40 GB: real models."""
    return list(_every_kind()) + list(_more_of_each()) + list(_rest()) + _replays("sdxl")


def smoke_points() -> list[Point]:
    """The same groups, models and ways on sizes that a CPU does in a minute."""
    three, clip = squares(128, 192, 256), clips(64, 64, 9)
    mixes = {
        "sdxl": three, "sd3.5-medium": squares(64, 96, 128), "flux": squares(64, 96, 128),
        "wan-1.3b": clips(64, 64, 5, 9),
    }  # fmt: skip
    points = [
        Point("ceiling", "matmul", "float32", detail="256"),
        Point("ceiling", "copy", "device", detail="8"),
        Point("kernel", "stitch", "fused", three, "sdxl"),
        *_kernels(three, squares(64, 96, 128)),
        *_attention(three, squares(64, 96, 128)),
    ]
    for model, executor in EXECUTORS.items():
        one = composition_of([(mixes[model][0][0], 1)])
        points += [
            Point("step", model, "eager", one),
            Point("mix", model, executor, mixes[model]),
            Point("decode", model, "whole", one),
            Point("encode", model, "eager", one),
        ]
    points += [Point("step", model, "eager", clip) for model in ("cogvideox-1.5", "hunyuanvideo")]
    points += [
        Point("step", "sdxl", "graph", squares(128)),
        Point("step", "flux", "compiled", squares(64)),
        Point("step", "flux", "packed", squares(64)),
        Point("decode", "sdxl", "patched", squares(128)),
        Point("tile", "sdxl", "tiled", squares(128, 128)),
        Point("tile", "flux", "tiled", squares(64, 64)),
        Point("cached", "sdxl", "patched", three, "share=0.5"),
        Point("cached", "sd3.5-medium", "packed", mixes["sd3.5-medium"], "share=0.5"),
    ]
    return points + _replays("tiny-image")


def _every_kind() -> Iterable[Point]:
    """Something of everything and what the goals are about, a model after the other."""
    yield Point("ceiling", "matmul", "bfloat16", detail="8192")
    yield Point("ceiling", "copy", "device", detail="4096")
    yield Point("step", "sdxl", "eager", squares(1024))
    yield Point("mix", "sdxl", "patched", squares(*THREE))
    yield Point("kernel", "stitch", "fused", squares(*THREE), "sdxl")
    yield Point("mix", "sd3.5-medium", "packed", squares(*THREE))
    yield Point("step", "sd3.5-medium", "eager", squares(1024))
    yield Point("cached", "sd3.5-medium", "packed", squares(*THREE), "share=0.5")
    yield from _profile_of("sd3.5-medium")
    yield Point("decode", "sdxl", "whole", squares(1024))
    yield Point("encode", "sdxl", "eager", squares(1024))
    yield Point("step", "flux", "eager", squares(1024))
    yield Point("mix", "flux", "packed", squares(*THREE))
    yield from _profile_of("flux")
    yield Point("mix", "sdxl", "patched", squares(*THREE, *THREE))
    yield Point("mix", "sdxl", "patched", squares(512, 512, 512, 512, 1024, 1024))
    yield Point("mix", "sdxl", "patched", squares(*[768] * 8))
    yield Point("cached", "sdxl", "patched", squares(*THREE), "share=0.5")
    yield Point("tile", "sdxl", "tiled", squares(1024, 1024))
    for side in (512, 768):
        yield Point("step", "sdxl", "eager", squares(side))
    yield Point("step", "sdxl", "graph", squares(512))
    yield from _kernels(squares(*THREE), squares(*THREE))
    yield Point("step", "sdxl", "compiled", squares(1024))
    yield Point("step", "wan-1.3b", "eager", clips(480, 832, 17))
    yield Point("mix", "wan-1.3b", "packed", clips(480, 832, 9, 17))
    yield Point("step", "cogvideox-1.5", "eager", clips(768, 1360, 17))
    yield Point("step", "hunyuanvideo", "eager", clips(544, 960, 17))


def _more_of_each() -> Iterable[Point]:
    """Batches, tiles and shares; attention; the other ceilings; SD3.5 again."""
    for batch in (2, 4, 8):
        for side in THREE:
            yield Point("step", "sdxl", "eager", squares(*[side] * batch))
    for share in (1.0, 0.25):
        yield Point("cached", "sdxl", "patched", squares(*THREE), f"share={share}")
    for tiles in (1, 4):
        yield Point("tile", "sdxl", "tiled", squares(*[1024] * tiles))
    yield Point("decode", "sdxl", "patched", squares(1024))
    yield from _attention(squares(*THREE), squares(*THREE))
    yield Point("ceiling", "copy", "host-to-device", detail="1024")
    yield Point("ceiling", "matmul", "float32", detail="8192")
    yield Point("step", "sd3.5-medium", "eager", squares(512))
    yield Point("mix", "sd3.5-medium", "packed", squares(512, 512, 512, 512, 1024, 1024))
    yield Point("mix", "sd3.5-medium", "packed", squares(*[768] * 8))
    for share in (1.0, 0.25):
        yield Point("cached", "sd3.5-medium", "packed", squares(*THREE), f"share={share}")
    for side in (512, 1024):
        yield Point("tile", "sd3.5-medium", "tiled", squares(side, side))


def _rest() -> Iterable[Point]:
    """Video and Flux again, other sizes and batches."""
    yield Point("decode", "wan-1.3b", "whole", clips(480, 832, 17))
    yield Point("encode", "wan-1.3b", "eager", clips(480, 832, 17))
    yield Point("step", "wan-1.3b", "eager", clips(480, 832, 49))
    yield Point("tile", "wan-1.3b", "tiled", clips(240, 416, 17, 17))
    for side in (512, 768):
        yield Point("step", "flux", "eager", squares(side))
    for side in (512, 1024):
        yield Point("tile", "flux", "tiled", squares(side, side))
    yield Point("cached", "flux", "packed", squares(*THREE), "share=0.5")
    for model in ("sdxl", "sd3.5-medium", "flux"):
        yield Point("decode", model, "whole", squares(512))
    yield Point("step", "flux", "eager", squares(*[512] * 4))
    yield Point("decode", "cogvideox-1.5", "whole", clips(480, 720, 17))
    yield Point("encode", "cogvideox-1.5", "eager", clips(768, 1360, 17))
    yield Point("decode", "hunyuanvideo", "whole", clips(320, 512, 17))
    yield Point("encode", "hunyuanvideo", "eager", clips(544, 960, 17))
    yield Point("mix", "flux", "packed", squares(512, 512, 512, 512, 1024, 1024))
    yield Point("step", "flux", "compiled", squares(1024))
    yield Point("mix", "sd3.5-medium", "packed", squares(*THREE, *THREE))
    yield Point("step", "sd3.5-medium", "eager", squares(*[1024] * 4))
    yield Point("step", "sd3.5-medium", "eager", squares(*[512] * 8))
    yield Point("mix", "wan-1.3b", "packed", clips(480, 832, 17, 33))
    yield Point("step", "wan-1.3b", "eager", clips(480, 832, 81))
    yield Point("mix", "wan-1.3b", "packed", clips(480, 832, 33, 81))
    for frames in (9, 33):
        yield Point("step", "cogvideox-1.5", "eager", clips(768, 1360, frames))
    yield Point("step", "hunyuanvideo", "eager", clips(544, 960, 9))
    yield Point("step", "hunyuanvideo", "eager", clips(720, 1280, 17))
    yield Point("mix", "flux", "packed", squares(*THREE, *THREE))
    yield Point("mix", "flux", "packed", squares(*[768] * 8))
    for side in (256, 1536):
        yield Point("step", "sdxl", "eager", squares(side))
    for sides in ((256, 512), (512, 1024), (1024, 1536)):
        yield Point("mix", "sdxl", "patched", squares(*sides))


def _profile_of(model: str) -> Iterable[Point]:
    """What a profile of a packed model needs beside its mixes."""
    for side in (512, 1024):
        yield Point("step", model, "packed", squares(side))
    yield Point("decode", model, "whole", squares(1024))
    yield Point("encode", model, "eager", squares(1024))


def _kernels(images: Composition, tokens: Composition) -> Iterable[Point]:
    """All but the stitcher and attention."""
    yield Point("kernel", "moments", "fused", images, "sdxl")
    yield Point("kernel", "modulate", "fused", tokens, "sd3.5-medium")
    yield Point("kernel", "gated", "fused", tokens, "flux")


def _attention(images: Composition, tokens: Composition) -> Iterable[Point]:
    yield Point("kernel", "attention", "fused", images, "sdxl")
    for model in ("flux", "sd3.5-medium"):
        yield Point("kernel", "attention", "fused", tokens, model)


def _replays(model: str) -> list[Point]:
    return [Point("replay", model, scheduler) for scheduler in SCHEDULERS]
