"""The comparison as tables: means over seeds with 95 % confidence intervals, in Markdown.

A cell ``0.44 ± 0.02`` is the mean over seeds and the half width of Student's interval. Ratios are taken seed by seed
before they are averaged: common random numbers cancel what the seeds have in common.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from benchmarks.serving.point import Source, profile_of

PUBLISHED = {"attainment over NIRVANA": "+30.1 %", "goodput over NIRVANA": "5.33x", "goodput over mixed FCFS": "1.06x"}
"""What PatchedServe's evaluation says (arXiv 2501.09253): averages over its rates, models and GPU counts."""

Spell = Callable[[float], str]


def percent(value: float) -> str:
    """A fraction as a number of percent."""
    return f"{100 * value:.1f}"


def number(value: float) -> str:
    """Three significant digits."""
    return f"{value:.3g}" if abs(value) < 100 else f"{value:,.0f}"


def interval(values: Sequence[float], spell: Spell = number) -> str:
    """Mean ± half of the 95 % interval (Student's t); the mean alone of one value, – of none."""
    known = np.array([value for value in values if np.isfinite(value)], dtype=float)
    if not len(known):
        return "–"
    if len(known) == 1:
        return spell(known[0])
    half = float(stats.t.ppf(0.975, len(known) - 1) * known.std(ddof=1) / np.sqrt(len(known)))
    return f"{spell(known.mean())} ± {spell(half)}"


@dataclass(frozen=True)
class Table:
    """A titled table with a note; rows and cells are text."""

    title: str
    note: str
    heads: list[str]
    rows: list[list[str]]

    def markdown(self) -> str:
        """The table as Markdown."""
        lines = [f"### {self.title}", "", self.note, ""] if self.note else [f"### {self.title}", ""]
        lines += ["| " + " | ".join(self.heads) + " |", "|:--" + "|--:" * (len(self.heads) - 1) + "|"]
        lines += ["| " + " | ".join(row) + " |" for row in self.rows]
        return "\n".join(lines) + "\n"


def pivot(
    title: str, note: str, frame: pd.DataFrame, row: str, column: str, value: str, spell: Spell = number
) -> Table:
    """Rows by columns of one figure, each cell an interval over what is left, which is seeds."""
    rows, columns = list(dict.fromkeys(frame[row])), list(dict.fromkeys(frame[column]))
    cells = {key: group[value].tolist() for key, group in frame.groupby([row, column], sort=False)}
    lines = [[str(r), *(interval(cells.get((r, c), []), spell) for c in columns)] for r in rows]
    return Table(title, note, [row, *(number(c) if isinstance(c, float) else str(c) for c in columns)], lines)


def by_regime(compared: pd.DataFrame, model: str) -> Table:
    """The figures of a model in every regime.

    Args:
        compared: ``value`` by model, regime, scheduler and seed.
        model: that is shown.
    """
    title = f"{model}: the figure of every regime"
    note = (
        "Goodput at 90 % attainment (requests/s a GPU) where nothing else is named; under overload and for the worst "
        "size the share in time; without deadlines seconds, where less is better. Each seed of GenTD26 arrivals is "
        "another window, and they differ much: compare ratios there."
    )
    return pivot(title, note, compared[compared["model"] == model], "scheduler", "regime", "value")


def ratio(ours: Sequence[float], other: Sequence[float]) -> tuple[float, float]:
    """The mean of one over that of another, and half of its 95 % interval; the seeds are paired.

    Student's interval of the ratio of two means, by its linearisation; nan of a single seed.
    """
    own, base = np.asarray(ours, dtype=float), np.asarray(other, dtype=float)
    if not base.mean():
        return math.nan, math.nan
    found, count = own.mean() / base.mean(), len(own)
    if count == 1:
        return float(found), math.nan
    spread = (own - found * base).std(ddof=1) / base.mean()
    return float(found), float(stats.t.ppf(0.975, count - 1) * spread / np.sqrt(count))


