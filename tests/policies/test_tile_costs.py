"""What tiled requests cost: makespans, exchanges and caches worked out by hand."""

from __future__ import annotations

import pytest

from policies.caching import FixedInterval, RegionAware
from policies.tiling.plan import TilePlans
from policies.tiling.signals import TileSignals
from policies.tiling.timing import TileDevices
from predictors.costs import Batch
from predictors.expected import ExpectedReuse
from predictors.link import Link
from predictors.online import OnlinePredictor
from predictors.tile_reuse import TileReuse
from tests.policies.tiles import TileTable, tiled_costs
from tests.predictors.tile_recordings import made_up_tiles
from traces.composition import parse
from traces.errors import BadInput
from traces.request import Request

NOTHING = Link(0.0, float("inf"))
SLOW = Link(0.01, 1e4)


def request(height: int, width: int | None = None, steps: int = 10, **more: float) -> Request:
    return Request("a", 0.0, height, height if width is None else width, steps, **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def signals() -> TileSignals:
    return TileSignals(TileReuse.fit(made_up_tiles()))


@pytest.mark.parametrize(("devices", "rounds"), [(1, 9), (2, 5), (3, 3), (4, 3), (8, 2), (9, 1), (12, 1)])
def test_nine_tiles_take_as_many_rounds_as_the_busiest_device_has(devices: int, rounds: int) -> None:
    costs = tiled_costs(devices=TileDevices(devices, link=NOTHING))
    plan = TilePlans(costs).of(request(384))
    assert [max(busy) for busy in plan.device_s] == [rounds] * 9  # 9 of 10 steps are refined again
    assert [sum(busy) for busy in plan.device_s] == [9.0] * 9
    assert plan.computed == plan.tiles == tuple(range(0, 82, 9))
    assert plan.seconds == 9 * rounds
    assert costs.step_s("refine", Batch("sd3", parse("1@384x384"))) == pytest.approx(rounds)
    assert costs.step_s("refine", Batch("sd3", parse("2@384x384"))) == pytest.approx(2 * rounds)


def test_one_tile_costs_what_an_ordinary_request_of_that_size_does() -> None:
    tiled, ordinary = tiled_costs(above=0.5, refine=1.0), tiled_costs()
    one = request(128, 112)
    assert [stage for stage, _ in tiled.recipe(one)] == ["encode", "sketch", "upscale", "refine", "decode"]
    alone = ((one.size, 1),)
    assert (
        tiled.step_s("refine", Batch("sd3", alone))
        == tiled.step_s("sketch", Batch("sd3", alone))
        == ordinary.step_s("denoise", Batch("sd3", alone))
    )
    plan = TilePlans(tiled).of(one)
    assert plan.step_s == (ordinary.step_s("denoise", Batch("sd3", alone)),) * 10
    assert tiled.standalone_s(one) == pytest.approx(2 * ordinary.standalone_s(one) - 0.1 - 0.5 + 0.7)


def test_pixels_that_travel_are_paid_for() -> None:
    costs = tiled_costs(devices=TileDevices(2, link=SLOW))
    plan = TilePlans(costs).of(request(128, 256, steps=3))  # two tiles side by side, moving by one column a step
    pixel = 4 * 4  # bytes: 4 channels of float32
    half, edge = 256 * pixel, 16 * pixel
    there = SLOW.seconds(half, 1)  # first the second device gets its half,
    swap = SLOW.seconds(2 * edge, 2)  # then each sends a column and gets one,
    back = SLOW.seconds(half, 1)  # and in the end the first has everything.
    assert plan.moved == (half, 2 * edge, 2 * edge)
    assert plan.link_s == pytest.approx((there, swap, swap + back))
    assert plan.step_s == pytest.approx((1 + there, 1 + swap, 1 + swap + back))


def test_what_travels_grows_with_pictures_frames_and_gains(signals: TileSignals) -> None:
    costs = tiled_costs(devices=TileDevices(2, link=SLOW))
    one = TilePlans(costs).of(request(128, 256, steps=3)).moved
    two = TilePlans(costs).of(request(128, 256, steps=3, images=2)).moved
    clip = TilePlans(costs).of(request(128, 256, steps=3, frames=5)).moved
    assert two == tuple(2 * n for n in one)
    assert clip == tuple(5 * n for n in one)  # this model has a latent frame for every frame
    held = TilePlans(costs, RegionAware(warmup=4), signals).of(request(128, 256, steps=3)).moved
    assert held == tuple(2 * n for n in one)
    half = TilePlans(tiled_costs(devices=TileDevices(2, link=SLOW, number_bytes=2))).of(request(128, 256, steps=3))
    assert half.moved == tuple(n // 2 for n in one)


def test_a_cache_leaves_what_the_policy_computes(signals: TileSignals) -> None:
    plans = TilePlans(tiled_costs(), FixedInterval(every=3), signals)
    plan = plans.of(request(256, 384, steps=9))  # 6 tiles, 8 refinement steps
    assert [sum(busy) for busy in plan.device_s] == [6, 6, 0, 0, 6, 0, 0, 6]
    assert plan.computed == (0, 6, 12, 12, 12, 18, 18, 18, 24)
    assert plan.tiles == tuple(range(0, 49, 6))
    assert plans.expected_share(request(256, 384, steps=9)) == 0.5
    assert TilePlans(tiled_costs()).expected_share(request(256, 384)) == 1.0


def test_plans_of_requests_do_not_touch_each_other(signals: TileSignals) -> None:
    def planned(names: str) -> list[object]:
        plans = TilePlans(tiled_costs(), RegionAware(threshold=0.02, warmup=2), signals)
        return [plans.of(Request(name, 0.0, 256, 384, 12)) for name in names]

    first, second = planned("xy")
    assert planned("yx") == [second, first]
    assert 0 < first.computed[-1] < first.tiles[-1]  # type: ignore[attr-defined]


def test_fewer_computed_tiles_need_not_be_a_shorter_step(signals: TileSignals) -> None:
    """What placement makes of a cache shows: contiguous runs leave devices idle that longest-first would use."""
    from policies.placement import LongestFirst

    def share(devices: TileDevices) -> float:
        plans = TilePlans(tiled_costs(devices=devices), RegionAware(threshold=0.04, warmup=2), signals)
        return plans.expected_share(request(256, 384, steps=14))

    blind, guided = share(TileDevices(3, link=NOTHING)), share(TileDevices(3, LongestFirst(), NOTHING))
    assert guided < blind < 1.0


def test_a_cache_without_signals_says_so() -> None:
    with pytest.raises(BadInput, match="RegionAware decides by signals of tiles, and none were recorded"):
        TilePlans(tiled_costs(), RegionAware())


def test_stages_are_asked_for_at_their_own_sizes() -> None:
    costs = tiled_costs()
    canvas = parse("1@256x512")
    assert costs.sketched(canvas) == parse("1@88x184")  # the largest of the native area
    assert costs.step_s("sketch", Batch("sd3", canvas)) == TileTable().step_s(
        "denoise", Batch("sd3", parse("1@88x184"))
    )
    assert costs.step_s("upscale", Batch("sd3", canvas)) == 0.7
    assert costs.step_s("decode", Batch("sd3", canvas)) == 0.5
    assert costs.step_s("denoise", Batch("sd3", parse("1@128x64"), computed=0.5)) == 0.25
    assert costs.windows((256, 512, 1)) == ((128, 128, 1),)
    assert not costs.extrapolates("refine", canvas)
    assert costs.extrapolates("decode", canvas)
    mixed = parse("1@128x64+2@256x512")
    assert costs.sketched(mixed) == parse("2@88x184+1@128x64")
    assert costs.step_s("encode", Batch("sd3", mixed)) == pytest.approx(0.3)


def test_a_measured_step_gives_tiles_their_overhead() -> None:
    table = TileTable(refine_s=5.0)  # four tiles of 1 s, and a second to cut and put together
    assert tiled_costs(table).step_s("refine", Batch("sd3", parse("1@256x256"))) == pytest.approx(5.0)
    shared = tiled_costs(table, TileDevices(4, link=NOTHING))
    assert shared.step_s("refine", Batch("sd3", parse("1@256x256"))) == pytest.approx(1.25)
    assert TilePlans(shared).of(request(256)).step_s == pytest.approx((1.25,) * 9)


def test_the_overhead_is_that_of_the_measured_grid() -> None:
    class PerForward(TileTable):
        """0.1 s for every forward, so that small tiles cost more."""

        def step_s(self, stage: str, batch: Batch) -> float:
            return super().step_s(stage, batch) + 0.1 * (stage == "denoise")

    table = PerForward(refine_s=5.5)  # 1.25 times what four tiles of 1.1 s take
    costs = tiled_costs(table, mode="clamp", stride=0.0, grids={(256, 256): (4, 4)})
    assert TilePlans(costs).of(request(256)).step_s == pytest.approx((1.25 * 16 * 0.35,) * 9)


def test_scaled_and_expected_costs_are_those_of_every_stage() -> None:
    costs = tiled_costs(devices=TileDevices(2, link=SLOW))
    large, small = request(256, guidance_scale=1.0), request(128, 96)
    slower = costs.scaled(1.2)
    for one in (large, small):
        assert slower.standalone_s(one) == pytest.approx(1.2 * costs.standalone_s(one))
    half = costs.expecting({large.size: 0.5})
    alone = ((large.size, 1),)
    assert half.step_s("refine", Batch("sd3", alone, 0.0)) == 0.5 * costs.step_s("refine", Batch("sd3", alone, 0.0))
    assert half.step_s("sketch", Batch("sd3", alone, 0.0)) == costs.step_s("sketch", Batch("sd3", alone, 0.0))


def test_other_predictors_wrap_it() -> None:
    costs = tiled_costs()
    large, small = request(256), request(128, 96)
    blocks = ExpectedReuse(costs, {small.size: 0.25})
    assert blocks.standalone_s(large) == costs.standalone_s(large)
    assert blocks.standalone_s(small) == pytest.approx(0.1 + 10 * 0.25 * 0.75 + 0.5)
    online = OnlinePredictor(blocks)
    assert online.standalone_s(large) == pytest.approx(costs.standalone_s(large))
    alone = ((large.size, 1),)
    for _ in range(50):
        asked_s = online.step_s("refine", Batch("sd3", alone))
        online.observe("refine", Batch("sd3", alone), asked_s, 1.3 * costs.step_s("refine", Batch("sd3", alone)), 9)
    assert online.step_s("refine", Batch("sd3", alone)) == pytest.approx(
        1.3 * costs.step_s("refine", Batch("sd3", alone)), rel=0.02
    )
    assert online.step_s("sketch", Batch("sd3", alone)) == costs.step_s("sketch", Batch("sd3", alone))
    assert online.standalone_s(large) == pytest.approx(costs.standalone_s(large) + 0.3 * 9 * 4, rel=0.02)


def test_impossible_devices_are_named() -> None:
    with pytest.raises(BadInput, match="0 devices"):
        TileDevices(0)
