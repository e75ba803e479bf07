"""The figures of a run, computed from its log and nothing else."""

from __future__ import annotations

import math
import re

import numpy as np
import numpy.typing as npt
import pandas as pd

from policies.runlog import Run
from reports.checks import STATUSES, check_run, device_count, replica_count
from reports.output_analysis import quantiles
from traces.stages import ORDINARY, STAGES

Numbers = npt.NDArray[np.float64]

DEADLINE_SLACK_S = 1e-9
"""Seconds past its deadline at which a request still counts as in time: rounding of arrival + SLO."""

_SECONDS = r"\b(\d[\d.]*(?:e[+-]?\d+)?) s\b"
DENOISING = STAGES.named(lambda stage: stage.sampler)
"""Stages whose steps are those of a sampler."""


def summary(run: Run) -> dict[str, float]:
    """Every figure of a run by name, in the order of `reports.figures.FIGURES`, which has labels and units.

    Shares are fractions. Dropped, failed and cancelled requests miss their deadline; a finished request
    without deadline meets it. Percentiles of latency (finish - arrival), slowdown (latency / standalone seconds)
    and queueing delay (first start - arrival) are of what all requests experienced: one that was dropped, failed
    or cancelled has an infinite latency, one that never started an infinite delay. Means are of the others. One
    that an interrupted run never submitted experienced nothing. A figure that the run does not define, such as
    the mean latency when nothing finished, is NaN. ``name:stage`` is a figure of one stage.

    Raises:
        BadInput: the log breaks conservation, see `reports.checks.check_run`.
    """
    check_run(run)
    requests, steps = run.requests, run.steps
    status = requests["status"]
    good = float(met(requests).sum())
    finished = requests[status == "finished"]
    span = _span_s(run)
    latency, slowdown = latency_s(finished), _slowdown(finished)
    asked = submitted(requests)
    queueing = _defined(requests["first_start_s"] - requests["arrival_s"])
    lost, unstarted = len(asked) - len(finished), len(asked) - len(queueing)
    lost_known = int((asked["standalone_s"] > 0).sum()) - len(slowdown)
    busy = _seconds(steps)
    return {
        "slo_attainment": _ratio(good, len(requests)),
        "goodput_rps": _ratio(good, span),
        "throughput_rps": _ratio(len(finished), span),
        "requests": float(len(requests)),
        "with_deadline": float(requests["deadline_s"].notna().sum()),
        **{name: float((status == name).sum()) for name in STATUSES},
        "span_s": span,
        "latency_mean_s": _mean(latency),
        **_percentiles("latency_p{}_s", latency, (50, 90, 95, 99), lost),
        "slowdown_mean": _mean(slowdown),
        **_percentiles("slowdown_p{}", slowdown, (50, 95), lost_known),
        "queueing_mean_s": _mean(queueing),
        **_percentiles("queueing_p{}_s", queueing, (50, 95), unstarted),
        "launches": float(len(steps)),
        "batch_mean": _mean(steps.loc[steps["requests"] > 0, "requests"].to_numpy(float)),
        "batch_denoise": _batch_by_time(steps[steps["stage"].isin(DENOISING)]),
        "utilisation": _ratio(steps["device_s"].sum(), span * replica_count(run) * device_count(run)),
        "reuse": _ratio(steps["reused"].sum(), steps["reused"].sum() + steps["computed"].sum()),
        **_loading(run, span),
        **_outages(run, span),
        "extrapolated_launches": _ratio(steps["extrapolated"].sum(), len(steps)),
        "extrapolated_requests": _ratio(requests["extrapolated"].sum(), len(requests)),
        "extrapolated_time": _ratio(busy[steps["extrapolated"].to_numpy(bool)].sum(), busy.sum()),
        **_prediction_errors(steps),
    }


