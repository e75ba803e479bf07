"""Four checkpoints on memory for two, for real: the loads and evictions of the simulation, decision by decision."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

pytest.importorskip("torch")
pytest.importorskip("peft")

from backend.loading import load_pipeline
from policies.livelog import recovered
from policies.runlog import read_run
from tests.backend.tiny_checkpoints import save_checkpoints
from tests.backend.tiny_lora import lora_file
from tests.cli.run_command import refused, run
from tests.examples_tried import examples
from tests.tilecast.test_setup import write_profile
from tilecast.recorded import parity_of
from tilecast.scenario import load_scenario
from tilecast.setup import prepare
from tilecast.simulation import run_simulation

SCENARIO = """
model = "tiny-image"
[trace]
path = "t.csv"
[cluster]
threads = 1
[predictor]
profile = "profile.parquet"
latency_model = "linear"
online = false
[policies]
scheduling = "fcfs"
[weights]
folder = "checkpoints"
memory_gb = 0.033
host_gb = 0.02
disk_gb_per_s = 0.2
host_gb_per_s = 2.0
soft_slo_scale = 1e5
visit = 0.0
"""
ORDER = "a a a b c d"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("replayed")
    save_checkpoints(load_pipeline("tiny-image"), folder / "checkpoints", ("a", "b", "c", "d"))
    write_profile(folder / "profile.parquet")
    (folder / "scenario.toml").write_text(SCENARIO)
    rows = {"arrival_s": 0.0, "height": 64, "width": 64, "steps": 2, "checkpoint": ORDER.split()}
    pd.DataFrame(rows).to_csv(folder / "t.csv", index=False)
    return folder


def loads_of(run: Path) -> list[tuple[str, list[str]]]:
    """The loads of a recorded run, with what each evicts, in order."""
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    launches = [launch for event in events for launch in event.get("launches", ())]
    return [(launch[2], launch[3]) for launch in launches if len(launch) == 4]


EVICTED = [("cost", "b"), ("lru", "a"), ("lfu", "b"), ("{name='pin', checkpoints=['a']}", "b")]
"""How weights are evicted, and whose leave first; a replay does the first two, or all where more is to be tried."""


@pytest.mark.parametrize(("evict", "first"), EVICTED[: examples(2)])
def test_a_replay_loads_and_evicts_as_simulated_and_every_decision_is_reproduced(
    folder: Path, tmp_path: Path, evict: str, first: str
) -> None:
    setting = ("--set", f"policies.weights={evict}")
    run("replay", folder / "scenario.toml", *setting, "-o", tmp_path / "real")
    given: dict[str, Any] = {"policies.weights": {"name": "pin", "checkpoints": ["a"]} if "pin" in evict else evict}
    simulated = run_simulation(prepare(load_scenario(folder / "scenario.toml", given)))
    expected = [(launch.load.checkpoint, list(launch.load.evict)) for launch, _, _ in simulated.launched if launch.load]
    assert loads_of(tmp_path / "real") == expected
    assert [evicted for _, evicted in expected][:3] == [[], [], [first]]
    assert len(expected) == 4
    log = read_run(tmp_path / "real")
    assert (log.requests["status"] == "finished").all()
    assert log.steps.loc[log.steps["stage"] == "load", "checkpoint"].tolist() == [name for name, _ in expected]
    assert log.info["weights"]["of"] == {name: pytest.approx(0.016025, rel=1e-3) for name in "abcd"}
    shutil.copytree(tmp_path / "real", tmp_path / "elsewhere")  # the checkpoints need not be there
    parity = parity_of(tmp_path / "elsewhere")
    assert parity is not None
    assert parity.difference is None
    assert parity.decisions > 10


def test_adapters_are_a_stage_of_a_replay_and_a_killed_log_has_loads_and_adapters(folder: Path, tmp_path: Path) -> None:
    lora_file(load_pipeline("tiny-image"), tmp_path / "style.safetensors", 0, ("to_q", "to_k"))
    rows = pd.read_csv(folder / "t.csv").tail(4).assign(adapters=["style", "", "style:0.5", "style"])
    rows.to_csv(tmp_path / "t.csv", index=False)
    given = ("--trace", tmp_path / "t.csv", "--set", f"cluster.adapters={tmp_path}", "--set", "weights.adapter_s=0.01")
    run("replay", folder / "scenario.toml", *given, "-o", tmp_path / "real", "--set", "weights.preload=['a']")
    log = read_run(tmp_path / "real")
    assert (log.requests["status"] == "finished").all(), log.requests["reason"].tolist()
    adapt = log.steps[log.steps["stage"] == "adapt"]
    assert adapt["steps"].sum() == 3
    assert (adapt["end_s"] > adapt["start_s"]).all()
    assert log.info["loaded"] == [["a"]]
    assert log.steps.loc[log.steps["stage"] == "load", "checkpoint"].tolist() == ["b", "c", "d"]
    parity = parity_of(tmp_path / "real")
    assert parity is not None
    assert parity.difference is None
    requests, steps = recovered(tmp_path / "real", log.info, log.requests)
    pd.testing.assert_frame_equal(steps, log.steps, check_dtype=False)
    assert requests["status"].tolist() == log.requests["status"].tolist()


def test_what_is_wrong_is_said_in_one_line_before_anything_runs(folder: Path, tmp_path: Path) -> None:
    rows = pd.read_csv(folder / "t.csv")
    rows.assign(checkpoint="gone").to_csv(tmp_path / "gone.csv", index=False)
    save = folder / "checkpoints" / "other"
    shutil.copytree(folder / "checkpoints" / "a", save)
    index = json.loads((save / "model_index.json").read_text())
    (save / "model_index.json").write_text(json.dumps({**index, "_class_name": "FluxPipeline"}))
    rows.assign(checkpoint="other").to_csv(tmp_path / "other.csv", index=False)
    for given, message in (
        (("--set", "weights.folder=none"), "which is no folder; expected that of a/"),
        (("--trace", tmp_path / "gone.csv"), "has no diffusers folder gone/; it has: a, b, c, d, other"),
        (
            ("--trace", tmp_path / "other.csv"),
            "of another architecture than the model: its pipeline is FluxPipeline, not",
        ),
        (("--set", "weights.memory_gb=0.016"), "checkpoint 'a' is 0.01602"),
        (("--set", "weights.weights_gb=0.1"), "weights.weights_gb is 0.1 GB, expected more than 0 and at most"),
        (("--set", "cluster.devices=2"), "beside [weights] expected cluster.devices = 1"),
    ):
        assert message in refused("replay", folder / "scenario.toml", *given, "-o", tmp_path / "run")
        assert not (tmp_path / "run").exists()
    sized = (folder / "scenario.toml").read_text().replace('folder = "checkpoints"\n', "weights_gb = 0.016\n")
    (tmp_path / "sized.toml").write_text(sized.replace('"t.csv"', f'"{folder}/t.csv"'))
    shutil.copy(folder / "profile.parquet", tmp_path)
    message = "checkpoint 'a' of the trace has no folder; set weights.folder to the folder of a/"
    assert message in refused("replay", tmp_path / "sized.toml", "-o", tmp_path / "run")
