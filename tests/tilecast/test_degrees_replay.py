"""Replicas of several devices for real: launches on one or all of them, side by side, and their log."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from PIL import Image  # noqa: E402

import tilecast as tc  # noqa: E402
from tests.tilecast.test_pools_replay import asked, reproduced  # noqa: E402
from tests.tilecast.test_setup import write_profile  # noqa: E402


def scenario(folder: Path, devices: int) -> tc.Scenario:
    """Requests of which one begins alone, on all devices, and the others on one each."""
    return tc.Scenario(
        model="tiny-image",
        trace=asked("image", "image", "image"),
        cluster={"devices": devices, "threads": 1, "launcher": "thread"},
        predictor={"latency_model": "linear"},
        profile="profile.parquet",
        scheduler="load-adaptive" if devices > 1 else "fcfs",
        base=folder,
    )


def pictures(folder: Path) -> dict[str, np.ndarray]:
    return {file.name: np.asarray(Image.open(file)).astype(int) for file in sorted((folder / "images").iterdir())}


def test_launches_run_side_by_side_on_the_devices_that_a_policy_says(tmp_path: Path) -> None:
    write_profile(tmp_path / "profile.parquet")
    one, two = (tc.replay(scenario(tmp_path, n), tmp_path / str(n), save_images=True) for n in (1, 2))
    assert one.requests["status"].tolist() == two.requests["status"].tolist() == ["finished"] * 3
    alone, found = pictures(tmp_path / "1"), pictures(tmp_path / "2")
    assert len(found) == 3
    assert all(np.abs(found[name] - alone[name]).max() <= 1 for name in alone)
    lines = [json.loads(line) for line in (tmp_path / "2" / "events.jsonl").read_text().splitlines()]
    launches = [launch for line in lines for launch in line.get("launches", ())]
    devices = {tuple(launch[5]) if len(launch) > 5 else (0,) for launch in launches}
    assert {(0,), (1,)} <= devices
    assert reproduced(tmp_path / "2") >= len(launches)
