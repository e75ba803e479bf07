"""From a controller to the tables of the run log."""

from __future__ import annotations

from policies.contract import Outcome
from policies.controller import Controller
from policies.record import request_table, step_table
from policies.runlog import STEP_COLUMNS
from policies.scheduling import FCFS
from tests.policies.costs import FlatCosts
from traces.request import Request


def test_units_of_a_cache_belong_to_the_denoising_steps() -> None:
    controller = Controller(FCFS(), FlatCosts())
    controller.submit(Request("a", 0.0, 64, 64, 4, images=2), 0.0)
    (launch,) = controller.launches(0.0)
    # encode, four steps of 2 images x 16 units of which 24 were reused, decode
    controller.complete(launch, Outcome(6, None, 2 + 104 + 2, 24, stage_ends_s=(1.0, 5.0)), 6.0)
    table = step_table(controller, lambda stage, composition: False)
    assert table["stage"].tolist() == ["encode", "denoise", "decode"]
    assert table["computed"].tolist() == [2, 104, 2]
    assert table["reused"].tolist() == [0, 24, 0]
    assert table["end_s"].tolist() == [1.0, 5.0, 6.0]


def test_a_launch_that_failed_computed_nothing() -> None:
    controller = Controller(FCFS(), FlatCosts())
    controller.submit(Request("a", 0.0, 64, 64, 4), 0.0)
    (launch,) = controller.launches(0.0)
    controller.complete(launch, Outcome(0, {"a": "out of memory"}), 1.0)
    table = step_table(controller, lambda stage, composition: False)
    assert table["computed"].tolist() == [0]
    assert table["steps"].tolist() == [0]


def test_busy_seconds_of_refinement_are_those_of_all_devices() -> None:
    recipe = (("encode", 1), ("sketch", 4), ("upscale", 1), ("refine", 3), ("decode", 1))
    controller = Controller(FCFS(), FlatCosts(), recipe=lambda request: recipe)
    controller.submit(Request("a", 0.0, 64, 64, 4, images=2), 0.0)
    (launch,) = controller.launches(0.0)
    # All but the refinement from 6 to 9 s runs on the first of two devices; that computes 18 tiles and reuses 9.
    outcome = Outcome(10, None, 2 * 7 + 18, 9, (7.0 + 2.5, 1.5), (1.0, 5.0, 6.0, 9.0))
    controller.complete(launch, outcome, 10.0)
    table = step_table(controller, lambda stage, composition: stage == "refine")
    assert table["stage"].tolist() == [stage for stage, _ in recipe]
    assert table["computed"].tolist() == [2, 8, 2, 18, 2]
    assert table["reused"].tolist() == [0, 0, 0, 9, 0]
    assert table["device_s"].tolist() == [1.0, 4.0, 1.0, 4.0, 1.0]
    assert table["extrapolated"].tolist() == [False, False, False, True, False]


def test_a_launch_cut_short_has_rows_for_the_stages_it_reached() -> None:
    controller = Controller(FCFS(), FlatCosts())
    now = 0.0
    for name, done, borders in (("a", 6, (1.0, 5.0)), ("b", 3, (7.0,))):  # two launches that were to do the same
        controller.submit(Request(name, now, 64, 64, 4), now)
        (launch,) = controller.launches(now)
        now += 6.0
        controller.complete(launch, Outcome(done, None, done, stage_ends_s=borders), now)
    (rest,) = controller.launches(now)
    controller.complete(rest, Outcome(3, None, 3, stage_ends_s=(14.0,)), 15.0)
    table = step_table(controller, lambda stage, composition: False)
    rows = table[["launch_id", "stage", "start_s", "end_s", "steps", "planned_steps", "computed"]].values.tolist()
    assert rows == [
        [0, "encode", 0.0, 1.0, 1, 1, 1],
        [0, "denoise", 1.0, 5.0, 4, 4, 4],
        [0, "decode", 5.0, 6.0, 1, 1, 1],
        [1, "encode", 6.0, 7.0, 1, 1, 1],
        [1, "denoise", 7.0, 12.0, 2, 4, 2],
        [2, "denoise", 12.0, 14.0, 2, 2, 2],
        [2, "decode", 14.0, 15.0, 1, 1, 1],
    ]
    assert table["request_ids"].tolist() == [["a"]] * 3 + [["b"]] * 4
    assert table["predicted_s"].tolist() == [0.2 * steps for _, _, _, _, steps, _, _ in rows]


def test_a_run_without_launches_has_an_empty_table() -> None:
    table = step_table(Controller(FCFS(), FlatCosts()), lambda stage, composition: False)
    assert table.empty
    assert list(table) == list(STEP_COLUMNS)


def test_notes_are_a_column() -> None:
    controller, requests = Controller(FCFS(), FlatCosts()), [Request(name, 0.0, 64, 64, 4) for name in "ab"]
    controller.submit(requests[0], 0.0)
    (launch,) = controller.launches(0.0)
    controller.complete(launch, Outcome(6, stage_ends_s=(1.0, 5.0), notes={"a": "the prompt was cut"}), 6.0)
    steps = step_table(controller, lambda stage, composition: False)
    table = request_table(controller, requests, steps, lambda request: 1.0)
    assert table["note"].tolist() == ["the prompt was cut", ""]
    assert table["status"].tolist() == ["finished", "cancelled"]
