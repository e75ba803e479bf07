"""What is fitted to rows of several devices, and what it is worth on configurations that were left out."""

from __future__ import annotations

from importlib.resources import files

import numpy as np
import pytest

from predictors.degree_fit import (
    PRIORS,
    DegreeAssessment,
    SharedPoint,
    assess_degrees,
    degree_cases,
    fit_degrees,
    paying_degree,
)
from predictors.degrees import DegreeRates, SharedStep, link_at
from predictors.efficiency import Prior
from predictors.published import shipped_published
from tools.degrees import spelled

TRUE = DegreeRates(unshared=0.06, exchange_starts=12.0, link_share={"direct": 0.4, "host": 0.8}, log_sd=0.0)
LOOSE = {name: Prior(prior.mean, 100 * prior.sd) for name, prior in PRIORS.items()}


@pytest.fixture(scope="module")
def assessed() -> DegreeAssessment:
    return assess_degrees(degree_cases(shipped_published()))


def made_up(devices: int, one_s: float, link: float, moved_bytes: float) -> SharedPoint:
    step = SharedStep(1 / devices, kernels=2000, start_s=2e-5, exchanges=100, moved_bytes=moved_bytes)
    measured_s = 3.0 + 20 * TRUE.seconds(one_s, step, link_at(link, TRUE))
    return SharedPoint(one_s, step, link, steps=20, other_s=3.0, measured_s=measured_s)


def test_rates_that_made_measurements_are_found_again() -> None:
    points = [
        made_up(devices, one_s, link, moved)
        for devices in (2, 4, 8)
        for one_s in (0.05, 1.0, 20.0)
        for link, moved in ((450e9, 1e11 * one_s), (32e9, 1e10 * one_s))
    ]
    found = fit_degrees(points, LOOSE)
    assert found.unshared == pytest.approx(TRUE.unshared, rel=0.02)
    assert found.exchange_starts == pytest.approx(TRUE.exchange_starts, rel=0.02)
    assert dict(found.link_share) == pytest.approx(dict(TRUE.link_share), rel=0.02)
    assert max(abs(point.log_error(found)) for point in points) < 0.01


def test_what_ships_is_what_the_fit_says(assessed: DegreeAssessment) -> None:
    rates = fit_degrees([case.point for case in assessed.cases], log_sd=assessed.log_sd)
    shipped = files("profiles").joinpath("degrees.toml").read_text()
    assert spelled(rates).strip() in shipped


def test_left_out_configurations_are_predicted(assessed: DegreeAssessment) -> None:
    """The limits of the project: 15 % of the speed-up, 20 % of the seconds, nine of ten degrees that stop paying."""
    assert len(set(assessed.configurations)) >= 14
    assert np.mean(np.abs(np.expm1(-assessed.errors))) < 0.15
    assert np.mean(np.abs(np.expm1(assessed.estimated_errors))) < 0.20
    measured, predicted = (assessed.stops(each) for each in (False, True))
    assert sum(measured[each] == predicted[each] for each in measured) >= 0.9 * len(measured)


def test_a_configuration_has_no_say_in_its_own_rates(assessed: DegreeAssessment) -> None:
    by_configuration = dict(zip(assessed.configurations, assessed.left_out, strict=True))
    own = assessed.configurations[0]
    others = [case.point for case in assessed.cases if case.configuration != own]
    assert by_configuration[own] == fit_degrees(others)
    assert any(rates != by_configuration[own] for rates in assessed.left_out)


def test_a_degree_pays_that_saves_a_twentieth() -> None:
    assert paying_degree({1: 1.0, 2: 0.6, 4: 0.55, 8: 0.54}) == 4
    assert paying_degree({1: 1.0, 2: 0.98, 4: 0.5}) == 1


def test_one_devices_seconds_are_taken_as_they_are(assessed: DegreeAssessment) -> None:
    case = assessed.cases[0]
    point = case.point_where(7.0)
    assert point.other_s + point.steps * point.one_s == pytest.approx(7.0)
