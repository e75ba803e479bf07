"""PatchedServe's comparison, simulated on the measurements published with it: one command.

    python -m benchmarks.patchedserve [--quick] [--real] [--data ../shared/data] [-o out/patchedserve]

Prints and writes, for SDXL and SD3 on one H100 and on several: SLO attainment against rate, deadline and size; goodput
at 90 % and 99 % attainment; latencies; what wrong predictions, the oracle and each ingredient change; the paper's
claims beside what is found here; errors of the latency models; and how long a decision takes. Everything is a mean over
seeds with its 95 % confidence interval. What was measured is kept in the output folder, so that an interrupted run goes
on where it stopped, and a changed scheduler alone is measured again.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
from joblib import Parallel, delayed

from benchmarks.outputs import BENCHMARK
from benchmarks.serving import report
from benchmarks.serving.measure import decision_times, measure
from benchmarks.serving.point import Point, Source, mean_alone_s, profile_of, truth
from policies.scheduling import SCHEDULERS
from predictors.importers.mixfusion import ADDRESS
from reports.progress import bar
from traces.errors import BadInput
from traces.files import write_document, write_frame

ROOT = Path(__file__).parents[1]

OURS = "lookahead"
CONTENDERS = ("same-size-continuous", "mixed-fcfs", "patchedserve", "patchedserve-joins", "clockwork", "rounds", OURS)
"""Schedulers of the sections that would take too long with all."""

PREDICTING = ("patchedserve", "patchedserve-joins", "clockwork", "rounds", OURS)
"""Those of them that decide by predictions."""

RATES = {"sdxl": (0.6, 0.8, 1.0, 1.2, 1.4), "sd3": (0.2, 0.3, 0.4, 0.5, 0.6)}
PAPER_RATES = {"sdxl": (0.8, 1.0, 1.2), "sd3": (0.1, 0.2, 0.3, 0.5)}
"""Requests a second and GPU; the paper's are those of its evaluation."""

COMPUTED = 0.7
"""What a patch cache is taken to compute of every step where its gain is shown."""

REAL = ("--executor", "patched", "--patch-floor", "4", "--requests", "100", "--load", "1.0")
REAL_SCHEDULERS = ("mixed-fcfs", "patchedserve", OURS)
"""What ``--real`` gives `benchmarks.fidelity`: mixed batches, at the load that one request at a time just carries."""

SLOS = (3.0, 5.0, 10.0)
REPLICAS = (1, 2, 4, 8)


@dataclass(frozen=True)
class Scale:
    """How much of everything: seeds, requests a simulation, mixes, replicas."""

    seeds: int = 5
    requests: int = 600
    mixes: tuple[str, ...] = ()
    replicas: tuple[int, ...] = REPLICAS
    decisions: int = 100
    sparse: bool = False

    @classmethod
    def quick(cls) -> Scale:
        """Enough to see that everything works; too little to conclude from."""
        return cls(seeds=2, requests=120, mixes=("uniform",), replicas=(1, 2), decisions=10, sparse=True)


def rates(source: Source, model: str, scale: Scale) -> tuple[float, ...]:
    """The rates of the curves; for a model without published ones, around what one request at a time carries."""
    chosen: tuple[float, ...] | None = RATES.get(model) if source.profile is None else None
    if chosen is None:
        carried = 1 / mean_alone_s(source, Point(model, ""))
        chosen = tuple(round(carried * share, 4) for share in (0.4, 0.7, 1.0, 1.3, 1.6))
    return chosen[1::2] if scale.sparse else chosen


def paper_rates(source: Source, model: str, scale: Scale) -> tuple[float, ...]:
    """The rates of the paper's evaluation; for a model without one those of the curves."""
    chosen: tuple[float, ...] | None = PAPER_RATES.get(model) if source.profile is None else None
    if chosen is None:
        return rates(source, model, scale)
    return chosen[1:2] if scale.sparse else chosen


