"""PatchedServe's comparison, simulated on the measurements published with it: one command.

    python -m benchmarks.patchedserve [--quick] [--regimes] [--real] [--data ../shared/data] [-o out/patchedserve]

Prints and writes, for SDXL and SD3: ours against the strongest reading of PatchedServe and against the best other one
in every regime, and where ours does not win; then goodput, attainment by rate and size, latencies, several GPUs, what
the oracle and each ingredient change, the paper's claims beside what is found here, errors of the latency models, and
how long a decision takes. Everything is a mean over seeds with its 95 % confidence interval. What was measured is kept
in the output folder, so that an interrupted run goes on where it stopped, and a changed scheduler alone is measured
again. How near schedulers come to the optimum of small bursts is `benchmarks.optimum`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from joblib import Parallel, delayed

from benchmarks.outputs import BENCHMARK
from benchmarks.serving import report
from benchmarks.serving.contenders import CONTENDERS, OURS, PUBLISHED
from benchmarks.serving.journal import Journal
from benchmarks.serving.measure import decision_times, measure
from benchmarks.serving.point import Point, Source, mean_alone_s, profile_of, truth
from benchmarks.serving.regimes import REGIMES, Regime
from policies.scheduling import SCHEDULERS
from predictors.importers.mixfusion import ADDRESS
from reports.progress import bar
from traces.errors import BadInput
from traces.files import write_document, write_frame
from traces.stages import STAGES

ROOT = Path(__file__).parents[1]

READINGS = tuple(PUBLISHED)
SEVERAL_GPUS = ("same-size-continuous", "mixed-fcfs", "patchedserve-relaxed-seconds", "clockwork", OURS)
"""Schedulers of the section that would take too long with all."""

PREDICTING = (*READINGS, "patchedserve-joins", "clockwork", "rounds", OURS)
"""Those that decide by predictions."""

RATES = {"sdxl": (0.6, 0.8, 1.0, 1.2, 1.4), "sd3": (0.2, 0.3, 0.4, 0.5, 0.6)}
PAPER_RATES = {"sdxl": (0.8, 1.0, 1.2), "sd3": (0.1, 0.2, 0.3, 0.5)}
"""Requests a second and GPU; the paper's are those of its evaluation."""

COMPUTED = 0.7
"""What a patch cache is taken to compute of every step where its gain is shown."""

REAL = ("--executor", "patched", "--patch-floor", "4", "--requests", "100", "--load", "1.0")
REAL_SCHEDULERS = ("mixed-fcfs", "patchedserve", OURS)
"""What ``--real`` gives `benchmarks.fidelity`: mixed batches, at the load that one request at a time just carries."""


@dataclass(frozen=True)
class Scale:
    """How much of everything: seeds, requests a simulation, mixes, replicas; ``sparse``: a few of the rates."""

    seeds: int = 5
    requests: int = 400
    replicas: tuple[int, ...] = (2, 4)
    decisions: int = 100
    regimes: tuple[Regime, ...] = REGIMES
    sparse: bool = False

    @classmethod
    def quick(cls) -> Scale:
        """Enough to see that everything works; too little to conclude from."""
        return cls(seeds=2, requests=120, replicas=(2,), decisions=10, sparse=True)


class Load(NamedTuple):
    """What the points of a section are made for: a model with one seed, and who is compared.

    Attributes:
        source: of the measurements.
        base: the usual regime, of no scheduler yet.
        names: of contenders.
        has_whole: whether whole images were measured too.
        scale: of the comparison.
    """

    source: Source
    base: Point
    names: Sequence[str]
    has_whole: bool
    scale: Scale

    def among(self, names: Sequence[str]) -> list[str]:
        """Those of some contenders that are compared."""
        return [name for name in names if name in self.names]

    def rates(self, published: dict[str, tuple[float, ...]] = RATES) -> tuple[float, ...]:
        """Rates of a curve; for measurements of one's own, around what one request at a time carries."""
        chosen = published.get(self.base.model) if self.source.profile is None else None
        if chosen is None:
            carried = 1 / mean_alone_s(self.source, self.base)
            chosen = tuple(round(carried * share, 4) for share in (0.4, 0.7, 1.0, 1.3, 1.6))
        return chosen[1::2] if self.scale.sparse else chosen


