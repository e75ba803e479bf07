"""tilecast sweep: grids, resuming, and the same table whatever happened on the way."""

from __future__ import annotations

import io
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from policies.runlog import read_run
from reports.checks import checked
from reports.figures import summary
from reports.sweep import best_points
from tests.cli.run_command import negative, refused, run
from tests.tilecast.studies.kept_points import kept_points
from tests.waiting import comes_true
from tilecast.scenario import load_scenario
from tilecast.studies.grid import Grid
from traces.errors import BadInput

ROOT = Path(__file__).parents[2]

SCENARIO = """
model = "tiny-image"
seed = 3
[trace]
path = "trace.parquet"
[predictor]
profile = "cpu-1core"
latency_model = "linear"
[policies.scheduling]
name = "least-slack"
max_batch = 4
[slo]
scale = 4.0
"""
GRID = """
seeds = 2
[grid]
cluster.replicas = [1, 2, 2]
policies.scheduling = ["fcfs", {name = "edf", max_batch = 2}]
[[cases]]
name = "tight"
slo.scale = 2
[[cases]]
name = "as it is"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    trace = ("--rate", 3, "--duration", 20, "--sizes", "96x96:1,128x128:1", "--steps", 6, "--model", "tiny-image")
    run("trace", "generate", *trace, "-o", folder / "trace.parquet")
    (folder / "scenario.toml").write_text(SCENARIO)
    (folder / "grid.toml").write_text(GRID)
    return folder


@pytest.fixture(scope="module")
def undisturbed(folder: Path) -> Path:
    sweep(folder, "undisturbed", "--workers", 1)
    return folder / "undisturbed"


def sweep(folder: Path, name: str, *options: object) -> str:
    grid = () if "--grid" in options else ("--grid", folder / "grid.toml")
    workers = () if "--workers" in options else ("--workers", 1)
    return run("sweep", folder / "scenario.toml", *grid, "-o", folder / name, *workers, *options)


FOUR_POINTS = """
import signal
from tilecast.studies.result_store import ResultStore
add, kept = ResultStore.add, []
def few(*given, **named):
    if len(kept) == 4:
        signal.pause()
    add(*given, **named)
    kept.append(None)
