"""Spikes of load laid over a trace: more, or fewer, requests of the kind that arrive then anyway."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from traces.errors import BadInput
from traces.limits import INSTANT, MOST_REQUESTS, POSITIVE_SPAN, Range
from traces.trace import Trace

_FACTOR = Range(0, 100_000, "times")


class Spike(NamedTuple):
    """From ``start_s`` on, for ``seconds``, ``factor`` times as many requests arrive."""

    start_s: float
    seconds: float
    factor: float


def parse_spike(text: str) -> Spike:
    """The spike that ``text`` spells: start:seconds:factor.

    Raises:
        BadInput: it spells none.
    """
    try:
        spike = Spike(*map(float, text.split(":")))
        good = True
    except (ValueError, TypeError):
        good = False
    if not good:
        raise BadInput(f"spike {text!r}, expected start:seconds:factor, like 600:120:3")
    for value, limit in zip(spike, (INSTANT, POSITIVE_SPAN, _FACTOR), strict=True):
        if not limit.holds(value):
            raise BadInput(f"spike {text!r}, expected start:seconds:factor with {limit} in the place of {value:g}")
    return spike


def with_spikes(trace: Trace, spikes: Sequence[Spike], rng: np.random.Generator) -> Trace:
    """The trace with spikes, one after the other.

    What is added is a copy of a request of the same span, with its span to the deadline, at a random moment of the
    spike, under the id ``<id>+1``, ``<id>+2``, ... What is left out of a factor below 1 is chosen at random.

    Raises:
        BadInput: more requests than a trace may have.
    """
    for spike in spikes:
        frame = trace.frame
        arrival = frame["arrival_s"].to_numpy()
        inside = (arrival >= spike.start_s) & (arrival < spike.start_s + spike.seconds)
        wanted = spike.factor + rng.random(int(inside.sum()))  # whole part: how often each is there, rounded at random
        times = np.ones(len(frame), dtype=int)
        times[inside] = np.floor(wanted).astype(int)
        if (total := int(times.sum())) > MOST_REQUESTS:
            raise BadInput(
                f"spike of {spike.factor:g} times: {total:,} requests in place of {len(frame):,}, expected at most "
                f"{MOST_REQUESTS:,}"
            )
        added = frame.loc[np.repeat(np.arange(len(frame)), np.maximum(0, times - 1))].copy()
        number = added.groupby("request_id", sort=False).cumcount() + 1
        moved = spike.start_s + spike.seconds * rng.random(len(added))
        added["deadline_s"] = np.maximum(
            added["deadline_s"] + moved - added["arrival_s"],
            np.where(added["deadline_s"].isna(), np.nan, np.nextafter(moved, np.inf)),
        )
        added["arrival_s"] = moved
        added["request_id"] = [f"{name}+{n}" for name, n in zip(added["request_id"], number, strict=True)]
        trace = Trace.from_frame(pd.concat([frame[times > 0], added], ignore_index=True), trace.source)
    return trace
