"""`check_policy` passes what keeps the contract and fails what does not."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from policies.caching import CACHES, CachingPolicy, ComputeAll, ForestReuse, Signals, Threshold
from policies.contract import Cluster, Decision, PolicyError, Replica, SchedulingPolicy
from policies.job import Job
from policies.placement import Contiguous, PlacementPolicy, TileWork
from policies.routing import LeastWork, RoutingPolicy
from policies.scheduling import EDF, FCFS, SCHEDULERS, MixedFCFS
from policies.weights import EVICTIONS
from predictors.forest_fit import fit_forest
from sim.check import check_policy
from tests.predictors.recordings import made_up
from tests.sim.few_requests import fewer_requests


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_shipped_scheduler_passes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fewer_requests(monkeypatch, 25)
    check_policy(SCHEDULERS[name]())


@pytest.mark.parametrize("policy", [EDF(drop_late=True), EDF(max_batch=1), ComputeAll(), Contiguous()])
def test_variants_and_other_kinds_pass(policy: SchedulingPolicy) -> None:
    check_policy(policy)


def test_the_shortest_policy_passes() -> None:
    class Newest(SchedulingPolicy):
        """Runs what is resident, else the newest waiting request; needs no state."""

        def plan(self, replica: Replica, now: float) -> Decision | None:
            jobs = list(replica.resident.values()) or list(self.cluster.waiting.values())
            return Decision((jobs[-1],), jobs[-1].steps_left) if jobs else None

    check_policy(Newest())


class Forgetful(FCFS):
    """Loses every tenth request."""

    def arrived(self, job: Job, now: float) -> None:
        if job.order % 10 != 9:
            super().arrived(job, now)


class Greedy(FCFS):
    """Wants the same request on every replica."""

    def plan(self, replica: Replica, now: float) -> Decision | None:
        for job in self.cluster.jobs.values():
            return Decision((job,), job.steps_left)
        return None


class Moody(FCFS):
    """Decides by a counter that outlives the run."""

    mood = itertools.count()

    def plan(self, replica: Replica, now: float) -> Decision | None:
        if not replica.resident and len(self._queue) > 1 and next(self.mood) % 3 == 0:
            self._queue.rotate(1)
        return super().plan(replica, now)


class Liar(EDF):
    """Sees that an arrival changes its mind, but recalls nothing, so its quanta are broken promises."""

    def recalls(self, now: float) -> list[int]:
        super().recalls(now)
        return []


class Overeager(FCFS):
    """Asks for more steps than are left."""

    def plan(self, replica: Replica, now: float) -> Decision | None:
        decision = super().plan(replica, now)
        return decision and decision._replace(steps=decision.steps + 1)


class Mover(FCFS):
    """Starts everything first and runs a started request wherever a replica is free."""

    def plan(self, replica: Replica, now: float) -> Decision | None:
        jobs = [*self.cluster.waiting.values()] or [j for j in self.cluster.jobs.values() if j.state == "resident"]
        return Decision((jobs[0],), 1) if jobs else None


class MixesTiled(MixedFCFS):
    """Knows nothing of tiled requests, so it puts them in a batch with others."""

    def _take(self, held: list[Job]) -> list[Job]:
        waiting = list(self.cluster.waiting.values())
        return waiting[: max(0, self._share() - len(held))]


class Hoarder(FCFS):
    """Keeps the state of its runs in its parameters' place."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def reset(self, cluster: Cluster) -> None:
        super().reset(cluster)

    def arrived(self, job: Job, now: float) -> None:
        Hoarder.shared.append(job.request.request_id)
        if len(Hoarder.shared) % 50 == 0:
            self._queue.appendleft(job)
        else:
            super().arrived(job, now)

    shared: list[str] = []  # noqa: RUF012 - that it is shared is the fault


