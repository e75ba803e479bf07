"""Tables of published measurements: CSV (or Parquet) with a row a measurement and the columns of `COLUMNS`.

The schema in which Tilecast's own collection of published measurements is kept: where a figure is from, on what it was
measured, what was made, and a quantity with its value in seconds. One step (``step_s``) and a decode
(``vae_decode_s``) are of the whole batch, like ``latency_s`` and ``image_s``, which span the request from end to end.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from predictors.importers.contents import TEXT_COLUMNS, FileContents
from predictors.importers.reported import (
    SECONDS,
    WHOLE,
    ImportOptions,
    ReportedFile,
    ReportedRow,
    ReportedTime,
    alike,
    require_said,
)
from traces.columns import Cells, texts
from traces.exact import is_missing, named, number_of
from traces.files import require_columns
from traces.limits import FRAMES, IMAGES, SIDE, STEPS, Range

QUANTITIES = {
    "step_s": "denoise",
    "vae_decode_s": "decode",
    "text_encode_s": "encode",
    "latency_s": WHOLE,
    "image_s": WHOLE,
    "vae_encode_s": None,
}
"""Quantity -> the stage whose seconds it is; None: of no stage that requests go through here."""

REQUIRED = ("system", "model", "height", "width", "quantity", "value")
FACTS = {"gpus": "1", "parallelism": "none", "precision": "", "engine": ""}
"""Further circumstances, with what holds where the file has no such column or the cell is empty."""
COLUMNS = (*REQUIRED, *FACTS, "frames", "steps", "batch", "source")


def recognises(contents: FileContents) -> bool:
    """Whether it is a table with such columns."""
    return {"system", "quantity", "value"} <= set(contents.columns)


def read(contents: FileContents, options: ImportOptions) -> ReportedFile:
    """The rows of a table.

    Raises:
        BadInput: a column is missing, or a cell that should be text is none.
    """
    table = contents.table if contents.table is not None else pd.DataFrame()
    source = str(contents.path)
    require_columns(table, REQUIRED, source)
    cells = Cells(source)
    known = [name for name in table.columns if name in COLUMNS]
    values = {name: table[name].tolist() for name in known}
    text = {
        name: texts(table[name], name, cells) if name in TEXT_COLUMNS else map(_shown, values[name]) for name in known
    }
    facts = [dict(zip(known, row, strict=True)) for row in zip(*text.values(), strict=True)]
    rows = [_Row(values, at, cells, options, said) for at, said in enumerate(facts)]
    unused = tuple(name for name in contents.columns if name not in COLUMNS)
    return ReportedFile(
        rows, "published measurements", contents.path.name, frozenset({"steps", "batch", "guided"}), unused
    )


def _shown(cell: object) -> str:
    """A number as text, whatever the cell holds."""
    return "" if is_missing(cell) else named(cell)


class _Row(ReportedRow):
    def __init__(
        self,
        values: Mapping[str, list[Any]],
        position: int,
        cells: Cells,
        options: ImportOptions,
        said: Mapping[str, str | None],
    ) -> None:
        facts = {name: (text or "").strip() for name, text in said.items() if name != "value"}
        self.where = f"{cells.source}: row {position + 1}"
        self.facts = facts | {name: facts.get(name) or otherwise for name, otherwise in FACTS.items()}
        self.values = values
        self.position = position
        self.cells = cells
        self.options = options

    def times(self) -> list[ReportedTime]:
        quantity = self.facts["quantity"]
        if quantity not in QUANTITIES:
            raise self.cells.bad(self.position, "quantity", quantity, f"one of {', '.join(QUANTITIES)}")
        stage = QUANTITIES[quantity]
        if stage is None:
            return []
        height, width = int(self.number("height", SIDE)), int(self.number("width", SIDE))
        frames = int(self.or_else("frames", FRAMES, 1))
        batch = self.or_else("batch", IMAGES, self.options.batch or 0)
        steps = self.or_else("steps", STEPS, self.options.steps or 0) if stage == WHOLE else 1
        require_said(self.where, batch=batch or None, steps=steps or None)
        seconds = self.number("value", SECONDS)
        return [ReportedTime(seconds, alike((height, width, frames), int(batch)), stage, int(steps))]

    def or_else(self, name: str, limit: Range, otherwise: float) -> float:
        """The number of a cell; ``otherwise`` where there is none."""
        empty = name not in self.values or is_missing(self.values[name][self.position])
        return otherwise if empty else self.number(name, limit)

    def number(self, name: str, limit: Range) -> float:
        """The number of a cell, which must be there and one of ``limit``."""
        value = self.values[name][self.position]
        number: Any = number_of(value)
        if not limit.holds(number):
            raise self.cells.bad(self.position, name, value, str(limit))
        return float(number)
