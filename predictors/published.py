"""What others measured: ``profiles/published.csv``, a row a figure of a public benchmark.

The table holds facts: a number, what was run on what, and where it stands. A row that cannot be compared with an
estimate of one device stays in the table and says why (`Published.skipped`).
"""

from __future__ import annotations

import csv
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, ValidationError, field_validator

from predictors.hardware import PRECISIONS, shipped_hardware
from predictors.shapes import shape_of
from traces.errors import BadInput
from traces.files import row_at
from traces.request import Size
from traces.text import read_text

Measure = Literal["step", "request", "decode", "image-encode"]

REMARKS = {
    "cached": "computed blocks or steps less often than a sampler asks for",
    "offload": "parameters moved between host and device meanwhile",
    "tiled": "the autoencoder ran tile by tile",
    "predicted": "the source fitted it, it did not measure it",
    "sparse": "parameters with structured zeros",
    "unfused-attention": "attention as two products and a softmax between them",
    "approximate": "the source rounded it",
    "torch-2.0": "PyTorch 2.0 or a nightly build before 2.1",
    "nightly": "a nightly build of PyTorch",
    "hardware-inferred": "the source says the memory, or the kind of machine, not the device",
    "size-inferred": "the default of what was run",
    "steps-inferred": "the default of what was run",
    "guidance-inferred": "two rows an image would need more than the peak of the device",
    "precision-inferred": "from what was run, or from a speed that no other precision reaches",
    "a800": "an A800, which is an A100 with a slower link",
    "h800": "an H800, which is an H100 with a slower link",
}
"""What a reader must know of a row, by keyword."""

_INCOMPARABLE = ("cached", "offload", "tiled", "predicted", "sparse")


class Published(BaseModel):
    """One published measurement.

    Attributes:
        source: repository and file, or paper.
        commit: its version.
        date: year, or more, of the measurement where the source says it, else of the version; empty: unknown.
        licence: of the source.
        hardware: a kind of `predictors.hardware`, or another name.
        devices: how many ran it.
        parallelism: how several shared it.
        checkpoint: what was run, as its authors call it.
        model: whose shape of `predictors.shapes` it has, or another name.
        height, width, frames, steps: of the request; None: the source does not say.
        batch: requests at once.
        guided: whether classifier-free guidance doubled the rows.
        precision: one of `predictors.hardware.PRECISIONS`, or another name.
        engine: one of `predictors.efficiency.ENGINES`.
        software: details of it, separated by semicolons.
        measures: one denoising ``step``, a whole ``request``, or only its ``decode`` or ``image-encode``.
        seconds: of the whole batch.
        remarks: keywords of `REMARKS`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str = Field(min_length=1)
    commit: str
    date: str = Field(pattern=r"^(\d{4}(-\d\d){0,2})?$")
    licence: str = Field(min_length=1)
    hardware: str = Field(min_length=1)
    devices: PositiveInt
    parallelism: str
    checkpoint: str = Field(min_length=1)
    model: str = Field(min_length=1)
    height: PositiveInt | None
    width: PositiveInt | None
    frames: PositiveInt | None
    steps: PositiveInt | None
    batch: PositiveInt
    guided: bool
    precision: str = Field(min_length=1)
    engine: Literal["eager", "compile", "vendor"]
    software: str
    measures: Measure
    seconds: PositiveFloat
    remarks: frozenset[str]

    @field_validator("height", "width", "frames", "steps", mode="before")
    @classmethod
    def _empty_is_unknown(cls, value: Any) -> Any:
        return None if value == "" else value

    @field_validator("remarks", mode="before")
    @classmethod
    def _keywords(cls, value: Any) -> Any:
        words = frozenset(value.split()) if isinstance(value, str) else value
        if unknown := sorted(set(words) - set(REMARKS)):
            raise ValueError(f"{unknown[0]!r} is no remark, expected some of {', '.join(REMARKS)}")
        return words

    @property
    def size(self) -> Size:
        """Height, width and frames; BadInput where the source does not say them."""
        if self.height is None or self.width is None or self.frames is None:
            raise BadInput(f"{self.source}: the size is not stated")
        return self.height, self.width, self.frames

    @property
    def repository(self) -> str:
        """Whose measurement it is: the source without its file."""
        return self.source.split()[0]

    @property
    def skipped(self) -> str:
        """Why it cannot be compared with an estimate of one device; empty: it can."""
        if self.devices > 1:
            return "several devices"
        if wrong := [word for word in _INCOMPARABLE if word in self.remarks]:
            return wrong[0]
        if self.measures == "image-encode":
            return "an image to latents: no stage of a request here"
        if self.precision not in PRECISIONS:
            return f"precision {self.precision}"
        if self.hardware not in shipped_hardware():
            return f"hardware {self.hardware}"
        if self.precision not in shipped_hardware()[self.hardware].precisions:
            return f"precision {self.precision} on {self.hardware}"
        try:
            shape_of(self.model)
        except BadInput:
            return f"model {self.model}"
        if None in (self.height, self.width, self.frames):
            return "size not stated"
        if self.measures == "request" and self.steps is None:
            return "steps not stated"
        return ""

    @classmethod
    def of(cls, fields: dict[str, str]) -> Self:
        """A row of the file; pydantic's ValidationError names what is wrong."""
        return cls.model_validate(fields)


def load_published(path: Path) -> list[Published]:
    """The rows of a file with the columns of `Published`.

    Raises:
        BadInput: it cannot be read, lacks a column, or a field is wrong, named with its row.
    """
    lines = csv.reader(read_text(path).splitlines())
    header = next(lines)
    for name in Published.model_fields:
        if name not in header:
            raise BadInput(f"{path}: no column {name!r}; the file has: {', '.join(header)}")
    rows = []
    for position, values in enumerate(lines):
        if len(values) != len(header):
            raise BadInput(f"{path}: {row_at(position)} has {len(values)} fields, expected {len(header)}")
        try:
            rows.append(Published.of(dict(zip(header, values, strict=True))))
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join(map(str, problem["loc"]))
            message = problem["msg"].removeprefix("Value error, ")
            raise BadInput(f"{path}: {row_at(position)}: {where}: {message[0].lower()}{message[1:]}") from error
    return rows


@cache
def shipped_published() -> tuple[Published, ...]:
    """The rows that ship with Tilecast."""
    return tuple(load_published(Path(str(files("profiles"))) / "published.csv"))
