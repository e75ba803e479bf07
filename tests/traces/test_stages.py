"""The table of stages: what rows say, and that a stage is added by a row and a place in recipes."""

from __future__ import annotations

from pathlib import Path

import pytest

from policies.contract import Outcome, SchedulingPolicy
from policies.controller import Controller
from policies.job import Job
from policies.scheduling import SCHEDULERS
from sim.check_worlds import IrregularCosts
from sim.driver import Simulation
from sim.world import World
from traces.errors import BadInput
from traces.request import Request
from traces.stages import ORDINARY, STAGES, Recipe, Stage, ordinary

ROOT = Path(__file__).parents[2]


def test_the_table_answers_by_name_and_names_an_unknown_stage() -> None:
    assert [STAGES[name].name for name in STAGES] == list(STAGES)
    assert STAGES.named(lambda stage: stage.sampler) == ("denoise", "sketch", "refine")
    assert STAGES.named(lambda stage: stage.measured) == ("encode", "denoise", "upscale", "refine", "decode")
    assert tuple(name for name, _ in ordinary(Request("r", 0.0, 64, 64, 5))) == ORDINARY
    assert STAGES["sketch"].costs_of == "denoise"
    with pytest.raises(BadInput, match="unknown stage 'polish'; known: load, adapt, receive, reshard, encode, denoise"):
        STAGES["polish"]


def test_a_recipe_with_an_unknown_stage_is_named_when_the_request_comes() -> None:
    with pytest.raises(BadInput, match="unknown stage 'polish'"):
        Job(Request("r", 0.0, 64, 64, 5), 0, (("encode", 1), ("polish", 1)))


@pytest.mark.parametrize("scheduler", sorted(SCHEDULERS))
def test_a_stage_is_added_by_a_row_and_a_place_in_recipes(scheduler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A safety check after the decode: every scheduler runs it, once a request, and last."""
    monkeypatch.setitem(STAGES, "check", Stage("check", finishes=True, measured=True))

    def checked(request: Request) -> Recipe:
        return (*ordinary(request), ("check", 1))

    controller, log = _served(SCHEDULERS[scheduler](), checked)
    assert {job.state for job in controller.jobs} == {"finished"}
    assert sorted(log["check"]) == sorted(log["decode"]) == [f"r{i}" for i in range(8)]
    assert all(job.finishing and job.steps_done == job.request.steps for job in controller.jobs)


def _served(policy: SchedulingPolicy, recipe: object) -> tuple[Controller, dict[str, list[str]]]:
    """Eight requests of two sizes, and who went through each stage."""
    controller = Controller(policy, IrregularCosts(), 1, recipe)  # type: ignore[arg-type]
    sides = [256, 512] * 4
    requests = [Request(f"r{i}", 0.3 * i, side, side, 3 + i % 3) for i, side in enumerate(sides)]
    Simulation(controller, World(IrregularCosts(), 1)).run(requests)
    log: dict[str, list[str]] = {}
    for launch, outcome, _ in controller.launched:
        assert isinstance(outcome, Outcome)
        for segment in launch.done(outcome.steps_done):
            log.setdefault(segment.stage, []).extend(job.request.request_id for job in launch.jobs)
    return controller, log
