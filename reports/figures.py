"""Every figure of a run: what it is called, what it is measured in, and the function that computes it.

A report, a sweep, a plan and a validation ask for the same figures, and none defines one of its own: each computes it
on `policies.run_arrays.RunArrays`, from a run log, from a finished controller, or from what such a run did once it was
warm. So the numbers agree to the last bit, whoever prints them.

Shares are fractions. Dropped, failed and cancelled requests miss their deadline; a finished request without deadline
meets it. Percentiles of latency, slowdown and queueing delay are of what all requests experienced, see `Experienced`;
means are of the others. A figure that a run does not define, such as the mean latency when nothing finished, is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from policies.run_arrays import RequestArrays, RunArrays, StepArrays
from reports.formatting import Unit
from reports.output_analysis import quantiles
from traces.request import Size
from traces.stages import ORDINARY, STAGES

Floats = npt.NDArray[np.float64]

DENOISING = STAGES.named(lambda stage: stage.sampler)
"""Stages whose steps are those of a sampler."""

FREQUENT = 0.01
"""Share of the requests from which on a size may be the worst."""

_TILED = STAGES.named(lambda stage: not stage.mixes)
_LOADING = STAGES.named(lambda stage: not stage.serves)


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of a run.

    Attributes:
        label: what people read.
        unit: unit of the value, see `reports.formatting.Unit`.
        of: computes it, of a whole run or of a span of it.
        more_is_better: whether the largest value of several runs is the best one whatever else holds. A short
            latency is not marked so: a run that drops the slow requests has it too.
        by_stage: whether it is wanted of the launches of each stage, too.
    """

    label: str
    unit: Unit
    of: Callable[[RunArrays], float]
    more_is_better: bool = False
    by_stage: bool = False


class Experienced(NamedTuple):
    """What the requests of a run experienced, such as seconds of latency: of those that came to it, and how many never
    did. One that was dropped, failed or cancelled has an infinite latency and slowdown, one that never started an
    infinite queueing delay; one that an interrupted run never submitted experienced nothing.
    """

    values: Floats
    never: int

    def mean(self) -> float:
        """Of those that came to it."""
        return _mean(self.values)

    def quantiles(self, *shares: float) -> tuple[float, ...]:
        """Of all, see `reports.output_analysis.quantiles`."""
        return quantiles(self.values, shares, self.never)

    def quantile(self, share: float) -> float:
        """Of all."""
        return self.quantiles(share)[0]


def latency(run: RunArrays) -> Experienced:
    """Seconds from arrival to end."""
    requests = run.requests
    finished = requests.finished
    return Experienced(requests.latency_s[finished], int(requests.submitted.sum()) - int(finished.sum()))


def slowdown(run: RunArrays) -> Experienced:
    """Latency over the seconds a request takes alone, of those of which that is known."""
    requests = run.requests
    known = requests.standalone_s > 0
    finished = requests.finished & known
    asked = requests.submitted & known
    values = requests.latency_s[finished] / requests.standalone_s[finished]
    return Experienced(values, int(asked.sum()) - int(finished.sum()))


def queueing(run: RunArrays) -> Experienced:
    """Seconds from arrival to first start."""
    requests = run.requests
    started = ~np.isnan(requests.first_start_s)
    values = (requests.first_start_s - requests.arrival_s)[started]
    return Experienced(values, int(requests.submitted.sum()) - len(values))


def summary(run: RunArrays) -> dict[str, float]:
    """Every figure of a run by name, in the order of `FIGURES`; ``name:stage`` is a figure of one stage."""
    values = {name: described.of(run) for name, described in FIGURES.items()}
    there = {run.steps.stages[code] for code in np.unique(run.steps.stage).tolist()}
    tiled = [stage for stage in _TILED if stage in there]
    for stage in (*ORDINARY, *tiled, *sorted(there - {*ORDINARY, *_TILED})):
        of_stage = run.of_steps(run.steps.of(stage))
        values |= {f"{name}:{stage}": each.of(of_stage) for name, each in FIGURES.items() if each.by_stage}
    return values


