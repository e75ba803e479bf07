"""Figures of a run by parts: by size, model and tenant of requests, by pool and replica, by kind of batch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from policies.run_arrays import RunArrays
from reports.figures import DENOISING, value
from reports.formatting import Unit, format_value
from reports.table import Table
from traces.request import Size
from traces.sizes import format_size
from traces.stages import STAGES

OF_SIZES = ("slo_attainment", "latency_p50_s", "latency_p95_s", "slowdown_mean")
COLUMNS: dict[str, tuple[str, Unit]] = {
    "replicas": ("replicas", ""),
    "requests": ("requests", ""),
    "finished": ("finished", ""),
    "slo_attainment": ("in time", "%"),
    "latency_p50_s": ("latency P50", "s"),
    "latency_p95_s": ("latency P95", "s"),
    "slowdown_mean": ("slowdown", "x"),
    "launches": ("launches", ""),
    "busy_s": ("busy", "s"),
    "utilisation": ("utilisation", "%"),
    "batch_mean": ("requests a launch", "x"),
    "cost": ("cost", "x"),
    "prediction_mape": ("prediction error", "%"),
    "prediction_mape_by_time": ("by time", "%"),
    "prediction_bias_by_time": ("bias by time", "%"),
}
"""What columns of tables by parts of a run are called, and their units."""

MOST = 20
"""Parts that a table shows for people; of more, those with the most requests."""

_OF_BATCHES = ("prediction_mape", "prediction_mape_by_time", "prediction_bias_by_time")


def by_size(run: RunArrays) -> pd.DataFrame:
    """One row a size (``height x width [x frames]``), smallest first: ``requests``, ``finished`` and figures of them.

    The figures are `OF_SIZES`.
    """
    columns = ("requests", "finished", *OF_SIZES)
    rows = {format_size(size): _row(run.of_sizes([size]), columns) for size in sorted(sizes_of(run))}
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(columns)).rename_axis("size")


def by_model(run: RunArrays, names: Iterable[str] | None = None) -> pd.DataFrame:
    """One row a model, by name, of those named or of all: ``requests``, ``finished`` and the figures of `OF_SIZES`."""
    return _by_name(run, "model", names)


def by_tenant(run: RunArrays, names: Iterable[str] | None = None) -> pd.DataFrame:
    """One row a tenant, by name, of those named or of all: ``requests``, ``finished`` and the figures of `OF_SIZES`."""
    return _by_name(run, "tenant", names)


def by_pool(run: RunArrays) -> pd.DataFrame:
    """One row a pool: ``replicas``, ``requests`` (that ran there last), figures of `OF_SIZES` of these, ``utilisation``
    and what its replicas ``cost`` (see `reports.figures`)."""
    columns = ("requests", *OF_SIZES, "utilisation", "cost")
    rows = {pool.name: {"replicas": pool.replicas, **_row(run.of_pool(pool), columns)} for pool in run.pools}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("pool")


def _by_name(run: RunArrays, field: str, wanted: Iterable[str] | None) -> pd.DataFrame:
    names: tuple[str, ...] = getattr(run.requests, f"{field}s")
    columns = ("requests", "finished", *OF_SIZES)
    rows = {}
    for name in sorted(names if wanted is None else {*names}.intersection(wanted)):
        code = names.index(name)
        rows[name] = _row(run.of_requests(lambda rows, code=code: getattr(rows, field) == code), columns)  # type: ignore[misc]
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(columns)).rename_axis(field)


def breakdowns(runs: Sequence[RunArrays], names: Sequence[str]) -> list[Table]:
    """Runs by model, by pool and by tenant, each where there are several; ``names`` are the runs'."""
    tables = []
    models, tenants = _most_asked(runs, "model"), _most_asked(runs, "tenant")
    if len(models) > 1:
        tables.append(_table("model", [by_model(run, models[:MOST]) for run in runs], names, len(models)))
    if len({pool.name for run in runs for pool in run.pools}) > 1:
        tables.append(_table("pool", [by_pool(run) for run in runs], names))
    if len(tenants) > 1:
        tables.append(_table("tenant", [by_tenant(run, tenants[:MOST]) for run in runs], names, len(tenants)))
    return tables


