"""Simulation against reality: one trace, simulated and replayed twice on this machine.

    python -m benchmarks.fidelity [--requests 200] [--load 0.7] [--schedulers least-slack ...] -o FOLDER
    python -m benchmarks.fidelity --executor patched --patch-floor 4 --schedulers lookahead mixed-fcfs
    python -m benchmarks.fidelity --executor patched --caching first-block --schedulers lookahead

Measures tiny-image on one core, generates a trace the profile has not seen, simulates it, replays it twice, and
prints for P50, P95 and attainment the error of the simulation beside the spread of the two real runs, and the error
of the predictions under load. With ``--executor patched`` batches mix sizes; with ``--caching`` blocks are reused.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from examples.demo import HERE, generate, mean_service_s, measure, tilecast
from policies.runlog import read_run
from reports.metrics import summary

CACHE_PATCH = 48
"""Latent pixels: images of these sizes are not cut. On a CPU many small patches cost more than they save."""
FIGURES = {"latency_p50_s": "P50", "latency_p95_s": "P95", "slo_attainment": "attainment"}


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("out/fidelity"))
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--load", type=float, default=0.7, help="of one request at a time")
    parser.add_argument("--schedulers", nargs="+", default=["least-slack"])
    parser.add_argument("--executor", choices=("whole", "patched"), default="whole")
    parser.add_argument("--patch-floor", type=int, help="latent pixels; 4 mixes all these sizes in one forward")
    parser.add_argument("--caching", help="a caching policy, such as first-block")
    parser.add_argument("--minutes", type=float, default=1.0, help="of measuring, and at least one round")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args(given)
    out: Path = arguments.output
    out.mkdir(parents=True, exist_ok=True)
    profile, trace = out / "profile.parquet", out / "trace.parquet"
    options: list[object] = ["--executor", arguments.executor]
    settings: list[object] = ["--set", f"cluster.executor={arguments.executor}"]
    if arguments.patch_floor is not None:
        options += ["--patch-floor", arguments.patch_floor]
        settings += ["--set", f"cluster.patch_floor={arguments.patch_floor}"]
    if arguments.caching is not None:
        options += ["--caching", arguments.caching, "--cache-patch", CACHE_PATCH]
        settings += ["--set", f"policies.caching={arguments.caching}", "--set", f"cluster.cache_patch={CACHE_PATCH}"]
    measure(profile, *options, minutes=arguments.minutes)
    duration_s = 1.5 * arguments.requests * mean_service_s(profile) / arguments.load
    generate(profile, trace, arguments.load, duration_s, "poisson", arguments.seed)
    table = Table(title=f"{arguments.requests} requests at {100 * arguments.load:.0f} % load")
    for column in ("scheduler", "figure", "simulated", "real", "error", "real again", "spread"):
        table.add_column(column, justify="left" if column in ("scheduler", "figure") else "right")
    results = []
    for name in arguments.schedulers:
        scenario = (HERE / "tiny_image.toml", "--trace", trace, "--profile", profile, "--scheduler", name,
                 "--set", f"trace.limit={arguments.requests}", *settings)  # fmt: skip
        tilecast("simulate", *scenario, "-o", out / f"sim-{name}")
        for run in ("real", "again"):
            tilecast("replay", *scenario, "-o", out / f"{run}-{name}")
        tilecast("validate", out / f"sim-{name}", out / f"real-{name}", "-o", out / f"{name}.json")
        sim, real, again = (summary(read_run(out / f"{run}-{name}")) for run in ("sim", "real", "again"))
        for figure, label in FIGURES.items():
            error, spread = difference(figure, sim, real), difference(figure, again, real)
            row = (sim[figure], real[figure], error, again[figure], spread)
            results.append({"scheduler": name, "figure": figure, "sim": row[0], "real": row[1], "again": row[3]})
            table.add_row(name, label, f"{row[0]:.3f}", f"{row[1]:.3f}", error, f"{row[3]:.3f}", spread)
        predicted = [f"{100 * run['prediction_mape_by_time:denoise']:.1f} %" for run in (sim, real, again)]
        table.add_row(name, "prediction MAPE", predicted[0], predicted[1], "", predicted[2], "")
        results.append({"scheduler": name, "figure": "prediction_mape_by_time:denoise"} | {
            run: figures["prediction_mape_by_time:denoise"]
            for run, figures in (("sim", sim), ("real", real), ("again", again))
        })  # fmt: skip
    (out / "fidelity.json").write_text(json.dumps(results, indent=2) + "\n")
    Console().print(table)


def difference(figure: str, run: dict[str, float], real: dict[str, float]) -> str:
    """Points for a share, percent for a time."""
    if figure == "slo_attainment":
        return f"{100 * (run[figure] - real[figure]):+.1f} points"
    return f"{100 * (run[figure] / real[figure] - 1):+.1f} %"


if __name__ == "__main__":
    main()
