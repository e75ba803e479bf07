"""Tiled requests in the simulator: beside ordinary ones, on several devices, the same by quantum and by step."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.caching import CachingPolicy, FixedInterval, RegionAware
from policies.contract import SchedulingPolicy
from policies.controller import Controller
from policies.faults import Happening
from policies.placement import PLACEMENTS, Contiguous, LongestFirst
from policies.record import step_table
from policies.scheduling import EDF, FCFS, SCHEDULERS, SameSizeContinuous
from policies.tiling.costs import TiledCosts
from policies.tiling.plan import TilePlans
from policies.tiling.signals import TileSignals
from policies.tiling.timing import TileDevices
from predictors.link import Link
from predictors.tile_reuse import TileReuse
from sim.driver import Simulation
from sim.world import World
from tests.examples_tried import examples
from tests.policies.tiles import TileTable, tiled_costs
from tests.predictors.tile_recordings import made_up_tiles
from traces.request import Request
from traces.stages import Recipe

NOTHING = Link(0.0, float("inf"))


@pytest.fixture(scope="module")
def signals() -> TileSignals:
    return TileSignals(TileReuse.fit(made_up_tiles()))


def simulate(
    policy: SchedulingPolicy,
    requests: list[Request],
    costs: TiledCosts,
    replicas: int = 1,
    seed: int = 0,
    per_step: bool = False,
    recipe: Callable[[Request], Recipe] | None = None,
    plans: TilePlans | None = None,
    slowdown: float = 1.0,
) -> Controller:
    controller = Controller(policy, costs, replicas, costs.recipe if recipe is None else recipe)
    world = World(costs, replicas, seed, slowdown=slowdown, tiles=TilePlans(costs) if plans is None else plans)
    Simulation(controller, world, per_step).run(requests)
    return controller


def clip(name: str, arrival_s: float = 0.0, side: int = 384, steps: int = 10, **more: float) -> Request:
    return Request(name, arrival_s, side, side, steps, **more)  # type: ignore[arg-type]


def test_nine_tiles_on_four_devices_take_three_rounds_a_step() -> None:
    c = simulate(FCFS(), [clip("a", 1.0)], tiled_costs(devices=TileDevices(4, link=NOTHING)))
    assert c.jobs[0].finish_s == pytest.approx(1.0 + 0.1 + 10 * 1.0 + 0.7 + 9 * 3 * 1.0 + 0.5)
    ((_, outcome, _),) = c.launched
    assert outcome.stage_ends_s == pytest.approx((1.1, 11.1, 11.8, 38.8))
    assert outcome.device_s == pytest.approx((0.1 + 10 + 0.7 + 27 + 0.5, 18, 18, 18))
    assert (outcome.computed, outcome.reused) == (1 + 10 + 1 + 81 + 1, 0)
    table = step_table(c, lambda stage, composition: False)
    assert table["device_s"].tolist() == pytest.approx([0.1, 10, 0.7, 81, 0.5])


@pytest.mark.parametrize(("fails_s", "second_s"), [(1.5, 0.0), (12.7, 0.6), (19.3, 5.0), (40.0, 18.0)])
def test_devices_of_a_replica_that_fails_were_busy_until_then(fails_s: float, second_s: float) -> None:
    """Of a refinement step under way its devices have done as large a part as of the others."""
    costs = tiled_costs(devices=TileDevices(4, link=NOTHING))
    controller = Controller(FCFS(), costs, 1, costs.recipe)
    happenings = [Happening(fails_s, "down", 0), Happening(fails_s + 1.0, "up", 0)]
    world = World(costs, 1, noise=False, tiles=TilePlans(costs))
    Simulation(controller, world, happenings=happenings, in_flight="fail").run([clip("a", 1.0)])
    ((_, outcome, end_s),) = controller.launched
    assert end_s == min(fails_s, controller.jobs[0].finish_s or 0.0)
    assert outcome.device_s == pytest.approx((end_s - 1.0, second_s, second_s, second_s))


def test_tiles_of_several_requests_fill_devices_together() -> None:
    """Two requests of two tiles on two devices, a batch: each device computes a tile of both in every step."""
    costs = tiled_costs(devices=TileDevices(2, link=NOTHING))
    both = [Request(name, 0.0, 128, 256, 10) for name in "ab"]
    c = simulate(SameSizeContinuous(), both, costs)
    refined = [(launch, outcome) for launch, outcome, _ in c.launched if launch.segments[-1].stage != "encode"]
    assert all(len(launch.jobs) == 2 for launch, _ in refined)
    # Sketches of 88 x 184 px, two in a batch.
    assert c.jobs[0].finish_s == c.jobs[1].finish_s
    assert c.jobs[0].finish_s == pytest.approx(0.2 + 20 * 88 * 184 / 128**2 + 1.4 + 9 * 2.0 + 1.0)


def test_a_step_waits_for_its_pixels_and_slows_down_with_the_world() -> None:
    link = Link(0.25, float("inf"))
    costs = tiled_costs(devices=TileDevices(2, link=link))
    fast, slow = (
        simulate(FCFS(), [Request("a", 0.0, 128, 256, 3)], costs, slowdown=s).launched[0][1] for s in (1.0, 2.0)
    )
    sketched = 3 * 88 * 184 / 128**2
    begun, ended = 0.1 + sketched + 0.7, 0.1 + sketched + 0.7 + (0.25 + 1) + (0.5 + 1) + (0.5 + 1) + 0.25
    assert fast.stage_ends_s[2:] == pytest.approx((begun, ended))
    assert slow.stage_ends_s[2:] == pytest.approx((2 * begun, 2 * ended))
    assert fast.device_s == pytest.approx((begun + 3 + 0.5, 3))


def test_one_tile_takes_as_long_as_an_ordinary_request() -> None:
    """A canvas of one tile, refined over all steps, and the same request denoised: the same to the picosecond."""
    tiled, ordinary = tiled_costs(TileTable(odd=1.0291), above=0.5, refine=1.0), tiled_costs(TileTable(odd=1.0291))
    one = clip("a", side=128)
    (_, refined, _), (_, denoised, _) = (
        simulate(FCFS(), [one], costs, recipe=recipe).launched[0]
        for costs, recipe in ((tiled, lambda _: (("refine", 10),)), (ordinary, lambda _: (("denoise", 10),)))
    )
    assert refined.device_s == denoised.device_s
    assert refined.computed == denoised.computed


def test_a_cache_shortens_steps_and_counts_tiles(signals: TileSignals) -> None:
    costs = tiled_costs()
    plans = TilePlans(costs, FixedInterval(every=3), signals)
    c = simulate(FCFS(), [clip("a", side=256, steps=9)], costs, plans=plans)  # 4 tiles, 8 refinement steps, 4 computed
    nothing_s = 4 * 1e-9  # a step in which nothing is computed lasts a nanosecond
    assert c.jobs[0].finish_s == pytest.approx(0.1 + 9 * 1.0 + 0.7 + 16 * 1.0 + nothing_s + 0.5, abs=1e-12)
    ((_, outcome, _),) = c.launched
    assert (outcome.computed, outcome.reused) == (1 + 9 + 1 + 16 + 1, 16)


def test_a_recall_ends_refinement_at_its_next_step() -> None:
    costs = tiled_costs(devices=TileDevices(4, link=NOTHING))
    begun = 0.1 + 10 + 0.7  # a step takes 3 s from here
    urgent = Request("urgent", begun + 7.0, 128, 128, 1, slo_s=5.0)
    c = simulate(EDF(max_batch=1), [clip("slow", slo_s=1000.0), urgent], costs)
    assert c.jobs[1].first_start_s == pytest.approx(begun + 9.0)
    away = c.jobs[1].finish_s - c.jobs[1].first_start_s  # type: ignore[operator]
    assert c.jobs[0].finish_s == pytest.approx(begun + 27.0 + 0.5 + away)
    first, last = c.launched[0][1], c.launched[-1][1]
    assert (first.computed, last.computed) == (1 + 10 + 1 + 27, 54 + 1)
    assert first.device_s[1] + last.device_s[1] == pytest.approx(18)


def test_placement_policies_are_asked() -> None:
    """Tiles of uneven sizes: in contiguous runs one device gets both long rows."""
    costs = [
        tiled_costs(devices=TileDevices(2, placement, NOTHING), tile=(128, 128))
        for placement in (Contiguous(), LongestFirst())
    ]
    uneven = Request("a", 0.0, 296, 128, 5)  # rows of 104, 96 and 96 px
    blind, best = (simulate(FCFS(), [uneven], one).jobs[0].finish_s for one in costs)
    assert blind is not None
    assert best is not None
    assert blind - best == pytest.approx(4 * (104 - 96) / 128)  # 104 + 96 against 96 + 96


def test_lookahead_learns_from_tiled_requests_alone() -> None:
    costs = tiled_costs(devices=TileDevices(2, link=NOTHING))
    c = simulate(SCHEDULERS["lookahead"](), [clip(f"r{i}", 80.0 * i) for i in range(20)], costs, slowdown=1.3)
    assert {job.state for job in c.jobs} == {"finished"}
    assert c.policy._errors.ratio == pytest.approx(1.3, rel=0.05)  # type: ignore[attr-defined]


def request_strategy() -> st.SearchStrategy[Request]:
    return st.builds(
        Request,
        request_id=st.just("drawn"),
        arrival_s=st.one_of(st.floats(0, 30), st.integers(0, 8).map(float)),
        height=st.sampled_from([64, 128, 256]),
        width=st.sampled_from([96, 128, 384]),
        steps=st.integers(1, 7),
        images=st.sampled_from([1, 1, 2]),
        guidance_scale=st.sampled_from([5.0, 5.0, 1.0]),
        slo_s=st.sampled_from([None, 5.0, 20.0, 80.0]),
    )


CACHES: tuple[CachingPolicy | None, ...] = (None, None, FixedInterval(every=2), RegionAware(threshold=0.03, warmup=1))


@pytest.mark.parametrize("name", SCHEDULERS)
@settings(max_examples=examples(5), deadline=None)
@given(data=st.data(), drawn=st.lists(request_strategy(), min_size=1, max_size=10))
def test_a_quantum_and_single_steps_give_identical_completions(
    name: str, data: st.DataObject, drawn: list[Request], signals: TileSignals
) -> None:
    ordered = sorted(drawn, key=lambda request: request.arrival_s)
    requests = [dataclasses.replace(request, request_id=f"r{i}") for i, request in enumerate(ordered)]
    replicas, seed = data.draw(st.integers(1, 2)), data.draw(st.integers(0, 9))
    placement = PLACEMENTS[data.draw(st.sampled_from(["contiguous", "round-robin", "longest-first"]))]()
    devices = TileDevices(data.draw(st.integers(1, 3)), placement, Link(0.011, 1e5))
    ratios = data.draw(st.sampled_from([(1.0,), (0.93, 1.0, 1.04)]))
    costs = tiled_costs(
        TileTable(ratios=ratios, odd=1.0291), devices, mode=data.draw(st.sampled_from(["wrap", "clamp"]))
    )
    plans = TilePlans(costs, (cache := data.draw(st.sampled_from(CACHES))), None if cache is None else signals)
    left_out = data.draw(st.sampled_from([(), (), ("encode",), ("encode", "upscale", "decode"), ("decode",)]))

    def recipe(request: Request) -> Recipe:
        return tuple([item for item in costs.recipe(request) if item[0] not in left_out])

    def run(per_step: bool) -> tuple[int, list[object], list[int], np.ndarray]:
        c = simulate(SCHEDULERS[name](), requests, costs, replicas, seed, per_step, recipe, plans)
        fates: list[object] = [(job.state, job.finish_s, job.first_start_s, job.replica) for job in c.jobs]
        outcomes = [outcome for _, outcome, _ in c.launched]
        busy = np.array([outcome.device_s for outcome in outcomes]).reshape(-1, devices.count)
        return len(outcomes), fates, [sum(o.computed for o in outcomes), sum(o.reused for o in outcomes)], busy.sum(0)

    quanta, by_quantum, units, busy = run(per_step=False)
    steps, by_step, units_by_step, busy_by_step = run(per_step=True)
    assert by_quantum == by_step
    assert units == units_by_step
    assert busy == pytest.approx(busy_by_step, rel=0.08)  # noise is spread over the steps of a quantum
    assert quanta <= steps
    assert all(state in ("finished", "dropped") for state, *_ in by_quantum)  # type: ignore[misc]
