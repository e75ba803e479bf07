"""The roofline: seconds of a step from what it computes and moves, and from what a device reaches of its peaks.

`predictors.shapes` says what a forward computes and moves, `predictors.efficiency` what a device reaches and how the
two make seconds. Cutting images into patches or packing their tokens leaves the work as it is, but for the borders that
patches exchange: the roofline takes counts of whole images, each attending to itself, and adds the share of pixels
along the cuts.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass, replace

from predictors.efficiency import COMPUTING, Rates, Setting, Work, forward_seconds
from predictors.features import FEATURES, FeatureMap
from predictors.hardware import PRECISIONS
from predictors.parallel import WHOLE, Cut
from predictors.shapes import COUNTED_BYTES, ModelShape
from traces.composition import Composition
from traces.stages import STAGES

_PIXELS, _HALO = FEATURES.index("pixels"), FEATURES.index("halo")


@dataclass(frozen=True, slots=True)
class Roofline:
    """Seconds of the forwards of one stage of a model on a device.

    Attributes:
        shape: shape of the model.
        features: say the stage, the executor and the geometry.
        setting: the device, and how the stage is run on it.
        rates: what it reaches so.
    """

    shape: ModelShape
    features: FeatureMap
    setting: Setting
    rates: Rates

    def work(self, composition: Composition, guided: float = 1.0, computed: float = 1.0, cut: Cut = WHOLE) -> Work:
        """What one forward of a batch takes of the busiest of the devices that share it.

        Args:
            composition, guided, computed: see `FeatureMap.row`.
            cut: what this device has; all of them read all parameters and start all kernels.
        """
        features, stage = self.features, self.shape.stage(self.features.stage)
        row, precision = STAGES[features.stage], PRECISIONS[self.setting.precision]
        share = (1.0 + guided if row.guided else 1.0) * (1.0 + self._halo(composition))
        if row.cache == "blocks":
            share *= computed
        tokens = [(n, self.shape.tokens(features.stage, features.geometry, size)) for size, n in composition]
        flops, moved, pads = {}, {}, self.setting.pads_heads
        for kind, of in stage.kinds.items():
            own = share * (cut.attention if kind == "attention" else cut.tokens)
            flops[kind] = own * sum([n * of.flops.at(*each) for n, each in tokens])
            if pads:
                flops[kind] += own * sum([n * of.padding.at(*each) for n, each in tokens])
            activations = own * sum([n * of.bytes.at(*each) for n, each in tokens]) / COUNTED_BYTES
            weight_bytes = precision.weight_bytes if kind == "products" else precision.number_bytes
            moved[kind] = precision.number_bytes * activations + weight_bytes * of.parameters
        return Work(
            products_flops=flops["products"],
            convolutions_flops=flops["convolutions"],
            attention_flops=flops["attention"],
            products_bytes=moved["products"],
            convolutions_bytes=moved["convolutions"],
            attention_bytes=moved["attention"],
            elementwise_bytes=moved["elementwise"],
            launches=max([stage.launches.at(*each) for _, each in tokens]),
        )

    def seconds(self, work: Work) -> float:
        """Seconds of a forward."""
        return forward_seconds(work, self.rates)

    def parts(self, work: Work) -> tuple[float, float, float]:
        """Seconds of starting kernels, of arithmetic and of moving data, each as if alone."""
        rates = self.rates
        compute = sum([getattr(work, f"{kind}_flops") / getattr(rates, kind) for kind in COMPUTING])
        computing_bytes = work.bytes - work.elementwise_bytes
        memory = (computing_bytes + rates.elementwise * work.elementwise_bytes) / rates.memory
        return work.launches * rates.launch, compute, memory

    def bound(self, work: Work) -> str:
        """What takes longest: ``launch``, ``compute`` or ``memory``."""
        host, compute, memory = self.parts(work)
        if host > max(compute, memory):
            return "launch"
        return "compute" if compute > memory else "memory"

    def with_rates(self, rates: Rates) -> Roofline:
        """The same where other rates are reached."""
        return replace(self, rates=rates)

    def facts(self) -> str:
        """Everything that decides its answers, as text."""
        setting = self.setting
        run = (setting.engine, setting.precision, setting.upcast, astuple(self.rates))
        return "\n".join([self.shape.model_dump_json(), setting.hardware.model_dump_json(), repr(run)])

    def _halo(self, composition: Composition) -> float:
        """The latent pixels along both sides of cuts, over all."""
        row = self.features.row(composition)
        return row[_HALO] * self.features.geometry.latent_factor / row[_PIXELS]
