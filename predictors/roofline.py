"""The roofline: seconds of a step from what it computes and moves, and from what a device can do at best.

Three things take time in a forward: starting its kernels, which the host does one after another whatever the batch;
arithmetic; and moving activations and parameters. Products of matrices and everything between them take turns on the
device, so their times add up; the host runs ahead of the device, so the longer of the two counts, rounded off where
they meet::

    device  = flops / (peak x compute) + bytes / (bandwidth x memory)
    seconds = rows x row_s + sqrt(device^2 + (launches x launch_s)^2)

Cutting images into patches or packing their tokens leaves the work as it is, but for the borders that patches exchange:
the roofline takes counts of whole images, each attending to itself, and adds the share of pixels along the cuts.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass, replace
from math import hypot

from predictors.features import FEATURES, FeatureMap
from predictors.hardware import NUMBER_BYTES, Hardware
from predictors.shapes import ModelShape
from traces.composition import Composition
from traces.stages import STAGES

_PIXELS, _HALO = FEATURES.index("pixels"), FEATURES.index("halo")


@dataclass(frozen=True, slots=True)
class Efficiency:
    """What of a device's peak is reached, and what software adds.

    Attributes:
        compute: share of the peak rate.
        memory: share of the peak bandwidth.
        launch_s: seconds to start one kernel.
        row_s: seconds that every row costs, whatever its size.
    """

    compute: float
    memory: float
    launch_s: float
    row_s: float


def default_efficiency(stage: str, dtype: str) -> Efficiency:
    """What is taken where nothing was measured: round figures near those that explain the published measurements of
    SDXL and SD3 on an H100, eager PyTorch (``python -m benchmarks.calibration``).

    Decoders are convolutions over many pixels and few channels, which use tensor cores badly; float32 does not run on
    those.
    """
    badly = STAGES[stage].network == "vae" and dtype != "float32"
    return Efficiency(compute=0.12 if badly else 0.45, memory=0.7, launch_s=3e-5, row_s=1e-4)


@dataclass(frozen=True, slots=True)
class Work:
    """What one forward of a batch takes: arithmetic, traffic, kernels, rows."""

    flops: float
    bytes: float
    launches: float
    rows: float


@dataclass(frozen=True, slots=True)
class Roofline:
    """Seconds of the forwards of one stage of a model on a device.

    Attributes:
        shape: shape of the model.
        features: say the stage, the executor and the geometry.
        hardware: the device.
        dtype: one of `predictors.hardware.PRECISIONS`.
        efficiency: what is reached of its peaks.
    """

    shape: ModelShape
    features: FeatureMap
    hardware: Hardware
    dtype: str
    efficiency: Efficiency

    def work(self, composition: Composition, guided: float = 1.0, computed: float = 1.0) -> Work:
        """What one forward of a batch takes; see `FeatureMap.row` for the arguments."""
        features, stage = self.features, self.shape.stage(self.features.stage)
        row = STAGES[features.stage]
        rows_per_image = 1.0 + guided if row.guided else 1.0
        flops = moved = launches = 0.0
        images = 0
        for size, n in composition:
            area, frames = self.shape.tokens(features.stage, features.geometry, size)
            images += n
            flops += n * stage.flops.at(area, frames)
            moved += n * stage.bytes.at(area, frames)
            launches = max(launches, stage.launches.at(area, frames))
        share = rows_per_image * (1.0 + self._halo(composition))
        if row.cache == "blocks":
            share *= computed
        scale = NUMBER_BYTES[self.dtype]
        return Work(share * flops, scale * (share * moved / 2 + stage.parameters), launches, rows_per_image * images)

    def seconds(self, work: Work) -> float:
        """Seconds of a forward."""
        host, compute, memory = self.parts(work)
        return work.rows * self.efficiency.row_s + hypot(host, compute + memory)

    def parts(self, work: Work) -> tuple[float, float, float]:
        """Seconds of starting kernels, of arithmetic and of moving data, each as if alone."""
        e = self.efficiency
        return (
            work.launches * e.launch_s,
            work.flops / (self.hardware.peak_flops(self.dtype) * e.compute),
            work.bytes / (self.hardware.memory_bytes_per_s * e.memory),
        )

    def bound(self, work: Work) -> str:
        """What takes longest: ``launch``, ``compute`` or ``memory``."""
        host, compute, memory = self.parts(work)
        if host > compute + memory:
            return "launch"
        return "compute" if compute > memory else "memory"

    def with_efficiency(self, efficiency: Efficiency) -> Roofline:
        """The same with another efficiency."""
        return replace(self, efficiency=efficiency)

    def facts(self) -> str:
        """Everything that decides its answers, as text."""
        shape = self.shape.model_dump_json()
        return "\n".join([shape, self.hardware.model_dump_json(), self.dtype, repr(astuple(self.efficiency))])

    def _halo(self, composition: Composition) -> float:
        """The latent pixels along both sides of cuts, over all."""
        row = self.features.row(composition)
        return row[_HALO] * self.features.geometry.latent_factor / row[_PIXELS]
