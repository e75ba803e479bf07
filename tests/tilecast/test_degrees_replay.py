"""Replicas of several devices for real: launches on one or all of them, side by side, and their log."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

torch = pytest.importorskip("torch")

from PIL import Image  # noqa: E402

import tilecast as tc  # noqa: E402
from backend.devices.decoding import ComponentTask, Decoding  # noqa: E402
from predictors.profile import Profile  # noqa: E402
from tests.tilecast.test_pools_replay import asked, reproduced  # noqa: E402
from tests.tilecast.test_setup import write_profile  # noqa: E402


def scenario(folder: Path, devices: int, scheduler: str) -> tc.Scenario:
    """Requests of which one takes many steps."""
    trace = asked("image", "image", "image").requests()
    return tc.Scenario(
        model="tiny-image",
        trace=tc.Trace.from_requests([replace(each, steps=40 if each is trace[1] else 2) for each in trace]),
        cluster={"devices": devices, "threads": 1, "launcher": "thread", "link_latency_s": 0.0},
        predictor={"latency_model": "linear"},
        profile="profile.parquet",
        scheduler=scheduler,
        base=folder,
    )


def decoded_beside(steps: pd.DataFrame) -> int:
    """How many launches were decoding while another denoised on other devices of the replica."""
    decodes, denoises = (steps[steps["stage"] == stage] for stage in ("decode", "denoise"))
    found = 0
    for decode in decodes.itertuples():
        beside = denoises[(denoises["start_s"] < decode.start_s) & (denoises["end_s"] > decode.end_s)]
        for devices in beside["devices"]:
            assert not set(devices.split()) & set(decode.devices.split())
        found += len(beside) > 0
    return found


def pictures(folder: Path) -> dict[str, np.ndarray]:
    return {file.name: np.asarray(Image.open(file)).astype(int) for file in sorted((folder / "images").iterdir())}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """The pictures that one device makes, one request after another."""
    folder = tmp_path_factory.mktemp("alone")
    write_profile(folder / "profile.parquet")
    run = tc.replay(scenario(folder, 1, "fcfs"), folder / "run", save_images=True)
    assert run.requests["status"].tolist() == ["finished"] * 3
    assert decoded_beside(run.steps) == 0
    return pictures(folder / "run")


def test_launches_run_side_by_side_on_the_devices_that_a_policy_says(
    tmp_path: Path, alone: dict[str, np.ndarray]
) -> None:
    write_profile(tmp_path / "profile.parquet")
    two = tc.replay(scenario(tmp_path, 2, "load-adaptive"), tmp_path / "2", save_images=True)
    assert two.requests["status"].tolist() == ["finished"] * 3
    found = pictures(tmp_path / "2")
    assert len(found) == 3
    assert all(np.abs(found[name] - alone[name]).max() <= 1 for name in alone)
    assert decoded_beside(two.steps) >= 1
    assert decoded_beside(tc.simulate(scenario(tmp_path, 2, "load-adaptive")).steps) >= 1
    lines = [json.loads(line) for line in (tmp_path / "2" / "events.jsonl").read_text().splitlines()]
    launches = [launch for line in lines for launch in line.get("launches", ())]
    devices = {tuple(launch[5]) if len(launch) > 5 else (0,) for launch in launches}
    assert {(0,), (1,)} <= devices
    assert reproduced(tmp_path / "2") >= len(launches)


def test_a_launch_decodes_on_the_devices_that_its_costs_say(
    tmp_path: Path, alone: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As simulated; and the pictures are those of one device. The profile says that two take half as long."""
    write_profile(tmp_path / "profile.parquet")
    measured = Profile.load(tmp_path / "profile.parquet")
    bands = measured.frame[measured.frame["stage"] == "decode"].assign(devices=2, parallel="bands")
    bands["seconds"] /= 2
    frame = pd.concat([measured.frame, bands], ignore_index=True)
    Profile(frame, measured.metadata).save(tmp_path / "profile.parquet")
    divided: list[tuple[int, ...]] = []
    run = Decoding.run

    def told(decoding: Decoding, module: Any, task: ComponentTask) -> Any:
        divided.append(task.ranks)
        return run(decoding, module, task)

    monkeypatch.setattr(Decoding, "run", told)  # of the replica's own process, which is this one
    two = tc.replay(scenario(tmp_path, 2, "fcfs"), tmp_path / "2", save_images=True)
    assert two.requests["status"].tolist() == ["finished"] * 3
    found = pictures(tmp_path / "2")
    assert all(np.abs(found[name] - alone[name]).max() <= 1 for name in alone)
    decoded = two.steps[two.steps["stage"] == "decode"]
    assert len([ranks for ranks in divided if ranks == (0, 1)]) >= len(decoded) > 0
    simulated = tc.simulate(scenario(tmp_path, 2, "fcfs")).steps
    rows = simulated[simulated["stage"] == "decode"]
    busy = rows["device_s"] / (rows["end_s"] - rows["start_s"])
    assert busy.tolist() == pytest.approx([2.0] * len(rows))
    assert not [note for note in two.notes if "one device" in str(note)]
    assert reproduced(tmp_path / "2")
