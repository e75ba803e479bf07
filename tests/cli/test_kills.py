"""kill -9, SIGTERM and two SIGINT at random moments: what had ended stays, once, nothing is left behind, all goes on.

Real processes, so each command is ended once or twice here. The environment variable KILLS has each ended at as many
moments by every signal, also one with tiles on two devices, and KILLS_SEED draws others: ``KILLS=10 pytest -s
tests/cli/test_kills.py`` takes half an hour on two idle cores, and says how many were ended. Limits of time grow with
KILLS, and end only what hangs.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

pytest.importorskip("torch")

import backend.executor  # noqa: F401  of which the process that forks commands is to know
from policies.runlog import read_run
from reports.checks import check_run
from tests.cli.run_command import run
from tests.nursery import Forked, Nursery
from tests.tilecast.studies.kept_points import kept_points
from tilecast.recorded import interrupted_replay
from tilecast.scenario import load_scenario
from tilecast.setup import prepare
from traces.errors import BadInput

ROOT = Path(__file__).parents[2]
MOMENTS = int(os.environ.get("KILLS", "0"))
PATIENCE_S = 240 * max(1, MOMENTS)
"""The longest that a command may take to come to work, and half of it to end by a signal."""
RANDOM = random.Random(int(os.environ.get("KILLS_SEED", "0")))
SIGNALS = {"KILL": [signal.SIGKILL], "TERM": [signal.SIGTERM], "INT twice": [signal.SIGINT, signal.SIGINT]}
LEFT_BY = {"KILL": -signal.SIGKILL, "TERM": 128 + signal.SIGTERM, "INT twice": 128 + signal.SIGINT}
SCENARIO = """
model = "tiny-image"
trace.path = "trace.csv"
predictor.profile = "cpu-1core"
cluster.threads = 1
slo.scale = 5.0
"""
TILED = f"""{SCENARIO}
cluster.devices = 2
policies.scheduling = "least-slack"
[tiling]
refine = 0.15
mode = "clamp"
overlap = 48
"""


class Command:
    """A command in a process group of its own, as its own process sees it.

    Args:
        folder: where it runs.
        words: after ``tilecast``.
        nursery: forks it; None: it starts from nothing.

    Attributes:
        ended: by what, how often.
    """

    def __init__(self, folder: Path, *words: object, nursery: Nursery | None = None) -> None:
        self.folder = folder
        self.words = words
        self.ended: Counter[str] = Counter()
        self._nursery = nursery
        self._said = folder.parent / f"{folder.name}.said"

    def start(self) -> subprocess.Popen[bytes] | Forked:
        if self._nursery is not None:
            return self._nursery.start_command(self.words, self.folder, self._said)

        def listening() -> None:  # a shell has what it starts in the background ignore Ctrl-C
            signal.signal(signal.SIGINT, signal.SIG_DFL)

        with self._said.open("wb") as said:
            return subprocess.Popen(
                [sys.executable, "-m", "cli.main", *map(str, self.words)],
                cwd=self.folder,
                env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=listening,
            )

    def end(self, how: str, ready: Callable[[], object], after_s: float) -> None:
        """Start it, end it by signals so long after it is ready, and look for what is left."""
        process = self.start()
        until = time.monotonic() + PATIENCE_S
        while process.poll() is None and not (heeds(process.pid) and ready()):
            assert time.monotonic() < until, f"{process.pid} has not come to work for {PATIENCE_S} s"
            time.sleep(0.01)
        time.sleep(after_s)
        for number in SIGNALS[how]:
            process.send_signal(number)
            time.sleep(0.02)
        process.wait(PATIENCE_S / 2)
        said = self._said.read_text()
        self.ended[how if process.returncode else "itself"] += 1
        assert process.returncode in (LEFT_BY[how], 0), (process.returncode, said)
        assert "Traceback" not in said, said
        until = time.monotonic() + PATIENCE_S / 12
        while alive := group(process.pid):
            assert time.monotonic() < until, alive
            time.sleep(0.1)
        if how != "KILL":
            assert not hidden(self.folder), said

    def whole(self, *more: object) -> str:
        """Run it to its end, in this process; what it says, however its lines are wrapped."""
        with chdir(self.folder):
            said = run(*self.words, *more)
        assert not hidden(self.folder), said
        return " ".join(said.split())

    def tell(self) -> None:
        """Say what was tried, when all of it held."""
        tried = sum(self.ended.values())
        assert self.ended["itself"] <= (tried // 2 if MOMENTS else tried), self.ended
        print(f"\n{self.words[0]}: ended by {dict(self.ended)}; nothing lost, doubled or left over")


def heeds(process: int) -> bool:
    """Whether it has taken over what SIGTERM does, with the interpreter's own start behind it."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False
    return bool(int(status.partition("SigCgt:")[2].split()[0], 16) >> (signal.SIGTERM - 1) & 1)


