"""`check_policy`: does a policy keep the contract?

Runs any policy, ours or a user's, through one conformance suite, in the spirit of scikit-learn's ``check_estimator``:

    from sim.check import check_policy
    check_policy(MyPolicy())

For scheduling policies: no request is lost or run twice, no launch overlaps another on its replica, the same seed
gives the same run, runs do not leak into each other, a quantum is a kept promise (planning at every step boundary
gives the same completions), and recorded events reproduce every decision. Routing policies are held to the same, while
replicas fail. Scaling, caching, placement and weights policies have suites of their own. It lives in `sim` because it
needs a driver.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from policies.caching import CachingPolicy, Signals
from policies.caching.step import decide_block, needs_gain, wanted_units
from policies.contract import Outcome, Policy, PolicyError, SchedulingPolicy
from policies.controller import Controller
from policies.events import EventRecord, check_parity
from policies.faults import Happening
from policies.guard import ask, begun, broken, check_form, copied_for_run, is_of, name_of_class, parameters_of
from policies.placement import PlacementPolicy, TileWork
from policies.routing import RoutingPolicy
from policies.scaling import ScalingPolicy
from policies.scheduling import FCFS, PatchedServeJoins
from policies.tiling.step import assign_tiles
from policies.watchdog import watched
from policies.weights import WeightsPolicy
from sim.check_ended import check_conservation, check_promise
from sim.check_scaling import check_scaling
from sim.check_weights import check_weights
from sim.check_worlds import WORLDS, CheckedWorld
from sim.driver import Simulation
from sim.stalled import Stalled
from traces.request import Request
from traces.streams import stream

_FAILURES = (
    Happening(0.7, "down", 1), Happening(1.2, "down", 0), Happening(1.6, "down", 2), Happening(2.0, "up", 0),
    Happening(2.3, "up", 1), Happening(3.1, "down", 0), Happening(3.5, "up", 2), Happening(4.0, "up", 0),
)  # fmt: skip
"""Of three replicas; for a while none works."""
_ROUTED = (
    (CheckedWorld(1, 2.0, False), ()),
    (CheckedWorld(3, 9.0, False), ()),
    (CheckedWorld(3, 12.0, True), _FAILURES),
    (CheckedWorld(2, 6.0, True, tiled=True), ()),
    (CheckedWorld(3, 9.0, False, stages=(("encode", "denoise"), ("decode",))), _FAILURES),
)


def check_policy(policy: Policy, seed: int = 0) -> None:
    """Return None when a policy of any kind keeps the contract.

    Raises:
        PolicyError: the first rule that it breaks, or what it raised, in one line.
    """
    if is_of(policy, type):
        raise PolicyError(f"check_policy takes a policy, not its class: {name_of_class(policy)}(...)")
    with watched():
        check_form(policy)
        if is_of(policy, SchedulingPolicy):
            _check_scheduling(policy, seed)
        elif is_of(policy, RoutingPolicy):
            _check_routing(policy, seed)
        elif is_of(policy, CachingPolicy):
            _check_caching(policy, seed)
        elif is_of(policy, PlacementPolicy):
            _check_placement(policy, seed)
        elif is_of(policy, WeightsPolicy):
            check_weights(policy, seed)
        elif is_of(policy, ScalingPolicy):
            check_scaling(policy, seed)


def _check_scheduling(policy: SchedulingPolicy, seed: int) -> None:
    before = parameters_of(policy)
    for world in WORLDS:
        requests = world.requests(seed, 60)
        controller, events = _run(policy, requests, world, seed, per_step=False)
        check_conservation(policy, controller, requests)
        again, events_again = _run(policy, requests, world, seed, per_step=False)
        if events != events_again:
            raise broken(policy, "is not deterministic: the same run twice gave different decisions")
        oracle, _ = _run(policy, requests, world, seed, per_step=True)
        check_promise(policy, again, oracle)
        parity = check_parity(
            [json.loads(line) for line in events],
            requests,
            lambda hook, world=world: world.controller(policy, hook),  # type: ignore[misc]
        )
        if not parity.same:
            raise broken(policy, f"decides differently for the same events: {parity.difference}")
    if parameters_of(policy) != before:
        raise broken(policy, "changed its own parameters during a run; per-run state belongs in reset")
    _check_cancelling(policy, seed)


def _check_routing(policy: RoutingPolicy, seed: int) -> None:
    """Beside schedulers of several kinds, on replicas that work and on some that fail."""
    before = parameters_of(policy)
    for scheduler in (FCFS(), PatchedServeJoins()):
        for world, failures in _ROUTED:
            requests = world.requests(seed, 40)

            def run(per_step: bool = False) -> tuple[Controller, list[str]]:
                return _run(scheduler, requests, world, seed, per_step, routing=policy, failures=failures)  # noqa: B023

            controller, events = run()
            check_conservation(policy, controller, requests)
            again, events_again = run()
            if events != events_again:
                raise broken(policy, "is not deterministic: the same run twice gave different decisions")
            check_promise(policy, again, run(per_step=True)[0])
            parity = check_parity(
                [json.loads(line) for line in events],
                requests,
                lambda hook, world=world, scheduler=scheduler: world.controller(scheduler, hook, policy),  # type: ignore[misc]
            )
            if not parity.same:
                raise broken(policy, f"decides differently for the same events: {parity.difference}")
    if parameters_of(policy) != before:
        raise broken(policy, "changed its own parameters during a run; per-run state belongs in reset")


def _run(
    policy: SchedulingPolicy,
    requests: list[Request],
    world: CheckedWorld,
    seed: int,
    per_step: bool,
    routing: RoutingPolicy | None = None,
    failures: Sequence[Happening] = (),
) -> tuple[Controller, list[str]]:
    record = EventRecord()
    controller = world.controller(policy, None if per_step else record.add, routing)
    happenings = iter(failures) if failures else None
    try:
        Simulation(controller, world.world(seed), per_step, happenings=happenings).run(requests)
    except Stalled as error:
        raise PolicyError(str(error)) from error
    return controller, record.lines


def _check_cancelling(policy: SchedulingPolicy, seed: int) -> None:
    """A waiting request whose client leaves never runs."""
    world = CheckedWorld(1, 50.0, False)
    controller, requests = world.controller(policy), world.requests(seed, 6)
    for request in requests:
        controller.submit(request, 1.0)
    left = requests[3].request_id
    controller.cancel(left, 1.0)
    now = 1.0
    for _ in range(1000):
        started = controller.launches(now)
        if not started:
            wakeup = controller.wakeup(now)
            if wakeup is None or not controller.open:
                break
            now = wakeup
            continue
        now += 0.01
        for launch in started:
            if left in {job.request.request_id for job in launch.jobs}:
                raise broken(policy, "runs a request whose client had left")
            controller.complete(launch, Outcome(launch.steps), now)
    if controller.open:
        raise broken(policy, f"leaves {controller.open} requests waiting after another was cancelled")


def _check_caching(policy: CachingPolicy, seed: int) -> None:
    """A batch in which one request joins late and one loses its cache, and the same requests each alone."""
    before = parameters_of(policy)
    names = ("r0", "r1", "r2")
    fresh, again = begun(policy), copied_for_run(policy)
    together = _cached_run(fresh, names, seed)
    if _cached_run(fresh, names, seed) != together:
        raise broken(policy, "remembers requests it was told to forget")
    ask(again, "reset")
    if _cached_run(again, names, seed) != together:
        raise broken(policy, "is not deterministic: the same signals twice gave different answers")
    for name in names:
        ask(again, "reset")
        if _cached_run(again, (name,), seed)[name] != together[name]:
            raise broken(policy, "lets the requests of a batch change each other's answers")
    if parameters_of(policy) != before:
        raise broken(policy, "changed its own parameters during a run; per-run state belongs in reset")


def _cached_run(policy: CachingPolicy, names: tuple[str, ...], seed: int) -> dict[str, list[list[bool]]]:
    """What was computed of each request, a list a step and block; in the end the policy is told to forget them all."""
    gains = needs_gain(policy)
    units, blocks, steps, joins, evicted = 4, 1 if gains else 3, 12, {"r1": 5}, ("r2", 7)
    draws = {name: stream(seed, f"check/caching/{name}").exponential(0.1, (steps, blocks, units)) for name in names}
    answers: dict[str, list[list[bool]]] = {name: [] for name in names}
    for tick in range(steps + max(joins.values())):
        if (evicted[0], tick) == evicted and evicted[0] in names:
            ask(policy, "forget", evicted[0])
        at = {name: tick - joins.get(name, 0) for name in names}
        batch = tuple(name for name in names if 0 <= at[name] < steps)
        if not batch:
            continue
        for block in range(blocks):
            change = [
                np.full(units, np.inf) if not at[name] or (name, at[name]) == evicted else draws[name][at[name], block]
                for name in batch
            ]
            moved = np.concatenate(change)
            seen = np.where(np.isinf(moved), 0.0, moved)
            of_tiles = (seen, np.sign(seen), seen, np.sqrt(seen)) if gains else ()
            signals = Signals(
                batch,
                np.repeat(np.arange(len(batch)), units),
                np.tile(np.arange(units), len(batch)),
                block,
                blocks,
                np.repeat([at[name] for name in batch], units),
                np.full(len(batch) * units, steps),
                moved,
                np.zeros(len(batch) * units),
                *of_tiles,
            )
            asked = copied_for_run(policy)
            wanted = wanted_units(asked, signals)
            if not np.array_equal(wanted_units(asked, signals), wanted):
                raise broken(policy, "changes its mind when asked twice: decide must change nothing")
            computed = decide_block(policy, signals)
            if not np.array_equal(computed, wanted):
                raise broken(policy, "reuses a unit that was never computed")
            for name, flags in zip(batch, computed.reshape(-1, units).tolist(), strict=True):
                answers[name].append(flags)
        for name in batch:
            if at[name] == steps - 1:
                ask(policy, "forget", name)
    return answers


def _check_placement(policy: PlacementPolicy, seed: int) -> None:
    """Steps with everything computed, with some or all reused, with and without knowing who holds what."""
    rng, before = stream(seed, "check/placement"), parameters_of(policy)
    for devices in (1, 2, 3, 8):
        for count in (1, 4, 9):
            for reused, known in ((0.0, False), (0.0, True), (0.4, True), (1.0, True)):
                tiles = []
                for i in range(count):
                    held = tuple(rng.multinomial(100, np.full(devices, 1 / devices)).tolist()) if known else ()
                    owner = held.index(max(held)) if held else int(rng.integers(-1, devices))
                    cost = float(rng.uniform(0.1, 2)) if rng.random() >= reused else 0.0
                    tiles.append(TileWork(i, cost, owner, held))
                answer = assign_tiles(policy, tiles, devices)
                if assign_tiles(copied_for_run(policy), tiles, devices) != answer:
                    raise broken(policy, "gives ranks different answers for the same tiles")
    if parameters_of(policy) != before:
        raise broken(policy, "remembers what it was asked; a placement depends on what it is shown alone")
