"""What-if simulation and real-device execution for serving diffusion models.

    import tilecast as tc
    trace = tc.Trace.load("trace.csv")
    scenario = tc.Scenario(model="tiny-image", trace=trace, profile="cpu-1core", scheduler="lookahead")
    tc.simulate(scenario).summary()

Nothing is loaded before it is asked for, so that ``import tilecast`` takes no time.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tilecast.packages import found_first

found_first()

if TYPE_CHECKING:
    from policies.caching import CachingPolicy
    from policies.contract import Decision, Launch, Policy, PolicyError, Replica, SchedulingPolicy
    from policies.placement import PlacementPolicy
    from policies.routing import RoutingPolicy
    from policies.scaling import PoolView, ScalingPolicy
    from policies.weights import WeightsPolicy
    from predictors.profile import Profile
    from reports.comparison import Comparison
    from reports.plan.result import Plan
    from sim.check import check_policy
    from tilecast.asking import UsersAnswer, ask
    from tilecast.checking import check_scenario
    from tilecast.results import Result, compare, read
    from tilecast.running import replay, simulate
    from tilecast.scenario import Scenario
    from tilecast.studies.pools import PoolPlans, plan_pools
    from tilecast.studies.run import plan, sweep
    from traces.errors import BadInput
    from traces.request import Request
    from traces.trace import Trace

_HOMES = {
    "BadInput": "traces.errors",
    "CachingPolicy": "policies.caching",
    "Comparison": "reports.comparison",
    "Decision": "policies.contract",
    "Launch": "policies.contract",
    "PlacementPolicy": "policies.placement",
    "Plan": "reports.plan.result",
    "Policy": "policies.contract",
    "PolicyError": "policies.contract",
    "PoolPlans": "tilecast.studies.pools",
    "PoolView": "policies.scaling",
    "Profile": "predictors.profile",
    "Replica": "policies.contract",
    "Request": "traces.request",
    "Result": "tilecast.results",
    "RoutingPolicy": "policies.routing",
    "ScalingPolicy": "policies.scaling",
    "Scenario": "tilecast.scenario",
    "SchedulingPolicy": "policies.contract",
    "Trace": "traces.trace",
    "UsersAnswer": "tilecast.asking",
    "WeightsPolicy": "policies.weights",
    "ask": "tilecast.asking",
    "check_policy": "sim.check",
    "check_scenario": "tilecast.checking",
    "compare": "tilecast.results",
    "plan": "tilecast.studies.run",
    "plan_pools": "tilecast.studies.pools",
    "read": "tilecast.results",
    "replay": "tilecast.running",
    "simulate": "tilecast.running",
    "sweep": "tilecast.studies.run",
}

__all__ = [
    "BadInput",
    "CachingPolicy",
    "Comparison",
    "Decision",
    "Launch",
    "PlacementPolicy",
    "Plan",
    "Policy",
    "PolicyError",
    "PoolPlans",
    "PoolView",
    "Profile",
    "Replica",
    "Request",
    "Result",
    "RoutingPolicy",
    "ScalingPolicy",
    "Scenario",
    "SchedulingPolicy",
    "Trace",
    "UsersAnswer",
    "WeightsPolicy",
    "ask",
    "check_policy",
    "check_scenario",
    "compare",
    "plan",
    "plan_pools",
    "read",
    "replay",
    "simulate",
    "sweep",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tilecast' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
