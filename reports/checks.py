"""Whether a run log can be true: no request lost, none invented, no replica doing two things at once.

Every figure of a report rests on these, so they are checked before anything is counted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd

from policies.run_arrays import STATUSES, PoolShape, RequestArrays, RunArrays, StepArrays, Whole
from policies.runlog import Run
from traces.errors import BadInput

CLOCK_SLACK_S = 1e-6
"""Seconds by which measured times may disagree: the resolution of the clocks that real runs read."""


def checked(run: Run) -> RunArrays:
    """The run of a log, to compute figures on.

    Raises:
        BadInput: the log breaks conservation, see `check_run`.
    """
    check_run(run)
    requests, steps, pools = _requests(run.requests), _steps(run.steps), _pools(run)
    return RunArrays.whole(requests, steps, pools, run.info.get("outages"), run.info.get("lifetimes"))


def check_run(run: Run) -> None:
    """Check conservation.

    Raises:
        BadInput: run.json is no table; a request has no id, an id twice, no terminal status, no end, or ended
            before it arrived; a launch names an unknown request or replica, or ends before it starts; two
            launches of a replica overlap. The message names the first offender.
    """
    if not isinstance(run.info, dict):
        raise BadInput(f"{run.path / 'run.json'}: expected a JSON object")
    _check_requests(run)
    _check_launches(run)


def device_count(run: Run) -> int:
    """Devices a replica; 1 in a log that does not say.

    Raises:
        BadInput: run.json's ``devices`` is no whole number of at least 1.
    """
    devices = run.info.get("devices", 1)
    if not isinstance(devices, int) or isinstance(devices, bool) or devices < 1:
        raise BadInput(f"{run.path / 'run.json'}: devices is {devices!r}, expected a whole number of at least 1")
    return devices


def replica_count(run: Run) -> int:
    """Replicas of the run: what run.json says, else as many as the launches show.

    Raises:
        BadInput: run.json's ``replicas`` is no whole number of at least 0.
    """
    replicas = run.info.get("replicas")
    if replicas is None:
        return int(run.steps["replica"].max()) + 1 if len(run.steps) else 0
    if not isinstance(replicas, int) or isinstance(replicas, bool) or replicas < 0:
        raise BadInput(f"{run.path / 'run.json'}: replicas is {replicas!r}, expected a whole number")
    return replicas


def _pools(run: Run) -> list[PoolShape]:
    """The pools of a run; where run.json tells of none, one."""
    pools = run.info.get("pools")
    if pools is None:
        return [PoolShape("", replica_count(run), device_count(run))]
    try:
        return [PoolShape(each["name"], each["replicas"], each["devices"], _price(each)) for each in pools]
    except (TypeError, LookupError) as error:
        raise BadInput(f"{run.path / 'run.json'}: pools is {pools!r}, expected a table with each's name") from error


def _price(pool: Mapping[str, Any]) -> float:
    price = pool["price_per_hour"]
    return math.nan if price is None else float(price)


def _requests(frame: pd.DataFrame) -> RequestArrays:
    size, sizes = pd.MultiIndex.from_frame(frame[["height", "width", "frames"]]).factorize()
    checkpoint, model, tenant = (pd.factorize(frame[name]) for name in ("checkpoint", "model", "tenant"))
    way, ways = pd.factorize(frame["replicas"].astype("str"))
    status = frame["status"].map({name: code for code, name in enumerate(STATUSES)})
    return RequestArrays(
        **{name: frame[name].to_numpy(np.float64) for name in _REQUEST_TIMES},
        status=status.to_numpy().astype(np.int64),
        images=frame["images"].to_numpy(np.int64),
        attempts=frame["attempts"].to_numpy(np.int64),
        replica=frame["replica"].to_numpy(np.int64),
        way=way,
        extrapolated=frame["extrapolated"].to_numpy(bool),
        size=size,
        checkpoint=checkpoint[0],
        model=model[0],
        tenant=tenant[0],
        sizes=tuple([(int(height), int(width), int(frames)) for height, width, frames in sizes]),
        checkpoints=tuple(map(str, checkpoint[1])),
        models=tuple(map(str, model[1])),
        tenants=tuple(map(str, tenant[1])),
        ways=tuple([tuple(map(int, spelled.split())) for spelled in ways]),
    )


def _steps(frame: pd.DataFrame) -> StepArrays:
    stage, stages = pd.factorize(frame["stage"])
    checkpoint, checkpoints = pd.factorize(frame["checkpoint"])
    return StepArrays(
        **{name: frame[name].to_numpy(np.float64) for name in ("start_s", "end_s", "predicted_s", "device_s")},
        **{name: frame[name].to_numpy(np.int64) for name in _STEP_COUNTS},
        launch=frame["launch_id"].to_numpy(np.int64),
        stage=stage,
        mixed=frame["composition"].astype("str").str.contains("+", regex=False).to_numpy(bool),
        extrapolated=frame["extrapolated"].to_numpy(bool),
        checkpoint=checkpoint,
        stages=tuple(map(str, stages)),
        checkpoints=tuple(map(str, checkpoints)),
    )


_STEP_COUNTS = ("replica", "steps", "requests", "computed", "reused", "moved_bytes")
_REQUEST_TIMES = ("arrival_s", "deadline_s", "standalone_s", "first_start_s", "finish_s")


def _check_requests(run: Run) -> None:
    _check_ways(run)
    requests, file = run.requests, run.path / "requests.parquet"
    ids = requests["request_id"]
    nameless = ids.isna() | (ids == "")
    if nameless.any():
        raise BadInput(f"{file}: row {int(np.argmax(nameless))} has no request_id")
    if ids.duplicated().any():
        raise BadInput(f"{file}: request {ids[ids.duplicated()].iloc[0]!r} is there more than once")
    open_ended = ~requests["status"].isin(STATUSES)
    if open_ended.any():
        row = requests[open_ended].iloc[0]
        raise BadInput(
            f"{file}: request {row['request_id']!r} has status {row['status']!r}, expected one of "
            f"{', '.join(STATUSES)} ({int(open_ended.sum())} such requests)"
        )
    unsubmitted = requests[["first_start_s", "finish_s"]].isna().all(axis=1) & (requests["status"] != "finished")
    early = ~(unsubmitted | (requests["finish_s"] >= requests["arrival_s"] - CLOCK_SLACK_S))
    if early.any():
        row = requests[early].iloc[0]
        raise BadInput(
            f"{file}: request {row['request_id']!r} ended at {row['finish_s']} s, expected a time after its "
            f"arrival at {row['arrival_s']} s"
        )


def _check_ways(run: Run) -> None:
    """That a request's replicas are numbers, the last of them where it ran last."""
    requests, file = run.requests, run.path / "requests.parquet"
    ways = requests["replicas"].astype("str")
    whole = ways.str.fullmatch(r"(\d{1,9}( \d{1,9})*)?")
    last = pd.to_numeric(ways.where(whole, "").str.split().str[-1]).fillna(-1)
    wrong = ~whole | ((last != requests["replica"]) & (last >= 0))
    if wrong.any():
        row = requests[wrong].iloc[0]
        raise BadInput(
            f"{file}: request {row['request_id']!r} has replicas {row['replicas']!r}, expected numbers like 0 4, the "
            f"last of them its replica, {row['replica']}"
        )