def figure(name: str) -> Figure:
    """The figure called ``name``; ``name:part`` is that figure of one stage or size only.

    Raises:
        KeyError: there is no such figure.
    """
    base, _, part = name.partition(":")
    whole = FIGURES[base]
    return Figure(f"{whole.label}, {part}", whole.unit, whole.of, whole.more_is_better) if part else whole


def value(name: str, run: RunArrays) -> float:
    """One figure of a run.

    Raises:
        KeyError: there is no such figure.
    """
    return FIGURES[name].of(run)


def _count(status: str) -> Callable[[RunArrays], float]:
    return lambda run: float(run.requests.ended_as(status).sum())


def _quantile(of: Callable[[RunArrays], Experienced], share: float) -> Callable[[RunArrays], float]:
    return lambda run: of(run).quantile(share)


def worst_size(run: RunArrays) -> tuple[float, Size | None]:
    """The least SLO attainment of a size, and that size; NaN and None without requests.

    Of the sizes that at least `FREQUENT` of the requests have, since one request of a rare size says little; of all
    where none is so frequent. Of equals, the smallest.
    """
    requests = run.requests
    if not len(requests):
        return math.nan, None
    asked = np.bincount(requests.size, minlength=len(requests.sizes))
    met = np.bincount(requests.size[requests.met], minlength=len(requests.sizes))
    frequent = np.flatnonzero(asked >= max(1, FREQUENT * len(requests)))
    codes = frequent if len(frequent) else np.flatnonzero(asked)
    share, size = min((met[code] / asked[code], requests.sizes[code]) for code in codes.tolist())
    return float(share), size


def jain(values: Floats) -> float:
    """Jain's index of fairness, (sum x)^2 / (n sum x^2): 1 where all have as much, 1/n where one has all; NaN where
    there are no two, or nothing to share (Jain, Chiu and Hawe, DEC-TR-301, 1984)."""
    return _ratio(float(values.sum()) ** 2, len(values) * float((values**2).sum())) if len(values) > 1 else math.nan


def _over_tenants(of: Callable[[RequestArrays], Floats]) -> Callable[[RunArrays], float]:
    """Jain's index over tenants of what each request has, the mean of each tenant's."""

    def index(run: RunArrays) -> float:
        values = of(run.requests)
        known = ~np.isnan(values)
        codes = run.requests.tenant[known]
        count = np.bincount(codes)
        means = np.bincount(codes, weights=values[known])[count > 0] / count[count > 0]
        return jain(means)

    return index


def _speed(requests: RequestArrays) -> Floats:
    """The reciprocal of the slowdown of each; 0: it never finished; NaN: what it takes alone is unknown."""
    finished = requests.finished & (requests.latency_s > 0)
    speed = np.divide(requests.standalone_s, requests.latency_s, out=np.zeros(len(requests)), where=finished)
    return np.where(requests.submitted & (requests.standalone_s > 0), speed, np.nan)


def _goodput(run: RunArrays) -> float:
    return _ratio(run.ended.met.sum(), run.span_s)


def _throughput(run: RunArrays) -> float:
    return _ratio(run.ended.finished.sum(), run.span_s)


def _images(run: RunArrays) -> float:
    return _ratio(run.ended.images[run.ended.finished].sum(), run.span_s)


def _with_deadline(run: RunArrays) -> float:
    return float((~np.isnan(run.requests.deadline_s)).sum())


def _batch(run: RunArrays) -> float:
    served = run.steps.requests
    return _mean(served[served > 0])


def _batch_by_time(run: RunArrays) -> float:
    steps = run.steps.where(run.steps.of(*DENOISING))
    return _ratio((steps.requests * steps.seconds).sum(), steps.seconds.sum())


def _paid_device_s(run: RunArrays) -> float:
    """Device seconds that are paid for: all devices, busy or not, from the first arrival to the last end; of replicas
    that come and go from their order until they are gone."""
    if run.lifetimes is None:
        return run.span_s * run.devices
    lives = run.lives()
    return float((lives.paid_s * lives.devices).sum())


