"""The run log: what a run leaves behind, the same from both drivers.

A run is a folder: ``requests.parquet`` (one row a request of the trace, in trace order), ``steps.parquet`` (one row a
launch and stage it went through) and ``run.json`` (scenario, seed, versions, hardware); a replay adds ``events.jsonl``
(what the controller was told and what it answered, see `policies.events`; written as it goes, see `policies.livelog`)
and what it was given, ``trace.parquet`` and ``profile.parquet``.
Reports, validation and comparisons read run logs and nothing else. Times are seconds on the
trace's clock. A simulation's log holds no wall-clock time, so that the same seed gives the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from traces.errors import BadInput
from traces.files import read_table, row_at
from traces.marks import OutputKind
from traces.output import Folder
from traces.table_columns import TableColumn, dtypes_of
from traces.text import read_json, write_text

REQUESTS: dict[str, TableColumn] = {
    "request_id": TableColumn("str", "What the trace calls it."),
    "arrival_s": TableColumn("float64", "When it came, seconds on the trace's clock."),
    "height": TableColumn("int32", "Of each picture, pixels."),
    "width": TableColumn("int32", "Of each picture, pixels."),
    "frames": TableColumn("int32", "Of a clip; 1 for a picture."),
    "steps": TableColumn("int32", "Denoising steps asked for."),
    "images": TableColumn("int32", "Pictures of its prompt."),
    "model": TableColumn("str", "Which model it wants; empty: the scenario's."),
    "tenant": TableColumn("str", "Whose it is."),
    "priority": TableColumn("int32", "How important it is; 0 is usual, larger is more important."),
    "deadline_s": TableColumn("float64", "By when it is to be done, seconds on the trace's clock; NaN: no deadline."),
    "standalone_s": TableColumn("float64", "Predicted seconds alone on an idle replica; NaN: unknown."),
    "status": TableColumn("str", "How it ended: finished, dropped, failed or cancelled."),
    "reason": TableColumn("str", "Why it was dropped, failed or cancelled."),
    "note": TableColumn(
        "str", "What else its client should know: a prompt that was cut, a picture that was blacked out."
    ),
    "first_start_s": TableColumn("float64", "When it first ran, seconds on the trace's clock; NaN: it never started."),
    "finish_s": TableColumn("float64", "When it ended, however it ended, seconds on the trace's clock."),
    "steps_done": TableColumn("int32", "Denoising steps done."),
    "replica": TableColumn("int32", "Which replica it ran on last; -1: it never started."),
    "extrapolated": TableColumn("bool", "Whether a launch of it was predicted outside the measured range."),
    "checkpoint": TableColumn("str", "The weights it wants; empty: the model's."),
    "adapters": TableColumn("str", "Those on top of the weights, with how much each counts."),
    "attempts": TableColumn(
        "int32",
        "1, and 1 more for every replica, or run that was resumed, that ended under it; 0: it was never submitted.",
    ),
    "replicas": TableColumn(
        "str", "Where each of its legs ran, of pools that serve some stages each, like 0 4; else the one replica."
    ),
}
REQUEST_COLUMNS = dtypes_of(REQUESTS)
"""Columns of ``requests.parquet`` with their types."""

LAUNCHES: dict[str, TableColumn] = {
    "launch_id": TableColumn("int64", "Which launch; one that goes from stage to stage has a row for each."),
    "replica": TableColumn("int32", "Where it ran."),
    "stage": TableColumn(
        "str",
        "What ran: encode, denoise or decode; of tiled requests encode, sketch, upscale, refine or decode; adapt where "
        "an adapter is put on, reshard where latents move to other devices, receive where what another replica has "
        "handed on comes, load where weights come, for no request.",
    ),
    "start_s": TableColumn("float64", "When it began, seconds on the trace's clock."),
    "end_s": TableColumn("float64", "When it ended, seconds on the trace's clock."),
    "steps": TableColumn("int32", "Steps done; 1 for encode, upscale and decode."),
    "planned_steps": TableColumn("int32", "Steps asked for; more than done where it was recalled or failed."),
    "requests": TableColumn("int32", "How many requests shared it."),
    "composition": TableColumn("str", "How many pictures of each size, like 2@1024x1024+1@512x512."),
    "request_ids": TableColumn("object", "Which requests, a list in the order of the batch."),
    "predicted_s": TableColumn("float64", "What the policy predicted for the steps done, seconds; NaN: nothing."),
    "computed": TableColumn("int64", "Units computed: steps of pictures, or with a cache patches or tiles."),
    "reused": TableColumn("int64", "Units taken from a cache."),
    "extrapolated": TableColumn("bool", "Whether it was predicted outside the measured range."),
    "device_s": TableColumn("float64", "Busy seconds, over all devices of the replica."),
    "checkpoint": TableColumn("str", "Whose weights ran, or were loaded; empty: the model's."),
    "devices": TableColumn(
        "str", "Which devices of the replica it had to itself: 0 for the first, 0 2 for that and the third."
    ),
    "moved_bytes": TableColumn(
        "int64", "Bytes of its requests that came from elsewhere, to other devices or another replica."
    ),
}
STEP_COLUMNS = dtypes_of(LAUNCHES)
"""Columns of ``steps.parquet`` with their types."""

FILES = ("requests.parquet", "steps.parquet", "run.json")
_COLUMNS = {"requests.parquet": REQUEST_COLUMNS, "steps.parquet": STEP_COLUMNS}
UNFINISHED = "unfinished"
"""Key of the ``run.json`` of a run that goes on, or was killed: its events may know more than its tables."""

SIMULATION = OutputKind("simulation", files=dict.fromkeys(FILES, "simulation"))
REPLAY = OutputKind(
    "replay",
    files={
        "events.jsonl": "",
        "trace.parquet": "trace",
        "profile.parquet": "profile",
        **dict.fromkeys(FILES, "replay"),
    },
    folders={"images": r"\d{6,}(-\w+)*\.(png|webp)"},
)


@dataclass(frozen=True)
class Run:
    """A run log read back. ``info`` is run.json."""

    path: Path
    requests: pd.DataFrame
    steps: pd.DataFrame
    info: dict[str, Any]

    @property
    def name(self) -> str:
        """What the run is called in tables: the folder's name."""
        return self.path.name


