"""When dividing a request over devices pays, and when batching does: latency and throughput by degree and batch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from predictors.costs import CostModel, alone
from predictors.parallel import Parallel
from traces.request import Request, Size
from traces.stages import STAGES

MOST_IMAGES = 8
"""Of the batches of `batches_up_to`."""
LATENCY, THROUGHPUT, BOTH = "latency", "throughput", "both"
"""What one is best for, of all degrees and batches of a size; of as good ones the fewest devices and images."""


class DegreeAndBatch(NamedTuple):
    """A batch of one size on some devices.

    Attributes:
        size: (height, width, frames) in pixels.
        devices: that share a denoising step.
        parallel: how, as `predictors.parallel.Parallel` is spelled.
        images: of the batch.
        step_s: seconds of a denoising step.
        latency_s: seconds of the whole batch, from its encoding to its decoding.
        images_per_s: a second and device, with all devices as busy as they can be.
        best_for: `LATENCY`, `THROUGHPUT`, `BOTH` or nothing.
    """

    size: Size
    devices: int
    parallel: str
    images: int
    step_s: float
    latency_s: float
    images_per_s: float
    best_for: str = ""


def batches_up_to(most: int) -> tuple[int, ...]:
    """1, 2, 4, ... images, as far as ``most`` fit; 1 at least."""
    return tuple([1 << power for power in range(MOST_IMAGES.bit_length()) if 1 << power <= max(1, most)])


def paying(
    costs: CostModel, request: Request, degrees: Sequence[int], batches: Iterable[int]
) -> tuple[DegreeAndBatch, ...]:
    """What requests like one take at each degree, in each batch; a device that a stage does not use serves others.

    Args:
        costs: of a replica.
        request: what a request of the size asks for; of one image.
        degrees: on how many devices a step may run.
        batches: images in a batch.
    """
    one, recipe = alone(request), costs.recipe(request)
    found = []
    for images in batches:
        for degree in degrees:
            batch = one._replace(composition=((request.shape, images),), devices=degree)
            step_s = latency_s = device_s = 0.0
            for stage, steps in recipe:
                seconds = costs.step_s(stage, batch)
                latency_s += steps * seconds
                device_s += steps * seconds * costs.degree(stage, batch)
                if STAGES[stage].sampler:
                    step_s = seconds
            found.append(
                DegreeAndBatch(
                    size=request.shape,
                    devices=degree,
                    parallel=str(Parallel.of(degree, images, request.guided)),
                    images=images,
                    step_s=step_s,
                    latency_s=latency_s,
                    images_per_s=images / device_s if device_s else 0.0,
                )
            )
    if not found:
        return ()
    fastest = min(found, key=lambda row: (row.latency_s, row.devices, row.images))
    fullest = min(found, key=lambda row: (-row.images_per_s, row.devices, row.images))
    marked = {id(fastest): LATENCY, id(fullest): THROUGHPUT}
    if fastest is fullest:
        marked[id(fastest)] = BOTH
    return tuple([row._replace(best_for=marked.get(id(row), "")) for row in found])
