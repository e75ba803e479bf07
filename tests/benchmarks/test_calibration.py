"""The benchmark of rooflines fitted to few measurements."""

from __future__ import annotations

import numpy as np

from benchmarks.calibration import INTERVAL_ROWS, SHIPPED, Case, intervals, study
from predictors.profile import Profile
from predictors.shipped import find


def shipped() -> Profile:
    frame = Profile.load(find("cpu-1core")).frame
    return Profile(frame[~frame["cached"]])


def test_ten_measurements_are_better_than_none_at_every_size_held_out() -> None:
    case = Case(shipped(), "cpu-1core", "float32", *SHIPPED[1])
    splits = case.sizes()
    assert len(splits) > 1
    for _, train, test in splits:
        assert not set(train) & set(test)
        errors = case.held_out(train, test, 10, 2)
        assert errors.spread < errors.estimated
        assert errors.random <= errors.worst


def test_chosen_rows_span_the_range() -> None:
    case = Case(shipped(), "cpu-1core", "float32", *SHIPPED[1])
    every = np.arange(len(case.data.frame))
    chosen = case.tokens[case.spread(every, 10)]
    assert len(chosen) == 10
    assert (chosen.min(), chosen.max()) == (case.tokens.min(), case.tokens.max())


def test_a_study_has_a_line_for_every_question() -> None:
    lines = list(study(shipped(), "cpu-1core", "float32", SHIPPED[1:2], 10, 1))
    assert sum("compositions" in line for line in lines) == 2  # and its mean
    assert any("attention" in line and "us a kernel" in line for line in lines)


def test_intervals_narrow_with_rows_of_either_executor_and_are_wider_of_the_other() -> None:
    found = [line.split() for line in intervals(shipped(), "cpu-1core", "float32", ("tiny-image",), 2)]
    assert [(by, int(rows)) for _, by, rows, *_ in found] == [
        (r, n) for r in ("patched", "whole") for n in INTERVAL_ROWS
    ]
    ends = {(by, int(rows)): float(end) for _, by, rows, _, _, end in found}
    assert all(ends["whole", rows] > ends["patched", rows] for rows in INTERVAL_ROWS)
    assert all(0 <= float(inside) <= 100 for *_, inside, _ in found)
