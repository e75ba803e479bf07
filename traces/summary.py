"""What a trace asks for, in figures."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pandas as pd

from traces.request import Size


@dataclass(frozen=True)
class Summary:
    """Figures of a trace. The tables count requests by value, the most frequent first.

    Attributes:
        requests: number of requests.
        images: pictures or clips that they ask for in all.
        span_s: from the first arrival to the last.
        rate: mean arrivals a second over the span; NaN for fewer than two requests or no span.
        interarrival_cv: standard deviation over mean of the intervals between arrivals (1 for Poisson);
            NaN as above.
        dispersion: variance over mean of the arrivals in each whole minute of the span (1 for Poisson); NaN
            for fewer than two whole minutes.
        with_deadline: requests with a deadline or an SLO.
        sizes, steps, images_per_request, models, tenants: the tables.
    """

    requests: int
    images: int
    span_s: float
    rate: float
    interarrival_cv: float
    dispersion: float
    with_deadline: int
    sizes: dict[Size, int]
    steps: dict[int, int]
    images_per_request: dict[int, int]
    models: dict[str, int]
    tenants: dict[str, int]


def summarise(frame: pd.DataFrame) -> Summary:
    """The summary of a trace's table (see `Trace.frame`)."""
    arrival = frame["arrival_s"].to_numpy()
    span_s = float(arrival[-1] - arrival[0]) if len(arrival) else 0.0
    gaps = np.diff(arrival)
    sizes = zip(frame["height"].tolist(), frame["width"].tolist(), frame["frames"].tolist(), strict=True)
    return Summary(
        requests=len(frame),
        images=int(frame["images"].sum()),
        span_s=span_s,
        rate=len(gaps) / span_s if span_s > 0 else math.nan,
        interarrival_cv=float(gaps.std() / gaps.mean()) if span_s > 0 else math.nan,
        dispersion=_dispersion(arrival, 60.0),
        with_deadline=int((frame["deadline_s"].notna() | frame["slo_s"].notna()).sum()),
        sizes=dict(Counter(sizes).most_common()),
        steps=dict(Counter(frame["steps"].tolist()).most_common()),
        images_per_request=dict(Counter(frame["images"].tolist()).most_common()),
        models=dict(Counter(frame["model"].tolist()).most_common()),
        tenants=dict(Counter(frame["tenant"].tolist()).most_common()),
    )


def _dispersion(arrival: np.ndarray, bin_s: float) -> float:
    """Index of dispersion of the counts in whole bins of ``bin_s`` seconds from the first arrival on."""
    bins = int((arrival[-1] - arrival[0]) // bin_s) if len(arrival) else 0
    if bins < 2:
        return math.nan
    at = ((arrival - arrival[0]) // bin_s).astype(np.int64)
    _, occupied = np.unique(at[at < bins], return_counts=True)
    mean = occupied.sum() / bins
    return float((np.square(occupied, dtype=float).sum() / bins - mean**2) / mean)