@pytest.mark.parametrize(
    ("policy", "complaint"),
    [
        (Forgetful(), "stalls"),
        (Greedy(), "running already"),
        (Moody(), "not deterministic"),
        (Liar(), "breaks the promise .* in recalls"),
        (Overeager(), "steps of"),
        (Mover(), "lives on replica"),
        (MixesTiled(), "mixes (stages|sizes) in"),
        (Hoarder(), "not deterministic"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_broken_schedulers_fail(policy: SchedulingPolicy, complaint: str) -> None:
    with pytest.raises(PolicyError, match=complaint):
        check_policy(policy)


@pytest.mark.parametrize("name", CACHES)
def test_every_shipped_cache_passes(name: str, tmp_path: Path) -> None:
    if name != "forest":
        check_policy(CACHES[name]())
        return
    fit_forest(made_up()).save(tmp_path / "forest.parquet")
    check_policy(ForestReuse(str(tmp_path / "forest.parquet")))


class ReusesNothing(CachingPolicy):
    """Reuses what was never computed."""

    def decide(self, signals: Signals) -> np.ndarray:
        return np.zeros(len(signals.unit), dtype=bool)


class AnswersLists(CachingPolicy):
    """Answers what is no array."""

    def decide(self, signals: Signals) -> np.ndarray:
        return [True] * len(signals.unit)  # type: ignore[return-value]


class CountsQuestions(Threshold):
    """Decides by how often it was asked."""

    def decide(self, signals: Signals) -> np.ndarray:
        self._asked = getattr(self, "_asked", 0) + 1
        return super().decide(signals) | (self._asked % 2 == 0)


class WholeBatch(Threshold):
    """Computes a whole batch as soon as one unit of it must be computed."""

    def decide(self, signals: Signals) -> np.ndarray:
        return np.full(len(signals.unit), super().decide(signals).any())


class Remembers(Threshold):
    """Counts on after it was told to forget, and lets nobody reuse more than thrice in a life."""

    def reset(self) -> None:
        super().reset()
        self._left = {"r0": 3, "r1": 3, "r2": 3}

    def decide(self, signals: Signals) -> np.ndarray:
        left = np.array([self._left[name] for name in signals.request_ids])[signals.request]
        return super().decide(signals) | (left <= 0)

    def commit(self, signals: Signals, computed: np.ndarray) -> None:
        super().commit(signals, computed)
        for index, name in enumerate(signals.request_ids):
            self._left[name] -= int((~computed[signals.request == index]).any())


class OffTheEnd(PlacementPolicy):
    """Names a device that does not exist."""

    def assign(self, tiles: Sequence[TileWork], devices: int) -> list[int]:
        return [tile.tile for tile in tiles]


@pytest.mark.parametrize(
    ("policy", "complaint"),
    [
        (ReusesNothing(), "never computed"),
        (AnswersLists(), "must answer an array"),
        (CountsQuestions(threshold=0.2), "changes its mind"),
        (Remembers(threshold=0.2), "remembers requests"),
        (WholeBatch(threshold=0.2), "change each other's answers"),
        (OffTheEnd(), "expected a device from 0 to 0"),
        (object(), "is no policy"),
    ],
)
def test_other_broken_kinds_fail(policy: CachingPolicy | PlacementPolicy, complaint: str) -> None:
    with pytest.raises(PolicyError, match=complaint):
        check_policy(policy)


@pytest.mark.parametrize("name", EVICTIONS)
def test_every_shipped_weights_policy_passes(name: str) -> None:
    check_policy(EVICTIONS[name](**({"checkpoints": ["c0"]} if name == "pin" else {})))


def test_a_weights_policy_that_depends_on_earlier_runs_is_found() -> None:
    class Moody(EVICTIONS["lru"]):  # type: ignore[misc,name-defined]
        asked = itertools.count()

        def victim(self, loaded: Sequence[str], now: float) -> str:
            return loaded[next(self.asked) % 7 % len(loaded)]

    with pytest.raises(PolicyError, match="policy Moody is not deterministic"):
        check_policy(Moody())


def test_a_routing_policy_that_depends_on_earlier_runs_is_found() -> None:
    class Moody(LeastWork):
        asked = itertools.count()

        def route(self, job: Job, replicas: Sequence[Replica], now: float) -> Replica:
            super().route(job, replicas, now)
            return replicas[next(self.asked) % 7 % len(replicas)]

    with pytest.raises(PolicyError, match="policy Moody is not deterministic"):
        check_policy(Moody())


def _steps(replica: Replica) -> int:
    return sum([job.steps_left for job in (*replica.queue.values(), *replica.resident.values())])


def test_a_routing_policy_that_counts_steps_breaks_the_promise_of_quanta() -> None:
    class CountsSteps(RoutingPolicy):
        """What running jobs have done is known at the ends of launches, which fall elsewhere in other quanta."""

        def route(self, job: Job, replicas: Sequence[Replica], now: float) -> Replica:
            return min(replicas, key=_steps)

    with pytest.raises(PolicyError, match="policy CountsSteps breaks the promise"):
        check_policy(CountsSteps())


def test_a_class_is_no_policy() -> None:
    with pytest.raises(PolicyError, match=r"not its class: FCFS"):
        check_policy(FCFS)  # type: ignore[arg-type]
