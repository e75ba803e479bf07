"""Compiled, see ``setup.py``, and as plain Python the event loop writes the same bytes.

Of the Tilecast that lies in the folder TILECAST_COMPILED, as ``pip install --target FOLDER .`` makes one, or of this
one where it is compiled.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(os.environ.get("TILECAST_COMPILED", Path(__file__).parents[2])).resolve()
COMPILED = any(path.suffix in (".so", ".pyd") for path in (FOLDER / "sim").glob("driver.*"))
PLAIN = """
import sys
from importlib.machinery import SOURCE_SUFFIXES, FileFinder, SourceFileLoader
sources = FileFinder.path_hook((SourceFileLoader, SOURCE_SUFFIXES))
folder = sys.argv.pop(1)
def of_tilecast(path):
    if path.startswith(folder):
        return sources(path)
    raise ImportError
sys.path_hooks.insert(0, of_tilecast)
"""
RUN = """
import sys
import sim.driver, policies.scheduling.lookahead_rides
print([module.__file__.endswith(".py") for module in (sim.driver, policies.scheduling.lookahead_rides)])
from tilecast.__main__ import main
main()
"""
OWN = """
import tilecast as tc
from policies.scheduling import Lookahead

class Newest(tc.SchedulingPolicy):
    def plan(self, replica, now):
        jobs = list(replica.resident.values()) or list(replica.queue.values())
        return tc.Decision((jobs[-1],), jobs[-1].steps_left) if jobs else None

class Patient(Lookahead):
    def __init__(self, max_batch: int = 3) -> None:
        super().__init__(max_batch, drop_late=False)

    def arrived(self, job, now):
        super().arrived(job, now)
"""
SCENARIO = """
model = "tiny-image"
trace.path = "trace.csv"
cluster.replicas = 2
predictor.profile = "cpu-1core"
slo.scale = 4.0
faults = {mtbf_s = 5.0, repair_s = 1.0, in_flight = "resume"}
"""


@pytest.mark.skipif(not COMPILED, reason="no compiled Tilecast here; TILECAST_COMPILED names the folder of one")
@pytest.mark.parametrize("scheduler", ["fcfs", "lookahead", "same-size-continuous", "own.py:Newest", "own.py:Patient"])
def test_compiled_and_plain_write_the_same_bytes(scheduler: str, tmp_path: Path) -> None:
    sides = (96, 128, 192)
    rows = [f"{0.04 * n},{sides[n % 3]},{sides[n * n % 3]},{4 + n % 7}\n" for n in range(80)]
    (tmp_path / "trace.csv").write_text("arrival_s,height,width,steps\n" + "".join(rows))
    (tmp_path / "scenario.toml").write_text(SCENARIO)
    (tmp_path / "own.py").write_text(OWN)
    options = ["simulate", "scenario.toml", "--scheduler", scheduler, "-o"]
    for name, code in (("compiled", RUN), ("plain", PLAIN + RUN)):
        first = [str(FOLDER)] if name == "plain" else []
        done = subprocess.run(
            [sys.executable, "-c", code, *first, *options, name],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(FOLDER)},
            capture_output=True,
            text=True,
        )
        assert done.returncode in (0, 3), done.stderr
        assert done.stdout.startswith(str([name == "plain"] * 2))
    for table in ("requests.parquet", "steps.parquet"):
        assert (tmp_path / "compiled" / table).read_bytes() == (tmp_path / "plain" / table).read_bytes()
