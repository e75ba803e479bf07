"""The tenants of a scenario and their shares of the devices."""

from __future__ import annotations

from policies.contract import SchedulingPolicy
from policies.fair_share import FairShare
from tilecast.scenario import Scenario
from traces.trace import Trace


def sharing(scenario: Scenario, policy: SchedulingPolicy) -> SchedulingPolicy:
    """The scheduling policy of a scenario, on requests that come in turn by their tenants if it has the section."""
    section = scenario.tenants
    return policy if section is None else FairShare(policy, section.shares, section.depth)


def tenants_without_effect(scenario: Scenario, trace: Trace) -> list[str]:
    """What the section says that the trace does not bear out, in sentences."""
    section = scenario.tenants
    if section is None:
        return []
    known = set(trace.frame["tenant"])
    notes = [] if len(known) > 1 else ["the trace names no two tenants: [tenants] shares the devices among one"]
    unknown = [name for name in section.shares if name not in known]
    return [*notes, *([f"tenants.shares: the trace has no requests of {', '.join(unknown)}"] if unknown else [])]
