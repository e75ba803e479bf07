"""Many checkpoints on few replicas: dispatch and keep policies, by the names the command line knows."""

from policies.residency.affinity import Affinity
from policies.residency.contract import DispatchPolicy, KeepPolicy, Lane
from policies.residency.cost import Cost
from policies.residency.hashed import Hashed
from policies.residency.least_loaded import LeastLoaded
from policies.residency.lfu import LFU
from policies.residency.lru import LRU
from policies.residency.many import ManyCheckpoints
from policies.residency.pin import Pin
from policies.residency.round_robin import RoundRobinDispatch

DISPATCHES = {
    "affinity": Affinity,
    "least-loaded": LeastLoaded,
    "hash": Hashed,
    "round-robin": RoundRobinDispatch,
}

KEEPS = {"cost": Cost, "lru": LRU, "lfu": LFU, "pin": Pin}

__all__ = [
    "DISPATCHES",
    "KEEPS",
    "LFU",
    "LRU",
    "Affinity",
    "Cost",
    "DispatchPolicy",
    "Hashed",
    "KeepPolicy",
    "Lane",
    "LeastLoaded",
    "ManyCheckpoints",
    "Pin",
    "RoundRobinDispatch",
]
