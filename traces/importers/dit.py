"""Traces of vLLM-Omni's diffusion serving benchmark: mixed images and clips for diffusion transformers.

Published as text, one request a line: ``Request(request_id=0, timestamp=0.0, height=256, width=256, ...)``.
The same fields as JSON lines or CSV are read too: timestamp (s), height, width, num_inference_steps, and
optionally request_id, num_frames, prompt, seed, slo_ms (a span after the arrival).
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pandas as pd

from traces.columns import Cells, numbers
from traces.errors import BadInput
from traces.files import frame_of, read_frame, require_columns
from traces.importers.imported import Imported, Sieve
from traces.text import read_text

REQUIRED = {"arrival_s": "timestamp", "height": "height", "width": "width", "steps": "num_inference_steps"}
OPTIONAL = {
    "frames": "num_frames",
    "seed": "seed",
    "slo_s": "slo_ms",
    "request_id": "request_id",
    "prompt": "prompt",
}
_TEXT = ("request_id", "prompt")


def import_dit(path: Path, *, model: str = "", limit: int | None = None) -> Imported:
    """The trace in a vLLM-Omni trace file (.txt, .jsonl or .csv); its clock is kept, but for times since 1970.

    Args:
        path: the file.
        model: what the requests ask for.
        limit: only the first arrivals.

    Raises:
        BadInput: an unreadable file or line, a missing field, a bad cell, or no row left.
    """
    source = str(path)
    table = frame_of(_lines(path)) if Path(path).suffix == ".txt" else read_frame(path, text=_TEXT)
    require_columns(table, tuple(REQUIRED.values()), source)
    sieve = Sieve(table, source)
    sieve.leave_out_empty({column: column for column in REQUIRED.values()})
    columns = REQUIRED | {field: column for field, column in OPTIONAL.items() if column in table}
    cells = Cells(source, sieve.rows, columns)
    frame = pd.DataFrame(
        {
            field: sieve.frame[column] if field in _TEXT else numbers(sieve.frame[column], field, cells)
            for field, column in columns.items()
        }
    ).assign(model=model)
    if "slo_s" in frame:
        frame["slo_s"] = frame["slo_s"] / 1000
    sieve.note_unused([name for name in table.columns if name not in columns.values()])
    return sieve.imported(frame, columns, limit)


def _lines(path: Path) -> list[dict[str, Any]]:
    records = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if line.strip():
            try:
                records.append(_request(line.strip()))
            except BadInput as error:
                raise BadInput(f"{path}: line {number} {error}") from None
            except (ValueError, SyntaxError, MemoryError, RecursionError):
                raise BadInput(
                    f"{path}: line {number} is {line.strip()[:60]!r}, "
                    "expected Request(name=value, ...) with plain values"
                ) from None
    return records


def _request(line: str) -> dict[str, Any]:
    """The keyword arguments of a line that spells ``Request(...)``; nothing in it is run."""
    call = ast.parse(line, mode="eval").body
    if not (
        isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "Request" and not call.args
    ):
        raise ValueError("not a Request(...)")
    names = [keyword.arg for keyword in call.keywords]
    for at, name in enumerate(names):
        if name is None:
            raise ValueError("**")
        if name in names[:at]:
            raise BadInput(f"gives {name!r} twice, expected it once")
    return {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
