"""What stands in the terminal when a command has ended: a dozen lines of 80 columns, and everything where asked."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from reports.brief import MOST_LINES, WIDTH
from tests.cli.run_command import run
from tilecast.otherwise import otherwise
from tilecast.results import read
from tilecast.starting import write_scenario

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    write_scenario(tmp_path / "s.toml", "tiny-image", hardware="l4")


@pytest.mark.usefixtures("here")
def test_simulate_and_report_end_with_a_dozen_lines() -> None:
    for scenario, given in (
        ("s.toml", ()),
        ("s.toml", ("--set", "trace.rate_scale=4")),
        ("s.toml", ("--set", "cluster.replicas=3", "--set", "policies.scaling=queue", "--set", "scaling.least=1")),
        (EXAMPLES / "pools.toml", ()),
    ):
        made = run("simulate", scenario, "-o", "run", "--set", "trace.limit=60", *given)
        shown = run("report", "run", "-o", "report.html")
        for printed in (made, shown):
            lines = printed.splitlines()
            assert len(lines) <= MOST_LINES, printed
            assert max(map(len, lines)) <= WIDTH, printed
        assert "tilecast report run --all" in made
        assert "wrote report.html" in shown
    everything = run("simulate", "s.toml", "-o", "run", "--set", "trace.limit=20", "--all")
    assert all(title in everything for title in ("By size", "By replica", "Batches and devices", "Goodput"))


@pytest.mark.usefixtures("here")
def test_why_answers_in_five_sentences_and_simulates_only_where_asked() -> None:
    scenario = "s.toml"
    run("simulate", scenario, "-o", "run", "--set", "trace.limit=60", "--set", "trace.rate_scale=1.3")
    told = run("why", "run")
    assert max(map(len, told.splitlines())) <= WIDTH
    plain = " ".join(told.split())
    assert plain.startswith("60 requests waited")
    assert "was while all devices were busy (load)" in plain
    assert "Simulated" not in plain
    both = " ".join(run("why", "run", "--all", "--what-if", scenario).split())
    waited = re.findall(r"([0-9.]+) s with [^(]+ \(([0-9.]+) % in time\)", both.partition("Simulated anew")[2])
    assert len(waited) == 3
    [(as_it_was, _), (with_one_more, _), (half, _)] = waited
    assert float(as_it_was) == pytest.approx(float(re.findall(r"waited ([0-9.]+) s", plain)[0]), rel=0.02)
    assert max(float(with_one_more), float(half)) < float(as_it_was)
    assert "Waiting, while" in both


@pytest.mark.usefixtures("here")
def test_one_more_replica_is_of_the_pool_where_requests_waited_longest() -> None:
    run("simulate", EXAMPLES / "pools.toml", "-o", "run", "--set", "trace.limit=80", "--set", "pool.clips.replicas=3")
    found = otherwise(read("run"), EXAMPLES)
    assert [each.how for each in found] == [
        "with the scenario unchanged",
        "with one more replica of clips",
        "with half the requests a second",
    ]
    assert found[0].result.waiting.mean_s == read("run").waiting.mean_s
    assert found[1].result.waiting.mean_s < found[0].result.waiting.mean_s
