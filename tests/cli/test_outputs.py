"""No verb replaces what Tilecast did not write as the same kind of thing, or what the same command reads."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from cli.app import app
from policies.runlog import REPLAY
from tests.cli.run_command import refused, run
from traces.marks import OutputKind
from traces.output import claim_folder
from traces.trace import Trace

SCENARIO = """
model = "tiny-image"
[trace]
path = "trace.parquet"
[predictor]
profile = "cpu-1core"
[slo]
scale = 5.0
"""

TRACE = ("--rate", "1", "--duration", "20", "--sizes", "96x96", "--steps", "2", "--model", "tiny-image")
FILES: dict[str, tuple[str, ...]] = {
    "trace generate": (*TRACE, "-o", "new.parquet"),
    "trace transform": ("trace.parquet", "-o", "new.parquet"),
    "trace fit": ("trace.parquet", "-o", "new.toml"),
    "trace import gentd26": ("mine.csv", "--sizes", "96x96", "-o", "new.csv"),
    "trace import mixfusion": ("mine.csv", "-o", "new.csv"),
    "trace import dit": ("mine.csv", "-o", "new.csv"),
    "trace import table": ("trace.parquet", "-o", "new.parquet"),
    "profile": ("--model", "tiny-image", "-o", "new.parquet"),
    "profile import": ("mine.csv", "-o", "new.csv"),
    "cache record": ("--model", "tiny-image", "--sizes", "96x96", "-o", "new.parquet"),
    "cache fit": ("trace.parquet", "-o", "new.parquet"),
    "cache record-tiles": ("--model", "tiny-image", "--sizes", "192x192", "-o", "new.parquet"),
    "cache calibrate": ("--model", "tiny-image", "--size", "192x192", "-o", "new.json"),
    "quality": ("mine.png", "-o", "new.json"),
    "validate": ("run", "run", "-o", "newly.json"),
    "report": ("run", "-o", "new.html"),
    "compare": ("run", "run", "-o", "new.html"),
}
FOLDERS: dict[str, tuple[str, ...]] = {
    "simulate": ("sc.toml", "-o", "new"),
    "replay": ("sc.toml", "-o", "new"),
    "plan": ("sc.toml", "-o", "new"),
    "sweep": ("sc.toml", "--grid", "grid.toml", "-o", "new"),
    "examples": ("-o", "new"),
}
VERBS = FILES | FOLDERS


def leaves(command: Any, name: str = "") -> Iterator[str]:
    """The commands that have an output."""
    if any(parameter.name == "output" for parameter in command.params):
        yield name
    for inner in getattr(command, "commands", {}).values():
        yield from leaves(inner, f"{name} {inner.name}".strip())


def test_every_verb_with_an_output_is_tried_here() -> None:
    assert sorted(leaves(typer.main.get_command(app))) == sorted(VERBS)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    run("trace", "generate", *TRACE, "-o", folder / "trace.parquet")
    (folder / "sc.toml").write_text(SCENARIO)
    (folder / "grid.toml").write_text("[grid]\nseed = [1, 2]\n")
    run("simulate", folder / "sc.toml", "-o", folder / "run")
    return folder


@pytest.fixture
def here(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with copies of the inputs."""
    import shutil

    shutil.copytree(inputs, tmp_path, dirs_exist_ok=True)
    (tmp_path / "mine.csv").write_text("a,b\n1,2\n")
    (tmp_path / "mine.png").write_bytes(b"\x89PNG mine")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    return tmp_path


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Everything below a folder: its type and what is in it."""
    found = {}
    for path in sorted(folder.rglob("*")):
        mode = path.lstat().st_mode
        data = str(path.readlink()).encode() if path.is_symlink() else b""
        found[str(path.relative_to(folder))] = (mode, path.read_bytes() if stat.S_ISREG(mode) else data)
    return found


def refuses(here: Path, verb: str, output: str | None = None, *options: str) -> str:
    """Run a verb that must refuse its output, and leave everything as it was."""
    *words, name = VERBS[verb]
    before = contents(here)
    message = refused(*verb.split(), *words, output or name, *options)
    assert contents(here) == before
    return message


def another_kind(path: Path) -> None:
    path.write_text(OutputKind("novel").comment("", ".toml"))


def link_to_mine(path: Path) -> None:
    path.symlink_to("mine.csv")


def link_to_fifo(path: Path) -> None:
    os.mkfifo("fifo")
    path.symlink_to("fifo")


def link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


def empty_folder(path: Path) -> None:
    path.mkdir()


def my_folder(path: Path) -> None:
    path.mkdir()
    (path / "notes.txt").write_text("mine")


def folder_of_a_replay(path: Path) -> None:
    path.mkdir()
    (path / "run.json").write_text(REPLAY.json('{"kind": "replay"}'))
    (path / "notes.txt").write_text("mine")


def my_file(path: Path) -> None:
    path.write_text("mine")


def empty_file(path: Path) -> None:
    path.write_text("")


IN_THE_WAY = (my_file, empty_file, another_kind, os.mkfifo, link_to_mine, link_to_fifo, link_to_itself)


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("make", [*IN_THE_WAY, empty_folder, my_folder, folder_of_a_replay])
def test_what_is_in_the_way_stays(here: Path, verb: str, make: Callable[[Any], None]) -> None:
    if verb in FOLDERS and (make is empty_folder or (verb == "replay" and make is folder_of_a_replay)):
        pytest.skip("is a place for it")
    make(here / VERBS[verb][-1])
    message = refuses(here, verb)
    assert "new" in message


@pytest.mark.parametrize("verb", VERBS)
def test_a_file_is_no_folder_to_write_in(here: Path, verb: str) -> None:
    name = VERBS[verb][-1]
    assert "mine.csv is not a folder" in refuses(here, verb, f"mine.csv/{name}")
    assert "mine.csv is not a folder" in refuses(here, verb, f"mine.csv/further/{name}")


@pytest.mark.parametrize("verb", VERBS)
def test_home_and_names_that_no_file_has(here: Path, verb: str) -> None:
    name = VERBS[verb][-1]
    my_file(here / "home" / name)
    assert f"~/{name}" in refuses(here, verb, f"~/{name}")
    assert "too long" in refuses(here, verb, "n" * 300 + Path(name).suffix)


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
@pytest.mark.parametrize("verb", VERBS)
def test_a_folder_that_cannot_be_written_to(here: Path, verb: str) -> None:
    (here / "locked").mkdir(mode=0o500)
    assert "locked cannot be written to" in refuses(here, verb, f"locked/{VERBS[verb][-1]}")


WITH_INPUTS = [
    (verb, word)
    for verb, words in VERBS.items()
    for word in words[:-2]
    if Path(word).suffix in (".parquet", ".csv", ".toml", ".png")
]


@pytest.mark.parametrize(("verb", "word"), WITH_INPUTS)
@pytest.mark.parametrize("name", ["itself", "link", "hard"])
def test_an_input_is_no_output(here: Path, verb: str, word: str, name: str) -> None:
    output = here / (word if name == "itself" else f"{name}{Path(word).suffix}")
    if name == "link":
        output.symlink_to(word)
    elif name == "hard":
        os.link(word, output)
    refuses(here, verb, str(output))


@pytest.mark.parametrize("verb", ["trace transform", "trace import table"])
def test_an_input_of_the_right_kind_is_no_output_either(here: Path, verb: str) -> None:
    assert "is an input of this command" in refuses(here, verb, "trace.parquet")
    assert "is an input of this command" in refuses(here, verb, "../" + here.name + "/trace.parquet")


def test_a_report_needs_all_of_its_places(here: Path) -> None:
    my_file(here / "README.md")
    assert "README.md exists" in refuses(here, "report", "README.html")
    my_file(here / "x.run.perfetto.json")
    assert "x.run.perfetto.json exists" in refuses(here, "report", "x.html", "--timelines")


def test_files_of_a_run_are_no_place_for_anything_else(here: Path) -> None:
    for verb, suffix in (("validate", ".json"), ("trace transform", ".parquet"), ("cache fit", ".parquet")):
        for path in (here / "run").glob(f"*{suffix}"):
            refuses(here, verb, str(path))


@pytest.mark.parametrize("verb", FOLDERS)
def test_a_folder_in_use_is_refused(here: Path, verb: str) -> None:
    with claim_folder(here / "new", OutputKind("anything")):
        assert "is in use by another process" in refuses(here, verb)


def test_simulations_of_one_folder_and_what_a_person_put_there(here: Path) -> None:
    my_file(here / "run" / "notes.txt")
    before = contents(here)
    run("simulate", "sc.toml", "-o", "run")
    assert contents(here) == before
    run("simulate", "sc.toml", "--seed", "3", "-o", "run")
    after = contents(here)
    assert after.keys() == before.keys()
    assert after["run/notes.txt"] == before["run/notes.txt"]
    assert after["run/run.json"] != before["run/run.json"]
    refuses(here, "replay", "run")


def test_verbs_write_again_what_they_wrote(here: Path) -> None:
    for verb in ("trace generate", "trace transform", "trace fit", "trace import table", "validate", "report"):
        for _ in range(2):
            run(*verb.split(), *VERBS[verb])
    for suffix in (".csv", ".jsonl"):
        for _ in range(2):
            run("trace", "generate", *TRACE, "-o", f"new{suffix}")


def test_home_in_every_word(here: Path) -> None:
    Trace.load(here / "trace.parquet").save("~/t.parquet")
    (here / "home" / "sc.toml").write_text(SCENARIO.replace("trace.parquet", "~/t.parquet"))
    run("simulate", "~/sc.toml", "-o", "~/run")
    run("simulate", "~/sc.toml", "--trace", "~/t.parquet", "-o", "~/run")
    run("simulate", "~/sc.toml", "--set", "trace.path=~/t.parquet", "-o", "~/run")
    run("report", "~/run", "-o", "~/r.html", "--timelines")
    assert {path.name for path in (here / "home").iterdir()} == {
        "t.parquet", "sc.toml", "run", "r.html", "r.md", "r.run.perfetto.json",
    }  # fmt: skip
