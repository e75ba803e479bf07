"""Timelines: valid JSON, in order, every begin with its end."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from reports.perfetto import events, write_perfetto


def test_file_is_valid_sorted_and_the_same_every_time(make_run, tmp_path):
    run = make_run()
    for name in ("one.json", "two.json"):
        write_perfetto(run, tmp_path / name)
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()
    trace = json.loads((tmp_path / "one.json").read_text())["traceEvents"]
    times = [event["ts"] for event in trace if event["ph"] != "M"]
    assert times == sorted(times)
    assert all(isinstance(time, int) for time in times)


def test_begins_and_ends_nest(make_run):
    open_slices: dict[str, list[str]] = {}
    for event in events(make_run()):
        stack = open_slices.setdefault(event.get("id", ""), [])
        if event["ph"] == "b":
            stack.append(event["name"])
        elif event["ph"] == "e":
            assert stack.pop() == event["name"]
    assert not any(open_slices.values())


def test_launches_of_a_replica(make_run):
    launches = [event for event in events(make_run()) if event["ph"] == "X"]
    assert Counter(event["pid"] for event in launches) == {2: 4, 3: 1}
    assert launches[1]["name"] == "denoise 2@512x512 x 10"
    assert (launches[1]["ts"], launches[1]["dur"]) == (2_000_000, 6_000_000)
    assert launches[1]["args"]["requests"] == ["a", "b"]


def test_loading_is_named_by_its_weights(loading_run):
    load = next(event for event in events(loading_run) if event["ph"] == "X" and event["cat"] == "load")
    assert load["name"] == "load anime-xl"
    assert (load["pid"], load["ts"], load["dur"], load["args"]["requests"]) == (3, 1_000_000, 500_000, [])


def test_phases_of_requests(make_run):
    begun = [(event["id"], event["name"]) for event in events(make_run()) if event["ph"] == "b"]
    assert {name for request, name in begun if request == "a"} == {"a", "waiting", "running"}
    assert {name for request, name in begun if request == "d"} == {"d", "waiting"}


def test_counters(make_run):
    counted = [(event["ts"], event["args"]) for event in events(make_run()) if event["ph"] == "C"]
    assert counted[:2] == [(0, {"waiting": 2, "running": 0}), (1_000_000, {"waiting": 0, "running": 2})]
    assert counted[-1] == (20_000_000, {"waiting": 0, "running": 0})


@pytest.mark.parametrize("fixture", ["empty_run", "lost_run", "interrupted_run", "loading_run"])
def test_odd_runs(fixture, request, tmp_path):
    write_perfetto(request.getfixturevalue(fixture), tmp_path / "t.json")
    assert json.loads((tmp_path / "t.json").read_text())["traceEvents"][0]["ph"] == "M"