def verdict(compared: pd.DataFrame, ours: str, published: Sequence[str]) -> Table:
    """Ours over the strongest reading of the published scheduler and over the best other one, regime by regime.

    The best other one is none of ours, whose names all begin alike.

    Above 1 ours is better, also where less of the figure is. ``not better`` names where ours does not win: where the
    best other one is as good or better on average.

    Args:
        compared: ``value`` and ``less_is_better`` by model, regime, scheduler and seed.
        ours: our scheduler.
        published: readings of the published one.
    """
    rivals = {
        "PatchedServe": list(published),
        "best other": [n for n in sorted(set(compared["scheduler"])) if not n.startswith(ours)],
    }
    models = list(dict.fromkeys(compared["model"]))
    found: dict[tuple[str, str], list[float]] = {(model, rival): [] for model in models for rival in rivals}
    rows, lost = [], []
    for regime, of_regime in compared.groupby("regime", sort=False):
        row = [str(regime)]
        for (model, rival), ratios in found.items():
            nearest = _nearest(of_regime[of_regime["model"] == model], ours, rivals[rival])
            if nearest is None:
                row.append("–")
                continue
            name, value, half = nearest
            ratios.append(value)
            row.append(f"{value:.2f}" + (f" ± {half:.2f}" if math.isfinite(half) else "") + f" ({name})")
            if rival == "best other" and value <= 1:
                lost.append(f"{model} {regime}: {value:.3f} of {name}")
        rows.append(row)
    shown = [ratios or [math.nan] for ratios in found.values()]
    rows += [
        ["**mean**", *[f"**{np.mean(r):.3f}**" for r in shown]],
        ["**least**", *[f"{np.min(r):.3f}" for r in shown]],
    ]
    for rival in rivals:
        both = [value for (_, of), values in found.items() if of == rival for value in values] or [math.nan]
        rows.append(
            [
                f"over {rival}, all models",
                f"mean {np.mean(both):.3f}, least {np.min(both):.3f}",
                *[""] * (len(found) - 1),
            ]
        )
    rows.append(["not better", "; ".join(lost) or "nowhere", *[""] * (len(found) - 1)])
    heads = [f"{ours} / ", *(f"{model}: {rival}" for model, rival in found)]
    note = "Ratios of means over paired seeds, with 95 % intervals; in brackets who comes nearest."
    return Table(f"{ours} over the others, by regime", note, heads, rows)


def _nearest(own: pd.DataFrame, ours: str, rivals: Sequence[str]) -> tuple[str, float, float] | None:
    """The rival with the smallest ratio of ours to it, with that and half of its interval; None where none has one."""
    values = own.pivot(index="seed", columns="scheduler", values="value")
    if ours not in values:
        return None
    less = bool(own["less_is_better"].iloc[0])
    found = []
    for name in rivals:
        if name in values:
            pair = (values[name], values[ours]) if less else (values[ours], values[name])
            found.append((name, *ratio(pair[0].tolist(), pair[1].tolist())))
    return min((one for one in found if math.isfinite(one[1])), key=lambda one: one[1:2] + one[:1], default=None)


