"""Points are kept as they finish: nothing lost, nothing twice, whatever ends the process."""

from __future__ import annotations

import math
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import chdir, closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from policies.contract import PolicyError
from tests.tilecast.studies.kept_points import kept_points, opened
from tests.tilecast.studies.slow_squares import numbers, square
from tilecast.scenario import Scenario, load_scenario
from tilecast.studies.result_store import (
    FAILED,
    STUDY,
    Interrupted,
    Result,
    ResultStore,
    point_key,
    read_points,
    run_points,
)
from traces.errors import BadInput

ROOT = Path(__file__).parents[3]
KILLS = int(os.environ.get("KILLS", "1"))


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


def read_here(number: int) -> Result:
    return {"text": Path("here.txt").read_text()}


def process_id(number: int) -> Result:
    return {"process": os.getpid(), "threads": os.environ.get("OMP_NUM_THREADS")}


def test_kill_9_at_any_moment_loses_nothing_and_doubles_nothing(tmp_path: Path) -> None:
    """After one kill; the environment variable KILLS allows more. `tests.cli.test_sweep` kills another."""
    workers, rng = 2, np.random.default_rng(2)
    count, kills, before = 120, 0, 0
    module, folder = "tests.tilecast.studies.slow_squares", tmp_path / "study"
    command = [sys.executable, "-m", module, str(folder), str(count), str(workers)]
    while before < count * 0.7 and kills < KILLS:
        study = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
        while study.poll() is None and len(kept_points(tmp_path / "study")) == before:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.15))
        study.send_signal(signal.SIGKILL)
        study.wait()
        kills += 1
        assert len(kept_points(tmp_path / "study")) > before  # each went on
        before = len(kept_points(tmp_path / "study"))
    with ResultStore(tmp_path / "study") as kept:
        assert len(kept) == before
        results = run_points(square, numbers(count), kept)
    assert results == {key: {"square": n * n, "third": n / 3} for key, n in numbers(count).items()}
    rows = kept_points(tmp_path / "study")
    assert sorted(row.key for row in rows) == sorted(numbers(count))
    assert {row.generator for row in rows} == {"tilecast study"}


@pytest.mark.parametrize("journal", ["WAL", "DELETE"])
def test_a_kill_within_a_commit_takes_nothing_but_that_point(tmp_path: Path, journal: str) -> None:
    """The disk is in the state in which SQLite needs its journal: pages of what is not committed are written."""
    with ResultStore(tmp_path) as kept:
        for number in range(3):
            kept.add(f"key-{number}", str(number), {"number": number})
    before = kept_points(tmp_path)
    killed = os.fork()
    if not killed:
        file = opened(tmp_path)
        file.execute(f"PRAGMA journal_mode = {journal}")
        file.execute("PRAGMA cache_size = 1")
        file.execute("BEGIN")
        for number in range(100):
            file.execute("REPLACE INTO points (key, point, result) VALUES (?, '', ?)", (f"key-{number}", "x" * 9000))
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(killed, 0)
    assert {path.name for path in tmp_path.iterdir()} > {"points.sqlite"}
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) > 500_000
    with ResultStore(tmp_path) as kept:
        assert len(kept) == 3
        results = run_points(lambda number: {"number": number}, numbers(4), kept)
    assert results == {f"key-{number}": {"number": number} for number in range(4)}
    assert kept_points(tmp_path)[:3] == before
    assert [path.name for path in tmp_path.iterdir()] == ["points.sqlite"]


