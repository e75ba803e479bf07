"""What a planner has simulated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from reports.plan.result import Candidate
from tilecast.studies.replication import Replication


@dataclass(frozen=True, order=True)
class Change:
    """What is otherwise than planned for.

    Attributes:
        rate_scale: times the demand.
        slowdown: times the seconds of every step.
        error: share by which all predictions of the policy are too long.
        max_batch: cap of the scheduler's batches; None: its own.
    """

    rate_scale: float = 1.0
    slowdown: float = 1.0
    error: float = 0.0
    max_batch: int | None = None


AS_PLANNED = Change()


@dataclass(frozen=True, order=True)
class Experiment:
    """One simulation.

    Attributes:
        candidate: the cluster.
        seed: seed of the demand and of the world's noise; candidates asked with one seed see the same requests.
        requests: the first so many of the demand's replication.
        change: what is otherwise.
        saturate: all of them at once and without deadlines, to see what the cluster carries.
    """

    candidate: Candidate
    seed: int
    requests: int
    change: Change = AS_PLANNED
    saturate: bool = False


class Evaluate(Protocol):
    """The simulator: a replication for each experiment, in their order; the same for the same."""

    def __call__(self, experiments: Sequence[Experiment]) -> list[Replication]: ...
