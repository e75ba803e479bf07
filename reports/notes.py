"""What a reader must know of a run before its figures: each a sentence, with its severity.

A run log holds what was known before it ran (``warnings``); the rest is read off the log itself, so that it is said of
every log, by whatever command shows it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from policies.run_arrays import STATUSES, RunArrays
from policies.runlog import Run
from predictors.basis import ESTIMATED, MEASURED
from reports.drift import stalls
from reports.figures import figure
from reports.formatting import about, format_value
from reports.overload import MOST_WAITING, Backlog, backlogs, served_by
from reports.reasons import reasons, remarks
from traces.notes import Note, grave, remark
from traces.stages import STAGES

SOME_LOST, MANY_LOST = 0.01, 0.05
"""Shares of the requests that never finish from which on P99 is none, and P95."""

LITTLE_TIME = 0.01
"""A smaller share of launch time outside the measured range changes no figure."""

DRIFT, GREAT_DRIFT = 0.05, 0.1
"""Share by which measured steps differ from the profile from which on that is said, and said before the figures."""

TAKING_TURNS = 0.1
"""Share of the denoising time that batches of several sizes may take where these take turns."""

DEFINED = ("latency_mean_s", "slowdown_mean", "queueing_mean_s", "goodput_rps", "utilisation")
"""Figures that every run with launches should have."""


def run_notes(run: Run, arrays: RunArrays, values: dict[str, float]) -> list[Note]:
    """What is to be known of a run.

    Args:
        run: its log.
        arrays: the same, to compute figures on.
        values: of `reports.figures.summary`.
    """
    left = backlogs(arrays, served_by(run.info))
    explained = any(each.grows and each.dropped > each.late for each in left.values())  # the overload says how many
    return [
        *[note for models, each in left.items() for note in _overload(run, models, each)],
        *([] if explained else _lost(run, arrays)),
        *_machine(run, arrays),
        *_pairing(run, arrays),
        *_requests(run),
        *[Note.of(said) for said in run.info.get("warnings") or []],
        *([Note(note.text) for note in _lost(run, arrays)] if explained else []),
        *_undefined(values),
        *_predictions(run, values),
    ]


def nothing_finished(run: Run) -> bool:
    """Whether there were requests, and none of them finished."""
    return len(run.requests) > 0 and not (run.requests["status"] == "finished").any()


def _overload(run: Run, models: Sequence[str], left: Backlog) -> Iterable[Note]:
    """Of the requests of these models; none: of all."""
    whose = f"requests of {' and '.join(models)}" if models else "requests"
    if left.grows:
        times = f"{left.load:.2g} times as fast as they are served" if left.load < 1e3 else "and hardly any is served"
        if left.dropped > left.late:
            yield grave(
                f"OVERLOADED: {whose} arrive {times}, so {run.info.get('scheduler', 'the scheduler')} dropped "
                f"{left.dropped:,} of {left.arrived:,}, which there was no time for."
            )
            return
        yield grave(
            f"OVERLOADED: {whose} arrive {times}, so the queue never drains and every figure depends on how long the "
            f"trace is; {left.late:,} of {left.arrived:,} were late when the last one arrived."
        )
    elif left.late > max(4, MOST_WAITING * left.arrived):
        of = f" of {whose}" if models else ""
        yield Note(
            f"the trace ends with a backlog{of}, and is too short to tell whether the queue would ever drain; "
            f"{left.late:,} of {left.arrived:,} {whose} were late when the last one arrived."
        )


def _lost(run: Run, arrays: RunArrays) -> Iterable[Note]:
    asked = arrays.requests.where(arrays.requests.submitted)
    counts = {status: int(asked.ended_as(status).sum()) for status in STATUSES if status != "finished"}
    lost = sum(counts.values())
    if not lost:
        return
    share = lost / len(asked)
    counts = {status: count for status, count in sorted(counts.items(), key=lambda each: -each[1]) if count}
    spelled = ", ".join([f"{count:,} {status}" for status, count in counts.items()])
    reason = _main_reason(run, next(iter(counts)))
    if share == 1:
        yield grave(
            f"NOTHING FINISHED: all {len(asked):,} requests are lost ({spelled}{reason and f', mostly: {reason}'})."
        )
        return
    text = (
        f"{format_value(share, '%')} of the requests never finished ({spelled}); percentiles count them as infinite, "
        f"means are of the {format_value(1 - share, '%')} that finished{reason and f'; mostly: {reason}'}."
    )
    if share > MANY_LOST:
        yield grave(text[0].upper() + text[1:])
    else:
        yield Note(text) if share > SOME_LOST else remark(text)


def _main_reason(run: Run, status: str) -> str:
    told = reasons(run)
    told = told[told["status"] == status]
    return str(told["reason"].iloc[0]) if len(told) else ""


def _machine(run: Run, arrays: RunArrays) -> Iterable[Note]:
    if run.info.get("interrupted"):
        yield Note("the run was interrupted before its end.")
    for note in resumings(run):
        yield Note(f"the run was interrupted and {note}")
    if run.info.get("kind") != "replay":
        return
    drift = run.info.get("drift")
    if isinstance(drift, int | float) and abs(drift) >= DRIFT:
        text = (
            f"the steps of this run took {format_drift(drift)} than its profile says (drift): a simulation by that "
            "profile is off by more than that; profile again."
        )
        yield grave(f"DRIFT: {text}") if abs(drift) >= GREAT_DRIFT else Note(text)
    still = stalls(arrays)
    if still.launches:
        launches = "1 launch" if still.launches == 1 else f"{still.launches:,} launches"
        yield Note(
            f"{launches} stood still (up to {still.times:.2g} times as long as usual, {still.extra_s:.3g} s more in "
            "all): the process was stopped or the machine was busy, and latencies contain it."
        )


def _pairing(run: Run, arrays: RunArrays) -> Iterable[Note]:
    """Whether the scheduler put sizes together that the executor runs one after another."""
    if _predictor(run).get("executor") != "whole":
        return
    steps = arrays.steps
    taking_turns = steps.of(*[name for name, stage in STAGES.items() if stage.by_executor])
    total_s = float(steps.seconds[taking_turns].sum())
    mixed_s = float(steps.seconds[taking_turns & steps.mixed].sum())
    if mixed_s > TAKING_TURNS * total_s:
        yield Note(
            f"{about(mixed_s / total_s)} of the denoising time went to batches of several sizes, which the executor "
            f"`whole` runs one size after another: {run.info.get('scheduler', 'the scheduler')} gains nothing by them. "
            "Batches of mixed sizes need cluster.executor patched or packed; without it choose a scheduler that keeps "
            "sizes apart (same-size-continuous) or asks what a batch costs (lookahead)."
        )


def _requests(run: Run) -> Iterable[Note]:
    for told, count in remarks(run).items():
        yield Note(f"{count:,} request{'s' * (count > 1)}: {told}.")


def resumings(run: Run) -> list[str]:
    """When a run went on after it was interrupted, and what that means for its figures."""
    resumed = run.info.get("resumed")
    times = [each.get("at_s") for each in resumed if isinstance(each, dict)] if isinstance(resumed, list) else []
    return [
        f"resumed at {at_s:.1f} s: policy, caches and the requests under way began anew there, the time between is not "
        "counted."
        for at_s in times
        if isinstance(at_s, int | float)
    ]


def format_drift(drift: float) -> str:
    """``14 % longer``, ``6.5 % less long``."""
    percent = 100 * abs(drift)
    return f"{percent:,.0f} % longer" if percent >= 100 else f"{percent:.2g} % {'longer' if drift > 0 else 'shorter'}"


def _undefined(values: dict[str, float]) -> Iterable[Note]:
    if not values["launches"]:
        return
    unknown = [figure(name).label for name in DEFINED if math.isnan(values[name])]
    if unknown:
        yield Note(f"not defined in this run, and shown as a dash: {'; '.join(unknown)}.")
    if math.isnan(values["prediction_mape"]):
        yield Note("no launch carries a prediction, so the prediction error is unknown.")


def _predictions(run: Run, values: dict[str, float]) -> Iterable[Note]:
    if values["extrapolated_launches"] > 0:
        time = 0.0 if math.isnan(values["extrapolated_time"]) else values["extrapolated_time"]
        text = (
            f"{about(values['extrapolated_launches'])} of the launches ({about(time)} of launch time) were predicted "
            "by extrapolation, outside the measured range."
        )
        yield Note(text) if time > LITTLE_TIME else remark(text)
    elif values["launches"] and _basis(run) != ESTIMATED:
        yield remark("all predictions lie within the measured range.")


def _basis(run: Run) -> str:
    return str(_predictor(run).get("basis", MEASURED))


def _predictor(run: Run) -> dict[str, Any]:
    """What ``run.json`` says of the predictor."""
    predictor = run.info.get("predictor")
    return predictor if isinstance(predictor, dict) else {}
