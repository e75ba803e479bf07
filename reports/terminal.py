"""Runs as tables in a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pandas as pd
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from reports.breakdown import MOST, batch_table, replica_table, size_table
from reports.brief import WIDEST, Brief
from reports.comparison import Comparison, Row
from reports.console import new_console
from reports.fidelity import GOALS, Answer, Fidelity, format_difference
from reports.figures import LEADING, figure
from reports.formatting import format_value
from reports.reasons import reasons
from reports.repeats import Repeats
from reports.validate import Validation, format_error
from reports.waiting import CAUSES, PARTS, Waiting
from traces.notes import Note, Severity, ordered


def show(
    comparison: Comparison, console: Console | None = None, every: bool = False, ending: Sequence[str] = ()
) -> None:
    """Print a comparison: of one run the dozen lines of `reports.brief`, several side by side in a compact table.

    Args:
        comparison: what to print.
        console: where; by default the standard output.
        every: whether to print all figures, grouped, and the tables by parts of the requests.
        ending: sentences for the end, such as where the run was written.
    """
    console = console or new_console()
    if len(comparison.runs) == 1 and not every:
        for line in Brief.of(comparison).lines(ending, width=min(console.width, WIDEST)):
            style = "bold" if line.answers else _STYLES[line.severity] if line.severity is not None else ""
            console.print(Text(line.text, style=style), soft_wrap=True)
        return
    console.print(Group(*_parts(comparison, every)))
    for sentence in ending:
        console.print(Text(sentence), soft_wrap=True)


def _parts(comparison: Comparison, every: bool) -> Iterable[RenderableType]:
    """What must be known first, the answer, what was run, and the figures (the best in bold); where all is asked for,
    the other figures by topic, the tables by parts of the requests, and remarks."""
    first, last = told(comparison.notes())
    yield from first
    yield Text(comparison.answer(), style="bold")
    yield Text(comparison.alike(), style="dim")
    yield _figures(comparison, None, comparison.leading())
    if not every:
        return
    for topic, rows in comparison.topics():
        yield _figures(comparison, topic, rows)
    single = len(comparison.runs) == 1
    of_parts = (comparison.arrays, comparison.names)
    shown = [size_table(*of_parts)] if single else []
    shown += [*comparison.breakdowns(), *([batch_table(*of_parts), replica_table(*of_parts)] if single else [])]
    for table in shown:
        right = [kind == "number" for kind in table.kinds]
        yield _table(table.title, list(table.heads), list(map(list, table.rows)), right)
    if single:
        lost = reasons(comparison.runs[0])
        if len(lost):
            cells = lost.astype(str).to_numpy().tolist()
            yield _table("Not finished", ["status", "reason", "requests"], cells, [False, False, True])
    yield from last


def _figures(comparison: Comparison, title: str | None, rows: Iterable[Row]) -> Table:
    """A column a run."""
    table = headed(title, ["", *comparison.names])
    for row in rows:
        cells = [Text(cell, style="bold" if at in row.best else "") for at, cell in enumerate(row.cells)]
        table.add_row(Text(row.label), *cells)
    return table


def told(notes: Iterable[Note | str]) -> tuple[list[Text], list[Text]]:
    """Notes as lines: those to be told before the figures, the gravest first, and remarks to be told after them."""
    lines: dict[bool, list[Text]] = {True: [], False: []}
    for note in ordered(notes):
        plain = note.severity is Severity.REMARK
        lines[plain].append(Text(note.text if plain else f"! {note}", style=_STYLES[note.severity]))
    return lines[False], lines[True]


_ANSWERS = {Answer.FAITHFUL: "bold", Answer.TOO_SHORT: "bold yellow", Answer.NOT_FAITHFUL: "bold red"}
_STYLES = {Severity.GRAVE: "bold red", Severity.CAUTION: "yellow", Severity.REMARK: "dim"}


def sim_against_real(validation: Validation, every: bool = False) -> RenderableType:
    """The verdict, figures of the simulation, of the real run, and the error between them: what is judged and most ask
    for, or ``every`` figure that a run defines."""
    table = headed(None, ["", f"sim: {validation.sim}", f"real: {validation.real}", "error", "relative"])
    for name, row in _compared(validation.figures, every):
        table.add_row(Text(str(row["label"])), *map(Text, format_error(str(name), row)))
    percentiles = _table(
        "Latency error per request",
        ["", "seconds", "relative"],
        [
            [str(label), format_value(row["error_s"], "s"), format_value(row["relative"], "%")]
            for label, row in validation.latency_errors.iterrows()
            if every or label in _OF_ERRORS
        ],
    )
    notes, _ = told(validation.cautions)
    parts: list[RenderableType] = [_verdict(validation.fidelity), *notes, table, percentiles]
    parts.append(Text(validation.agreement()))
    if validation.parity is not None:
        rows = [[str(key), str(value)] for key, value in validation.parity.items()]
        parts.append(_table("Decision parity", ["", "result"], rows))
    return Group(*parts)


def sims_against_reals(repeats: Repeats, every: bool = False) -> RenderableType:
    """The verdict, figures of several simulated and real runs, the error, and how far the repeats lie apart: as
    `sim_against_real`."""
    sims, reals = len(repeats.sims), len(repeats.reals)
    table = headed(None, ["", f"sim, mean of {sims}", "sd", f"real, mean of {reals}", "error", "spread of real"])
    for name, row in _compared(repeats.figures, every):
        described = figure(str(name))
        sim, sd, real = (format_value(row[column], described.unit) for column in ("sim", "sim_sd", "real"))
        error, spread = (
            format_difference(row[column], described.unit, column == "error") for column in ("error", "spread")
        )
        table.add_row(Text(described.label), *map(Text, (sim, sd, real, error, spread)))
    notes, _ = told(repeats.cautions)
    parts: list[RenderableType] = [_verdict(repeats.fidelity), *notes, table]
    if repeats.parity is not None:
        rows = [[str(key), str(value)] for key, value in repeats.parity.items()]
        parts.append(_table("Decision parity", ["", "result"], rows))
    return Group(*parts)


_OF_ERRORS = ("mean absolute", "P50", "P95")


def _compared(figures: pd.DataFrame, every: bool) -> Iterable[tuple[str, pd.Series]]:
    """The rows to show: those that a run defines, of which all, or what is judged and most ask for."""
    wanted = (
        [*figures.index] if every else [name for name in dict.fromkeys([*GOALS, *LEADING]) if name in figures.index]
    )
    for name, row in figures.loc[wanted].iterrows():
        if not row[["sim", "real"]].isna().all():
            yield str(name), row


def _verdict(fidelity: Fidelity) -> Text:
    return Text(fidelity.verdict, style=_ANSWERS[fidelity.answer])


def show_waiting(waiting: Waiting, console: Console) -> None:
    """Print the share of all waiting by cause, and who waited how long in the mean."""
    shares = [[cause, CAUSES[cause], format_value(share, "%")] for cause, share in waiting.by_cause.items() if share]
    console.print(_table("Waiting, while", ["", "", "share"], shares, [False, False, True]))
    for part in PARTS:
        table = waiting.by(part)
        if len(table) > 1:
            rows = [
                [str(name) or "(none)", f"{int(requests):,}", format_value(float(waited_s), "s")]
                for name, requests, waited_s in table.head(MOST).itertuples()
            ]
            console.print(_table(f"Waiting, by {part}", [part, "requests", "mean"], rows))


def show_scaling(rows: Iterable[tuple[str, ...]], how: str, console: Console | None = None) -> None:
    """Print what scaling policies cost and keep, the cheapest that keeps the promise first.

    Args:
        rows: whether each keeps it, its name, cost a day, attainment, replicas in the mean and starts.
        how: what they were simulated over, in a sentence.
        console: where; by default the standard output.
    """
    heads = ["kept", "policy", "cost", "SLO attainment", "replicas", "starts"]
    table = _table("Scaling, by cost", heads, [list(row) for row in rows], [False, False, True, True, True, True])
    (console or new_console()).print(Group(table, Text(how, style="dim")))


def _table(title: str, heads: list[str], rows: list[list[str]], right: list[bool] | None = None) -> Table:
    table = headed(title, heads, right)
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def headed(title: str | None, heads: list[str], right: list[bool] | None = None) -> Table:
    """An empty table; ``right`` says which columns are flush right, by default all but the first."""
    table = Table(title=title, title_justify="left")
    for at, head in enumerate(heads):
        flush_right = at > 0 if right is None else right[at]
        table.add_column(Text(head), justify="right" if flush_right else "left", overflow="fold")
    return table
