"""Pools that serve some stages each, for real: pictures of one process, every decision again, and what is resumed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import tilecast as tc  # noqa: E402
from backend.executor import Executor  # noqa: E402
from backend.loading import load_pipeline  # noqa: E402
from backend.pictures import PictureFolder  # noqa: E402
from policies.runlog import read_run  # noqa: E402
from tests.tilecast.test_pools_replay import asked, reproduced, scenario  # noqa: E402
from tests.tilecast.test_setup import write_profile  # noqa: E402
from tilecast.setup import prepare  # noqa: E402
from traces.errors import BadInput  # noqa: E402
from traces.stages import ORDINARY  # noqa: E402
from traces.trace import Trace  # noqa: E402


@pytest.fixture(scope="module")
def profiles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("profiles")
    write_profile(folder / "image.parquet")
    write_profile(folder / "video.parquet", "tiny-video", frames=5)
    return folder


def pools(kind: str, *stages: tuple[str, ...]) -> tuple[dict[str, Any], ...]:
    own = {"models": [f"tiny-{kind}"], "profile": f"{kind}.parquet"}
    return tuple([{**own, "name": "-".join(each), "stages": list(each)} for each in stages])


def drawn_alone(ready: tc.Scenario, folder: Path) -> dict[str, bytes]:
    """The pictures that one process makes, one request after another."""
    torch.set_num_threads(1)
    requests = prepare(ready).requests
    alone, executor = PictureFolder(folder, requests), Executor(load_pipeline(requests[0].model))
    for request in requests:
        for stage, steps in executor.recipe(request):
            assert not executor.execute(stage, [request], steps, deliver=alone.save).failed
    return files(folder)


def files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_two_pools_draw_what_one_process_draws_and_an_interrupted_log_of_it_goes_on(
    profiles: Path,
    tmp_path: Path,
) -> None:
    ready = scenario(
        profiles,
        asked("image", "image", "image"),
        pools("image", ("encode", "denoise"), ("decode",)),
        cluster={"threads": 1, "launcher": "process"},
    )
    run = tc.replay(ready, tmp_path / "real", save_images=True)
    assert run.requests["status"].tolist() == ["finished"] * 3, run.requests["reason"].tolist()
    assert run.requests["replicas"].tolist() == ["0 1"] * 3
    assert reproduced(tmp_path / "real") >= 9
    expected, images = drawn_alone(ready, tmp_path / "alone"), tmp_path / "real" / "images"
    assert files(images) == expected
    launches, simulated = run.steps, tc.simulate(ready).steps
    assert (
        launches.groupby("stage")["requests"].sum().to_dict() == simulated.groupby("stage")["requests"].sum().to_dict()
    )
    received = launches[launches["stage"] == "receive"]
    assert set(received["replica"]) == {1}
    latents = 4 * 4 * (64 // 8) ** 2
    assert (received["moved_bytes"] >= latents * received["requests"]).all()
    assert (received["moved_bytes"] < (2 * latents + 4096) * received["requests"]).all()
    _leave_one(tmp_path / "real")
    next(images.iterdir()).unlink()
    again = tc.replay(ready, tmp_path / "real", save_images=True, resume=True)
    assert again.requests["status"].tolist() == ["finished"] * 3
    assert again.requests["attempts"].tolist().count(2) >= 1
    assert files(images) == expected
    assert reproduced(tmp_path / "real") >= 9


def _leave_one(run: Path) -> None:
    """Leave of a log what it was when the first request had finished."""
    lines = (run / "events.jsonl").read_text().splitlines()
    info = json.loads((run / "run.json").read_text())
    ended = read_run(run).requests["finish_s"].min()
    left = [line for line in lines if json.loads(line)["now"] <= ended]
    assert len(left) < len(lines)
    (run / "events.jsonl").write_text("".join([f"{line}\n" for line in left]))
    (run / "run.json").write_text(json.dumps({**info, "interrupted": True, "unfinished": True}))


def test_each_stage_of_clips_has_its_process_and_one_that_is_killed_comes_back(
    profiles: Path,
    tmp_path: Path,
) -> None:
    own = pools("video", *[(stage,) for stage in ORDINARY])
    own[-1]["devices"] = 2  # which are processes beside the replica's
    ready = scenario(
        profiles,
        asked("video", "video"),
        own,
        cluster={"threads": 1, "launcher": "process"},
        faults={"outages": ["0.3:1:0.1"]},
    )
    run = tc.replay(ready, tmp_path / "real", save_images=True)
    assert run.requests["status"].tolist() == ["finished"] * 2, run.requests["reason"].tolist()
    assert run.requests["replicas"].tolist() == ["0 1 2"] * 2
    assert files(tmp_path / "real" / "images") == drawn_alone(ready, tmp_path / "alone")
    made = run.steps.groupby("stage")["requests"].sum()
    assert made["encode"] == made["decode"] == 2
    assert reproduced(tmp_path / "real") >= 6


def test_what_stays_on_one_pool_is_refused(profiles: Path, tmp_path: Path) -> None:
    with_adapters = Trace.from_requests([replace(asked("image").requests()[0], adapters="style:0.8")])
    (tmp_path / "style.safetensors").write_bytes(b"")
    ready = scenario(
        profiles,
        with_adapters,
        pools("image", ("encode", "denoise"), ("decode",)),
        cluster={"threads": 1, "launcher": "thread", "adapters": str(tmp_path)},
    )
    with pytest.raises(BadInput, match="request 'r0' names adapters, which are not put on where pools serve some"):
        tc.replay(ready, tmp_path / "real")
