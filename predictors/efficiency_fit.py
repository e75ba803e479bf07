"""Fits the hierarchy of efficiencies to published measurements, and learns from what it gets wrong how far to trust it.

The fit is a maximum a posteriori estimate: it minimises, over the terms of `predictors.efficiency`, ::

    sum h((log measured - log predicted) / noise) + sum ((term - prior mean) / prior sd)^2

with h a loss that is quadratic near zero and linear far from it, so that a measurement with a wrong remark pulls no
harder than one that is a little off.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import cached_property
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict

from predictors.efficiency import (
    AUTOTUNED,
    COMPUTING,
    QUANTITIES,
    Z80,
    Efficiencies,
    Prior,
    Setting,
    Spread,
    Terms,
    Work,
    error_class,
    forward_seconds,
    host_of,
    prior,
    terms,
)
from predictors.features import FeatureMap
from predictors.hardware import shipped_hardware
from predictors.published import Published
from predictors.roofline import Roofline
from predictors.shapes import shape_of
from traces.geometry import geometry_of
from traces.stages import ORDINARY, STAGES

Floats = npt.NDArray[np.float64]

_BENDS = 2.0
"""Standard deviations of noise beyond which the loss is linear."""


@dataclass(frozen=True)
class PublishedCase:
    """What one measurement ran.

    Attributes:
        row: the measurement.
        stages: forwards of each stage, how the stage was run, and the work of one forward.
    """

    row: Published
    stages: tuple[tuple[int, Setting, Work], ...]

    @classmethod
    def of(cls, row: Published) -> PublishedCase:
        """A row that is not `Published.skipped`."""
        shape, geometry, hardware = shape_of(row.model), geometry_of(row.model), shipped_hardware()[row.hardware]
        details = row.remarks | {host_of(row.repository)}
        if row.engine == "vendor":
            details |= {f"software {row.software}"}
        elif AUTOTUNED in row.software.split("; "):
            details |= {AUTOTUNED}
        counts = dict.fromkeys(ORDINARY, 1)
        for stage in ORDINARY:
            if STAGES[stage].sampler and row.steps is not None and row.measures == "request":
                counts[stage] = row.steps
        stages = []
        for stage in ORDINARY:
            only = {"step": STAGES[stage].sampler, "decode": STAGES[stage].finishes, "request": True}[row.measures]
            if not only:
                continue
            setting = Setting.of_stage(
                hardware=hardware,
                engine=row.engine,
                precision=row.precision,
                network=STAGES[stage].network,
                model=row.model,
                upcasts=shape.upcasts,
                details=details,
            )
            rates = Efficiencies(terms={}, spreads={}, misfit=0.0).rates(setting)
            roofline = Roofline(shape, FeatureMap(geometry, stage, "whole"), setting, rates)
            work = roofline.work(((row.size, row.batch),), float(row.guided))
            stages.append((counts[stage], setting, work))
        return cls(row, tuple(stages))

    @property
    def setting(self) -> Setting:
        """How the stage was run that takes longest: the denoiser, where it was measured."""
        return max(self.stages, key=lambda stage: stage[0] * stage[2].flops)[1]

    @cached_property
    def lines(self) -> list[_Line]:
        """Its stages as `_Design` takes them, worked out once for all fits that see it."""
        return [
            _Line(
                forwards=count,
                work=astuple(work),
                peaks=[setting.peak(kind) for kind in COMPUTING],
                bends=[setting.saturates(kind) for kind in COMPUTING],
                bandwidth=setting.hardware.memory_bytes_per_s,
                terms=terms(setting),
            )
            for count, setting, work in self.stages
        ]


class _Line(NamedTuple):
    """A stage of a case: its forwards, the work of one, and by `COMPUTING` the peaks and whether they bend."""

    forwards: int
    work: tuple[float, ...]
    peaks: list[float]
    bends: list[bool]
    bandwidth: float
    terms: dict[str, Terms]


def cases_of(rows: Sequence[Published]) -> list[PublishedCase]:
    """Of the rows that can be compared."""
    return [PublishedCase.of(row) for row in rows if not row.skipped]


class _Design:
    """Cases as arrays: a line a stage."""

    def __init__(self, cases: Sequence[PublishedCase]) -> None:
        lines = [line for case in cases for line in case.lines]
        self.cases = len(cases)
        self.case = np.repeat(np.arange(len(cases)), [len(case.lines) for case in cases])
        self.counts = np.array([line.forwards for line in lines], dtype=np.float64)
        self.works = np.array([line.work for line in lines], dtype=np.float64)
        self.peaks = np.array([line.peaks for line in lines])
        self.bends = np.array([line.bends for line in lines])
        self.bandwidth = np.array([line.bandwidth for line in lines])
        self.names = sorted({name for line in lines for of in line.terms.values() for name in of})
        column = {name: place for place, name in enumerate(self.names)}
        rows: list[int] = []
        columns: list[int] = []
        weights: list[float] = []
        for which, quantity in enumerate(QUANTITIES):
            for at, line in enumerate(lines):
                of = line.terms[quantity]
                rows += [which * len(lines) + at] * len(of)
                columns += [column[name] for name in of]
                weights += of.values()
        shape = (len(QUANTITIES) * len(lines), len(self.names))
        self._terms = csr_array((weights, (rows, columns)), shape)  # the lines of each quantity, one under another

    def log_seconds(self, values: Floats) -> tuple[Floats, Floats]:
        """The logarithm of each case's seconds, shape (cases,), and its derivatives, shape (cases, terms).

        The formulas are those of `predictors.efficiency.forward_seconds` and `share`, on arrays.

        Args:
            values: of each term in ``names``.
        """
        lines = len(self.case)
        logs = dict(zip(QUANTITIES, (self._terms @ values).reshape(-1, lines), strict=True))
        slopes = {quantity: np.zeros(lines) for quantity in QUANTITIES}  # of seconds by the logarithm of a quantity
        memory = self.bandwidth * np.exp(logs["memory"])
        device = np.zeros(lines)
        for place, kind in enumerate(COMPUTING):
            bends = self.bends[:, place]
            log_share = np.where(bends, -0.5 * np.log1p(np.exp(-2 * logs[kind])), logs[kind])
            slope = np.where(bends, 1 / (1 + np.exp(2 * logs[kind])), 1.0)
            arithmetic = self.works[:, place] / (self.peaks[:, place] * np.exp(log_share))
            traffic = self.works[:, 3 + place] / memory
            seconds = np.maximum(np.hypot(arithmetic, traffic), 1e-30)
            device += seconds
            slopes[kind] = -(arithmetic**2) / seconds * slope
            slopes["memory"] -= traffic**2 / seconds
        elementwise = self.works[:, 6] / memory * np.exp(logs["elementwise"])
        device += elementwise
        slopes["elementwise"] = elementwise
        slopes["memory"] -= elementwise
        host = self.works[:, 7] * np.exp(logs["launch"])
        forward = np.hypot(device, host)
        slopes = {quantity: of * device / forward for quantity, of in slopes.items()}
        slopes["launch"] = host**2 / forward
        total = np.bincount(self.case, self.counts * forward, self.cases)
        of_lines = np.concatenate([self.counts / total[self.case] * slopes[quantity] for quantity in QUANTITIES])
        places = np.tile(self.case, len(QUANTITIES)), np.arange(len(of_lines))
        of_terms = csr_array((of_lines, places), (self.cases, len(of_lines))) @ self._terms
        return np.log(total), of_terms.toarray()


class EfficiencyModel(RegressorMixin, BaseEstimator):
    """A scikit-learn estimator of seconds from `PublishedCase` objects.

    Attributes:
        terms_: the fitted terms by name.
    """

    def __init__(
        self,
        noise: float = 0.15,
        start: Mapping[str, float] | None = None,
        priors: Mapping[str, Prior] | None = None,
    ) -> None:
        """Store the parameters.

        Args:
            noise: standard deviation of the logarithm of measured over predicted seconds.
            start: terms from which the fit begins; None: their priors' means.
            priors: what is thought of a term, or of a family of terms (the first word of their names), in place of
                `predictors.efficiency.prior`; None: nothing else.
        """
        self.noise = noise
        self.start = start
        self.priors = priors

    def fit(self, X: Sequence[PublishedCase], y: Any) -> Self:  # noqa: N803
        """Fit the terms.

        Args:
            X: cases, length n.
            y: seconds of each, shape (n,), positive.
        """
        from scipy.optimize import least_squares  # scipy takes a while to import

        design, measured = _Design(X), np.log(np.asarray(y, dtype=np.float64))
        names = design.names
        means = np.array([self._prior(name).mean for name in names])
        sds = np.array([self._prior(name).sd for name in names])
        start = self.start or {}
        at: dict[bytes, Floats] = {}  # the derivatives at the values that were tried last

        def residuals(values: Floats) -> Floats:
            predicted, derivatives = design.log_seconds(values)
            bent, slope = _bent((measured - predicted) / self.noise)
            at.clear()
            at[values.tobytes()] = np.concatenate([-derivatives * (slope / self.noise)[:, None], np.diag(1 / sds)])
            return np.concatenate([bent, (values - means) / sds])

        def jacobian(values: Floats) -> Floats:
            if values.tobytes() not in at:
                residuals(values)
            return at[values.tobytes()]

        first = np.array([start.get(name, mean) for name, mean in zip(names, means, strict=True)])
        found = least_squares(residuals, first, jacobian, x_scale=sds, max_nfev=100, ftol=1e-8, xtol=1e-8)
        self.terms_ = dict(zip(names, found.x.tolist(), strict=True))
        return self

    def predict(self, X: Sequence[PublishedCase]) -> Floats:  # noqa: N803
        """Seconds of each case, shape (n,); terms that the fit never saw are at their priors' means."""
        design = _Design(X)
        values = np.array([self.terms_.get(name, self._prior(name).mean) for name in design.names])
        seconds: Floats = np.exp(design.log_seconds(values)[0])
        return seconds

    def _prior(self, name: str) -> Prior:
        return prior(name, self.priors or {})