def plan(source: Source, models: Sequence[str], schedulers: Sequence[str], scale: Scale) -> dict[str, list[Point]]:
    """The points of every section."""
    mixes = [mix for mix in source.mixes() if not scale.mixes or mix in scale.mixes]
    some = [name for name in CONTENDERS if name in schedulers]
    predicting = [name for name in PREDICTING if name in schedulers]
    sections: dict[str, list[Point]] = {
        name: [] for name in ("rates", "slo", "goodput", "replicas", "knowledge", "ablation", "claims")
    }
    for model in models:
        curve = rates(source, model, scale)
        middle = curve[len(curve) // 2]
        has_whole = "whole" in profile_of(source).executors(model) and "denoise" in truth(source, model, "whole").costs
        paper = "whole" if has_whole else ""
        for seed in range(scale.seeds):
            base = Point(model, "", requests=scale.requests, seed=seed)
            at_90 = replace(base, goals=(0.90,))
            for name in schedulers:
                sections["rates"] += [replace(base, scheduler=name, rate=rate) for rate in curve]
                sections["slo"] += [replace(base, scheduler=name, rate=middle, slo=slo) for slo in SLOS]
                sections["goodput"] += [replace(base, scheduler=name, mix=mix) for mix in mixes]
            for name in some:
                more = [n for n in scale.replicas if n > 1]
                counts = [max(scale.requests, scale.requests // 4 * n) for n in more]
                sections["replicas"] += [replace(base, scheduler=name)] * (1 in scale.replicas)
                sections["replicas"] += [
                    replace(at_90, scheduler=name, replicas=n, requests=count)
                    for n, count in zip(more, counts, strict=True)
                ]
            for name in predicting:
                sections["knowledge"] += [
                    replace(base, scheduler=name),
                    *(replace(at_90, scheduler=name, error=error) for error in (-0.2, 0.2)),
                    replace(at_90, scheduler=name, knowledge="fixed"),
                    replace(at_90, scheduler=name, knowledge="oracle"),
                ]
            sections["ablation"] += ablation(replace(at_90, deadlines=paper), schedulers, has_whole)
            for rate in (None, *paper_rates(source, model, scale)):
                point = replace(at_90, rate=rate, deadlines=paper)
                sections["claims"] += claims(point, schedulers, has_whole)
    return sections


def ablation(base: Point, schedulers: Sequence[str], has_whole: bool) -> list[Point]:
    """One ingredient more a point: whole images of one size, mixed batches, our scheduler, online correction, a cache
    (not for SDXL, whose measurements hold one already); and the oracle predictor.
    """
    ours = OURS if OURS in schedulers else "patchedserve-joins"
    points = [replace(base, scheduler="same-size-continuous", engine="whole")] * has_whole
    points += [replace(base, scheduler="mixed-fcfs")]
    points += [replace(base, scheduler=ours, knowledge=knowledge) for knowledge in ("fixed", "online")]
    points += [replace(base, scheduler=ours, computed=COMPUTED)] * (base.model != "sdxl")
    points += [replace(base, scheduler=ours, knowledge="oracle")]
    return [point for point in points if point.scheduler in schedulers]


def claims(base: Point, schedulers: Sequence[str], has_whole: bool) -> list[Point]:
    """The systems of the paper's evaluation in its set-up, where NIRVANA runs whole images; and on one engine."""
    engines = ["patched", "whole"] if has_whole else ["patched"]
    points = [replace(base, scheduler=name) for name in ("patchedserve", "patchedserve-joins", "mixed-fcfs", OURS)]
    points += [
        replace(base, scheduler="nirvana", engine=engine, steps_skipped=share)
        for engine in engines
        for share in (0.0, 0.5)
    ]
    return [point for point in points if point.scheduler in schedulers]


class Journal:
    """Measured points of an output folder, one JSON object a line, by what they are and what measured them.

    What measured a point is its scheduler, the simulator and the measurements. A changed scheduler leaves the points of
    the others as they are.
    """

    def __init__(self, path: Path, source: Source) -> None:
        self.path = path
        self._measured = profile_of(source).content_hash[:16]
        self._code: dict[str, str] = {}
        self._figures: dict[str, dict[str, Any]] = {}
        if path.is_file():
            entries = map(json.loads, path.read_text(encoding="utf-8").splitlines())
            self._figures = {entry["key"]: entry["figures"] for entry in entries}

    def __contains__(self, what: Point | tuple[Any, ...]) -> bool:
        return self._key(what) in self._figures

    def __getitem__(self, what: Point | tuple[Any, ...]) -> dict[str, Any]:
        return self._figures[self._key(what)]

    def add(self, what: Point | tuple[Any, ...], figures: dict[str, Any]) -> None:
        """Keep the figures of a point, or of a tuple that begins with a scheduler."""
        key = self._key(what)
        self._figures[key] = figures
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"key": key, "figures": figures}) + "\n")

    def frame(self, points: Sequence[Point]) -> pd.DataFrame:
        """One row a point: what it is, and its figures."""
        return pd.DataFrame([{**asdict(point), **self[point]} for point in points])

    def _key(self, what: Point | tuple[Any, ...]) -> str:
        scheduler = what.scheduler if isinstance(what, Point) else what[0]
        if scheduler not in self._code:
            start = ROOT / "benchmarks/serving/measure.py", ROOT / _path_of(SCHEDULERS[scheduler].__module__)
            code = b"".join(file.read_bytes() for file in sorted(_with_imports(start)))
            self._code[scheduler] = hashlib.sha256(code).hexdigest()[:16]
        facts = asdict(what) if isinstance(what, Point) else what
        return json.dumps([self._code[scheduler], self._measured, facts])


