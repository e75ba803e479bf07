"""From a scenario to seconds on several devices: links, rates, notes."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest

from predictors.costs import Batch
from predictors.degrees import ParallelCosts, shipped_degree_rates
from predictors.link import Link
from predictors.profile import Profile
from tests.cli.run_command import run
from tests.tilecast.test_setup import write_profile
from tilecast.degrees import degree_notes, tile_link
from tilecast.replaying import check_replayable
from tilecast.scenario import Scenario, load_scenario
from tilecast.served import ServedModel, served_models
from tilecast.setup import prepare
from tilecast.studies.case import Case
from traces.errors import BadInput

SCENARIO = """
model = "flux"
[trace]
path = "trace.parquet"
[cluster]
devices = 8
[predictor]
hardware = "h100-sxm"
"""
MEASURED = 'profile = "profile.parquet"\nlatency_model = "linear"'


def scenario(folder: Path, text: str = SCENARIO, **cluster: object) -> Scenario:
    (folder / "scenario.toml").write_text(text)
    return load_scenario(folder / "scenario.toml", {f"cluster.{key}": value for key, value in cluster.items()})


def costs_of(member: ServedModel) -> ParallelCosts:
    costs = member.on_devices(member.table)
    assert isinstance(costs, ParallelCosts)
    return costs


def test_replicas_of_one_device_have_the_table_itself(tmp_path: Path) -> None:
    (member,) = served_models(scenario(tmp_path, devices=1))
    assert member.on_devices(member.table) is member.table
    assert degree_notes(member.table, "flux") == []


def test_degrees_follow_from_the_model_and_the_replica(tmp_path: Path) -> None:
    (member,) = served_models(scenario(tmp_path))
    costs = costs_of(member)
    assert costs.degrees("flux") == (1, 2, 3, 4, 6, 8)
    batch = Batch("flux", (((2048, 2048, 1), 1),), 0.0)
    seconds = [costs.step_s("denoise", batch._replace(devices=degree)) for degree in (1, 2, 4, 8)]
    assert seconds == sorted(seconds, reverse=True)
    assert seconds[0] == member.table.step_s("denoise", batch)
    (note,) = degree_notes(costs, "flux")
    assert note.startswith("devices: times on 2, 3, 4, 6, 8 are ESTIMATED from those on one")


def test_whoever_believes_a_slower_table_believes_slower_hosts_and_links(tmp_path: Path) -> None:
    (member,) = served_models(scenario(tmp_path))
    plain, slower = costs_of(member), member.on_devices(member.table.scaled(1.5))
    for degree in (1, 4, 8):
        batch = Batch("flux", (((512, 512, 1), 1),), 0.0, degree)
        assert slower.step_s("denoise", batch) == 1.5 * plain.step_s("denoise", batch)
    assert slower.degrees("flux") == plain.degrees("flux")


def test_a_link_is_the_data_sheets_or_the_scenarios(tmp_path: Path) -> None:
    share = shipped_degree_rates().link_share["direct"]
    plain, given = (
        scenario(tmp_path),
        scenario(tmp_path, link_bytes_per_s=1e9, link_latency_s=0.5),
    )
    sheet = Link(bytes_per_s=2 * 450e9 * share)
    for asked, link in ((plain, sheet), (given, Link(0.5, 1e9))):
        (member,) = served_models(asked)
        assert costs_of(member).link == tile_link(asked) == link
    pools = SCENARIO.replace("[cluster]\ndevices = 8", '[[pool]]\nname = "a"\ndevices = 2\nlink_bytes_per_s = 3e9')
    (member,) = served_models(scenario(tmp_path, pools))
    assert costs_of(member).link == Link(bytes_per_s=3e9)


def measured(folder: Path, factor: float) -> Scenario:
    """A scenario on a profile in which two devices take so many times what one takes."""
    write_profile(folder / "one.parquet")
    frame = Profile.load(folder / "one.parquet").frame
    several = frame[frame["stage"] == "denoise"].assign(devices=2, parallel="cfg2")
    several = several.assign(seconds=factor * several["seconds"])
    Profile(pd.concat([frame, several], ignore_index=True)).save(folder / "profile.parquet")
    text = SCENARIO.replace("flux", "tiny-image").replace('hardware = "h100-sxm"', MEASURED)
    return scenario(folder, text)


def test_a_profiles_rows_of_several_devices_are_what_is_answered(tmp_path: Path) -> None:
    (member,) = served_models(measured(tmp_path, 0.7))
    costs = costs_of(member)
    assert costs.degrees("tiny-image") == (1, 2)
    batch = Batch("tiny-image", (((128, 128, 1), 2),), 1.0)
    one_s, two_s = (costs.step_s("denoise", batch._replace(devices=degree)) for degree in (1, 2))
    assert one_s == member.table.step_s("denoise", batch)
    assert two_s / one_s == pytest.approx(0.7, rel=0.08)
    assert degree_notes(costs, "tiny-image") == []


def test_a_model_of_which_nothing_is_known_runs_on_one_device(tmp_path: Path) -> None:
    write_profile(tmp_path / "profile.parquet", "tiny-video", frames=9)
    text = SCENARIO.replace("flux", "tiny-video").replace('hardware = "h100-sxm"', MEASURED)
    (member,) = served_models(scenario(tmp_path, text))
    costs = costs_of(member)
    assert costs.degrees("tiny-video") == (1,)
    (note,) = degree_notes(costs, "tiny-video")
    assert note.startswith("devices: tiny-video can run a step on one device only")


def test_a_plan_weighs_replicas_of_several_devices(tmp_path: Path) -> None:
    """They carry at most so many times as much, and what they take is less certain."""
    size = ("--sizes", "1024x1024:1", "--steps", 4, "--model", "flux")
    run("trace", "generate", "--rate", 1, "--duration", 5, *size, "-o", tmp_path / "trace.parquet")
    plan = '[slo]\nscale = 3.0\n[plan]\nhardware = [{ name = "h100-sxm", hardware = "h100-sxm", devices = [1, 4] }]\n'
    case = Case(scenario(tmp_path, SCENARIO + plan))
    one, four = (option for option in case.options.values() if option.scheduler == case.policies[0])
    assert (one.devices, four.devices) == (1, 4)
    assert four.capacity_rps == pytest.approx(4 * one.capacity_rps)
    assert four.log_sd == pytest.approx(math.hypot(one.log_sd, shipped_degree_rates().log_sd))


def test_models_and_pools_have_degrees_of_their_own(tmp_path: Path) -> None:
    for model in ("flux", "sd3"):
        size = ("--sizes", "512x512:1", "--steps", 4, "--model", model)
        run("trace", "generate", "--rate", 1, "--duration", 5, *size, "-o", tmp_path / f"{model}.parquet")
    both = [pd.read_parquet(tmp_path / f"{model}.parquet") for model in ("flux", "sd3")]
    both[1]["request_id"] = "other " + both[1]["request_id"]
    pd.concat(both).sort_values("arrival_s").to_parquet(tmp_path / "trace.parquet")
    pools = """
    [[pool]]
    name = "a"
    models = ["flux", "sd3"]
    devices = 8
    [[pool]]
    name = "b"
    models = ["sd3"]
    devices = 2
    """
    asked = scenario(tmp_path, SCENARIO.replace("[cluster]\ndevices = 8", pools))
    a, b = prepare(asked).pools
    assert a.costs.degrees("flux") == a.costs.degrees("sd3") == (1, 2, 3, 4, 6, 8)
    assert b.costs.degrees("sd3") == (1, 2)
    with pytest.raises(BadInput, match="pool 'a': the devices of a replica hold one model in a replay"):
        check_replayable(asked)


def test_a_policy_without_a_choice_of_degrees_says_so() -> None:
    """On one device tetriserve has nothing to choose and serves request by request; on several it has."""
    keys = {"policies.scheduling": "tetriserve", "trace.limit": 20}
    scenario = load_scenario(Path(__file__).parents[2] / "examples" / "sdxl_h100.toml", keys)
    [said] = [note.text for note in prepare(scenario).notes if "never batches" in note.text]
    assert said.startswith("tetriserve serves one request a device at a time here")
    for other in ({"cluster.devices": 2}, {"policies.scheduling": "lookahead"}):
        assert not [note for note in prepare(scenario.replaced(other)).notes if "never batches" in note.text]