def _bent(residuals: Floats) -> tuple[Floats, Floats]:
    """Residuals whose squares grow as fast as they do far from zero, and their derivatives."""
    far = np.maximum(np.abs(residuals), 1e-3)
    root = np.sqrt(1 + (far / _BENDS) ** 2)
    bent = _BENDS * np.sqrt(2 * (root - 1))
    return np.sign(residuals) * bent, far / (root * bent)


def _device(case: PublishedCase) -> str:
    """Slices of a device are the device."""
    return case.row.hardware.partition("-mig-")[0]


SPLITS: dict[str, Callable[[PublishedCase], str]] = {
    "source": lambda case: case.row.repository,
    "device": _device,
    "generation": lambda case: case.setting.hardware.generation,
    "model": lambda case: case.row.model,
    "class": lambda case: error_class(case.setting),
}
"""What is left out together, to see what an estimate is worth that has none of it."""


LEAST_GROUPS = 2.0
"""Groups, counted by `effective_groups`, below which one group decides what share of measurements is in its interval,
so that nothing follows from the share."""


def effective_groups(groups: Iterable[str]) -> float:
    """Of how many equally large groups it would be said with as much certainty: (sum n)^2 / sum n^2."""
    counts = np.array(list(Counter(groups).values()), dtype=np.float64)
    return float(counts.sum() ** 2 / (counts**2).sum())


