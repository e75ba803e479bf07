"""Points are kept as they finish: nothing lost, nothing twice, whatever ends the process."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.contract import PolicyError
from tests.tilecast.studies.slow_squares import numbers, square
from tilecast.scenario import Scenario, load_scenario
from tilecast.studies.result_store import FAILED, Interrupted, Result, ResultStore, point_key, run_points
from traces.errors import BadInput

ROOT = Path(__file__).parents[3]


def answer(number: int) -> Result:
    """What a point may end with."""
    if number == 3:
        raise BadInput("three is too many")
    if number == 4:
        raise PolicyError("four stalls")
    if number == 5:
        raise ZeroDivisionError("five divides by zero")
    return {"double": 2 * number, "nothing": math.nan}


def passing(number: int) -> Result:
    """What a point may end with today, and not tomorrow."""
    if number == 1:
        raise MemoryError
    if number == 2:
        raise OSError(28, "No space left on device", "runs/2")
    if number == 3:
        raise BadInput("t.parquet: no such file") from FileNotFoundError("t.parquet")
    try:
        raise FileNotFoundError(2, "No such file or directory", "prices.toml")
    except FileNotFoundError as error:
        raise PolicyError("policy P fails in schedule: no prices.toml") from error


def interrupt(number: int) -> Result:
    """Ctrl-C at the third point."""
    if number == 2:
        raise KeyboardInterrupt
    return {"number": number}


def process_id(number: int) -> Result:
    return {"process": os.getpid(), "threads": os.environ.get("OMP_NUM_THREADS")}


def lines(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "points.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("workers", [1, 2])
def test_kill_9_at_any_moment_loses_nothing_and_doubles_nothing(tmp_path: Path, workers: int) -> None:
    rng = np.random.default_rng(workers)
    count, kills, before = 120, 0, 0
    module, folder = "tests.tilecast.studies.slow_squares", tmp_path / "study"
    command = [sys.executable, "-m", module, str(folder), str(count), str(workers)]
    while before < count * 0.7 and kills < 4:
        study = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
        while study.poll() is None and written(tmp_path / "study") == before:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.15))
        study.send_signal(signal.SIGKILL)
        study.wait()
        kills += 1
        assert written(tmp_path / "study") > before  # each went on
        before = written(tmp_path / "study")
    with ResultStore(tmp_path / "study") as kept:
        assert len(kept) == before
        results = run_points(square, numbers(count), kept)
    assert results == {key: {"square": n * n, "third": n / 3} for key, n in numbers(count).items()}
    assert sorted(str(entry["key"]) for entry in lines(tmp_path / "study")) == sorted(numbers(count))


def written(folder: Path) -> int:
    path = folder / "points.jsonl"
    return path.read_bytes().count(b"\n") if path.is_file() else 0


@given(torn=st.integers(min_value=1, max_value=200))
def test_a_torn_last_line_is_dropped_wherever_it_was_torn(tmp_path_factory: pytest.TempPathFactory, torn: int) -> None:
    folder = tmp_path_factory.mktemp("torn")
    with ResultStore(folder) as kept:
        for number in range(3):
            kept.add(f"key-{number}", str(number), {"number": number})
    whole = (folder / "points.jsonl").read_bytes()
    (folder / "points.jsonl").write_bytes(whole[: -min(torn, len(whole))])
    with ResultStore(folder) as kept:
        results = run_points(lambda number: {"number": number}, numbers(3), kept)
    assert results == {f"key-{number}": {"number": number} for number in range(3)}
    assert (folder / "points.jsonl").read_bytes() == whole


def test_a_damaged_line_is_named_and_nothing_is_touched(tmp_path: Path) -> None:
    with ResultStore(tmp_path) as kept:
        kept.add("a", "a point", {})
        kept.add("b", "a point", {})
    damaged = (tmp_path / "points.jsonl").read_text().replace('"key": "a"', '"kee": "a"')
    (tmp_path / "points.jsonl").write_text(damaged)
    with pytest.raises(BadInput, match=r"points\.jsonl: line 1 is no finished point"), ResultStore(tmp_path):
        pass
    assert (tmp_path / "points.jsonl").read_text() == damaged


def test_a_folder_has_one_owner_and_must_be_a_study(tmp_path: Path) -> None:
    taken = pytest.raises(BadInput, match="is in use by another process")
    with ResultStore(tmp_path / "study"), taken, ResultStore(tmp_path / "study"):
        pass
    with ResultStore(tmp_path / "study"):
        pass
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("precious")
    with pytest.raises(BadInput, match=r"is no study but holds other things"), ResultStore(tmp_path / "notes"):
        pass


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failure_is_not_kept(tmp_path: Path, workers: int) -> None:
    points = {str(number): number for number in range(1, 5)}
    with ResultStore(tmp_path) as kept:
        failed = run_points(passing, points, kept, workers)
    assert [list(result) for result in failed.values()] == [[FAILED]] * 4
    assert lines(tmp_path) == []
    with ResultStore(tmp_path) as kept:
        again = run_points(square, points, kept, workers)
    assert again["4"]["square"] == 16


def test_a_kept_result_is_the_one_that_was_run(tmp_path: Path) -> None:
    with ResultStore(tmp_path) as kept:
        ran = run_points(answer, {"a": 1}, kept)
    with ResultStore(tmp_path) as kept:
        again = run_points(interrupt, {"a": 2}, kept)  # which would interrupt if it ran
    assert repr(ran) == repr(again) == "{'a': {'double': 2, 'nothing': nan}}"


@pytest.mark.parametrize("workers", [1, 2])
def test_a_point_that_cannot_be_run_says_why_and_the_others_go_on(tmp_path: Path, workers: int) -> None:
    done: list[int] = []
    with ResultStore(tmp_path) as kept:
        results = run_points(answer, {"c": 3, "d": 4, "a": 1}, kept, workers, progress=done.append)
        assert results["a"]["double"] == 2
        assert results["c"] == {FAILED: "three is too many"}
        assert results["d"] == {FAILED: "four stalls"}
        assert done == [0, 1, 2, 3]
        with pytest.raises(RuntimeError, match=r"point e \(5\) failed: ZeroDivisionError: five divides by zero"):
            run_points(answer, {"c": 3, "e": 5}, kept, workers, progress=done.append)
        assert done[4] == 0  # bad input is not kept
    assert [entry["key"] for entry in lines(tmp_path)] == ["a"]


def test_ctrl_c_says_what_is_kept(tmp_path: Path) -> None:
    with ResultStore(tmp_path) as kept, pytest.raises(Interrupted, match="2 of 120 points are kept in"):
        run_points(interrupt, numbers(120), kept)
    assert len(lines(tmp_path)) == 2


def test_workers_are_processes_with_one_thread_each(tmp_path: Path) -> None:
    with ResultStore(tmp_path) as kept:
        results = run_points(process_id, numbers(8), kept, workers=2)
    assert os.getpid() not in {result["process"] for result in results.values()}
    assert {result["threads"] for result in results.values()} == {"1"}


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"workers": 0}, "workers is 0, expected at least 1"),
        ({"executor": "dask"}, "unknown executor 'dask'; known: joblib, ray"),
        ({"ray_address": "10.0.0.1:6379"}, "needs executor 'ray'"),
    ],
)
def test_wrong_workers_are_bad_input(tmp_path: Path, arguments: dict[str, object], complaint: str) -> None:
    with ResultStore(tmp_path) as kept, pytest.raises(BadInput, match=complaint):
        run_points(square, numbers(2), kept, **arguments)  # type: ignore[arg-type]


def test_without_ray_it_is_said_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with ResultStore(tmp_path) as kept, pytest.raises(BadInput, match=r"tilecast\[cluster\]"):
        run_points(square, numbers(2), kept, executor="ray")


class TestKey:
    """Equal for two points exactly when all that decides their results is equal."""

    @pytest.fixture
    def base(self, tmp_path: Path) -> Path:
        (tmp_path / "trace.csv").write_text("a trace")
        (tmp_path / "mine.py").write_text("class A: ...\nclass B: ...\n")
        (tmp_path / "scenario.toml").write_text('model = "tiny-image"\n')
        return tmp_path

    def scenario(self, base: Path, **settings: object) -> Scenario:
        return load_scenario(base / "scenario.toml", {key.replace("__", "."): v for key, v in settings.items()})

    def test_spelling_does_not_matter(self, base: Path) -> None:
        short = self.scenario(base, trace__path="trace.csv", policies__scheduling="edf", slo__scale=3)
        long = self.scenario(
            base,
            trace={"path": str(base / "trace.csv"), "rate_scale": 1},
            policies__scheduling={"name": "edf"},
            slo__scale=3.0,
            seed=0,
        )
        assert point_key(short) == point_key(long)

    def test_content_of_files_matters_and_their_place_does_not(self, base: Path) -> None:
        (base / "copy.csv").write_text("a trace")
        key = point_key(self.scenario(base, trace__path="trace.csv"))
        assert key == point_key(self.scenario(base, trace__path="copy.csv"))
        (base / "trace.csv").write_text("another trace")
        assert key != point_key(self.scenario(base, trace__path="trace.csv"))

    def test_everything_that_decides_matters(self, base: Path) -> None:
        scenarios = [
            self.scenario(base),
            self.scenario(base, seed=1),
            self.scenario(base, policies__scheduling="edf"),
            self.scenario(base, policies__scheduling={"name": "edf", "max_batch": 2}),
            self.scenario(base, policies__scheduling="mine.py:A"),
            self.scenario(base, policies__scheduling="mine.py:B"),
            self.scenario(base, predictor__profile="cpu-1core"),
            self.scenario(base, predictor__profile="absent"),
        ]
        keys = [point_key(scenario, asked) for scenario in scenarios for asked in (None, "log", {"requests": 10})]
        assert len(set(keys)) == len(keys)
