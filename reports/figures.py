"""What each figure of a summary is called, measured in, and how it is spelled for people."""

from __future__ import annotations

from dataclasses import dataclass

from reports.formatting import Unit


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of `reports.metrics.summary`.

    Attributes:
        label: what people read.
        unit: of the value; ``%`` means that the value is a fraction which is shown times 100, ``x`` a factor,
            and nothing a count.
        more_is_better: whether the largest value of several runs is the best one whatever else holds. A short
            latency is not marked so: a run that drops the slow requests has it too.
    """

    label: str
    unit: Unit = ""
    more_is_better: bool = False


FIGURES: dict[str, Figure] = {
    "slo_attainment": Figure("SLO attainment", "%", True),
    "goodput_rps": Figure("Goodput", "1/s", True),
    "throughput_rps": Figure("Throughput", "1/s", True),
    "requests": Figure("Requests"),
    "with_deadline": Figure("Requests with a deadline"),
    "finished": Figure("Finished"),
    "dropped": Figure("Dropped"),
    "failed": Figure("Failed"),
    "cancelled": Figure("Cancelled"),
    "span_s": Figure("First arrival to last end", "s"),
    "latency_mean_s": Figure("Latency, mean of finished", "s"),
    "latency_p50_s": Figure("Latency, P50", "s"),
    "latency_p90_s": Figure("Latency, P90", "s"),
    "latency_p95_s": Figure("Latency, P95", "s"),
    "latency_p99_s": Figure("Latency, P99", "s"),
    "slowdown_mean": Figure("Slowdown, mean of finished", "x"),
    "slowdown_p50": Figure("Slowdown, P50", "x"),
    "slowdown_p95": Figure("Slowdown, P95", "x"),
    "queueing_mean_s": Figure("Queueing delay, mean of started", "s"),
    "queueing_p50_s": Figure("Queueing delay, P50", "s"),
    "queueing_p95_s": Figure("Queueing delay, P95", "s"),
    "launches": Figure("Launches"),
    "batch_mean": Figure("Requests a launch, mean", "x"),
    "batch_denoise": Figure("Requests a denoising launch by time", "x"),
    "utilisation": Figure("Utilisation of devices, mean", "%"),
    "reuse": Figure("Units reused from caches", "%"),
    "loads": Figure("Loads of weights"),
    "loading": Figure("Time loading weights", "%"),
    "resident": Figure("Requests that found their weights loaded", "%", True),
    "availability": Figure("Replicas in working order", "%", True),
    "restarts": Figure("Requests begun again after a failure"),
    "extrapolated_launches": Figure("Extrapolated launches", "%"),
    "extrapolated_requests": Figure("Extrapolated requests", "%"),
    "extrapolated_time": Figure("Extrapolated launch time", "%"),
    "prediction_mape": Figure("Prediction error (MAPE)", "%"),
    "prediction_mape_by_time": Figure("Prediction error by time", "%"),
    "prediction_bias": Figure("Prediction bias", "%"),
    "prediction_bias_by_time": Figure("Prediction bias by time", "%"),
}


def figure(name: str) -> Figure:
    """The figure called ``name``; ``name:part`` is that figure of one stage or size only.

    Raises:
        KeyError: there is no such figure.
    """
    base, _, part = name.partition(":")
    whole = FIGURES[base]
    return Figure(f"{whole.label}, {part}", whole.unit, whole.more_is_better) if part else whole
