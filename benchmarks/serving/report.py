"""The comparison as tables: means over seeds with 95 % confidence intervals, in Markdown.

A cell ``0.44 ± 0.02`` is the mean over seeds and the half width of Student's interval. Ratios are taken seed by seed
before they are averaged: common random numbers cancel what the seeds have in common.
"""

from __future__ import annotations

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


def ratios(frame: pd.DataFrame, keys: Sequence[str], value: str, base: str) -> pd.DataFrame:
    """``value`` of every scheduler over that of ``base`` with the same ``keys`` and seed, as column ``ratio``."""
    on = [*keys, "seed"]
    reference = frame[frame["scheduler"] == base][[*on, value]].rename(columns={value: "reference"})
    joined = frame.merge(reference, on=on, how="inner")
    return joined.assign(ratio=joined[value] / joined["reference"].replace(0.0, np.nan))


def curves(frame: pd.DataFrame, model: str) -> list[Table]:
    """Attainment against rate; at the middle rate by size, and latencies."""
    own = frame[frame["model"] == model]
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


def by_slo(frame: pd.DataFrame, model: str) -> list[Table]:
    """Attainment against the deadline's scale."""
    own = frame[frame["model"] == model]
    title = f"{model}: SLO attainment (%) against SLO scale, at {number(own['rate'].iloc[0])} requests/s a GPU"
    return [pivot(title, "", own, "scheduler", "slo", "attainment", percent)]


def goodputs(frame: pd.DataFrame, model: str, base: str = "patchedserve") -> list[Table]:
    """Goodput at both goals by mix, and over PatchedServe as published."""
    own = frame[frame["model"] == model]
    tables = []
    for goal in ("90", "99"):
        title = f"{model}: goodput at {goal} % attainment (requests/s a GPU) by mix"
        note = "Each seed of `bursty` is another window of GenTD26; they differ much, so compare ratios there."
        tables.append(pivot(title, note, own, "scheduler", "mix", f"goodput_{goal}"))
    if base in set(own["scheduler"]):
        over = ratios(own, ["mix"], "goodput_90", base)
        title = f"{model}: goodput at 90 % over {base}, by mix"
        tables.append(pivot(title, "Ratios of paired seeds.", over, "scheduler", "mix", "ratio"))
    return tables


def replicas(frame: pd.DataFrame, model: str) -> list[Table]:
    """Goodput a GPU against the number of GPUs."""
    own = frame[frame["model"] == model].sort_values(["replicas"], kind="stable")
    title = f"{model}: goodput at 90 % (requests/s a GPU) against GPUs"
    return [pivot(title, "", own, "scheduler", "replicas", "goodput_90")]


def knowledge(frame: pd.DataFrame, model: str) -> list[Table]:
    """Goodput when predictions are wrong, not corrected, or the truth."""
    names = {("online", 0.0): "as is", ("online", -0.2): "-20 %", ("online", 0.2): "+20 %"}
    names |= {("fixed", 0.0): "not corrected online", ("oracle", 0.0): "oracle"}
    own = frame[frame["model"] == model]
    what = [names[key] for key in zip(own["knowledge"], own["error"], strict=True)]
    note = "An error lasts: online correction does not remove it. The oracle knows the world's durations without noise."
    title = f"{model}: goodput at 90 % (requests/s a GPU) by what the predictor knows"
    return [pivot(title, note, own.assign(predictor=what), "scheduler", "predictor", "goodput_90")]


def ablation(frame: pd.DataFrame, model: str) -> list[Table]:
    """One ingredient more a row."""
    own = frame[frame["model"] == model]
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


def claims(frame: pd.DataFrame, model: str) -> list[Table]:
    """The paper's comparisons in its set-up, beside its figures."""
    own = frame[frame["model"] == model]
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
    for base in ("patchedserve", "patchedserve-joins"):
        rows = []
        for name in dict.fromkeys(own["system"]):
            if name != base and base in set(own["system"]):
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


def verdict(frame: pd.DataFrame, wrong: pd.DataFrame, ours: str, base: str = "patchedserve") -> Table:
    """Our scheduler's goodput at 90 % against the published one, the best other one on each mix, and the oracle.

    Args:
        frame: points of all mixes.
        wrong: points of wrong, uncorrected and perfect knowledge, on one mix.
    """
    loads = ["model", "mix"]
    over = _over_others(frame, ours, loads)
    best = _over_best(over, loads)
    least = best.groupby(loads)["ratio"].mean()
    model, mix = least.index[int(least.argmin())]
    rows = [
        [f"over {base}, mean over models and mixes", _by_seed(over[over["other"] == base]), "1.25"],
        ["over the best other one, mean over models and mixes", _by_seed(best), "1.10"],
        [f"over the best other one, least ({model} {mix})", number(least.min()), "0.98"],
    ]
    for error in (-0.2, 0.2):
        led = _over_best(_over_others(wrong[wrong["error"] == error], ours, ["model"]), ["model"])
        rows.append([f"over the best other one with {100 * error:+.0f} % prediction error", _by_seed(led), "1"])
    own = wrong[(wrong["scheduler"] == ours) & (wrong["error"] == 0)]
    knowing = own.pivot_table("goodput_90", ["model", "seed"], "knowledge")
    itself = (knowing["online"] / knowing["oracle"]).rename("ratio").reset_index()
    rows.append(["over itself with the oracle predictor", _by_seed(itself), "–"])
    note = "Ratios of paired seeds; the best other one is the one that comes nearest on that mix."
    return Table(f"{ours}: goodput at 90 % attainment", note, ["ratio", "found", "goal"], rows)


def _over_others(frame: pd.DataFrame, ours: str, loads: list[str]) -> pd.DataFrame:
    """Ratios of our goodput to that of each ``other`` one under the same load and seed."""
    on = [*loads, "seed"]
    own = frame[frame["scheduler"] == ours][[*on, "goodput_90"]]
    joined = frame[frame["scheduler"] != ours].merge(own, on=on, suffixes=("", "_ours"))
    ratio = joined["goodput_90_ours"] / joined["goodput_90"].replace(0.0, np.nan)
    return joined.assign(other=joined["scheduler"], ratio=ratio)[[*on, "other", "ratio"]]


def _over_best(over: pd.DataFrame, loads: list[str]) -> pd.DataFrame:
    """The ratios to the other one that comes nearest under each load."""
    nearest = over.groupby([*loads, "other"])["ratio"].mean().reset_index()
    nearest = nearest.loc[nearest.groupby(loads)["ratio"].idxmin(), [*loads, "other"]]
    return over.merge(nearest, on=[*loads, "other"])


def _by_seed(ratios: pd.DataFrame) -> str:
    """The interval over seeds of the mean over loads."""
    return interval(ratios.groupby("seed")["ratio"].mean().tolist())


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
