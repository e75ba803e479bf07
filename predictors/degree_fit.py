"""Fits what sharing a step loses to published measurements of several devices, and says what it is worth.

A *configuration* is one source's measurements of one request on one to several devices, otherwise run alike. Of each,
one device's seconds are known, and what several take is predicted. The fit minimises ::

    sum h((log measured - log predicted) / noise) + sum ((parameter - prior mean) / prior sd)^2

with h quadratic near zero and linear far from it; priors say what is thought of links and hosts before any measurement.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from math import exp, log
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from predictors.costs import Batch, CostModel
from predictors.degrees import (
    DIRECT,
    HOST,
    DegreeRates,
    MeasuredDegree,
    SharedStep,
    Sharing,
    link_at,
    link_kind,
    shipped_degree_rates,
)
from predictors.efficiency import Z80, Prior, forward_seconds, shipped_efficiencies
from predictors.efficiency_fit import PublishedCase, robust_sd
from predictors.features import FeatureMap
from predictors.link import Link
from predictors.parallel import Parallel
from predictors.published import Published
from predictors.roofline import Roofline
from predictors.shapes import shape_of
from traces.composition import parse
from traces.geometry import geometry_of
from traces.stages import STAGES

Floats = npt.NDArray[np.float64]

NOISE = 0.06
"""Standard deviation of the logarithm of measured over predicted seconds, of one configuration's rows."""

PAYS = 0.05
"""A degree pays that takes at least this share less than the next lower one."""

PRIORS = {
    "unshared": Prior(0.02, 0.03),
    "exchange": Prior(log(5.0), 0.7),
    f"link {DIRECT}": Prior(log(0.7), 0.3),
    f"link {HOST}": Prior(log(0.5), 0.5),
}
"""What is thought of each parameter, of all but ``unshared`` and ``divide`` of its logarithm, see
`predictors.degrees.DegreeRates`. What devices wait for an exchange, and what dividing takes, published measurements do
not tell from the rest."""


@dataclass(frozen=True, slots=True)
class SharedPoint:
    """A measurement on several devices, and all that is known of it.

    Attributes:
        one_s: seconds of a step on one device.
        step: what several make of it.
        link_bytes_per_s: of their links by the data sheet, in one direction.
        steps: that were measured.
        other_s: seconds of stages that one device runs.
        measured_s: seconds of all.
    """

    one_s: float
    step: SharedStep
    link_bytes_per_s: float
    steps: int
    other_s: float
    measured_s: float

    def log_error(self, rates: DegreeRates) -> float:
        """Of predicted over measured seconds."""
        link = link_at(self.link_bytes_per_s, rates)
        step_s = rates.seconds(self.one_s, self.step, link)
        return log((self.other_s + self.steps * step_s) / self.measured_s)


def fit_degrees(
    points: Sequence[SharedPoint], priors: Mapping[str, Prior] = PRIORS, log_sd: float = 0.0
) -> DegreeRates:
    """The rates of these measurements.

    Args:
        priors: what is thought of each parameter, by the names of `PRIORS`.
        log_sd: of the rates.
    """
    return _fitted(tuple(points), tuple(priors.items()), log_sd)