def _paid_replica_s(run: RunArrays) -> float:
    """Of replicas, likewise."""
    return run.span_s * run.replicas if run.lifetimes is None else float(run.lives().paid_s.sum())


def _utilisation(run: RunArrays) -> float:
    return _ratio(run.steps.device_s.sum(), _paid_device_s(run))


def _cost(run: RunArrays) -> float:
    lives = run.lives()
    return float((lives.paid_s / 3600 * lives.price_per_hour).sum())


def _of_scaling(count: Callable[[RunArrays], float]) -> Callable[[RunArrays], float]:
    return lambda run: math.nan if run.lifetimes is None else count(run)


def _starts(run: RunArrays) -> float:
    """How many replicas were ordered within the span."""
    ordered = [at for _, at, _, _ in run.lifetimes or () if at is not None]
    return float(sum([run.start_s <= at <= run.end_s for at in ordered]))


def _device_s_per_image(run: RunArrays) -> float:
    """What is paid for, see `_paid_device_s`."""
    images = float(run.ended.images[run.ended.finished].sum())
    return _ratio(_paid_device_s(run), images)


def _reuse(run: RunArrays) -> float:
    reused = run.steps.reused.sum()
    return _ratio(reused, reused + run.steps.computed.sum())


def _of_loads(count: Callable[[RunArrays, StepArrays], float]) -> Callable[[RunArrays], float]:
    def of(run: RunArrays) -> float:
        loads = run.steps.of(*_LOADING)
        return count(run, run.steps.where(loads)) if loads.any() else math.nan

    return of


def _found_resident(run: RunArrays, loads: StepArrays) -> float:
    """The share of the requests that started whose weights did not come to their replica while they waited."""
    requests = run.requests.where(~np.isnan(run.requests.first_start_s))
    came_late = np.zeros(len(requests), dtype=bool)
    for code, name in enumerate(requests.checkpoints):
        if name not in loads.checkpoints:
            continue
        of_name = (loads.checkpoint == loads.checkpoints.index(name)) & (loads.steps > 0)
        for replica in np.unique(loads.replica[of_name]):
            came_s = np.sort(loads.end_s[of_name & (loads.replica == replica)])
            asked = (requests.checkpoint == code) & (requests.replica == replica)
            before = np.searchsorted(came_s, requests.first_start_s[asked], side="right")
            last_s = np.concatenate([[-math.inf], came_s])[before]
            came_late[asked] = last_s > requests.arrival_s[asked]
    return 1.0 - _mean(came_late)


def _availability(run: RunArrays) -> float:
    if run.outages is None:
        return math.nan
    begin, end = run.start_s, run.end_s
    down = [max(0.0, min(end, end if to is None else to) - max(begin, since)) for _, since, to in run.outages]
    return 1.0 - _ratio(sum(down), _paid_replica_s(run))


def _restarts(run: RunArrays) -> float:
    return math.nan if run.outages is None else float((run.requests.attempts - 1).clip(min=0).sum())


def _extrapolated_time(run: RunArrays) -> float:
    return _ratio(run.steps.seconds[run.steps.extrapolated].sum(), run.steps.seconds.sum())


def _of_predictions(measure: Callable[[Floats, Floats], float]) -> Callable[[RunArrays], float]:
    """Of launches whose prediction can be judged, from the errors (predicted - actual) and the actual seconds."""

    def of(run: RunArrays) -> float:
        judged = run.steps.predicted
        actual_s = run.steps.seconds[judged]
        return measure(run.steps.predicted_s[judged] - actual_s, actual_s)

    return of


def _mean(values: npt.NDArray[np.float64] | npt.NDArray[np.int64] | npt.NDArray[np.bool_]) -> float:
    return float(values.mean()) if len(values) else math.nan


def _ratio(part: float, whole: float) -> float:
    return float(part) / float(whole) if whole > 0 else math.nan


