"""The latency table: what policies and the simulator ask for the seconds of a step.

A table is fitted from a profile when it is loaded and then remembers every answer, so that asking again is
one dictionary lookup. It answers with the latency model's prediction, never with the median of a measured composition:
that counts by its repeats in `predictors.gaussian`, which predicts a repeat of a measured batch from its other repeats
better than their median (``python -m benchmarks.latency_models``, rows held out by ``repeat``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import exp, isfinite
from typing import TYPE_CHECKING

from predictors.basis import MEASURED
from predictors.costs import Batch, CostModel, RepeatNoise
from predictors.features import FeatureMap
from predictors.fit_cache import kept_fit
from predictors.measured import MeasuredRange
from predictors.measurements import Measurements
from predictors.misfit import Misfits
from predictors.profile import MEASURED_STAGES, Profile
from traces.composition import Composition, composition_of
from traces.errors import BadInput
from traces.geometry import ModelGeometry, geometry_of
from traces.request import Request, Size
from traces.sizes import format_size
from traces.stages import ORDINARY, STAGES

if TYPE_CHECKING:
    from predictors.forms import Seconds


class StageCost:
    """One stage: seconds per step, where they were measured, and how noisy.

    Attributes:
        features: stage, executor and geometry.
        measured: where it was measured; None: nowhere.
        noise: how measurements of one batch differ.
        basis: see `predictors.basis`.
        log_sd: standard deviation of the logarithm of true over predicted seconds, one error common to all batches of
            the stage; 0.0 where it was measured.
        misfits: measured batches that the seconds miss by more than their noise.
    """

    features: FeatureMap
    measured: MeasuredRange | None
    noise: RepeatNoise
    basis: str
    log_sd: float
    misfits: Misfits = Misfits()

    def forwards(self, composition: Composition) -> Sequence[Composition]:
        """What runs together."""
        raise NotImplementedError

    def of(self, composition: Composition, guided: float, computed: float, cached: bool) -> float:
        """Seconds of one step; see `FeatureMap.row`."""
        raise NotImplementedError


@dataclass(frozen=True)
class FittedCost(StageCost):
    """One fitted stage: features -> seconds per step, where it was measured, and how noisy.

    ``latency_model`` is what was fitted: the one that was chosen, where it was to be.
    """

    features: FeatureMap
    seconds: Seconds
    measured: MeasuredRange
    noise: RepeatNoise
    latency_model: str
    misfits: Misfits
    basis: str = MEASURED
    log_sd: float = 0.0

    def forwards(self, composition: Composition) -> Sequence[Composition]:
        """What runs together: stacking takes equal sizes, so whole images of several sizes take turns."""
        if self.features.executor == "whole" and len(composition) > self.measured.most_sizes:
            return [(item,) for item in composition]
        return [composition]

    def of(self, composition: Composition, guided: float, computed: float, cached: bool) -> float:
        """Seconds of one step; see `FeatureMap.row`."""
        row = self.features.row
        return sum([self.seconds(row(c, guided, computed, cached)) for c in self.forwards(composition)])


@dataclass(frozen=True, eq=False)
class LatencyModel(CostModel):
    """Seconds per step of any composition, for one model run by one executor.

    Attributes:
        model: as the profile calls it.
        hardware: what was measured.
        executor: how batches are denoised: ``whole``, ``patched`` or ``packed``.
        latency_model: the name in `predictors.latency.LATENCY_MODELS`, or ``roofline``.
        costs: the stages whose seconds are known.
        data_hash: of everything that they were fitted to: the profile's `Profile.content_hash`.
        factor: every second is multiplied by this.
        shift: the seconds of a stage are multiplied by the exponential of this many of its `log_sds`, too.
    """

    model: str
    hardware: str
    executor: str
    latency_model: str
    costs: Mapping[str, StageCost]
    data_hash: str
    factor: float = 1.0
    shift: float = 0.0
    _seconds: dict[tuple[str, Batch], float] = field(default_factory=dict, init=False, repr=False)
    _outside: dict[tuple[str, Composition], float] = field(default_factory=dict, init=False, repr=False)
    _standalone: dict[tuple[Size, int, int, bool], float] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def fit(
        cls,
        profile: Profile,
        model: str,
        executor: str = "whole",
        latency_model: str = "auto",
        geometry: ModelGeometry | None = None,
    ) -> LatencyModel:
        """Fit one latency model a stage to the rows of ``model`` run by ``executor``.

        The executor is how batches are *denoised*: encode and decode that were measured only whole are fitted
        from whole rows, and `stage_executors` says so. Rows of two executors never enter one fit.

        Args:
            geometry: geometry of the model; by default the known one of this name.

        Raises:
            BadInput: the profile has no such rows, or the model's geometry or the latency model is unknown.
        """
        geometry = geometry_of(model) if geometry is None else geometry
        own = profile.select(model, executor)
        whole = profile.select(model, "whole") if "whole" in profile.executors(model) else own
        costs: dict[str, StageCost] = {}
        for stage in MEASURED_STAGES:
            source = own if STAGES[stage].by_executor or stage in own.stages(model) else whole
            if stage in source.stages(model):
                data = Measurements.of(source, stage, geometry)
                fit = kept_fit(data, source.content_hash, latency_model)
                measured = MeasuredRange.of(data.compositions, geometry)
                costs[stage] = FittedCost(
                    features=data.features,
                    seconds=fit.seconds,
                    measured=measured,
                    noise=fit.noise,
                    latency_model=fit.latency_model,
                    misfits=fit.misfits,
                )
        return cls(model, profile.hardware, executor, latency_model, costs, profile.content_hash)

    def step_s(self, stage: str, batch: Batch) -> float:
        """Seconds of one step of ``stage`` for a batch; 0.0 for a stage that was not measured.

        The share that a cache computes counts to the nearest hundredth, so that the answer can be remembered.

        Raises:
            BadInput: a stage that is never measured.
        """
        try:
            return self._seconds[stage, batch]
        except KeyError:
            pass
        computed = batch.computed
        if computed is not None and computed != (rounded := max(0.01, round(computed, 2))):
            return self.step_s(stage, batch._replace(computed=rounded))
        cost = self._cost(stage)
        value = 0.0
        if cost is not None:
            share = 1.0 if computed is None else computed
            factor = self.factor * exp(self.shift * cost.log_sd)
            value = factor * cost.of(batch.composition, batch.guided_share, share, computed is not None)
        self._seconds[stage, batch] = value
        return value

    def standalone_s(self, request: Request) -> float:
        """Seconds of a request alone on an idle replica: encode, all its denoising steps, decode."""
        key = (request.shape, request.images, request.steps, request.guided)
        try:
            return self._standalone[key]
        except KeyError:
            value = self._standalone[key] = super().standalone_s(request)
            return value

    def extrapolation(self, stage: str, composition: Composition) -> float:
        """1.0 inside the measured range, else the factor by which the worst feature lies outside.

        Features: the largest and the smallest image's tokens, tokens in all, images. A stage without measurements
        gives 1.0: what it is worth, `basis` says.
        """
        key = (stage, composition)
        try:
            return self._outside[key]
        except KeyError:
            cost = self._cost(stage)
            known = None if cost is None else cost.measured
            value = 1.0
            if cost is not None and known is not None:
                value = max(map(known.factor, cost.forwards(composition)))
            self._outside[key] = value
            return value

    def tabulate(self, sizes: Iterable[Size], max_images: int, guided: float = 1.0) -> None:
        """Remember the seconds of ordinary requests' stages for batches of 1 to ``max_images`` images of one size.

        The answers are those `step_s` would give later, to the last bit: a run does not depend on what was
        tabulated.
        """
        for size in sizes:
            for images in range(1, max_images + 1):
                composition = composition_of([(size, images)])
                for stage in ORDINARY:
                    self.step_s(stage, Batch(self.model, composition, guided))
                    self.extrapolation(stage, composition)

    def noise(self, stage: str) -> RepeatNoise:
        """How measurements of one batch differ; no noise for an unmeasured stage."""
        cost = self._cost(stage)
        return RepeatNoise() if cost is None else cost.noise

    def scaled(self, factor: float) -> LatencyModel:
        """The same table with every second multiplied: what if the prediction were 20 % off?

        Raises:
            BadInput: the factor is not above 0.
        """
        if not 0 < factor < float("inf"):
            raise BadInput(f"factor is {factor}, expected a number above 0")
        return replace(self, factor=self.factor * factor)

    def shifted(self, z: float) -> LatencyModel:
        """The same table with the seconds of every stage multiplied by exp(``z`` times its log_sd): -1.2816 and 1.2816
        are the ends of an 80 % interval of a stage. Measured stages stay as they are.

        Raises:
            BadInput: z is not finite.
        """
        if not isfinite(z):
            raise BadInput(f"z is {z}, expected a finite number of standard deviations")
        return self if z == 0 else replace(self, shift=self.shift + z)

    @property
    def unmeasured_stages(self) -> tuple[str, ...]:
        """Stages of ordinary requests that cost 0.0 seconds here because the profile has none of them."""
        return tuple(stage for stage in ORDINARY if stage not in self.costs)

    @property
    def bases(self) -> dict[str, str]:
        """Stage -> how far to trust its seconds, see `predictors.basis`."""
        return {stage: cost.basis for stage, cost in self.costs.items()}

    @property
    def log_sds(self) -> dict[str, float]:
        """Stage -> how uncertain its seconds are, see `StageCost`."""
        return {stage: cost.log_sd for stage, cost in self.costs.items()}

    @property
    def basis(self) -> str:
        """How far to trust the table: as far as its denoising step."""
        return self.bases.get("denoise", MEASURED)

    @property
    def fitted_models(self) -> dict[str, str]:
        """Fitted stage -> the name of what was fitted, chosen where `latency_model` is ``auto``."""
        return {stage: cost.latency_model for stage, cost in self.costs.items() if isinstance(cost, FittedCost)}

    @property
    def misfits(self) -> list[str]:
        """Of each stage that misses measured batches by more than their noise, a sentence that names the worst."""
        said = [cost.misfits.sentence(stage) for stage, cost in self.costs.items()]
        return [sentence for sentence in said if sentence is not None]

    @property
    def stage_executors(self) -> dict[str, str]:
        """Measured stage -> the executor whose rows it was fitted from."""
        return {stage: cost.features.executor for stage, cost in self.costs.items()}

    @property
    def content_hash(self) -> str:
        """SHA-256 over the measured data and all choices; another second anywhere gives another hash."""
        chosen = [self.data_hash, self.model, self.executor, self.latency_model, repr(self.factor)]
        if self.shift:
            chosen.append(f"shift {self.shift!r} {sorted(self.log_sds.items())}")
        return hashlib.sha256("\n".join(chosen).encode()).hexdigest()

    def _cost(self, stage: str) -> StageCost | None:
        if not STAGES[stage].measured:
            raise BadInput(f"stage {stage!r} is never measured; those that are: {', '.join(MEASURED_STAGES)}")
        return self.costs.get(stage)


def check_supported(table: LatencyModel, asked: Iterable[Request | Size], limit: float = 4.0) -> None:
    """Refuse images that are far larger than any measured: nothing says what they would cost.

    Only above the range is refused, by tokens per image in the denoising step; below it is only marked
    (`LatencyModel.extrapolates`).

    Raises:
        BadInput: the first request or size with more than ``limit`` times the largest measured tokens per
            image.
    """
    cost = table.costs.get("denoise")
    measured = None if cost is None else cost.measured
    if measured is None:
        return
    within: set[Size] = set()
    for item in asked:
        size = item.shape if isinstance(item, Request) else item
        if size in within:
            continue
        if (above := measured.above(size)) <= limit:
            within.add(size)
        else:
            whose = f"request {item.request_id!r}: " if isinstance(item, Request) else ""
            raise BadInput(
                f"{whose}size {format_size(size)} has {above:.1f} times the tokens of the largest size "
                f"measured for {table.model!r} on {table.hardware} ({format_size(measured.largest)}), "
                f"expected at most {limit:g} times; profile larger sizes"
            )
