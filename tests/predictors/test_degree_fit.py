"""What is fitted to rows of several devices, and what it is worth on configurations that were left out."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files

import numpy as np
import pandas as pd
import pytest

from predictors.costs import Batch, CostModel
from predictors.degree_fit import (
    PRIORS,
    DegreeAssessment,
    SharedPoint,
    _Together,
    assess_degrees,
    degree_cases,
    fit_degrees,
    paying_degree,
    rates_of_rows,
)
from predictors.degrees import DegreeRates, ParallelCosts, SharedStep, Sharing, link_at, shipped_degree_rates
from predictors.efficiency import Prior
from predictors.link import Link
from predictors.published import shipped_published
from tools.degrees import spelled
from traces.composition import composition_of, format_composition
from traces.geometry import ModelGeometry

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


def test_a_fit_sees_of_all_points_what_each_says_alone(assessed: DegreeAssessment) -> None:
    points = [case.point for case in assessed.cases]
    rates = TRUE.model_copy(update={"latency_s": 3e-5, "divide_s": 0.01})
    for each in (rates, shipped_degree_rates(), *assessed.left_out):
        assert _Together.of(points).log_errors(each) == pytest.approx([point.log_error(each) for point in points])


def test_what_ships_is_what_the_fit_says(assessed: DegreeAssessment) -> None:
    rates = fit_degrees([case.point for case in assessed.cases], log_sd=assessed.log_sd)
    shipped = files("profiles").joinpath("degrees.toml").read_text()
    assert spelled(rates).strip() in shipped


def test_left_out_configurations_are_predicted(assessed: DegreeAssessment) -> None:
    """The limits of the project: 15 % of the speed-up, 20 % of the seconds, nine of ten degrees that stop paying."""
    assert len(set(assessed.configurations)) >= 14
    assert np.mean(np.abs(np.expm1(-assessed.errors))) < 0.15
    estimated = assessed.errors_where([case.estimated_s for case in assessed.cases])
    assert np.mean(np.abs(np.expm1(estimated))) < 0.20
    measured, predicted = (assessed.stops(each) for each in (False, True))
    assert sum(measured[each] == predicted[each] for each in measured) >= 0.9 * len(measured)


def test_a_configuration_has_no_say_in_its_own_rates(assessed: DegreeAssessment) -> None:
    assert np.array_equal(assessed.errors, assessed.errors_where([case.one.seconds for case in assessed.cases]))
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


def measured_on(degrees: tuple[int, ...], seconds: Callable[[float, int], float]) -> pd.DataFrame:
    """Rows of a model on so many devices: seconds by those of one and the degree."""
    table = PerPicture()
    rows = []
    for degree in degrees:
        for images in (1, 2, 4):
            composition = composition_of([((64, 64, 1), images)])
            one_s = table.step_s("denoise", Batch("mine", composition))
            for stage, took in (("denoise", 5 * seconds(one_s, degree)), ("encode", 77.0)):
                rows.append(("mine", stage, format_composition(composition), degree, 5, took))
    frame = pd.DataFrame(rows, columns=["model", "stage", "composition", "devices", "steps", "seconds"])
    return frame.assign(guided=False, computed=1.0, cached=False)


class PerPicture(CostModel):
    """A second a picture."""

    def step_s(self, stage: str, batch: Batch) -> float:
        return float(sum(images for _, images in batch.composition))


UNKNOWN = Sharing(None, ModelGeometry("mine", 8, 4, 8, (64, 64)))
"""A model whose shape was not counted."""


def test_a_degree_that_a_profile_has_is_what_it_measured() -> None:
    def took(one_s: float, degree: int) -> float:
        return 0.2 + one_s * (0.1 + 0.9 / degree) + 0.1 * (degree == 4)

    known = shipped_degree_rates()
    rates = rates_of_rows(measured_on((2, 4), took), UNKNOWN, PerPicture(), 32e9, known)
    costs = ParallelCosts(PerPicture(), UNKNOWN, 8, link=Link(), rates=rates)
    assert costs.degrees("mine") == (1, 2, 4)  # what was measured: nothing else is known of it
    batch = Batch("mine", composition_of([((64, 64, 1), 2)]))
    for degree in (2, 4):
        assert costs.step_s("denoise", batch._replace(devices=degree)) == pytest.approx(took(2.0, degree), rel=0.05)
        assert rates.log_sd_of(degree) < known.log_sd
    assert rates.log_sd_of(8) == known.log_sd
    assert costs.step_s("denoise", batch._replace(devices=1)) == 2.0


def test_rows_that_say_nothing_leave_what_was_known() -> None:
    known = shipped_degree_rates()
    rows = measured_on((2,), lambda one_s, degree: one_s)
    assert rates_of_rows(rows[rows["stage"] != "denoise"], UNKNOWN, PerPicture(), 32e9, known) is known
