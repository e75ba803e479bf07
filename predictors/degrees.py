"""What a step of denoising or decoding costs on several devices: seconds by the degree.

A step takes the longer of what its hosts need to start it and of what its devices do::

    host    = kernels x start + exchanges x exchange_starts x start
    devices = seconds of one x (unshared + (1 - unshared) x share) + bytes / bandwidth

with ``start`` the seconds to start a kernel and ``share`` the seconds of the busiest device over those of one, both by
the roofline: all devices read all parameters, and what they share is cut as `predictors.parallel` says. Kernels,
exchanges and bytes follow from the model's shape. Devices that decode together have bands of rows, as
`backend.devices.bands` has them; where one alone is faster, it decodes alone. What else counts, `DegreeRates` says,
fitted to published measurements (``profiles/degrees.toml``) or to a profile's rows of several devices.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from importlib.resources import files
from math import prod
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat

from predictors.costs import Batch, CostLayer, CostModel
from predictors.efficiency import device_seconds, shipped_efficiencies
from predictors.link import Link
from predictors.parallel import WHOLE, Cut, Parallel, cut_of, degrees_of
from predictors.roofline import Roofline
from predictors.shapes import COUNTED_BYTES, ModelShape
from predictors.shards import BandTraffic, even_parts
from traces.composition import Composition
from traces.geometry import ModelGeometry
from traces.request import Size
from traces.stages import STAGES
from traces.text import read_toml

DIRECT = "direct"
"""Links that devices have to each other, such as NVLink."""
HOST = "host"
"""Links by way of the host, such as PCIe."""


class MeasuredDegree(BaseModel):
    """What measurements at one degree say beyond the rates.

    Attributes:
        factor: of the seconds that the rates say.
        log_sd: standard deviation of the logarithm of true over predicted seconds.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    factor: PositiveFloat
    log_sd: NonNegativeFloat


