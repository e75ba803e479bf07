"""`check_policy`: does a policy keep the contract?

Runs any policy, ours or a user's, through one conformance suite, in the spirit of scikit-learn's ``check_estimator``:

    from sim.check import check_policy
    check_policy(MyPolicy())

For scheduling policies: no request is lost or run twice, no launch overlaps another on its replica, the same seed
gives the same run, runs do not leak into each other, a quantum is a kept promise (planning at every step boundary
gives the same completions), and recorded events reproduce every decision. It lives in `sim` because it needs a driver.
"""

from __future__ import annotations

import copy
import json
from collections import defaultdict

import numpy as np

from policies.caching import CachingPolicy, Signals
from policies.caching.step import decide_block
from policies.contract import Outcome, PolicyError, SchedulingPolicy
from policies.controller import Controller
from policies.events import EventRecord, check_parity
from policies.placement import PlacementPolicy, TileWork
from sim.check_worlds import WORLDS, CheckedWorld
from sim.driver import Simulation, Stalled
from traces.request import Request
from traces.streams import stream


def check_policy(policy: SchedulingPolicy | CachingPolicy | PlacementPolicy, seed: int = 0) -> None:
    """Raise PolicyError with the first broken rule; return None when the policy keeps the contract."""
    if isinstance(policy, SchedulingPolicy):
        _check_scheduling(policy, seed)
    elif isinstance(policy, CachingPolicy):
        _check_caching(policy, seed)
    elif isinstance(policy, PlacementPolicy):
        _check_placement(policy, seed)
    else:
        raise PolicyError(
            f"{type(policy).__name__} is no policy; derive it from SchedulingPolicy, CachingPolicy or PlacementPolicy"
        )


def _check_scheduling(policy: SchedulingPolicy, seed: int) -> None:
    before = _state(policy)
    for world in WORLDS:
        requests = world.requests(seed, 60)
        controller, events = _run(policy, requests, world, seed, per_step=False)
        _check_conservation(policy, controller, requests)
        again, events_again = _run(policy, requests, world, seed, per_step=False)
        if events != events_again:
            raise _broken(policy, "is not deterministic: the same run twice gave different decisions")
        oracle, _ = _run(policy, requests, world, seed, per_step=True)
        _check_promise(policy, again, oracle)
        parity = check_parity(
            [json.loads(line) for line in events],
            requests,
            lambda hook, world=world: world.controller(policy, hook),  # type: ignore[misc]
        )
        if not parity.same:
            raise _broken(policy, f"decides differently for the same events: {parity.difference}")
    if _state(policy) != before:
        raise _broken(policy, "changed its own parameters during a run; per-run state belongs in reset")
    _check_cancelling(policy, seed)


def _state(policy: object) -> str:
    return repr(sorted(vars(policy).items()))


def _run(
    policy: SchedulingPolicy, requests: list[Request], world: CheckedWorld, seed: int, per_step: bool
) -> tuple[Controller, list[str]]:
    record = EventRecord()
    controller = world.controller(policy, record.add)
    try:
        Simulation(controller, world.world(seed), per_step).run(requests)
    except Stalled as error:
        raise PolicyError(str(error)) from error
    except PolicyError:
        raise
    except Exception as error:
        raise _broken(policy, f"raised {type(error).__name__}: {error}") from error
    return controller, record.lines


def _check_conservation(policy: SchedulingPolicy, controller: Controller, requests: list[Request]) -> None:
    if [job.request for job in controller.jobs] != requests:
        raise _broken(policy, "lost or changed a request")
    done: dict[tuple[str, str], int] = defaultdict(int)
    free_at: dict[int, float] = defaultdict(float)
    for launch, outcome, end_s in sorted(controller.launched, key=lambda record: record[0].launch_id):
        if launch.start_s < free_at[launch.replica]:
            raise _broken(policy, f"has two launches at once on replica {launch.replica}")
        free_at[launch.replica] = end_s
        for segment in launch.done(outcome.steps_done):
            for job in launch.jobs:
                done[job.request.request_id, segment.stage] += segment.steps
    for job in controller.jobs:
        name = job.request.request_id
        if not job.ended:
            raise _broken(policy, f"left request {name!r} {job.state}")
        if job.state == "dropped" and not job.reason:
            raise _broken(policy, f"dropped request {name!r} without a reason")
        if job.state == "finished":
            for stage, wanted in job.recipe:
                if done[name, stage] != wanted:
                    raise _broken(policy, f"ran {done[name, stage]} steps of {stage} for {name!r}, not {wanted}")


