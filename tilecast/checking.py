"""Whether a scenario or a policy is as it should be, without running anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from policies.legs import standalone_on
from policies.load import kinds_called, load_policy
from sim.check import check_policy
from tilecast.scenario import Scenario
from tilecast.setup import Prepared, prepare
from tilecast.simulation import check_simulable
from traces.notes import Note, ordered


@dataclass(frozen=True)
class CheckedScenario:
    """A scenario of which everything that it names was loaded, checked and fitted.

    Attributes:
        prepared: what `simulate` would run.
    """

    prepared: Prepared

    @property
    def load(self) -> float:
        """Seconds that all requests take one at a time, over the seconds in which they arrive, times the replicas; NaN
        where several pools serve them, or they arrive at once."""
        requests, pools = self.prepared.requests, self.prepared.pools
        span_s = requests[-1].arrival_s - requests[0].arrival_s
        if len(pools) > 1 or span_s <= 0:
            return float("nan")
        alone = standalone_on(pools)
        return sum([alone(request) for request in requests]) / (span_s * pools[0].replicas)

    @property
    def notes(self) -> list[Note]:
        """What a reader must know before it runs, the gravest first."""
        if not self.load > 1:
            return self.prepared.notes
        [pool] = {member.pool.name for member in self.prepared.members}
        count = f"pool.{pool}.replicas" if self.prepared.scenario.pool else "cluster.replicas"
        crowded = Note(
            f"served one at a time, the requests take {self.load:.3g} times the time that all replicas have: the queue "
            f"grows unless batches make up for it; add replicas ({count}), or have fewer requests "
            "(trace.rate_scale)."
        )
        return ordered([*self.prepared.notes, crowded])

    def sentences(self) -> list[str]:
        """What would run, in words."""
        requests, members = self.prepared.requests, self.prepared.members
        span_s = requests[-1].arrival_s - requests[0].arrival_s
        models = sorted({request.model for request in requests})
        pools = {member.pool.name: (member.pool.replicas, member.table.hardware) for member in members}
        served_by = " and ".join(
            [
                f"{count:,} replica{'s' * (count != 1)} of {hardware}{f' ({name})' * (len(pools) > 1)}"
                for name, (count, hardware) in pools.items()
            ]
        )
        alone = sum([count for count, _ in pools.values()]) == 1
        bases = " or ".join(dict.fromkeys([member.table.basis for member in members]))
        said = [
            f"{len(requests):,} requests of {', '.join(models)} arrive in {span_s:,.0f} s.",
            f"{served_by} serve{'s' * alone} them by {self.prepared.policy_name}; what a step takes is {bases}.",
        ]
        if self.load == self.load:
            said.append(f"One at a time they would keep all replicas busy for {100 * self.load:.0f} % of that time.")
        return said


def check_scenario(scenario: Scenario) -> CheckedScenario:
    """A scenario with all that it names loaded, checked and fitted; nothing is run.

    Raises:
        BadInput: whatever is wrong with it, in one line.
        PolicyError: a policy that is the user's own cannot be made.
    """
    prepared = prepare(scenario)
    check_simulable(prepared)
    prepared.controller()
    return CheckedScenario(prepared)


def check_policy_called(
    name: str, parameters: Mapping[str, Any] | None = None, base: Path | str = Path(), seed: int = 0
) -> list[str]:
    """Hold the policy called ``name`` to the contract of every kind that it is of; these kinds.

    Args:
        name: one that ships, or file.py:Class.
        parameters: to make it with.
        base: folder that relative files are looked up in.
        seed: of the requests that it is tried on.

    Raises:
        BadInput: there is none of this name, or a parameter is wrong.
        PolicyError: the first rule that it breaks, or what it raised, in one line.
    """
    kinds = kinds_called(name, Path(base))
    for kind in kinds:
        check_policy(load_policy(kind, name, parameters or {}, Path(base)), seed)
    return kinds
