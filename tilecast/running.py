"""`simulate` and `replay`: a scenario in virtual time, or on real devices."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from pathlib import Path

from policies.runlog import REPLAY, SIMULATION
from reports.progress import Tell, silent
from sim.growing import growing
from tilecast.replaying import check_replayable, replay_into
from tilecast.results import Result, read, simulated
from tilecast.scenario import Scenario
from tilecast.setup import prepare
from tilecast.simulation import run_simulation
from traces.output import claim_folder


def simulate(
    scenario: Scenario,
    output: Path | str | None = None,
    *,
    per_step: bool = False,
    progress: Tell = silent,
) -> Result:
    """Run a scenario in virtual time.

    Args:
        scenario: what to run.
        output: folder for the run log; None: it stays in memory.
        per_step: one event a step: the slow oracle, for which ``predictor.online`` is turned off.
        progress: told how many requests have been submitted, now and then.

    Raises:
        BadInput: whatever is wrong with the scenario or the folder, in one line.
        PolicyError: a policy that is the user's own did not keep the contract.
    """
    if output is None:
        with growing():
            return _simulate(scenario, per_step, progress)
    with claim_folder(Path(output), SIMULATION) as claimed, growing():
        result = _simulate(scenario, per_step, progress)
        with claimed.renewed() as folder:
            result.write(folder)
        return replace(read(output), wall_s=result.wall_s)


def _simulate(scenario: Scenario, per_step: bool, progress: Tell) -> Result:
    unlearned = per_step and scenario.predictor.online
    prepared = prepare(scenario.replaced({"predictor.online": False}) if unlearned else scenario)
    if unlearned:
        prepared.warnings.append("--per-step turned predictor.online off; compare with a run that has it off")
    begun_s = time.perf_counter()
    controller = run_simulation(prepared, per_step, partial(progress, "simulating", len(prepared.requests)))
    return replace(simulated(prepared, controller), wall_s=time.perf_counter() - begun_s)


def replay(
    scenario: Scenario,
    output: Path | str,
    *,
    speedup: float = 1.0,
    save_images: bool = False,
    resume: bool = False,
    progress: Tell = silent,
) -> Result:
    """Run a scenario in real time on real devices; its run log is written as it goes.

    Args:
        scenario: what to run.
        output: folder for the run log.
        speedup: seconds of the trace in a real second.
        save_images: write the pictures, too.
        resume: go on with the interrupted replay in the folder, if there is one.
        progress: told how many requests have ended, now and then.

    Raises:
        BadInput: whatever is wrong with the scenario, the folder or the machine, in one line.
        PolicyError: a policy that is the user's own did not keep the contract.
        Interrupted: a signal ended it; the log so far is written.
    """
    if speedup != 1.0:
        scenario = scenario.replaced({"trace.rate_scale": scenario.trace.rate_scale * speedup})
    check_replayable(scenario)
    prepared = prepare(scenario)
    with claim_folder(Path(output), REPLAY, goes_on=resume) as folder:
        tell = partial(progress, "replaying", len(prepared.requests))
        replay_into(prepared, folder, speedup, save_images, resume, tell)
    return read(output)