def reported_class(case: PublishedCase) -> str:
    """As `predictors.efficiency.error_class`, engines apart that a single project's measurements could hide."""
    name = error_class(case.setting)
    if name != "vendor":
        return name
    return "OneDiff" if case.row.software.startswith("OneDiff") else "other engines"


@dataclass(frozen=True)
class ErrorSummary:
    """Errors of some estimates.

    Attributes:
        count: how many.
        mape: mean absolute error, in %.
        bias: mean of the logarithm of predicted over measured seconds.
        covered: share of measurements inside their 80 % interval; NaN: none was asked for.
    """

    count: int
    mape: float
    bias: float
    covered: float = float("nan")

    @classmethod
    def of(cls, errors: Floats, log_sds: Floats | None = None) -> ErrorSummary:
        """Of logarithms of predicted over measured seconds, shape (n,), and of standard deviations for them."""
        covered = float("nan") if log_sds is None else float(np.mean(np.abs(errors) <= Z80 * log_sds))
        return cls(len(errors), 100 * float(np.mean(np.abs(np.expm1(errors)))), float(np.mean(errors)), covered)


@dataclass(frozen=True)
class Assessment:
    """What the estimator says of measurements.

    Attributes:
        cases: shape (n,).
        errors: log of predicted over measured seconds, shape (n,), by what was left out: ``fitted``, nothing; the names
            of `SPLITS`.
        model: fitted to all of them.
    """

    cases: Sequence[PublishedCase]
    errors: Mapping[str, Floats]
    model: EfficiencyModel

    @cached_property
    def classes(self) -> npt.NDArray[np.str_]:
        """The class of each case, see `error_class`."""
        return np.array([error_class(case.setting) for case in self.cases])

    def groups(self, split: str) -> npt.NDArray[np.str_]:
        """What each case is left out with."""
        return np.array([SPLITS[split](case) for case in self.cases])

    @cached_property
    def measured_elsewhere(self) -> npt.NDArray[np.bool_]:
        """The cases whose class another source measured, too: what leaving the source out says of them is what an
        estimate of this class is worth to anybody."""
        sources: dict[str, set[str]] = {}
        for name, source in zip(self.classes.tolist(), self.groups("source").tolist(), strict=True):
            sources.setdefault(name, set()).add(source)
        return np.array([len(sources[name]) > 1 for name in self.classes.tolist()])

    def log_sds(self, split: str) -> Floats:
        """For each case, the standard deviation of the logarithm that the *other* groups of a split say, by what of the
        case is among these, shape (n,)."""
        groups = self.groups(split)
        found = np.empty(len(self.cases))
        for group in np.unique(groups):
            out = groups == group
            known = spreads(self, ~out)
            found[out] = [
                known[name].log_sd(self.cases[place].setting)
                for place, name in zip(np.flatnonzero(out).tolist(), self.classes[out].tolist(), strict=True)
            ]
        return found


