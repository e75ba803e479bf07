"""One question answered from different knowledge: do the answers agree, within what each says of itself?

    python -m benchmarks.four_answers [--data ../shared/data] [--workers 2]

How many H100 for SDXL: Poisson requests, 3 a second, of 512, 768 and 1024 px in equal shares, 30 steps, of which 95 %
shall end within 5 times their latency alone. The seconds come from the data sheet and the published measurements of
others (ESTIMATED), from the published table of whole images, and from the published table of mixed batches, which was
most likely taken with a patch cache; each with batches of equal sizes (``whole``) and of mixed ones
(``patched``).
Where a table has no batches of a kind, its other stages calibrate the estimate. Prints the
replicas that each answer leaves open, and why two of them differ where they do not overlap.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import tilecast as tc
from predictors.importers.mixfusion import import_mixfusion
from reports.plan.certainty import error_factor
from reports.plan.result import Plan
from traces.errors import BadInput
from traces.sizes import parse_sizes
from traces.workload import generate

ROOT = Path(__file__).parents[1]
RATE_RPS = 3.0
SIZES = "512x512:1,768x768:1,1024x1024:1"
STEPS = 30
SCHEDULERS = {"whole": "same-size-continuous", "patched": "lookahead"}
"""By executor: what suits batches of equal sizes, and of mixed ones."""

PLAN = {"seeds": 4, "max_seeds": 8, "requests": 1000, "max_requests": 2000}


class Answer(NamedTuple):
    """What one source of seconds says of the question.

    Attributes:
        source: where the seconds come from.
        executor: how batches are run.
        trust: of `predictors.basis`.
        alone_s: seconds of a request of 1024 px alone.
        error: factor by which the seconds may be wrong, up or down, in four of five cases.
        fewest, guess, most: replicas; infinity: more than were considered.
    """

    source: str
    executor: str
    trust: str
    alone_s: float
    error: float
    fewest: float
    guess: float
    most: float

    def overlaps(self, other: Answer) -> bool:
        """Whether some number of replicas is possible by both."""
        return self.fewest <= other.most and other.fewest <= self.most


def answers(data: Path, workers: int) -> Iterator[Answer]:
    """The answer from each source, with each executor."""
    profiles = data / "mixfusion" / "profile"
    sources: dict[str, tc.Profile | None] = {
        "estimated": None,
        "whole-image table": import_mixfusion(sorted(profiles.glob("sm_util_sdxl_*.csv"))),
        "mixed table": import_mixfusion(sorted(profiles.glob("unet_time_sdxl.csv"))),
    }
    trace = generate(RATE_RPS, 4000 / RATE_RPS, parse_sizes(SIZES), steps=str(STEPS), model="sdxl")
    for source, profile in sources.items():
        for executor, scheduler in SCHEDULERS.items():
            yield _answer(source, executor, question(trace, profile, executor, scheduler), workers)


def question(trace: tc.Trace, profile: tc.Profile | None, executor: str, scheduler: str) -> tc.Scenario:
    """The scenario of one answer: measured where the profile has such batches, else calibrated by it, or estimated."""
    predictor: dict[str, object] = {} if profile is None else {"profile": profile}
    if profile is None or executor not in profile.executors("sdxl"):
        predictor["hardware"] = "h100-sxm"
    return tc.Scenario(
        model="sdxl",
        trace=trace,
        predictor=predictor,
        cluster={"executor": executor},
        scheduler=scheduler,
        slo={"scale": 5.0},
        plan=PLAN,
    )


def _answer(source: str, executor: str, scenario: tc.Scenario, workers: int) -> Answer:
    from tilecast.setup import prepare

    table = prepare(scenario).table
    alone_s = table.standalone_s(tc.Request("alone", 0.0, 1024, 1024, STEPS))
    made = tc.plan(scenario, workers=workers)
    guess = math.inf if made.answer is None else made.answer.candidate.replicas
    possible = _possible(made) or [guess]
    return Answer(source, executor, table.basis, alone_s, error_factor(made), min(possible), guess, max(possible))


def _possible(made: Plan) -> list[float]:
    return [math.inf if speed.evaluation is None else speed.evaluation.candidate.replicas for speed in made.speeds]


def apart(found: Sequence[Answer]) -> Iterator[str]:
    """Answers of one executor that no number of replicas satisfies, and by how much their seconds differ."""
    for a, b in combinations(found, 2):
        if a.executor == b.executor and not a.overlaps(b):
            yield (
                f"{a.executor}: {a.source} and {b.source} leave no number of replicas open: a request of 1024 px alone "
                f"takes {a.alone_s:.2f} s by one and {b.alone_s:.2f} s by the other, {b.alone_s / a.alone_s:.2f} times "
                f"as long (errors x/÷ {a.error:.2f} and {b.error:.2f})."
            )


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the answers; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT / "../shared/data", help="folder with mixfusion/")
    parser.add_argument("--workers", type=int, default=2)
    asked = parser.parse_args(arguments)
    if not (asked.data / "mixfusion" / "profile").is_dir():
        print(f"skipped: the MixFusion tables are not under {asked.data}")
        return 0
    print(f"{'seconds from':20s} {'batches':8s} {'trust':11s} 1024 px alone   error    replicas")
    found = []
    for each in answers(asked.data, asked.workers):
        found.append(each)
        span = f"{each.fewest:.0f} to {each.most:.0f}" if each.most > each.fewest else f"{each.guess:.0f}"
        print(
            f"{each.source:20s} {each.executor:8s} {each.trust:11s} {each.alone_s:11.2f} s  x/÷ {each.error:.2f}   "
            f"{span} (best guess {each.guess:.0f})",
            flush=True,
        )
    print("\n".join(apart(found)) or "all answers of one executor overlap")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BadInput as error:
        sys.exit(f"error: {error}")
