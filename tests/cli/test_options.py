"""Every number that an option takes has finite limits, which are said; so are the verbs there are."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import pytest
import typer
from typer.core import TyperOption
from typer.main import get_command
from typer.testing import CliRunner

from cli.app import app
from cli.groups import FEW, HEADINGS
from cli.options import limits_of
from tests.cli.run_command import refused, run
from traces.limits import Range


def commands(group: typer.Typer, name: str = "") -> Iterator[tuple[str, Callable[..., Any]]]:
    for command in group.registered_commands:
        assert command.callback is not None
        yield f"{name} {command.name or command.callback.__name__}".strip(), command.callback
    if group.registered_callback is not None and group.registered_callback.callback is not None:
        yield name, group.registered_callback.callback
    for inner in group.registered_groups:
        assert inner.typer_instance is not None
        yield from commands(inner.typer_instance, f"{name} {inner.name or inner.typer_instance.info.name}".strip())


ROOT = Path(__file__).parents[2]
COMMANDS = dict(commands(app))


ON_A_DEVICE = {
    "profile": ("--model", "tiny-image"),
    "cache record": ("--model", "tiny-image", "--sizes", "64x64"),
    "cache record-tiles": ("--model", "tiny-image", "--sizes", "128x128"),
    "cache calibrate": ("--model", "tiny-image", "--size", "128x128", "--psnr", "30"),
    "replay": (ROOT / "examples/tiny_image.toml", "--set", "trace.limit=1"),
}


def test_a_device_that_the_machine_lacks_is_said_by_every_command_that_takes_one(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    assert {name for name, command in COMMANDS.items() if "device" in get_type_hints(command)} == set(ON_A_DEVICE)
    for name, given in ON_A_DEVICE.items():
        out = tmp_path / ("run" if name == "replay" else "p.json" if "calibrate" in name else "p.parquet")
        said = refused(*name.split(), *given, "--device", "cuda:99", "-o", out)
        assert re.search(r"device 'cuda:99' is not available: torch sees .*CUDA|of cuda, counted from 0", said), said
        said = refused(*name.split(), *given, "--device", "gpu", "-o", out)
        assert "gpu" in said
        assert "internal" not in said


@pytest.mark.parametrize("name", COMMANDS)
def test_no_number_is_without_limits(name: str) -> None:
    command = COMMANDS[name]
    limits = limits_of(command)
    for parameter, hint in get_type_hints(command, include_extras=True).items():
        kind = get_args(hint)[0] if get_origin(hint) is Annotated else hint
        if int in (kind, *get_args(kind)) or float in (kind, *get_args(kind)):
            limit = limits[parameter]
            assert isinstance(limit, Range)
            assert math.isfinite(limit.least)
            assert math.isfinite(limit.most)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("trace generate --duration 9 --rate 1 --sizes 8x8 --guidance-scale nan -o t.csv", "--guidance-scale is nan"),
        ("trace generate --duration inf --rate 1 --sizes 8x8 -o t.csv", "--duration is inf"),
        ("trace generate --duration 9 --rate 1 --sizes 8x8 --seed -1 -o t.csv", "--seed is -1"),
        ("trace import dit x.csv --limit 0 -o t.csv", "--limit is 0, expected a whole number of 1 to 10,000,000"),
        ("trace transform t.csv --resample 99999999999 -o t.csv", "--resample is 99999999999"),
        ("replay s.toml --speedup 1e300 -o r", "--speedup is 1e+300, expected a number of 1e-06 to 1,000,000 times"),
        ("replay s.toml --device tpu -o r", "cannot be read"),
        ("plan s.toml --growth inf -o p", "--growth is inf"),
        ("sweep s.toml --grid g.toml --workers 1000000 -o s", "--workers is 1000000, expected a whole number of 1 to"),
        ("profile --model tiny-image --minutes nan -o p.parquet", "--minutes is nan"),
        ("profile --model tiny-image --max-batch 0 -o p.parquet", "--max-batch is 0"),
        ("hardware estimate --model sdxl --hardware h100 --sizes 8x8 --steps 99999999", "--steps is 99999999"),
    ],
)
def test_a_number_out_of_its_limits_is_refused_before_any_work(
    arguments: str, said: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert said in refused(*arguments.split())
    assert list(tmp_path.iterdir()) == []


def test_a_verb_that_is_none_is_answered_with_those_there_are() -> None:
    for words, said in (
        (["juxtapose", "a", "b"], "There are: simulate, plan, sweep, replay"),
        (["simulat"], "Did you mean 'simulate'?"),
        (["SIMULATE"], "Did you mean 'simulate'?"),
        (["trace", "foo"], "There are: generate, describe"),
    ):
        result = CliRunner().invoke(app, words, env={"COLUMNS": "300"})
        assert (result.exit_code, said in result.output) == (2, True), result.output


def test_help_is_no_error_and_the_version_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert "Usage: " in run()
    for verb in ("simulate", "plan", "sweep", "replay", "report", "validate", "trace", "trace generate", "profile"):
        assert f"{verb} [OPTIONS]" in run(*verb.split())
    assert run("--version").strip() == f"tilecast {version('tilecast')}"


def test_options_stand_under_headings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    told = run("plan", "--help")
    places = [told.index(f" {heading} ─") for heading in ("Scenario", "Promise", "Search", "Running", "Output")]
    assert all(places)
    known = [name for names in HEADINGS.values() for name in names]
    assert len(known) == len(set(known))
    for name, command in all_commands(get_command(app), "tilecast"):
        options = [each for each in command.params if isinstance(each, TyperOption) and not each.is_eager]
        if len(options) > FEW:
            assert {each.name for each in options} <= {*known, "install_completion"}, name


def test_every_option_says_what_it_does_in_a_sentence() -> None:
    for name, command in all_commands(get_command(app), "tilecast"):
        assert (command.help or "")[:1].isupper(), name
        for parameter in command.params:
            told = getattr(parameter, "help", None) or ""
            assert told[:1].isupper(), (name, parameter.name)
            assert told.endswith("."), (name, parameter.name)


def all_commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    yield name, command
    for inner, verb in getattr(command, "commands", {}).items():
        yield from all_commands(verb, f"{name} {inner}")