def _path_of(module: str) -> str:
    return module.replace(".", "/") + ".py"


def _with_imports(start: Iterable[Path]) -> set[Path]:
    """Source files and all that they import of this project; packages' own files only list what is in them."""
    found: set[Path] = set()
    ahead = list(start)
    while ahead:
        file = ahead.pop()
        if file in found or not file.is_file():
            continue
        found.add(file)
        ahead += [ROOT / _path_of(module) for module in _imported(file.read_text(encoding="utf-8"))]
    return found


@cache
def _imported(source: str) -> list[str]:
    """What may be a module among the names that a source file imports."""
    modules = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module:
            modules += [node.module, *[f"{node.module}.{alias.name}" for alias in node.names]]
        elif isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
    return modules


def run(source: Source, points: Sequence[Point], journal: Journal, jobs: int) -> None:
    """Measure the points that the journal lacks, on ``jobs`` processes."""
    missing = [point for point in dict.fromkeys(points) if point not in journal]
    missing.sort(key=lambda point: (point.seed, point.scheduler))
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


def tables(source: Source, sections: dict[str, list[Point]], journal: Journal) -> Iterator[report.Table]:
    """Every table but that of decision times."""
    frames = {name: journal.frame(list(dict.fromkeys(points))) for name, points in sections.items()}
    goodput, knowledge = frames["goodput"], frames["knowledge"]
    if {OURS, "patchedserve"} <= set(goodput["scheduler"]):
        yield report.verdict(goodput, knowledge, OURS)
    for model in dict.fromkeys(goodput["model"]):
        yield from report.goodputs(goodput, model)
        yield from report.curves(frames["rates"], model)
        yield from report.by_slo(frames["slo"], model)
        for name, shown in (("replicas", report.replicas), ("knowledge", report.knowledge)):
            if len(frames[name]):
                yield from shown(frames[name], model)
        yield from report.ablation(frames["ablation"], model)
        yield from report.claims(frames["claims"], model)
    yield from report.prediction(source, frames["rates"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two seeds, short traces, one mix: to see that it works")
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
    schedulers = asked.schedulers or list(SCHEDULERS)
    if unknown := [name for name in schedulers if name not in SCHEDULERS]:
        raise BadInput(f"unknown scheduler {unknown[0]!r}; known: {', '.join(SCHEDULERS)}")
    profile = profile_of(source)
    models = asked.models or [m for m in ("sdxl", "sd3", *profile.models) if m in profile.models]
    models = [model for model in dict.fromkeys(models) if "patched" in profile.executors(model)]
    if not models:
        raise BadInput(f"{asked.profile}: no model measured with the executor 'patched'")
    scale = Scale.quick() if asked.quick else Scale()
    started = time.perf_counter()
    asked.output.mkdir(parents=True, exist_ok=True)
    journal = Journal(asked.output / "points.jsonl", source)
    sections = plan(source, models, schedulers, scale)
    points = [point for section in sections.values() for point in section]
    run(source, points, journal, asked.jobs)
    lines = [
        "# Mixed-size serving, simulated on published measurements",
        "",
        f"{profile.hardware}. {scale.seeds} seeds of {scale.requests} requests of 50 steps (more on many GPUs), with "
        "95 % confidence intervals over seeds. Where nothing else is said, deadlines are 5 times the latency alone of "
        "a request, decoding included. All schedulers run on the measurements of mixed batches in patches: they alone "
        "hold mixed batches, and another table would compare engines.",
        "",
        f"Of the measurements: {profile.metadata.get('note', 'nothing to note')}.",
        "",
    ]
    for left in ("bursty", "diffusiondb"):
        if left not in source.mixes():
            lines += [f"Mix {left!r} is left out: its data is not under {asked.data}.", ""]
    shown = [*tables(source, sections, journal), decisions(source, models[-1], schedulers, scale, journal)]
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
