"""Text files from other systems, and the rule that nothing of ours depends on the locale."""

from __future__ import annotations

import ast
import gzip
from collections.abc import Iterator
from pathlib import Path

import pytest

from traces.errors import BadInput
from traces.files import read_frame
from traces.prompts import load_prompts
from traces.text import read_json, read_text, read_toml, write_text

ROOT = Path(__file__).parents[2]
PACKAGES = ("traces", "predictors", "policies", "sim", "backend", "reports", "cli", "benchmarks")
TOML = 'model = "café"\r\n[trace]\r\npath = "日本.csv"\r\n'


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_toml_file_is_read_however_it_was_saved(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "dossier é.toml"
    path.write_bytes(TOML.encode(encoding))
    assert read_toml(path) == {"model": "café", "trace": {"path": "日本.csv"}}
    path.write_bytes(gzip.compress(TOML.encode(encoding)))
    assert read_toml(path)["model"] == "café"


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (TOML.encode("latin-1", "replace"), "not UTF-8 text; save it as UTF-8"),
        (b"\xff\xfea", "not UTF-16 text"),
        (b" \n", "the file is empty"),
        (b"model", "is not TOML"),
        (b"a = " + b"[" * 5000, "is not TOML"),
        (b"a\0 = 1", "is not TOML"),
    ],
)
def test_what_cannot_be_read_is_said_in_a_line(tmp_path: Path, data: bytes, complaint: str) -> None:
    (tmp_path / "s.toml").write_bytes(data)
    with pytest.raises(BadInput, match=complaint) as caught:
        read_toml(tmp_path / "s.toml")
    assert "\n" not in str(caught.value)


def test_a_path_that_cannot_be_and_json_that_never_ends(tmp_path: Path) -> None:
    for name in ("x" * 5000, "a\0b", "none.toml"):
        with pytest.raises(BadInput, match="cannot be read"):
            read_text(tmp_path / name)
    write_text(tmp_path / "a.json", "[" * 100_000)
    with pytest.raises(BadInput, match="is not JSON"):
        read_json(tmp_path / "a.json")


def test_every_text_file_names_its_encoding() -> None:
    assert list(_locale_dependent()) == []


def _locale_dependent() -> Iterator[str]:
    """Calls that open text in whatever encoding the locale has."""
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if not isinstance(node, ast.Call) or any(word.arg == "encoding" for word in node.keywords):
                    continue
                function = node.func
                name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
                modes = [arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
                opens = name in ("open", "fdopen") and ast.unparse(function) not in ("Image.open", "os.open")
                text = opens and not any("b" in mode for mode in modes)
                method = name in ("read_text", "write_text") and isinstance(function, ast.Attribute)
                if text or method:
                    yield f"{path.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node)}"


def test_half_a_character_in_json_lines_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_bytes(b'{"prompt": "\\ud83d\\ude00"}\n{"prompt": "\\ud800"}\n')
    with pytest.raises(BadInput, match="line 2 holds half of a character"):
        read_frame(tmp_path / "t.jsonl")


def test_a_name_that_is_not_in_utf_8_is_refused_before_anything_is_written() -> None:
    from traces.paths import user_path, with_home

    for look in (user_path, with_home):
        with pytest.raises(BadInput, match=r"'\\udcff.csv' is not in UTF-8"):
            look("\udcff.csv")


def test_a_line_that_is_too_deep_is_no_json(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text("[" * 100_000)
    with pytest.raises(BadInput, match="line 1 is not JSON"):
        read_frame(tmp_path / "t.jsonl")


@pytest.mark.parametrize("date", ["0001-01-01", "9999-12-31 23:59:59"])
def test_a_date_that_no_clock_reaches_is_said(tmp_path: Path, date: str) -> None:
    from traces.importers.table import import_table, parse_mapping

    (tmp_path / "t.csv").write_text(f"t,height,width,steps\n{date},96,96,2\n")
    with pytest.raises(BadInput, match=r"row 2 counting the header.*expected a date like"):
        import_table(tmp_path / "t.csv", parse_mapping(["arrival_s=t:date"]))


@pytest.mark.parametrize(
    "text", ["[" + ".".join("a" * 5000) + "]", "a" + ".a" * 3000 + " = 1", "a = " + "[" * 200 + "]" * 200]
)
def test_toml_that_is_nested_too_deep_is_said(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(BadInput, match=r"a\.toml: tables and lists are nested more than 100 deep"):
        read_toml(tmp_path / "a.toml")


def test_prompts_are_prompts(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("a cat\n\na dog\x00\n")
    with pytest.raises(BadInput, match="prompt 2 is 'a dog"):
        load_prompts(tmp_path / "p.txt")
    (tmp_path / "p.txt").write_text("a cat\n\n a dog\n")
    assert load_prompts(tmp_path / "p.txt") == ["a cat", "a dog"]