@pytest.mark.parametrize(
    "harm",
    [
        lambda data: data[: len(data) // 2],
        lambda data: data[:5000] + bytes(4000) + data[9000:],
        lambda data: data.replace(b'{"number": 1}', b'{"number": 1 '),
        lambda data: data.replace(b'{"number": 1}', b"[1, 2, 3, 45]"),
    ],
    ids=["cut", "holes", "no JSON", "no object"],
)
def test_a_damaged_file_is_named_and_nothing_is_touched(tmp_path: Path, harm: Callable[[bytes], bytes]) -> None:
    with ResultStore(tmp_path) as kept:
        for number in range(30):
            kept.add(f"key-{number}", str(number), {"number": number})
    damaged = harm((tmp_path / "points.sqlite").read_bytes())
    (tmp_path / "points.sqlite").write_bytes(damaged)
    for reads in (lambda: ResultStore(tmp_path).__enter__(), lambda: read_points(tmp_path)):
        with pytest.raises(BadInput, match=r"points\.sqlite is (damaged|not Tilecast's)"):
            reads()
        assert (tmp_path / "points.sqlite").read_bytes() == damaged


def test_a_file_of_a_user_is_never_touched(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "points.sqlite")) as mine:
        mine.execute("CREATE TABLE points (key TEXT PRIMARY KEY, point TEXT, result TEXT, generator TEXT)")
        mine.execute("PRAGMA user_version = 7")
        mine.commit()
    for name in ("points.sqlite-wal", "points.sqlite-journal"):
        (tmp_path / name).write_text("mine, too")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(BadInput, match=r"points\.sqlite is not Tilecast's"), ResultStore(tmp_path):
        pass
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("end", ["-wal", "-shm", "-journal"])
def test_nor_is_one_that_sqlite_would_take_for_its_own(tmp_path: Path, end: str) -> None:
    with ResultStore(tmp_path):
        pass
    (tmp_path / "sweep.md").write_text("<!-- generator: tilecast study -->")
    kind = replace(STUDY, files={"points.sqlite": "study", "sweep.md": "study"})
    (tmp_path / "points.sqlite").unlink()
    (tmp_path / f"points.sqlite{end}").write_text("mine")
    with pytest.raises(BadInput, match=f"points.sqlite{end} is in the way"), ResultStore(tmp_path, kind):
        pass
    assert (tmp_path / f"points.sqlite{end}").read_text() == "mine"
    assert not (tmp_path / "points.sqlite").exists()


def test_points_of_an_older_tilecast_are_refused(tmp_path: Path) -> None:
    old = '{"generator": "tilecast study", "key": "a", "point": "a", "result": {}}\n'
    (tmp_path / "points.jsonl").write_text(old)
    with pytest.raises(BadInput, match=r"points\.jsonl holds points of an older Tilecast"), ResultStore(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["points.jsonl"]
    assert (tmp_path / "points.jsonl").read_text() == old


def test_a_point_that_is_kept_again_takes_the_place_of_the_former(tmp_path: Path) -> None:
    with ResultStore(tmp_path) as kept:
        kept.add("a", "first", {"n": 1})
        kept.add("b", "\udcff", {"n": 2})  # a path that is not in UTF-8
        kept.add("a", "again", {"n": 3})
        assert len(kept) == 2
    assert [(row.key, row.point) for row in kept_points(tmp_path)] == [("a", "again"), ("b", "?")]
    assert read_points(tmp_path) == {"a": {"n": 3}, "b": {"n": 2}}


def test_a_store_can_be_read_while_it_grows(tmp_path: Path) -> None:
    with ResultStore(tmp_path) as kept:
        kept.add("a", "a", {"n": 1})
        assert read_points(tmp_path) == {"a": {"n": 1}}
        kept.add("b", "b", {"n": 2})
        assert list(read_points(tmp_path)) == ["a", "b"]
    with pytest.raises(BadInput, match="there is no such file"):
        read_points(tmp_path / "elsewhere")


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
    assert kept_points(tmp_path) == []
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
    assert [row.key for row in kept_points(tmp_path)] == ["a"]


def test_ctrl_c_says_what_is_kept(tmp_path: Path) -> None:
    with ResultStore(tmp_path) as kept, pytest.raises(Interrupted, match="interrupted: 2 points are kept in"):
        run_points(interrupt, numbers(120), kept)
    assert len(kept_points(tmp_path)) == 2


def test_workers_are_processes_with_one_thread_each(tmp_path: Path) -> None:
    with ResultStore(tmp_path) as kept:
        results = run_points(process_id, numbers(8), kept, workers=2)
    assert os.getpid() not in {result["process"] for result in results.values()}
    assert {result["threads"] for result in results.values()} == {"1"}


@pytest.mark.parametrize("workers", [1, 2])
def test_relative_paths_are_of_where_the_study_runs(tmp_path: Path, workers: int) -> None:
    """Processes are kept for the next study, which may run elsewhere."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "here.txt").write_text(name)
        with ResultStore(tmp_path / f"{name} kept") as kept, chdir(tmp_path / name):
            results = run_points(read_here, numbers(4), kept, workers)
        assert {result.get("text") for result in results.values()} == {name}


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
