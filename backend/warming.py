"""Before anything is served: requests of every kind, run through so that nothing is done for the first time later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from backend.executor import Executor
from backend.replicas.messages import Ended, LaunchOrder
from traces.errors import BadInput
from traces.request import Request
from traces.stages import ORDINARY, RECEIVE, STAGES, Recipe, ordinary

WARMED_TOGETHER = 4
"""Requests of the batch that is run before any is served."""
REFUSED = "HandoverRefused: "
"""How the reason begins for which a request fails that cannot be handed on."""


def warm_up(executors: Sequence[Executor], requests: Sequence[Request], steps: int = 2) -> None:
    """Run one short request of every kind in ``requests`` on every executor, outside any log, and then some together.

    Where there are several devices, on each alone and on each number of them, twice: they learn what they agree on.
    A kind is a size, guidance, a set of adapters, and whether there is a picture to start from. Together, so that what
    only a batch needs is done before anything is served: blocks that are checked when calls first meet at them, kernels
    that only mixed sizes have.
    """
    short = shortened(requests, steps)
    for executor in executors:
        degrees = range(2, executor.devices + 1) if executor.divided is not None else ()
        alone = range(executor.devices if executor.servers is not None else 1)
        for devices in [*[(device,) for device in alone], *[tuple(range(degree)) for degree in degrees] * 2]:
            for one in short:
                _run_through(executor, [one], devices)
            together = [one for one in short if one.adapter_set == short[0].adapter_set and _mixes(executor, one)]
            if len(together) > 1:
                _run_through(executor, together[:WARMED_TOGETHER], devices)


def shortened(requests: Sequence[Request], steps: int) -> list[Request]:
    """A short request of every kind among these, of at most so many steps."""
    kinds = {
        (request.model, request.shape, request.guided, bool(request.image), request.adapter_set): request
        for request in requests
    }
    return [_short(kinds[kind], number, steps) for number, kind in enumerate(sorted(kinds))]


def _short(request: Request, number: int, steps: int) -> Request:
    return replace(
        request,
        request_id=f"warm-up {number}",
        steps=min(steps, request.steps),
        images=1,
        strength=None if request.strength is None else 1.0,  # all of its few steps
        schedule_steps=0,
    )


def _mixes(executor: Executor, request: Request) -> bool:
    return all(STAGES[stage].mixes for stage, _ in executor.recipe(request))


def _run_through(executor: Executor, requests: Sequence[Request], devices: tuple[int, ...]) -> None:
    """All stages of requests that go through the same ones on these devices, or as far as they come."""
    steps = min(request.steps for request in requests)
    for stage, count in executor.recipe(requests[0]):
        if executor.execute(
            stage, requests, min(count, steps) if STAGES[stage].sampler else count, devices=devices
        ).failed:
            break
    executor.keep_only(set())


class Serves(NamedTuple):
    """What a replica is for.

    Attributes:
        models: whose requests it serves; empty: all.
        stages: of them; empty: all.
        devices: how many it has.
    """

    models: frozenset[str] = frozenset()
    stages: frozenset[str] = frozenset()
    devices: int = 1

    def leg(self, request: Request) -> Recipe:
        """The stages of a request that run here, one after another; empty: none."""
        found: list[tuple[str, int]] = []
        if self.models and request.model not in self.models:
            return ()
        for stage, steps in ordinary(request):
            if not self.stages or stage in self.stages:
                found.append((stage, steps))
            elif found:
                break
        return tuple(found)


class WarmUps:
    """Warms up replicas that serve some stages each: what short requests are handed on with goes from one to the next.

    Args:
        requests: that will be served.
        serves: what each replica is for.
        steps: of denoising, of a short request.
    """

    def __init__(self, requests: Sequence[Request], serves: Sequence[Serves], steps: int = 2) -> None:
        self._short = shortened(requests, min([steps, *[request.steps for request in requests]]))
        self._serves = serves
        self._handed: dict[tuple[str, str], bytes] = {}  # by the stage that it is for, and the request
        self._failed: set[str] = set()
        self._ordered: dict[int, Recipe] = {}
        self._count = 0

    def sources(self, index: int) -> set[int]:
        """The replicas that hand on to one."""
        legs = {request: self._serves[index].leg(request) for request in self._short}
        wanted = {(request.model, _before(leg)) for request, leg in legs.items() if leg}
        return {
            other
            for other, serves in enumerate(self._serves)
            for request in self._short
            if (leg := serves.leg(request)) and (request.model, leg[-1][0]) in wanted
        }

    def orders(self, index: int, whatever: bool) -> list[LaunchOrder] | None:
        """What warms a replica up; None: it would be handed what has not come yet.

        Args:
            index: which replica.
            whatever: has come; what has not is left out.
        """
        own = self._serves[index]
        by_leg: dict[tuple[str, Recipe], dict[Request, bytes | None]] = {}
        for request in self._short:
            leg = own.leg(request)
            if not leg or request.request_id in self._failed:
                continue
            handed = self._handed.get((leg[0][0], request.request_id))
            if handed is None and _before(leg):
                if not whatever:
                    return None
                continue
            by_leg.setdefault((request.model, leg), {})[request] = handed
        batches = [(leg, {request: some[request]}) for (_, leg), some in by_leg.items() for request in some]
        for (_, leg), some in by_leg.items():
            if len(some) > 1 and all(STAGES[stage].mixes for stage, _ in leg):
                batches.append((leg, dict(list(some.items())[:WARMED_TOGETHER])))
        degrees = [1, *[degree for degree in range(2, own.devices + 1) for _ in range(2)]]
        return [self._order(leg, some, tuple(range(degree))) for degree in degrees for leg, some in batches]

    def _order(self, leg: Recipe, handed: Mapping[Request, bytes | None], devices: tuple[int, ...]) -> LaunchOrder:
        self._count += 1
        received = {request.request_id: data for request, data in handed.items() if data is not None}
        order = LaunchOrder(
            launch_id=-self._count,
            stages=((RECEIVE, 1), *leg) if received else leg,
            requests=tuple(handed),
            resident=frozenset([request.request_id for request in handed]),
            devices=devices,
            handed=received,
        )
        self._ordered[order.launch_id] = leg
        return order

    def take(self, told: Ended) -> None:
        """One of the orders has been carried out.

        Raises:
            BadInput: a pipeline cannot be handed from replica to replica.
            Exception: what went wrong that is no request's fault.
        """
        if isinstance(told.outcome, Exception):
            raise told.outcome
        after = _after(self._ordered.pop(told.launch_id))
        self._handed |= {(after, name): handed for name, handed in told.handed.items()}
        for name, why in (told.outcome.failed or {}).items():
            self._failed.add(name)
            if why.startswith(REFUSED):
                raise BadInput(f"[[pool]] stages: {why.removeprefix(REFUSED)}; expected pools that serve all stages")


def _before(leg: Recipe) -> str:
    """The stage before those of a leg; "": it is the first."""
    at = ORDINARY.index(leg[0][0])
    return ORDINARY[at - 1] if at else ""


def _after(leg: Recipe) -> str:
    """The stage after those of a leg; "": there is none."""
    return "".join(ORDINARY[ORDINARY.index(leg[-1][0]) + 1 :][:1])
