"""Costs: what follows from `step_s` alone, what layers pass on, and that one is added in a file of its own."""

from __future__ import annotations

import pytest

from policies.contract import Decision, PolicyError, Replica, SchedulingPolicy
from policies.controller import Controller
from policies.scheduling import SCHEDULERS, SameSizeContinuous
from policies.tiling.costs import TiledCosts
from policies.tiling.timing import TileDevices
from predictors.costs import Batch, CostLayer, CostModel, RepeatNoise, Scaled, alone
from predictors.expected import ExpectedReuse
from predictors.link import Link
from predictors.loading import AdapterCosts
from predictors.online import OnlinePredictor
from sim.driver import Simulation
from sim.world import World
from tests.policies.tiles import TileTable, tiled_costs
from traces.composition import parse
from traces.request import Request

SMALL, LARGE = Request("small", 0.0, 128, 128, 10), Request("large", 0.0, 384, 384, 10)


class PerPicture(CostModel):
    """A step takes a second for every picture, guided or not."""

    def step_s(self, stage: str, batch: Batch) -> float:
        return float(sum(count for _, count in batch.composition))


def test_a_model_is_one_method() -> None:
    costs = PerPicture()
    request = Request("r", 0.0, 64, 64, 7, images=2)
    assert costs.standalone_s(request) == 2 * (1 + 7 + 1)
    assert costs.scaled(3.0).standalone_s(request) == 3 * costs.standalone_s(request)
    assert (costs.learns, costs.noise("denoise"), costs.extrapolates("denoise", parse("9@64x64"))) == (
        False,
        RepeatNoise(),
        False,
    )
    costs.observe("denoise", alone(request), 1.0, 2.0, 7)  # which teaches it nothing
    assert costs.step_s("denoise", alone(request)) == 2.0


@pytest.mark.parametrize(
    "layer",
    [
        CostLayer,
        lambda table: Scaled(table, 1.0),
        lambda table: AdapterCosts(table, 0.25),
        lambda table: ExpectedReuse(table, {(64, 64, 1): 1.0}),
        lambda table: TiledCosts(table, tiled_costs().rule),
    ],
)
def test_a_layer_passes_on_what_it_says_nothing_about(layer: type[CostLayer]) -> None:
    """Noise, range, recipe, and what launches took, to a model that learns from it and is believed at once."""
    table = TileTable(ratios=(0.9, 1.1))
    layered = layer(OnlinePredictor(table))
    batch = alone(SMALL)
    assert layered.learns
    assert layered.noise("decode") == RepeatNoise((0.9, 1.1), 2)
    assert layered.recipe(SMALL) == table.recipe(SMALL)
    assert layered.extrapolation("decode", parse("1@256x256")) == 4.0
    before_s = layered.step_s("denoise", batch)
    for _ in range(200):
        answered_s = layered.step_s("denoise", batch)
        layered.observe("denoise", batch._replace(computed=None), answered_s, 1.5 * before_s, 1)
    if not isinstance(layered, ExpectedReuse):  # whose batches are others to what it wraps
        assert layered.step_s("denoise", batch) == pytest.approx(1.5 * before_s, rel=0.02)
    assert layered.step_s("denoise", batch) > before_s


def test_layers_stack_in_any_order() -> None:
    request = Request("r", 0.0, 384, 384, 10, checkpoint="a", adapters="a+b")
    tiled = TiledCosts(AdapterCosts(TileTable(), 0.25), tiled_costs().rule)
    adapted = AdapterCosts(tiled_costs(), 0.25)
    assert adapted.recipe(request)[0] == ("adapt", 2)
    assert adapted.standalone_s(request) == pytest.approx(0.5 + tiled_costs().standalone_s(request))
    for stage in ("encode", "sketch", "upscale", "refine", "decode"):
        assert tiled.step_s(stage, alone(request)) == adapted.step_s(stage, alone(request))


def test_a_batch_may_name_the_devices_of_its_steps_on_tiles() -> None:
    costs = tiled_costs(devices=TileDevices(4, link=Link(0.0, float("inf"))))
    batch = alone(LARGE)
    assert [costs.step_s("refine", batch._replace(devices=count)) for count in (None, 1, 3, 9)] == [3.0, 9.0, 3.0, 1.0]
    assert costs.step_s("denoise", batch._replace(devices=9)) == costs.step_s("denoise", batch)


def test_a_tiled_request_with_a_picture_has_no_sketch_to_pay_for() -> None:
    costs = tiled_costs()
    plain, shown = LARGE, Request("shown", 0.0, 384, 384, 10, image="a.png")
    saved_s = 10 * costs.step_s("sketch", alone(LARGE))
    assert costs.standalone_s(plain) - costs.standalone_s(shown) == pytest.approx(saved_s)


class ColdStart(CostLayer):
    """A layer to add: encoding takes two seconds more."""

    def step_s(self, stage: str, batch: Batch) -> float:
        return self.table.step_s(stage, batch) + (2.0 if stage == "encode" else 0.0)


@pytest.mark.parametrize("scheduler", sorted(SCHEDULERS))
def test_a_layer_is_added_in_its_own_file(scheduler: str) -> None:
    """Schedulers and the world ask it as they ask any other, and what was predicted is what happened."""
    costs = ColdStart(TileTable())
    controller = Controller(SCHEDULERS[scheduler](), costs, 1)
    requests = [Request(f"r{i}", 0.4 * i, 64 * (1 + i % 2), 64, 4) for i in range(6)]
    Simulation(controller, World(costs, 1)).run(requests)
    assert {job.state for job in controller.jobs} == {"finished"}
    for launch, outcome, end_s in controller.launched:
        predicted_s = sum(segment.steps * segment.predicted_step_s for segment in launch.done(outcome.steps_done))
        assert end_s - launch.start_s == pytest.approx(predicted_s, rel=1e-6)
        assert all(s.predicted_step_s == costs.step_s(s.stage, launch.batch) for s in launch.segments)


def test_all_replicas_show_the_costs_that_the_controller_was_given() -> None:
    costs = PerPicture()
    controller = Controller(SameSizeContinuous(), costs, 2)
    assert all(replica.costs is costs for replica in controller.policy.cluster.replicas)  # type: ignore[attr-defined]


def test_a_policy_that_asks_the_cluster_is_told_whom_to_ask() -> None:
    class Old(SchedulingPolicy):
        def plan(self, replica: Replica, now: float) -> Decision | None:
            return Decision(steps=int(self.cluster.predictor.seconds("denoise", ())))  # type: ignore[attr-defined]

    controller = Controller(Old(), PerPicture(), 1)
    controller.submit(SMALL, 0.0)
    with pytest.raises(PolicyError, match=r"a cluster has no predictor: ask a replica's costs, replica\.costs\.step_s"):
        controller.launches(0.0)
