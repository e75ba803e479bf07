"""Golden run logs: every scheduler in every kind of cluster, a plan and a sweep, held against those of other code.

    python -m benchmarks.golden -o before            # at the commit to compare with
    python -m benchmarks.golden -o after --against before

Everything goes through the command line, so it compares what users get, whatever is moved inside. Same seed, same
bytes: a change that should alter nothing leaves no difference, and one that should alters just what it says. Fits
differ in their last bits between processors, so logs are made on the machine where they are compared, and not kept.
Exit code 1: something differs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from joblib import Parallel, delayed

from policies.scheduling import SCHEDULERS
from tilecast.studies.result_store import read_points

SCENARIO = """
model = "tiny-image"
seed = 3
[trace]
path = "trace.parquet"
[cluster]
replicas = 2
threads = 1
[predictor]
profile = "cpu-1core"
[slo]
scale = 4.0
"""
WORLDS: dict[str, str] = {
    "plain": "",
    "mixed": "cluster.executor=patched",
    "cache": "cluster.executor=patched policies.caching=first-block cluster.cache_patch=48",
    "tiles": "trace.path=tiled.parquet cluster.devices=2 tiling.refine=0.15 tiling.mode=clamp tiling.overlap=48 "
    "policies.tile_caching=region-aware",
    "checkpoints": "weights.memory_gb=20 weights.weights_gb=7 weights.load_s=0.3",
    "faults": "faults.mtbf_s=40 faults.repair_s=8 faults.in_flight=resume faults.patience_s=30 faults.cold_start_s=1",
}
"""Scenario keys of each kind of cluster."""
TRACES = {
    "trace.parquet": "--rate 12 --duration 25 --arrivals gamma:2 --sizes 96x96:3,128x128:2,192x192:1 --steps 12",
    "tiled.parquet": "--rate 2 --duration 60 --sizes 96x96:3,192x192:2,256x256:1 --steps 12",
}
GRID = """
seeds = 2
[grid]
cluster.replicas = [1, 2]
policies.scheduling = ["fcfs", "lookahead"]
"""
CHECKPOINTS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, help="A folder that is not there yet.")
    parser.add_argument("--against", type=Path, help="A folder of earlier logs.")
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    if given.output.exists():
        sys.exit(f"error: {given.output} is there; choose another -o, or remove it")
    write(given.output, given.workers)
    if given.against is not None:
        found = list(differences(given.against, given.output))
        print("\n".join(found) or "no difference")
        sys.exit(bool(found))


def write(folder: Path, workers: int) -> None:
    """Run everything into ``folder``."""
    folder.mkdir(parents=True)
    (folder / "scenario.toml").write_text(SCENARIO, encoding="utf-8")
    (folder / "grid.toml").write_text(GRID, encoding="utf-8")
    for name, how in TRACES.items():
        _tilecast(folder, f"trace generate --model tiny-image --seed 3 {how} -o {name}")
    _with_checkpoints(folder / "trace.parquet", folder / "checkpoints.parquet")
    settings = {name: " ".join(f"--set {key}" for key in keys.split()) for name, keys in WORLDS.items()}
    settings["checkpoints"] += " --set trace.path=checkpoints.parquet"
    runs = [
        f"simulate scenario.toml --scheduler {scheduler} {of_world} -o {world}.{scheduler}"
        for world, of_world in settings.items()
        for scheduler in SCHEDULERS
    ]
    runs.append("plan scenario.toml --attainment 0.9 --policies fcfs,lookahead -o plan")
    runs.append("sweep scenario.toml --grid grid.toml -o sweep")
    Parallel(workers, prefer="threads", verbose=1)(delayed(_tilecast)(folder, run) for run in runs)


def differences(before: Path, after: Path) -> Iterator[str]:
    """What differs between two folders, a line a file."""
    names = {path.relative_to(folder) for folder in (before, after) for path in folder.rglob("*") if path.is_file()}
    for name in sorted(names):
        if said := _difference(before / name, after / name):
            yield f"{name}: {said}"


def _tilecast(folder: Path, command: str) -> None:
    program = Path(sys.executable).with_name("tilecast")
    done = subprocess.run([program, *command.split()], cwd=folder, capture_output=True, text=True)
    if done.returncode not in (0, 3):  # 3: it ran, and the answer is no
        sys.exit(f"error: tilecast {command} ended with {done.returncode}: {done.stderr}")


def _with_checkpoints(source: Path, target: Path) -> None:
    """The trace again, with popular and rare checkpoints and some adapters."""
    frame = pd.read_parquet(source)
    place = pd.Series(range(len(frame)))
    frame["checkpoint"] = "M" + (place * 7 % 11 % CHECKPOINTS).astype(str)
    frame["adapters"] = (place % 4 == 0).map({True: "style", False: ""})
    frame.to_parquet(target, index=False)


def _difference(before: Path, after: Path) -> str:
    if not (before.is_file() and after.is_file()):
        return "only in the first" if before.is_file() else "only in the second"
    if before.suffix == ".parquet":
        return _of_tables(pd.read_parquet(before), pd.read_parquet(after))
    if before.suffix == ".json":
        return _of_values(*(json.loads(path.read_text(encoding="utf-8")) for path in (before, after)))
    if before.suffix == ".sqlite":  # finished points, in the order in which processes came to their ends
        found = [sorted(map(str, read_points(path.parent).values())) for path in (before, after)]
        return "" if found[0] == found[1] else "other points"
    return "" if before.read_bytes() == after.read_bytes() else "other bytes"


def _of_tables(before: pd.DataFrame, after: pd.DataFrame) -> str:
    if list(before) != list(after) or len(before) != len(after):
        return f"{before.shape} of {list(before)}, now {after.shape} of {list(after)}"
    wrong = [name for name in before if list(before[name].map(str)) != list(after[name].map(str))]
    return f"column {', '.join(wrong)}" if wrong else ""


def _of_values(before: Any, after: Any, where: str = "") -> str:
    if isinstance(before, dict) and isinstance(after, dict):
        keys = sorted({*before, *after})
        return "; ".join(filter(None, (_of_values(before.get(k), after.get(k), f"{where}.{k}") for k in keys)))
    alike = before == after or (before != before and after != after)
    return "" if alike else f"{where[1:]} was {before}, is {after}"


if __name__ == "__main__":
    main()
