"""Adapters as text: what a set is, and what is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from traces.adapters import ADAPTERS, adapters_in, same_adapters
from traces.errors import BadInput
from traces.request import Request
from traces.trace import Trace


def test_a_set_is_the_same_in_any_order_and_spelling() -> None:
    spellings = ("style:0.8+detail", "detail + style:.8", "detail:1.0+style:8e-1")
    assert {adapters_in(text) for text in spellings} == {(("detail", 1.0), ("style", 0.8))}
    assert {same_adapters(text) for text in spellings} == {"detail+style:0.8"}
    assert adapters_in(same_adapters("pixel art:-0.1+x.v2")) == adapters_in("pixel art:-0.1+x.v2")
    assert adapters_in("") == ()


@pytest.mark.parametrize(
    "text",
    [
        "2",
        "0",
        "style:",
        "style:much",
        "style:nan",
        "style:1000",
        ":1",
        "a+",
        "a+a:2",
        "../a",
        "a/b",
        "a\\b",
        ".a",
        "a\n",
    ],
)
def test_what_names_no_adapters_is_refused_where_it_stands(text: str, tmp_path: Path) -> None:
    assert not ADAPTERS.holds(text)
    right = "expected adapters' names and weights, like 'style:0.8.detail'"
    with pytest.raises(BadInput, match=f"request 'r': adapters is .*{right}"):
        Request("r", 0.0, 64, 64, 4, adapters=text)
    rows = [{"arrival_s": 0, "height": 64, "width": 64, "steps": 4, "adapters": each} for each in ("ok", text)]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(BadInput, match=f"t.jsonl: record 2: adapters is .*{right}"):
        Trace.load(tmp_path / "t.jsonl")
