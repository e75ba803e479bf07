"""What reaches the terminal, and that nothing goes another way."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.table import Table

from reports.console import any_text, new_console, printable, say
from reports.progress import ProgressLines, shown

ROOT = Path(__file__).parents[2]
HOSTILE = "a\x1b[2J\x07\x9b31m\u202e[bold]b[/x]"


def test_control_characters_are_spelled_out() -> None:
    assert printable(HOSTILE) == r"a\x1b[2J\x07\x9b31m\u202e[bold]b[/x]"
    assert printable("two\nlines") == "two\nlines"
    assert printable("two\nlines", lines=False) == r"two\nlines"
    assert printable("dossier é 日本 😀") == "dossier é 日本 😀"


def test_tables_and_lines_show_names_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table(title=HOSTILE)
    table.add_column(HOSTILE)
    table.add_row(HOSTILE)
    console = new_console(width=200)
    console.print(table)
    console.print(HOSTILE)
    say(HOSTILE)
    printed = capsys.readouterr().out
    assert printed.count(r"\x1b[2J") == printed.count("[bold]b[/x]") == 5
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", printed)


def test_a_terminal_that_lacks_a_character_shows_its_number() -> None:
    narrow = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    any_text(narrow)
    print("café ± 日", file=narrow, flush=True)
    assert narrow.buffer.getvalue() == b"caf\\xe9 \\xb1 \\u65e5\n"  # type: ignore[attr-defined]


def test_a_reader_that_has_gone_ends_nothing(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from reports.console import new_console, say, flush\n"
        "for n in range(3000): say('x' * 100)\n"
        "new_console().print('y' * 100_000)\nflush()\nPath('done').touch()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, stdout=-1, stderr=-1
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert process.returncode == 0
    assert (tmp_path / "done").exists()


def test_nothing_is_printed_another_way() -> None:
    others = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for package in ("traces", "predictors", "policies", "sim", "reports", "cli")
        for path in (ROOT / package).rglob("*.py")
        if path.name != "console.py"
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.search(r"(?<![\w.])(print|Console|typer\.echo|click\.echo)\(", line)
    ]
    assert others == []


def test_progress_that_is_written_to_a_file_is_a_line_now_and_then():
    lines, now = [], [0.0]
    progress = ProgressLines(lines.append, lambda: now[0])
    for second in range(0, 3601):
        now[0] = float(second)
        progress.tell("simulating", 7200, 2 * second)
    assert lines[:3] == [
        "simulating: 20 of 7,200 (0 %) after 10 s",
        "simulating: 60 of 7,200 (1 %) after 30 s",
        "simulating: 140 of 7,200 (2 %) after 70 s",
    ]
    assert 10 < len(lines) < 20
    now[0] = 1e6
    progress.tell("searching", 0, 7)
    assert lines[-1] == "searching: 7 done after 1000000 s"


def test_progress_is_no_bar_where_there_is_no_terminal(capsys):
    with shown() as tell:
        tell("simulating", 10, 3)
    assert capsys.readouterr() == ("", "")
