"""A run small enough to work out by hand, and ways to vary it.

Replica 0 does a and b together (encode 1-2 s, denoise 2-8 s, decode 8-9 s), then fails e (9-12 s); replica 1
denoises c (2-18 s). d is dropped at 5 s and f cancelled at 20 s, neither ever started.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from policies.runlog import REQUEST_COLUMNS, STEP_COLUMNS, Run, read_run, write_run

NONE = np.nan
MakeRun = Callable[..., Run]

# id, arrival, height, width, deadline, standalone, status, reason, first start, finish, replica, extrapolated
REQUESTS = [
    ("a", 0, 512, 512, 10, 4, "finished", "", 1, 9, 0, False),
    ("b", 0, 512, 512, 8, 4, "finished", "", 1, 9, 0, False),
    ("c", 2, 1024, 1024, NONE, 8, "finished", "", 2, 18, 1, True),
    ("d", 3, 1024, 1024, 5, 8, "dropped", "hopeless", NONE, 5, -1, False),
    ("e", 4, 512, 768, 30, NONE, "failed", "out of memory", 9, 12, 0, False),
    ("f", 6, 512, 512, 30, 4, "cancelled", "client left", NONE, 20, -1, False),
]
# replica, stage, start, end, steps, composition, requests, predicted, computed, reused, extrapolated
STEPS = [
    (0, "encode", 1, 2, 1, "2@512x512", ["a", "b"], 1.0, 0, 0, False),
    (0, "denoise", 2, 8, 10, "2@512x512", ["a", "b"], 3.0, 15, 5, False),
    (1, "denoise", 2, 18, 20, "1@1024x1024", ["c"], 16.0, 20, 0, True),
    (0, "decode", 8, 9, 1, "2@512x512", ["a", "b"], 2.0, 0, 0, False),
    (0, "denoise", 9, 12, 0, "1@512x768", ["e"], 0.0, 5, 0, False),
]
INFO = {
    "kind": "simulation",
    "tilecast": "0.1.0",
    "seed": 7,
    "scheduler": "fcfs",
    "model": "sd3",
    "replicas": 2,
    "hardware": "2x H200",
    "scenario": {"trace": "burst.csv"},
    "predictor": {"profile": "h200-sd3", "latency_model": "linear"},
    "warnings": [],
}


def request_table() -> pd.DataFrame:
    rows = [
        (
            name,
            at,
            *size,
            1,
            20,
            1,
            "sd3",
            "",
            0,
            deadline,
            alone,
            *end[:2],
            "",
            *end[2:4],
            0,
            *end[4:],
            "",
            "",
            1,
            "" if end[4] < 0 else str(end[4]),
        )
        for (name, at, *size), (deadline, alone, *end) in [(row[:4], row[4:]) for row in REQUESTS]
    ]
    return pd.DataFrame(rows, columns=list(REQUEST_COLUMNS))


def step_table() -> pd.DataFrame:
    rows = [
        (
            at,
            replica,
            stage,
            start,
            end,
            steps,
            max(1, steps),
            len(names),
            composition,
            names,
            *rest,
            end - start,
            "",
            "0",
            0,
        )
        for at, (replica, stage, start, end, steps, composition, names, *rest) in enumerate(STEPS)
    ]
    return pd.DataFrame(rows, columns=list(STEP_COLUMNS))


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Write and read back the run; ``edit`` may change its tables, ``info`` adds to run.json."""

    def make(
        name: str = "hand",
        edit: Callable[[pd.DataFrame, pd.DataFrame], None] | None = None,
        requests: pd.DataFrame | None = None,
        steps: pd.DataFrame | None = None,
        **info: Any,
    ) -> Run:
        requests = request_table() if requests is None else requests
        steps = step_table() if steps is None else steps
        if edit is not None:
            edit(requests, steps)
        folder = tmp_path / name
        folder.mkdir(parents=True)
        write_run(folder, requests, steps, INFO | info, [])
        return read_run(folder)

    return make


@pytest.fixture
def empty_run(make_run: MakeRun) -> Run:
    return make_run("empty", requests=request_table().head(0), steps=step_table().head(0))


@pytest.fixture
def lost_run(make_run: MakeRun) -> Run:
    """Everything dropped on arrival: no launch at all."""

    def drop(requests: pd.DataFrame, _: pd.DataFrame) -> None:
        requests["status"], requests["reason"] = "dropped", "queue full"
        requests["first_start_s"], requests["replica"], requests["replicas"] = NONE, -1, ""
        requests["finish_s"] = requests["arrival_s"]

    return make_run("lost", edit=drop, steps=step_table().head(0))


@pytest.fixture
def interrupted_run(make_run: MakeRun) -> Run:
    """f had not arrived when the run was interrupted."""

    def interrupt(requests: pd.DataFrame, _: pd.DataFrame) -> None:
        requests["finish_s"] = requests["finish_s"].where(requests["request_id"] != "f")

    return make_run("interrupted", edit=interrupt, kind="replay", interrupted=True)


@pytest.fixture
def loading_run(make_run: MakeRun) -> Run:
    """Replica 1 loads weights for half a second before it serves c: a launch without requests."""
    load = (9, 1, "load", 1.0, 1.5, 1, 1, 0, "", [], 0.5, 0, 0, False, 0.5, "anime-xl", "0", 0)
    steps = pd.concat([step_table(), pd.DataFrame([load], columns=list(STEP_COLUMNS))], ignore_index=True)
    return make_run("loading", steps=steps)
