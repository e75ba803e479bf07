"""Why requests waited: every second is counted once, by what went on meanwhile, and each sentence is so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.runlog import REQUEST_COLUMNS, STEP_COLUMNS, Run
from reports.waiting import CAUSES, GROUPS, Waiting, why

MakeRun = Callable[..., Run]
NONE = np.nan


def request(
    name: str, arrival: float, start: float, finish: float, replica: int = 0, **more: object
) -> dict[str, object]:
    """A row of a log's requests."""
    known = {"request_id": name, "arrival_s": arrival, "first_start_s": start, "finish_s": finish, "replica": replica}
    asked = {"height": 512, "width": 512, "model": "sd3", "deadline_s": NONE, "standalone_s": 1.0, "status": "finished"}
    return {**_row(REQUEST_COLUMNS), **known, **asked, **more}


def launch(
    number: int, start: float, end: float, names: list[str], replica: int = 0, **more: object
) -> dict[str, object]:
    """A row of a log's launches."""
    known = {"launch_id": number, "replica": replica, "start_s": start, "end_s": end, "request_ids": names}
    done = {"stage": "denoise", "requests": len(names), "composition": "1@512x512", "device_s": end - start}
    return {**_row(STEP_COLUMNS), **known, **done, "devices": "0", **more}


def _row(columns: dict[str, str]) -> dict[str, object]:
    """A cell of each kind."""
    of: dict[str, object] = {"str": "", "bool": False, "object": []}
    return {name: of.get(kind, 1) for name, kind in columns.items()}


def made(requests: list[dict[str, object]], launches: list[dict[str, object]], **info: object) -> Waiting:
    tables = pd.DataFrame(requests, columns=list(REQUEST_COLUMNS)), pd.DataFrame(launches, columns=list(STEP_COLUMNS))
    return Waiting.of(Run(Path("run"), *tables, {"replicas": 1, **info}))


def seconds(waiting: Waiting) -> dict[str, float]:
    found = dict(zip(CAUSES, waiting.seconds.sum(axis=0).round(9).tolist(), strict=True))
    return {cause: value for cause, value in found.items() if value}


def test_every_second_of_a_run_by_hand(make_run: MakeRun) -> None:
    """a and b wait a second for an idle replica, e five behind the two of them; d and f never run."""
    waiting = Waiting.of(make_run())
    assert waiting.total_s.tolist() == [1, 1, 0, 2, 5, 14]
    assert seconds(waiting) == {"idle": 10, "full": 5, "busy": 8}
    assert waiting.by_group == {"load": 13 / 23, "policy": 10 / 23, "weights": 0, "scaling": 0, "failures": 0}
    first, second, third, fourth, last = waiting.sentences()
    assert first.startswith(
        "6 requests waited 3.83 s in the mean (P95 11.8 s), 39.7 % of the time that they were there"
    )
    assert second == (
        "Of that waiting, 56.5 % was while all devices were busy (load) and 43.5 % was while a device was idle that "
        "they were not given (policy)."
    )
    assert third.startswith(
        "Load: the largest batch had 2 requests, and for 100 % of this waiting one as large was running"
    )
    assert fourth.startswith("Longest waited size 512x512 (5.33 s in the mean); half of all waiting is of")
    assert last == (
        "1 finished late, 1 of them by less than they had waited; never finished: 1 dropped by fcfs "
        "(mostly: hopeless), 1 failed and 1 cancelled."
    )


def test_a_device_that_is_idle_is_the_policys() -> None:
    late = made([request("a", 0, 3, 4)], [launch(0, 3, 4, ["a"])])
    assert seconds(late) == {"idle": 3}
    assert late.sentences()[2].startswith(
        "Policy: in 100 % of all waiting their own replica was idle, in 0 % only another"
    )
    bound = made(
        [request("a", 0, 0, 4), request("b", 1, 4, 5)],
        [launch(0, 0, 4, ["a"]), launch(1, 4, 5, ["b"])],
        replicas=2,
    )
    assert seconds(bound) == {"elsewhere": 3}


def test_weights_failures_and_scaling_are_told_apart() -> None:
    loads = made(
        [request("a", 0, 2, 4), request("b", 3, 5, 6)],
        [
            launch(0, 0, 2, [], stage="load"),
            launch(1, 2, 4, ["a"]),
            launch(2, 4, 5, [], stage="load"),
            launch(3, 5, 6, ["b"]),
        ],
    )
    assert seconds(loads) == {"weights": 3, "full": 1}
    assert loads.sentences()[2] == "Weights: 2 loads took 50 % of the time of the replicas."
    failed = made([request("a", 0, 6, 7)], [launch(0, 6, 7, ["a"])], outages=[[0, 0.0, 5.0]])
    assert seconds(failed) == {"failed": 5, "idle": 1}
    assert failed.sentences()[2] == "Failures: 1 of them; replicas were down for 71.4 % of the time."
    scaled = made(
        [request("a", 0, 0, 9), request("b", 1, 7, 8, replica=1)],
        [launch(0, 0, 9, ["a"]), launch(1, 7, 8, ["b"], replica=1)],
        replicas=2,
        lifetimes=[[0, None, None, None], [1, 3.0, 7.0, 8.5]],
    )
    assert seconds(scaled) == {"scaled": 2, "starting": 4}
    assert scaled.sentences()[2].startswith(
        "Scaling: 66.7 % of all waiting was while a replica was starting, 33.3 % while"
    )