class DegreeRates(BaseModel):
    """What sharing a step loses.

    Attributes:
        unshared: share of one device's seconds that each device takes whatever the degree.
        exchange_starts: an exchange keeps a host as long as starting so many kernels.
        link_share: what links reach of what their data sheet says, `DIRECT` and `HOST`.
        latency_s: seconds that devices wait for an exchange besides its bytes.
        divide_s: seconds that a step takes longer because it is divided, whatever is exchanged.
        log_sd: standard deviation of the logarithm of true over predicted seconds on several devices, where those on
            one are known.
        measured: degrees that were measured themselves.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    unshared: float = Field(ge=0, lt=1)
    exchange_starts: NonNegativeFloat
    link_share: Mapping[str, PositiveFloat]
    latency_s: NonNegativeFloat = Link().latency_s
    divide_s: NonNegativeFloat = 0.0
    log_sd: NonNegativeFloat
    measured: Mapping[int, MeasuredDegree] = Field(default_factory=dict)

    def seconds(self, one_s: float, step: SharedStep, link: Link) -> float:
        """Seconds of a step that takes ``one_s`` on one device."""
        host_s, device_s, link_s = self.parts(one_s, step, link)
        return self.divide_s + max(host_s, device_s + link_s)

    def parts(self, one_s: float, step: SharedStep, link: Link) -> tuple[float, float, float]:
        """Seconds that hosts start kernels and exchanges, that devices work, and that links move bytes."""
        host_s = min(step.kernels * step.start_s, one_s) + step.exchanges * self.exchange_starts * step.start_s
        device_s = one_s * (self.unshared + (1 - self.unshared) * step.share)
        return host_s, device_s, link.seconds(step.moved_bytes, step.exchanges)

    def log_sd_of(self, devices: int) -> float:
        """The standard deviation at one degree."""
        found = self.measured.get(devices)
        return self.log_sd if found is None else found.log_sd


@cache
def shipped_degree_rates() -> DegreeRates:
    """Those that ship with Tilecast, fitted by ``python -m tools.degrees``."""
    return DegreeRates.model_validate(read_toml(Path(str(files("profiles"))) / "degrees.toml"))


def link_kind(bytes_per_s: float) -> str:
    """`DIRECT` or `HOST`, of a link that moves so many bytes in one direction."""
    return DIRECT if bytes_per_s > _FASTEST_HOST_LINK else HOST


_FASTEST_HOST_LINK = 64e9  # bytes a second in one direction: PCIe 5.0 with 16 lanes


def link_at(bytes_per_s: float, rates: DegreeRates) -> Link:
    """A link whose data sheet says so many bytes in one direction, as fast as links are."""
    return Link(rates.latency_s, 2 * bytes_per_s * rates.link_share[link_kind(bytes_per_s)])


@dataclass(frozen=True, slots=True)
class SharedStep:
    """What a step on several devices takes.

    Attributes:
        share: of one device's seconds, that the busiest has.
        kernels: that each host starts.
        start_s: seconds to start one.
        exchanges: around attention.
        moved_bytes: that one device sends and receives in them.
    """

    share: float
    kernels: float = 0.0
    start_s: float = 0.0
    exchanges: int = 0
    moved_bytes: float = 0.0


@dataclass(frozen=True)
class Sharing:
    """How devices share one model's steps.

    Attributes:
        shape: of the model; None: it was not counted, and nothing is known of what devices exchange.
        geometry: of the model.
        executor: how batches are denoised, see `predictors.profile.EXECUTORS`.
        roofline: of denoising on one device; None: nothing is known but the seconds.
        decoding: the same of decoding.
        number_bytes: bytes of a number that is exchanged.
    """

    shape: ModelShape | None
    geometry: ModelGeometry
    executor: str = "whole"
    roofline: Roofline | None = None
    number_bytes: float = 2.0
    decoding: Roofline | None = None
    _wholes: dict[tuple[Composition, bool, float | None], float] = field(default_factory=dict, init=False, repr=False)

    def shared(self, batch: Batch, devices: int, guided: bool, parallel: Parallel | None = None) -> SharedStep:
        """A denoising step of a batch on so many devices, all of its images guided or none.

        Args:
            batch, devices, guided: as it says.
            parallel: how they share images of one size; None: as `Parallel.of`.
        """
        if self.shape is None:
            images = sum([n for _, n in batch.composition])
            divided = Parallel.of(devices, images, guided).ulysses > 1 or len(batch.composition) > 1
            return SharedStep(1 / devices, exchanges=int(divided))
        shape, sequence = self.shape.denoise, self.shape.denoise.sequence
        own = whole = sent = kernels = 0.0
        exchanges = 0
        for forward in self._forwards(batch.composition):
            tokens = [(n, self.shape.tokens(_DENOISE, self.geometry, size)) for size, n in forward]
            sized = [(n, area * frames) for n, (area, frames) in tokens]
            cut = cut_of(sized, guided, devices, sequence, parallel)
            own += self._weight(forward, batch, guided, cut)
            whole += self._whole(forward, batch, guided)
            calls = self._calls(forward, guided, parallel or Parallel.of(devices, forward[0][1], guided))
            kernels += calls * max([shape.launches.at(*each) for _, each in tokens])
            if cut.divided and sequence is not None:
                exchanges += 2 * sequence.layers * calls
                sent += cut.sent * (1 + guided) * sum([n * sequence.bytes.at(*each) for n, each in tokens])
        return SharedStep(
            share=own / whole,
            kernels=kernels,
            start_s=self._start_s,
            exchanges=exchanges,
            moved_bytes=2 * sent * self.number_bytes / COUNTED_BYTES,
        )

    def decoded(self, batch: Batch, devices: int) -> SharedStep:
        """Decoding a batch on so many devices: pictures of one size at a time, each device some of their rows."""
        bands = None if self.shape is None else self.shape.decode.bands
        if self.shape is None or bands is None:
            return SharedStep(1 / devices, exchanges=1)
        own = whole = moved = kernels = 0.0
        exchanges = 0
        for size, images in batch.composition:
            tokens = self.shape.tokens(_DECODE, self.geometry, size)
            _, frames, height, width = self.geometry.latent_shape(size)
            rows = even_parts(height, min(devices, height))
            traffic = BandTraffic(
                edge_bytes=images * bands.edge_bytes.at(width, frames),
                moment_bytes=images * bands.moment_bytes.at(*tokens),
                key_bytes=images * bands.key_bytes.at(*tokens) / height,
                given_bytes=images * COUNTED_BYTES * 3 * prod(size[:3]) / height,
                exchanges=round(bands.exchanges.at(*tokens)) + 1,
            )
            share = max(rows) / height
            own += self._decoding_weight((size, images), Cut(tokens=share, attention=share))
            whole += self._decoding_weight((size, images), WHOLE)
            moved += traffic.moved_bytes(rows)
            exchanges += traffic.exchanges
            kernels += self.shape.decode.launches.at(*tokens)
        return SharedStep(
            share=own / whole,
            kernels=kernels,
            start_s=self._start_s,
            exchanges=exchanges,
            moved_bytes=moved * self.number_bytes / COUNTED_BYTES,
        )

    def _decoding_weight(self, item: tuple[Size, int], cut: Cut) -> float:
        """What decoding images of a size takes of the busiest device, in any one unit."""
        size, images = item
        if self.decoding is None:
            return cut.tokens * images * prod(size[:3])
        return device_seconds(self.decoding.work((item,), cut=cut), self.decoding.rates)

    def _forwards(self, composition: Composition) -> list[Composition]:
        """What runs together: stacking takes equal sizes."""
        return [(item,) for item in composition] if self.executor == "whole" else [composition]

    def _calls(self, forward: Composition, guided: bool, parallel: Parallel) -> int:
        """How often each device calls the denoiser: true CFG once for each guidance row, unless these run apart."""
        assert self.shape is not None
        apart = len(forward) == 1 and parallel.cfg > 1
        return 2 if guided and self.shape.guidance_rows == 1 and not apart else 1

    def _whole(self, forward: Composition, batch: Batch, guided: bool) -> float:
        key = (forward, guided, batch.computed)
        found = self._wholes.get(key)
        if found is None:
            found = self._wholes[key] = self._weight(forward, batch, guided, WHOLE)
        return found

    def _weight(self, forward: Composition, batch: Batch, guided: bool, cut: Cut) -> float:
        """What a forward takes of the busiest device, in any one unit."""
        if self.roofline is None:
            return cut.tokens * sum([n * self.geometry.tokens(size) for size, n in forward])
        computed = 1.0 if batch.computed is None else batch.computed
        return device_seconds(self.roofline.work(forward, float(guided), computed, cut), self.roofline.rates)

    @cached_property
    def _start_s(self) -> float:
        """Engines of their own that share steps run PyTorch's operators, so they start as many kernels as it does."""
        if self.roofline is None:
            return USUAL_START_S
        if self.roofline.setting.engine != "vendor":
            return self.roofline.rates.launch
        return shipped_efficiencies().rates(replace(self.roofline.setting, engine="eager")).launch


