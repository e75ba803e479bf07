"""The table of a sweep in a terminal: its best points by one figure, and what must be known of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from textwrap import wrap

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from reports.figures import FIGURES, figure
from reports.formatting import NONE, format_interval, format_value, times
from reports.output_analysis import interval, share
from reports.terminal import told
from traces.errors import BadInput, did_you_mean
from traces.notes import Note, grave, ordered

BESIDE = ("slo_attainment", "slo_attainment_worst_size", "latency_p95_s")
"""Figures that are shown beside the one that decides, and decide in turn where it is equal."""

FIGURES_SHOWN = 3
"""As many have room in 80 columns."""

HEAD, NAME = 11, 8
"""Letters of a line of a figure's heading, and of a line of a setting at least."""


CONDITIONS = frozenset({"trace", "world", "faults", "slo", "seed"})
"""Sections of a scenario whose keys are conditions, not choices."""


def check_figure(name: str) -> None:
    """Refuse what is no figure of a run."""
    if name not in FIGURES:
        raise BadInput(f"--by {name!r} is no figure of a run; {did_you_mean(name, FIGURES)}")


def best_points(frame: pd.DataFrame, keys: Sequence[str], by: str, top: int) -> RenderableType:
    """The best points by one figure, over their seeds: the mean, and the half width of its 95 % interval. What must be
    known comes first.

    Where a grid sets choices and conditions, such as loads, a row is what may be chosen, and has means over all
    conditions, so that no setting wins by having been asked for less.
    """
    setup = [key for key in ("case", *keys) if key in frame and key != "seed"]
    good = frame[frame["error"] == ""]
    shown = [by, *(name for name in BESIDE if name != by and name in good)][:FIGURES_SHOWN]
    groups = _groups(good, setup)
    seeds = max((len(group) for group in groups), default=0)
    chosen, given = choices_and_conditions(good, keys)
    settings = _groups(good, chosen)
    conditions = max((len(group[given].drop_duplicates()) for group in settings), default=1) if given else 1
    if chosen and conditions > 1:
        setup, groups = chosen, settings
    else:
        conditions = 1
    ranked = sorted(groups, key=lambda group: [rank(group, name) for name in shown])
    bases = list(dict.fromkeys(good["basis"]))
    over = [f"means over {conditions} conditions ({', '.join(given)})"] if conditions > 1 else []
    said = [*over, *([f"{seeds} seeds"] if seeds > 1 else []), *(bases if len(bases) == 1 else [])]
    title = ", ".join([f"Best of {len(groups)} by {figure(by).label}", *said])
    left = [*setup, *(["basis"] if len(bases) > 1 else [])]
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for head in short(left):
        table.add_column(Text(head), overflow="fold", min_width=min(NAME, len(head)))
    for name in shown:
        table.add_column(Text("\n".join(wrap(figure(name).label, HEAD))), justify="right")
    overloaded = bool(good["overload"].notna().any())
    if overloaded:
        table.add_column(Text("Overload"), justify="right", no_wrap=True)
    for group in ranked[:top]:
        cells = [*(str(group[key].iloc[0]) for key in left), *(_mean(group, name, conditions) for name in shown)]
        table.add_row(*map(Text, [*cells, *([_overload(group)] if overloaded else [])]))
    first, last = told(sweep_notes(frame))
    return Group(*first, table, *last)


def choices_and_conditions(good: pd.DataFrame, keys: Sequence[str]) -> tuple[list[str], list[str]]:
    """The keys that differ between points: what may be chosen, and what comes as it comes."""
    varied = [key for key in ("case", *keys) if key in good and key != "seed" and good[key].nunique(dropna=False) > 1]
    chosen = [key for key in varied if key.partition(".")[0] not in CONDITIONS]
    return chosen, [key for key in varied if key not in chosen]


def _groups(points: pd.DataFrame, keys: Sequence[str]) -> list[pd.DataFrame]:
    return [group for _, group in points.groupby(list(keys), sort=False, dropna=False)] if keys else [points]


def sweep_notes(frame: pd.DataFrame) -> list[Note]:
    """What must be known of the points of a sweep, the gravest first."""
    good = frame[frame["error"] == ""]
    failed = frame.loc[frame["error"] != "", "error"].value_counts(sort=False)
    noted = good.loc[good["notes"] != "", "notes"].value_counts(sort=False)
    notes = [Note(f"{count} failed: {message}") for message, count in failed.items()]
    notes += [Note(f"{count} of {len(good)}: {note}") for note, count in noted.items()]
    if good["overload"].notna().any():
        notes.append(
            grave(
                f"OVERLOADED: in {int(good['overload'].notna().sum())} of {len(good)} points requests arrive up to "
                f"{good['overload'].max():.2g} times as fast as they are served, so the queue never drains and every "
                "figure depends on how long the trace is."
            )
        )
    return ordered(notes)


def _overload(group: pd.DataFrame) -> str:
    return NONE if group["overload"].isna().all() else times(float(group["overload"].mean()))


def short(keys: Sequence[str]) -> list[str]:
    """The last parts of dotted keys, whole where two would be alike."""
    ends = [key.rpartition(".")[2] for key in keys]
    return [end if ends.count(end) == 1 else key for key, end in zip(keys, ends, strict=True)]


def rank(group: pd.DataFrame, by: str) -> tuple[bool, float]:
    """How good points are by a figure, in the mean: the smaller the better."""
    mean = float(group[by].mean())
    return math.isnan(mean), -mean if figure(by).more_is_better else mean


def _mean(group: pd.DataFrame, name: str, conditions: int) -> str:
    """The mean of a figure; with its interval where all that differs is the seed."""
    values, unit = group[name].tolist(), figure(name).unit
    if conditions > 1:
        return format_value(float(group[name].mean()), unit)
    if name == "slo_attainment":
        return format_interval(share(values, group["requests"].astype(int).tolist()), unit)
    mean = interval(values)
    return format_value(mean.mean, unit) if name == "slo_attainment_worst_size" else format_interval(mean, unit)
