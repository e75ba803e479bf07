"""Quantities over time, thinned to what a plot can show."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from policies.run_arrays import RunArrays
from policies.runlog import Run
from reports.checks import device_count, replica_count

Numbers = npt.NDArray[np.float64]


def load(run: Run) -> pd.DataFrame:
    """Requests in the house after each change, one row an instant at which something changed.

    Columns: ``time_s``, ``waiting`` (arrived, neither started nor ended), ``running`` (started, not ended). A
    request that was never submitted, because the run was interrupted, does not count. A start that rounding puts
    before the arrival is at the arrival.
    """
    submitted = run.requests[run.requests["finish_s"].notna()]
    submitted = submitted.assign(first_start_s=submitted["first_start_s"].clip(lower=submitted["arrival_s"]))
    started = submitted[submitted["first_start_s"].notna()]
    unstarted = submitted[submitted["first_start_s"].isna()]
    changes = pd.concat(
        [
            pd.DataFrame({"time_s": times, "waiting": waiting, "running": running})
            for times, waiting, running in (
                (submitted["arrival_s"], 1, 0),
                (started["first_start_s"], -1, 1),
                (started["finish_s"], 0, -1),
                (unstarted["finish_s"], -1, 0),
            )
        ]
    )
    return changes.groupby("time_s").sum().cumsum().astype(int).reset_index()


def mean_load(run: Run, edges: Numbers) -> tuple[Numbers, Numbers]:
    """Requests waiting and running, each its mean in every slice of time between ``edges``."""
    counts = load(run)
    times_s = counts["time_s"].to_numpy(float)
    instants = np.append(times_s, max([edges[-1], *times_s[-1:]]))
    means = []
    for column in ("waiting", "running"):
        so_far = np.concatenate([[0.0], np.cumsum(counts[column].to_numpy(float) * np.diff(instants))])
        means.append(np.diff(np.interp(edges, instants, so_far)) / np.diff(edges))
    return means[0], means[1]


def utilisation(run: Run, edges: Numbers) -> Numbers:
    """Share of each slice of time between ``edges`` that the devices of each replica were busy: (replicas, slices)."""
    share = np.zeros((replica_count(run), len(edges) - 1))
    for replica, launches in run.steps.groupby("replica"):
        ordered = launches.sort_values("start_s")
        start, end = ordered["start_s"].to_numpy(float), ordered["end_s"].to_numpy(float)
        busy = np.concatenate([[0.0], np.cumsum(ordered["device_s"].to_numpy(float) / device_count(run))])
        instants = np.concatenate([[start[0]], np.column_stack([start, end]).ravel()])
        so_far = np.concatenate([[0.0], np.column_stack([busy[:-1], busy[1:]]).ravel()])
        share[int(str(replica))] = np.diff(np.interp(edges, instants, so_far)) / np.diff(edges)
    return share.clip(0.0, 1.0)


def replicas(run: RunArrays) -> pd.DataFrame:
    """Replicas after each change of them, one row an instant at which something changed, from the start of the run to
    its end.

    Columns: ``time_s``; ``paid`` for, and ``ready`` of them, so that the others start; ``cost`` until then, in device
    hours where no price is known; and ``cost_of_most``, had as many as there may be been there all the time.
    """
    lives = run.lives()
    price = np.where(np.isnan(lives.price_per_hour), lives.devices, lives.price_per_hour) / 3600
    changes = pd.concat(
        [
            pd.DataFrame({"time_s": times, "paid": sign * paid, "ready": sign * ready, "rate": sign * paid * price})
            for times, sign, paid, ready in (
                (lives.from_s, 1, 1, 0),
                (lives.ready_s, 1, 0, 1),
                (lives.to_s, -1, 1, 1),
            )
        ]
    )
    summed = changes.groupby("time_s").sum().cumsum().reset_index()
    elapsed_s = np.diff(summed["time_s"], append=run.end_s)
    cost = np.concatenate([[0.0], np.cumsum(summed["rate"] * elapsed_s)[:-1]])
    most = sum(
        [p.replicas * (p.devices if np.isnan(p.price_per_hour) else p.devices * p.price_per_hour) for p in run.pools]
    )
    found = summed[["time_s", "paid", "ready"]].astype({"paid": int, "ready": int})
    return found.assign(cost=cost, cost_of_most=(summed["time_s"] - run.start_s) * most / 3600)


def spread(length: int, points: int) -> npt.NDArray[np.int64]:
    """At most ``points`` positions spread evenly over ``length``, the first and last among them."""
    return np.unique(np.linspace(0, max(0, length - 1), min(length, points)).round().astype(np.int64))
