"""A replica that comes and goes, for real: the log of it, and every decision again."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

pytest.importorskip("torch")

from policies.livelog import recovered
from policies.runlog import read_run
from tests.cli.run_command import run
from tests.tilecast.test_setup import write_profile
from tilecast.recorded import parity_of

SCENARIO = """
model = "tiny-image"
[trace]
path = "t.csv"
[cluster]
threads = 1
price_per_hour = 3600.0
[predictor]
profile = "profile.parquet"
latency_model = "linear"
[policies.scaling]
name = "queue"
keep_alive_s = 0.2
[scaling]
least = 0
"""


def test_a_replica_starts_for_what_comes_and_is_gone_in_between(tmp_path: Path) -> None:
    write_profile(tmp_path / "profile.parquet")
    (tmp_path / "scenario.toml").write_text(SCENARIO)
    for later_s in (3.0, 12.0, 48.0, 192.0):  # on a busy machine the first two have not yet ended when the third comes
        rows = {"arrival_s": [0.0, 0.0, later_s], "height": 64, "width": 64, "steps": 2}
        pd.DataFrame(rows).to_csv(tmp_path / "t.csv", index=False)
        real = tmp_path / f"real-{later_s:g}"
        run("replay", tmp_path / "scenario.toml", "-o", real)
        log = read_run(real)
        if len(log.info["lifetimes"]) == 2:
            break
    assert log.requests["status"].tolist() == ["finished"] * 3
    (replica, ordered, ready, gone), last = log.info["lifetimes"]
    assert (log.info["initial"], replica) == ([], 0)
    assert 0.0 <= ordered < ready < gone < later_s <= last[1] < last[2]
    assert log.info["hardware"]
    parity = parity_of(real)
    assert parity is not None
    assert parity.same, parity.difference
    assert parity.decisions > 20
    requests, steps = recovered(real, log.info, log.requests)
    pd.testing.assert_frame_equal(requests, log.requests, check_dtype=False)
    assert len(steps) == len(log.steps)
    events = [json.loads(line) for line in (real / "events.jsonl").read_text().splitlines()]
    changes = [change for event in events for _, change in event.get("resizes", ())]
    assert changes == ["start", "stop", "start"]
