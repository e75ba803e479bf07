"""Every example runs as it stands, from any folder, and none is overloaded."""

from __future__ import annotations

import re
import runpy
import sys
import tomllib
from pathlib import Path, PurePosixPath

import pytest

import tilecast as tc
import tilecast.examples
from policies.runlog import read_run
from reports.checks import checked
from reports.figures import summary
from reports.overload import backlog
from tests.cli.run_command import refused, run
from tilecast.examples import example_files
from tilecast.scenario import load_scenario
from tilecast.setup import prepare
from traces.errors import BadInput
from traces.trace import Trace

EXAMPLES = Path(__file__).parents[2] / "examples"
FILES = sorted(path for path in EXAMPLES.glob("*.toml") if path.name != "grid.toml")


def says(path: Path) -> str:
    """Its first two lines."""
    return " ".join(path.read_text(encoding="utf-8").splitlines()[:2])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_runs_as_it_stands_and_is_not_overloaded(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert f"tilecast simulate examples/{path.name} -o RUN" in says(path)
    monkeypatch.chdir(EXAMPLES)
    assert "OVERLOADED" not in run("simulate", path.name, "-o", tmp_path / "here")
    there = prepare(load_scenario(Path(path.name), {}))
    monkeypatch.chdir(tmp_path)
    elsewhere = prepare(load_scenario(path, {}))
    assert elsewhere.trace.frame.equals(there.trace.frame)
    assert elsewhere.costs.standalone_s(elsewhere.requests[0]) == there.costs.standalone_s(there.requests[0])
    here = read_run(tmp_path / "here")
    left, figures = backlog(checked(here)), summary(checked(here))
    assert not left.grows
    assert left.late <= 4
    assert 0.3 < figures["utilisation"] < 0.8
    assert figures["slo_attainment"] > 0.9


def test_even_one_request_at_a_time_is_a_load_of_seventy_percent(tmp_path: Path) -> None:
    run("simulate", EXAMPLES / "tiny_image.toml", "--scheduler", "fcfs", "-o", tmp_path / "run")
    done = read_run(tmp_path / "run")
    assert 0.65 < summary(checked(done))["utilisation"] < 0.75
    assert not backlog(checked(done)).grows


def test_traces_have_prompts_that_the_model_knows() -> None:
    known = set((EXAMPLES / "prompts.txt").read_text(encoding="utf-8").splitlines())
    traces = sorted((EXAMPLES / "traces").glob("*.csv"))
    used = {tomllib.loads(path.read_text(encoding="utf-8"))["trace"]["path"] for path in FILES}
    assert used == {f"traces/{path.name}" for path in traces}
    for path in traces:
        assert set(Trace.load(path).frame["prompt"]) <= known


def test_the_log_of_a_service_becomes_a_trace(tmp_path: Path) -> None:
    names = ("--map", "arrival_s=received_at:date", "--map", "steps=num_inference_steps", "--map", "request_id=id")
    run("trace", "import", "table", EXAMPLES / "log.csv", *names, "-o", tmp_path / "log.parquet")
    frame = Trace.load(tmp_path / "log.parquet").frame
    assert len(frame) == 40
    assert frame["arrival_s"].iat[0] == 0
    assert set(frame["prompt"]) <= set((EXAMPLES / "prompts.txt").read_text(encoding="utf-8").splitlines())


def test_a_policy_and_a_grid(tmp_path: Path) -> None:
    mine = f"{EXAMPLES / 'my_policy.py'}:NewestFirst"
    run("simulate", EXAMPLES / "tiny_image.toml", "--scheduler", mine, "-o", tmp_path / "mine")
    grid = tomllib.loads((EXAMPLES / "grid.toml").read_text(encoding="utf-8"))
    assert "tilecast sweep examples/tiny_image.toml --grid examples/grid.toml -o SWEEP" in says(EXAMPLES / "grid.toml")
    few = f"seeds = 1\nsamples = 2\n[grid]\ncluster.replicas = {grid['grid']['cluster']['replicas']}\n"
    (tmp_path / "few.toml").write_text(few, encoding="utf-8")
    output = ("--workers", 1, "-o", tmp_path / "sweep")
    run("sweep", EXAMPLES / "tiny_image.toml", "--grid", tmp_path / "few.toml", *output)


def test_all_but_the_demo_can_be_written_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run("examples")
    copied = {path.relative_to(tmp_path / "examples"): path.read_bytes() for path in files_in(tmp_path / "examples")}
    assert copied == {path.relative_to(EXAMPLES): path.read_bytes() for path in files_in(EXAMPLES)}
    run("simulate", "examples/weights.toml", "--set", "trace.limit=20", "-o", "run")
    assert "the examples are in examples already" in run("examples")
    (tmp_path / "examples" / "my_policy.py").write_text("mine", encoding="utf-8")
    assert "choose another -o, or remove it" in refused("examples")
    assert (tmp_path / "examples" / "my_policy.py").read_text(encoding="utf-8") == "mine"


def files_in(folder: Path) -> list[Path]:
    """What is in a folder of examples, but the demo of a clone and what running it left."""
    found = [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return [path for path in found if path.name != "demo.py" and path.suffix != ".parquet"]


def test_a_wheel_brings_what_is_written() -> None:
    root = EXAMPLES.parent
    shared = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["data-files"]
    brought = {
        f"{folder}/{path.name}".removeprefix("share/tilecast/examples/")
        for folder, patterns in shared.items()
        for pattern in patterns
        for path in root.glob(pattern)
    }
    assert brought == set(example_files())


def test_without_a_clone_they_are_found_by_what_was_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class File(PurePosixPath):
        def locate(self) -> Path:
            return tmp_path / self

    installed = ["../../../share/tilecast/examples/traces/a.csv", "../../../share/tilecast/examples/b.toml"]
    others = ["tilecast/examples.py", "my-share/tilecast/examples/c.toml"]
    monkeypatch.setattr(tilecast.examples, "__file__", str(tmp_path / "site-packages" / "tilecast" / "examples.py"))
    monkeypatch.setattr(tilecast.examples, "files", lambda _: [File(name) for name in installed + others])
    assert example_files() == {"b.toml": tmp_path / installed[1], "traces/a.csv": tmp_path / installed[0]}
    monkeypatch.setattr(tilecast.examples, "files", lambda _: None)
    with pytest.raises(BadInput, match="has no examples"):
        example_files()


def test_the_library_in_a_few_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan, few = tc.plan, {"plan.requests": 100, "plan.max_requests": 100}
    monkeypatch.setattr(tc, "plan", lambda scenario, **given: plan(scenario.replaced(few), **given))
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(EXAMPLES / "library.py"), run_name="__main__")
    printed = capsys.readouterr().out
    assert printed.startswith("lookahead met most deadlines: ")
    assert "replicas=2" in printed.splitlines()[-1]
    assert not list(tmp_path.iterdir())


def test_three_checkpoints_on_one_replica_simulated_and_for_real(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    monkeypatch.setattr(sys, "argv", ["checkpoints.py", str(tmp_path)])
    runpy.run_path(str(EXAMPLES / "checkpoints.py"), run_name="__main__")
    printed = capsys.readouterr().out
    simulated, real = printed.partition("real:")[::2]
    loads = ["day", "night", "dusk", "day"]
    assert [line.split()[0] for line in simulated.splitlines()[1:]] == loads
    assert [line.split()[0] for line in real.splitlines()[1:-1]] == loads
    assert "decisions of the real run the same policies reproduce all" in real
    assert len(list((tmp_path / "real" / "images").glob("*.png"))) == 5


def test_a_day_with_replicas_that_come_and_go_costs_less_than_the_fixed_cluster_that_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["scaling.py", str(tmp_path / "report.html")])
    runpy.run_path(str(EXAMPLES / "scaling.py"), run_name="__main__")
    printed = [line.split(":") for line in capsys.readouterr().out.splitlines()]
    in_time = {name.strip(): float(said.split("%")[0]) for name, said in printed}
    cost = {name.strip(): float(said.split("cost")[1].split(",")[0]) for name, said in printed}
    assert in_time["three, always"] > 99.5
    assert in_time["by the deadlines"] > 95
    assert cost["by the deadlines"] < cost["by the queue"] < cost["by the hour"] < cost["three, always"]
    assert "Above: paid for, and dotted those of them that take requests" in (tmp_path / "report.html").read_text()


def test_shares_of_the_devices_spare_tenants_the_flood_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["tenants.py", str(tmp_path / "report.html")])
    runpy.run_path(str(EXAMPLES / "tenants.py"), run_name="__main__")
    rows = capsys.readouterr().out.splitlines()
    first, equal, unequal = [{name: int(share) for name, share in re.findall(r"(\w+) (\d+)%", row)} for row in rows]
    for tenant in ("alice", "bob"):
        assert first[tenant] < 70 < 95 < equal[tenant]
        assert unequal[tenant] < equal[tenant]
    assert "carol" in (tmp_path / "report.html").read_text()


def test_a_clip_gives_way_to_pictures_simulated_and_for_real(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    monkeypatch.setattr(sys, "argv", ["gives_way.py", str(tmp_path)])
    runpy.run_path(str(EXAMPLES / "gives_way.py"), run_name="__main__")
    printed = capsys.readouterr().out
    said = re.findall(r"(\w+): the clip had done (\d+) and (\d+) of 60 steps .* they took ([\d.]+) and", printed)
    assert [name for name, *_ in said] == ["simulated", "real"]
    for _, first, second, took_s in said:
        assert int(first) <= int(second) < 60
        assert int(first) < int(second) or float(took_s) > 0.85  # the second picture came before the first was made
    real = read_run(tmp_path / "real").requests
    assert real["status"].tolist() == ["finished"] * 3
    assert real["finish_s"].idxmax() == 0
    assert "decisions of the real run the same policies reproduce all" in printed
    assert len(list((tmp_path / "real" / "images").glob("*.webp"))) == 1
