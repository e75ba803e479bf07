"""What a fidelity study says: simulations of every load and scheduler, held against the real runs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.fidelity.study import SCENARIO, RealRun, Study
from policies.runlog import read_run
from predictors.costs import Batch, CostModel
from predictors.latency_model import LatencyModel
from predictors.profile import Profile
from reports.checks import checked
from reports.fidelity import GOALS
from reports.figures import summary
from reports.repeats import held_against
from tilecast.recorded import parity_of
from tilecast.scenario import load_scenario
from tilecast.setup import Prepared, prepare
from tilecast.simulation import run_simulation
from traces.composition import parse
from traces.stages import ORDINARY, STAGES


@dataclass(frozen=True)
class Findings:
    """What a study found.

    Attributes:
        figures: one row a load, scheduler and figure: the columns of `reports.repeats.held_against`, ``goal``, ``met``,
            and ``at_speed_sim`` and ``at_speed_error``, the same of simulations that are told how fast the machine was
            in each real run.
        runs: one row a real run: ``speed`` (measured over profiled seconds of its launches, above 1: slower than
            profiled) in all and by stage, ``utilisation``, ``decisions`` and whether all were ``reproduced``.
        facts: hardware, date, versions and settings, as JSON values.
    """

    figures: pd.DataFrame
    runs: pd.DataFrame
    facts: dict[str, Any]

    @classmethod
    def of(cls, study: Study, seeds: int) -> Findings:
        """Simulate ``seeds`` times what was run for real, and compare."""
        figures, runs = [], []
        for load in study.loads:
            for scheduler in study.schedulers:
                own = [run for run in study.runs if (run.load, run.scheduler) == (load, scheduler)]
                prepared = _prepare(study, load, scheduler, _profile_around(study, own))
                found = [_of_run(study, run, prepared.table) for run in own]
                runs += found
                reals = [summary(checked(read_run(study.real(run)))) for run in own]
                compared = held_against(list(simulated(prepared, seeds)), reals).loc[list(GOALS)]
                told = [list(simulated(prepared, seeds, row["speed"])) for row in found]
                at_speed = held_against([run for of_repeat in told for run in of_repeat], reals)
                compared["at_speed_sim"], compared["at_speed_error"] = at_speed["sim"], at_speed["error"]
                compared.insert(0, "load", load)
                compared.insert(1, "scheduler", scheduler)
                figures.append(compared.reset_index())
        frame = pd.concat(figures, ignore_index=True)
        frame["goal"] = frame["figure"].map(GOALS)
        frame["met"] = frame["error"].abs() <= frame["goal"]
        return cls(frame, pd.DataFrame(runs), _facts(study, seeds))

    def document(self) -> dict[str, Any]:
        """Everything, as JSON values; what is not defined is null."""
        return {**self.facts, "figures": _records(self.figures), "runs": _records(self.runs)}


def _profile_around(study: Study, runs: Sequence[RealRun]) -> Path:
    """What was measured before and after some runs of one load and scheduler, as one profile."""
    path = study.folder / "profiles" / f"{runs[0].name.rpartition('-')[0]}.parquet"
    Profile.merge(Profile.load(part) for run in runs for part in study.around(run) if part.exists()).save(path)
    return path


def _prepare(study: Study, load: float, scheduler: str, profile: Path) -> Prepared:
    return prepare(
        load_scenario(
            SCENARIO,
            {
                "policies.scheduling": {"name": scheduler},
                **study.overrides(scheduler),
                "trace.path": str(study.trace(load).absolute()),
                "predictor.profile": str(profile.absolute()),
            },
        )
    )


def simulated(prepared: Prepared, seeds: int, slowdown: float = 1.0) -> Iterable[Mapping[str, float]]:
    """The summaries of simulations that differ in their noise, on a machine so many times slower than profiled."""
    scenario = prepared.scenario
    world = scenario.world.model_copy(update={"slowdown": slowdown})
    for seed in range(seeds):
        own = replace(prepared, scenario=scenario.model_copy(update={"seed": seed, "world": world}))
        controller = run_simulation(own)
        yield summary(own.arrays(controller))


def _of_run(study: Study, run: RealRun, table: LatencyModel) -> dict[str, Any]:
    """A row of `Findings.runs`."""
    folder = study.real(run)
    log = read_run(folder)
    parity = parity_of(folder)
    assert parity is not None
    return {
        "load": run.load,
        "scheduler": run.scheduler,
        "repeat": run.repeat,
        "started": log.info["started"],
        **speeds(log.steps, table, study.caching is not None),
        "utilisation": summary(checked(log))["utilisation"],
        "decisions": parity.decisions,
        "reproduced": parity.same,
    }


def speeds(
    launches: pd.DataFrame, table: LatencyModel, cached: bool = False, costs: CostModel | None = None
) -> dict[str, float]:
    """``speed``, in all, and ``speed_encode`` and so on, by stage: measured over profiled seconds of launches.

    Args:
        launches: of a real run, see `policies.runlog.STEP_COLUMNS`.
        table: fitted to the profile.
        cached: whether a block cache looked after the run.
        costs: what steps on several devices take; by default, and on one, what the table says.
    """
    costs = table if costs is None else costs
    measured = launches["stage"].map(lambda stage: STAGES[STAGES[stage].costs_of].measured).astype(bool)
    steps = launches[measured & (launches["steps"] > 0)]
    spent = pd.DataFrame(
        {
            "stage": steps["stage"],
            "measured_s": steps["end_s"] - steps["start_s"],
            "profiled_s": [_profiled_s(table, costs, row, cached) for row in steps.to_dict("records")],
        }
    )
    by_stage = spent.groupby("stage").sum()
    whole = by_stage.sum()
    of_stage = by_stage["measured_s"] / by_stage["profiled_s"]
    return {
        "speed": float(whole["measured_s"] / whole["profiled_s"]),
        **{f"speed_{stage}": float(of_stage.get(stage, math.nan)) for stage in ORDINARY},
    }


def _profiled_s(table: LatencyModel, costs: CostModel, row: Mapping[Any, Any], cached: bool) -> float:
    """What the profile says the launch of a row of ``steps.parquet`` takes on average; its units count equally."""
    stage = row["stage"]
    cached = cached and STAGES[stage].cache == "blocks"
    share = row["computed"] / (row["computed"] + row["reused"]) if cached else None
    batch = Batch(table.model, parse(row["composition"]), computed=share, devices=len(row["devices"].split()))
    usual: float = float(np.mean(table.noise(stage).ratios))
    return row["steps"] * usual * costs.step_s(stage, batch)


def _facts(study: Study, seeds: int) -> dict[str, Any]:
    first = Profile.load(study.first_profile)
    started = sorted(read_run(study.real(run)).info["started"] for run in study.runs)
    return {
        "hardware": first.hardware,
        "software": first.metadata["software"],
        "tilecast": version("tilecast"),
        "date": started[0][:10] if started else datetime.now(UTC).strftime("%Y-%m-%d"),
        "model": first.models[0],
        "settings": study.settings | {"repeats": study.repeats},
        "simulated_seeds": seeds,
    }


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): _defined(value) for key, value in row.items()} for row in frame.to_dict("records")]


def _defined(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
