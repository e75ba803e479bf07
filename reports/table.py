"""A table as text: what pages, Markdown and the terminal show alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
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
        heads, kinds: of the columns.
        rows: cells, as text.
        brief: whether a narrow table has each column, too; empty: it has all.
        chosen: the rows that are the answer.
        strong: the cells that are the best of their kind, as (row, column).
        parts: headings by the row that each stands above.
    """

    title: str
    heads: tuple[str, ...]
    kinds: tuple[Kind, ...]
    rows: tuple[tuple[str, ...], ...]
    brief: tuple[bool, ...] = ()
    chosen: frozenset[int] = frozenset()
    strong: frozenset[tuple[int, int]] = frozenset()
    parts: Mapping[int, str] = field(default_factory=dict)

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
            tuple(zip(*(own for _, own in cells), strict=True)),
            tuple(column.brief for column, _ in cells),
            frozenset(at for at, row in enumerate(values) if chosen(row)),
        )

    @classmethod
    def plain(cls, title: str, heads: Iterable[str], rows: Iterable[Iterable[str]], texts: int = 1) -> Table:
        """A table whose first ``texts`` columns are text and the others numbers."""
        named = tuple(heads)
        kinds = tuple("text" if at < texts else "number" for at in range(len(named)))
        return cls(title, named, kinds, tuple(map(tuple, rows)))  # type: ignore[arg-type]

    @property
    def bodies(self) -> Iterator[tuple[str, list[int]]]:
        """The numbers of the rows below each heading; an empty one where there is none."""
        starts = sorted({0, *self.parts})
        for start, end in zip(starts, [*starts[1:], len(self.rows)], strict=True):
            yield self.parts.get(start, ""), list(range(start, end))

    @property
    def width(self) -> str:
        """How much room it takes: ``narrow`` tables fit on a phone, ``wide`` ones on a tablet, ``broad`` ones on
        neither."""
        if len(self.heads) <= 4 and "sentence" not in self.kinds:
            return "narrow"
        return "wide" if len(self.heads) <= (4 if "sentence" in self.kinds else 7) else "broad"

    def first(self, count: int) -> Table:
        """The same with its first rows only."""
        return replace(self, rows=self.rows[:count], chosen=frozenset(at for at in self.chosen if at < count))

    def narrow(self) -> Table:
        """The same with its brief columns only."""
        return self._with([at for at in range(len(self.heads)) if not self.brief or self.brief[at]])

    def only(self, *heads: str) -> Table:
        """The same with those of its columns that are named."""
        return self._with([at for at, head in enumerate(self.heads) if head in heads])

    def _with(self, keep: list[int]) -> Table:
        def of(row: tuple) -> tuple:
            return tuple(row[at] for at in keep)

        return replace(self, heads=of(self.heads), kinds=of(self.kinds), brief=(), rows=tuple(map(of, self.rows)))
