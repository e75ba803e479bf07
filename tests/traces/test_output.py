"""What an output may replace, a file or folder at a time; the verbs' own tests are in `tests.cli.test_outputs`."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from traces.errors import BadInput
from traces.files import write_document, write_frame, write_json
from traces.marks import OutputKind, mark_of
from traces.output import check_file, check_folder, claim_folder, reading, whole_file

ROOT = Path(__file__).parents[2]
LIST = OutputKind("list", columns=("a", "b"))
OTHER = OutputKind("other")
BOOK = OutputKind(
    "book", files={"notes.jsonl": "", "part.json": "list", "book.json": "book"}, folders={"leaves": r"\d+\.png"}
)


def write_list(path: Path) -> None:
    frame = pd.DataFrame({"a": [1], "b": ["x"], "c": [0.5]})
    if path.suffix == ".md":
        write_document(LIST.comment("# A list\n", ".md"), path, LIST)
    elif path.suffix == ".html":
        page = f'<!doctype html>\n<html><meta charset="utf-8">\n<meta name="generator" content="{LIST.generator}">'
        write_document(page, path, LIST)
    elif path.suffix == ".toml":
        write_document(LIST.comment("a = 1\n", ".toml"), path, LIST)
    elif path.suffix == ".json":
        write_json({"a": 1}, path, LIST)
    elif path.suffix == ".png":
        with whole_file(path, LIST) as temporary:
            Image.new("RGB", (2, 2)).save(temporary, pnginfo=LIST.png())
    else:
        write_frame(frame, path, LIST)


FORMATS = (".parquet", ".csv", ".jsonl", ".json", ".md", ".html", ".toml", ".png")


@pytest.mark.parametrize("suffix", FORMATS)
def test_what_was_written_is_replaced_by_its_kind_alone(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"file{suffix}"
    write_list(path)
    before = path.read_bytes()
    write_list(path)
    assert path.read_bytes() == before
    with pytest.raises(BadInput, match=r"exists and is .*Tilecast.*, so no other replaces it"):
        check_file(path, OTHER)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("content", [b"", b"mine", b"PAR1", b"\x89PNG\r\n", b"{", b"a,c,b\n1,2,3\n", b'{"a": 1}\n'])
def test_what_somebody_else_wrote_stays(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"file{suffix}"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=r"not Tilecast's, so no list replaces it"):
        write_list(path)
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def make_link_to_a_device(path: Path) -> None:
    path.symlink_to("/dev/full")


def make_link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


@pytest.mark.parametrize("make", [make_fifo, make_socket, make_link_to_a_device, make_link_to_itself])
def test_what_is_no_regular_file_stays(tmp_path: Path, make: Callable[[Path], None]) -> None:
    path = tmp_path / "t.json"
    make(path)
    before = path.lstat()
    for attempt in (lambda: check_file(path, LIST), lambda: check_folder(path, BOOK), lambda: write_list(path)):
        with pytest.raises(BadInput, match=r"expected a|leads to itself|symbolic links"):
            attempt()
    after = path.lstat()
    assert (after.st_mode, after.st_ino) == (before.st_mode, before.st_ino)


def test_a_folder_is_no_place_for_a_file(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is a folder, expected a regular file"):
        check_file(tmp_path, LIST)


def test_an_input_is_not_replaced_under_any_name(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    write_list(path)
    (tmp_path / "link.json").symlink_to(path)
    os.link(path, tmp_path / "hard.json")
    with reading([path]):
        for name in ("t.json", "link.json", "hard.json", "../" + tmp_path.name + "/t.json"):
            with pytest.raises(BadInput, match="is an input of this command"):
                check_file(tmp_path / name, LIST)
    write_list(path)


def test_a_link_stands_for_what_it_leads_to(tmp_path: Path) -> None:
    target, link = tmp_path / "elsewhere" / "t.json", tmp_path / "link.json"
    target.parent.mkdir()
    link.symlink_to(target)
    write_list(link)
    assert link.is_symlink()
    assert mark_of(target) == "list"
    target.write_text("mine")
    with pytest.raises(BadInput, match="not Tilecast's"):
        write_list(link)


def test_what_appears_while_one_writes_stays(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    with pytest.raises(BadInput, match="not Tilecast's"), whole_file(path, LIST):
        path.write_text("mine")
    assert path.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [path]


def test_folders_made_for_nothing_are_taken_away(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), whole_file(tmp_path / "a" / "b" / "t.json", LIST):
        raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError), claim_folder(tmp_path / "c" / "d", BOOK):
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["file", "file/below", "file/further/below"])
def test_a_file_in_the_way_of_a_folder_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(BadInput, match=r"expected a folder|is not a folder"), claim_folder(tmp_path / name, BOOK):
        pass
    assert (tmp_path / "file").read_text() == "mine"


def test_the_longest_name_can_be_written_and_a_longer_one_is_named(tmp_path: Path) -> None:
    write_list(tmp_path / ("n" * 250 + ".json"))
    write_list(tmp_path / ("ü" * 124 + ".json"))
    for name in ("n" * 300 + ".json", "a\0b.json"):
        with pytest.raises(BadInput, match=r"the name is too long for a file|zero character"):
            check_file(tmp_path / name, LIST)


def test_home_is_home_wherever_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write_list(Path("~/t.json"))
    with claim_folder(Path("~/book"), BOOK) as folder:
        assert folder.path == tmp_path / "book"
    assert (tmp_path / "t.json").is_file()


# folders


def fill(folder: Path, text: str) -> None:
    with claim_folder(folder, BOOK) as claimed, claimed.renewed() as new:
        (new / "notes.jsonl").write_text("{}\n")
        (new / "part.json").write_text(LIST.json(json.dumps({"text": text})))
        (new / "book.json").write_text(BOOK.json("{}"))
    (folder / "leaves").mkdir(exist_ok=True)
    with whole_file(folder / "leaves" / "7.png", BOOK) as temporary:
        Image.new("RGB", (2, 2)).save(temporary, pnginfo=BOOK.png())


def listed(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_a_folder_is_renewed_and_what_is_not_tilecasts_stays(tmp_path: Path) -> None:
    folder = tmp_path / "book"
    fill(folder, "one")
    (folder / "mine.txt").write_text("mine")
    (folder / "leaves" / "mine.png").write_text("mine")
    fill(folder, "two")
    wanted = {"notes.jsonl", "part.json", "book.json", "leaves", "leaves/7.png", "mine.txt", "leaves/mine.png"}
    assert listed(folder) == wanted
    assert json.loads((folder / "part.json").read_text())["text"] == "two"
    with claim_folder(folder, BOOK) as claimed:
        claimed.clear()
    assert listed(folder) == {"mine.txt", "leaves", "leaves/mine.png"}
    with pytest.raises(BadInput, match="is no book but holds other things"):
        fill(folder, "three")


def test_a_picture_of_a_person_in_the_place_of_one_of_tilecasts_stays(tmp_path: Path) -> None:
    fill(tmp_path, "one")
    (tmp_path / "leaves" / "12.png").write_text("mine")
    with pytest.raises(BadInput, match=r"leaves/12\.png is not Tilecast's, so no book replaces it"):
        fill(tmp_path, "two")
    assert json.loads((tmp_path / "part.json").read_text())["text"] == "one"


@pytest.mark.parametrize("name", ["book.json", "part.json", "notes.jsonl", "leaves"])
def test_a_folder_with_something_else_in_the_place_of_a_file_is_refused(tmp_path: Path, name: str) -> None:
    folder, elsewhere = tmp_path / "book", tmp_path / "elsewhere"
    fill(folder, "one")
    (folder / name).rename(elsewhere)
    (folder / name).symlink_to(elsewhere)
    with pytest.raises(BadInput, match=f"{name} is a link, expected a f"):
        fill(folder, "two")
    assert elsewhere.exists()


def test_a_folder_of_another_kind_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, "one")
    with pytest.raises(BadInput, match="is a book of Tilecast, so no shelf is written there"):
        check_folder(tmp_path, OutputKind("shelf", files={"shelf.json": "shelf"}))
    with pytest.raises(BadInput, match=r"book\.json is of a book, so no shelf replaces it"):
        check_folder(tmp_path, OutputKind("shelf", files={"book.json": "shelf"}))


HOLD = """
import sys, time
from pathlib import Path
from traces.marks import OutputKind
from traces.output import claim_folder, whole_file
with claim_folder(Path(sys.argv[1]), OutputKind("book", files={"book.json": "book"})) as folder, folder.renewed(), \\
        whole_file(folder.path.parent / "t.json", OutputKind("list")):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_folder_in_use_is_refused_and_what_a_killed_process_left_goes(tmp_path: Path) -> None:
    folder = tmp_path / "book"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, folder], stdout=subprocess.PIPE, text=True, cwd=ROOT, env={**os.environ}
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(BadInput, match="is in use by another process"):
        fill(folder, "two")
    write_list(tmp_path / "other.json")  # beside it, while it lives
    hidden = [path for path in (*tmp_path.iterdir(), *folder.iterdir()) if path.name.startswith(".")]
    assert len(hidden) == 2
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    mine = tmp_path / ".t.tilecast-notes"
    mine.write_text("mine")
    fill(folder, "two")
    assert {path.name for path in tmp_path.iterdir()} == {"book", "other.json", ".t.tilecast-notes"}
    assert not [name for name in listed(folder) if name.startswith(".")]


def test_a_file_system_without_locks_is_written_to_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    fill(tmp_path / "book", "one")
    write_list(tmp_path / "t.json")
    assert not [name for name in listed(tmp_path) if name.startswith(".")]