FIGURES: dict[str, Figure] = {
    "slo_attainment": Figure("SLO attainment", "%", lambda run: _mean(run.requests.met), True),
    "slo_attainment_worst_size": Figure("SLO attainment, worst size", "%", lambda run: worst_size(run)[0], True),
    "jain_attainment": Figure(
        "SLO attainment, Jain's index over tenants", "x", _over_tenants(lambda rows: rows.met.astype(np.float64)), True
    ),
    "goodput_rps": Figure("Goodput", "1/s", _goodput, True),
    "throughput_rps": Figure("Throughput", "1/s", _throughput, True),
    "images_per_s": Figure("Images finished", "1/s", _images, True),
    "requests": Figure("Requests", "", lambda run: float(len(run.requests))),
    "with_deadline": Figure("Requests with a deadline", "", _with_deadline),
    "finished": Figure("Finished", "", _count("finished")),
    "dropped": Figure("Dropped", "", _count("dropped")),
    "failed": Figure("Failed", "", _count("failed")),
    "cancelled": Figure("Cancelled", "", _count("cancelled")),
    "span_s": Figure("First arrival to last end", "s", lambda run: run.span_s),
    "latency_mean_s": Figure("Latency, mean of finished", "s", lambda run: latency(run).mean()),
    "latency_p50_s": Figure("Latency, P50", "s", _quantile(latency, 0.5)),
    "latency_p90_s": Figure("Latency, P90", "s", _quantile(latency, 0.9)),
    "latency_p95_s": Figure("Latency, P95", "s", _quantile(latency, 0.95)),
    "latency_p99_s": Figure("Latency, P99", "s", _quantile(latency, 0.99)),
    "slowdown_mean": Figure("Slowdown, mean of finished", "x", lambda run: slowdown(run).mean()),
    "slowdown_p50": Figure("Slowdown, P50", "x", _quantile(slowdown, 0.5)),
    "slowdown_p95": Figure("Slowdown, P95", "x", _quantile(slowdown, 0.95)),
    "jain_slowdown": Figure("Slowdown (1 over it), Jain's index over tenants", "x", _over_tenants(_speed), True),
    "queueing_mean_s": Figure("Queueing delay, mean of started", "s", lambda run: queueing(run).mean()),
    "queueing_p50_s": Figure("Queueing delay, P50", "s", _quantile(queueing, 0.5)),
    "queueing_p95_s": Figure("Queueing delay, P95", "s", _quantile(queueing, 0.95)),
    "launches": Figure("Launches", "", lambda run: float(len(run.steps))),
    "batch_mean": Figure("Requests a launch, mean", "x", _batch),
    "batch_denoise": Figure("Requests a denoising launch by time", "x", _batch_by_time),
    "utilisation": Figure("Utilisation of devices, mean", "%", _utilisation),
    "device_s_per_image": Figure("Cost, device time per image", "s", _device_s_per_image),
    "cost": Figure("Cost, at the price of the devices", "x", _cost),
    "replicas_mean": Figure(
        "Replicas paid for, mean", "x", _of_scaling(lambda run: _ratio(_paid_replica_s(run), run.span_s))
    ),
    "saved": Figure(
        "Saved against the most replicas",
        "%",
        _of_scaling(lambda run: 1.0 - _ratio(_paid_device_s(run), run.span_s * run.devices)),
    ),
    "starts": Figure("Replicas started", "", _of_scaling(_starts)),
    "starting": Figure(
        "Paid time of replicas that are starting",
        "%",
        _of_scaling(lambda run: _ratio(run.lives().starting_s.sum(), _paid_replica_s(run))),
    ),
    "reuse": Figure("Units reused from caches", "%", _reuse),
    "loads": Figure("Loads of weights", "", _of_loads(lambda run, loads: float(len(loads)))),
    "loading": Figure(
        "Time loading weights",
        "%",
        _of_loads(lambda run, loads: _ratio(loads.seconds.sum(), _paid_replica_s(run))),
    ),
    "resident": Figure("Requests that found their weights loaded", "%", _of_loads(_found_resident), True),
    "availability": Figure("Replicas in working order", "%", _availability, True),
    "restarts": Figure("Requests begun again after a failure", "", _restarts),
    "extrapolated_launches": Figure("Extrapolated launches", "%", lambda run: _mean(run.steps.extrapolated)),
    "extrapolated_requests": Figure("Extrapolated requests", "%", lambda run: _mean(run.requests.extrapolated)),
    "extrapolated_time": Figure("Extrapolated launch time", "%", _extrapolated_time),
    "prediction_mape": Figure(
        "Prediction error (MAPE)", "%", _of_predictions(lambda e, a: _mean(np.abs(e) / a)), by_stage=True
    ),
    "prediction_mape_by_time": Figure(
        "Prediction error by time", "%", _of_predictions(lambda e, a: _ratio(np.abs(e).sum(), a.sum())), by_stage=True
    ),
    "prediction_bias": Figure("Prediction bias", "%", _of_predictions(lambda e, a: _mean(e / a)), by_stage=True),
    "prediction_bias_by_time": Figure(
        "Prediction bias by time", "%", _of_predictions(lambda e, a: _ratio(e.sum(), a.sum())), by_stage=True
    ),
}
"""Every figure by its name in files, in the order of reports."""