def size_table(runs: Sequence[RunArrays], names: Sequence[str]) -> Table:
    """Runs by size of the requests."""
    return _table("size", list(map(by_size, runs)), names)


def replica_table(runs: Sequence[RunArrays], names: Sequence[str]) -> Table:
    """Runs by replica."""
    return _table("replica", list(map(by_replica, runs)), names)


def batch_table(runs: Sequence[RunArrays], names: Sequence[str]) -> Table:
    """Runs by kind of batch: how long denoising took, and how well that was predicted."""
    return replace(_table("batch", list(map(by_batch, runs)), names), title="Denoising by batch")


def _most_asked(runs: Sequence[RunArrays], field: str) -> list[str]:
    """The names of models or tenants by their requests, those with the most first."""
    asked: dict[str, int] = {}
    for run in runs:
        every: tuple[str, ...] = getattr(run.requests, f"{field}s")
        counts = np.bincount(getattr(run.requests, field), minlength=len(every)).tolist()
        for name, count in zip(every, counts, strict=True):
            asked[name] = asked.get(name, 0) + count
    return sorted(asked, key=lambda name: (-asked[name], name))


def _table(part: str, frames: Sequence[pd.DataFrame], names: Sequence[str], of: int = 0) -> Table:
    """A row for each part of each run; of ``of`` parts only those with the most requests are there."""
    parts = list(dict.fromkeys(name for frame in frames for name in frame.index))[: MOST if of else None]
    columns = [name for name in frames[0].columns if any(frame[name].notna().any() for frame in frames)]
    rows = []
    for name in parts:
        for run, frame in zip(names, frames, strict=True):
            if name in frame.index:
                cells = [format_value(float(frame[column][name]), COLUMNS[column][1]) for column in columns]
                rows.append((str(name) or "(none)", *([run] if len(frames) > 1 else []), *cells))
    title = f"By {part}" if of <= MOST else f"By {part}, the {MOST} of {of:,} with the most requests"
    texts = ("run",) if len(frames) > 1 else ()
    return Table.plain(title, (part, *texts, *[COLUMNS[name][0] for name in columns]), rows, 1 + len(texts))


def by_replica(run: RunArrays) -> pd.DataFrame:
    """One row a replica: ``launches``, ``busy_s``, ``utilisation`` (of its devices) and ``batch_mean``
    (of launches that serve requests)."""
    rows = []
    for replica in range(run.replicas):
        own = run.of_replica(replica)
        busy_s = float(own.steps.seconds.sum())
        rows.append((len(own.steps), busy_s, value("utilisation", own), value("batch_mean", own)))
    return pd.DataFrame(rows, columns=["launches", "busy_s", "utilisation", "batch_mean"]).rename_axis("replica")


def by_batch(run: RunArrays) -> pd.DataFrame:
    """How well denoising was predicted, one row a kind of batch that ran: ``one request``, ``one size``,
    ``mixed sizes``, ``tiled``.

    Columns: ``launches``, ``busy_s``, ``prediction_mape``, ``prediction_mape_by_time`` and
    ``prediction_bias_by_time`` (fractions, see `reports.figures`).
    """
    denoising = run.of_steps(run.steps.of(*DENOISING))
    steps = denoising.steps
    kind = np.where(steps.mixed, "mixed sizes", "one size")
    kind = np.where(steps.requests == 1, "one request", kind)
    kind = np.where(steps.of(*STAGES.named(lambda stage: stage.mixes)), kind, "tiled")
    rows: dict[str, dict[str, float]] = {}
    for name in ("one request", "one size", "mixed sizes", "tiled"):
        own = denoising.of_steps(kind == name)
        if len(own.steps):
            rows[name] = {"launches": len(own.steps), "busy_s": own.steps.seconds.sum(), **_row(own, _OF_BATCHES)}
    columns = ["launches", "busy_s", *_OF_BATCHES]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("batch")


def sizes_of(run: RunArrays) -> list[Size]:
    """The sizes of the requests of a run, each once, in order of appearance."""
    codes, first = np.unique(run.requests.size, return_index=True)
    return [run.requests.sizes[code] for code in codes[np.argsort(first)].tolist()]


def _row(run: RunArrays, names: tuple[str, ...]) -> dict[str, float]:
    return {name: value(name, run) for name in names}
