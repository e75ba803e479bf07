"""Routing policies, by the names the command line knows."""

from policies.contract import SchedulingPolicy
from policies.guard import broken, read, short
from policies.routing.affinity import Affinity
from policies.routing.contract import RoutingPolicy
from policies.routing.earliest_completion import EarliestCompletion
from policies.routing.hashed import Hashed
from policies.routing.least_pixels import LeastPixels
from policies.routing.least_work import LeastWork
from policies.routing.round_robin import RoundRobin
from policies.routing.shared import Shared

ROUTINGS = {
    "shared": Shared,
    "earliest-completion": EarliestCompletion,
    "least-work": LeastWork,
    "least-pixels": LeastPixels,
    "affinity": Affinity,
    "hash": Hashed,
    "round-robin": RoundRobin,
}

__all__ = [
    "ROUTINGS",
    "Affinity",
    "EarliestCompletion",
    "Hashed",
    "LeastPixels",
    "LeastWork",
    "RoundRobin",
    "RoutingPolicy",
    "Shared",
    "usual_routing",
]


def usual_routing(policy: SchedulingPolicy) -> RoutingPolicy:
    """The routing policy that a scheduling policy is used with.

    Raises:
        PolicyError: it names none that ships.
    """
    name = read(policy, "usual_routing")
    if type(name) is not str or name not in ROUTINGS:
        raise broken(policy, f"has usual_routing = {short(name)}, expected one of: {', '.join(ROUTINGS)}")
    return ROUTINGS[name]()