def write_run(
    folder: Path, requests: pd.DataFrame, steps: pd.DataFrame, info: dict[str, Any], events: list[str]
) -> None:
    """Write a run log into ``folder``, which exists and is not yet anybody's; no events, no ``events.jsonl``."""
    kind = REPLAY if info.get("kind") == REPLAY.name else SIMULATION
    for name, frame in (("requests.parquet", requests), ("steps.parquet", steps)):
        pq.write_table(_typed(kind, name, frame), folder / name)
    write_text(folder / "run.json", _spelled(kind, info))
    if events:
        write_text(folder / "events.jsonl", "".join(line + "\n" for line in events))


def write_table(folder: Folder, name: str, frame: pd.DataFrame) -> None:
    """Put one of the tables into the folder of a run that goes on, whole."""
    with folder.file(name) as temporary:
        pq.write_table(_typed(folder.kind, name, frame), temporary)


def write_info(folder: Folder, info: dict[str, Any]) -> None:
    """Put ``run.json`` into the folder of a run that goes on, whole."""
    with folder.file("run.json") as temporary:
        write_text(temporary, _spelled(folder.kind, info))


def _typed(kind: OutputKind, name: str, frame: pd.DataFrame) -> pa.Table:
    columns = _COLUMNS[name]
    return kind.table(frame.astype(columns)[list(columns)])


def _spelled(kind: OutputKind, info: dict[str, Any]) -> str:
    return kind.json(json.dumps(info, indent=2, sort_keys=True)) + "\n"


def read_run(path: Path) -> Run:
    """Read a run log; of a run that was killed, what had ended by its events.

    Raises:
        BadInput: not a run folder, or a file of it cannot be read.
    """
    path = Path(path)
    for name in FILES:
        if not (path / name).is_file():
            raise BadInput(
                f"{path} is not a run log: {name} is missing; expected a folder written by simulate or replay"
            )
    try:
        requests, steps = (_table(path / name, columns) for name, columns in _COLUMNS.items())
        info = read_json(path / "run.json")
    except BadInput:
        raise
    except (OSError, ValueError, RecursionError, pa.ArrowException) as error:
        raise BadInput(f"{path}: cannot read the run log: {str(error).splitlines()[0]}") from error
    if isinstance(info, dict) and info.get(UNFINISHED):
        from policies.livelog import recovered

        requests, steps = recovered(path, info, requests)
    return Run(path, requests, steps, info)


def _table(path: Path, columns: dict[str, str]) -> pd.DataFrame:
    """A table of a run log.

    Raises:
        BadInput: a column is missing or of another kind, or a cell is empty or no time that a run can have.
    """
    table = read_table(path)
    for name, kind in columns.items():
        if name not in table.column_names:
            raise BadInput(f"{path}: column {name!r} is missing")
        cells = table.column(name)
        if len(table) and not _HOLDS[kind](cells.type):
            raise BadInput(f"{path}: column {name!r} holds {cells.type}, expected {_KINDS[kind]}")
        if kind != "float64" and cells.null_count:
            raise BadInput(f"{path}: {row_at(cells.is_null().index(True).as_py())} has no {name}")
        if kind == "float64":
            seconds = cells.to_numpy().astype("float64")
            none = np.isnan(seconds)
            if name in _NEVER_EMPTY and none.any():
                raise BadInput(f"{path}: {row_at(int(none.argmax()))} has no {name}")
            wrong = ~(none | (abs(seconds) <= _MOST_S))
            if wrong.any():
                row, right = int(wrong.argmax()), f"a time of at most {_MOST_S:g} s"
                raise BadInput(f"{path}: {row_at(row)}: {name} is {seconds[row]:g}, expected {right}")
    return table.to_pandas().astype({name: kind for name, kind in columns.items() if kind == "float64"})


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_texts(kind: pa.DataType) -> bool:
    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    return lists and (_is_text(kind.value_type) or pa.types.is_null(kind.value_type))


_NEVER_EMPTY = ("arrival_s", "start_s", "end_s", "device_s")
_MOST_S = 1e12
"""Beyond every clock; a timeline counts its microseconds in 64 bits."""
_HOLDS: dict[str, Callable[[pa.DataType], bool]] = {
    "str": _is_text,
    "object": _is_texts,
    "bool": pa.types.is_boolean,
    "int32": pa.types.is_integer,
    "int64": pa.types.is_integer,
    "float64": lambda kind: pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_null(kind),
}
_KINDS = {
    "str": "text",
    "object": "lists of text",
    "bool": "true or false",
    "int32": "whole numbers",
    "int64": "whole numbers",
    "float64": "numbers",
}
