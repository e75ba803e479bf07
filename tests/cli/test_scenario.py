"""``tilecast scenario``: every key with limits and a description, a first scenario, and whether one will run."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest

from tests.cli.run_command import refused, run
from tilecast.checking import check_scenario
from tilecast.keys import fields_of, limits_of, scenario_keys
from tilecast.scenario import Scenario, load_scenario, parse_setting
from tilecast.starting import write_scenario
from traces.limits import Range


def test_every_key_says_what_it_means() -> None:
    keys = scenario_keys()
    assert len(keys) >= 95
    for key in keys:
        assert key.meaning.endswith("."), key
        assert key.takes, key


def test_every_number_has_finite_limits() -> None:
    takes = {key.name: key.takes for key in scenario_keys()}
    for name, field in fields_of(Scenario):
        limits = [limit for limit in limits_of(field) if isinstance(limit, Range)]
        assert bool(limits) == ("number" in takes[name]), name
        assert all(math.isfinite(limit.least) and math.isfinite(limit.most) for limit in limits)


def test_they_are_printed_as_a_table_markdown_and_json() -> None:
    assert "faults.mtbf_s" in run("scenario", "keys")
    markdown = run("scenario", "keys", "faults", "--markdown").splitlines()
    assert markdown[0] == "| key | takes | default | limits | meaning |"
    assert markdown[2].startswith("| faults.mtbf_s | number |  | 1 to 1,000,000,000 s | Mean time between failures")
    assert all(line.startswith("| faults.") for line in markdown[2:])
    [attainment] = json.loads(run("scenario", "keys", "plan.attainment", "--json"))
    assert attainment["default"] == "0.95"
    for asked in ("pool", "pool[]", "pool.replicas"):  # a list of sections is found by its name, too
        assert "pool[].replicas" in run("scenario", "keys", asked, "--markdown")
    assert "no scenario key begins with 'fault.'; did you mean 'faults'?" in refused("scenario", "keys", "fault.")


def test_the_error_of_a_key_says_its_limits(tmp_path: Path) -> None:
    scenario = tmp_path / "s.toml"
    scenario.write_text('model = "tiny-image"\n', encoding="utf-8")
    for setting, right in (
        ("world.slowdown=inf", "a number of 1e-06 to 1,000,000 times"),
        ("faults.mtbf_s=1e-300", "a number of 1 to 1,000,000,000 s"),
        ("trace.rate_scale=1e-300", "a number of 1e-06 to 1,000,000 times"),
        ("cluster.replicas=100000", "a whole number of 1 to 20,000 replicas"),
        ("cluster.replicas=true", "a whole number of 1 to 20,000 replicas"),
        ("plan.hardware=[{name='x',devices=[0]}]", "a whole number of 1 to 1,024 devices"),
        ("cluster.device='tpu'", "cluster.device"),
    ):
        message = refused("simulate", scenario, "-o", tmp_path / "r", "--set", setting)
        assert setting.split("=")[0] in message
        assert right in message
    name = refused("simulate", scenario, "-o", tmp_path / "r", "--set", 'model="a\\u0000b"')
    assert "it holds a zero character" in name


def test_a_first_scenario_runs_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = run("scenario", "init", "--model", "tiny-image", "--replicas", 2)
    assert made.splitlines() == [
        "wrote scenario.toml",
        "wrote scenario.trace.csv",
        "try: tilecast simulate scenario.toml -o run",
    ]
    told = run("scenario", "check", "scenario.toml")
    assert told.startswith("scenario.toml: as it should be.")
    assert "2 replicas of" in told
    share = int(re.findall(r"busy for (\d+) % of that time", told)[0])
    assert 40 < share < 100
    assert not list(tmp_path.glob("run"))
    assert " in time" in run("simulate", "scenario.toml", "-o", "run")
    assert "scenario.toml is there already" in refused("scenario", "init")


def test_every_default_of_a_first_scenario_can_be_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run("scenario", "init", "mine.toml", "--rate", "500/h")
    text = (tmp_path / "mine.toml").read_text(encoding="utf-8")
    every, count = re.subn(r"^# ([a-z_]+ = )", r"\1", text, flags=re.MULTILINE)
    assert count > 30
    before = load_scenario(tmp_path / "mine.toml", {})
    (tmp_path / "mine.toml").write_text(every, encoding="utf-8")
    after = load_scenario(tmp_path / "mine.toml", {})
    assert after.model_dump() == before.model_dump()
    assert "500/h" not in text
    assert "0.139 a second, on 1 replica" in text
    for key in scenario_keys():
        section, _, name = key.name.rpartition(".")
        if section in ("trace", "cluster", "predictor", "policies", "slo", "plan"):
            assert re.search(rf"^(# )?{name}( =|:)", text, re.MULTILINE), key.name


def test_a_scenario_that_will_not_run_is_refused_without_running_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run("scenario", "init", "--model", "tiny-image")
    for setting, said in (
        ("cluster.replica=2", "did you mean 'replicas'?"),
        ("Cluster.replicas=2", "did you mean 'cluster'?"),
        ("trace.path=none.csv", "none.csv"),
        ("policies.scheduling=FCSF", "did you mean 'fcfs'?"),
        ("predictor.profile=none", "none"),
        ("policies.caching=interval", "needs cluster.executor"),
    ):
        assert said in refused("scenario", "check", "scenario.toml", "--set", setting)
    told = run("scenario", "check", "scenario.toml", "--set", "trace.rate_scale=5")
    assert "the queue grows unless batches make up for it" in " ".join(told.split())


def test_python_does_the_same(tmp_path: Path) -> None:
    written = write_scenario(tmp_path / "s.toml", "tiny-image", hardware="l4")
    checked = check_scenario(load_scenario(written[0], {}))
    assert 0.4 < checked.load < 1.0
    assert [str(note) for note in checked.notes] == [str(note) for note in checked.prepared.notes]
    assert any("ESTIMATED" in str(note) for note in checked.notes)


def test_a_key_is_taken_out_of_the_file_and_one_of_two_replaces_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run("scenario", "init", "--model", "tiny-image")
    path = tmp_path / "scenario.toml"
    assert load_scenario(path, {}).slo.scale == 5.0
    for settings, slo in (
        (["slo.absolute_s=10"], (None, 10.0)),
        (["slo.scale="], (None, None)),
        (["slo="], (None, None)),
        (["slo.scale=", "slo.absolute_s=10"], (None, 10.0)),
    ):
        given = load_scenario(path, dict(map(parse_setting, settings))).slo
        assert (given.scale, given.absolute_s) == slo
    whole = load_scenario(path, {"cluster.replicas": 3, "faults.mtbf_s": 60})
    again = whole.replaced({"cluster.replicas": None, "faults": None})
    assert again.model_dump() == load_scenario(path, {}).model_dump()
    assert load_scenario(path, {"faults.mtbf_s": None}).faults is None
    for setting, said in (
        ("slo.scael=", "--set slo.scael=: unknown key 'scael'; did you mean 'scale'?"),
        ("slow=", "--set slow=: unknown key 'slow'"),
        ("model=", "key 'model' is missing"),
    ):
        assert said in refused("scenario", "check", "scenario.toml", "--set", setting)
    both = ("--set", "slo.scale=3", "--set", "slo.absolute_s=10")
    assert "expected either scale or absolute_s, not both" in refused("scenario", "check", "scenario.toml", *both)


def test_one_value_where_a_list_is_expected_is_a_list_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run("scenario", "init", "--model", "tiny-image")
    path = tmp_path / "scenario.toml"
    for settings in (["trace.spikes=10:9:2"], ['trace.spikes=["10:9:2"]']):
        assert load_scenario(path, dict(map(parse_setting, settings))).trace.spikes == ("10:9:2",)
    assert load_scenario(path, {"plan.policies": "edf", "plan.scaling": "queue"}).plan.scaling[0].name == "queue"
    late = run("scenario", "check", "scenario.toml", "--set", "trace.spikes=43200:3600:2")
    assert "spike 43200:3600:2 changes nothing: no request arrives then; the last one does at" in " ".join(late.split())
