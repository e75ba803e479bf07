"""What limits a cluster, as far as its own run shows it; the planner confirms it by running it otherwise."""

from __future__ import annotations

from collections.abc import Sequence

from tilecast.studies.replication import Replication
from traces.stages import STAGES

COMPUTE, MEMORY, BATCH_CAP, PLACEMENT = "compute", "memory", "batch cap", "placement"
WEIGHTS, POLICY = "weights", "policy"

BUSY = 0.9
"""Devices that are busy for this share of the time have nothing left to give: queues behind them are long."""

MUCH_LOADING = 0.15
"""Share of the busy time."""

UNEVEN = 1.25
"""The busiest over the mean."""

AT_CAP = 0.8
"""Share of the denoising time spent in the largest batches, from which on batches could hardly be larger."""

SHORT_WAIT = 0.2
"""Share of a request's time."""

BUSY_AT_PEAKS = 0.7
"""While requests wait; slices of time hold more than the peak itself."""


def limit(replications: Sequence[Replication], load: float) -> tuple[str, str]:
    """The reason of a verdict, and half a sentence with its figures; the first that applies.

    * weights: much of the busy time goes into loading models.
    * placement: in refinement the busiest device has far more to do than the mean, or one replica than another.
    * batch cap: nearly all denoising is done in the largest batches that there are, with devices busy.
    * compute: devices are busy, always or at the peaks, which are when requests wait; or requests hardly wait and are
      late all the same.
    * policy: devices have time left while requests wait.
    """

    def mean(values: Sequence[float]) -> float:
        return sum(values) / len(values)

    busy = mean([r.utilisation for r in replications])
    total_s = sum([sum(r.stage_s.values()) for r in replications])
    loading = STAGES.named(lambda stage: stage.weights)
    loading_s = sum([r.stage_s.get(stage, 0.0) for r in replications for stage in loading])
    if loading_s > MUCH_LOADING * total_s:
        return WEIGHTS, f"{loading_s / total_s:.0%} of the busy time goes into loading models"
    imbalance = mean([r.imbalance for r in replications])
    if imbalance > UNEVEN:
        return PLACEMENT, f"the busiest device of a replica has {imbalance:.2f} times the mean to refine"
    replicas = [mean(values) for values in zip(*[r.replica_utilisation for r in replications], strict=True)]
    if max(replicas) > BUSY and max(replicas) > UNEVEN * mean(replicas):
        return PLACEMENT, f"the busiest replica is busy {max(replicas):.0%} of the time, the mean {mean(replicas):.0%}"
    at_cap, cap = mean([r.at_cap for r in replications]), max([r.batch_cap for r in replications])
    if busy > BUSY or load > BUSY:
        if cap > 1 and at_cap > AT_CAP:
            return BATCH_CAP, f"{at_cap:.0%} of the denoising time is spent in batches of {cap}, the largest"
        batch = mean([r.batch for r in replications])
        alone = "one request at a time" if cap <= 1 else f"{batch:.2g} requests at a time"
        return COMPUTE, f"devices are {busy:.0%} busy, {alone}"
    waits_s, latency_s = mean([r.wait_mean_s for r in replications]), mean([r.latency_mean_s for r in replications])
    if waits_s < SHORT_WAIT * latency_s:
        return COMPUTE, f"requests wait {waits_s:.3g} s of the {latency_s:.3g} s they take: work itself is too slow"
    peaks = _while_waiting(replications)
    if peaks > BUSY_AT_PEAKS:
        return COMPUTE, f"devices are {peaks:.0%} busy while requests wait: peaks decide"
    return POLICY, f"devices are {busy:.0%} busy, and requests wait {waits_s:.3g} s of the {latency_s:.3g} s they take"


def _while_waiting(replications: Sequence[Replication]) -> float:
    """Busy share of the devices, each slice of time weighted by the requests that wait in it; 0.0: none ever does."""
    slices = [window for r in replications for window in r.windows if window.waiting > 0]
    waiting = sum([window.waiting for window in slices])
    return sum([window.waiting * window.utilisation for window in slices]) / waiting if waiting else 0.0
