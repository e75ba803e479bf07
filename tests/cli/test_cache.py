"""``tilecast cache``, and scenarios with a caching policy, end to end."""

from __future__ import annotations

from pathlib import Path

import pytest

from policies.runlog import read_run
from predictors.forest import Forest
from predictors.profile import Profile
from predictors.recording import Recording
from tests.cli.run_command import refused, run
from tests.predictors.recordings import BLOCKS, made_up
from tests.tilecast.test_setup import SCENARIO, write_profile
from tilecast.caching import parse_caching_policy
from tilecast.recorded import parity_of
from traces.errors import BadInput


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scenario on patches, a recording and a forest fitted on it."""
    folder = tmp_path_factory.mktemp("cache")
    write_profile(folder / "profile.parquet")
    whole = Profile.load(folder / "profile.parquet")
    patched = whole.frame[whole.frame["stage"] == "denoise"].assign(executor="patched")
    Profile.merge([whole, Profile(patched, whole.metadata)]).save(folder / "profile.parquet")
    (folder / "scenario.toml").write_text(SCENARIO + '[cluster]\nexecutor = "patched"\n')
    trace = ("--rate", 4, "--duration", 8, "--sizes", "96x96:1,128x64:1", "--steps", 8, "--model", "tiny-image")
    run("trace", "generate", *trace, "-o", folder / "trace.parquet")
    made_up(8).save(folder / "signals.parquet")
    run("cache", "fit", folder / "signals.parquet", "-o", folder / "forest.parquet")
    return folder


def simulated(folder: Path, name: str, *settings: str) -> Path:
    options = [option for setting in settings for option in ("--set", setting)]
    run("simulate", folder / "scenario.toml", *options, "-o", folder / name)
    return folder / name


def test_fit_says_how_good_the_forest_is(folder: Path) -> None:
    printed = run("cache", "fit", folder / "signals.parquet", "-o", folder / "small.parquet", "--trees", 2)
    assert "Fitted on 6 requests, held against the other 2" in printed
    assert "accuracy" in printed
    assert Forest.load(folder / "small.parquet").roots.shape == (BLOCKS, 2)


def test_describe_says_what_policies_would_compute(folder: Path) -> None:
    printed = run("cache", "describe", folder / "signals.parquet", "--forest", folder / "forest.parquet")
    for words in ("model: made-up", "requests: 8 of 10 steps", "first-block", "96x96", "age 4", "100%"):
        assert words in printed


def test_a_cache_makes_simulated_runs_faster_and_is_in_the_log(folder: Path) -> None:
    forest = ('policies.caching={name="forest", forest="forest.parquet"}', "predictor.reuse=signals.parquet")
    without, cached = read_run(simulated(folder, "without")), read_run(simulated(folder, "cached", *forest))
    denoised = cached.steps[cached.steps["stage"] == "denoise"]
    share = denoised["computed"].sum() / (denoised["computed"] + denoised["reused"]).sum()
    assert 0.2 < share < 0.9
    assert without.steps["reused"].sum() == 0
    assert cached.steps["end_s"].max() < without.steps["end_s"].max()
    expected = cached.info["predictor"]["expected_computed"]
    assert set(expected) == {"96x96", "128x64"}
    assert all(0.2 < value < 0.9 for value in expected.values())
    assert without.info["predictor"]["expected_computed"] == {}
    assert any("measured without a cache" in warning for warning in cached.info["warnings"])
    lossy = "pictures differ from those made without it (policies.caching = forest)"
    assert cached.info["warnings"][0].startswith(lossy)
    assert not any("pictures differ" in warning for warning in without.info["warnings"])


def test_a_predictor_that_expects_the_reuse_is_right_about_whole_requests(folder: Path) -> None:
    settings = ("policies.caching.name=interval", "predictor.reuse=signals.parquet", "predictor.online=false")
    steps = read_run(simulated(folder, "interval", *settings, "world.noise=false")).steps
    denoised = steps[steps["stage"] == "denoise"]
    took = (denoised["end_s"] - denoised["start_s"]).sum()
    assert denoised["predicted_s"].sum() == pytest.approx(took, rel=0.02)


def test_quanta_and_single_steps_give_the_same_run_with_a_cache(folder: Path) -> None:
    settings = ("policies.caching.name=threshold", "predictor.reuse=signals.parquet", "predictor.online=false")
    by_quantum = read_run(simulated(folder, "quanta", *settings)).requests
    options = [option for setting in settings for option in ("--set", setting)]
    run("simulate", folder / "scenario.toml", *options, "--per-step", "-o", folder / "steps")
    by_step = read_run(folder / "steps").requests
    assert by_quantum["finish_s"].tolist() == by_step["finish_s"].tolist()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["policies.caching.name=thresold"], "did you mean 'threshold'?"),
        (["policies.caching={name='threshold', limit=3}"], "has no parameter 'limit'"),
        (["policies.caching={name='interval', every=1}"], "every is 1, expected"),
        (["policies.caching.name=threshold", "cluster.executor=whole"], "needs cluster.executor = 'patched'"),
        (["policies.caching.name=threshold", "predictor.reuse=no.parquet"], "no.parquet: no such recording"),
        (["policies.caching.name=threshold", "predictor.reuse=profile.parquet"], "not a recording of cache signals"),
        (["policies.caching={name='forest', forest='no.parquet'}"], "no.parquet: no such cache forest"),
    ],
)
def test_wrong_caches_are_refused(folder: Path, settings: list[str], words: str) -> None:
    options = [option for setting in settings for option in ("--set", setting)]
    assert words in refused("simulate", folder / "scenario.toml", *options, "-o", folder / "refused")


def test_what_ships_for_a_model_is_found_by_its_name(folder: Path) -> None:
    shipped = read_run(simulated(folder, "shipped", "policies.caching.name=forest"))
    denoised = shipped.steps[shipped.steps["stage"] == "denoise"]
    assert denoised["reused"].sum() > 0


def test_record_runs_the_model(model_folder: Path, tmp_path: Path) -> None:
    path, prompts = tmp_path / "signals.parquet", tmp_path / "prompts.txt"
    prompts.write_text("a cat\n\na dog\n")
    options = ("--sizes", "32x32,48x32", "--requests", 2, "--steps", 4, "--patch", 8, "--max-age", 2)
    run("cache", "record", "--model", model_folder, *options, "--prompts", prompts, "--threads", 1, "-o", path)
    recording = Recording.load(path)
    assert recording.requests == ["r0", "r1"]
    assert recording.steps == 4
    assert set(recording.frame["step"]) == {1, 2, 3}
    assert set(recording.frame["age"]) == {1, 2}
    assert recording.model == model_folder.name
    for name, rows in recording.frame.groupby("request_id"):
        down, across = recording.grid.of(int(rows["height"].max()), int(rows["width"].max()))
        assert rows["unit"].max() + 1 == 2 * down * across, name
    assert sum(recording.block_weights) == pytest.approx(1.0)
    assert (recording.frame.groupby("block")["output_change"].median() > 0).all()


def test_record_refuses_what_it_cannot_do(tmp_path: Path) -> None:
    output = ("-o", tmp_path / "s.parquet")
    (tmp_path / "empty.txt").write_text("\n")
    asked = ("cache", "record", "--model", "tiny-image", *output)
    assert "--sizes: size '32' is not like" in refused(*asked, "--sizes", "32")
    assert "the file is empty" in refused(*asked, "--sizes", "96x96", "--prompts", tmp_path / "empty.txt")
    assert "neither an embedded model" in refused("cache", "record", "--model", "x", "--sizes", "32x32", *output)


def test_a_replay_decides_like_the_simulation_and_can_be_decided_again(folder: Path, model_folder: Path) -> None:
    """The whole way: measured with a cache, signals recorded, simulated and replayed with the same policy."""
    name = str(model_folder)
    measured = ("--sizes", "32x32,32x48", "--max-batch", 1, "--repeats", 1, "--executor", "patched")
    run("profile", "--model", name, *measured, "--caching", "interval", "--threads", 1, "-o", folder / "p.parquet")
    recorded = ("--sizes", "32x32,32x48", "--requests", 2, "--steps", 4)
    run("cache", "record", "--model", name, *recorded, "--threads", 1, "-o", folder / "s.parquet")
    trace = ("--rate", 5, "--duration", 1, "--sizes", "32x32:1,32x48:1", "--steps", 5, "--model", name)
    run("trace", "generate", *trace, "-o", folder / "t.parquet")
    cluster = '[cluster]\nthreads = 1\nexecutor = "patched"\n[slo]\nscale = 5\n[predictor]\nlatency_model = "linear"\n'
    (folder / "s.toml").write_text(f'model = "{name}"\n{cluster}')
    files = ("--trace", folder / "t.parquet", "--profile", folder / "p.parquet")
    given = (folder / "s.toml", *files, "--scheduler", "edf")
    cache = ("--set", "policies.caching.name=interval", "--set", f"predictor.reuse={folder / 's.parquet'}")
    run("simulate", *given, *cache, "-o", folder / "sim")
    run("replay", *given, *cache, "-o", folder / "real")
    simulated, real = read_run(folder / "sim"), read_run(folder / "real")
    assert (real.requests["status"] == "finished").all()
    for log in (simulated, real):
        denoised = log.steps[log.steps["stage"] == "denoise"]
        assert denoised["reused"].sum() / (denoised["computed"] + denoised["reused"]).sum() == pytest.approx(1 / 5)
    assert real.info["predictor"]["expected_computed"] == simulated.info["predictor"]["expected_computed"]
    parity = parity_of(folder / "real")
    assert parity is not None
    assert parity.same, parity.difference


def test_settings_that_the_profile_was_not_measured_with_are_said(folder: Path) -> None:
    measured = Profile.load(folder / "profile.parquet")
    Profile(measured.frame, {**measured.metadata, "patch_floor": "16"}).save(folder / "floored.parquet")
    run(
        "simulate", folder / "scenario.toml", "--profile", folder / "floored.parquet", "--set", "cluster.patch_floor=4",
        "--set", "cluster.decode=patched", "-o", folder / "floored",
    )  # fmt: skip
    warnings = read_run(folder / "floored").info["warnings"]
    assert "cluster.patch_floor is 4, the profile was measured with 16" in warnings
    assert "cluster.decode is patched, the profile was measured with whole" in warnings
    assert read_run(simulated(folder, "as measured")).info["warnings"] == []


def test_parameters_of_a_scheduler_named_on_the_command_line_are_kept(folder: Path) -> None:
    run(
        "simulate", folder / "scenario.toml", "--set", "policies.scheduling.max_batch=2", "--scheduler", "edf",
        "-o", folder / "edf",
    )  # fmt: skip
    scheduling = read_run(folder / "edf").info["scenario"]["policies"]["scheduling"]
    assert (scheduling["name"], scheduling["max_batch"]) == ("edf", 2)


def test_a_caching_policy_of_ones_own_is_spelled_with_its_parameters(tmp_path: Path) -> None:
    code = "from policies.caching import FixedInterval\n\n\nclass Mine(FixedInterval):\n    pass\n"
    (tmp_path / "own.py").write_text(code)
    assert parse_caching_policy(f"{tmp_path / 'own.py'}:Mine:every=5").every == 5
    with pytest.raises(BadInput, match="--caching 'interval:5'"):
        parse_caching_policy("interval:5")
