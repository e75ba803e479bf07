"""Online correction: it converges, shrinks, forgets outliers, and answers the same for the same observations."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

from predictors.costs import Batch
from predictors.latency_model import LatencyModel
from predictors.online import OnlinePredictor
from predictors.profile import Profile
from traces.composition import parse
from traces.request import Request

SMALL, LARGE, OTHER = parse("2@512x512"), parse("1@1024x1024"), parse("3@512x512")


@pytest.fixture(scope="module")
def table(made_up: Profile) -> LatencyModel:
    return LatencyModel.fit(made_up, "sd3")


def learn(predictor: OnlinePredictor, composition: object, factor: float, launches: int) -> None:
    """Launches that take ``factor`` times what the table says."""
    for _ in range(launches):
        answered = predictor.step_s("denoise", Batch("sd3", composition))  # type: ignore[arg-type]
        truth = factor * predictor.table.step_s("denoise", Batch("sd3", composition))  # type: ignore[arg-type]
        predictor.observe("denoise", Batch("sd3", composition), answered, truth, 10)  # type: ignore[arg-type]


def factor(predictor: OnlinePredictor, composition: object, stage: str = "denoise") -> float:
    answer = predictor.step_s(stage, Batch("sd3", composition))  # type: ignore[arg-type]
    return answer / predictor.table.step_s(stage, Batch("sd3", composition))  # type: ignore[arg-type]


def test_before_any_launch_it_is_the_table(table: LatencyModel) -> None:
    predictor = OnlinePredictor(table)
    request = Request("r", 0, 512, 512, 7)
    assert predictor.step_s("denoise", Batch("sd3", SMALL)) == table.step_s("denoise", Batch("sd3", SMALL))
    assert predictor.standalone_s(request) == table.standalone_s(request)


def test_what_holds_for_a_stage_is_believed_of_compositions_never_seen(table: LatencyModel) -> None:
    predictor = OnlinePredictor(table)
    learn(predictor, SMALL, 1.5, 2)
    early = factor(predictor, LARGE)
    assert 1.05 < early < 1.35
    learn(predictor, SMALL, 1.5, 60)
    assert factor(predictor, LARGE) == pytest.approx(1.5, rel=0.05)
    assert factor(predictor, LARGE, "decode") == 1.0
    request = Request("r", 0, 1024, 1024, 10)
    assert predictor.standalone_s(request) == pytest.approx(1.45 * table.standalone_s(request), rel=0.05)


def test_a_composition_departs_from_its_stage(table: LatencyModel) -> None:
    predictor = OnlinePredictor(table)
    for _ in range(60):
        learn(predictor, SMALL, 1.2, 1)
        learn(predictor, LARGE, 0.9, 1)
    assert factor(predictor, SMALL) == pytest.approx(1.2, rel=0.03)
    assert factor(predictor, LARGE) == pytest.approx(0.9, rel=0.03)
    assert 0.95 < factor(predictor, OTHER) < 1.15


def test_a_stall_moves_it_little_and_a_lasting_change_wholly(table: LatencyModel) -> None:
    predictor = OnlinePredictor(table)
    learn(predictor, SMALL, 1.0, 20)
    learn(predictor, SMALL, 100.0, 1)
    assert factor(predictor, SMALL) < 1.04
    for slowdown in (5.0, 1.0):
        learn(predictor, SMALL, slowdown, 12)
        learn(predictor, LARGE, slowdown, 3)
        for composition in (SMALL, LARGE, OTHER):
            assert factor(predictor, composition) == pytest.approx(slowdown, rel=0.3)
        learn(predictor, SMALL, slowdown, 300)
        assert factor(predictor, SMALL) == pytest.approx(slowdown, rel=0.02)


def test_noise_alone_changes_little(table: LatencyModel) -> None:
    predictor = OnlinePredictor(table)
    rng = np.random.default_rng(0)
    for noise in rng.normal(1, 0.05, 300):
        learn(predictor, SMALL, float(noise), 1)
    assert factor(predictor, SMALL) == pytest.approx(1.0, abs=0.02)


def test_an_error_stays_an_error(table: LatencyModel) -> None:
    predictor = OnlinePredictor(table, error=0.2)
    assert factor(predictor, SMALL) == pytest.approx(1.2)
    learn(predictor, SMALL, 1.5, 100)
    assert factor(predictor, SMALL) == pytest.approx(1.2 * 1.5, rel=0.03)


def test_a_stage_that_costs_nothing_teaches_nothing(table: LatencyModel) -> None:
    predictor = OnlinePredictor(table)
    predictor.observe("decode", Batch("sd3", SMALL), 0.0, 0.1, 1)
    predictor.observe("decode", Batch("sd3", SMALL), 0.1, 0.0, 1)
    assert factor(predictor, SMALL, "decode") == 1.0


def test_copies_and_equals_learn_the_same_and_never_share(table: LatencyModel) -> None:
    first = OnlinePredictor(table)
    learn(first, SMALL, 1.3, 3)
    copied, pickled, fresh = copy.deepcopy(first), pickle.loads(pickle.dumps(first)), OnlinePredictor(table)
    learn(fresh, SMALL, 1.3, 3)
    for predictor in (first, copied, pickled, fresh):
        learn(predictor, SMALL, 0.7, 5)
    answers = {predictor.step_s("denoise", Batch("sd3", SMALL)) for predictor in (first, copied, pickled, fresh)}
    assert len(answers) == 1
    assert OnlinePredictor(table).step_s("denoise", Batch("sd3", SMALL)) == table.step_s("denoise", Batch("sd3", SMALL))
