"""Clusters of several pools and models for real: what each replica holds, its log, and every decision again."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import backend.machine as machine  # noqa: E402
import tilecast as tc  # noqa: E402
from backend.executor import Executor  # noqa: E402
from backend.loading import load_pipeline  # noqa: E402
from backend.pictures import PictureFolder  # noqa: E402
from policies.runlog import read_run  # noqa: E402
from tests.tilecast.test_setup import write_profile  # noqa: E402
from tilecast.recorded import parity_of, what_differs  # noqa: E402
from tilecast.replaying import check_replayable  # noqa: E402
from tilecast.setup import prepare  # noqa: E402
from traces.errors import BadInput  # noqa: E402
from traces.request import Request  # noqa: E402
from traces.trace import Trace  # noqa: E402

MODELS = ("tiny-image", "tiny-video")
PROFILES = {"tiny-image": "image.parquet", "tiny-video": "video.parquet"}
POOLS: tuple[dict[str, Any], ...] = (
    {"name": "pictures", "models": ["tiny-image"], "profile": "image.parquet"},
    {"name": "both", "models": list(MODELS), "profile": PROFILES},
)


def asked(*models: str) -> Trace:
    return Trace.from_requests(
        [
            Request(
                f"r{at}", 0.0, 64, 64, 2, prompt="a red circle", seed=at, model=f"tiny-{model}",
                frames=5 if model == "video" else 1,
            )
            for at, model in enumerate(models)
        ]
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pools")
    write_profile(folder / "image.parquet")
    write_profile(folder / "video.parquet", "tiny-video", frames=5)
    return folder


def scenario(folder: Path, trace: Trace, pools: tuple[dict[str, Any], ...] = POOLS, **more: Any) -> tc.Scenario:
    given: dict[str, Any] = {"cluster": {"threads": 1, "launcher": "thread"}, **more}
    predictor = {"latency_model": "linear"}
    return tc.Scenario(model="tiny-image", trace=trace, pool=list(pools), predictor=predictor, base=folder, **given)


def reproduced(run: Path) -> int:
    """Decisions of a replay that its folder alone reproduces: all."""
    parity = parity_of(run)
    assert parity is not None
    assert parity.difference is None
    return parity.decisions


def test_each_replica_draws_as_its_pool_says_and_its_log_alone_reproduces_every_decision(
    folder: Path, tmp_path: Path
) -> None:
    trace = asked("image", "video", "image", "video", "image")
    ready = scenario(folder, trace, POOLS)
    run = tc.replay(ready, tmp_path / "real", save_images=True)
    assert run.requests["status"].tolist() == ["finished"] * 5, run.requests["reason"].tolist()
    ran = run.requests.groupby("model")["replica"].agg(set)
    assert ran["tiny-video"] == {1}
    assert 0 in ran["tiny-image"]
    alone = PictureFolder(tmp_path / "alone", trace.requests())
    torch.set_num_threads(1)
    for model in MODELS:
        executor = Executor(load_pipeline(model))
        for request in [request for request in prepare(ready).requests if request.model == model]:
            for stage, steps in executor.recipe(request):
                assert not executor.execute(stage, [request], steps, deliver=alone.save).failed
    drawn = sorted((tmp_path / "alone").iterdir())
    assert [file.name for file in drawn] == sorted([file.name for file in (tmp_path / "real" / "images").iterdir()])
    for file in drawn:
        assert file.read_bytes() == (tmp_path / "real" / "images" / file.name).read_bytes(), file.name
    (tmp_path / "elsewhere").mkdir()
    shutil.move(tmp_path / "real", tmp_path / "elsewhere" / "run")
    assert reproduced(tmp_path / "elsewhere" / "run") >= 15
    _cut_off(tmp_path / "elsewhere" / "run")
    again = tc.replay(ready, tmp_path / "elsewhere" / "run", resume=True)
    assert again.requests["status"].tolist() == ["finished"] * 5
    assert len(again.info["resumed"]) == 1
    assert all(again.info[key] == run.info[key] for key in ("profiles", "copies"))
    assert reproduced(tmp_path / "elsewhere" / "run") >= 15
    other = [dict(pool) for pool in POOLS]
    write_profile(tmp_path / "other.parquet", "tiny-video")
    other[1]["profile"] = {**PROFILES, "tiny-video": str(tmp_path / "other.parquet")}
    changed = what_differs(prepare(scenario(folder, trace, tuple(other))), tmp_path / "elsewhere" / "run")
    assert changed == "the profile of tiny-video on pool both holds other measurements than that of the log"
    other[1] |= {"profile": PROFILES, "dtype": "bfloat16"}
    changed = what_differs(prepare(scenario(folder, trace, tuple(other))), tmp_path / "elsewhere" / "run")
    assert changed == "pool.both.dtype is bfloat16, in the log it is None"


def _cut_off(run: Path) -> None:
    """Leave of a log what it was when the third request had finished."""
    lines = (run / "events.jsonl").read_text().splitlines()
    info = json.loads((run / "run.json").read_text())
    ended = sorted(read_run(run).requests["finish_s"])[2]
    left = [line for line in lines if json.loads(line)["now"] <= ended]
    assert len(left) < len(lines)
    (run / "events.jsonl").write_text("".join([f"{line}\n" for line in left]))
    (run / "run.json").write_text(json.dumps({**info, "interrupted": True, "unfinished": True}))


def test_checkpoints_of_several_models_come_and_go_as_their_own(folder: Path, tmp_path: Path) -> None:
    pools = ({**POOLS[1], "name": "one"},)
    weights = {"memory_gb": 0.03, "weights_gb": 0.02, "visit": 0.0, "preload": ["tiny-video"], "soft_slo_scale": 1e5}
    cluster = {"threads": 1, "launcher": "process"}
    ready = scenario(folder, asked("image", "video", "image"), pools, weights=weights, cluster=cluster)
    run = tc.replay(ready, tmp_path / "real")
    assert run.requests["status"].tolist() == ["finished"] * 3, run.requests["reason"].tolist()
    loads = run.steps[run.steps["stage"] == "load"]["checkpoint"].tolist()
    simulated = tc.simulate(ready).steps
    assert loads == simulated[simulated["stage"] == "load"]["checkpoint"].tolist() == ["tiny-image"]
    assert run.info["loaded"] == [["tiny-video"]]
    assert reproduced(tmp_path / "real") >= 8


def test_pools_fail_and_come_and_go_for_real_and_an_interrupted_log_of_it_goes_on(folder: Path, tmp_path: Path) -> None:
    """The pool of pictures has a replica while there is work; that of clips has one always, which is killed at once."""
    rows = [(0.0, "image"), (0.0, "video"), (0.0, "image"), (1.0, "video"), (1.0, "image")]
    trace = Trace.from_requests([replace(asked(model).requests()[0], request_id=f"r{at}", arrival_s=at_s)
                                 for at, (at_s, model) in enumerate(rows)])  # fmt: skip
    pools = ({**POOLS[0], "least": 0}, {**POOLS[1], "models": ["tiny-video"], "profile": "video.parquet", "least": 1})
    ready = scenario(
        folder,
        trace,
        pools,
        cluster={"threads": 1, "launcher": "process"},
        policies={"scaling": {"name": "queue", "keep_alive_s": 0.2}},
        scaling={"least": 0},
        faults={"outages": ["0:1:0.1"]},
    )
    run = tc.replay(ready, tmp_path / "real")
    assert run.requests["status"].tolist() == ["finished"] * 5, run.requests["reason"].tolist()
    assert [replica for replica, _, up_s in run.info["outages"] if up_s is not None] == [1]
    assert run.info["initial"] == [1]
    lives = [life for life in run.info["lifetimes"] if life[0] == 0]
    assert lives  # it was ordered, and perhaps again
    assert all(0.0 <= ordered < ready_s for _, ordered, ready_s, _ in lives)
    assert set(run.requests["replica"][run.requests["model"] == "tiny-video"]) == {1}
    assert reproduced(tmp_path / "real") >= 15
    _cut_off(tmp_path / "real")
    again = tc.replay(ready, tmp_path / "real", resume=True)
    assert again.requests["status"].tolist() == ["finished"] * 5, again.requests["reason"].tolist()
    assert len(again.info["resumed"]) == 1
    assert [life for life in again.info["lifetimes"] if life[0] == 0]
    assert reproduced(tmp_path / "real") >= 15


def test_models_are_as_large_as_their_own_files_say_in_one_dtype(folder: Path) -> None:
    weights = {"memory_gb": 1.0, "folder": "."}
    ready = prepare(scenario(folder, asked("image", "video"), POOLS, weights=weights))
    assert ready.weights is not None
    assert ready.weights.weights.of == pytest.approx({"tiny-image": 0.016025, "tiny-video": 0.008322}, rel=1e-3)
    pools = (POOLS[0], {**POOLS[1], "dtype": "bfloat16"})
    with pytest.raises(BadInput, match="pools load weights as float32 and as bfloat16, which are of other sizes"):
        prepare(scenario(folder, asked("image", "video"), pools, weights=weights))


@pytest.mark.parametrize(
    ("changed", "more", "said"),
    [
        ({"models": ["flux"], "hardware": "l40s"}, {}, "pool 'both': model 'flux' is known by its shape alone"),
        (
            {"devices": 2},
            {"weights": {"memory_gb": 1.0, "weights_gb": 0.1}},
            "pool 'both': the ranks of a replica do not load weights together",
        ),
        ({"models": ["own/tiny-image"]}, {}, "pool 'both': models tiny-image and .* are both called 'tiny-image'"),
        ({}, {"predictor": {"oracle": True}}, "predictor.oracle is true"),
    ],
)
def test_what_cannot_be_replayed_is_said_in_one_line(
    folder: Path, changed: dict[str, Any], more: dict[str, Any], said: str
) -> None:
    (folder / "own" / "tiny-image").mkdir(parents=True, exist_ok=True)
    (folder / "own" / "tiny-image" / "model_index.json").write_text("{}")
    pool = {**POOLS[1], "profile": None, **changed}
    given = tc.Scenario(model="tiny-image", pool=[POOLS[0], pool], base=folder, **more)
    with pytest.raises(BadInput, match=said) as found:
        check_replayable(given)
    assert "\n" not in str(found.value)


def test_devices_and_cores_are_given_out_over_the_replicas_of_all_pools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: {3, 4, 5, 6}, raising=False)
    asked = ["cuda", "cpu", "cuda:1", "cuda", "cuda:1", "cpu"]
    devices = ["cuda:0", "cpu", "cuda:1", "cuda:2", "cuda:1", "cpu"]
    assert machine.devices_of(asked, [1] * 6) == devices
    assert machine.cores_of(devices, 2) == [[], [3, 4], [], [], [], [5, 6]]
    assert machine.cores_of(devices, 3) == [[]] * 6
    with pytest.raises(BadInput, match="4 replicas are to have a CUDA device each, but this machine has 4, of which 1"):
        machine.devices_of(["cuda"] * 4 + ["cuda:1"], [1] * 5)
    with pytest.raises(BadInput, match="several replicas or several devices a replica, not both"):
        machine.devices_of(["cuda", "cuda"], [1, 2])
