"""The legs of requests: where pools serve some stages each, a request stays on one after another.

A *leg* is a request's stay on one pool: its next stages, as far as that pool serves them. Each is a job of its own
(`policies.job`): it arrives when the leg before it is done, is routed, waits, runs and ends, and its first launch
begins with the stage ``receive``, which brings what was handed on. To a scheduling policy it is a request like any
other, of the stages that its replicas serve.

So that policies judge urgency rightly a leg is due so much earlier than its request that the legs after it have the
time that they take alone, where they take least: the effective deadline of Kao and Garcia-Molina ("Deadline assignment
in a distributed soft real-time system", ICDCS 1993). A leg that must be late makes its request late, and no other is
given up for it.

What a leg has handed on is kept until its request has ended. So a leg that loses its replica begins again with what it
was handed; those before it do not.

Pools that serve a model serve either the same stages of it or none in common, so that the legs of a request are known
when it comes; `check_stages` sees to that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

from policies.job import Job, Leg
from policies.pool import Pool
from predictors.costs import alone
from traces.errors import BadInput
from traces.request import Request
from traces.stages import RECEIVE, Recipe, ordinary


class Legs:
    """Divides requests among pools.

    Args:
        pools: of a cluster; of those that serve a model, all stages are served.

    Attributes:
        passing: jobs of a run whose requests go on elsewhere, and have not yet come there.
    """

    def __init__(self, pools: Sequence[Pool]) -> None:
        self._pools = pools
        self.passing: list[Job] = []
        self._of = lru_cache(maxsize=4096)(self._divided)

    def recipes(self, request: Request, recipe: Recipe) -> tuple[Recipe, ...]:
        """What a request goes through on each of its legs.

        Args:
            request: which.
            recipe: all of its stages.
        """
        return self._of(request.model, recipe)

    def part(self, leg: Leg, now: float) -> Request:
        """A leg's part of what was asked: it comes now, and is due so early that the later legs have their time."""
        asked = leg.asked
        changed: dict[str, float | None] = {"arrival_s": max(now, asked.arrival_s)} if leg.number else {}
        if asked.deadline < math.inf:
            due_s = asked.deadline - self.seconds(asked, leg.later, received=True)
            arrival_s = changed.get("arrival_s") or asked.arrival_s
            changed |= {"deadline_s": max(due_s, math.nextafter(arrival_s, math.inf)), "slo_s": None}
        return replace(asked, **changed) if changed else asked  # type: ignore[arg-type]

    def seconds(self, request: Request, recipes: Sequence[Recipe], received: bool = False) -> float:
        """Predicted seconds of some legs of a request alone, each on the pool where it takes least.

        Args:
            request: which.
            recipes: of the legs, in order.
            received: whether the first of them receives what another has handed on, as all others do.
        """
        total_s = 0.0
        for recipe in recipes:
            pools = self.serving(request.model, recipe)
            total_s += min([self.seconds_on(pool, request, recipe, received) for pool in pools])
            received = True
        return total_s

    def seconds_on(self, pool: Pool, request: Request, recipe: Recipe, received: bool) -> float:
        """Predicted seconds of a leg of a request alone on a pool that serves it."""
        batch, step_s = alone(request), pool.costs.step_s
        receive_s = step_s(RECEIVE, batch) if received else 0.0
        return receive_s + sum([steps * step_s(stage, batch) for stage, steps in recipe])

    def serving(self, model: str, recipe: Recipe) -> list[Pool]:
        """The pools on which a leg of a model's requests can be."""
        return [each for each in self._pools if each.serves(model) and (not each.stages or recipe[0][0] in each.stages)]

    def _divided(self, model: str, recipe: Recipe) -> tuple[Recipe, ...]:
        serving = [pool.stages for pool in self._pools if pool.serves(model)]
        legs: list[list[tuple[str, int]]] = []
        here: frozenset[str] | None = None
        for stage, steps in recipe:
            if here is None or (here and stage not in here):
                here = next(stages for stages in serving if not stages or stage in stages)
                legs.append([])
            legs[-1].append((stage, steps))
        return tuple([tuple(leg) for leg in legs])


def standalone_on(pools: Sequence[Pool]) -> Callable[[Request], float]:
    """Seconds of a request alone, on an idle replica of the pool where that takes least; of each leg, where pools serve
    some stages each."""
    if len(pools) == 1:
        return pools[0].costs.standalone_s
    if any(pool.stages for pool in pools):
        legs = Legs(pools)
        return lambda request: legs.seconds(request, legs.recipes(request, ordinary(request)))

    def standalone_s(request: Request) -> float:
        return min([pool.costs.standalone_s(request) for pool in pools if pool.serves(request.model)])

    return standalone_s


def check_stages(serving: Mapping[str, frozenset[str]], model: str, stages: Sequence[str]) -> None:
    """See that pools serve every stage of a model, and each stage the same pools.

    Args:
        serving: the stages that each pool of those serves that serve the model, by its name; empty: all.
        model: its name.
        stages: that its requests go through.

    Raises:
        BadInput: a stage that no pool serves, or pools that have some stages in common and others not.
    """
    of = {name: own or frozenset(stages) for name, own in serving.items()}
    for stage in stages:
        if not any(stage in own for own in of.values()):
            said = ", ".join([f"{name!r} {' and '.join([s for s in stages if s in own])}" for name, own in of.items()])
            raise BadInput(f"no pool serves the stage {stage} of {model!r}: of it there are {said}")
    for name, own in of.items():
        for other, others in of.items():
            if own & others and own != others:
                raise BadInput(
                    f"pools {name!r} and {other!r} both serve {_some(own & others)} of {model!r}, but only one of them "
                    f"{_some(own ^ others)}: expected pools that serve the same stages of a model, or none in common"
                )


def _some(stages: frozenset[str]) -> str:
    return " and ".join(sorted(stages))