USUAL_START_S = 3e-5
"""Seconds to start a kernel on a host of which nothing is known: PyTorch, see ``launch`` in
``profiles/efficiencies.toml``."""

(_DECODE,) = STAGES.named(lambda stage: stage.divides and stage.finishes)
(_DENOISE,) = STAGES.named(lambda stage: stage.divides and stage.sampler)


class ParallelCosts(CostLayer):
    """A table of one model's seconds on one device that knows what they are on several.

    Args:
        table: seconds on one device, which are answered as they are for one.
        sharing: how the model's steps are shared.
        devices: of a replica.
        link: between them.
        rates: what sharing a denoising step loses.
        decoding: the link as decoding finds it, and what sharing that loses; None: as denoising.
        decodes: whether devices may decode together, if they can.
    """

    def __init__(
        self,
        table: CostModel,
        sharing: Sharing,
        devices: int,
        *,
        link: Link,
        rates: DegreeRates,
        decoding: tuple[Link, DegreeRates] | None = None,
        decodes: bool = True,
    ) -> None:
        super().__init__(table)
        self.sharing = sharing
        self.devices = devices
        self.link = link
        self.rates = rates
        self.decoding = decoding or (link, rates.model_copy(update={"measured": {}}))
        possible = (1,) if sharing.shape is None else degrees_of(sharing.shape, sharing.geometry, devices)
        self._degrees = tuple(sorted({*possible, *[degree for degree in rates.measured if degree <= devices]}))
        self._decodes = decodes
        self._has_bands = sharing.shape is not None and sharing.shape.decode.bands is not None
        self._known: dict[tuple[str, Batch], float] = {}

    def step_s(self, stage: str, batch: Batch) -> float:
        """Seconds of one step; one that is not divided takes what it takes on one device.

        What moves a batch to other devices takes as long as all its latents from one device.
        """
        value = self._known.get((stage, batch))
        if value is None:
            row = STAGES[stage]
            if row.moves:
                value = self.link.seconds(self.moved_bytes(stage, batch), 1)
            else:
                devices = self._devices(batch)
                value = self.table.step_s(stage, batch._replace(devices=None))
                if devices > 1 and row.divides:
                    value = self._several_s(batch, devices, value) if row.sampler else self._decoded_s(batch, value)
            if not self.learns:
                self._known[stage, batch] = value
        return value

    def _several_s(self, batch: Batch, devices: int, one_s: float) -> float:
        seconds = 0.0
        for part, guided in ((1 - batch.guided_share, False), (batch.guided_share, True)):
            if part > 0:
                step = self.sharing.shared(batch, devices, guided)
                seconds += part * self.rates.seconds(one_s, step, self.link)
        measured = self.rates.measured.get(devices)
        return seconds if measured is None else measured.factor * seconds

    def _devices(self, batch: Batch) -> int:
        return self._degrees[-1] if batch.devices is None else batch.devices

    def _decoded_s(self, batch: Batch, one_s: float) -> float:
        """Seconds of decoding, on all devices or on one, whichever is faster."""
        devices = self._devices(batch)
        link, rates = self.decoding
        measured = rates.measured.get(devices)
        if not self._decodes or not (measured or self._has_bands):
            return one_s
        several_s = rates.seconds(one_s, self.sharing.decoded(batch, devices), link)
        return min(one_s, several_s if measured is None else measured.factor * several_s)

    def degree(self, stage: str, batch: Batch) -> int:
        row, devices = STAGES[stage], self._devices(batch)
        if not row.divides or row.sampler:
            return devices if row.divides or row.devices else 1
        one_s = self.table.step_s(stage, batch._replace(devices=None))
        return devices if devices > 1 and self._decoded_s(batch, one_s) < one_s else 1

    def bound(self, batch: Batch) -> str:
        """What a denoising step on several devices takes longest for: ``host``, ``devices`` or ``link``."""
        assert batch.devices is not None
        one_s = self.table.step_s(_DENOISE, batch._replace(devices=None))
        step = self.sharing.shared(batch, batch.devices, batch.guided_share >= 0.5)
        host_s, device_s, link_s = self.rates.parts(one_s, step, self.link)
        if host_s > device_s + link_s:
            return "host"
        return "devices" if device_s >= link_s else "link"

    def moved_bytes(self, stage: str, batch: Batch) -> float:
        return latent_bytes(self.sharing.geometry, batch.composition) if STAGES[stage].moves else 0.0

    def degrees(self, model: str) -> tuple[int, ...]:
        return self._degrees

    def extrapolation(self, stage: str, composition: Composition) -> float:
        return 1.0 if STAGES[stage].moves else super().extrapolation(stage, composition)


def latent_bytes(geometry: ModelGeometry, composition: Composition) -> float:
    """What moves with a batch between two steps: its latents, which samplers keep in float32."""
    return 4.0 * sum([images * prod(geometry.latent_shape(size)) for size, images in composition])
