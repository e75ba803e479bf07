"""`import tilecast as tc`: what a person does in a notebook, without a file and without the command."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import tilecast as tc
from policies.contract import Policy
from policies.runlog import read_run
from reports.checks import check_run
from tests.cli.run_command import run
from tilecast.in_memory import contents_of

ROOT = Path(__file__).parents[2]
MINE = """
class Mine(tc.SchedulingPolicy):
    def plan(self, replica, now):
        jobs = list(replica.resident.values()) or list(self.cluster.waiting.values())
        return tc.Decision((jobs[-1],), jobs[-1].steps_left) if jobs else None
"""
FIVE_LINES = f"""
import tilecast as tc
{MINE}
trace = tc.Trace.load("trace.csv")
print(tc.simulate(tc.Scenario(model="tiny-image", trace=trace, profile="cpu-1core", scheduler=Mine())).summary())
"""

SCENARIO = """
model = "tiny-image"
trace.path = "{}"
predictor.profile = "cpu-1core"
slo.scale = 4.0
policies.scheduling = "lookahead"
"""


class Newest(tc.SchedulingPolicy):
    """The newest request first; ``most`` of them together."""

    def __init__(self, most: int = 1) -> None:
        self.most = most

    def plan(self, replica: tc.Replica, now: float) -> tc.Decision | None:
        jobs = list(replica.resident.values()) or list(self.cluster.waiting.values())
        return tc.Decision((jobs[-1],), jobs[-1].steps_left) if jobs else None


def trace(count: int = 60, every_s: float = 0.3) -> tc.Trace:
    return tc.Trace.from_requests([tc.Request(f"r{at}", every_s * at, 96, 96, 5) for at in range(count)])


def scenario(**more: object) -> tc.Scenario:
    given = {"model": "tiny-image", "trace": trace(), "profile": "cpu-1core", "slo": {"scale": 4.0}, **more}
    return tc.Scenario(**given)  # type: ignore[arg-type]


def test_five_lines_from_a_folder_with_packages_of_our_names(tmp_path: Path) -> None:
    for name in ("policies", "sim", "backend", "cli", "traces"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('the wrong package')\n")
    (tmp_path / "policies" / "mine.py").write_text("ANSWER = 42\n")
    (tmp_path / "trace.csv").write_text("arrival_s,height,width,steps\n0,96,96,5\n0.1,96,96,5\n")
    (tmp_path / "book.py").write_text(f"{FIVE_LINES}\nfrom policies.mine import ANSWER\nprint(ANSWER)\n")
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run([sys.executable, "book.py"], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert "slo_attainment" in ran.stdout
    assert ran.stdout.endswith("42\n")
    (tmp_path / "s.toml").write_text(
        'model = "tiny-image"\ntrace.path = "trace.csv"\npredictor.profile = "cpu-1core"\n'
    )
    command = [sys.executable, "-m", "tilecast", "simulate", "s.toml", "-o", "run"]
    ran = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    check_run(read_run(tmp_path / "run"))


def test_a_package_of_our_name_that_came_first_is_said(tmp_path: Path) -> None:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "__init__.py").touch()
    code = f"import policies, sys; sys.path.append({str(ROOT)!r}); import tilecast"
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert ran.returncode == 1
    assert "was imported before tilecast" in ran.stderr.splitlines()[-1]


def test_everything_that_is_offered_is_there() -> None:
    assert {name for name in tc.__all__ if getattr(tc, name) is None} == set()
    assert set(tc.__all__) == set(tc._HOMES)
    with pytest.raises(AttributeError, match="no attribute 'simulat'"):
        tc.simulat  # type: ignore[attr-defined]  # noqa: B018


def test_a_run_in_memory_is_the_one_of_the_command(tmp_path: Path) -> None:
    trace().save(tmp_path / "trace.parquet")
    (tmp_path / "s.toml").write_text(SCENARIO.format("trace.parquet"))
    run("simulate", tmp_path / "s.toml", "-o", tmp_path / "run")
    there, here = tc.read(tmp_path / "run"), tc.simulate(scenario(scheduler="lookahead"))
    pd.testing.assert_frame_equal(here.requests, there.requests)
    pd.testing.assert_frame_equal(here.steps.drop(columns="request_ids"), there.steps.drop(columns="request_ids"))
    assert here.summary().equals(there.summary())
    here.save(tmp_path / "saved")
    assert tc.read(tmp_path / "saved").summary().equals(here.summary())
    assert (tmp_path / "saved" / "requests.parquet").read_bytes() == (
        tmp_path / "run" / "requests.parquet"
    ).read_bytes()


def test_results_hand_out_frames_and_plots(tmp_path: Path) -> None:
    result = tc.simulate(scenario(scheduler=Newest()))
    assert result.info["scheduler"] == "Newest"
    assert list(result.table().columns) == ["Newest"]
    assert {"Latency", "Queue and utilisation", "Batch sizes"} < set(result.plots())
    assert "SLO attainment" in result._repr_html_()
    assert "Newest" in result.report(tmp_path / "r.html").read_text()
    both = tc.compare([result, tc.simulate(scenario(scheduler="fcfs"))], ["new", "old"])
    assert both.names == ("new", "old")
    with pytest.raises(tc.BadInput, match="1 names for 2 runs"):
        tc.compare([result, result], ["a"])


def test_scenarios_are_the_same_if_they_hold_the_same() -> None:
    assert scenario(scheduler=Newest()) == scenario(scheduler=Newest())
    assert hash(scenario(scheduler=Newest())) == hash(scenario(scheduler=Newest()))
    assert scenario(scheduler=Newest()) != scenario(scheduler=Newest(2))
    assert scenario() != scenario(trace=trace(61))
    other = scenario(scheduler=Newest()).replaced({"policies.scheduling.most": 3, "cluster.replicas": 2})
    assert other.policies.scheduling.in_memory is not None
    assert other.policies.scheduling.in_memory.most == 3  # type: ignore[attr-defined]
    assert other.cluster.replicas == 2
    assert other.trace.in_memory is not None


def test_a_policy_is_known_by_what_it_does_and_not_by_what_was_done_to_it() -> None:
    def made(rate: Callable[[Any], int], first: int = 0) -> Policy:
        made_here: type[Policy] = type("Counting", (Policy,), {"first": first, "rate": property(rate)})
        return made_here()

    policy = made(lambda self: 1)
    known = contents_of(policy)
    copy.copy(policy)  # which leaves a mark in its class
    assert "__slotnames__" in vars(type(policy))
    assert contents_of(policy) == contents_of(made(lambda self: 1)) == known
    assert contents_of(made(lambda self: 1, first=1)) != known
    assert contents_of(made(lambda self: 2)) != known


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"model": "tiny-image", "seeed": 3}, "scenario: unknown key 'seeed'; did you mean 'seed'?"),
        ({"model": "tiny-image", "replicas": 0}, "cluster.replicas is 0"),
        ({}, "key 'model' is missing"),
        ({"model": "tiny-image", "scheduler": "fcsf"}, "did you mean 'fcfs'"),
    ],
)
def test_what_is_wrong_is_said(given: dict[str, object], said: str) -> None:
    with pytest.raises(tc.BadInput, match=said.replace("?", r"\?")):
        tc.simulate(tc.Scenario(**{"trace": trace(), "profile": "cpu-1core", **given}))  # type: ignore[arg-type]


def test_a_sweep_and_a_plan_of_an_object(tmp_path: Path) -> None:
    grid = {"grid": {"cluster.replicas": [1, 2], "policies.scheduling.most": [1, 2]}}
    swept = tc.sweep(scenario(scheduler=Newest()), grid, tmp_path / "sweep", workers=1)
    assert swept.frame["policies.scheduling.most"].tolist() == [1, 2, 1, 2]
    again = tc.sweep(scenario(scheduler=Newest()), grid, tmp_path / "sweep", workers=1)
    assert (swept.before, again.before) == (0, 4)
    assert again.frame.equals(swept.frame)
    plan = tc.plan(
        scenario(scheduler=Newest(), plan={"seeds": 2, "requests": 60, "max_requests": 60, "attainment": 0.8}),
        replicas=2,
        workers=1,
    )
    assert plan.answer is not None
    assert plan.answer.candidate.replicas == 2
