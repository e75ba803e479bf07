"""Scenarios with many checkpoints and adapters, end to end."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from policies.runlog import read_run
from predictors.loading import LoadRate, LoadRates
from predictors.profile import LOADS, Profile
from tests.cli.run_command import refused, run
from tests.tilecast.test_setup import write_profile
from tilecast.scenario import load_scenario
from tilecast.setup import prepare
from tilecast.simulation import run_simulation
from traces.trace import Trace

SCENARIO = """
model = "tiny-image"
[trace]
path = "trace.parquet"
[cluster]
replicas = 2
[predictor]
profile = "profile.parquet"
[policies]
scheduling = "least-slack"
weights = "lru"
[slo]
scale = 6.0
[weights]
memory_gb = 10.0
weights_gb = 4.0
checkpoints_gb = ["anime:7.5"]
host_gb = 12.0
disk_gb_per_s = 40.0
host_gb_per_s = 100.0
adapter_s = 0.05
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tmp_path = tmp_path_factory.mktemp("made")
    write_profile(tmp_path / "profile.parquet")
    (tmp_path / "scenario.toml").write_text(SCENARIO)
    trace = ("--rate", 6, "--duration", 20, "--sizes", "64x64:1,128x128:1", "--steps", 6, "--model", "tiny-image")
    run("trace", "generate", *trace, "-o", tmp_path / "plain.parquet")
    plain = Trace.load(tmp_path / "plain.parquet")
    rng, frame = np.random.default_rng(0), plain.frame.copy()
    frame["checkpoint"] = rng.choice(["base", "photo", "anime", "ink"], len(frame), p=[0.5, 0.25, 0.15, 0.1])
    frame["adapters"] = rng.choice(["", "", "ink+gold:0.7"], len(frame))
    Trace(frame, plain.source).save(tmp_path / "trace.parquet")
    return tmp_path


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path, dirs_exist_ok=True))


def simulate(folder: Path, name: str, *more: object) -> Path:
    run("simulate", folder / "scenario.toml", "-o", folder / name, *more)
    return folder / name


def test_checkpoints_are_loaded_and_adapters_put_on(folder: Path) -> None:
    log = read_run(simulate(folder, "run"))
    requests, steps = log.requests, log.steps
    assert (requests["status"] == "finished").all()
    assert set(steps.loc[steps["stage"] == "load", "checkpoint"]) == {"base", "photo", "anime", "ink"}
    assert steps.loc[steps["stage"] == "adapt", "steps"].sum() == 2 * (requests["adapters"] != "").sum() > 0
    alone = requests.groupby(["height", "adapters"])["standalone_s"].first()
    assert alone[64, "ink+gold:0.7"] - alone[64, ""] == pytest.approx(2 * 0.05)
    assert not log.info["warnings"]


