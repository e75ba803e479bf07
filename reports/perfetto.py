"""A run as a timeline for Perfetto (https://ui.perfetto.dev), in Chrome's trace-event format.

One process holds the requests, each with a track of its own (waiting, then running), and the queue's length;
one process a replica holds its launches, named by stage, composition and steps, or by the weights they load. Times
are whole microseconds, so that launches that touch never overlap.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from policies.runlog import Run
from reports.checks import checked, replica_count
from reports.markdown import REPORT
from reports.series import load
from traces.output import whole_file
from traces.sizes import format_size

Event = dict[str, Any]

REQUESTS = 1
"""The process of the requests; replica r is process r + 2."""


def events(run: Run) -> Iterator[Event]:
    """The trace events of a checked run: names of processes and tracks first, the others in no order."""
    return chain(_names(run), _launches(run), _requests(run), _counters(run))


def write_perfetto(run: Run, path: Path) -> None:
    """Write the timeline of a checked run as JSON, one event a line, by time, whole or not at all.

    Raises:
        BadInput: ``path`` cannot be written.
    """
    encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
    lines = [
        (event.get("ts", -math.inf), encode(event)) for event in events(run)
    ]  # a dict takes several times its text
    lines.sort(key=itemgetter(0))
    with whole_file(path, REPORT) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write(REPORT.json('{"displayTimeUnit":"ms","traceEvents":[\n'))
        file.writelines(f"{line},\n" for _, line in lines[:-1])
        file.write(f"{lines[-1][1]}\n]}}\n")


def _names(run: Run) -> Iterator[Event]:
    processes = [(REQUESTS, "requests")]
    processes += [(_process(replica), f"replica {replica}") for replica in range(replica_count(run))]
    for order, (pid, name) in enumerate(processes):
        yield {"ph": "M", "pid": pid, "tid": 0, "name": "process_name", "args": {"name": name}}
        yield {"ph": "M", "pid": pid, "tid": 0, "name": "process_sort_index", "args": {"sort_index": order}}
        if pid != REQUESTS:
            yield {"ph": "M", "pid": pid, "tid": 1, "name": "thread_name", "args": {"name": "launches"}}


def _launches(run: Run) -> Iterator[Event]:
    steps = run.steps.sort_values(["start_s", "launch_id"])
    for row, start, end in zip(steps.to_dict("records"), _us(steps["start_s"]), _us(steps["end_s"]), strict=True):
        args = {
            "launch": int(row["launch_id"]),
            "requests": [str(name) for name in row["request_ids"]],
            "planned_steps": int(row["planned_steps"]),
            "computed": int(row["computed"]),
            "reused": int(row["reused"]),
            "device_us": round(float(row["device_s"]) * 1e6),
            "extrapolated": bool(row["extrapolated"]),
        }
        if pd.notna(row["predicted_s"]):
            args["predicted_us"] = round(float(row["predicted_s"]) * 1e6)
        runs = f"{row['composition']} x {row['steps']}"
        yield {
            "ph": "X",
            "pid": _process(int(row["replica"])),
            "tid": 1,
            "name": f"{row['stage']} {runs if args['requests'] else row['checkpoint']}",
            "cat": str(row["stage"]),
            "ts": start,
            "dur": end - start,
            "args": args,
        }


def _requests(run: Run) -> Iterator[Event]:
    arrays = checked(run).requests
    requests, asked = run.requests[arrays.submitted], arrays.where(arrays.submitted)
    columns = zip(
        requests["request_id"],
        [format_size(asked.sizes[size]) for size in asked.size.tolist()],
        requests["status"],
        requests["reason"].fillna(""),
        asked.met,
        _us(requests["arrival_s"]),
        _us(requests["first_start_s"].fillna(requests["finish_s"]).clip(lower=requests["arrival_s"])),
        _us(requests["finish_s"]),
        requests["first_start_s"].notna(),
        strict=True,
    )
    for name, size, status, reason, in_time, arrived, started, ended, ran in columns:
        args = {"size": size, "status": status, "reason": reason, "deadline_met": bool(in_time)}
        phases = [("waiting", arrived, started), ("running", started, ended)] if ran else [("waiting", arrived, ended)]
        yield _slice("b", name, name, arrived) | {"args": args}
        for phase, begin, end in phases:
            yield _slice("b", name, phase, begin)
            yield _slice("e", name, phase, end)
        yield _slice("e", name, name, ended)


def _slice(phase: str, request_id: str, name: str, ts: int) -> Event:
    return {
        "ph": phase,
        "pid": REQUESTS,
        "tid": 0,
        "cat": "request",
        "id": request_id,
        "name": name,
        "ts": ts,
    }


def _counters(run: Run) -> Iterator[Event]:
    counts = load(run)
    counts["us"] = _us(counts["time_s"])
    counts = counts.drop_duplicates("us", keep="last")
    rows = zip(counts["us"].tolist(), counts["waiting"].tolist(), counts["running"].tolist(), strict=True)
    for ts, waiting, running in rows:
        args = {"waiting": waiting, "running": running}
        yield {"ph": "C", "pid": REQUESTS, "tid": 0, "name": "requests", "ts": ts, "args": args}


def _process(replica: int) -> int:
    return REQUESTS + 1 + replica


def _us(seconds: pd.Series) -> list[int]:
    return np.rint(seconds.to_numpy(float) * 1e6).astype(np.int64).tolist()
