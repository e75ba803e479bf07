"""A plan as tables of plain numbers, one Parquet file each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import Any, get_args, get_type_hints

import numpy as np
import pandas as pd

from reports.output_analysis import Interval
from reports.plan.result import (
    Candidate,
    DegreeFigures,
    Evaluation,
    Figures,
    Memory,
    Month,
    Plan,
    PolicyCost,
    PossibleSpeed,
    SizeFigures,
    WhatIf,
    Window,
)

TABLES = (
    "candidates",
    "load_curve",
    "growth",
    "policies",
    "speeds",
    "sensitivity",
    "by_size",
    "over_time",
    "by_degree",
)

QUANTILES = (5, 25, 50, 75, 95, 99)
"""Of latency, in percent: those of `SizeFigures`."""

_DTYPES = {float: "float64", int: "Int64", str: "string", bool: "boolean"}
_PREFIXES: dict[type, str] = {Candidate: "", Figures: "", Evaluation: "", Memory: "memory_"}


def frames(plan: Plan) -> dict[str, pd.DataFrame]:
    """The tables by name: ``candidates``, ``load_curve``, ``growth``, ``policies``, ``speeds``, ``sensitivity``,
    ``by_size``, ``over_time``, ``by_degree``. An interval is two columns: its mean and ``..._half_width``; what is
    nested lies flat. ``chosen`` marks the answer among the candidates; the first row of ``sensitivity`` is the loss of
    a replica, if it was tried.
    """
    lost = [plan.lost_replica] if plan.lost_replica else []
    candidates = _frame(Evaluation, plan.considered)
    answer = plan.answer.candidate if plan.answer else None
    candidates.insert(0, "chosen", np.array([row.candidate == answer for row in plan.considered], dtype=bool))
    return {
        "candidates": candidates,
        "load_curve": _frame(WhatIf, plan.load_curve),
        "growth": _frame(Month, plan.growth),
        "policies": _frame(PolicyCost, plan.policies),
        "speeds": _frame(PossibleSpeed, plan.speeds),
        "sensitivity": _frame(WhatIf, [*lost, *plan.sensitivity]),
        "by_size": _frame(SizeFigures, plan.by_size),
        "over_time": _frame(Window, plan.over_time),
        "by_degree": _frame(DegreeFigures, plan.by_degree),
    }


def _frame(kind: type, rows: Iterable[Any]) -> pd.DataFrame:
    """One row a value of a dataclass, one column a plain field of it and of what is nested in it."""
    columns = _columns(kind)
    return pd.DataFrame([_cells(kind, row) for row in rows], columns=list(columns)).astype(columns)


def _columns(kind: type, prefix: str = "") -> dict[str, str]:
    columns: dict[str, str] = {}
    for name, own in _fields(kind):
        if own is Interval:
            columns |= {f"{prefix}{name}": "float64", f"{prefix}{name}_half_width": "float64"}
        elif own is tuple:
            columns |= {f"{prefix}latency_p{q}_s": "float64" for q in QUANTILES}
        elif own in _PREFIXES:
            columns |= _columns(own, _PREFIXES[own])
        else:
            columns[prefix + name] = _DTYPES[own]
    return columns


def _cells(kind: type, row: Any, prefix: str = "") -> dict[str, Any]:
    """By column; what lies further out wins where two are called the same."""
    cells: dict[str, Any] = {}
    for name, own in _fields(kind):
        value = getattr(row, name)
        if own is Interval:
            cells |= {f"{prefix}{name}": value.mean, f"{prefix}{name}_half_width": value.half_width}
        elif own is tuple:
            cells |= {f"{prefix}latency_p{q}_s": each for q, each in zip(QUANTILES, value, strict=True)}
        elif own not in _PREFIXES:
            cells[prefix + name] = value
        elif value is not None:
            cells = _cells(own, value, _PREFIXES[own]) | cells
    return cells


def _fields(kind: type) -> list[tuple[str, Any]]:
    """Names and types, without ``None`` and without what a tuple holds."""
    hints = get_type_hints(kind)
    return [(field.name, _bare(hints[field.name])) for field in fields(kind)]


def _bare(hint: Any) -> Any:
    inner = [own for own in get_args(hint) if own is not type(None)]
    if not inner:
        return hint
    return tuple if getattr(hint, "__origin__", None) is tuple else inner[0]