def regimes(load: Load) -> list[Point]:
    """Every regime, for all."""
    there = [regime for regime in load.scale.regimes if _can_be_measured(load, regime)]
    points = [regime.point(load.source, load.base) for regime in there]
    return [replace(point, scheduler=name) for point in points for name in load.names]


def _can_be_measured(load: Load, regime: Regime) -> bool:
    """Whether the data of its mix is there, and measurements of its executor."""
    changes = regime.changes
    if changes.get("mix", load.base.mix) not in load.source.mixes():
        return False
    return changes.get("engine") != "whole" or load.has_whole


def curves(load: Load) -> list[Point]:
    """Attainment against rate."""
    return [replace(load.base, scheduler=name, rate=rate) for name in load.names for rate in load.rates()]


def several_gpus(load: Load) -> list[Point]:
    """Goodput of one GPU and of several."""
    points = [replace(load.base, scheduler=name) for name in load.among(SEVERAL_GPUS)]
    many = [(n, max(load.base.requests, load.base.requests // 4 * n)) for n in load.scale.replicas]
    at_90 = [replace(point, goals=(0.90,)) for point in points]
    return points + [replace(point, replicas=n, requests=count) for point in at_90 for n, count in many]


def knowledge(load: Load) -> list[Point]:
    """Predictions that are wrong, uncorrected, or the truth."""
    points = [replace(load.base, scheduler=name) for name in load.among(PREDICTING)]
    knowing: list[dict[str, Any]] = [{"error": -0.2}, {"error": 0.2}, {"knowledge": "fixed"}, {"knowledge": "oracle"}]
    return points + [replace(point, goals=(0.90,), **known) for point in points for known in knowing]


def ablation(load: Load) -> list[Point]:
    """One ingredient more a point: whole images of one size, mixed batches, our scheduler, online correction, a cache
    (not for SDXL, whose measurements hold one already); and the oracle predictor.
    """
    base = replace(load.base, goals=(0.90,), deadlines="whole" if load.has_whole else "")
    ours = OURS if OURS in load.names else "patchedserve-joins"
    points = [replace(base, scheduler="same-size-continuous", engine="whole")] * load.has_whole
    points += [replace(base, scheduler="mixed-fcfs")]
    points += [replace(base, scheduler=ours, knowledge=known) for known in ("fixed", "online")]
    points += [replace(base, scheduler=ours, computed=COMPUTED)] * (base.model != "sdxl")
    points += [replace(base, scheduler=ours, knowledge="oracle")]
    return [point for point in points if point.scheduler in load.names]


def claims(load: Load) -> list[Point]:
    """The systems of the paper's evaluation in its set-up, where NIRVANA runs whole images; and on one engine."""
    base = replace(load.base, goals=(0.90,), deadlines="whole" if load.has_whole else "")
    points = [
        replace(base, scheduler=name) for name in load.among((*READINGS, "patchedserve-joins", "mixed-fcfs", OURS))
    ]
    points += [
        replace(base, scheduler="nirvana", engine=engine, steps_skipped=share)
        for engine in (["patched", "whole"] if load.has_whole else ["patched"])
        for share in (0.0, 0.5)
        if "nirvana" in load.names
    ]
    return [replace(point, rate=rate) for rate in (None, *load.rates(PAPER_RATES)) for point in points]


SECTIONS: dict[str, tuple[Callable[[Load], list[Point]], Callable[[pd.DataFrame], list[report.Table]]]] = {
    "rates": (curves, report.curves),
    "replicas": (several_gpus, report.replicas),
    "knowledge": (knowledge, report.knowledge),
    "ablation": (ablation, report.ablation),
    "claims": (claims, report.claims),
}
"""Beside the regimes: what is simulated for a model and seed, and the tables of a model's points."""


def plan(source: Source, models: Sequence[str], names: Sequence[str], scale: Scale) -> dict[str, list[Point]]:
    """The points of the regimes and of every section."""
    sections: dict[str, list[Point]] = {name: [] for name in ("regimes", *SECTIONS)}
    for seed in range(scale.seeds):
        for model in models:
            whole = "whole" in profile_of(source).executors(model)
            has_whole = whole and any(STAGES[stage].sampler for stage in truth(source, model, "whole").costs)
            base = Point(model, "", requests=scale.requests, seed=seed)
            load = Load(source, base, names, has_whole, scale)
            sections["regimes"] += regimes(load)
            for name, (points, _) in SECTIONS.items():
                sections[name] += points(load)
    return sections


def run(source: Source, points: Sequence[Point], journal: Journal, jobs: int) -> None:
    """Measure the points that the journal lacks, on ``jobs`` processes."""
    missing = [point for point in dict.fromkeys(points) if point not in journal]
    results = Parallel(jobs, return_as="generator_unordered", batch_size=1)(
        delayed(_measured)(source, point) for point in missing
    )
    with bar("simulating", len(missing)) as progress:
        for done, (point, figures) in enumerate(results, 1):
            journal.add(point, figures)
            progress(done)


def _measured(source: Source, point: Point) -> tuple[Point, dict[str, Any]]:
    return point, measure(source, point)


def decisions(source: Source, model: str, schedulers: Sequence[str], scale: Scale, journal: Journal) -> report.Table:
    """Decision time by scheduler and queue length; measured here, alone."""
    rows = []
    for name in schedulers:
        cells = []
        for waiting in (10, 100, 1000):
            what = (name, model, "decisions", waiting, scale.decisions)
            if what not in journal:
                journal.add(what, decision_times(source, model, name, waiting, scale.decisions))
            figures = journal[what]
            cells.append(f"{figures['mean_ms']:.3f} ({figures['p99_ms']:.3f})")
        rows.append([name, *cells])
    title = f"{model}: milliseconds a launch that a scheduler thinks, mean (P99), by requests waiting"
    note = "Controller included; launches of at most five steps; one core, with whatever else ran on the machine."
    return report.Table(title, note, ["scheduler", "10", "100", "1,000"], rows)


def tables(source: Source, scale: Scale, sections: dict[str, list[Point]], journal: Journal) -> Iterator[report.Table]:
    """Every table but that of decision times."""
    frames = {name: journal.frame(list(dict.fromkeys(points))) for name, points in sections.items()}
    compared = by_regime(source, scale, sections["regimes"], journal)
    if OURS in set(compared["scheduler"]) and len(set(compared["scheduler"])) > 1:
        yield report.verdict(compared, OURS, READINGS)
    for model in dict.fromkeys(compared["model"]):
        yield report.by_regime(compared, model)
        for name, (_, shown) in SECTIONS.items():
            own = frames.get(name, pd.DataFrame())
            if len(own) and len(own := own[own["model"] == model]):
                yield from shown(own)
    if "rates" in frames:
        yield from report.prediction(source, frames["rates"])


def by_regime(source: Source, scale: Scale, points: Sequence[Point], journal: Journal) -> pd.DataFrame:
    """The figure of every regime, one row a model, scheduler and seed: ``value``, and ``less_is_better``."""
    measured = set(points)
    rows = []
    for base in dict.fromkeys(Point(p.model, p.scheduler, requests=scale.requests, seed=p.seed) for p in points):
        for regime in scale.regimes:
            point = regime.point(source, base)
            if point in measured:
                what = {"model": base.model, "regime": regime.name, "scheduler": base.scheduler, "seed": base.seed}
                value = journal[point][regime.figure]
                rows.append({**what, "value": value, "less_is_better": regime.less_is_better})
    return pd.DataFrame(rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two seeds, short traces, one mix: to see that it works")
    parser.add_argument("--seeds", type=int, help="by default 5; with --quick 2")
    parser.add_argument("--requests", type=int, help="of a simulation, by default 400; with --quick 120")
    parser.add_argument("--regimes", action="store_true", help="ours against others in every regime, and nothing else")
    parser.add_argument("--data", type=Path, default=ROOT / "../shared/data", help="folder with mixfusion/ and more")
    parser.add_argument("--profile", type=Path, help="a profile instead of the published measurements")
    parser.add_argument("--models", nargs="+", help="by default all that have mixed batches")
    parser.add_argument("-o", "--output", type=Path, default=Path("out/patchedserve"))
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--real", action="store_true", help="then run some for real: tiny-image on one core")
    parser.add_argument("schedulers", nargs="*", help="by default all")
    asked = parser.parse_args(arguments)
    source = Source(asked.data, asked.profile)
    if not source.present:
        print(
            f"skipped: no measurements under {asked.data / 'mixfusion' / 'profile'}; put there the CSV files of the "
            f"MixFusion artifact ({ADDRESS}), or pass --profile"
        )
        return 0
    schedulers = asked.schedulers or list(CONTENDERS)
    if unknown := [name for name in schedulers if name not in CONTENDERS]:
        raise BadInput(f"unknown scheduler {unknown[0]!r}; known: {', '.join(CONTENDERS)}")
    profile = profile_of(source)
    models = asked.models or [m for m in ("sdxl", "sd3", *profile.models) if m in profile.models]
    models = [model for model in dict.fromkeys(models) if "patched" in profile.executors(model)]
    if not models:
        raise BadInput(f"{asked.profile}: no model measured with the executor 'patched'")
    scale = Scale.quick() if asked.quick else Scale()
    scale = replace(scale, seeds=asked.seeds or scale.seeds, requests=asked.requests or scale.requests)
    started = time.perf_counter()
    asked.output.mkdir(parents=True, exist_ok=True)
    journal = Journal(asked.output / "points.jsonl", source)
    sections = plan(source, models, schedulers, scale)
    if asked.regimes:
        sections = {"regimes": sections["regimes"]}
    points = [point for section in sections.values() for point in section]
    run(source, points, journal, asked.jobs)
    lines = [
        "# Mixed-size serving, simulated on published measurements",
        "",
        f"{profile.hardware}. {scale.seeds} seeds of {scale.requests} requests of 50 steps (more on many GPUs), with "
        "95 % confidence intervals over seeds. Where nothing else is said, deadlines are 5 times the latency alone of "
        "a request, decoding included. All schedulers run on the measurements of mixed batches in patches: they alone "
        "hold mixed batches, and another table would compare engines. All hold at most 12 requests and drop what is "
        "lost, where they have the choice. PatchedServe counts slack in multiples of a request's own latency or in "
        "seconds, and takes requests for relaxed from half of that on or (`relaxed`) always.",
        "",
        f"Of the measurements: {'; '.join(map(str, profile.notes)) or 'nothing to note'}.",
        "",
    ]
    for left in ("bursty", "diffusiondb"):
        if left not in source.mixes():
            lines += [f"Mix {left!r} is left out: its data is not under {asked.data}.", ""]
    shown = list(tables(source, scale, sections, journal))
    if not asked.regimes:
        timed = [name for name in schedulers if name in SCHEDULERS]
        shown.append(decisions(source, models[-1], timed, scale, journal))
    text = "\n".join([*lines, *(table.markdown() for table in shown)])
    write_document(BENCHMARK.comment(text, ".md"), asked.output / "report.md", BENCHMARK)
    frame = journal.frame(list(dict.fromkeys(points)))
    frame["goals"], frame["by_size"] = frame["goals"].map(json.dumps), frame["by_size"].map(json.dumps)
    write_frame(frame, asked.output / "points.parquet", BENCHMARK)
    print(text)
    print(f"{len(frame)} points in {time.perf_counter() - started:.0f} s -> {asked.output}")
    if asked.real:
        from benchmarks import fidelity  # needs torch

        some = [name for name in REAL_SCHEDULERS if name in schedulers]
        fidelity.main([*REAL, "--schedulers", *some, "-o", str(asked.output / "real")])
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BadInput as error:
        sys.exit(f"error: {error}")
