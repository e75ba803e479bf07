"""Fits that are kept from one command to the next.

A fit takes some tenths of a second, and scikit-learn half of one to import, which is most of the time in which a small
simulation could have answered. So what a fit comes to, plain numbers, is kept as JSON in the user's cache folder
(``$XDG_CACHE_HOME/tilecast/fits``, by default ``~/.cache``), under a name made of everything that it depends on: the
measurements, the choices, this code and the libraries. It can be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from functools import cache
from importlib.metadata import version
from pathlib import Path

from predictors.costs import RepeatNoise
from predictors.forms import BoostedForm, FloorForm, GaussianForm, LinearForm, Seconds
from predictors.measurements import Measurements
from predictors.misfit import Misfits, misfits
from traces.errors import BadInput
from traces.marks import OutputKind
from traces.output import whole_file
from traces.text import write_text

_FIT = OutputKind("fit")
_CODE = (
    "boosting",
    "choice",
    "compiled",
    "features",
    "fit_cache",
    "forms",
    "gaussian",
    "latency",
    "launch_floor",
    "measurements",
    "misfit",
    "noise",
    "profile",
    "validation",
)
_LIBRARIES = ("numpy", "scipy", "scikit-learn")


@dataclass(frozen=True)
class Fit:
    """What is fitted of one stage.

    Attributes:
        seconds: of a row of features.
        noise: how much measurements of one batch differ.
        latency_model: what was fitted: the one that was chosen, where it was to be.
        errors: latency model -> what was held out -> error, by which it was chosen; empty where nothing was to choose.
        misfits: the batches that it misses.
    """

    seconds: Seconds
    noise: RepeatNoise
    latency_model: str
    errors: Mapping[str, Mapping[str, float]]
    misfits: Misfits


_Form = BoostedForm | FloorForm | GaussianForm | LinearForm
"""The forms that are kept."""


@dataclass(frozen=True)
class _Kept:
    seconds: _Form
    noise: RepeatNoise
    latency_model: str
    errors: dict[str, dict[str, float]]
    misfits: Misfits


def kept_fit(data: Measurements, rows_hash: str, latency_model: str) -> Fit:
    """The fit of a stage's measurements, from the cache folder if it lies there.

    Args:
        data: the measurements.
        rows_hash: of all rows that they were taken from.
        latency_model: a name in `predictors.latency.LATENCY_MODELS`.

    Raises:
        BadInput: the latency model is unknown.
    """
    chosen = (_machinery(), rows_hash, latency_model, repr(data.features))
    name = hashlib.sha256("\n".join(chosen).encode()).hexdigest()
    folder = _folder()
    kept = _read(folder / f"{name}.json") if folder is not None else None
    if kept is not None:
        return Fit(**{each.name: getattr(kept, each.name) for each in fields(Fit)})
    fit = _fit(data, latency_model)
    if folder is not None and isinstance(fit.seconds, _Form):
        with suppress(BadInput), whole_file(folder / f"{name}.json", _FIT) as path:
            write_text(path, _FIT.json(json.dumps(asdict(fit))))
    return fit


def _fit(data: Measurements, latency_model: str) -> Fit:
    from predictors.choice import BestByCrossValidation
    from predictors.compiled import compile_model
    from predictors.latency import fitted

    estimator = fitted(latency_model, data.matrix, data.per_step)
    predicted = estimator.predict(data.matrix)
    chose = isinstance(estimator, BestByCrossValidation)
    return Fit(
        seconds=compile_model(estimator),
        noise=data.noise(predicted),
        latency_model=estimator.chosen_ if chose else latency_model,
        errors=estimator.errors_ if chose else {},
        misfits=misfits(data.frame, predicted),
    )


def _read(path: Path) -> _Kept | None:
    """What was kept; None where nothing was, or nothing that can be read."""
    from pydantic import TypeAdapter

    try:
        return TypeAdapter(_Kept).validate_python(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None


def _folder() -> Path | None:
    with suppress(RuntimeError):  # there is no home
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tilecast" / "fits"
    return None


@cache
def _machinery() -> str:
    """What turns measurements into numbers here."""
    code = hashlib.sha256()
    for name in _CODE:
        code.update(Path(__file__).with_name(f"{name}.py").read_bytes())
    return " ".join([code.hexdigest(), platform.machine(), *[f"{name} {version(name)}" for name in _LIBRARIES]])
