"""A trace for real and simulated: how well does the simulator foretell what the device does?

One replica serves requests of mixed sizes under one scheduler. First a profile is measured of the batches that the
scheduler can form, on the executor that will serve; then a trace is replayed on it in real time; then simulations of
the same trace, which know the profile alone, are held against the replay. A device runs as fast in one minute as in
the next, so unlike `benchmarks.fidelity` this takes one profile and one real run.
"""

from __future__ import annotations

import gc
import inspect
import math
import statistics
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from backend.machine import hardware_name
from backend.replay import Replay
from backend.replicas.replica import ThreadReplica
from benchmarks.fidelity.compare import simulated, speeds
from benchmarks.gpu_suite.bench import Bench
from benchmarks.gpu_suite.point import Point, Result
from benchmarks.gpu_suite.served import TRIALS, Served, Trial
from benchmarks.gpu_suite.timing import Memory
from policies.events import EventRecord
from policies.runlog import REPLAY, Run, read_run
from policies.scheduling import SCHEDULERS
from predictors.costs import Batch
from predictors.latency_model import LatencyModel
from predictors.profile import Profile
from reports.checks import checked
from reports.figures import latency, summary
from reports.repeats import held_against
from tilecast.recorded import keep_inputs, parity_of
from tilecast.scenario import Scenario
from tilecast.setup import Prepared, prepare
from traces.errors import BadInput
from traces.mix import Mix
from traces.output import Folder
from traces.streams import stream
from traces.trace import Trace
from traces.workload import Workload

FIGURES = ("latency_p50_s", "latency_p95_s", "slo_attainment")
LOAD = 0.7
"""Of the rate at which batches that are full and of one size would keep the replica busy."""


def executor_of(scheduler: str) -> str:
    """The `Executor` mode in which a scheduler's batches run."""
    return "whole" if scheduler.startswith("same-size") else "patched"


def measure_replay(point: Point, bench: Bench) -> Result:
    """Profile, replay and simulations of one scheduler, the point's way; a bench gives all schedulers the same trace.

    Returns:
        ``seconds`` and ``repeats``: real latencies of the requests that finished; `Memory`'s; and

        figures     of `FIGURES`, what is simulated (``sim``, a mean), ``real``, and the ``error`` (sim - real), a share
                    of the real value, or of attainment a difference of shares
        decisions   of the scheduler, and whether feeding it the same events again ``reproduced`` all of them
        speed       measured over profiled seconds of the replay's launches, in all and by stage
        requests    how many, at what ``load`` and ``rate`` (requests a second), of how many ``steps``
        executor    `cluster.executor`
        profile     ``rows`` (stage, composition, steps, seconds) and ``facts``: what was measured before
        launches    stage, composition, steps, start and end (seconds) of each launch of the replay

    Raises:
        BadInput: no such scheduler or model, or a batch that cannot be made.
    """
    if point.way not in SCHEDULERS:
        raise BadInput(f"replay of scheduler {point.way!r}, expected one of {', '.join(SCHEDULERS)}")
    if point.name not in TRIALS:
        raise BadInput(f"no replay of {point.name!r}, expected one of {', '.join(TRIALS)}")
    trial = TRIALS[point.name]
    bench.forget(but="replay")  # networks of other points
    with Memory(bench.device) as memory:
        served = Served(trial, executor_of(point.way), bench)
        try:
            profile = served.profile()
            table = LatencyModel.fit(profile, trial.model, served.mode)
            trace = bench.kept("replay", trial, lambda: trace_of(trial, table))
            with TemporaryDirectory() as folder:
                result = _held_against(served, point.way, profile, trace, Path(folder))
        finally:
            served.end()
            del served
            gc.collect()
            torch.cuda.empty_cache()
    return {**result, **({} if "failed" in result else memory.result)}


def capacity(trial: Trial, table: LatencyModel) -> float:
    """Requests a second while every batch is full, and of one size."""
    seconds = []
    for size in trial.sizes.values:
        batch = Batch(table.model, ((size, trial.max_batch),))
        stages = (("encode", 1), ("denoise", trial.steps), ("decode", 1))
        seconds.append(sum(steps * table.step_s(stage, batch) for stage, steps in stages) / trial.max_batch)
    weights = trial.sizes.weights
    return sum(weights) / sum(s * w for s, w in zip(seconds, weights, strict=True))