def test_pauses_count_and_batches_that_had_room() -> None:
    paused = made(
        [request("a", 0, 0, 6), request("b", 1, 2, 4), request("c", 2, 2, 4)],
        [launch(0, 0, 2, ["a"]), launch(1, 2, 4, ["b", "c"]), launch(2, 4, 6, ["a"])],
    )
    assert paused.total_s.tolist() == [2, 1, 0]
    assert seconds(paused) == {"full": 2, "room": 1}


def test_a_replica_of_two_devices_is_busy_when_both_are() -> None:
    side_by_side = made(
        [request("a", 0, 0, 4), request("b", 0, 2, 4), request("c", 1, 4, 5)],
        [launch(0, 0, 4, ["a"]), launch(1, 2, 4, ["b"], devices="1"), launch(2, 4, 5, ["c"], devices="0 1")],
        devices=2,
    )
    assert seconds(side_by_side) == {"idle": 3, "full": 2}


def test_a_request_that_never_ran_waits_in_the_pool_of_its_model() -> None:
    pools = [
        {"name": name, "replicas": 1, "devices": 1, "price_per_hour": None, "models": {model: "MEASURED"}}
        for name, model in (("pictures", "sd3"), ("clips", "wan"))
    ]
    never = {"first_start_s": NONE, "replica": -1, "status": "dropped"}
    waiting = made(
        [request("a", 0, 0, 9), request("b", 1, 0, 5, model="wan", **never), request("c", 2, 0, 5, **never)],
        [launch(0, 0, 9, ["a"])],
        replicas=2,
        pools=pools,
    )
    assert seconds(waiting) == {"idle": 4, "busy": 3}
    assert waiting.by("pool").to_dict("index") == {"pictures": {"requests": 1, "waited_s": 0.0}}
    assert waiting.by("model").to_dict("index") == {
        "wan": {"requests": 1, "waited_s": 4.0},
        "sd3": {"requests": 2, "waited_s": 1.5},
    }


def test_who_came_when_waiting_was_worst() -> None:
    requests = [request(f"r{at}", at, at, at + 0.5) for at in range(20)]
    launches = [launch(at, at, at + 0.5, [f"r{at}"]) for at in range(20)]
    requests[10] |= {"first_start_s": 10.5, "finish_s": 10.9, "deadline_s": 10.8}
    launches[10] = launch(10, 10.5, 10.9, ["r10"])
    waiting = made(requests, launches)
    assert waiting.crowded == (0.05, pytest.approx(9.5), pytest.approx(10.45))
    assert waiting.late == (1, 1)
    assert waiting.load == pytest.approx(20 / 19)


def test_where_nobody_waits_or_comes_that_is_said(empty_run: Run, interrupted_run: Run) -> None:
    assert why(empty_run) == ["There are no requests."]
    assert made([request("a", 0, 0, 1)], [launch(0, 0, 1, ["a"])]).sentences() == [
        "None of the 1 requests waited: each ran from its arrival to its end."
    ]
    assert Waiting.of(interrupted_run).total_s[-1] == 0


@given(
    st.lists(
        st.tuples(st.floats(0, 50), st.floats(0, 5), st.floats(0.1, 5), st.integers(0, 2)), min_size=1, max_size=25
    ),
    st.booleans(),
    st.lists(st.tuples(st.integers(0, 2), st.floats(0, 40), st.floats(0.1, 9)), max_size=3),
)
def test_every_second_is_counted_once(rows, scales: bool, outages) -> None:
    free = {0: 0.0, 1: 0.0, 2: 0.0}
    requests, launches = [], []
    for number, (arrival, delay, takes, replica) in enumerate(sorted(rows)):
        start = max(arrival + delay, free[replica])
        free[replica] = start + takes
        requests.append(request(f"r{number}", arrival, start, start + takes, replica))
        launches.append(launch(number, start, start + takes, [f"r{number}"], replica))
    lifetimes = {"lifetimes": [[0, None, None, None], [1, 2.0, 5.0, 30.0], [2, 1.0, None, 3.0]]} if scales else {}
    failures = {"outages": [[replica, at, at + lasts] for replica, at, lasts in outages]} if outages else {}
    waiting = made(requests, launches, replicas=3, **lifetimes, **failures)
    expected = [max(0.0, row["first_start_s"] - row["arrival_s"]) for row in requests]
    assert waiting.total_s == pytest.approx(expected, abs=1e-6)
    assert (waiting.seconds >= -1e-9).all()
    if waiting.by_cause:
        assert sum(waiting.by_cause.values()) == pytest.approx(1)
        assert sum(waiting.by_group.values()) == pytest.approx(1)
    assert all(said.endswith(".") for said in waiting.sentences())
    assert len(waiting.sentences()) <= 5


def test_every_cause_is_of_one_group() -> None:
    assert sorted(cause for _, causes in GROUPS.values() for cause in causes) == sorted(CAUSES)