def curves(own: pd.DataFrame) -> list[Table]:
    """Attainment against rate; at the middle rate by size, and latencies."""
    model = own["model"].iloc[0]
    shown = sorted(set(own["rate"]))
    middle = own[own["rate"] == shown[len(shown) // 2]]
    sizes = sorted({size for found in middle["by_size"] for size in found}, key=lambda size: int(size.split("x")[0]))
    by_size = pd.DataFrame(
        [
            {"scheduler": name, "size": size, "share": found.get(size, np.nan)}
            for name, found in zip(middle["scheduler"], middle["by_size"], strict=True)
            for size in sizes
        ]
    )
    latency = ["p50_s", "p90_s", "p95_s", "p99_s", "dropped", "utilisation", "batch"]
    long = middle.melt(["scheduler", "seed"], latency, "figure", "value")
    at = f"at {number(shown[len(shown) // 2])} requests/s a GPU"
    title = f"{model}: SLO attainment (%) against requests/s a GPU"
    return [
        pivot(title, "", own, "scheduler", "rate", "attainment", percent),
        pivot(f"{model}: SLO attainment (%) by size, {at}", "", by_size, "scheduler", "size", "share", percent),
        pivot(
            f"{model}: latency of finished requests (s), and more, {at}",
            "`dropped` and `utilisation` are shares, `batch` is requests a launch by time.",
            long,
            "scheduler",
            "figure",
            "value",
        ),
    ]


def replicas(own: pd.DataFrame) -> list[Table]:
    """Goodput a GPU against the number of GPUs."""
    model, own = own["model"].iloc[0], own.sort_values(["replicas"], kind="stable")
    title = f"{model}: goodput at 90 % (requests/s a GPU) against GPUs"
    return [pivot(title, "", own, "scheduler", "replicas", "goodput_90")]


def knowledge(own: pd.DataFrame) -> list[Table]:
    """Goodput when predictions are wrong, not corrected, or the truth."""
    names = {("online", 0.0): "as is", ("online", -0.2): "-20 %", ("online", 0.2): "+20 %"}
    names |= {("fixed", 0.0): "not corrected online", ("oracle", 0.0): "oracle"}
    model = own["model"].iloc[0]
    what = [names[key] for key in zip(own["knowledge"], own["error"], strict=True)]
    note = "An error lasts: online correction does not remove it. The oracle knows the world's durations without noise."
    title = f"{model}: goodput at 90 % (requests/s a GPU) by what the predictor knows"
    return [pivot(title, note, own.assign(predictor=what), "scheduler", "predictor", "goodput_90")]


def ablation(own: pd.DataFrame) -> list[Table]:
    """One ingredient more a row."""
    model = own["model"].iloc[0]
    steps = {
        ("same-size-continuous", "whole", "online"): "whole images, same-size continuous batching",
        ("mixed-fcfs", "patched", "online"): "+ executor: mixed batches, first come first served",
    }
    last = {"fixed": "+ scheduler: {}", "online": "+ predictor corrected online", "oracle": "(oracle, no cache)"}
    keys = zip(own["scheduler"], own["engine"], own["knowledge"], strict=True)
    uncached = [steps.get(key) or last[key[2]].format(key[0]) for key in keys]
    cached = own["computed"] < 1
    what = np.where(cached, [f"+ cache, were {100 * share:.0f} % computed" for share in own["computed"]], uncached)
    note = "Deadlines are multiples of whole images alone. "
    if model == "sdxl":
        note += "SDXL's mixed table was taken with the patch cache on: its executor step holds the cache's gain too."
    elif cached.any():
        note += "No cached run is published: the cache's row takes from the work what it would spare, bookkeeping free."
    own = own.assign(step=what, figure="goodput at 90 %")
    return [pivot(f"{model}: ablation, goodput at 90 % (requests/s a GPU)", note, own, "step", "figure", "goodput_90")]


def claims(own: pd.DataFrame) -> list[Table]:
    """The paper's comparisons in its set-up, beside its figures."""
    model = own["model"].iloc[0]
    system = own["scheduler"].where(own["engine"] == "patched", own["scheduler"] + ", whole images")
    system = system.where(own["steps_skipped"] == 0, system + ", half skip steps")
    own = own.assign(system=system)
    found, fixed = own[own["rate"].isna()], own[own["rate"].notna()]
    note = (
        "The paper's set-up: deadlines from whole images alone, its rates, uniform sizes. NIRVANA here drains one size "
        "at a time, the largest first. Below a system's capacity nothing separates it from others, beyond it all does: "
        "a mean over rates depends on the rates."
    )
    tables = [
        pivot(f"{model}: attainment (%) at the paper's rates", note, fixed, "system", "rate", "attainment", percent)
    ]
    for base in [name for name in dict.fromkeys(own["system"]) if name.startswith("patchedserve")]:
        rows = []
        for name in dict.fromkeys(own["system"]):
            if name != base:
                points = _paired(fixed, base, name, "attainment", ["rate", "seed"], np.subtract)
                gain = _paired(found, base, name, "goodput_90", ["seed"], np.divide)
                rows.append([name, interval(points.groupby("seed").mean().tolist(), percent), interval(gain.tolist())])
        if rows:
            published = ", ".join(f"{what} {value}" for what, value in PUBLISHED.items())
            heads = ["over", "attainment, points, mean over rates", "goodput at 90 %, ratio"]
            tables.append(Table(f"{model}: {base} over others", f"Published: {published}.", heads, rows))
    return tables


def _paired(
    frame: pd.DataFrame, one: str, other: str, value: str, on: list[str], how: Callable[..., object]
) -> pd.Series:
    first, second = (frame[frame["system"] == name].set_index(on)[value] for name in (one, other))
    first, second = first.align(second, join="inner")
    return pd.Series(how(first, second.replace(0.0, np.nan) if how is np.divide else second), index=first.index)


def prediction(source: Source, simulated: pd.DataFrame) -> list[Table]:
    """Errors of the latency models on held-out measurements, and of the schedulers' predictor under load."""
    from predictors.evaluate import evaluate

    errors = evaluate(profile_of(source).select(executor="patched"), held_out=("composition", "size"))
    errors = errors[errors["images"] == "all"]
    rows = []
    for (model, way), group in errors.groupby(["model", "held_out"], sort=False):
        perfect = float(group["perfect"].iloc[0])
        cells = [f"{percent(mape)} ({mape / perfect:.2f}x)" for mape in group["mape"]]
        rows.append([f"{model}, held-out {way}s", *cells, percent(perfect)])
    note = "Cross-validated. `perfect`: what the noise of repeats would leave a predictor that knew the truth."
    heads = ["", *dict.fromkeys(errors["latency_model"]), "perfect"]
    tables = [Table("Error of latency models, denoising (MAPE, %)", note, heads, rows)]
    title = "Error of the schedulers' predictor under load (%, by time)"
    note = "Fitted to half of the compositions, corrected online; the world's noise included."
    tables.append(pivot(title, note, simulated, "scheduler", "model", "prediction_error", percent))
    return tables
