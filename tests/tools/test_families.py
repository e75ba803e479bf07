"""The table of families says what is so: two of its rows are tried again."""

from __future__ import annotations

import re

import pytest

torch = pytest.importorskip("torch")

from tests.backend.families import FAMILIES  # noqa: E402
from tools.families import TABLE, WAYS, Row, document, row_of  # noqa: E402

TRIED = WAYS[:-1]
"""Several devices take processes, and seconds."""


def told(page: str) -> dict[str, dict[str, str]]:
    """What a page says of each family and way, the reason in the place of its number."""
    reasons = dict(re.findall(r"^(\d+)\. (.*)$", page, re.M))
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line[:1] == "|"][2:]
    said = {}
    for family, _, *cells in rows:
        written = [re.sub(r" \[(\d+)\]$", lambda found: f": {reasons[found[1]]}", cell) for cell in cells]
        said[family] = dict(zip(WAYS, written, strict=True))
    return said


def test_the_table_has_all_families() -> None:
    assert list(told(TABLE.read_text())) == list(FAMILIES)


@pytest.mark.parametrize("name", ["Z-Image", "PixArt-sigma"])
def test_a_row_says_what_is_so(name: str) -> None:
    """If not: run python -m tools.families."""
    row = row_of(name, TRIED)
    found = {way: f"{row.cells[way]}: {row.reasons[way]}" if way in row.reasons else row.cells[way] for way in TRIED}
    said = told(TABLE.read_text())[name]
    assert {way: said[way] for way in TRIED} == found
    assert found["packed"] == "blocks"


def test_reasons_are_told_once() -> None:
    rows = [
        Row(name, "Pipeline", dict.fromkeys(WAYS, "no"), {"tiled": "it cannot", "cached": "nor that"})
        for name in ("one", "two")
    ]
    page = document(rows)
    assert page.count("it cannot") == page.count("nor that") == 1
    assert told(page)["two"] == dict.fromkeys(WAYS, "no") | {"tiled": "no: it cannot", "cached": "no: nor that"}
