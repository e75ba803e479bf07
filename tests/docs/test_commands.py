"""Every command of the README and of the tutorials runs as it stands, from an empty folder outside the clone.

What takes minutes runs in a shorter form that a comment of the page gives, see `tests.docs.pages.commands`; a command
that two pages have runs once.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import tomllib
from hashlib import sha256
from pathlib import Path

import pytest
import typer.main

from cli.app import app
from tests.cli.run_command import ends_with, run
from tests.docs.pages import DOCS, PAGES, README, ROOT, TUTORIALS, Command, blocks, commands, name_of
from tests.sim.few_requests import fewer_requests
from tilecast.keys import scenario_keys

RUN_HERE = [README, *TUTORIALS]
SCENARIO_VERBS = ("simulate", "replay", "plan", "sweep")


@pytest.fixture(scope="module")
def ran() -> dict[tuple[str, ...], tuple[str, Path]]:
    """What has run, with what the files hold that it read: what it printed, and where a copy of its output is."""
    return {}


@pytest.mark.parametrize("page", RUN_HERE, ids=name_of)
def test_every_command_runs_from_an_empty_folder(
    page: Path,
    ran: dict[tuple[str, ...], tuple[str, Path]],
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = commands(page)
    if any("replay" in command.line for command in given):
        pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    written = [command for command in given if command.words[0] == "tilecast"]
    assert len(written) >= 5
    for command in given:
        if command.words[0] != "tilecast":
            check_set_up(command)
            continue
        key = (command.line, *[digest(Path(word)) for word in command.words if Path(word).is_file()])
        if key in ran:
            printed, kept = ran[key]
            copy(kept, output_of(command))
        else:
            printed = ends_with_one_of(command)
            output = output_of(command)
            if output is not None:
                kept = tmp_path_factory.mktemp("kept") / output.name
                copy(output, kept)
                ran[key] = printed, kept
        if "--profile mine.parquet" not in command.line:  # measured just now, on whatever machine this is
            assert "OVERLOADED" not in printed, command
        if (output := output_of(command)) is not None:
            assert output.exists(), command


def digest(path: Path) -> str:
    """Of what a file holds."""
    return sha256(path.read_bytes()).hexdigest()


def ends_with_one_of(command: Command) -> str:
    """Run a command that may end with one of its codes; what it printed."""
    try:
        return ends_with(command.codes[-1], *command.words[1:]) if len(command.codes) > 1 else run(*command.words[1:])
    except AssertionError:
        if len(command.codes) == 1:
            raise
        return run(*command.words[1:])


def output_of(command: Command) -> Path | None:
    """What a command writes."""
    words = command.words
    if "examples" in words[1:2]:
        return Path("examples")
    return Path(words[words.index("-o") + 1]) if "-o" in words else None


def copy(source: Path, target: Path | None) -> None:
    """A file or folder, in the place of what is there."""
    assert target is not None
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)


def check_set_up(command: Command) -> None:
    """What installs Tilecast or starts these very tests is looked at, not run: it is how they came to run."""
    words = command.words
    if words[0] == "make":
        subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, check=True, capture_output=True)
    elif words[:2] == ["pip", "install"]:
        assert (ROOT / words[words.index("-c") + 1]).is_file()
        wanted = words[words.index("-e") + 1].strip(".[]")
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
            "optional-dependencies"
        ]
        assert {extra for extra in wanted.split(",") if extra} <= set(extras)
    else:
        assert command.line in ("python3 -m venv .venv", ". .venv/bin/activate"), command


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_that_are_only_shown_name_verbs_options_and_keys_that_there_are(page: Path) -> None:
    keys = {key.name.replace("[]", "") for key in scenario_keys()}
    for command in commands(page):
        words = command.words
        if words[0] == "tilecast":
            verb, options = resolved(words[1:])
            known = {name for each in verb.params for name in (*each.opts, *each.secondary_opts)}
            for word in options:
                if word.startswith("-") and not re.match(r"-\d", word):
                    assert word.partition("=")[0] in known, command
            for at, word in enumerate(words[:-1]):
                if word == "--set" and words[1] in SCENARIO_VERBS:
                    key = words[at + 1].partition("=")[0]
                    general = re.sub(r"^pool\.\w+\.", "pool.", key)
                    policy = ".".join(key.split(".")[:2])
                    assert general in keys or (policy.startswith("policies.") and policy in keys), command
        elif words[:2] == ["python", "-m"]:
            assert importlib.util.find_spec(words[2]) is not None, command
        else:
            check_set_up(command)


def resolved(words: list[str]) -> tuple[object, list[str]]:
    """The verb that words name, and what is left of them."""
    found = typer.main.get_command(app)
    rest = list(words)
    while hasattr(found, "commands") and rest and rest[0] in found.commands:
        found = found.commands[rest.pop(0)]
    assert not hasattr(found, "commands") or getattr(found, "invoke_without_command", False), words
    return found, rest


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_modules_and_files_that_pages_name_are_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for module in re.findall(r"python\s+-m\s+((?:benchmarks|tools|examples)[\w.]*\w)", text):
        assert importlib.util.find_spec(module) is not None, module
    for file in re.findall(
        r"`((?:examples|policies|tilecast|traces|predictors|reports|backend|sim|profiles)/[\w/]+\.\w+)`", text
    ):
        assert (ROOT / file).is_file(), file


@pytest.mark.parametrize("page", [README, *sorted((DOCS / "guides").glob("*.md"))], ids=name_of)
def test_python_of_pages_runs_and_policies_keep_their_contract(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tilecast as tc

    monkeypatch.chdir(tmp_path)
    fewer_requests(monkeypatch, 25)
    shutil.copytree(ROOT / "examples" / "traces", tmp_path / "examples" / "traces")
    own: dict[str, object] = {"tc": tc}
    for _, lines in blocks(page, "python"):
        exec("\n".join(lines), own)
    for found in list(own.values()):
        if isinstance(found, type) and issubclass(found, tc.Policy):
            tc.check_policy(found())


def test_the_readme_is_two_screens_and_names_the_command_that_ci_runs() -> None:
    lines = README.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 120
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()[-1]
    assert ci in [command.line for command in commands(README)]


def test_in_a_clone_the_examples_are_there_already(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert "already" in run("examples")
