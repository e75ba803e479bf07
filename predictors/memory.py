"""Does a model with its batch and cache fit on a device?

Counted: the parameters of all stages, which stay on the device; what activations hold at the worst moment of a step,
from `predictors.shapes`; and the cache. Taken: `CONTEXT_BYTES` for the driver and its libraries, and `SLACK` for what
an allocator cannot use because it lies between other things. So the answer is an estimate, and most of it is exact.
"""

from __future__ import annotations

from dataclasses import dataclass

from predictors.hardware import PRECISIONS
from predictors.shapes import COUNTED_BYTES, ModelShape
from traces.geometry import ModelGeometry
from traces.request import Size

CONTEXT_BYTES = 1e9
"""Of the driver, its kernels and workspaces: a round figure."""

SLACK = 0.1
"""Share of the activations that fragmentation adds: a round figure."""


@dataclass(frozen=True)
class Footprint:
    """What a device must hold.

    Attributes:
        weights_bytes: parameters of all stages.
        activation_bytes: bytes of the stage that needs most, slack included.
        stage: that stage.
        cache_bytes: what a cache may keep.
        context_bytes: bytes of the driver.
    """

    weights_bytes: float
    activation_bytes: float
    stage: str
    cache_bytes: float = 0.0
    context_bytes: float = CONTEXT_BYTES

    @property
    def needed_bytes(self) -> float:
        """All of it."""
        return self.weights_bytes + self.activation_bytes + self.cache_bytes + self.context_bytes


def footprint(
    shape: ModelShape,
    geometry: ModelGeometry,
    size: Size,
    images: int,
    dtype: str,
    guided: bool = True,
    cache_bytes: float = 0.0,
) -> Footprint:
    """What a batch of ``images`` images or clips of one size needs, all of them decoded at once.

    Args:
        dtype: precision of the denoiser, one of `predictors.hardware.PRECISIONS`; quantised are its products alone.
        guided: whether classifier-free guidance doubles the rows.
    """
    precision = PRECISIONS[dtype]
    number, quantised = precision.number_bytes, shape.denoise.products.parameters
    rows = images * (shape.guidance_rows if guided else 1)
    peaks = {}
    for stage, count in (("encode", rows), ("denoise", rows), ("decode", images)):
        of_row = shape.stage(stage).peak_bytes.at(*shape.tokens(stage, geometry, size))
        peaks[stage] = count * of_row * number / COUNTED_BYTES * (1 + SLACK)
    most = max(peaks, key=peaks.__getitem__)
    weights_bytes = number * (shape.parameters - quantised) + precision.weight_bytes * quantised
    return Footprint(float(weights_bytes), peaks[most], most, cache_bytes)


def largest_batch(
    shape: ModelShape,
    geometry: ModelGeometry,
    size: Size,
    device_bytes: float,
    dtype: str,
    guided: bool = True,
    cache_bytes: float = 0.0,
) -> int:
    """Images of one size in the largest batch that fits on a device; 0: not one does."""
    one = footprint(
        shape=shape, geometry=geometry, size=size, images=1, dtype=dtype, guided=guided, cache_bytes=cache_bytes
    )
    free = device_bytes - (one.needed_bytes - one.activation_bytes)
    return max(0, int(free / one.activation_bytes))
