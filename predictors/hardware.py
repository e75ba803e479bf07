"""Hardware kinds and what they can do at best: ``profiles/hardware.toml``, or a user's file of that form."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, model_validator

from predictors.catalogue import entry_of, load_entries
from traces.errors import BadInput

NUMBER_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}
"""The data types that kinds have rates for, and the bytes of a number."""


class Hardware(BaseModel):
    """One device of a kind.

    Attributes:
        name: as its vendor writes it.
        dtype: what a model is usually served in on it.
        bfloat16_flops, float16_flops, float32_flops: dense peak rate, floating-point operations a second; None: it
            does not compute in this type.
        memory_bytes: bytes of the device.
        memory_bytes_per_s: peak bandwidth.
        link_bytes_per_s: one direction of its fastest link to other devices.
        source: where these figures are from.
        example_price_per_hour: an illustration, not an offer; plans take prices from the user.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1)
    dtype: str = "bfloat16"
    bfloat16_flops: PositiveFloat | None = None
    float16_flops: PositiveFloat | None = None
    float32_flops: PositiveFloat | None = None
    memory_bytes: PositiveFloat
    memory_bytes_per_s: PositiveFloat
    link_bytes_per_s: PositiveFloat
    source: str = Field(min_length=1)
    example_price_per_hour: PositiveFloat | None = None

    @model_validator(mode="after")
    def _computes_in_its_type(self) -> Hardware:
        if self.dtype not in NUMBER_BYTES:
            raise ValueError(f"dtype is {self.dtype!r}, expected one of {', '.join(NUMBER_BYTES)}")
        if getattr(self, f"{self.dtype}_flops") is None:
            raise ValueError(f"expected {self.dtype}_flops beside dtype = {self.dtype!r}")
        return self

    def peak_flops(self, dtype: str) -> float:
        """The peak rate in this data type.

        Raises:
            BadInput: it has none.
        """
        rate: float | None = getattr(self, f"{dtype}_flops", None)
        if rate is None:
            known = [name for name in NUMBER_BYTES if getattr(self, f"{name}_flops") is not None]
            raise BadInput(f"no peak rate is known of {self.name} in {dtype}; known: {', '.join(known)}")
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
