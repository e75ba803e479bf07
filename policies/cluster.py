"""The world that a scheduling policy sees, in the hands of whoever keeps it.

Policies read a `Cluster`; nothing in it can be written to, so that no policy can make a request look done. Its owner,
the controller, holds a `ClusterState` and writes there.
"""

from __future__ import annotations

from types import MappingProxyType

from policies.contract import Cluster, Predictor, Replica
from policies.job import Job


class ClusterState:
    """Replicas without work, all of them up, and no jobs.

    Attributes:
        view: what policies see of it.
        waiting, jobs: see `policies.contract.Cluster`.
        resident, loaded: of each replica, see `policies.contract.Replica`.
    """

    def __init__(self, replicas: int, predictor: Predictor) -> None:
        self.waiting: dict[str, Job] = {}
        self.jobs: dict[str, Job] = {}
        self.resident: list[dict[str, Job]] = [{} for _ in range(replicas)]
        self.loaded: list[dict[str, None]] = [{} for _ in range(replicas)]
        self.view = Cluster()
        _set_jobs(self.view, MappingProxyType(self.jobs))
        _set_waiting(self.view, MappingProxyType(self.waiting))
        _set_predictor(self.view, predictor)
        _set_replicas(self.view, tuple(self._replica(index) for index in range(replicas)))

    def _replica(self, index: int) -> Replica:
        replica = Replica()
        _set_index(replica, index)
        _set_resident(replica, MappingProxyType(self.resident[index]))
        _set_loaded(replica, MappingProxyType(self.loaded[index]))
        set_launch(replica, None)
        set_up(replica, True)
        return replica


_set_jobs = Cluster.__dict__["jobs"].__set__
_set_waiting = Cluster.__dict__["waiting"].__set__
_set_predictor = Cluster.__dict__["predictor"].__set__
_set_replicas = Cluster.__dict__["replicas"].__set__
_set_index = Replica.__dict__["index"].__set__
_set_resident = Replica.__dict__["resident"].__set__
_set_loaded = Replica.__dict__["loaded"].__set__
set_launch = Replica.__dict__["launch"].__set__
"""``set_launch(replica, launch)``: what runs on it now, or None."""
set_up = Replica.__dict__["up"].__set__
"""``set_up(replica, up)``: whether it works."""
