"""A prepared scenario in virtual time: what `simulate`, `sweep` and `plan` run."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from policies.controller import Controller
from policies.faults import Faults, Happening
from policies.watchdog import watched
from predictors.loading import LoadTimes
from sim.driver import Simulation
from sim.durations import Durations
from sim.world import World
from sim.worlds import Worlds
from tilecast.scenario import Scenario
from tilecast.sections import FaultsSection
from tilecast.setup import Prepared
from tilecast.weights import adapting
from traces.errors import BadInput
from traces.request import Request


def run_simulation(
    prepared: Prepared, per_step: bool = False, progress: Callable[[int], None] | None = None
) -> Controller:
    """Simulate all requests of ``prepared``; the controller holds what came of them.

    Args:
        prepared: of `tilecast.setup.prepare`; it is not changed, and can be run again.
        per_step: one event a step, the slow oracle.
        progress: called with the number of requests submitted so far, now and then.

    Raises:
        BadInput: the scenario has a cache, and no signals of this model were recorded.
    """
    with watched(prepared.scenario.policies.call_limit_s):
        return _run(prepared, per_step, progress)


def check_simulable(prepared: Prepared) -> None:
    """Refuse what can be replayed but not simulated.

    Raises:
        BadInput: the scenario has a cache, and no signals of this model were recorded.
    """
    if prepared.cache is not None and prepared.cache.plans is None:
        raise BadInput(
            f"no cache signals were recorded for {prepared.scenario.model_name!r}; set predictor.reuse to a file "
            "written by 'tilecast cache record', or policies.caching to none"
        )


def _run(prepared: Prepared, per_step: bool, progress: Callable[[int], None] | None) -> Controller:
    scenario = prepared.scenario
    check_simulable(prepared)
    controller = prepared.controller()
    world = _world(prepared)
    faults = scenario.faults
    happenings = None if faults is None else _happenings(faults, prepared.requests, scenario)
    in_flight = "restart" if faults is None else faults.in_flight
    Simulation(
        controller=controller,
        world=world,
        per_step=per_step,
        progress=progress,
        happenings=happenings,
        in_flight=in_flight,
        start_s=prepared.start_s,
        users=prepared.users(),
    ).run(prepared.requests)
    return controller


def _world(prepared: Prepared) -> Durations:
    """How long things take: what is of all models and pools alike is one, noise is each one's own."""
    scenario, members = prepared.scenario, prepared.members
    pool_of = [number for number, pool in enumerate(scenario.pools) for _ in range(pool.replicas)]
    names = [pool.name for pool in scenario.pools]
    loads = None
    if prepared.weights is not None:
        of_replicas = [prepared.weights.by_pool[names[number]] for number in pool_of]
        loads = LoadTimes(of_replicas, prepared.loaded)
    worlds = {}
    for member in members:
        truth = member.world_table()
        shapes = sorted({request.shape for request in prepared.requests if request.model == member.model})
        truth.tabulate(shapes, max_images=16)
        costs = member.on_devices(truth)
        tiles = prepared.tiling.plans(costs) if prepared.tiling is not None else None
        worlds[names.index(member.pool.name), member.model] = World(
            costs=adapting(member.scenario, costs if tiles is None else tiles.costs),
            replicas=len(pool_of),
            seed=scenario.seed,
            noise=scenario.world.noise,
            slowdown=scenario.world.slowdown,
            plans=prepared.cache.plans if prepared.cache is not None else None,
            tiles=tiles,
            loads=loads,
            model="" if member.model == members[0].model else member.model,
        )
    return next(iter(worlds.values())) if len(worlds) == 1 else Worlds(worlds, pool_of)


def _happenings(section: FaultsSection, requests: list[Request], scenario: Scenario) -> Iterator[Happening]:
    if scenario.trace.users is not None and section.patience_s is not None:
        raise BadInput(
            "faults.patience_s is of requests that come at times of their own; expected it without trace.users"
        )
    faults = Faults(**section.model_dump(exclude={"in_flight"}))
    replicas = scenario.replicas
    faults.check(replicas, requests[-1].arrival_s - requests[0].arrival_s)
    return faults.happenings(replicas, requests, scenario.seed)