@lru_cache(maxsize=32)
def _fitted(points: tuple[SharedPoint, ...], priors: tuple[tuple[str, Prior], ...], log_sd: float) -> DegreeRates:
    """Of one process's scenarios, most have the same measurements."""
    from scipy.optimize import least_squares  # scipy takes a while to import

    names = [name for name, _ in priors]
    means, sds = (np.array([getattr(prior, what) for _, prior in priors]) for what in ("mean", "sd"))
    together = _Together.of(points)

    def rates_at(values: Floats) -> DegreeRates:
        found = dict(zip(names, values.tolist(), strict=True))
        return DegreeRates(
            unshared=found["unshared"],
            exchange_starts=exp(found["exchange"]),
            latency_s=exp(found["latency"]) if "latency" in found else Link().latency_s,
            divide_s=found.get("divide", 0.0),
            link_share={kind: exp(found[f"link {kind}"]) for kind in (DIRECT, HOST)},
            log_sd=log_sd,
        )

    def residuals(values: Floats) -> Floats:
        rates = rates_at(values)
        off = together.log_errors(rates) / NOISE
        bent = np.sign(off) * np.sqrt(2 * (np.sqrt(1 + off**2) - 1))
        return np.concatenate([bent, (values - means) / sds])

    most = {"unshared": 0.5, "divide": np.inf}  # those that are no logarithms
    bounds = ([0.0 if name in most else -np.inf for name in names], [most.get(name, np.inf) for name in names])
    is_host = np.array([name == "exchange" for name in names])
    starts = (means, means + is_host, means - is_host)  # a maximum has a flat side
    fits = [least_squares(residuals, start, bounds=bounds, x_scale=sds) for start in starts]
    return rates_at(min(fits, key=lambda fit: fit.cost).x)


@dataclass(frozen=True)
class _Together:
    """Points side by side, each attribute of shape (n,): a fit asks for all of them a thousand times.

    Attributes:
        one_s, share, exchanges, moved_bytes, steps, other_s, measured_s: see `SharedPoint` and `SharedStep`.
        start_s: seconds to start one kernel, and ``launched_s`` all of them.
        kinds: of links, see `predictors.degrees.link_kind`.
        link_bytes_per_s: sent and received.
    """

    one_s: Floats
    share: Floats
    start_s: Floats
    launched_s: Floats
    exchanges: Floats
    moved_bytes: Floats
    steps: Floats
    other_s: Floats
    measured_s: Floats
    kinds: Sequence[str]
    link_bytes_per_s: Floats

    @classmethod
    def of(cls, points: Sequence[SharedPoint]) -> _Together:
        """These points."""

        def each(value: Callable[[SharedPoint], float]) -> Floats:
            return np.array([value(point) for point in points], dtype=float)

        return cls(
            one_s=each(lambda point: point.one_s),
            share=each(lambda point: point.step.share),
            start_s=each(lambda point: point.step.start_s),
            launched_s=each(lambda point: min(point.step.kernels * point.step.start_s, point.one_s)),
            exchanges=each(lambda point: point.step.exchanges),
            moved_bytes=each(lambda point: point.step.moved_bytes),
            steps=each(lambda point: point.steps),
            other_s=each(lambda point: point.other_s),
            measured_s=each(lambda point: point.measured_s),
            kinds=[link_kind(point.link_bytes_per_s) for point in points],
            link_bytes_per_s=each(lambda point: 2 * point.link_bytes_per_s),
        )

    def log_errors(self, rates: DegreeRates) -> Floats:
        """`SharedPoint.log_error` of each."""
        host_s = self.launched_s + self.exchanges * rates.exchange_starts * self.start_s
        device_s = self.one_s * (rates.unshared + (1 - rates.unshared) * self.share)
        reached = self.link_bytes_per_s * np.array([rates.link_share[kind] for kind in self.kinds])
        link_s = self.exchanges * rates.latency_s + self.moved_bytes / reached
        step_s = rates.divide_s + np.maximum(host_s, device_s + link_s)
        return np.log((self.other_s + self.steps * step_s) / self.measured_s)


