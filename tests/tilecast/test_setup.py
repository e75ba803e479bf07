"""simulate, replay, validate and report, end to end."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from cli.app import app
from policies.runlog import read_run
from policies.scheduling import SCHEDULERS
from predictors.profile import Profile
from tests.cli.run_command import either, refused, run
from tilecast.scenario import load_scenario, parse_setting
from traces.composition import composition_of, format_composition
from traces.errors import BadInput

SCENARIO = """
model = "tiny-image"
seed = 3
[trace]
path = "trace.parquet"
[predictor]
profile = "profile.parquet"
[slo]
scale = 4.0
"""


def write_profile(path: Path, model: str = "tiny-image", frames: int = 1) -> None:
    """A plausible profile: affine in pixels and images, with noise."""
    rng = np.random.default_rng(0)
    rows = []
    for side in (64, 96, 128, 192):
        for images in (1, 2, 4, 8):
            for stage, steps, weight in (("encode", 1, 0.1), ("denoise", 4, 1.0), ("decode", 1, 0.5)):
                for repeat in range(4):
                    step_s = 0.004 + weight * images * (0.001 + side * side * frames * 1e-6)
                    composition = format_composition(composition_of([((side, side, frames), images)]))
                    seconds = step_s * steps * rng.uniform(0.97, 1.03)
                    rows.append((stage, composition, steps, repeat, seconds))
    frame = pd.DataFrame(rows, columns=["stage", "composition", "steps", "repeat", "seconds"])
    frame = frame.assign(hardware="a test", software="none", model=model, executor="whole", guided=True)
    Profile(frame).save(path)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    write_profile(folder / "profile.parquet")
    (folder / "scenario.toml").write_text(SCENARIO)
    trace = ("--rate", 4, "--duration", 20, "--sizes", "64x64:1,128x128:1", "--steps", 6, "--model", "tiny-image")
    run("trace", "generate", *trace, "-o", folder / "trace.parquet")
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path, dirs_exist_ok=True))


@pytest.mark.parametrize("name", SCHEDULERS)
def test_simulate_accounts_for_every_request(folder: Path, name: str) -> None:
    run("simulate", folder / "scenario.toml", "--scheduler", name, "-o", folder / "run")
    log = read_run(folder / "run")
    trace = pd.read_parquet(folder / "trace.parquet")
    assert log.requests["request_id"].tolist() == trace["request_id"].astype(str).tolist()
    finished = log.requests["status"] == "finished"
    assert (finished | ((log.requests["status"] == "dropped") & (log.requests["reason"] != ""))).all()
    assert finished.mean() > 0.9
    assert (log.requests["finish_s"] > log.requests["arrival_s"])[finished].all()
    assert not log.steps["extrapolated"].any()
    assert log.info["scheduler"] == name
    assert log.info["kind"] == "simulation"


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(folder: Path) -> None:
    scenario = folder / "scenario.toml"
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        run("simulate", scenario, "--seed", seed, "-o", folder / name)
    files = ("requests.parquet", "steps.parquet", "run.json")
    first, same, other = ([(folder / name / file).read_bytes() for file in files] for name in "abc")
    assert first == same
    assert first[0] != other[0]


def test_per_step_mode_gives_identical_completions(folder: Path) -> None:
    scenario = folder / "scenario.toml"
    run("simulate", scenario, "--scheduler", "edf", "-o", folder / "quantum")
    run("simulate", scenario, "--scheduler", "edf", "--per-step", "-o", folder / "step")
    quantum, step = read_run(folder / "quantum"), read_run(folder / "step")
    pd.testing.assert_frame_equal(quantum.requests, step.requests)
    assert len(quantum.steps) < len(step.steps)


def test_a_wrong_prediction_changes_what_the_policy_believes_and_not_the_world(folder: Path) -> None:
    scenario = folder / "scenario.toml"
    run("simulate", scenario, "-o", folder / "right")
    run("simulate", scenario, "--set", "predictor.error=0.5", "-o", folder / "wrong")
    right, wrong = read_run(folder / "right"), read_run(folder / "wrong")
    pd.testing.assert_frame_equal(right.requests, wrong.requests)  # FCFS asks no predictor
    np.testing.assert_allclose(wrong.steps["predicted_s"], 1.5 * right.steps["predicted_s"])


def test_a_policy_of_ones_own_runs_from_its_file(folder: Path) -> None:
    policy = Path(__file__).parents[2] / "examples" / "my_policy.py"
    run("simulate", folder / "scenario.toml", "--scheduler", f"{policy}:NewestFirst", "-o", folder / "run")
    assert read_run(folder / "run").info["scheduler"].endswith("my_policy.py:NewestFirst")


def test_extrapolation_is_marked_and_limited(folder: Path) -> None:
    scenario = folder / "scenario.toml"
    for size, name in (("256x256:1,128x128:1", "some.parquet"), ("1024x1024:1", "far.parquet")):
        trace = ("--rate", 2, "--duration", 10, "--sizes", size, "--steps", 6)
        run("trace", "generate", *trace, "-o", folder / name)
    run("simulate", scenario, "--trace", folder / "some.parquet", "-o", folder / "run")
    requests = read_run(folder / "run").requests
    assert (requests["extrapolated"] == (requests["height"] == 256)).all()
    message = refused("simulate", scenario, "--trace", folder / "far.parquet", "-o", folder / "none")
    assert "1024x1024" in message
    assert "28" in message  # times the largest measured
    assert not (folder / "none").exists()


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (("seed = 3", "sead = 3"), "unknown key 'sead'; did you mean 'seed'"),
        (("[slo]\nscale", "[slo]\nscael"), "unknown key 'slo.scael'; did you mean 'scale'"),
        (("scale = 4.0", "scale = -1"), "slo.scale is -1"),
        (("seed = 3", "seed = ["), "is not TOML"),
        (('model = "tiny-image"', ""), "key 'model' is missing"),
        (("[slo]", "[plan]\nhardware = ['l4']\n[slo]"), "plan.hardware.0 is 'l4', expected a table with name"),
        (('model = "tiny-image"', 'model = "sdxl"'), "the profile measured tiny-image, not 'sdxl'"),
        (("trace.parquet", "nothing.parquet"), "nothing.parquet"),
        (("profile.parquet", "nothing.parquet"), "nothing.parquet"),
        (("[slo]", "[policies]\nscheduling = 'edff'\n[slo]"), "did you mean 'edf'"),
        (("[slo]", "[policies.scheduling]\nname = 'edf'\nmax_bach = 2\n[slo]"), "no parameter 'max_bach'"),
        (("[slo]", "[cluster]\nreplicas = 0\n[slo]"), "cluster.replicas is 0"),
        (("[slo]", "[cluster]\nreplicas = '2'\n[slo]"), "cluster.replicas is '2': expected a whole number of 1"),
        (("[slo]", "[cluster]\nreplicas = true\n[slo]"), "cluster.replicas is True: expected a whole number of 1"),
        (("[slo]", "[world]\nnoise = 'yes'\n[slo]"), "world.noise is 'yes': input should be a valid boolean"),
        (("[slo]", "[world]\nnoise = 1\n[slo]"), "world.noise is 1: input should be a valid boolean"),
        (("seed = 3", "seed = 3\nseed = 4"), "is not TOML"),
    ],
)
def test_what_is_wrong_with_a_scenario_is_said_in_one_line(folder: Path, edit: tuple[str, str], complaint: str) -> None:
    (folder / "bad.toml").write_text(SCENARIO.replace(*edit))
    assert complaint in refused("simulate", folder / "bad.toml", "-o", folder / "none")
    assert not (folder / "none").exists()


def test_bad_requests_of_a_trace_are_named(folder: Path) -> None:
    pd.DataFrame({"arrival_s": [0, 1], "height": [64, 70], "width": 64, "steps": 4}).to_csv(folder / "t.csv")
    scenario = folder / "scenario.toml"
    message = refused("simulate", scenario, "--trace", folder / "t.csv", "-o", folder / "none")
    assert "t.csv" in message
    assert "height 70 is not a multiple of 32" in message


def test_a_folder_that_is_no_run_is_never_replaced(folder: Path) -> None:
    (folder / "precious").mkdir()
    (folder / "precious" / "notes.txt").write_text("mine")
    assert "is no simulation but holds other things" in refused(
        "simulate", folder / "scenario.toml", "-o", folder / "precious"
    )
    assert (folder / "precious" / "notes.txt").read_text() == "mine"


def test_a_policy_that_stalls_is_bad_input(folder: Path) -> None:
    (folder / "lazy.py").write_text(
        "from policies.contract import SchedulingPolicy\n"
        "class Lazy(SchedulingPolicy):\n    def plan(self, replica, now): return None\n"
    )
    message = refused("simulate", folder / "scenario.toml", "--scheduler", f"{folder}/lazy.py:Lazy", "-o", folder / "x")
    assert "Lazy stalls" in message


def test_a_full_disk_is_said_and_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    message = refused("simulate", folder / "scenario.toml", "-o", folder / "none")
    assert "No space left on device" in message
    assert not [path for path in folder.iterdir() if "none" in path.name]


def test_settings_are_toml_values() -> None:
    assert parse_setting("cluster.replicas=4") == ("cluster.replicas", 4)
    assert parse_setting("policies.scheduling.name=edf") == ("policies.scheduling.name", "edf")
    with pytest.raises(BadInput, match="expected key=value"):
        parse_setting("replicas")


def test_settings_lie_over_the_file(folder: Path) -> None:
    given = {"policies.scheduling.name": "edf", "policies.scheduling.max_batch": 2}
    scenario = load_scenario(folder / "scenario.toml", given)
    assert scenario.policies.scheduling.parameters == {"max_batch": 2}


def test_help_is_quick_to_import() -> None:
    """Planning needs neither torch nor scikit-learn to start."""
    code = (
        "import sys; from typer.testing import CliRunner; from cli.app import app;"
        "assert CliRunner().invoke(app, ['simulate', '--help']).exit_code == 0;"
        "heavy = {'torch', 'diffusers', 'sklearn', 'pandas', 'plotly'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_replay_validate_and_report(folder: Path, model_folder: Path) -> None:
    """The real thing, small: a pipeline with random weights on this CPU."""
    pytest.importorskip("torch")
    name = str(model_folder)
    sizes = ("--sizes", "16x16,32x32", "--max-batch", 2, "--repeats", 2, "--threads", 1)
    run("profile", "--model", name, *sizes, "-o", folder / "p.parquet")
    trace = ("--rate", 8, "--duration", 2, "--sizes", "16x16:1,32x32:1", "--steps", 3, "--model", name)
    run("trace", "generate", *trace, "-o", folder / "t.parquet")
    more = '[cluster]\nthreads = 1\n[slo]\nscale = 5\n[predictor]\nlatency_model = "linear"\n'
    (folder / "s.toml").write_text(f'model = "{name}"\n{more}')
    given = (
        folder / "s.toml",
        "--trace",
        folder / "t.parquet",
        "--profile",
        folder / "p.parquet",
        "--scheduler",
        "edf",
    )
    run("simulate", *given, "-o", folder / "sim")
    run("replay", *given, "--save-images", "--speedup", 2, "-o", folder / "real")
    real = read_run(folder / "real")
    assert (real.requests["status"] == "finished").all()
    assert len(list((folder / "real" / "images").glob("*.png"))) == len(real.requests)
    printed = either("validate", folder / "sim", folder / "real", "-o", folder / "v.json")
    assert "parity" in printed
    assert "same" in printed
    run("report", folder / "sim", folder / "real", "-o", folder / "r.html")
    assert (folder / "r.html").stat().st_size > 10_000


def test_app_names_the_commands() -> None:
    names = {command.callback.__name__ for command in app.registered_commands if command.callback}
    of_a_run = {"simulate", "plan", "sweep", "replay", "validate", "report", "compare", "quality", "why"}
    assert names == of_a_run | {"ask", "check", "examples"}


@pytest.mark.parametrize(
    "setting", ["slo.scale=" + "[" * 5000, "slo.scale=" + "9" * 5000, "slo.scale={" + "a." * 300 + "b=1}"]
)
def test_a_setting_that_toml_cannot_take_is_named(setting: str) -> None:
    with pytest.raises(BadInput, match=r"--set slo\.scale"):
        parse_setting(setting)
