"""Several images in one step, in every way that they can be run, timed round by round against each other."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from backend.kernels.choice import REFERENCE
from backend.merge import Mixer
from benchmarks.gpu_suite.bench import Bench
from benchmarks.gpu_suite.models import latent_shape, sizes_of
from benchmarks.gpu_suite.point import Point, Result
from benchmarks.gpu_suite.ways import Denoiser, Step, one_by_one, relative_error, together, wrong
from predictors.shapes import shape_of
from traces.errors import BadInput
from traces.geometry import ModelGeometry, geometry_of

Shape = tuple[int, int, int]


@torch.no_grad()
def measure_mix(point: Point, bench: Bench) -> Result:
    """A step of a mixed batch as the executor ``patched`` or ``packed`` runs it, beside other ways.

    ``ways`` are the point's own, ``one-by-one``, ``same-size``, ``reference``; of UNets ``channels-last`` (as
    ``same-size``, in the memory format that convolutions want); of packed ones ``equal-tokens``; and ``whole``, as
    ``same-size`` with recorded graphs, where there are such. ``chosen`` is the faster of mixing and of the best that
    ``whole`` does: what a scheduler runs that knows these figures.

    As many tokens in images of one size attend to fewer others: compare ``tflop`` of the two ways.

    Raises:
        BadInput: the model's images are not mixed that way.
    """
    denoiser = Denoiser.of(point.name, bench)
    mixing = "patched" if denoiser.is_unet else "packed"
    if point.way != mixing:
        raise BadInput(f"images of {point.name} are mixed {mixing!r}, not {point.way!r}")
    rounds = denoiser.rounds(point.composition)
    mixers: dict[str, Mixer] = {point.way: denoiser.mixed(denoiser.kernels), "reference": denoiser.mixed(REFERENCE)}
    whole = denoiser.whole()
    if denoiser.kernels.graphs:
        mixers["whole"] = whole
    ways: dict[str, Step] = {name: together(mixer, rounds) for name, mixer in mixers.items()}
    ways["one-by-one"] = one_by_one(denoiser.stock(), rounds)
    ways["same-size"] = together(denoiser.stock(), rounds)
    if denoiser.is_unet:
        ways["channels-last"] = together(denoiser.channels_last(), rounds)
    expected = ways["one-by-one"]()
    errors = {}
    for name, step in ways.items():
        errors[name] = relative_error(denoiser.settled(step) if name in (point.way, "whole") else step(), expected)
        if (failed := wrong(name, errors[name])) is not None:
            return failed
    del expected
    if "whole" in mixers and not whole.recorder.recorded:
        del ways["whole"]  # it is what same-size is
    geometry, frame_patch = geometry_of(point.name), denoiser.model.frame_patch
    shapes = [latent_shape(point.name, size, frame_patch=frame_patch) for size in sizes_of(point.composition)]
    tokens = dict.fromkeys(ways, sum(token_count(shape, geometry, frame_patch) for shape in shapes))
    equal: list[Shape] = []
    if not denoiser.is_unet:
        equal = equal_shapes(shapes, geometry, frame_patch)
        ways["equal-tokens"] = together(denoiser.stock(), denoiser.rounds_of(equal))
        tokens["equal-tokens"] = sum(token_count(shape, geometry, frame_patch) for shape in equal)
    timed = bench.timed_ways(ways, warmups=1)
    for name, result in timed.items():
        timed[name] = denoiser.weighed(result, mixers.get(name)) | {"tokens": tokens[name]}
        if name in errors:
            timed[name] |= {"error": errors[name], "tflop": denoiser.tflop(point.composition)}
    if "equal-tokens" in timed and not bench.smoke:
        timed["equal-tokens"]["tflop"] = _tflop(point.name, equal, geometry, frame_patch)
    served = [name for name in (point.way, "whole", "same-size") if name in timed]
    chosen = min(served, key=lambda name: float(timed[name]["seconds"]))
    facts = {"rows": denoiser.rows(rounds), "tflop": denoiser.tflop(point.composition), "chosen": chosen}
    return timed[point.way] | facts | {"ways": timed}


def _tflop(name: str, shapes: Sequence[Shape], geometry: ModelGeometry, frame_patch: int) -> float:
    """Of a guided step, by the counts in ``profiles/shapes.toml``."""
    counted = shape_of(name)
    areas = [(token_count((1, *shape[1:]), geometry, 1), shape[0] // frame_patch) for shape in shapes]
    return counted.guidance_rows * sum(counted.denoise.flops.at(*area) for area in areas) / 1e12


def token_count(shape: Shape, geometry: ModelGeometry, frame_patch: int) -> int:
    """Tokens of a latent shape (frames, height, width); of UNets latent pixels."""
    frames, height, width = shape
    return frames // frame_patch * (height // geometry.patch) * (width // geometry.patch)


def equal_shapes(shapes: Sequence[Shape], geometry: ModelGeometry, frame_patch: int) -> list[Shape]:
    """As many latent shapes, all the same, that have as many tokens together as nearly as can be."""
    mean = sum(token_count(shape, geometry, frame_patch) for shape in shapes) / len(shapes)
    frames = max(1, round(sum(shape[0] for shape in shapes) / len(shapes) / frame_patch))
    area = mean / frames
    square = max(1, int(math.sqrt(area)))
    sides = [(height, max(1, round(area / height))) for height in range(square, max(0, 2 * square // 3 - 1), -1)]
    height, width = min(sides, key=lambda side: abs(math.prod(side) - area))
    return [(frames * frame_patch, height * geometry.patch, width * geometry.patch)] * len(shapes)
