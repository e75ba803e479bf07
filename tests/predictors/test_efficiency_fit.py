"""The fit of efficiencies to published measurements, and what it is worth."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import clone

from predictors.efficiency import Z80, Efficiencies, error_class, prior, shipped_efficiencies
from predictors.efficiency_fit import (
    SPLITS,
    Assessment,
    EfficiencyModel,
    ErrorSummary,
    PublishedCase,
    _Design,
    assess,
    cases_of,
    estimated_errors,
)
from predictors.published import shipped_published
from tools.efficiencies import HEADER, spelled
from traces.streams import stream

FEW = 40


@pytest.fixture(scope="module")
def cases() -> list[PublishedCase]:
    return cases_of(shipped_published())


@pytest.fixture(scope="module")
def assessed(cases: list[PublishedCase]) -> Assessment:
    return assess(cases)


def test_the_arrays_say_what_the_formula_says(cases: list[PublishedCase]) -> None:
    known = shipped_efficiencies()
    design = _Design(cases)
    values = np.array([known.value(name) for name in design.names])
    log_seconds, _ = design.log_seconds(design.matrices(design.names), values)
    errors, _ = estimated_errors(cases, known)
    measured = np.log([case.row.seconds for case in cases])
    np.testing.assert_allclose(log_seconds, errors + measured, rtol=0, atol=1e-9)


def test_the_derivatives_are_those_of_the_formula(cases: list[PublishedCase]) -> None:
    few = cases[:: len(cases) // FEW]
    design = _Design(few)
    matrices = design.matrices(design.names)
    values = np.array([prior(name).mean for name in design.names])
    at, slopes = design.log_seconds(matrices, values)
    for place in range(len(values)):
        step = np.zeros(len(values))
        step[place] = 1e-6
        np.testing.assert_allclose(
            (design.log_seconds(matrices, values + step)[0] - at) / 1e-6, slopes[:, place], atol=1e-4
        )


def test_a_known_truth_is_found(cases: list[PublishedCase]) -> None:
    """Terms drawn from their priors, seconds of them with 3 % noise: half of the rows predict the others."""
    draw = stream(0, "test")
    names = _Design(cases).names
    truth = EfficiencyModel()
    truth.terms_ = {name: draw.normal(prior(name).mean, prior(name).sd) for name in names}
    seconds = truth.predict(cases) * draw.lognormal(0, 0.03, len(cases))
    half = draw.permutation(len(cases))[: len(cases) // 2]
    found = EfficiencyModel(noise=0.03).fit([cases[place] for place in half], seconds[half])
    errors = np.log(found.predict(cases) / seconds)
    rest = np.setdiff1d(np.arange(len(cases)), half)
    before = np.log(NOTHING.predict(cases) / seconds)
    assert np.mean(np.abs(errors[rest])) < 0.06 < 0.2 < np.mean(np.abs(before[rest]))


NOTHING = EfficiencyModel()
NOTHING.terms_ = {}


def test_one_wrong_measurement_bends_little(cases: list[PublishedCase]) -> None:
    seconds = np.array([case.row.seconds for case in cases])
    wrong = seconds.copy()
    wrong[5] *= 20
    straight, bent = EfficiencyModel().fit(cases, seconds), EfficiencyModel().fit(cases, wrong)
    ratio = np.log(bent.predict(cases) / straight.predict(cases))
    assert np.median(np.abs(ratio)) < 0.01


def test_it_is_an_estimator(cases: list[PublishedCase]) -> None:
    model = EfficiencyModel(noise=0.2)
    assert clone(model).get_params() == model.get_params() == {"noise": 0.2, "start": None}
    few = cases[:FEW]
    seconds = np.array([case.row.seconds for case in few])
    again = [clone(model).fit(few, seconds).terms_ for _ in range(2)]
    assert again[0] == again[1]


def test_what_ships_is_what_the_fit_says(assessed: Assessment) -> None:
    shipped = shipped_efficiencies()
    assert shipped.terms.keys() == assessed.model.terms_.keys()
    for name, value in assessed.model.terms_.items():
        assert shipped.terms[name] == pytest.approx(value, abs=0.02), name
    assert set(shipped.spreads) == set(assessed.classes.tolist())


def test_what_is_written_is_what_is_read() -> None:
    import tomllib

    shipped = shipped_efficiencies()
    text = spelled(shipped)
    assert text.startswith(HEADER)
    assert Efficiencies.model_validate(tomllib.loads(text)) == shipped
    assert spelled(Efficiencies.model_validate(tomllib.loads(text))) == text


LIMITS = {
    "eager": 15.0,
    "compiled": 19.5,
    "vendor": 11.5,
    "float32": 16.5,
    "quantised compiled": 20.0,
    "decode": 6.5,
}
"""Mean absolute error in %, of estimates that did not see the device."""


@pytest.mark.parametrize("name", LIMITS)
def test_a_device_that_was_left_out_is_estimated(assessed: Assessment, name: str) -> None:
    among = assessed.classes == name
    left_out = ErrorSummary.of(assessed.errors["device"][among])
    fitted = ErrorSummary.of(assessed.errors["fitted"][among])
    assert left_out.count >= 20
    assert fitted.mape < 10
    assert left_out.mape < LIMITS[name]
    assert abs(left_out.bias) < 0.2


def test_four_of_five_measurements_of_a_device_that_was_left_out_are_in_their_interval(assessed: Assessment) -> None:
    inside = np.abs(assessed.errors["device"]) <= Z80 * assessed.log_sds("device")
    assert 0.75 < inside.mean() < 0.92
    for name in LIMITS:
        assert inside[assessed.classes == name].mean() > 0.7, name
    sources = assessed.groups("source")
    of_sources = [inside[sources == source].mean() for source in np.unique(sources)]
    assert 0.7 < np.mean(of_sources) < 0.95


def test_groups_are_left_out_whole(assessed: Assessment) -> None:
    assert set(SPLITS) == {"source", "device", "generation", "model"}
    slices = {
        case.row.hardware
        for case, group in zip(assessed.cases, assessed.groups("device"), strict=True)
        if group == "h100-pcie"
    }
    assert {"h100-pcie", "h100-pcie-mig-1g"} <= slices
    elsewhere = assessed.measured_elsewhere
    for case, name in zip(np.array(assessed.cases, dtype=object)[elsewhere], assessed.classes[elsewhere], strict=True):
        others = [of.row for of in assessed.cases if error_class(of.setting) == name]
        others = [row for row in others if row.repository != case.row.repository]
        assert any(row.hardware.partition("-mig-")[0] == case.row.hardware.partition("-mig-")[0] for row in others)
        assert any(row.model == case.row.model for row in others)
