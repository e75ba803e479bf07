"""The keys of a scenario: each with limits and a description, and a command that prints them."""

from __future__ import annotations

import json
import math
from pathlib import Path

from tests.cli.run_command import refused, run
from tilecast.keys import fields_of, limits_of, scenario_keys
from tilecast.scenario import Scenario
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
    assert "no scenario key begins with 'fault.'" in refused("scenario", "keys", "fault.")


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
