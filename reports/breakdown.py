"""Figures of a run by parts: by size, model and tenant of requests, by pool and replica, by kind of batch."""

from __future__ import annotations

import numpy as np
import pandas as pd

from policies.run_arrays import RunArrays
from reports.figures import DENOISING, value
from traces.request import Size
from traces.sizes import format_size
from traces.stages import STAGES

OF_SIZES = ("slo_attainment", "latency_p50_s", "latency_p95_s", "slowdown_mean")
_OF_BATCHES = ("prediction_mape", "prediction_mape_by_time", "prediction_bias_by_time")


def by_size(run: RunArrays) -> pd.DataFrame:
    """One row a size (``height x width [x frames]``), smallest first: ``requests``, ``finished`` and figures of them.

    The figures are `OF_SIZES`.
    """
    columns = ("requests", "finished", *OF_SIZES)
    rows = {format_size(size): _row(run.of_sizes([size]), columns) for size in sorted(sizes_of(run))}
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(columns)).rename_axis("size")


def by_model(run: RunArrays) -> pd.DataFrame:
    """One row a model, by name: ``requests``, ``finished`` and the figures of `OF_SIZES`."""
    return _by_name(run, "model")


def by_tenant(run: RunArrays) -> pd.DataFrame:
    """One row a tenant, by name: ``requests``, ``finished`` and the figures of `OF_SIZES`."""
    return _by_name(run, "tenant")


def by_pool(run: RunArrays) -> pd.DataFrame:
    """One row a pool: ``replicas``, ``requests`` (that ran there last), figures of `OF_SIZES` of these, ``utilisation``
    and what its replicas ``cost`` (see `reports.figures`)."""
    columns = ("requests", *OF_SIZES, "utilisation", "cost")
    rows = {pool.name: {"replicas": pool.replicas, **_row(run.of_pool(pool), columns)} for pool in run.pools}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("pool")


def _by_name(run: RunArrays, field: str) -> pd.DataFrame:
    names: tuple[str, ...] = getattr(run.requests, f"{field}s")
    columns = ("requests", "finished", *OF_SIZES)
    rows = {}
    for name in sorted(names):
        code = names.index(name)
        rows[name] = _row(run.of_requests(lambda rows, code=code: getattr(rows, field) == code), columns)  # type: ignore[misc]
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(columns)).rename_axis(field)


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