ResultStore.add = few
from cli.main import main
main()
"""
"""A command that has not come to its end when it is killed, however late: it keeps four points more, then waits."""


def keys(output: Path) -> list[str]:
    return [row.key for row in kept_points(output)]


def tables(output: Path) -> tuple[bytes, bytes]:
    return (output / "sweep.parquet").read_bytes(), (output / "sweep.csv").read_bytes()


def test_one_row_a_point_in_the_order_of_the_grid(undisturbed: Path) -> None:
    table = pd.read_parquet(undisturbed / "sweep.parquet")
    setup = table[["case", "cluster.replicas", "policies.scheduling", "slo.scale", "seed"]]
    assert setup.to_numpy().tolist() == [
        [case, replicas, policy, scale, seed]
        for case, scale in (("tight", 2.0), ("as it is", 4.0))
        for replicas in (1, 2)  # the double value once
        for policy in ("fcfs", "edf max_batch=2")
        for seed in (3, 4)
    ]
    assert len(keys(undisturbed)) == len(set(keys(undisturbed))) == len(table) == 16
    assert [key[:12] for key in keys(undisturbed)] == table["point"].tolist()
    assert (table["finished"] == table["requests"]).all()
    assert table.groupby("case")["slo_attainment"].mean().is_monotonic_decreasing  # "tight" comes last
    assert (table.groupby("cluster.replicas")["latency_mean_s"].mean().diff().dropna() < 0).all()
    assert set(table["basis"]) == {"MEASURED"}
    from_csv = pd.read_csv(undisturbed / "sweep.csv")
    texts = ["notes", "error"]
    pd.testing.assert_frame_equal(table.drop(columns=texts), from_csv.drop(columns=texts), check_exact=True)


def test_a_point_has_the_figures_of_simulate_with_and_without_its_log(folder: Path, undisturbed: Path) -> None:
    (folder / "one.toml").write_text("[grid]\ncluster.replicas = [1]\n")
    given = ("--seed", 4, "--scheduler", "fcfs")
    sweep(folder, "one", "--grid", folder / "one.toml", "--keep-logs", *given)
    row = pd.read_parquet(folder / "one" / "sweep.parquet").iloc[0]
    log = read_run(folder / "one" / "runs" / row["point"])
    run("simulate", folder / "scenario.toml", *given, "-o", folder / "run")
    expected = summary(checked(read_run(folder / "run")))
    assert expected == pytest.approx(summary(checked(log)), nan_ok=True, abs=0)
    assert expected == pytest.approx({name: row[name] for name in expected}, nan_ok=True, abs=0)
    table = pd.read_parquet(undisturbed / "sweep.parquet")
    same = (table["case"] == "as it is") & (table["policies.scheduling"] == "fcfs") & (table["seed"] == 4)
    without = table[same & (table["cluster.replicas"] == 1)].iloc[0]
    assert expected == pytest.approx({name: without[name] for name in expected}, nan_ok=True, abs=0)
    run("report", folder / "one" / "runs" / row["point"], "-o", folder / "report.html")


def test_kill_9_and_going_on_with_other_workers_gives_the_same_table(folder: Path, undisturbed: Path) -> None:
    output = folder / "killed"
    command = [sys.executable, "-c", FOUR_POINTS, "sweep", str(folder / "scenario.toml")]
    command += ["--grid", str(folder / "grid.toml"), "-o", str(output), "--workers", "2"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert comes_true(lambda: len(kept_points(output)) > 0)
    time.sleep(np.random.default_rng(0).uniform(0, 0.05))
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert 0 < len(kept_points(output)) < 16
    assert not (output / "sweep.parquet").exists()
    printed = sweep(folder, "killed", "--workers", 1)
    assert f"16 points, {before_of(printed)} of them kept" in printed
    assert 0 < before_of(printed) < 16
    assert sorted(keys(output)) == sorted(keys(undisturbed))
    assert tables(output) == tables(undisturbed)


def before_of(printed: str) -> int:
    found = re.search(r"points, (\d+) of them kept", printed)
    assert found is not None
    return int(found[1])


def test_a_local_ray_cluster_gives_the_same_table(folder: Path, undisturbed: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'tilecast[cluster]'")
    sweep(folder, "ray", "--workers", 2, "--executor", "ray")
    assert tables(folder / "ray") == tables(undisturbed)


def test_a_changed_grid_runs_what_is_new(folder: Path, undisturbed: Path) -> None:
    (folder / "wider.toml").write_text(GRID.replace("[1, 2, 2]", "[2, 3]").replace("seeds = 2", "seeds = [4]"))
    output = folder / "changed"
    output.mkdir()
    (output / "points.sqlite").write_bytes((undisturbed / "points.sqlite").read_bytes())
    assert "8 points, 4 of them kept from before" in sweep(folder, "changed", "--grid", folder / "wider.toml")
    assert len(keys(output)) == len(set(keys(output))) == 20
    table = pd.read_parquet(output / "sweep.parquet")
    assert table["cluster.replicas"].tolist() == [2, 2, 3, 3] * 2
    assert set(table["seed"]) == {4}


def test_the_best_points_over_their_seeds(folder: Path, undisturbed: Path) -> None:
    printed = sweep(folder, "undisturbed", "--by", "latency_p95_s", "--top", 1)
    assert "Best of 8 by Latency, P95, 2 seeds" in printed
    row = next(line for line in printed.splitlines() if re.match(r" +(tight|as it is) ", line))
    table = pd.read_parquet(undisturbed / "sweep.parquet")
    setup = ["case", "cluster.replicas", "policies.scheduling"]
    winner = table.groupby(setup, sort=False)["latency_p95_s"].mean().idxmin()
    assert re.split(" {2,}", row.strip())[:2] == [str(part) for part in winner[:2]]
    assert (
        len(re.findall(r"\(\d[\d.]*–", printed)) == 2
    )  # two intervals of two seeds, which reach below 0 or above 100 %
    assert len(re.findall("attainment", printed)) == 2  # the worst size's beside the mean
    assert printed.count("MEASU") == 1


def test_equal_points_are_ranked_by_the_next_figure() -> None:
    rows = [("late", 1.0, 0.9, 2.0), ("soon", 1.0, 0.9, 1.0), ("fair", 1.0, 1.0, 3.0), ("lost", 0.9, 1.0, 1.0)]
    frame = pd.DataFrame(rows, columns=["case", "slo_attainment", "slo_attainment_worst_size", "latency_p95_s"])
    frame = frame.assign(requests=100, basis="MEASURED", notes="", error="", overload=math.nan)
    out = io.StringIO()
    Console(file=out, width=80).print(best_points(frame, [], "slo_attainment", 4))
    assert re.findall("late|soon|fair|lost", out.getvalue()) == ["fair", "soon", "late", "lost"]


def test_settings_are_compared_under_the_same_loads() -> None:
    rows = [("fcfs", 1.0, 0.99), ("edf", 1.0, 0.97), ("fcfs", 1.5, 0.5), ("edf", 1.5, 0.9)]
    frame = pd.DataFrame(rows, columns=["policies.scheduling", "trace.rate_scale", "slo_attainment"])
    frame = frame.assign(requests=100, basis="MEASURED", notes="", error="", overload=math.nan)
    out = io.StringIO()
    Console(file=out, width=100).print(best_points(frame, list(frame)[:2], "slo_attainment", 9))
    said = " ".join(out.getvalue().split())
    assert said.startswith("Best of 2 by SLO attainment, means over 2 conditions (trace.rate_scale), MEASURED")
    assert re.findall(r"(edf|fcfs) +(\d.*%)", out.getvalue()) == [("edf", "93.5 %"), ("fcfs", "74.5 %")]


def test_a_point_that_fails_is_shown_and_the_others_are_there(folder: Path) -> None:
    text = '[grid]\ntrace.path = ["trace.parquet", "absent.parquet"]\n'
    (folder / "failing.toml").write_text(text)
    printed = negative(
        "sweep", folder / "scenario.toml", "--grid", folder / "failing.toml", "-o", folder / "failing", "--workers", 1
    )
    assert re.search(r"! 1 failed: \S*absent.parquet: cannot be read", " ".join(printed.split()))
    assert "! 1 of 2 points failed and are missing; the same command tries them again" in printed
    table = pd.read_parquet(folder / "failing" / "sweep.parquet")
    assert table["slo_attainment"].isna().tolist() == [False, True]
    assert table["error"].iloc[0] == ""
    (folder / "failing.toml").write_text(text.replace('["trace.parquet", ', "["))
    message = refused(
        "sweep", folder / "scenario.toml", "--grid", folder / "failing.toml", "-o", folder / "failing", "--workers", 1
    )
    assert re.search(r"all 1 points failed, the first with: \S*absent.parquet: cannot be read", message)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[grid]\ncluster.replcas = [1]", "with cluster.replcas=1"),
        ("[grid]\ncluster.replcas = [1]", "unknown key 'cluster.replcas'; did you mean 'replicas'?"),
        ("[grid]\ncluster.replicas = [1, 0]", "cluster.replicas is 0"),
        (
            '[grid]\npolicies.scheduling = ["fcfs", "sjf"]',
            "with policies.scheduling=sjf: unknown scheduling policy 'sjf'",
        ),
        ('[grid]\npolicies.scheduling = ["fcfs", {name = "fcfs", depth = 3}]', "'fcfs' has no parameter 'depth'"),
        ('[grid]\npolicies.routing = ["nearest"]', "unknown routing policy 'nearest'"),
        ("[grid]\ncluster.replicas = 1", "cluster.replicas is 1, expected a list of values"),
        ("[grid]\nseed = []", "seed is [], expected a list of values"),
        ("[gird]\nseed = [1]", "unknown key 'gird'; did you mean 'grid'?"),
        ("cluster.replicas = [1]", "unknown key 'cluster'"),
        ("seeds = 0", "seeds is 0"),
        ("seeds = 'two'", "seeds is 'two'"),
        ("seeds = 2\n[grid]\nseed = [1]", "seed is set beside seeds"),
        ("samples = 0", "samples is 0"),
        ("[grid]\nslo.scale = [1]\n[[cases]]\nslo.scale = 2", "slo.scale is in [grid] and in [[cases]]"),
        ("[[cases]]\nname = 'a'\n[[cases]]\nname = 'a'", "two cases are called 'a'"),
        ("grid = 3", "grid is 3, expected a table"),
        ("grid = [", "is not TOML"),
    ],
)
def test_a_wrong_grid_is_said_before_anything_runs(folder: Path, text: str, complaint: str) -> None:
    (folder / "wrong.toml").write_text(text)
    message = refused("sweep", folder / "scenario.toml", "--grid", folder / "wrong.toml", "-o", folder / "none")
    assert complaint in message
    assert "wrong.toml" in message
    assert not (folder / "none").exists()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--set", "cluster.replicas=2"), "cluster.replicas is set here and by the command line"),
        (("--by", "slo_atainment"), "did you mean 'slo_attainment'?"),
        (("--workers", 0), "workers is 0"),
        (("--executor", "slurm"), "unknown executor 'slurm'"),
    ],
)
def test_wrong_options_are_said(folder: Path, options: tuple[object, ...], complaint: str) -> None:
    given = ("--grid", folder / "grid.toml", "-o", folder / "wrong-options")
    assert complaint in refused("sweep", folder / "scenario.toml", *given, *options)


def test_ctrl_c_says_how_to_go_on(folder: Path) -> None:
    output = folder / "interrupted"
    (folder / "long.toml").write_text(f"[grid]\ncluster.replicas = {list(range(1, 200))}\n")
    command = [sys.executable, "-c", FOUR_POINTS, "sweep", str(folder / "scenario.toml"), "--workers", "1"]
    command += ["--grid", str(folder / "long.toml"), "-o", str(output)]

    def listening() -> None:  # a shell has what it starts in the background ignore Ctrl-C
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, preexec_fn=listening) as process:
        while process.poll() is None and not len(kept_points(output)):
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGINT)
        _, said = process.communicate()
    assert process.returncode == 130
    assert re.search(r"interrupted: \d+ points are kept in .*; the same command goes on from there", said)


def test_samples_are_some_of_the_combinations_and_more_samples_are_those_and_others(folder: Path) -> None:
    def drawn(samples: int) -> list[str]:
        path = folder / "sampled.toml"
        path.write_text(f"samples = {samples}\n[grid]\ncluster.replicas = {list(range(1, 41))}\n")
        return [str(point) for point in Grid.load(path).points(load_scenario(folder / "scenario.toml", {}))]

    few, more, everything = drawn(5), drawn(15), drawn(100)
    assert (len(few), len(more), len(everything)) == (5, 15, 40)
    assert set(few) < set(more) < set(everything)
    assert [name for name in everything if name in more] == more


def test_a_key_in_quotes_takes_its_table_whole(folder: Path) -> None:
    path = folder / "quoted.toml"
    path.write_text('[[cases]]\npolicies.scheduling.max_batch = 2\n[[cases]]\n"policies.scheduling" = {name = "edf"}\n')
    dotted, whole = Grid.load(path).points(load_scenario(folder / "scenario.toml", {}))
    assert dotted.scenario.policies.scheduling.name == "least-slack"
    assert dotted.scenario.policies.scheduling.parameters == {"max_batch": 2}
    assert whole.scenario.policies.scheduling.name == "edf"
    assert whole.scenario.policies.scheduling.parameters == {}
    assert (dotted.case, whole.case) == ("1", "2")
    with pytest.raises(BadInput, match="cannot be read"):
        Grid.load(folder / "absent.toml")
