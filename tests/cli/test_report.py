"""``tilecast report`` and ``tilecast validate``: the files they leave behind."""

from __future__ import annotations

import json
import subprocess
import sys

import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from cli.report import compare, report
from cli.validate import validate
from policies.runlog import REQUEST_COLUMNS, STEP_COLUMNS, write_run
from traces.errors import BadInput

REQUEST = ("a", 0, 512, 512, 1, 1, 1, "sd3", "", 0, 3, 1, "finished", "", "", 0, 2, 1, 0, False, "", 0, 1, "0")
LAUNCH = (0, 0, "denoise", 0, 2, 1, 1, 1, "1@512x512", ["a"], 2, 1, 0, False, 2, "", "0", 0)


@pytest.fixture
def runs(tmp_path):
    folders = []
    for name, kind in (("foretold", "simulation"), ("measured", "replay")):
        folder = tmp_path / name
        folder.mkdir()
        requests = pd.DataFrame([REQUEST], columns=list(REQUEST_COLUMNS))
        steps = pd.DataFrame([LAUNCH], columns=list(STEP_COLUMNS))
        write_run(folder, requests, steps, {"kind": kind}, [])
        folders.append(str(folder))
    return folders


def invoke(command, *arguments):
    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, list(arguments))


@pytest.mark.parametrize("verb", [report, compare])
def test_report_writes_page_and_table(verb, runs, tmp_path):
    page = tmp_path / "out" / "r.html"
    result = invoke(verb, *runs, "-o", str(page))
    assert result.exit_code == 0, result.output
    assert "foretold, a simulation, has as many in time as measured, which really ran" in result.output
    assert sorted(path.name for path in page.parent.iterdir()) == ["r.html", "r.md"]


def test_report_writes_timelines_where_they_are_asked_for(runs, tmp_path):
    page = tmp_path / "out" / "r.html"
    result = invoke(report, *runs, "-o", str(page), "--timelines")
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in page.parent.iterdir()) == [
        "r.foretold.perfetto.json",
        "r.html",
        "r.md",
        "r.measured.perfetto.json",
    ]


def test_report_refuses_what_is_no_run(tmp_path):
    result = invoke(report, str(tmp_path), "-o", str(tmp_path / "r.html"))
    assert isinstance(result.exception, BadInput)
    assert not (tmp_path / "r.html").exists()


def test_one_run_is_nothing_to_compare(runs, tmp_path):
    result = invoke(compare, runs[0], "-o", str(tmp_path / "r.html"))
    assert "'tilecast report' shows one" in str(result.exception)
    assert not (tmp_path / "r.html").exists()


def test_report_needs_a_page_name(runs, tmp_path):
    result = invoke(report, *runs, "-o", str(tmp_path / "r.pdf"))
    assert isinstance(result.exception, BadInput)


def test_validate_writes_json(runs, tmp_path):
    target = tmp_path / "v.json"
    result = invoke(validate, *runs, "-o", str(target))
    assert result.exit_code == 3, result.output  # one request is too short to tell
    assert json.loads(target.read_text())["requests"]["ended_alike"] == 1


def test_commands_import_nothing_heavy():
    code = "import sys, cli.report, cli.validate; print({'pandas', 'plotly', 'jinja2'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
