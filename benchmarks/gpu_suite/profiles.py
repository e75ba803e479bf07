"""A profile of what a run of the suite measured, for `tilecast simulate`, `plan` and `replay` on that device.

    python -m benchmarks.gpu_suite.profiles FOLDER -o profiles/h200.parquet

Rows of the executor ``whole`` come from steps (recorded ones where the run's kernels allow for them, else eager), of
``patched`` and ``packed`` from steps and mixed batches, encode and decode from points of these names. Batches that a
replay measured are taken from there: it ran the executor itself, sampler included, which other points leave out.

Executors encode and decode one image after another, and prompts without regard to the size, and that is what the suite
measures: so seconds of several images are sums over repeats, and a prompt's count for every size. A model lacking a
stage, or whose steps of an executor do not tell what its other batches take, is left out, with a line that says so.
Narrow models of a smoke run have the names of real ones and are left out, too: what remains is what was replayed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from benchmarks.gpu_suite.point import Point, Result
from benchmarks.gpu_suite.store import Suite, read_suite
from predictors.profile import Profile
from traces.composition import Composition, composition_of, format_composition, parse
from traces.errors import BadInput
from traces.geometry import GEOMETRIES
from traces.stages import ORDINARY, STAGES

LEAST_BATCHES = 3
"""Different batches whose step an executor must have been measured with."""
MOST_REPEATS = 8
"""Rows of one batch; those of more repeats say nothing new and would outweigh others."""
IN_TURN = (1, 2, 4)
"""Images whose encode and decode are put together from repeats."""
USUAL_WAYS = {"decode": "whole", "encode": "eager"}
"""How the stages that have groups of their own run in a profile: other ways are compared with it."""
FACTS = ("driver", "cuda", "kernels")
"""Of a run, kept in the profile."""


class Row(NamedTuple):
    """A measurement of a batch."""

    model: str
    executor: str
    stage: str
    composition: str
    steps: int
    seconds: float


def profile_of(suite: Suite) -> tuple[Profile, list[str]]:
    """The profile, and what was left out of it, in sentences.

    Raises:
        BadInput: nothing of it is enough for a profile.
    """
    facts, measured, notes = suite.facts, suite.measured, []
    if facts.get("models") == "narrow":
        measured = {point: result for point, result in measured.items() if point.group == "replay"}
        notes.append(f"{len(suite.measured) - len(measured)} points of narrow models are left out")
    rows = list(_preferred(measured, facts.get("kernels") != "reference"))
    kept: list[Row] = []
    for model in sorted({row.model for row in rows}):
        own = [row for row in rows if row.model == model]
        enough, lacking = _enough(model, own)
        kept += enough
        notes += lacking
    if not kept:
        raise BadInput(f"{len(suite.measured)} points are too few for a profile: {'; '.join(notes) or 'no steps'}")
    software = ", ".join(f"{name} {facts[name]}" for name in ("torch", "triton", "diffusers") if name in facts)
    frame = pd.DataFrame(kept, columns=list(Row._fields)).assign(
        hardware=facts["hardware"],
        software=f"{software}, {facts['dtype']}",
        guided=[GEOMETRIES[row.model].guidance == "scale" for row in kept],
    )
    metadata = {name: facts[name] for name in FACTS if name in facts} | {"date": facts["date"][:10]}
    return Profile.from_frame(frame, {**metadata, "source": "benchmarks.gpu_suite", "decode": "whole"}), notes


def _preferred(measured: Mapping[Point, Result], recorded: bool) -> Iterator[Row]:
    """Rows of each batch, from whatever measured it most nearly as it is served."""
    kinds: list[Iterable[Row]] = [
        _of_replays(measured),
        _of_steps(measured, {"graph": "whole"} if recorded else {}),
        _of_mixes(measured),
        _of_steps(measured, {"eager": "whole", "patched": "patched", "packed": "packed"}),
    ]
    known: dict[tuple[str, str, str, str], int] = {}
    steps: list[Row] = []
    for rank, rows in enumerate(kinds):
        for row in rows:
            if known.setdefault(row[:4], rank) == rank:
                steps.append(row)
    sizes: dict[str, set[Any]] = {}
    for row in steps:
        sizes.setdefault(row.model, set()).update(size for size, _ in parse(row.composition))
    yield from steps
    for row in _of_other_stages(measured, sizes):
        if row[:4] not in known:
            yield row


def _of_replays(measured: Mapping[Point, Result]) -> Iterator[Row]:
    for point, result in measured.items():
        if point.group == "replay":
            for stage, composition, steps, seconds in result["profile"]["rows"]:
                yield Row(point.name, result["executor"], stage, composition, steps, seconds)


def _of_steps(measured: Mapping[Point, Result], executors: Mapping[str, str]) -> Iterator[Row]:
    for point, result in measured.items():
        if point.group == "step" and point.way in executors:
            yield from _rows(point.name, executors[point.way], "denoise", point.composition, result["repeats"])


def _of_mixes(measured: Mapping[Point, Result]) -> Iterator[Row]:
    for point, result in measured.items():
        if point.group == "mix":
            yield from _rows(point.name, point.way, "denoise", point.composition, result["repeats"])


def _of_other_stages(measured: Mapping[Point, Result], sizes: Mapping[str, Iterable[Any]]) -> Iterator[Row]:
    for point, result in measured.items():
        if point.way == USUAL_WAYS.get(point.group) and sum(images for _, images in point.composition) == 1:
            (size, _), *_ = point.composition
            same = sizes.get(point.name, ()) if STAGES[point.group].network == "text" else ()  # whatever is drawn
            for each in sorted({size, *same}):
                for images in IN_TURN:
                    batch = composition_of([(each, images)])
                    yield from _rows(point.name, "whole", point.group, batch, _in_turn(result["repeats"], images))


def _rows(model: str, executor: str, stage: str, batch: Composition, repeats: Sequence[float]) -> Iterator[Row]:
    for seconds in repeats[:MOST_REPEATS]:
        yield Row(model, executor, stage, format_composition(batch), 1, round(seconds, 7))


def _in_turn(repeats: Sequence[float], images: int) -> list[float]:
    """Seconds of so many images one after another."""
    return [sum(repeats[start : start + images]) for start in range(0, len(repeats) - images + 1, images)]


def _enough(model: str, rows: Sequence[Row]) -> tuple[list[Row], list[str]]:
    """The rows of a model that make a profile, and what is left out."""
    lacking = [stage for stage in ORDINARY if not any(row.stage == stage for row in rows)]
    if lacking:
        return [], [f"{model} is left out: no {' and no '.join(lacking)} was measured"]
    executors, notes = [], []
    for executor in sorted({row.executor for row in rows if STAGES[row.stage].by_executor}):
        batches = {row.composition for row in rows if row.executor == executor and STAGES[row.stage].by_executor}
        if len(batches) >= LEAST_BATCHES:
            executors.append(executor)
        else:
            few = f"steps of {len(batches)} batches were measured, expected at least {LEAST_BATCHES}"
            notes.append(f"{model} ({executor}) is left out: {few}")
    kept = [row for row in rows if row.executor in executors]
    if executors and not set(ORDINARY) <= {row.stage for row in kept}:  # the same whatever the executor
        others = [row for row in rows if row.executor not in executors and not STAGES[row.stage].by_executor]
        kept += [row._replace(executor=executors[0]) for row in others]
    return kept, notes


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of a run of benchmarks.gpu_suite")
    parser.add_argument("-o", "--output", type=Path, required=True, help="a Parquet file")
    arguments = parser.parse_args(given)
    try:
        profile, notes = profile_of(read_suite(arguments.folder))
        profile.save(arguments.output)
    except BadInput as error:
        parser.error(str(error))
    for note in notes:
        print(note, file=sys.stderr)
    for model in profile.models:
        print(f"{model}: {', '.join(profile.executors(model))}")
    print(f"{profile.hardware}: {len(profile.frame)} measurements -> {arguments.output}")


if __name__ == "__main__":
    main()