@dataclass(frozen=True)
class DegreeCase:
    """One published measurement on several devices, and that of the same request on one.

    Attributes:
        row: on several.
        one: on one.
        parallel: how they shared it.
    """

    row: Published
    one: Published
    parallel: Parallel

    @property
    def configuration(self) -> tuple[str, ...]:
        """What it is left out with."""
        row = self.row
        return row.repository, row.hardware, row.model, "x".join(map(str, row.size)), row.engine

    @cached_property
    def estimated_s(self) -> float:
        """Seconds on one device, estimated."""
        return sum([seconds for _, seconds in self._parts])

    @cached_property
    def point(self) -> SharedPoint:
        """What is known of it, one device's seconds included."""
        return self.point_where(self.one.seconds)

    def point_where(self, one_s: float) -> SharedPoint:
        """What is known of it if the request takes so long on one device: its stages have the estimated shares."""
        row, known = self.row, one_s / self.estimated_s
        steps = 1 if row.steps is None or row.measures == "step" else row.steps
        return SharedPoint(
            one_s=known * sum([seconds for shared, seconds in self._parts if shared]) / steps,
            step=self._step,
            link_bytes_per_s=self._of_one.setting.hardware.link_bytes_per_s,
            steps=steps,
            other_s=known * sum([seconds for shared, seconds in self._parts if not shared]),
            measured_s=row.seconds,
        )

    @cached_property
    def _of_one(self) -> PublishedCase:
        return PublishedCase.of(self.one)

    @cached_property
    def _parts(self) -> list[tuple[bool, float]]:
        """Whether each stage can be shared, and its estimated seconds on one device."""
        rates = shipped_efficiencies().rates
        return [
            (setting.network == STAGES[_DENOISE].network, count * forward_seconds(work, rates(setting)))
            for count, setting, work in self._of_one.stages
        ]

    @cached_property
    def _step(self) -> SharedStep:
        row, setting = self.row, self._of_one.setting
        shape, geometry = shape_of(row.model), geometry_of(row.model)
        features = FeatureMap(geometry, _DENOISE, "whole")
        roofline = Roofline(shape, features, setting, shipped_efficiencies().rates(setting))
        batch = Batch(row.model, ((row.size, row.batch),), float(row.guided))
        return Sharing(shape, geometry, roofline=roofline).shared(batch, row.devices, row.guided, self.parallel)


(_DECODE,) = STAGES.named(lambda stage: stage.divides and stage.finishes)
(_DENOISE,) = STAGES.named(lambda stage: stage.divides and stage.sampler)

_ALIKE = (
    *("source", "hardware", "checkpoint", "height", "width", "frames", "steps", "batch", "guided"),
    *("precision", "engine", "measures", "software"),
)


def degree_cases(rows: Sequence[Published]) -> list[DegreeCase]:
    """Of the rows of several devices, shared in a way that `Parallel` has, whose request was also measured on one."""
    ones = {tuple(getattr(row, name) for name in _ALIKE): row for row in rows if not row.skipped}
    cases = []
    for row in rows:
        one = ones.get(tuple(getattr(row, name) for name in _ALIKE))
        parallel = Parallel.published(row.parallelism)
        if one is None or parallel is None or row.devices == 1 or parallel.devices != row.devices:
            continue
        if not row.model_copy(update={"devices": 1}).skipped:
            cases.append(DegreeCase(row, one, parallel))
    return cases


@dataclass(frozen=True)
class DegreeAssessment:
    """What the fit says of measurements whose configuration it has not seen.

    Attributes:
        cases: shape (n,).
        left_out: of each, the rates of all other configurations.
    """

    cases: Sequence[DegreeCase]
    left_out: Sequence[DegreeRates]

    @property
    def configurations(self) -> list[tuple[str, ...]]:
        """Of each case."""
        return [case.configuration for case in self.cases]

    @cached_property
    def errors(self) -> Floats:
        """Log of predicted over measured seconds of each, where one device's are known, shape (n,): the negative of the
        speed-up's."""
        return np.array([case.point.log_error(rates) for case, rates in zip(self.cases, self.left_out, strict=True)])

    def errors_where(self, one_s: Sequence[float]) -> Floats:
        """The same where one device is believed to take so long, of each, shape (n,)."""
        of_each = zip(self.cases, one_s, self.left_out, strict=True)
        return np.array([case.point_where(seconds).log_error(rates) for case, seconds, rates in of_each])

    @cached_property
    def log_sd(self) -> float:
        """Standard deviation of the logarithm for one more configuration."""
        return spread(self.errors, self.configurations)

    def stops(self, predicted: bool) -> dict[tuple[str, ...], int]:
        """The degree at which each configuration stops paying, as measured or predicted."""
        found = {}
        for configuration in dict.fromkeys(self.configurations):
            seconds = {}
            for case, error in zip(self.cases, self.errors.tolist(), strict=True):
                if case.configuration == configuration:
                    seconds[1] = case.one.seconds
                    seconds[case.row.devices] = case.row.seconds * (exp(error) if predicted else 1.0)
            found[configuration] = paying_degree(seconds)
        return found


