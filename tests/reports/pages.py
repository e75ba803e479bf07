"""A page of every kind, each with what is hard to show: long names, many sizes, figures that do not exist."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from policies.runlog import REQUEST_COLUMNS, STEP_COLUMNS, Run
from reports import page as run_page
from reports.comparison import Comparison
from reports.document import Document, render
from reports.markdown import REPORT
from reports.plan import page as plan_page
from tests.reports import plans
from tests.reports.conftest import INFO, request_table, step_table

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


MAKERS: dict[str, tuple[Callable[[], Document], object]] = {
    "run": (run, REPORT),
    "comparison": (comparison, REPORT),
    "plan": (lambda: plan_page.document(plans.plan()), plan_page.PLAN),
    "uncertain plan": (lambda: plan_page.document(plans.uncertain()), plan_page.PLAN),
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
