"""When requests arrive: point processes, with the course of a day laid over them.

A process is made on an even clock (operational time) and then moved to the trace's clock through the inverse
of the cumulative daily profile. For Poisson arrivals this has the same law as thinning; for bursty ones it
keeps the burstiness, which thinning would dilute.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from traces.errors import BadInput
from traces.limits import MOST_REQUESTS

DAY_S = 86400.0
Times = npt.NDArray[Any]


class Burst(Protocol):
    """A stationary point process."""

    def points(self, rate: float, span_s: float, rng: np.random.Generator) -> Times:
        """Sorted times in [0, span_s), ``rate`` a second on average."""

    def spell(self) -> str:
        """The process as `parse_arrivals` reads it."""


@dataclass(frozen=True)
class Poisson:
    """Independent arrivals (CV of the intervals 1)."""

    def points(self, rate: float, span_s: float, rng: np.random.Generator) -> Times:
        """See `Burst.points`."""
        return np.sort(rng.random(rng.poisson(rate * span_s)) * span_s)

    def spell(self) -> str:
        """See `Burst.spell`."""
        return "poisson"


@dataclass(frozen=True)
class Gamma:
    """A renewal process with gamma distributed intervals: bursty for ``cv`` above 1, regular below.

    It starts in equilibrium: the first interval is a uniform part of a length-biased one.
    """

    cv: float

    def __post_init__(self) -> None:
        if not 0.01 <= self.cv <= 100:
            raise BadInput(f"arrivals gamma:{self.cv:g}: the CV must be between 0.01 and 100")

    def points(self, rate: float, span_s: float, rng: np.random.Generator) -> Times:
        """See `Burst.points`."""
        shape = self.cv**-2
        scale = 1 / (rate * shape)
        last = rng.random() * rng.gamma(shape + 1, scale)
        parts = [np.array([last])]
        while last < span_s:
            missing = rate * (span_s - last)
            gaps = rng.gamma(shape, scale, size=int(missing + 3 * self.cv * math.sqrt(missing)) + 16)
            parts.append(last + np.cumsum(gaps))
            last = float(parts[-1][-1])
        times = np.concatenate(parts)
        return times[times < span_s]

    def spell(self) -> str:
        """See `Burst.spell`."""
        return f"gamma:{self.cv!r}"


@dataclass(frozen=True)
class Mmpp:
    """A Markov-modulated Poisson process of two states, equally likely.

    Attributes:
        ratio: rate in the busy state over rate in the quiet one.
        sojourn_s: mean seconds in a state before it changes.
    """

    ratio: float
    sojourn_s: float

    def __post_init__(self) -> None:
        if not (self.ratio >= 1 and math.isfinite(self.ratio)):
            raise BadInput(f"arrivals {self.spell()}: the ratio of the rates must be at least 1")
        if not (self.sojourn_s > 0 and math.isfinite(self.sojourn_s)):
            raise BadInput(f"arrivals {self.spell()}: the seconds in a state must be above 0")

    def points(self, rate: float, span_s: float, rng: np.random.Generator) -> Times:
        """See `Burst.points`."""
        if span_s / self.sojourn_s > MOST_REQUESTS:
            raise BadInput(f"arrivals {self.spell()}: {span_s:g} s hold too many changes of state")
        quiet = 2 * rate / (1 + self.ratio)
        busy = bool(rng.integers(2))
        ends = np.zeros(1)
        while ends[-1] < span_s:
            count = int(1.1 * (span_s - ends[-1]) / self.sojourn_s) + 16
            ends = np.concatenate([ends, ends[-1] + np.cumsum(rng.exponential(self.sojourn_s, size=count))])
        ends = np.minimum(ends, span_s)
        lengths = np.diff(ends)
        rates = np.where((np.arange(len(lengths)) % 2 == 0) == busy, quiet * self.ratio, quiet)
        counts = rng.poisson(rates * lengths)
        starts = np.repeat(ends[:-1], counts)
        return np.sort(starts + rng.random(len(starts)) * np.repeat(lengths, counts))

    def spell(self) -> str:
        """See `Burst.spell`."""
        return f"mmpp:{self.ratio!r}:{self.sojourn_s!r}"


@dataclass(frozen=True)
class DailyProfile:
    """The course of a day: relative rates in equal parts of it, from time 0 of the trace, day after day.

    Attributes:
        rates: at least 0; only their ratios matter.
    """

    rates: tuple[float, ...]

    def __post_init__(self) -> None:
        total = sum(self.rates)
        if not (self.rates and min(self.rates) >= 0 and 0 < total < math.inf):
            raise BadInput("a daily profile needs rates of at least 0 with a finite sum above 0")

    @classmethod
    def sinusoid(cls, amplitude: float) -> DailyProfile:
        """A sine of one day, 1 + amplitude sin(2 pi t / day), by the minute.

        Raises:
            BadInput: an amplitude outside 0 to 1.
        """
        if not 0 <= amplitude <= 1:
            raise BadInput(f"arrivals diurnal:{amplitude:g}: the amplitude must be between 0 and 1")
        return cls(tuple((1 + amplitude * np.sin(2 * np.pi * (np.arange(1440) + 0.5) / 1440)).tolist()))

    @classmethod
    def fit(cls, arrival: Times, parts: int = 24) -> DailyProfile:
        """The profile of arrival times (sorted, seconds): the rate in each part of the day, over all days."""
        part_s = DAY_S / parts

        def seconds_until(t: float) -> Times:
            return t // DAY_S * part_s + np.clip(t % DAY_S - part_s * np.arange(parts), 0, part_s)

        exposure = seconds_until(float(arrival[-1])) - seconds_until(float(arrival[0]))
        counts = np.bincount((arrival % DAY_S // part_s).astype(int), minlength=parts)[:parts]
        rates = np.divide(counts, exposure, out=np.zeros(parts), where=exposure > 0)
        return cls(tuple((rates / rates.mean()).round(4).tolist()))

    def operational(self, t: Times) -> Times:
        """Seconds of the even clock at trace times ``t``."""
        return t // DAY_S * DAY_S + np.interp(t % DAY_S, *self._knots())

    def clock(self, u: Times) -> Times:
        """Trace times at seconds ``u`` of the even clock: the inverse of `operational`."""
        edges, cumulative = self._knots()
        return u // DAY_S * DAY_S + np.interp(u % DAY_S, cumulative, edges)

    def _knots(self) -> tuple[Times, Times]:
        edges = np.linspace(0, DAY_S, len(self.rates) + 1)
        cumulative = np.concatenate([[0.0], np.cumsum(self.rates)]) * (DAY_S / len(self.rates))
        return edges, cumulative * (DAY_S / cumulative[-1])


@dataclass(frozen=True)
class Arrivals:
    """A point process, with or without a daily profile over it."""

    burst: Burst
    profile: DailyProfile | None = None

    def times(self, rate: float, duration_s: float, rng: np.random.Generator) -> Times:
        """Sorted arrival times in [0, duration_s), ``rate`` a second on average over a day.

        Raises:
            BadInput: a rate or duration that is not above 0, or more than 10 million requests.
        """
        for name, value in (("rate", rate), ("duration", duration_s)):
            if not (value > 0 and math.isfinite(value)):
                raise BadInput(f"{name} is {value}, expected a number above 0")
        if rate * duration_s > MOST_REQUESTS:
            raise BadInput(f"{rate} requests a second for {duration_s} s are more than {MOST_REQUESTS} requests")
        if self.profile is None:
            return self.burst.points(rate, duration_s, rng)
        span = float(self.profile.operational(np.array([duration_s]))[0])
        times = self.profile.clock(self.burst.points(rate, span, rng)) if span > 0 else np.empty(0)
        return times[times < duration_s]


def parse_arrivals(text: str) -> Arrivals:
    """The arrivals that ``text`` spells.

    ``poisson``, ``gamma:CV``, ``mmpp:RATIO:SECONDS`` (busy over quiet rate, mean seconds in a state),
    ``diurnal:AMPLITUDE`` (Poisson under a sine of one day), ``hourly:R,R,...`` (Poisson under 24 relative
    hourly rates), or a process and a profile joined by ``+``: ``gamma:2+diurnal:0.5``.

    Raises:
        BadInput: another spelling, or a parameter out of range.
    """
    burst: Burst | None = None
    profile: DailyProfile | None = None
    for part in text.split("+"):
        kind, *parameters = part.strip().split(":")
        known = {"poisson": 0, "gamma": 1, "mmpp": 2, "diurnal": 1, "hourly": 1}
        values = _numbers(parameters[0].split(",") if kind == "hourly" and parameters else parameters, text)
        if known.get(kind) != len(parameters) or (kind == "hourly" and len(values) != 24):
            raise BadInput(
                f"arrivals {text!r}: {part.strip()!r} is not poisson, gamma:CV, mmpp:RATIO:SECONDS, "
                "diurnal:AMPLITUDE or hourly: and 24 rates"
            )
        if kind in ("diurnal", "hourly"):
            if profile is not None:
                raise BadInput(f"arrivals {text!r}: two daily profiles, expected at most one")
            profile = DailyProfile.sinusoid(values[0]) if kind == "diurnal" else DailyProfile(tuple(values))
        else:
            if burst is not None:
                raise BadInput(f"arrivals {text!r}: two processes, expected one")
            burst = Poisson() if kind == "poisson" else Gamma(values[0]) if kind == "gamma" else Mmpp(*values)
    return Arrivals(burst or Poisson(), profile)


def _numbers(words: list[str], text: str) -> list[float]:
    try:
        return [float(word) for word in words]
    except ValueError as error:
        raise BadInput(f"arrivals {text!r}: {error}") from None
