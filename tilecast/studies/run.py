"""`plan` and `sweep`: many simulations that answer one question, each kept as it finishes."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from policies.contract import PolicyError
from reports.plan.formatting import subject
from reports.plan.page import PLAN
from reports.plan.result import Plan
from reports.progress import Tell, silent
from tilecast.demand import check_open
from tilecast.scenario import Scenario
from tilecast.setup import check_policies
from tilecast.studies.assess import Assessor
from tilecast.studies.case import Case
from tilecast.studies.grid import Grid, SweepPoint
from tilecast.studies.planner import Wanted, make_plan
from tilecast.studies.result_store import kept_in, run_points
from tilecast.studies.simulator import Simulator
from tilecast.studies.sweep import SWEEP, points_table, simulate_point, tasks
from tilecast.studies.workers import check_workers
from traces.errors import BadInput
from traces.files import write_frame
from traces.output import check_file


def plan(
    scenario: Scenario,
    output: Path | str | None = None,
    *,
    attainment: float | None = None,
    rate_rps: float | None = None,
    throughput_rps: float | None = None,
    headroom: float | None = None,
    replicas: int | None = None,
    hardware: str | None = None,
    devices: int | None = None,
    policies: Sequence[str] = (),
    growth: float | None = None,
    months: int | None = None,
    workers: int | None = None,
    progress: Tell = silent,
) -> Plan:
    """Find the least hardware that keeps a promise, of what the scenario's plan section names.

    Args:
        scenario: the demand, the deadlines, and what may be bought.
        output: folder in which every simulation is kept, so that the same plan goes on there; None: nothing is kept.
        attainment: share of the requests that must finish in time, in the place of ``plan.attainment``.
        rate_rps: requests a second to plan for, in the mean; None: those of the trace, times ``trace.rate_scale``.
        throughput_rps: requests a second that must be completed, too, in the place of ``plan.throughput``.
        headroom: the promise must be kept at so much more than the demand, as a share of it, in the place of
            ``plan.headroom``.
        replicas: say what so many replicas carry, and do not search.
        hardware: the only kind of ``plan.hardware`` to consider.
        devices: devices per replica, with ``replicas``.
        policies: schedulers of which the best is the answer, in the place of ``plan.policies``.
        growth: growth of the demand per month, 0.1 for 10 %.
        months: months to look ahead, with ``growth``; None: 12.
        workers: processes; None: one a core.
        progress: told what is simulated.

    Raises:
        BadInput: whatever is wrong, in one line.
        Interrupted: Ctrl-C; what finished is kept in ``output``.
    """
    check_open(scenario)
    if months is not None and growth is None:
        raise BadInput("--months goes with --growth, the share by which the demand grows a month")
    if scenario.pool:
        raise BadInput("the scenario has pools, each of which is planned for itself: ask plan_pools")
    if devices is not None and replicas is None:
        raise BadInput("--devices goes with --replicas; a search tries the devices of plan.hardware")
    if scenario.scaling is not None or scenario.policies.scaling is not None:  # a plan is of clusters of fixed size
        scenario = scenario.replaced({"scaling": None, "policies.scaling": None})
    asked: dict[str, Any] = {"attainment": attainment, "throughput": throughput_rps, "headroom": headroom}
    asked["policies"] = tuple(policies) or None
    given = {f"plan.{name}": value for name, value in asked.items() if value is not None}
    case = Case(scenario.replaced(given) if given else scenario, hardware)
    if rate_rps is not None:
        case = case.at(rate_rps)
    faults = case.scenario.faults
    if replicas is None and faults is not None and (faults.outages or faults.slow):
        raise BadInput(
            "faults.outages and faults.slow name replicas, whose number is what a plan looks for; expected "
            "faults.mtbf_s and faults.straggler_every_s, or --replicas"
        )
    clusters = () if replicas is None else case.clusters(replicas, devices)
    wanted = Wanted(case.policies, clusters, growth or 0.0, 0 if growth is None else months or 12)
    slo, demand, target, options = case.slo(), case.demand(), case.slo_target(), case.options
    case.check_possible()
    with kept_in(output, PLAN) as store:
        simulator = Simulator(case, store, workers or os.cpu_count() or 1, progress)
        made = make_plan(Assessor(simulator, options, target, case.effort()), wanted, demand, slo)
    about = subject(made)
    return replace(
        made,
        by_degree=() if about is None else case.by_degree(about.candidate),
        notes=(*made.notes, *case.notes()),
        noted=case.noted(),
        tilecast=version("tilecast"),
        points=simulator.simulations,
    )


@dataclass(frozen=True)
class Sweep:
    """What a sweep came to.

    Attributes:
        frame: a row a point, see `tilecast.studies.sweep.points_table`.
        keys: what differs between points, dotted keys of a scenario.
        before: points that were kept from before.
        lost: points that failed and are not kept: the same sweep tries them again.
    """

    frame: pd.DataFrame
    keys: tuple[str, ...]
    before: int
    lost: int

    def report(self, path: Path | str, by: str = "slo_attainment") -> Path:
        """Write the sweep's HTML page, its settings ranked by a figure.

        Raises:
            BadInput: the path holds something else, or cannot be written.
        """
        from reports.sweep_page import write_sweep_page

        write_sweep_page(self.frame, self.keys, by, check_file(Path(path), SWEEP), SWEEP)
        return Path(path)


def sweep(
    scenario: Scenario,
    grid: Grid | Mapping[str, Any] | Path | str,
    output: Path | str | None = None,
    *,
    workers: int | None = None,
    executor: str = "joblib",
    ray_address: str | None = None,
    keep_logs: bool = False,
    given: Collection[str] = (),
    progress: Tell = silent,
) -> Sweep:
    """Simulate every combination of a grid of scenario keys.

    Args:
        scenario: what all points have in common.
        grid: a grid file, or what one says, see `tilecast.studies.grid`.
        output: folder in which every point is kept, so that the same sweep goes on there, and its table is written;
            None: nothing is kept.
        workers: simulations at a time; None: one a core.
        executor: ``joblib``: processes of this machine. ``ray``: a Ray cluster.
        ray_address: ray address of the cluster; None: that of ``RAY_ADDRESS``, or else one on this machine.
        keep_logs: write every run log to ``output/runs``.
        given: dotted keys that the grid must not set, because the caller has.
        progress: told how many points are done.

    Raises:
        BadInput: whatever is wrong, in one line, and before anything is simulated where it is a policy, a key or a
            value of the grid; all points failed.
        Interrupted: Ctrl-C; what finished is kept in ``output``.
    """
    count = workers or os.cpu_count() or 1
    check_workers(count, executor, ray_address)
    if keep_logs and output is None:
        raise BadInput("run logs are kept in the folder of a sweep; name one")
    if not isinstance(grid, Grid):
        grid = Grid.of(grid) if isinstance(grid, Mapping) else Grid.load(Path(grid))
    logs = Path(output).absolute() / "runs" if keep_logs and output is not None else None
    points = grid.points(scenario, given)
    _check_policies(points, grid.path)
    todo = tasks(points, logs)
    with kept_in(output, SWEEP) as store:
        before = sum(key in store for key in todo)
        tell = partial(progress, "simulating", len(todo))
        results = run_points(
            function=simulate_point,
            points=todo,
            kept=store,
            workers=count,
            executor=executor,
            progress=tell,
            ray_address=ray_address,
        )
        frame = points_table(grid, todo, results)
        if output is not None:
            for suffix in ("parquet", "csv"):
                write_frame(frame, Path(output) / f"sweep.{suffix}", SWEEP)
        lost = sum(key not in store for key in todo)
    if (frame["error"] != "").all():
        raise BadInput(f"all {len(frame)} points failed, the first with: {frame['error'].iloc[0]}")
    return Sweep(frame, tuple(grid.keys), before, lost)


def _check_policies(points: Sequence[SweepPoint], path: Path) -> None:
    """Refuse a sweep of which the policies of some point are wrong in themselves, before any is simulated."""
    deciding = {"model", "policies", "pool", "tiling", "weights"}
    distinct: dict[str, SweepPoint] = {}
    for point in points:
        distinct.setdefault(point.scenario.model_dump_json(include=deciding), point)
    for point in distinct.values():
        try:
            check_policies(point.scenario)
        except (BadInput, PolicyError) as error:
            raise BadInput(f"{path}: with {point}: {error}") from error