def _check_launches(run: Run) -> None:
    steps, file = run.steps, run.path / "steps.parquet"
    unknown = set(chain.from_iterable(steps["request_ids"])) - set(run.requests["request_id"])
    if unknown:
        raise BadInput(f"{file}: request {min(unknown)!r} was launched but is missing in requests.parquet")
    replicas = replica_count(run)
    astray = (steps["replica"] < 0) | (steps["replica"] >= replicas)
    if astray.any():
        row = steps[astray].iloc[0]
        raise BadInput(f"{file}: launch {row['launch_id']} ran on replica {row['replica']}, but the run has {replicas}")
    backwards = ~(steps["end_s"] >= steps["start_s"])
    if backwards.any():
        row = steps[backwards].iloc[0]
        raise BadInput(f"{file}: launch {row['launch_id']} starts at {row['start_s']} s and ends at {row['end_s']} s")
    rows, device = _by_device(steps["devices"])
    replica, start_s, end_s = (steps[name].to_numpy()[rows] for name in ("replica", "start_s", "end_s"))
    order = np.lexsort((end_s, start_s, device, replica))
    replica, device, start_s, end_s = replica[order], device[order], start_s[order], end_s[order]
    same = (replica[1:] == replica[:-1]) & (device[1:] == device[:-1])
    overlap = same & (start_s[1:] < end_s[:-1] - CLOCK_SLACK_S)
    if overlap.any():
        at = int(np.argmax(overlap))
        first, second = steps["launch_id"].to_numpy()[rows[order[at : at + 2]]]
        raise BadInput(f"{file}: launches {first} and {second} overlap on replica {replica[at]}")


def _by_device(devices: pd.Series) -> tuple[Whole, Whole]:
    """The rows of launches once for each of their devices, and that device's place among all names of devices."""
    codes, spelled = pd.factorize(devices, use_na_sentinel=False)
    names = [str(each).split() for each in spelled]
    known = {name: at for at, name in enumerate(dict.fromkeys(chain.from_iterable(names)))}
    counts = np.array([len(each) for each in names], dtype=np.int64)
    row, place = np.repeat(np.arange(len(codes)), counts[codes]), np.cumsum(counts) - counts
    first = np.cumsum(counts[codes]) - counts[codes]
    of_names = np.array([known[name] for each in names for name in each], dtype=np.int64)
    return row, of_names[place[codes][row] + np.arange(len(row)) - first[row]]