def estimated_errors(cases: Sequence[PublishedCase], known: Efficiencies) -> tuple[Floats, Floats]:
    """The logarithm of estimated over measured seconds of each case, and its standard deviation, each of shape (n,)."""
    errors = []
    for case in cases:
        seconds = [count * forward_seconds(work, known.rates(setting)) for count, setting, work in case.stages]
        errors.append(np.log(sum(seconds) / case.row.seconds))
    return np.array(errors), np.array([known.log_sd(case.setting) for case in cases])


def assess(
    cases: Sequence[PublishedCase], splits: Sequence[str] = tuple(SPLITS), unfitted: EfficiencyModel | None = None
) -> Assessment:
    """Fit all cases, and predict each from those that do not share its group, for each of ``splits``.

    Args:
        unfitted: what is fitted; None: an `EfficiencyModel` as it is.
    """
    seconds = np.array([case.row.seconds for case in cases])
    X = np.empty(len(cases), dtype=object)  # noqa: N806
    X[:] = cases
    model = clone(EfficiencyModel() if unfitted is None else unfitted).fit(cases, seconds)
    errors = {"fitted": np.log(model.predict(cases) / seconds)}
    for split in splits:
        groups = [SPLITS[split](case) for case in cases]
        again = clone(model).set_params(start=model.terms_)
        predicted = cross_val_predict(again, X, seconds, groups=groups, cv=LeaveOneGroupOut())
        errors[split] = np.log(predicted / seconds)
    return Assessment(cases, errors, model)


ALIKE = ("eager", "compiled", "vendor", "float32", "quantised compiled", "decode")
"""The classes whose errors are pooled; quantised without a compiler is slow in ways that no hierarchy knows."""


