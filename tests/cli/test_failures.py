"""How commands end that cannot go on: one line each, and the traceback of what nobody expected in a file."""

from __future__ import annotations

import errno
import re
import threading
from pathlib import Path

import pytest

from cli import app as application
from cli import main as command
from cli.failures import as_written, failed, failing_threads
from policies.contract import PolicyError
from tests.cli.run_command import own_signals, refused
from traces.errors import BadInput


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (BadInput("row 3: \x1b[2J\nis bad"), 2, r"error: row 3: \x1b[2J\nis bad"),
        (PolicyError("it stalls"), 2, "error: it stalls"),
        (MemoryError(), 2, "error: not enough memory"),
        (OSError(errno.ENOSPC, "No space left on device", "/x/y"), 2, "error: No space left on device: /x/y"),
        (ZeroDivisionError("division by zero"), 70, "internal error: ZeroDivisionError: division by zero; please"),
        (OverflowError(34, "Result too large\nsecond line"), 70, "internal error: OverflowError"),
    ],
)
def test_whatever_ends_a_command_is_said_in_one_line(
    error: Exception, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert failed(error) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(said)
    assert printed.err.count("\n") == 1


def test_the_traceback_of_a_mistake_lies_in_the_file_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> None:
        raise ZeroDivisionError("nobody expected this")

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(application, "app", broken)
    with pytest.raises(SystemExit) as ended, own_signals():
        command.main()
    assert ended.value.code == 70
    line = capsys.readouterr().err
    [file] = re.findall(r"with (\S+\.txt), which", line)
    assert Path(file).parent == tmp_path / "state" / "tilecast" / "errors"
    assert 'raise ZeroDivisionError("nobody expected this")' in Path(file).read_text(encoding="utf-8")


def test_a_state_folder_that_cannot_be_written_to_is_no_second_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert failed(KeyError("x")) == 70
    assert str(tmp_path / "tilecast-errors-") in capsys.readouterr().err
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "file"))
    assert failed(KeyError("x")) == 70
    assert "no folder could be written to" in capsys.readouterr().err


def test_what_ends_a_thread_is_a_line_too(capsys: pytest.CaptureFixture[str]) -> None:
    def broken() -> None:
        raise BadInput("of a thread")

    with failing_threads():
        thread = threading.Thread(target=broken)
        thread.start()
        thread.join()
    assert capsys.readouterr().err == "error: of a thread\n"


def test_files_have_the_names_that_the_user_gave_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "there").symlink_to(tmp_path / "in")
    monkeypatch.chdir(tmp_path / "in")
    monkeypatch.setenv("HOME", str(tmp_path))
    for text, words, said in (
        (f"{tmp_path}/in/t.csv: row 3 is bad", ["--trace", "t.csv"], "t.csv: row 3 is bad"),
        (f"{tmp_path}/in/run/run.json is missing", ["report", "run"], "run/run.json is missing"),
        (f"{tmp_path}/t.csv: no rows", ["--trace=../t.csv"], "../t.csv: no rows"),
        (f"no file {tmp_path}/in/p.py", ["p.py:Mine"], "no file p.py"),
        (f"{tmp_path}/x/k.toml: bad", ["~/x/k.toml:kind"], "~/x/k.toml: bad"),
        (f"{tmp_path}/in/r is no run", ["../there/r"], "../there/r is no run"),
        (f"{tmp_path}/other/file", ["t.csv", "/", "", "a\0b"], f"{tmp_path}/other/file"),
    ):
        assert as_written(text, words) == said


def test_errors_name_files_as_they_were_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.toml").write_text('model = "tiny-image"\n', encoding="utf-8")
    (tmp_path / "t.csv").write_text("arrival_s,height\n1,2\n", encoding="utf-8")
    for words in (
        ("simulate", "s.toml", "--trace", "t.csv", "--profile", "cpu-1core", "-o", "r"),
        ("simulate", "s.toml", "--trace", "none.csv", "--profile", "cpu-1core", "-o", "r"),
        ("simulate", "s.toml", "--trace", "t.csv", "--profile", "none.parquet", "-o", "r"),
        ("simulate", "s.toml", "--trace", "t.csv", "--scheduler", "none.py:Mine", "-o", "r"),
        ("report", "none"),
        ("validate", "none", "none"),
        ("trace", "describe", "none.csv"),
    ):
        assert str(tmp_path) not in refused(*words)