def by_size(run: Run) -> pd.DataFrame:
    """One row a size (``height x width [x frames]``), smallest first.

    Columns: ``requests``, ``finished``, ``slo_attainment`` (fraction), ``latency_p50_s``, ``latency_p95_s`` (see
    `summary`) and ``slowdown_mean`` of the finished ones.
    """
    rows: dict[str, dict[str, float]] = {}
    for _, group in run.requests.groupby(["height", "width", "frames"], sort=True):
        finished = group[group["status"] == "finished"]
        rows[sizes(group).iloc[0]] = {
            "requests": len(group),
            "finished": len(finished),
            "slo_attainment": float(met(group).mean()),
            **_percentiles("latency_p{}_s", latency_s(finished), (50, 95), len(submitted(group)) - len(finished)),
            "slowdown_mean": _mean(_slowdown(finished)),
        }
    columns = ["requests", "finished", "slo_attainment", "latency_p50_s", "latency_p95_s", "slowdown_mean"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("size")


def by_replica(run: Run) -> pd.DataFrame:
    """One row a replica: ``launches``, ``busy_s``, ``utilisation`` (of its devices) and ``batch_mean``
    (of launches that serve requests)."""
    replicas = np.arange(replica_count(run))
    grouped = run.steps.assign(busy_s=_seconds(run.steps)).groupby("replica")
    serving = run.steps[run.steps["requests"] > 0].groupby("replica")
    frame = pd.DataFrame(
        {
            "launches": grouped.size().reindex(replicas, fill_value=0),
            "busy_s": grouped["busy_s"].sum().reindex(replicas, fill_value=0.0),
            "batch_mean": serving["requests"].mean().reindex(replicas),
        },
        index=pd.Index(replicas, name="replica"),
    )
    span = _span_s(run)
    device_s = grouped["device_s"].sum().reindex(replicas, fill_value=0.0)
    frame.insert(2, "utilisation", device_s / (span * device_count(run)) if span > 0 else math.nan)
    return frame


def by_batch(run: Run) -> pd.DataFrame:
    """How well denoising was predicted, one row a kind of batch that ran: ``one request``, ``one size``,
    ``mixed sizes``, ``tiled``.

    Columns: ``launches``, ``busy_s``, ``prediction_mape``, ``prediction_mape_by_time`` and
    ``prediction_bias_by_time`` (fractions, see `summary`).
    """
    steps = run.steps[run.steps["stage"].isin(DENOISING)]
    kind = np.where(steps["composition"].str.contains("+", regex=False), "mixed sizes", "one size")
    kind = np.where(steps["requests"] == 1, "one request", kind)
    kind = np.where(steps["stage"].isin(STAGES.named(lambda stage: stage.mixes)), kind, "tiled")
    rows: dict[str, dict[str, float]] = {}
    for name in ("one request", "one size", "mixed sizes", "tiled"):
        if len(group := steps[kind == name]):
            rows[name] = {"launches": len(group), "busy_s": _seconds(group).sum(), **_prediction_errors(group)}
    columns = ["launches", "busy_s", "prediction_mape", "prediction_mape_by_time", "prediction_bias_by_time"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("batch")


def reasons(run: Run) -> pd.DataFrame:
    """How many requests did not finish, per ``status`` and ``reason``, most frequent first.

    Reasons that differ in their seconds alone are one, with the least and the most of them.
    """
    lost = run.requests[run.requests["status"] != "finished"].fillna({"reason": ""})
    alike = lost["reason"].str.replace(_SECONDS, "- s", n=1, regex=True)
    groups = lost.groupby(["status", alike.rename("alike")])["reason"]
    counted = groups.agg(requests="size", reason=_one_reason).reset_index()[["status", "reason", "requests"]]
    order = ["requests", "status", "reason"]
    return counted.sort_values(order, ascending=[False, True, True], ignore_index=True)


def remarks(run: Run) -> dict[str, int]:
    """How many requests each note is about, most frequent first, see ``note`` in the run log."""
    each = run.requests["note"].dropna().str.split("; ").explode()
    return {str(note): int(count) for note, count in each[each != ""].value_counts().items()}


def _one_reason(reasons: pd.Series) -> str:
    """One for reasons that differ in their seconds alone."""
    if reasons.nunique() == 1:
        return str(reasons.iat[0])
    seconds = reasons.str.extract(_SECONDS)[0].astype(float)
    return re.sub(_SECONDS, f"{seconds.min():.3g} to {seconds.max():.3g} s", str(reasons.iat[0]), count=1)


def met(requests: pd.DataFrame) -> pd.Series:
    """Whether each request finished within its deadline, or finished and has none."""
    deadline = requests["deadline_s"].fillna(math.inf) + DEADLINE_SLACK_S
    return (requests["status"] == "finished") & (requests["finish_s"] <= deadline)


def submitted(requests: pd.DataFrame) -> pd.DataFrame:
    """The requests that were asked for: all but those that had not arrived when a run was interrupted."""
    return requests[requests["finish_s"].notna()]


def latency_s(requests: pd.DataFrame) -> Numbers:
    """Seconds from arrival to end of each request."""
    return (requests["finish_s"] - requests["arrival_s"]).to_numpy(float)


def sizes(requests: pd.DataFrame) -> pd.Series:
    """The size of each request as text, spelled as in compositions: ``512x768``, ``480x832x81``."""
    text = requests["height"].astype(str) + "x" + requests["width"].astype(str)
    return text.where(requests["frames"] == 1, text + "x" + requests["frames"].astype(str))


def predicted_launches(steps: pd.DataFrame) -> pd.DataFrame:
    """The launches whose prediction can be judged: they have one, and did a step that took time."""
    return steps[steps["predicted_s"].notna() & (steps["steps"] > 0) & (steps["end_s"] > steps["start_s"])]


def _span_s(run: Run) -> float:
    """Seconds from the first arrival to the last end of a request or launch; NaN without requests."""
    end = pd.concat([run.requests["finish_s"], run.steps["end_s"]]).max()
    return float(end - run.requests["arrival_s"].min())


def _loading(run: Run, span: float) -> dict[str, float]:
    loads = run.steps[run.steps["stage"].isin(STAGES.named(lambda stage: not stage.serves))]
    if not len(loads):
        return {"loads": math.nan, "loading": math.nan, "resident": math.nan}
    return {
        "loads": float(len(loads)),
        "loading": _ratio(_seconds(loads).sum(), span * replica_count(run)),
        "resident": _found_resident(run.requests, loads[loads["steps"] > 0]),
    }


def _found_resident(requests: pd.DataFrame, loads: pd.DataFrame) -> float:
    """The share of the requests that started whose weights did not come to their replica while they waited."""
    started = requests[requests["first_start_s"].notna()].sort_values("first_start_s")
    came = loads[["end_s", "replica", "checkpoint"]].sort_values("end_s")
    last = pd.merge_asof(started, came, left_on="first_start_s", right_on="end_s", by=["replica", "checkpoint"])
    return 1.0 - _mean(np.asarray(last["end_s"] > last["arrival_s"], dtype=np.float64))


def _outages(run: Run, span: float) -> dict[str, float]:
    outages = run.info.get("outages")
    if outages is None:
        return {"availability": math.nan, "restarts": math.nan}
    begin = float(run.requests["arrival_s"].min())
    end = begin + span
    down = [max(0.0, min(end, end if to is None else to) - max(begin, start)) for _, start, to in outages]
    return {
        "availability": 1.0 - _ratio(sum(down), span * replica_count(run)),
        "restarts": float((run.requests["attempts"] - 1).clip(lower=0).sum()),
    }


def _prediction_errors(steps: pd.DataFrame) -> dict[str, float]:
    judged = predicted_launches(steps)
    actual = _seconds(judged)
    error = judged["predicted_s"].to_numpy(float) - actual
    there = set(steps["stage"])
    tiled = STAGES.named(lambda stage: not stage.mixes)
    extra = [stage for stage in tiled if stage in there] + sorted(there - {*ORDINARY, *tiled})
    parts = {"": np.ones(len(judged), dtype=bool)} | {
        f":{stage}": (judged["stage"] == stage).to_numpy(bool) for stage in (*ORDINARY, *extra)
    }
    figures = {
        "prediction_mape": lambda e, a: _mean(np.abs(e) / a),
        "prediction_mape_by_time": lambda e, a: _ratio(np.abs(e).sum(), a.sum()),
        "prediction_bias": lambda e, a: _mean(e / a),
        "prediction_bias_by_time": lambda e, a: _ratio(e.sum(), a.sum()),
    }
    return {
        f"{name}{part}": value(error[chosen], actual[chosen])
        for part, chosen in parts.items()
        for name, value in figures.items()
    }


def _slowdown(requests: pd.DataFrame) -> Numbers:
    alone = requests["standalone_s"].to_numpy(float)
    known = alone > 0
    return latency_s(requests)[known] / alone[known]


def _batch_by_time(steps: pd.DataFrame) -> float:
    seconds = _seconds(steps)
    return _ratio((steps["requests"].to_numpy(float) * seconds).sum(), seconds.sum())


def _seconds(steps: pd.DataFrame) -> Numbers:
    return (steps["end_s"] - steps["start_s"]).to_numpy(float)


def _defined(values: pd.Series) -> Numbers:
    return values.dropna().to_numpy(float)


def _mean(values: Numbers) -> float:
    return float(values.mean()) if len(values) else math.nan


def _percentiles(name: str, values: Numbers, percents: tuple[int, ...], never: int) -> dict[str, float]:
    found = quantiles(values, [q / 100 for q in percents], never)
    return dict(zip(map(name.format, percents), found, strict=True))


def _ratio(part: float, whole: float) -> float:
    return float(part) / float(whole) if whole > 0 else math.nan