def _check_promise(policy: SchedulingPolicy, quantum: Controller, oracle: Controller) -> None:
    for job, stepped in zip(quantum.jobs, oracle.jobs, strict=True):
        if (job.state, job.finish_s, job.replica) != (stepped.state, stepped.finish_s, stepped.replica):
            raise _broken(
                policy,
                f"breaks the promise of its quanta: request {job.request.request_id!r} ends as {job.state} at "
                f"{job.finish_s} s, but as {stepped.state} at {stepped.finish_s} s when planned at every step boundary",
            )


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
                raise _broken(policy, "runs a request whose client had left")
            controller.complete(launch, Outcome(launch.steps), now)
    if controller.open:
        raise _broken(policy, f"leaves {controller.open} requests waiting after another was cancelled")


def _check_caching(policy: CachingPolicy, seed: int) -> None:
    """A batch in which one request joins late and one loses its cache, and the same requests each alone."""
    before = _state(policy)
    names = ("r0", "r1", "r2")
    fresh, again = copy.deepcopy(policy), copy.deepcopy(policy)
    fresh.reset()
    together = _cached_run(fresh, names, seed)
    if _cached_run(fresh, names, seed) != together:
        raise _broken(policy, "remembers requests it was told to forget")
    again.reset()
    if _cached_run(again, names, seed) != together:
        raise _broken(policy, "is not deterministic: the same signals twice gave different answers")
    for name in names:
        again.reset()
        if _cached_run(again, (name,), seed)[name] != together[name]:
            raise _broken(policy, "lets the requests of a batch change each other's answers")
    if _state(policy) != before:
        raise _broken(policy, "changed its own parameters during a run; per-run state belongs in reset")


def _cached_run(policy: CachingPolicy, names: tuple[str, ...], seed: int) -> dict[str, list[list[bool]]]:
    """What was computed of each request, a list a step and block; in the end the policy is told to forget them all."""
    units, blocks, steps, joins, evicted = 4, 1 if policy.needs_gain else 3, 12, {"r1": 5}, ("r2", 7)
    draws = {name: stream(seed, f"check/caching/{name}").exponential(0.1, (steps, blocks, units)) for name in names}
    answers: dict[str, list[list[bool]]] = {name: [] for name in names}
    for tick in range(steps + max(joins.values())):
        if (evicted[0], tick) == evicted and evicted[0] in names:
            policy.forget(evicted[0])
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
            of_tiles = (seen, np.sign(seen), seen, np.sqrt(seen)) if policy.needs_gain else ()
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
            asked = copy.deepcopy(policy)
            wanted = asked.decide(signals)
            if not np.array_equal(asked.decide(signals), wanted):
                raise _broken(policy, "changes its mind when asked twice: decide must change nothing")
            computed = decide_block(policy, signals)
            if not np.array_equal(computed, wanted):
                raise _broken(policy, "reuses a unit that was never computed")
            for name, flags in zip(batch, computed.reshape(-1, units).tolist(), strict=True):
                answers[name].append(flags)
        for name in batch:
            if at[name] == steps - 1:
                policy.forget(name)
    return answers


def _check_placement(policy: PlacementPolicy, seed: int) -> None:
    """Steps with everything computed, with some or all reused, with and without knowing who holds what."""
    rng, before = stream(seed, "check/placement"), _state(policy)
    for devices in (1, 2, 3, 8):
        for count in (1, 4, 9):
            for reused, known in ((0.0, False), (0.0, True), (0.4, True), (1.0, True)):
                tiles = []
                for i in range(count):
                    held = tuple(rng.multinomial(100, np.full(devices, 1 / devices)).tolist()) if known else ()
                    owner = held.index(max(held)) if held else int(rng.integers(-1, devices))
                    cost = float(rng.uniform(0.1, 2)) if rng.random() >= reused else 0.0
                    tiles.append(TileWork(i, cost, owner, held))
                answer = policy.assign(tuple(tiles), devices)
                if len(answer) != count or any(not 0 <= device < devices for device in answer):
                    raise _broken(policy, f"must name one device of 0..{devices - 1} a tile, gave {answer}")
                if copy.deepcopy(policy).assign(tuple(tiles), devices) != answer:
                    raise _broken(policy, "gives ranks different answers for the same tiles")
    if _state(policy) != before:
        raise _broken(policy, "remembers what it was asked; a placement depends on what it is shown alone")


def _broken(policy: object, what: str) -> PolicyError:
    return PolicyError(f"policy {type(policy).__name__} {what}")
