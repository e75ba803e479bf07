"""Tables of published measurements: CSV (or Parquet) with a row a measurement, in one of two schemas.

That of `COLUMNS` says on what a figure was measured, what was made, and a quantity with its value in seconds. One step
(``step_s``) and a decode (``vae_decode_s``) are of the whole batch, like ``latency_s`` and ``image_s``, which span the
request from end to end. That of the catalogue that ships with Tilecast (`predictors.published`) has other names for the
same, in `CATALOGUE`, and says whether guidance was on.
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
from traces.request import Size

QUANTITIES = {
    "step_s": "denoise",
    "vae_decode_s": "decode",
    "text_encode_s": "encode",
    "latency_s": WHOLE,
    "image_s": WHOLE,
    "vae_encode_s": None,
    "step": "denoise",
    "decode": "decode",
    "request": WHOLE,
    "image-encode": None,
}
"""Quantity -> the stage whose seconds it is; None: of no stage that requests go through here."""

CATALOGUE = {"hardware": "system", "devices": "gpus", "measures": "quantity", "seconds": "value"}
"""Columns of the catalogue, and what the other schema calls them; rows can be chosen by either name."""

REQUIRED = ("system", "model", "height", "width", "quantity", "value")
FACTS = {"gpus": "1", "parallelism": "none", "precision": "", "engine": ""}
"""Further circumstances, with what holds where the file has no such column or the cell is empty."""
COLUMNS = (*REQUIRED, *FACTS, "frames", "steps", "batch", "source", "guided")
MORE = ("software", "remarks", "checkpoint")
"""What the catalogue alone has: details of the engine, keywords of what was done otherwise, and whose weights."""
RECORDED = ("notes", "commit", "date", "licence")
"""Columns of which nobody expects an effect."""
_TRUTHS = {"true": True, "false": False, "": None}


def recognises(contents: FileContents) -> bool:
    """Whether it is a table with such columns."""
    columns = set(contents.columns)
    return {"system", "quantity", "value"} <= columns or set(CATALOGUE) <= columns


def read(contents: FileContents, options: ImportOptions) -> ReportedFile:
    """The rows of a table.

    Raises:
        BadInput: a column is missing, or a cell that should be text is none.
    """
    table = contents.table if contents.table is not None else pd.DataFrame()
    source = str(contents.path)
    names = {ours: theirs for theirs, ours in CATALOGUE.items()} if set(CATALOGUE) <= set(contents.columns) else {}
    require_columns(table, [names.get(name, name) for name in REQUIRED], source)
    cells = Cells(source, columns=names)
    known = {
        name: column for name in (*COLUMNS, *(MORE if names else ())) if (column := names.get(name, name)) in table
    }
    values = {name: table[column].tolist() for name, column in known.items()}
    text = {
        name: list(texts(table[column], name, cells) if column in TEXT_COLUMNS else map(_shown, values[name]))
        for name, column in known.items()
    }
    text |= {names[name]: column for name, column in text.items() if name in names}
    facts = [dict(zip(text, row, strict=True)) for row in zip(*text.values(), strict=True)]
    rows = [_Row(values, at, cells, options, said) for at, said in enumerate(facts)]
    used = {*known.values(), *RECORDED}
    return ReportedFile(
        rows=rows,
        origin="published measurements",
        name=contents.path.name,
        asks=frozenset({"size", "steps", "batch", "guided"}),
        unused=tuple(name for name in contents.columns if name not in used),
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
        facts = {name: (text or "").strip() for name, text in said.items() if name not in ("value", "seconds")}
        self.where = cells.at(position)
        self.facts = facts | {name: facts.get(name) or otherwise for name, otherwise in FACTS.items()}
        self.guided = _TRUTHS.get(self.facts.get("guided", "").lower())
        self.values = values
        self.position = position
        self.cells = cells
        self.options = options

    def times(self) -> list[ReportedTime]:
        quantity = self.facts["quantity"]
        if (guided := self.facts.get("guided", "").lower()) not in _TRUTHS:
            raise self.cells.bad(self.position, "guided", guided, "true or false")
        if quantity not in QUANTITIES:
            raise self.cells.bad(self.position, "quantity", quantity, f"one of {', '.join(QUANTITIES)}")
        stage = QUANTITIES[quantity]
        if stage is None:
            return []
        size = self.size()
        batch = self.or_else("batch", IMAGES, self.options.batch or 0)
        steps = self.or_else("steps", STEPS, self.options.steps or 0) if stage == WHOLE else 1
        require_said(self.where, size=size, batch=batch or None, steps=steps or None)
        seconds = self.number("value", SECONDS)
        return [ReportedTime(seconds, alike(size or (1, 1, 1), int(batch)), stage, int(steps))]

    def size(self) -> Size | None:
        """Height, width and frames: of its cells, or as the person who imports says; None: nobody says it."""
        sides = (self.or_else("height", SIDE, 0), self.or_else("width", SIDE, 0))
        if not any(sides):
            return self.options.size
        height, width = int(self.number("height", SIDE)), int(self.number("width", SIDE))
        return height, width, int(self.or_else("frames", FRAMES, 1))

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
