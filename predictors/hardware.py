"""Hardware kinds and what they can do at best: ``profiles/hardware.toml``, or a user's file of that form."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

from predictors.catalogue import entry_of, load_entries
from traces.errors import BadInput

_HALF = ("bfloat16", "float16")


@dataclass(frozen=True)
class Precision:
    """What a model computes in.

    Attributes:
        products: the types, of `Hardware`'s rates, that its products of matrices run in: the first that a device has.
        convolutions, attention: likewise.
        number_bytes: bytes of a number between operators.
        weight_bytes: bytes of a parameter.
    """

    products: tuple[str, ...]
    convolutions: tuple[str, ...]
    attention: tuple[str, ...]
    number_bytes: float
    weight_bytes: float

    @property
    def quantised(self) -> bool:
        """Whether parameters take fewer bytes than other numbers."""
        return self.weight_bytes < self.number_bytes


def _quantised(products: tuple[str, ...], weight_bytes: float) -> Precision:
    return Precision(products, _HALF, _HALF, 2, weight_bytes)


PRECISIONS = {
    "bfloat16": Precision(("bfloat16",), ("bfloat16",), ("bfloat16",), 2, 2),
    "float16": Precision(("float16",), ("float16",), ("float16",), 2, 2),
    "float32": Precision(("float32",), ("tf32", "float32"), ("float32",), 4, 4),
    "tf32": Precision(("tf32",), ("tf32",), ("tf32",), 4, 4),
    "int8": _quantised(("int8",), 1),
    "fp8": _quantised(("fp8",), 1),
    "fp4": _quantised(("fp4",), 0.5),
    "int4": _quantised(("int8",), 0.5),
    "int8-weights": _quantised(_HALF, 1),
    "fp8-weights": _quantised(_HALF, 1),
    "fp6-weights": _quantised(_HALF, 0.75),
    "fp4-weights": _quantised(_HALF, 0.5),
    "int4-weights": _quantised(_HALF, 0.5),
}
"""What a denoiser can be run in. ``float32`` is what PyTorch makes of it: convolutions in TF32 where a device has it,
products in full. ``int8``, ``fp8``, ``fp4`` and ``int4`` (unpacked to int8) quantise parameters and what they are
multiplied with; those called ``-weights`` only keep parameters so, and compute in 16 bits."""

NUMBER_BYTES = {name: precision.number_bytes for name, precision in PRECISIONS.items()}
"""Bytes of a number between operators, by precision."""

RATES = ("bfloat16", "float16", "tf32", "float32", "int8", "fp8", "fp4")
"""The types that kinds have rates for."""


class Hardware(BaseModel):
    """One device of a kind.

    Attributes:
        name: as its vendor writes it.
        generation: its architecture; kinds of one generation reach similar shares of their peaks. Empty: no other's.
        dtype: what a model is usually served in on it.
        bfloat16_flops, float16_flops, tf32_flops, float32_flops, int8_flops, fp8_flops, fp4_flops: dense peak rate,
            operations a second, sums in float32 (int8: int32); None: it does not compute in this type.
        float16_accumulate_flops: of float16 products summed in float16, where that is faster.
        memory_bytes: bytes of the device.
        memory_bytes_per_s: peak bandwidth.
        link_bytes_per_s: one direction of its fastest link to other devices.
        network_bytes_per_s: one direction of its share of its host's network adapters; None: hosts differ.
        watts: power that it may draw.
        multiprocessors: streaming multiprocessors or compute units.
        devices_per_node: what one host usually has.
        source: where these figures are from.
        example_price_per_hour: an illustration, not an offer; plans take prices from the user.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1)
    generation: str = ""
    dtype: str = "bfloat16"
    bfloat16_flops: PositiveFloat | None = None
    float16_flops: PositiveFloat | None = None
    float16_accumulate_flops: PositiveFloat | None = None
    tf32_flops: PositiveFloat | None = None
    float32_flops: PositiveFloat | None = None
    int8_flops: PositiveFloat | None = None
    fp8_flops: PositiveFloat | None = None
    fp4_flops: PositiveFloat | None = None
    memory_bytes: PositiveFloat
    memory_bytes_per_s: PositiveFloat
    link_bytes_per_s: PositiveFloat
    network_bytes_per_s: PositiveFloat | None = None
    watts: PositiveFloat | None = None
    multiprocessors: PositiveInt | None = None
    devices_per_node: PositiveInt | None = None
    source: str = Field(min_length=1)
    example_price_per_hour: PositiveFloat | None = None

    @model_validator(mode="after")
    def _computes_in_its_type(self) -> Hardware:
        if self.dtype not in PRECISIONS:
            raise ValueError(f"dtype is {self.dtype!r}, expected one of {', '.join(PRECISIONS)}")
        if self.dtype not in self.precisions:
            rates = " or ".join(f"{name}_flops" for name in PRECISIONS[self.dtype].products)
            raise ValueError(f"expected {rates} beside dtype = {self.dtype!r}")
        return self

    def rate(self, types: Iterable[str]) -> float | None:
        """The peak rate in the first of ``types`` that it computes in; None: in none."""
        rates: Iterable[float | None] = (getattr(self, f"{name}_flops") for name in types)
        return next((rate for rate in rates if rate is not None), None)

    @property
    def precisions(self) -> tuple[str, ...]:
        """Those of `PRECISIONS` that it can run a model in."""
        return tuple(
            name
            for name, of in PRECISIONS.items()
            if all(self.rate(types) is not None for types in (of.products, of.convolutions, of.attention))
        )

    def check(self, precision: str) -> Precision:
        """The precision called so, which it can run a model in.

        Raises:
            BadInput: it cannot.
        """
        if precision not in self.precisions:
            raise BadInput(f"{self.name} cannot run {precision!r}, expected one of {', '.join(self.precisions)}")
        return PRECISIONS[precision]

    def peak_flops(self, precision: str) -> float:
        """The peak rate of products of matrices in this precision.

        Raises:
            BadInput: it cannot run it.
        """
        rate = self.rate(self.check(precision).products)
        assert rate is not None
        return rate


def load_hardware(path: Path) -> dict[str, Hardware]:
    """The kinds of a catalogue file.

    Raises:
        BadInput: it cannot be read, or an entry is wrong.
    """
    return load_entries(path, Hardware)


@cache
def shipped_hardware() -> dict[str, Hardware]:
    """The kinds that ship with Tilecast."""
    return load_hardware(Path(str(files("profiles"))) / "hardware.toml")


def find_hardware(name: str, base: Path = Path()) -> Hardware:
    """A kind by its name in the shipped catalogue, or of a file beside ``base``: ``mine.toml`` when it has a single
    kind, else ``mine.toml:kind``.

    Raises:
        BadInput: no such kind or file.
    """
    file, suffix, kind = name.partition(".toml")
    if not suffix:
        return entry_of(shipped_hardware(), name, "hardware")
    kinds = load_hardware(base / f"{file}.toml")
    if kind:
        return entry_of(kinds, kind.removeprefix(":"), f"hardware in {file}.toml:")
    if len(kinds) > 1:
        raise BadInput(f"{name} has {len(kinds)} kinds; expected one of them, like {name}:{next(iter(kinds))}")
    return next(iter(kinds.values()))