def trace_of(trial: Trial, table: LatencyModel) -> Trace:
    """Poisson arrivals at `LOAD`, with deadlines."""
    workload = Workload(
        LOAD * capacity(trial, table), trial.sizes, steps=Mix((trial.steps,), (1.0,)), model=trial.model
    )
    trace = workload.generate(trial.span_s, rng=stream(0, "gpu_suite/replay")).head(trial.requests)
    if not len(trace):
        raise BadInput(f"no request arrives within {trial.span_s} s at {workload.rate:.3f} a second: lengthen span_s")
    return trace.with_slo(scale=trial.slo_scale, standalone=table.standalone_s)


def _held_against(served: Served, scheduler: str, profile: Profile, trace: Trace, folder: Path) -> Result:
    """Replay, simulate and compare; files go into ``folder``."""
    trial = served.trial
    prepared = _prepared(served, scheduler, profile, trace, folder)
    run = _replayed(served, prepared, folder / "real")
    ended = run.requests["status"].value_counts()
    if ended.get("failed", 0) or not ended.get("finished", 0):
        reasons = [reason for reason in run.requests["reason"] if reason]
        return {"failed": f"{ended.get('finished', 0)} of {len(trace)} requests finished: {reasons[0]}"}
    real = checked(run)
    compared = held_against(list(simulated(prepared, trial.seeds)), [summary(real)]).loc[list(FIGURES)]
    parity = parity_of(folder / "real")
    assert parity is not None
    latencies = latency(real).values.tolist()
    columns = ["stage", "composition", "steps", "start_s", "end_s"]
    rows = profile.frame[["stage", "composition", "steps", "seconds"]]
    return {
        "seconds": statistics.median(latencies),
        "repeats": latencies,
        "figures": {name: _defined(row) for name, row in compared[["sim", "real", "error"]].to_dict("index").items()},
        "decisions": parity.decisions,
        "reproduced": parity.same,
        "speed": _defined(speeds(run.steps, prepared.table)),
        "requests": len(trace),
        "load": LOAD,
        "rate": len(trace) / float(trace.frame["arrival_s"].max()),
        "steps": trial.steps,
        "executor": served.mode,
        "profile": {"rows": rows.round(6).values.tolist(), "facts": dict(profile.metadata)},
        "launches": run.steps[columns].round(4).values.tolist(),
    }


def _prepared(served: Served, scheduler: str, profile: Profile, trace: Trace, folder: Path) -> Prepared:
    trial, bench = served.trial, served.bench
    files = {"profile": folder / "profile.parquet", "trace": folder / "trace.parquet"}
    profile.save(files["profile"])
    trace.save(files["trace"])
    cluster = {
        "device": str(bench.device),
        "dtype": served.dtype,
        "executor": served.mode,
        "kernels": bench.kernels,
        "patch_floor": trial.patch_floor,
    }
    scheduling: dict[str, object] = {"name": scheduler}
    if "max_batch" in inspect.signature(SCHEDULERS[scheduler]).parameters:
        scheduling["max_batch"] = trial.max_batch
    return prepare(
        Scenario.model_validate(
            {
                "model": trial.model,
                "trace": {"path": str(files["trace"])},
                "cluster": cluster,
                "predictor": {"profile": str(files["profile"])},
                "policies": {"scheduling": scheduling},
            }
        )
    )


def _replayed(served: Served, prepared: Prepared, folder: Path) -> Run:
    """The run log of the trace in real time.

    Raises:
        KeyboardInterrupt: Ctrl-C ended it early.
    """
    served.warm_up(prepared.requests)
    record = EventRecord()
    controller = prepared.controller(record.add)
    started = datetime.now(UTC).isoformat(timespec="seconds")
    if Replay(controller, [ThreadReplica(lambda: served)]).run(prepared.requests):
        raise KeyboardInterrupt
    hardware = hardware_name(str(served.bench.device))
    info = prepared.info("replay", started=started, speedup=1.0, interrupted=False, hardware=hardware)
    folder.mkdir()
    info |= keep_inputs(prepared, Folder(folder, REPLAY))
    prepared.write(folder, controller, info, record.lines)
    return read_run(folder)


def _defined(values: Mapping[str, Any]) -> Result:
    """As JSON: what is not a number is null."""
    return {name: value if math.isfinite(value) else None for name, value in values.items()}
