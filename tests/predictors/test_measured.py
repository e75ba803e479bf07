"""The range of what was measured."""

from __future__ import annotations

import pytest

from predictors.measured import MeasuredRange
from traces.composition import parse
from traces.errors import BadInput
from traces.geometry import geometry_of


def test_measurements_of_nothing_are_refused_instead_of_divided_by() -> None:
    with pytest.raises(BadInput, match="measured no size that 'tiny-image' can make"):
        MeasuredRange.of([parse("1@1x1")], geometry_of("tiny-image"))
