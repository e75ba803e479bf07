"""What devices reach of their peaks: one hierarchy of efficiencies for all devices, engines and precisions.

A forward is products of matrices, convolutions, attention and operators that only move numbers, which take turns on
the device, and kernels that the host starts one after another. Each kind reaches its own share of a peak::

    seconds of a kind = hypot(flops / (peak x share), bytes / (bandwidth x memory))
    device            = products + convolutions + attention + elementwise x bytes / (bandwidth x memory)
    seconds           = hypot(device, launches x launch)

The logarithm of every share is a sum of *terms*: one of the kind, and one each of the engine, the precision, the
device, its generation, what its data sheet says beside its peaks, and the model; that of the seconds to start a kernel
has one of the host that a measurement was taken on, whose processor starts them. A term is known by its name and has a
prior; those of devices, generations and models are near zero, so a device that nobody measured is what its generation
and its data sheet say, and a model that nobody measured is what the others are. `predictors.efficiency_fit` fits the
terms to published measurements; ``profiles/efficiencies.toml`` holds them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from math import exp, log, log1p
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from predictors.hardware import PRECISIONS, Hardware
from traces.text import read_toml

ENGINES = ("eager", "compile", "vendor")
"""How a model is run: operators one by one; by torch.compile; by an engine of its own, such as TensorRT or OneDiff."""

COMPUTING = ("products", "convolutions", "attention")
"""Kinds of operators that take the longer of their arithmetic and their traffic."""

QUANTITIES = (*COMPUTING, "memory", "elementwise", "launch")
"""What terms add up to: shares of peak rates and of the bandwidth, the traffic of elementwise operators that is left,
and seconds to start a kernel."""

Z80 = 1.2816
"""Standard deviations from the middle of a normal distribution to either end of its middle 80 %."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What decides how efficient a stage of a model is.

    Attributes:
        hardware: the device.
        engine: one of `ENGINES`.
        precision: one of `predictors.hardware.PRECISIONS`, of the stage.
        network: the part of the model that runs, see `traces.stages.Stage`.
        model: whose it is.
        upcast: computed in float32 in a pipeline that runs in float16.
        details: what only measurements say of how they were run: remarks and software of `predictors.published`, and
            the host of the device.
    """

    hardware: Hardware
    engine: str = "eager"
    precision: str = "bfloat16"
    network: str = "denoiser"
    model: str = ""
    upcast: bool = False
    details: frozenset[str] = frozenset()

    @classmethod
    def of_stage(
        cls,
        hardware: Hardware,
        engine: str,
        precision: str,
        network: str,
        model: str,
        upcasts: bool = False,
        details: frozenset[str] = frozenset(),
    ) -> Setting:
        """Of a stage of a pipeline that runs in ``precision``: only denoisers are quantised, and an autoencoder that
        ``upcasts`` overflows in float16."""
        if PRECISIONS[precision].quantised and network != "denoiser":
            precision = "bfloat16" if hardware.bfloat16_flops is not None else "float16"
        upcast = upcasts and network == "vae" and precision == "float16" and "float32" in hardware.precisions
        if upcast:
            precision = "float32"
        return cls(hardware, engine, precision, network, model, upcast=upcast, details=details)

    def type_of(self, kind: str) -> str:
        """The type that operators of one of `COMPUTING` run in."""
        types: tuple[str, ...] = getattr(PRECISIONS[self.precision], kind)
        return next(name for name in types if self.hardware.rate([name]) is not None)

    @property
    def pads_heads(self) -> bool:
        """Whether its kernels of attention round the width of a head up."""
        return self.hardware.generation != "cpu"

    @property
    def sums_in_float16(self) -> bool:
        """Whether products are summed in float16 because that is faster: engines do, frameworks do not."""
        return (
            self.engine == "vendor"
            and self.precision == "float16"
            and self.hardware.float16_accumulate_flops is not None
        )

    def peak(self, kind: str) -> float:
        """The peak rate of operators of one of `COMPUTING`."""
        if self.sums_in_float16 and kind != "attention":
            assert self.hardware.float16_accumulate_flops is not None
            return self.hardware.float16_accumulate_flops
        rate = self.hardware.rate([self.type_of(kind)])
        assert rate is not None
        return rate

    def saturates(self, kind: str) -> bool:
        """Whether operators of a kind cannot do more arithmetic than the peak: in float32, convolutions by Winograd's
        algorithm do less of it than is counted."""
        return self.type_of(kind) != "float32"


Terms = dict[str, float]
"""Names of terms, and how often each counts."""


def terms(setting: Setting) -> dict[str, Terms]:
    """By quantity, the terms that its logarithm is the sum of."""
    sums: dict[str, Terms] = {quantity: {quantity: 1.0} for quantity in QUANTITIES}
    for kind in COMPUTING:
        sums[kind] = _computing(setting, kind)
    engine = setting.engine
    if engine != "eager":
        sums["elementwise"][f"elementwise {engine}"] = 1.0
        sums["launch"][f"launch {engine}"] = 1.0
    sums["launch"] |= {detail: 1.0 for detail in setting.details if detail.startswith("host ")}
    if setting.hardware.generation == "cpu":
        sums["memory"]["memory cpu"] = 1.0
    return sums


def _computing(setting: Setting, kind: str) -> Terms:
    kind_type, engine, hardware = setting.type_of(kind), setting.engine, setting.hardware
    decodes = setting.network == "vae"  # convolutions of many pixels and few channels, which generations hardly change
    found = {f"device {hardware.name}": 1.0}
    if kind_type == "float32":  # not on tensor cores, so what is known of these says nothing
        found[f"{kind} float32"] = 1.0
        if hardware.generation == "cpu":
            found["generation cpu"] = 1.0
    else:
        found |= {kind: 1.0, **_data_sheet(hardware)}
        if hardware.generation and not (decodes and kind == "convolutions"):
            found[f"generation {hardware.generation}"] = 1.0
            if kind == "attention":
                found[f"attention {hardware.generation}"] = 1.0
        if kind_type == "tf32":
            found["convolutions tf32" if kind == "convolutions" else "products tf32"] = 1.0
        if hardware.generation in _WITHOUT_ASYNCHRONOUS_COPIES:
            found["without asynchronous copies"] = 1.0
    if setting.sums_in_float16 and kind != "attention":
        found["float16 accumulate"] = 1.0
    if kind == "attention" and "unfused-attention" in setting.details:
        found["attention unfused"] = 1.0
    if engine != "eager":
        found[f"vae {engine}" if decodes and kind == "convolutions" else f"{kind} {engine}"] = 1.0
    if engine == "vendor":
        found |= {detail: 1.0 for detail in setting.details if detail.startswith("software ")}
    if engine == "compile" and AUTOTUNED in setting.details and kind == "products" and not decodes:
        found[f"products {AUTOTUNED}"] = 1.0
    if decodes and kind == "convolutions":
        found["convolutions vae"] = 1.0
        if setting.upcast:
            found["convolutions upcast"] = 1.0
    if not decodes and setting.model:
        found[f"model {setting.model}"] = 1.0
    if kind == "products" and PRECISIONS[setting.precision].quantised:
        how = _QUANTISED.get(setting.precision, setting.precision)
        found[f"products {how}"] = 1.0
        if engine == "eager":
            found[f"eager {how}"] = 1.0
    return found


_QUANTISED = {
    "int8-weights": "8-bit weights",
    "fp8-weights": "8-bit weights",
    "fp6-weights": "few-bit weights",
    "fp4-weights": "few-bit weights",
}


AUTOTUNED = "max-autotune"
"""The detail of a `Setting` that says that torch.compile tried kernels out and took the fastest."""


def host_of(source: str) -> str:
    """The detail of a `Setting` that says who measured, and so on which hosts."""
    return f"host {source}"


_WITHOUT_ASYNCHRONOUS_COPIES = ("volta", "turing")
"""Generations whose tensor cores wait for what threads copy to them, and for which there is no FlashAttention 2."""


def _data_sheet(hardware: Hardware) -> Terms:
    """Logarithms of what a data sheet says beside the peaks, against an A100's: a device with much arithmetic for its
    power, bandwidth or size reaches less of it."""
    rate = hardware.rate(("float16", "bfloat16"))
    if rate is None or hardware.watts is None or hardware.multiprocessors is None:
        return {}
    return {
        "flops a watt": log(rate / hardware.watts / (312e12 / 400)),
        "flops a byte": log(rate / hardware.memory_bytes_per_s / (312e12 / 2.039e12)),
        "multiprocessors": log(hardware.multiprocessors / 108),
    }


@dataclass(frozen=True, slots=True)
class Prior:
    """A normal distribution of a term."""

    mean: float
    sd: float


def _shares(**shares: tuple[float, float]) -> dict[str, Prior]:
    return {name: Prior(log(share), sd) for name, (share, sd) in shares.items()}


_PRIORS: dict[str, Prior] = {
    **_shares(products=(0.6, 0.5), convolutions=(0.45, 0.5), attention=(0.45, 0.5)),
    **_shares(memory=(0.75, 0.3), launch=(1.2e-5, 0.7)),
    "elementwise": Prior(0.0, 0.001),  # memory says it for eager execution
    "float16 accumulate": Prior(log(0.65), 0.2),
    "products tf32": Prior(log(0.9), 0.4),
    "convolutions tf32": Prior(log(0.9), 0.4),
    "products float32": Prior(log(0.8), 0.3),
    "convolutions float32": Prior(log(1.2), 0.5),
    "attention float32": Prior(log(0.6), 0.5),
    "generation cpu": Prior(log(0.4), 0.5),  # near what tiny-image reaches on a core
    "memory cpu": Prior(log(0.4), 0.5),
    "convolutions vae": Prior(0.0, 0.5),
    "convolutions upcast": Prior(0.0, 0.2),
    "attention unfused": Prior(log(0.25), 0.5),
    "without asynchronous copies": Prior(0.0, 0.3),
    "flops a watt": Prior(-0.2, 0.2),
    "flops a byte": Prior(0.0, 0.15),
    "multiprocessors": Prior(0.0, 0.15),
    **{f"{kind} compile": Prior(0.1, 0.2) for kind in COMPUTING},
    f"products {AUTOTUNED}": Prior(0.1, 0.2),
    **{f"{kind} vendor": Prior(0.15, 0.2) for kind in COMPUTING},
    **{f"vae {engine}": Prior(0.15, 0.2) for engine in ("compile", "vendor")},
    **{f"{what} {engine}": Prior(log(0.4), 0.5) for what in ("elementwise", "launch") for engine in ENGINES[1:]},
    "products fp8": Prior(log(0.6), 0.5),
    "products int8": Prior(log(0.6), 0.5),
    "products fp4": Prior(log(0.5), 0.5),
    "products int4": Prior(log(0.3), 0.5),
    "products int4-weights": Prior(log(0.1), 0.7),  # kernels for a few rows, as language models have
    "products 8-bit weights": Prior(log(0.8), 0.5),
    "products few-bit weights": Prior(log(0.5), 0.5),
}

_FAMILIES = {
    "device": Prior(0.0, 0.05),
    "generation": Prior(0.0, 0.2),
    "attention": Prior(0.0, 0.1),
    "model": Prior(0.0, 0.14),
    "software": Prior(0.0, 0.1),
    "host": Prior(0.0, 0.3),
    "eager": Prior(log(0.6), 0.6),
}
"""Of terms without a prior of their own, by the first word of their names."""


def prior(term: str, others: Mapping[str, Prior] | None = None) -> Prior:
    """What is thought of a term before anything was measured.

    Args:
        others: by the name of a term, or of a family of terms, what is thought in place of that.
    """
    instead, family = others or {}, term.partition(" ")[0]
    if term in instead:
        return instead[term]
    return _PRIORS.get(term) or instead.get(family) or _FAMILIES[family]


@dataclass(frozen=True, slots=True)
class Rates:
    """What a stage reaches.

    Attributes:
        products, convolutions, attention: operations a second.
        memory: bytes a second.
        elementwise: share of the traffic of elementwise operators that is left.
        launch: seconds to start a kernel.
    """

    products: float
    convolutions: float
    attention: float
    memory: float
    elementwise: float
    launch: float


@dataclass(frozen=True, slots=True)
class Work:
    """What a forward of a batch takes.

    Attributes:
        products_flops, convolutions_flops, attention_flops: arithmetic, multiply-adds counted twice.
        products_bytes, convolutions_bytes, attention_bytes, elementwise_bytes: traffic, activations and parameters.
        launches: kernels.
    """

    products_flops: float
    convolutions_flops: float
    attention_flops: float
    products_bytes: float
    convolutions_bytes: float
    attention_bytes: float
    elementwise_bytes: float
    launches: float

    @property
    def flops(self) -> float:
        """All arithmetic."""
        return self.products_flops + self.convolutions_flops + self.attention_flops

    @property
    def bytes(self) -> float:
        """All traffic."""
        return self.products_bytes + self.convolutions_bytes + self.attention_bytes + self.elementwise_bytes


def device_seconds(work: Work, rates: Rates) -> float:
    """Seconds of a forward on a device that never waits for its host."""
    memory = rates.memory
    return (
        _together(work.products_flops / rates.products, work.products_bytes / memory)
        + _together(work.convolutions_flops / rates.convolutions, work.convolutions_bytes / memory)
        + _together(work.attention_flops / rates.attention, work.attention_bytes / memory)
        + rates.elementwise * work.elementwise_bytes / memory
    )


def forward_seconds(work: Work, rates: Rates) -> float:
    """Seconds of a forward; of several, where the figures of ``work`` are arrays of one shape."""
    return _together(device_seconds(work, rates), work.launches * rates.launch)


def _together(one: float, other: float) -> float:
    """Seconds of two things that run beside each other: the longer, rounded off where they meet."""
    return (one * one + other * other) ** 0.5


class Spread(BaseModel):
    """How far estimates of one class were from measurements that were left out, as standard deviations of logarithms:
    an 80 % interval is `Z80` of them wide on either side.

    Attributes:
        seen: the source, the device and the model were measured.
        source: somebody else measures, whose host and habits nobody knows: whoever asks for an estimate.
        device: no measurement of the device.
        generation: no measurement of its generation.
        model: no measurement of the model.
        sources, devices, generations, models: those that were measured in this class.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    seen: float
    source: float
    device: float
    generation: float
    model: float
    sources: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    generations: tuple[str, ...] = ()
    models: tuple[str, ...] = ()

    def log_sd(self, setting: Setting) -> float:
        """Of an estimate, by what of it was measured."""
        hardware, known = setting.hardware, [self.seen]
        if not any(host_of(source) in setting.details for source in self.sources):
            known.append(self.source)
        if hardware.name not in self.devices:
            known.append(self.device if hardware.generation in self.generations else self.generation)
        beyond = 0.0 if setting.model in self.models else max(0.0, self.model**2 - self.seen**2)
        return float((max(known) ** 2 + beyond) ** 0.5)


