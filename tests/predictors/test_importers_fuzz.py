"""Broken files of every form end in a profile or in one line that names the file, whatever is wrong with them.

``TILECAST_FUZZ=10000`` tries as many of each form; ``TILECAST_FUZZ_SEED`` others.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import pickle
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from predictors.importers.formats import import_measurements
from predictors.importers.reported import ImportOptions
from predictors.profile import Profile
from tests.predictors.reported_files import (
    CATALOGUE,
    EXAMPLES,
    MIXFUSION_MIXED,
    MLPERF,
    OFFLINE,
    SGLANG_LOG,
    VLLM_RECORD,
    Example,
)
from traces.errors import BadInput

CASES = int(os.environ.get("TILECAST_FUZZ", "25"))
SEED = os.environ.get("TILECAST_FUZZ_SEED", "0")

ALL = {
    **EXAMPLES,
    "mixed": replace(EXAMPLES["mixfusion"], name="unet_time_sd3.csv", text=MIXFUSION_MIXED),
    "offline": replace(EXAMPLES["mlperf"], text=OFFLINE, said=ImportOptions(hardware="gpu", batch=2, gpus=2)),
    "submissions": replace(
        EXAMPLES["mlperf"],
        name="summary.csv",
        text=MLPERF,
        said=ImportOptions(batch=2, where={"scenario": "Offline"}),
    ),
    "catalogue": replace(
        EXAMPLES["published"], name="c.csv", text=CATALOGUE, said=ImportOptions(where={"remarks": "cached"})
    ),
    "records": replace(EXAMPLES["vllm-omni"], name="records.json", text=json.dumps([VLLM_RECORD, VLLM_RECORD])),
    "log": replace(
        EXAMPLES["sglang"],
        name="performance.log",
        text=f"{json.dumps(SGLANG_LOG)}\n{json.dumps(SGLANG_LOG)}\n",
        said=replace(EXAMPLES["sglang"].said, model="wan-1.3b"),
    ),
}
VALUES: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 0.0, -0.5, 1.5, 2**31, 2**63, 10**400, 1e300, 1e-300, 5e-324),
    *(
        float("nan"),
        float("inf"),
        "",
        " ",
        "x",
        "-1",
        "1e999",
        "9" * 400,
        "\0",
        "\x1b[2J",
        "a\nb",
        "\u202e",
        "y" * 500,
    ),
    *([], {}, [1], [[]], {"a": 1}, "none", "1", "SingleStream", "trace", "step_s"),
)
CELLS = (
    *("", " ", "x", "nan", "inf", "-1", "0", "1.5", "1e999", "1e-320", "9" * 400, "True", "None", "\0", "\x1b[2J"),
    *("1_0", "0x10", "é", "\u202e", "y" * 500, "Offline", "latency_s", "2147483648", "=1+1", "['a']"),
)
BYTES = (
    *(b"", b"\n\n", b"\0", b"\xff\xfe", b"PK\x03\x04", b"{", b"[", b'"', b"null", b"NaN", b"{}", b"[[]]", b"[null]"),
    *(b"PAR1", b"\x1f\x8b\x08\0", b"\x89PNG", "\ufeff".encode(), b"a,b\n1,2\n1\n", b"[" * 100_000, b'{"a":' * 100_000),
    *(b"MLPerf Results Summary", b"x" * 1_000_000, pickle.dumps({"a": 1}), b"\xe9\xe8", b"quantity,value,system\n,,\n"),
)


def set_leaf(document: Any, rng: random.Random) -> Any:
    """The document with one value somewhere in it replaced, left out, or put there anew."""
    if not isinstance(document, dict | list) or not document or rng.random() < 0.1:
        return rng.choice(VALUES)
    keys = list(document) if isinstance(document, dict) else list(range(len(document)))
    key, drawn = rng.choice(keys), rng.random()
    if drawn < 0.1:
        return {k: v for k, v in document.items() if k != key} if isinstance(document, dict) else document[:key]
    if drawn < 0.15 and isinstance(document, dict):
        return {**document, rng.choice(("x", "stages", "result", "latency_median", "\x1b")): rng.choice(VALUES)}
    changed = document.copy()
    changed[key] = set_leaf(document[key], rng)
    return changed


def broken_json(text: str, rng: random.Random) -> bytes:
    lines = text.strip().split("\n") if not text.lstrip().startswith(("[", "{\n")) else [text]
    return "\n".join([json.dumps(set_leaf(json.loads(line), rng)) for line in lines]).encode()


def broken_table(text: str, rng: random.Random) -> bytes:
    rows = list(csv.reader(io.StringIO(text)))
    drawn, at = rng.random(), rng.randrange(len(rows[0]))
    if drawn < 0.6:
        rows[rng.randrange(1, len(rows))][at] = rng.choice(CELLS)
    elif drawn < 0.7:
        rows = [[*row[:at], *row[at + 1 :]] for row in rows]
    elif drawn < 0.8:
        rows = [[*row, row[at]] for row in rows]
    elif drawn < 0.9:
        rows[0][at] = rng.choice(CELLS)
    else:
        del rows[rng.randrange(len(rows))][at]
    written = io.StringIO()
    csv.writer(written).writerows(rows)
    return written.getvalue().encode("utf-8", "surrogatepass")


def broken_text(text: str, rng: random.Random) -> bytes:
    lines = text.splitlines()
    at = rng.randrange(len(lines))
    head, colon, _ = lines[at].partition(":")
    lines[at] = head + colon + rng.choice(CELLS) if rng.random() < 0.7 else rng.choice(CELLS)
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def broken_bytes(text: str, rng: random.Random) -> bytes:
    data, drawn = text.encode(), rng.random()
    at = rng.randrange(len(data))
    if drawn < 0.2:
        return data[:at]
    if drawn < 0.5:
        return data[:at] + bytes(rng.randrange(256) for _ in range(rng.randrange(1, 5))) + data[at + 1 :]
    if drawn < 0.7:
        return data[:at] + rng.choice(BYTES) + data[at:]
    if drawn < 0.8:
        return rng.choice((text.encode("utf-16"), gzip.compress(data)[: rng.randrange(1, 60)], data * 3))
    return rng.choice(BYTES)


def broken(example: Example, rng: random.Random) -> bytes:
    own: Callable[[str, random.Random], bytes] = broken_text
    if example.name.endswith(".csv"):
        own = broken_table
    elif not example.name.endswith(".txt"):
        own = broken_json
    return rng.choice((own, own, broken_bytes))(example.text, rng)


@pytest.mark.parametrize("name", ALL)
def test_a_broken_file_ends_in_one_line(name: str, tmp_path: Path) -> None:
    example, rng = ALL[name], random.Random(f"{SEED}/{name}")
    path = tmp_path / example.name
    refused = 0
    for _ in range(CASES):
        data = broken(example, rng)
        path.write_bytes(data)
        form = rng.choice(("", "", example.form))
        try:
            profile = import_measurements([path], form, example.said).profile
        except BadInput as error:
            refused += 1
            message = str(error)
            assert message.strip(), data
            assert len(message.splitlines()) == 1, (data, message)
            assert len(message) < 2500, (data, message)
            assert str(path) in message or message.startswith(("--where", "5 rows")) or "rows differ" in message, (
                message
            )
        else:
            assert isinstance(profile, Profile)
            assert (profile.frame["seconds"] > 0).all()
    assert 0 < refused < CASES or example.form == "mixfusion"


@pytest.mark.parametrize("kind", ["wrong", "types"])
def test_tables_of_parquet_may_hold_anything(kind: str, tmp_path: Path) -> None:
    frame = pd.read_csv(io.StringIO(EXAMPLES["published"].text))
    frame.to_parquet(tmp_path / "fine.parquet")
    fine = import_measurements([tmp_path / "fine.parquet"]).profile
    assert len(fine.frame) == 6
    values: dict[str, list[Any]] = {
        "wrong": [b"\xff", pd.Timestamp("2026-01-01"), True],
        "types": [[1, 2], {"a": 1}, pd.Timedelta(1, "s")],
    }
    for column in ("system", "model", "height", "steps", "batch", "quantity", "value", "engine", "gpus"):
        for value in values[kind]:
            path = tmp_path / "broken.parquet"
            frame.assign(**{column: [value] * len(frame)}).to_parquet(path)
            with pytest.raises(BadInput) as caught:
                import_measurements([path])
            assert "broken.parquet" in str(caught.value), (column, value)
