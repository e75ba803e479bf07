"""Scenarios whose large requests are tiled: simulated and replayed, alone and among ordinary ones."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from policies.runlog import read_run
from policies.scheduling import SCHEDULERS
from predictors.profile import Profile
from tests.cli.run_command import either, refused, run
from tilecast.recorded import parity_of
from tilecast.scenario import load_scenario
from tilecast.setup import prepare
from traces.composition import composition_of, format_composition
from traces.request import Request
from traces.trace import Trace

SCENARIO = """
model = "tiny-image"
[trace]
path = "trace.parquet"
[tiling]
refine = 0.5
[cluster]
threads = 1
[predictor]
profile = "profile.parquet"
[policies]
scheduling = "least-slack"
[slo]
scale = 6.0
"""

UNHURRIED = ("--set", "slo.scale=1e4")
"""No request of a replay is late, however slow the machine."""


def write_profile(path: Path, measured: tuple[str, ...] = ("encode", "denoise", "upscale", "refine", "decode")) -> None:
    """A plausible profile: a denoising step takes 1 ms and 1 us a pixel, a refinement step 5 % more than its tiles."""
    rng = np.random.default_rng(0)
    rows = []

    def add(stage: str, side: int, images: int, step_s: float) -> None:
        steps = 4 if stage in ("denoise", "refine") else 1
        for repeat in range(3):
            composition = format_composition(composition_of([((side, side, 1), images)]))
            rows.append((stage, composition, steps, repeat, step_s * steps * rng.uniform(0.99, 1.01)))

    for side in (64, 96, 128, 192):
        for images in (1, 2, 4):
            add("encode", side, images, 0.002 * images)
            add("denoise", side, images, images * (0.001 + side * side * 1e-6))
            add("decode", side, images, images * (0.001 + side * side * 5e-7))
    add("upscale", 256, 1, 0.04)
    add("refine", 256, 1, 1.05 * 4 * (0.001 + 128 * 128 * 1e-6))
    add("decode", 256, 1, 0.001 + 256 * 256 * 5e-7)
    rows = [row for row in rows if row[0] in measured]
    frame = pd.DataFrame(rows, columns=["stage", "composition", "steps", "repeat", "seconds"])
    frame = frame.assign(hardware="a test", software="none", model="tiny-image", executor="whole", guided=True)
    Profile(frame).save(path)


def write_trace(path: Path, count: int, apart_s: float, steps: int = 6) -> None:
    """Every third request is four times as large as the model."""
    sides = (128, 64, 256)
    requests = [
        Request(f"r{i}", i * apart_s, sides[i % 3], sides[i % 3], steps, prompt="a red circle on blue", seed=i)
        for i in range(count)
    ]
    Trace.from_requests(requests).save(path)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    write_profile(folder / "profile.parquet")
    write_trace(folder / "trace.parquet", 9, 0.1)
    (folder / "scenario.toml").write_text(SCENARIO)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path, dirs_exist_ok=True))


@pytest.mark.parametrize("name", SCHEDULERS)
def test_tiled_and_ordinary_requests_share_a_cluster(folder: Path, name: str) -> None:
    run("simulate", folder / "scenario.toml", "--scheduler", name, "-o", folder / "run")
    log = read_run(folder / "run")
    assert set(log.requests["status"]) <= {"finished", "dropped"}
    assert (log.requests["status"] == "finished").sum() >= 6
    large = log.requests.loc[(log.requests["height"] == 256) & (log.requests["status"] == "finished"), "request_id"]
    assert len(large)
    for request in large:
        own = log.steps[log.steps["request_ids"].map(lambda ids, request=request: request in ids)]
        done = own.groupby("stage")["steps"].sum()
        assert done.to_dict() == {"encode": 1, "sketch": 6, "upscale": 1, "refine": 3, "decode": 1}


def test_more_devices_refine_faster_and_a_slow_link_eats_the_gain(folder: Path) -> None:
    seconds = {}
    slow = ("--set", "cluster.link_latency_s=0.05")
    for devices, more in ((1, ()), (2, ()), (4, ()), (2, slow)):
        out = folder / f"run-{devices}-{len(more)}"
        run("simulate", folder / "scenario.toml", "--scheduler", "fcfs", "--set", f"cluster.devices={devices}",
            "--set", "world.noise=false", *more, "-o", out)  # fmt: skip
        steps = read_run(out).steps
        refine = steps[steps["stage"] == "refine"]
        seconds[devices, len(more)] = ((refine["end_s"] - refine["start_s"]) / refine["steps"]).mean()
    one, two, four = seconds[1, 0], seconds[2, 0], seconds[4, 0]
    assert one == pytest.approx(1.05 * 4 * (0.001 + 128 * 128 * 1e-6), rel=0.03)
    assert two == pytest.approx(one / 2, rel=0.02)
    assert four == pytest.approx(one / 4, rel=0.02)
    assert seconds[2, 2] > one


def test_the_planned_grid_suits_the_devices(folder: Path) -> None:
    """Four native tiles on three devices take two rounds; six smaller ones take two rounds of less."""
    scenario = folder / "scenario.toml"
    grids = {}
    for tile in ("native", "planned"):
        settings = {"tiling.tile": tile, "cluster.devices": 3}
        tiling = prepare(load_scenario(scenario, settings)).tiling
        assert tiling is not None
        grid = tiling.rule.grid((256, 256, 1))
        grids[tile] = len(grid.rows) * len(grid.columns)
    assert grids["native"] == 4
    assert grids["planned"] == 6


def test_a_replay_does_what_was_simulated_and_decides_alike_again(folder: Path) -> None:
    write_trace(folder / "trace.parquet", 6, 0.0, steps=2)
    run("replay", folder / "scenario.toml", *UNHURRIED, "--save-images", "-o", folder / "real")
    log = read_run(folder / "real")
    assert set(log.requests["status"]) == {"finished"}
    assert len(list((folder / "real" / "images").glob("*.png"))) == 6
    refined = log.steps[log.steps["stage"] == "refine"]
    assert refined["computed"].sum() == 2 * 1 * 4  # two requests, a step, four tiles
    parity = parity_of(folder / "real")
    assert parity is not None
    assert parity.same, parity.difference
    run("simulate", folder / "scenario.toml", "-o", folder / "sim")
    either("validate", folder / "sim", folder / "real")


def test_a_replay_on_two_devices_makes_the_same_pictures(folder: Path) -> None:
    alone = Request("r0", 0.0, 256, 256, 6, prompt="a red circle on blue", seed=2)  # so that no batch is another one
    Trace.from_requests([alone]).save(folder / "trace.parquet")
    caching = "policies.tile_caching={name='interval',every=2,warmup=1}"
    for name, devices, together in (("on-1", 1, "false"), ("on-2", 2, "false"), ("together", 2, "true")):
        where = ("--set", f"cluster.devices={devices}", "--set", f"tiling.decode_together={together}")
        settings = (*where, "--set", caching, *UNHURRIED)
        run("replay", folder / "scenario.toml", *settings, "--save-images", "-o", folder / name)
    one, two, together = (folder / name / "images" / "000000.png" for name in ("on-1", "on-2", "together"))
    assert one.read_bytes() == two.read_bytes()
    apart = np.asarray(Image.open(one)).astype(int) - np.asarray(Image.open(together)).astype(int)
    assert np.abs(apart).max() <= 1  # both decode it, each some of its rows: sums are rounded otherwise
    log = read_run(folder / "on-2")
    refine = log.steps[log.steps["stage"] == "refine"]
    assert refine["reused"].sum() > 0
    assert log.info["devices"] == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("tiling.mode=sideways",), "tiling.mode is 'sideways'"),
        (("tiling.tile=big",), "tiling.tile is 'big', expected native, planned, or heightxwidth"),
        (("tiling.tile=8x8",), "expected sides of at least 32 px"),
        (("tiling.overlap=3",), "tiling.overlap is 3, expected a multiple of 8 px"),
        (("tiling.tiles=3",), "unknown key 'tiling.tiles'; did you mean 'tile'?"),
        (("policies.tile_caching=none-such",), "unknown caching policy 'none-such'"),
        (("policies.placement=contiguos",), "did you mean 'contiguous'?"),
        (("predictor.tile_reuse=gone.parquet", "policies.tile_caching=interval"), "gone.parquet"),
    ],
)
def test_what_is_wrong_is_named(folder: Path, settings: tuple[str, ...], message: str) -> None:
    given = [word for setting in settings for word in ("--set", setting)]
    assert message in refused("simulate", folder / "scenario.toml", *given, "-o", folder / "run")
    assert not (folder / "run").exists()


def test_tile_caches_need_tiles(folder: Path) -> None:
    plain = SCENARIO.replace("[tiling]\nrefine = 0.5\n", "").replace("[trace]", "[trace]\nlimit = 2")
    (folder / "scenario.toml").write_text(plain)
    setting = "policies.tile_caching=interval"
    assert "add a [tiling] section" in refused(
        "simulate", folder / "scenario.toml", "--set", setting, "-o", folder / "run"
    )


def test_a_profile_without_canvases_says_what_it_leaves_out(folder: Path) -> None:
    write_profile(folder / "profile.parquet", ("encode", "denoise", "decode"))
    run("simulate", folder / "scenario.toml", "-o", folder / "run")
    log = read_run(folder / "run")
    assert any("upscale" in warning for warning in log.info["warnings"])
    upscale = log.steps[log.steps["stage"] == "upscale"]
    assert (upscale["end_s"] - upscale["start_s"]).max() < 1e-6  # as good as nothing
