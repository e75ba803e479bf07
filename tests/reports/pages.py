"""A page of every kind, each with what is hard to show: long names, many sizes, figures that do not exist."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from policies.runlog import REQUEST_COLUMNS, STEP_COLUMNS, Run
from reports import page as run_page
from reports import sweep_page, validation_page
from reports.comparison import Comparison
from reports.document import Document, render
from reports.markdown import REPORT
from reports.plan import joint_page
from reports.plan import page as plan_page
from reports.repeats import Repeats
from reports.validate import VALIDATION, Validation
from tests.reports import plans
from tests.reports.conftest import INFO, request_table, step_table
from traces.marks import OutputKind

SWEEP = OutputKind("sweep")
SIZES = ((512, 512), (512, 768), (1024, 1024), (1536, 1536), (2048, 2048))


def many(name: str, seed: int, slower: float, **info: object) -> Run:
    """A run of two hundred requests in five sizes on two replicas, of which one in twenty is dropped."""
    rng = np.random.default_rng(seed)
    count = 200
    arrival = np.cumsum(rng.exponential(1.0, count))
    size = rng.integers(0, len(SIZES), count)
    work = slower * 0.3 * (1 + size) ** 2 * rng.lognormal(0, 0.3, count)
    replica = np.arange(count) % 2
    start, end = np.zeros(count), np.zeros(count)
    free = [0.0, 0.0]
    for at in range(count):
        start[at] = max(arrival[at], free[replica[at]])
        end[at] = free[replica[at]] = start[at] + work[at]
    first, launch = request_table().head(1), step_table().head(1)
    requests = pd.concat([first] * count, ignore_index=True).assign(
        request_id=[f"r{at}" for at in range(count)],
        arrival_s=arrival,
        height=[SIZES[code][0] for code in size],
        width=[SIZES[code][1] for code in size],
        deadline_s=arrival + 5 * work,
        standalone_s=work,
        first_start_s=start,
        finish_s=end,
        replica=replica,
        replicas=list(map(str, replica)),
    )
    lost = np.arange(count) % 20 == 3
    requests.loc[lost, "status"] = "dropped"
    requests.loc[lost, "reason"] = "would miss its deadline by 0.0005 to 0.24 s even alone on an idle replica"
    steps = pd.concat([launch] * count, ignore_index=True).assign(
        launch_id=np.arange(count),
        replica=replica,
        stage="denoise",
        start_s=start,
        end_s=end,
        device_s=end - start,
        predicted_s=work * rng.lognormal(0, 0.1, count),
        requests=1 + np.arange(count) % 3,
        request_ids=[[f"r{at}"] for at in range(count)],
        extrapolated=rng.random(count) < 0.1,
    )
    return Run(Path(name), requests[list(REQUEST_COLUMNS)], steps[list(STEP_COLUMNS)], INFO | info)


def run() -> Document:
    scenario = {"plan": {"attainment": 0.95}, "trace": {"path": "burst.csv"}}
    lifetimes = [[0, None, None, None], [1, 10.0, 30.0, 120.0], [1, 150.0, 160.0, None]]
    return run_page.document(Comparison.of([many("the run", 1, 0.5, scenario=scenario, lifetimes=lifetimes)]))


def comparison() -> Document:
    names = ("lookahead", "same-size-continuous-with-a-long-name", "fcfs", "least-slack")
    runs = [many(name, 1, 0.4 + 0.2 * at, scheduler=name) for at, name in enumerate(names)]
    return run_page.document(Comparison.of(runs))


def validation() -> Document:
    sim = many("simulated", 1, 0.5, kind="simulation")
    return validation_page.document(Validation.of(sim, many("real", 1, 0.57, kind="replay")))


def repeats() -> Document:
    sims = [many(f"simulated {seed}", 1, 0.5 + 0.01 * seed, kind="simulation") for seed in range(2)]
    reals = [many(f"real {seed}", 1, 0.5 + 0.01 * seed, kind="replay") for seed in range(2)]
    return validation_page.document(Repeats.of([*sims, *reals], {"decisions": 1200, "reproduced": "all the same"}))


SCHEDULERS = ("fcfs", "same-size-continuous", "lookahead margin=0.1 horizon=12")


def points(**grid: Sequence[object]) -> pd.DataFrame:
    """The table of a sweep over a grid, with two seeds of each point, the busiest of them overloaded."""
    rows = []
    for number, (values, seed) in enumerate(product(product(*grid.values()), range(2))):
        at = dict(zip(grid, values, strict=True))
        load = 0.4 * float(at.get("trace.rate_scale", 1.0)) / int(at.get("cluster.replicas", 1))  # type: ignore[arg-type]
        load *= 1 + 0.2 * [*SCHEDULERS, at.get("policies.scheduling", "fcfs")].index(
            at.get("policies.scheduling", "fcfs")
        )
        met = max(0.05, 1.0 - load**2 - 0.01 * seed)
        late_s = 2.0 / max(0.05, 1 - load) if load < 1 else math.inf
        figures = {"slo_attainment": met, "slo_attainment_worst_size": 0.9 * met, "goodput_rps": met, "requests": 300.0}
        figures |= {
            "latency_p50_s": 1.0,
            "latency_p95_s": late_s,
            "latency_p99_s": 2 * late_s,
            "utilisation": min(1, load),
        }
        more = {
            "overload": load if load > 1 else math.nan,
            "basis": "MEASURED",
            "notes": "",
            "point": str(number),
            "error": "",
        }
        rows.append(at | {"seed": seed} | figures | more)
    return pd.DataFrame(rows)


def sweep() -> Document:
    grid = {"cluster.replicas": (1, 2), "trace.rate_scale": (0.5, 1.0, 1.5, 3.0), "policies.scheduling": SCHEDULERS}
    return sweep_page.document(points(**grid), [*grid, "seed"], "slo_attainment")


def sweep_of_names() -> Document:
    frame = points(**{"policies.scheduling": SCHEDULERS})
    return sweep_page.document(frame, ["policies.scheduling", "seed"], "latency_p95_s")


def joint_plan() -> Document:
    return joint_page.document(plans.joint_plan())


MAKERS: dict[str, tuple[Callable[[], Document], OutputKind]] = {
    "run": (run, REPORT),
    "comparison": (comparison, REPORT),
    "plan": (lambda: plan_page.document(plans.plan()), plan_page.PLAN),
    "plan of pools": (joint_plan, plan_page.PLAN),
    "sweep": (sweep, SWEEP),
    "sweep of names": (sweep_of_names, SWEEP),
    "validation": (validation, VALIDATION),
    "validation of several": (repeats, VALIDATION),
}
PAGES = tuple(MAKERS)


def write_pages(folder: Path) -> dict[str, tuple[Path, int]]:
    """Each page by its name, and how many charts it has."""
    found = {}
    for name, (make, kind) in MAKERS.items():
        document = make()
        path = folder / f"{name}.html"
        path.write_text(render(document, kind), encoding="utf-8")
        found[name] = path, len(list(document.charts()))
    return found
