"""A table as text: what the page, Markdown and the terminal show alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Generic, Literal, TypeVar

from reports.formatting import NONE

Kind = Literal["number", "text", "sentence"]
T = TypeVar("T")


@dataclass(frozen=True)
class Column(Generic[T]):
    """A column: its head, what it says of a row, how it is set, and whether a narrow table has it, too."""

    head: str
    cell: Callable[[T], str]
    kind: Kind = "number"
    brief: bool = True


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells.

    Attributes:
        title: what it shows.
        heads, kinds, brief: of the columns.
        rows: cells, as text.
        chosen: the rows that are the answer.
    """

    title: str
    heads: tuple[str, ...]
    kinds: tuple[Kind, ...]
    brief: tuple[bool, ...]
    rows: tuple[tuple[str, ...], ...]
    chosen: frozenset[int] = frozenset()

    @classmethod
    def of(
        cls,
        title: str,
        columns: Iterable[Column[T]],
        rows: Iterable[T],
        chosen: Callable[[T], bool] = lambda row: False,
    ) -> Table:
        """A table of rows; a column in which no row says anything is left out."""
        values = list(rows)
        cells = [(column, [column.cell(row) for row in values]) for column in columns]
        cells = [(column, own) for at, (column, own) in enumerate(cells) if not at or set(own) - {NONE, ""}]
        return cls(
            title,
            tuple(column.head for column, _ in cells),
            tuple(column.kind for column, _ in cells),
            tuple(column.brief for column, _ in cells),
            tuple(zip(*(own for _, own in cells), strict=True)),
            frozenset(at for at, row in enumerate(values) if chosen(row)),
        )

    def first(self, count: int) -> Table:
        """The same with its first rows only."""
        return replace(self, rows=self.rows[:count], chosen=frozenset(at for at in self.chosen if at < count))

    def narrow(self) -> Table:
        """The same with its brief columns only."""
        keep = [at for at, brief in enumerate(self.brief) if brief]

        def of(row: tuple) -> tuple:
            return tuple(row[at] for at in keep)

        rows = tuple(of(row) for row in self.rows)
        return replace(self, heads=of(self.heads), kinds=of(self.kinds), brief=of(self.brief), rows=rows)