def group(leader: int) -> list[str]:
    """The processes that are in the session of one that ended."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == leader and fields[0] != "Z":
            found.append(stat.parent.name)
    return found


def hidden(folder: Path) -> list[Path]:
    return [path for path in folder.rglob(".*") if "tilecast" in path.name]


def moments(longest_s: float, *few: str) -> list[tuple[str, float]]:
    """(signal, seconds) of every end; where KILLS is not set, one for each of ``few``."""
    signals = [*SIGNALS] * MOMENTS or [*few]
    return [(how, RANDOM.uniform(0.0, longest_s)) for how in signals]


def write(folder: Path, scenario: str, requests: int, sizes: tuple[str, ...] = ("96,96,5",)) -> None:
    (folder / "scenario.toml").write_text(scenario)
    rows = [f"{0.3 * at},{sizes[at % len(sizes)]}" for at in range(requests)]
    (folder / "trace.csv").write_text("\n".join(["arrival_s,height,width,steps", *rows]) + "\n")


@pytest.mark.parametrize("of", ["one device", "two devices, tiles", "two replicas"])
def test_replay(tmp_path: Path, nursery: Nursery, of: str) -> None:
    if of != "one device" and not MOMENTS:
        pytest.skip("KILLS is not set")
    sizes = ("96,96,4", "192,192,4") if of == "two devices, tiles" else ("96,96,4",)
    requests = 12 + (20 if of == "two devices, tiles" else 40) * MOMENTS
    scenarios = {"two devices, tiles": TILED, "two replicas": f"{SCENARIO}cluster.replicas = 2\n"}
    write(tmp_path, scenarios.get(of, SCENARIO), requests, sizes)
    options = ("scenario.toml", "--save-images", "--resume", "-o", "run")
    command = Command(tmp_path, "replay", *options, nursery=nursery)
    events, before = tmp_path / "run" / "events.jsonl", {}
    for how, after_s in moments(1.5, "KILL", "TERM"):
        size = events.stat().st_size if events.exists() else 0

        def grown(size: int = size) -> bool:
            return events.exists() and b"complete" in events.read_bytes()[size:]

        command.end(how, grown, after_s)
        before = finished(tmp_path / "run", before, killed=how == "KILL")
    assert len(before) >= 1
    picture = min((tmp_path / "run" / "images").iterdir())
    pixels = pixels_of(picture)
    picture.unlink()
    with pytest.raises(BadInput, match="--resume goes on with it; to start over, remove the folder"):
        interrupted_replay(tmp_path / "run", prepare(load_scenario(tmp_path / "scenario.toml", {})), resume=False)
    with pytest.raises(BadInput, match="is the log of another replay: seed is 1, in the log it is 0"):
        interrupted_replay(
            tmp_path / "run", prepare(load_scenario(tmp_path / "scenario.toml", {"seed": 1})), resume=True
        )
    assert "made the lost pictures of" in command.whole()
    after = finished(tmp_path / "run", before)
    assert len(after) == requests
    assert len(list((tmp_path / "run" / "images").iterdir())) == requests
    log = {path: path.read_bytes() for path in (tmp_path / "run").glob("*.*")}
    assert np.abs(pixels - pixels_of(picture)).max() <= 1
    picture.unlink()
    assert "replayed the 0 that were left; made the lost pictures of 1 finished again" in command.whole()
    assert {path: path.read_bytes() for path in log} == log
    assert np.abs(pixels - pixels_of(picture)).max() <= 1
    assert f"nothing to resume: all {requests} requests have ended" in command.whole()
    command.tell()


def pixels_of(picture: Path) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(picture)).astype(int)


def finished(folder: Path, before: dict[str, float], killed: bool = False) -> dict[str, float]:
    """When each request of a log finished, of which ``before`` must be a part; its tables and its events agree.

    All pictures of them lie there, unless the run was killed, which takes along what waits to be written.
    """
    run = read_run(folder)
    check_run(run)
    ends = run.requests[run.requests["status"] == "finished"].set_index("request_id")["finish_s"].to_dict()
    assert {name: ends.get(name) for name in before} == before
    assert not run.steps.duplicated(["launch_id", "stage", "start_s"]).any()
    table = pd.read_parquet(folder / "requests.parquet")
    stale = set(ends) - set(table.loc[table["status"] == "finished", "request_id"])
    written = [end_s for name, end_s in ends.items() if name not in stale]
    assert all(ends[name] >= max(written, default=0.0) for name in stale)  # what had ended before is in the table
    pictures = {path.stem for path in (folder / "images").glob("*.png")}
    assert killed or {f"{at:06d}" for at, name in enumerate(run.requests["request_id"]) if name in ends} <= pictures
    return ends


def test_simulate(tmp_path: Path) -> None:
    write(tmp_path, SCENARIO, 1500)
    command = Command(tmp_path, "simulate", "scenario.toml", "-o", "run")
    for how, after_s in moments(2.0, "INT twice"):
        command.end(how, lambda: True, after_s)
        assert not (tmp_path / "run").exists() or not list((tmp_path / "run").iterdir()) or read_run(tmp_path / "run")
    assert "1,500 of 1,500 requests in time" in command.whole()
    check_run(read_run(tmp_path / "run"))
    command.tell()


def test_sweep(tmp_path: Path, nursery: Nursery) -> None:
    seeds = 4 + 6 * MOMENTS
    write(tmp_path, SCENARIO, 50 + 50 * bool(MOMENTS))
    (tmp_path / "grid.toml").write_text(f"seeds = {seeds}\n[grid]\ncluster.replicas = [1, 2, 3]\n")
    options = ("--grid", "grid.toml", "-o", "sweep", "--workers", 2)
    command = Command(tmp_path, "sweep", "scenario.toml", *options, nursery=nursery)
    goes_on(command, tmp_path / "sweep", 1.0 if MOMENTS else 0.2, "TERM")
    table = pd.read_parquet(tmp_path / "sweep" / "sweep.parquet")
    assert len(table) == 3 * seeds
    assert not table["point"].duplicated().any()
    command.tell()


def test_plan(tmp_path: Path, nursery: Nursery) -> None:
    few = 100 if MOMENTS else 40
    write(tmp_path, f"{SCENARIO}plan.requests = {few}\nplan.max_requests = {2 * few}\n", 2 * few)
    options = ("-o", "plan", "--replicas", 2, "--workers", 2)
    command = Command(tmp_path, "plan", "scenario.toml", *options, nursery=nursery)
    goes_on(command, tmp_path / "plan", 1.0 if MOMENTS else 0.2, "INT twice")
    assert json.loads((tmp_path / "plan" / "plan.json").read_text())
    command.tell()


def goes_on(command: Command, folder: Path, longest_s: float, few: str) -> None:
    """End a study by signals; no point that is kept is lost or done twice."""

    def kept() -> list[str]:
        return [row.key for row in kept_points(folder)]

    before: list[str] = []
    for at, (how, after_s) in enumerate(moments(longest_s, few)):
        size = len(before) if at % 2 == 0 else -1  # every second time it may end before it has begun

        def grown(size: int = size) -> bool:
            return len(kept()) > size

        command.end(how, grown, after_s)
        points = kept()
        assert points[: len(before)] == before
        before = points
    assert before
    command.whole("--workers", 1)
    points = kept()
    assert points[: len(before)] == before
    assert len(points) == len(set(points))


def test_profile(tmp_path: Path, nursery: Nursery) -> None:
    repeats = 2 + 16 * MOMENTS  # so many that none comes to its end
    options = ("--model", "tiny-image", "--sizes", "64x64,64x96", "--max-batch", 2, "--repeats", repeats)
    more = ("--minutes", 60 * max(1, MOMENTS), "--threads", 1, "-o", "p.parquet")
    command = Command(tmp_path, "profile", *options, *more, nursery=nursery)
    rows, before = tmp_path / "p.parquet.rows.jsonl", b""
    for how, after_s in moments(2.0 if MOMENTS else 0.1, "KILL"):
        known = before.count(b"measured")

        def grown(known: int = known) -> bool:
            return rows.exists() and rows.read_bytes().count(b"measured") > known + 1

        command.end(how, grown, after_s)
        measured = rows.read_bytes()
        assert measured.startswith(before)
        before = measured[: measured.rfind(b"\n") + 1]
    command.whole()
    assert not rows.exists()
    table = pd.read_parquet(tmp_path / "p.parquet")
    assert not table.duplicated(["composition", "stage", "repeat"]).any()
    assert set(table.groupby(["composition", "stage"]).size()) == {repeats}
    command.tell()