def paying_degree(seconds: dict[int, float]) -> int:
    """The largest degree up to which each takes at least `PAYS` less than the one below it."""
    degrees = sorted(seconds)
    for lower, higher in pairwise(degrees):
        if seconds[higher] > (1 - PAYS) * seconds[lower]:
            return lower
    return degrees[-1]


def spread(errors: Floats, configurations: Sequence[tuple[str, ...]]) -> float:
    """The standard deviation that errors of configurations that were left out say of one more, as wide as their number
    leaves it uncertain (Student's distribution)."""
    from scipy.stats import t  # scipy takes a while to import

    groups = np.array(["/".join(configuration) for configuration in configurations])
    return float(robust_sd(errors, groups) * t.ppf(0.9, len(set(groups))) / Z80)


def assess_degrees(cases: Sequence[DegreeCase]) -> DegreeAssessment:
    """Each case by the other configurations."""
    by = {}
    for configuration in dict.fromkeys([case.configuration for case in cases]):
        by[configuration] = fit_degrees([case.point for case in cases if case.configuration != configuration])
    return DegreeAssessment(cases, [by[case.configuration] for case in cases])


def as_shipped(cases: Sequence[DegreeCase]) -> DegreeAssessment:
    """Each case by what ships, of measurements that this was not fitted to."""
    return DegreeAssessment(cases, [shipped_degree_rates()] * len(cases))


def rates_of_rows(
    frame: pd.DataFrame,
    sharing: Sharing,
    table: CostModel,
    link_bytes_per_s: float,
    known: DegreeRates,
    decoding: bool = False,
) -> DegreeRates:
    """The rates that a profile's rows of several devices say, and by what each degree that they have departs from them.

    Args:
        frame: the rows, of one model and executor.
        sharing: how its steps are shared.
        table: seconds on one device.
        link_bytes_per_s: of the devices' links by the data sheet, in one direction.
        known: what is thought where they say nothing.
        decoding: of the rows of decoding, instead of denoising.
    """
    stage = _DECODE if decoding else _DENOISE
    rows = frame[frame["stage"] == stage]
    points, degrees = [], []
    row: Any
    for row in rows.itertuples():
        computed = float(row.computed) if row.cached else None
        batch = Batch(str(row.model), parse(row.composition), float(row.guided), computed=computed)
        if one_s := table.step_s(stage, batch):
            devices = int(row.devices)
            step = sharing.decoded(batch, devices) if decoding else sharing.shared(batch, devices, bool(row.guided))
            points.append(SharedPoint(one_s, step, link_bytes_per_s, int(row.steps), 0.0, float(row.seconds)))
            degrees.append(int(row.devices))
    if not points:
        return known
    rates = fit_degrees(points, _priors_of_rows(known), known.log_sd)
    errors, of = np.array([point.log_error(rates) for point in points]), np.array(degrees)
    measured = {}
    for degree in sorted(set(degrees)):
        own = errors[of == degree]
        square = (((own - own.mean()) ** 2).sum() + NOISE**2) / len(own)  # a few rows may agree by chance
        measured[degree] = MeasuredDegree(factor=exp(-own.mean()), log_sd=float(square**0.5))
    return rates.model_copy(update={"measured": measured})


def _priors_of_rows(known: DegreeRates) -> dict[str, Prior]:
    """What is thought of hosts and links that a user measures: Gloo's exchanges take a host far longer than NCCL's."""
    return {
        "unshared": Prior(known.unshared, 0.1),
        "exchange": Prior(log(known.exchange_starts), 2.0),
        "latency": Prior(log(known.latency_s), 3.0),
        "divide": Prior(0.0, 1.0),
        **{f"link {kind}": Prior(log(share), 1.0) for kind, share in known.link_share.items()},
    }