def test_the_same_seed_gives_the_same_bytes_and_step_by_step_the_same_ends(folder: Path) -> None:
    first, second = simulate(folder, "a"), simulate(folder, "b")
    for name in ("requests.parquet", "steps.parquet", "run.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    quanta = read_run(simulate(folder, "quanta", "--set", "predictor.online=false")).requests
    steps = read_run(simulate(folder, "steps", "--per-step")).requests
    assert quanta["finish_s"].tolist() == steps["finish_s"].tolist()


def test_without_the_section_the_checkpoints_are_one_and_a_warning_says_so(folder: Path) -> None:
    scenario = folder / "plain.toml"
    scenario.write_text(SCENARIO.split("[weights]")[0])
    run("simulate", scenario, "-o", folder / "plain")
    log = read_run(folder / "plain")
    assert set(log.steps["stage"]) == {"encode", "denoise", "decode"}
    assert log.info["warnings"] == [
        "adapters are taken to cost nothing, neither to put on nor in a step; weights.adapter_s says otherwise",
        "the 4 checkpoints of the trace are taken for one; [weights] tells them apart",
        "policies.weights has no effect: no [weights] are loaded",
    ]


@pytest.mark.parametrize("more", [(), ("--set", "policies.routing=hash"), ("--set", 'policies.weights="lfu"')])
def test_failures_and_other_policies(folder: Path, more: tuple[str, ...]) -> None:
    log = read_run(simulate(folder, "run", "--set", "faults.outages=['5:0:3']", *more))
    assert (log.requests["status"] == "finished").all()
    loads = log.steps[log.steps["stage"] == "load"]
    assert ((loads["replica"] == 1) | (loads["start_s"] < 5) | (loads["start_s"] >= 8)).all()


def test_what_lies_there_from_the_beginning(folder: Path) -> None:
    log = read_run(simulate(folder, "run", "--set", 'weights.preload=["base", "photo"]'))
    loads = log.steps[log.steps["stage"] == "load"]
    assert set(loads["checkpoint"]) >= {"anime", "ink"}
    others = log.requests[log.requests["checkpoint"].isin(["anime", "ink"])]
    assert loads["start_s"].min() == pytest.approx(others["arrival_s"].min())
    given = {"weights.preload": "most-used"}
    prepared = prepare(load_scenario(folder / "scenario.toml", given))
    assert prepared.loaded == [["base", "ink"], ["photo", "base"]]
    run_simulation(prepared)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("policies.routing=afinity", "unknown routing policy 'afinity'; did you mean 'affinity'?"),
        ("policies.weights.size=3", "weights policy 'lru' has no parameter 'size'; it takes: none"),
        (
            "weights.weights_gb=12",
            "weights.weights_gb is 12.0 GB, expected more than 0 and at most memory_gb, 10.0",
        ),
        ('weights.checkpoints_gb=["anime"]', "'anime', expected checkpoint:GB, like M0001:2.1"),
        ('weights.preload=["base", "anime"]', "weights.preload: base, anime do not fit in 10.0 GB"),
        (
            "residency.keep=lru",
            "unknown key 'residency'; did you mean 'weights'? residency.dispatch is policies.routing",
        ),
        ("weights.host=3", "unknown key 'weights.host'; did you mean 'host_gb' or 'host_gb_per_s'?"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(folder: Path, setting: str, message: str) -> None:
    assert message in refused("simulate", folder / "scenario.toml", "-o", folder / "run", "--set", setting)
    assert not (folder / "run").exists()


def test_loads_are_predicted_as_the_profile_measured_where_the_scenario_does_not_say(folder: Path) -> None:
    unsaid = [line for line in SCENARIO.splitlines() if "_per_s" not in line]
    (folder / "scenario.toml").write_text("\n".join(unsaid))
    log = read_run(simulate(folder, "assumed"))
    assert log.info["warnings"] == [
        "loads are predicted at 2 GB/s from disk and 20 GB/s from host memory: neither [weights] nor the profile says"
    ]
    profile = Profile.load(folder / "profile.parquet")
    loads = LoadRates(LoadRate(8.0, 0.25), LoadRate(50.0, 0.125)).text
    Profile(profile.frame, {**profile.metadata, LOADS: loads}).save(folder / "profile.parquet")
    log = read_run(simulate(folder, "measured", "--set", "weights.host_gb_per_s=100"))
    assert log.info["warnings"] == ["loads are predicted at 8 GB/s from disk: as the profile measured"]
    assert log.info["weights"]["host_load_s"] == 0.0
    loads_s = log.steps.loc[log.steps["stage"] == "load"].eval("end_s - start_s").round(6)
    assert set(loads_s) <= {0.75, 1.1875, 0.04, 0.075}
    assert {0.75, 1.1875} <= set(loads_s)


def test_a_plan_draws_from_the_trace_because_a_fitted_workload_names_no_checkpoints(folder: Path) -> None:
    fitted = ("--set", "plan.demand=fitted", "--attainment", 0.9)
    assert "it must be 'bootstrap'" in refused("plan", folder / "scenario.toml", "-o", folder / "plan", *fitted)


def test_checkpoints_that_the_trace_never_asks_for_are_noted(folder: Path) -> None:
    run("simulate", folder / "scenario.toml", "--set", 'weights.checkpoints_gb=["NOPE:3"]', "-o", folder / "noted")
    assert any("never asks for NOPE" in note for note in read_run(folder / "noted").info["warnings"])