LEADING = (
    "slo_attainment",
    "slo_attainment_worst_size",
    "jain_attainment",
    "latency_p50_s",
    "latency_p95_s",
    "latency_p99_s",
    "throughput_rps",
    "device_s_per_image",
    "cost",
    "saved",
)
"""What most who open a report ask for: shown first, whatever shows it."""

KEY = (
    *("slo_attainment", "slo_attainment_worst_size", "latency_p50_s", "latency_p95_s", "latency_p99_s"),
    *("goodput_rps", "utilisation", "cost"),
)
"""What a page shows of each of several runs at its head."""

READING = (
    "SLO attainment: share of all requests that finished by their deadline, or at all where they have none; worst "
    f"size: the least of any size that at least {100 * FREQUENT:g} % of the requests have. Latency: from arrival to "
    "end, of all requests; ∞: so many never finished. Cost: all devices, busy or not, from the first arrival to the "
    "last end; of replicas that come and go from their order until they are gone."
)
"""How to read `LEADING`."""

TOPICS = {
    "Requests": (
        *("slo_attainment", "slo_attainment_worst_size", "jain_attainment", "goodput_rps", "throughput_rps"),
        *("images_per_s", "requests"),
        *("with_deadline", "finished", "dropped", "failed", "cancelled", "span_s"),
    ),
    "Latency": (
        *("latency_mean_s", "latency_p50_s", "latency_p90_s", "latency_p95_s", "latency_p99_s", "slowdown_mean"),
        *("slowdown_p50", "slowdown_p95", "jain_slowdown", "queueing_mean_s", "queueing_p50_s", "queueing_p95_s"),
    ),
    "Batches and devices": (
        *("launches", "batch_mean", "batch_denoise", "utilisation", "device_s_per_image", "reuse"),
        *("cost", "replicas_mean", "saved", "starts", "starting"),
        *("loads", "loading", "resident", "availability", "restarts"),
    ),
    "Predictions": (
        *("extrapolated_launches", "extrapolated_requests", "extrapolated_time", "prediction_mape"),
        *("prediction_mape_by_time", "prediction_bias", "prediction_bias_by_time"),
    ),
}
"""Every figure once, by what it is about."""

GROUPS = {
    "Requests": (
        *("slo_attainment", "slo_attainment_worst_size", "jain_attainment", "requests", "finished", "dropped"),
        *("failed", "cancelled"),
    ),
    "Latency": (
        *("latency_p50_s", "latency_p95_s", "latency_p99_s", "slowdown_p50", "slowdown_p95", "queueing_p50_s"),
        "queueing_p95_s",
    ),
    "Work and cost": (
        *("goodput_rps", "throughput_rps", "utilisation", "batch_denoise", "device_s_per_image", "cost"),
        *("replicas_mean", "saved", "loading", "availability"),
    ),
    "Trust": ("prediction_mape_by_time", "prediction_bias_by_time", "extrapolated_time"),
}
"""What a page shows without being asked, by what it is about."""