class Efficiencies(BaseModel):
    """The fitted terms and how far to trust what follows from them.

    Attributes:
        terms: by name; what is not among them is at its prior's mean.
        spreads: by class, see `error_class`.
        misfit: standard deviation of the logarithm of measured over predicted seconds among batches of one device and
            model: what no efficiency explains.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    terms: dict[str, float]
    spreads: dict[str, Spread]
    misfit: float

    def value(self, term: str) -> float:
        """Of one term."""
        found = self.terms.get(term)
        return prior(term).mean if found is None else found

    def rates(self, setting: Setting) -> Rates:
        """What a stage reaches."""
        logs = {
            quantity: sum([weight * self.value(name) for name, weight in of.items()])
            for quantity, of in terms(setting).items()
        }
        shares = {kind: share(logs[kind], setting.saturates(kind)) for kind in COMPUTING}
        return Rates(
            products=setting.peak("products") * shares["products"],
            convolutions=setting.peak("convolutions") * shares["convolutions"],
            attention=setting.peak("attention") * shares["attention"],
            memory=setting.hardware.memory_bytes_per_s * exp(logs["memory"]),
            elementwise=exp(logs["elementwise"]),
            launch=exp(logs["launch"]),
        )

    def log_sd(self, setting: Setting) -> float:
        """Standard deviation of the logarithm of true over predicted seconds.

        That of a quantisation that nobody measured is wider by half of what is unknown of its products, which are about
        half of the time.
        """
        known = self.spreads[error_class(setting)].log_sd(setting)
        how = [term for term in terms(setting)["products"] if term.startswith("products ") and term not in self.terms]
        return float((known**2 + sum([(prior(term).sd / 2) ** 2 for term in how])) ** 0.5)


def error_class(setting: Setting) -> str:
    """What errors are alike: how a denoiser is run, or a decoder."""
    if setting.network == "vae":
        return "decode"
    if PRECISIONS[setting.precision].quantised:
        return "quantised eager" if setting.engine == "eager" else "quantised compiled"
    if setting.precision in ("float32", "tf32"):
        return "float32"
    return {"eager": "eager", "compile": "compiled", "vendor": "vendor"}[setting.engine]


def share(logarithm: float, saturates: bool) -> float:
    """The share of a peak: what its logarithm says, bent to stay below 1 where the peak is a limit."""
    return exp(-0.5 * log1p(exp(-2 * logarithm))) if saturates else exp(logarithm)


def load_efficiencies(path: Path) -> Efficiencies:
    """The table that ``python -m tools.efficiencies`` wrote."""
    return Efficiencies.model_validate(read_toml(path))


@cache
def shipped_efficiencies() -> Efficiencies:
    """Those that ship with Tilecast."""
    return load_efficiencies(Path(str(files("profiles"))) / "efficiencies.toml")
