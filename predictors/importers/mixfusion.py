"""The tables of MixFusion (PPoPP '26; arXiv 2501.09253), published for SDXL and SD3 on one H100-80GB.

Two kinds of CSV table, told apart by their columns:

- ``unet_time_{model}.csv``: mixed batches run in patches; how many images of each side (``512 num``, ...), and seconds
  for 50 denoising steps (``avg unet time``). Batches recur, which shows the noise of the measurement.
- ``sm_util_{model}_{side}.csv``: row i is a batch of i images of one size run whole; seconds for 50 denoising
  steps (``unet time``) and for the VAE decode (``post time``). The ``sm util`` column is not usable.

The model, and the side of the second kind, are read from the file's name, or said by who imports it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from predictors.importers.contents import FileContents, read_contents
from predictors.importers.reported import (
    SECONDS,
    ImportOptions,
    ReportedFile,
    ReportedRow,
    ReportedTime,
    alike,
    is_size,
)
from predictors.importers.rows import profile_of
from predictors.profile import Profile
from traces.columns import Cells
from traces.composition import composition_of
from traces.errors import BadInput
from traces.exact import number_of
from traces.files import require_columns
from traces.geometry import known_model
from traces.limits import IMAGES, SIDE, Range
from traces.notes import Note, grave
from traces.request import Size

HARDWARE = "NVIDIA H100 80GB"
SOFTWARE = "MixFusion artifact (PPoPP '26)"
STEPS = 50
ADDRESS = "PPoPP '26, https://ppopp26.sigplan.org/details/PPoPP-2026-papers/10"
"""Where the artifact is had: the paper it belongs to."""

CACHED = grave(
    "the SDXL mixed table was most likely taken with the patch cache on: "
    "do not compare its seconds with those of whole batches"
)
"""What is known of the published table of this name."""

_COUNT = re.compile(r"(\d+) num")
_MIXED = re.compile(r"unet_time_(?P<model>.+)\.csv(\.gz)?")
_WHOLE = re.compile(r"sm_util_(?P<model>.+)_(?P<side>\d+)\.csv(\.gz)?")
_IMAGES = Range(0, IMAGES.most, "images", whole=True)
_MIXED_COLUMN, _WHOLE_COLUMNS = "avg unet time", ("unet time", "post time")


def import_mixfusion(files: Iterable[Path]) -> Profile:
    """The profile that the published CSV files hold, whichever of them are given.

    Raises:
        BadInput: no files, a file that is none of them, or one that cannot be read (named with its row).
    """
    paths = [Path(path) for path in files]
    if not paths:
        raise BadInput("no files; expected unet_time_{model}.csv and sm_util_{model}_{side}.csv")
    options = ImportOptions()
    return profile_of([read(read_contents(path), options) for path in paths], options).profile


def recognises(contents: FileContents) -> bool:
    """Whether it is one of the two tables."""
    columns = set(contents.columns)
    return _MIXED_COLUMN in columns or set(_WHOLE_COLUMNS) <= columns


def read(contents: FileContents, options: ImportOptions) -> ReportedFile:
    """The rows of a table.

    Raises:
        BadInput: a column is missing.
    """
    table = contents.table if contents.table is not None else pd.DataFrame()
    path = contents.path
    mixed = _MIXED_COLUMN in table or _WHOLE_COLUMNS[0] not in table
    name = (_MIXED if mixed else _WHOLE).fullmatch(path.name)
    model = options.model or (name["model"] if name else "")
    sides = [column for column in contents.columns if _COUNT.fullmatch(column)]
    require_columns(table, (*(sides or ("512 num",)), _MIXED_COLUMN) if mixed else _WHOLE_COLUMNS, str(path))
    size = options.size
    if size is None and not mixed and name:
        size = (int(name["side"][:9]), int(name["side"][:9]), 1)
    facts = {"model": model, "system": HARDWARE, "engine": SOFTWARE, "gpus": "1"}
    published = mixed and name is not None and known_model(model) == "sdxl" and not options.hardware
    table_of = _Table(table, Cells(str(path)), facts, options.steps or STEPS, [CACHED] if published else [])
    used = {*sides, _MIXED_COLUMN} if mixed else set(_WHOLE_COLUMNS)
    return ReportedFile(
        rows=[
            _MixedBatch(table_of, position, sides) if mixed else _WholeBatch(table_of, position, size)
            for position in range(len(table))
        ],
        origin="MixFusion artifact, Apache-2.0",
        name=path.name,
        asks=frozenset({"steps", *(() if mixed else ("size",))}),
        unused=tuple(column for column in contents.columns if column not in used),
    )


@dataclass(frozen=True)
class _Table:
    """What the rows of one table have in common."""

    frame: pd.DataFrame
    cells: Cells
    facts: dict[str, str]
    steps: int
    notes: list[Note | str]

    def number(self, position: int, column: str, limit: Range) -> float:
        value = self.frame[column].iat[position]
        number: Any = number_of(value)
        if not limit.holds(number):
            raise self.cells.bad(position, column, value, str(limit))
        return float(number)


class _MixedBatch(ReportedRow):
    """A batch of several sizes, run in patches."""

    def __init__(self, table: _Table, position: int, columns: list[str]) -> None:
        self.where = table.cells.at(position)
        self.facts = table.facts
        self.table = table
        self.position = position
        self.columns = columns

    def needs(self) -> dict[str, Any]:
        return {"model": self.facts["model"]}

    def times(self) -> list[ReportedTime]:
        items: list[tuple[Size, int]] = []
        for column in self.columns:
            side = int(column.removesuffix(" num")[:9])
            if not SIDE.holds(side):
                raise BadInput(f"{self.where}: column {column!r} counts images of no size, expected {SIDE}")
            if images := int(self.table.number(self.position, column, _IMAGES)):
                items.append(((side, side, 1), images))
        if not items:
            raise BadInput(f"{self.where}: {', '.join(self.columns)} are all 0, expected an image in one of them")
        seconds = self.table.number(self.position, _MIXED_COLUMN, SECONDS)
        return [ReportedTime(seconds, composition_of(items), "denoise", self.table.steps, "patched")]

    def notes(self) -> list[Note | str]:
        return self.table.notes


class _WholeBatch(ReportedRow):
    """A batch of as many images as the row is far down."""

    def __init__(self, table: _Table, position: int, size: Size | None) -> None:
        self.where = table.cells.at(position)
        self.facts = table.facts
        self.table = table
        self.position = position
        self.size = size

    def needs(self) -> dict[str, Any]:
        return {"model": self.facts["model"], "size": self.size}

    def times(self) -> list[ReportedTime]:
        size, images = self.size or (0, 0, 0), self.position + 1
        if not (IMAGES.holds(images) and is_size(size)):
            raise BadInput(f"{self.where}: {images} images of {size[0]} px; expected {IMAGES}, with sides of {SIDE}")
        batch = alike(size, images)
        denoise, decode = (self.table.number(self.position, column, SECONDS) for column in _WHOLE_COLUMNS)
        return [ReportedTime(denoise, batch, "denoise", self.table.steps), ReportedTime(decode, batch, "decode")]