def spreads(assessment: Assessment, among: npt.NDArray[np.bool_] | None = None) -> dict[str, Spread]:
    """How far estimates are off, by class; also of classes that none of the cases ``among`` is of.

    Args:
        among: the cases to learn from, shape (n,); None: all.
    """
    cases, classes = assessment.cases, assessment.classes
    among = np.ones(len(cases), dtype=bool) if among is None else among
    learnt = {split: _Learnt.of(assessment, split, among) for split in ("fitted", *SPLITS)}
    found = {}
    for name in np.unique(classes).tolist():
        of = among & (classes == name)
        settings = [cases[place].setting for place in np.flatnonzero(of).tolist()]
        sds = {split: each.log_sd(name) for split, each in learnt.items()}
        if not settings:
            of_class = sds["class"]
            sds = {split: (of_class**2 + sd**2) ** 0.5 for split, sd in sds.items()} | {"fitted": of_class}
        found[name] = Spread(
            seen=sds["fitted"],
            source=max(sds["fitted"], sds["source"]),
            device=max(sds["fitted"], sds["device"]),
            generation=max(sds["fitted"], sds["device"], sds["generation"]),
            model=max(sds["fitted"], sds["model"]),
            sources=tuple(sorted(set(assessment.groups("source")[of].tolist()))),
            devices=tuple(sorted({setting.hardware.name for setting in settings})),
            generations=tuple(sorted({setting.hardware.generation for setting in settings})),
            models=tuple(sorted({setting.model for setting in settings})),
        )
    return found


@dataclass(frozen=True)
class _Learnt:
    """What the errors of one split say of the next group that is left out.

    Each class has a standard deviation of its own, drawn to that of all classes together as if this were one group
    more; as factors, because that is how they differ. What n groups and this one say of a standard deviation is
    uncertain itself, so intervals are as wide as Student's distribution of n + 1 degrees of freedom is at 80 %.

    Attributes:
        errors, classes, groups: of the cases that say something, each of shape (n,).
    """

    errors: Floats
    classes: npt.NDArray[np.str_]
    groups: npt.NDArray[np.str_]

    @classmethod
    def of(cls, assessment: Assessment, split: str, among: npt.NDArray[np.bool_]) -> Self:
        """Of the cases ``among``, shape (n,)."""
        said = among & assessment.measured_elsewhere if split == "source" else among
        groups = assessment.groups("device" if split == "fitted" else split)
        return cls(assessment.errors[split][said], assessment.classes[said], groups[said])

    def log_sd(self, name: str) -> float:
        """Of one class; of one without a case, that of all classes."""
        from scipy.stats import t  # scipy takes a while to import

        own, alike = self.classes == name, np.isin(self.classes, ALIKE)
        pooled = robust_sd(self.errors[alike], self.groups[alike])
        if not own.any():
            return pooled
        count = len(np.unique(self.groups[own]))
        of_class = max(robust_sd(self.errors[own], self.groups[own]), _LEAST_SD)
        shrunk = np.exp((np.log(pooled) + count * np.log(of_class)) / (1 + count))
        return float(shrunk * t.ppf(0.9, 1 + count) / Z80)


_LEAST_SD = 0.01
"""Of errors that happen to be none."""


def robust_sd(errors: Floats, groups: npt.NDArray[np.str_]) -> float:
    """The standard deviation whose normal distribution has as many of its absolute values below that which four of five
    ``errors`` are below, each group counting as much as any other, however many of its cases were measured."""
    return _quantile(np.abs(errors), groups) / Z80


def _quantile(values: Floats, groups: npt.NDArray[np.str_]) -> float:
    """What four of five values are below, where each group weighs the same."""
    _, of, counts = np.unique(groups, return_inverse=True, return_counts=True)
    order = np.argsort(values)
    weights = (1 / counts[of])[order]
    middles = (np.cumsum(weights) - weights / 2) / len(counts)
    return float(np.interp(0.8, middles, values[order]))
