"""Limits: what is inside, what they say, what pydantic makes of them."""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np
import pytest
from pydantic import BaseModel, Field, ValidationError

from traces.limits import DEVICES, NAME, PROMPT, Interval, Range, Share


class Section(BaseModel):
    mtbf_s: Interval | None = Field(None, description="mean time between failures")
    share: Share = 0.0
    devices: tuple[Annotated[int, DEVICES], ...] = (1,)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, True, -1, 11, "3", None, 2.5])
def test_a_range_holds_finite_numbers_of_its_kind_alone(value: object) -> None:
    assert not Range(0, 10, whole=True).holds(value)


def test_ends_may_be_left_out_and_a_column_is_asked_at_once() -> None:
    share = Range(0, 1, above=True)
    assert [share.holds(value) for value in (0, 0.5, 1)] == [False, True, True]
    assert share.mask(np.array([0.0, 0.5, 1.0, np.nan])).tolist() == [False, True, True, False]
    assert str(share) == "a number above 0 and at most 1"
    assert str(DEVICES) == "a whole number of 1 to 1,024 devices"


@pytest.mark.parametrize(
    ("given", "where"),
    [
        ({"mtbf_s": 1e-300}, "a number of 1 to 1,000,000,000 s"),
        ({"mtbf_s": math.inf}, "a number of 1 to 1,000,000,000 s"),
        ({"mtbf_s": "often"}, "a number of 1 to 1,000,000,000 s"),
        ({"share": math.nan}, "a number of 0 to 1"),
        ({"devices": [1, 10**400]}, "a whole number of 1 to 1,024 devices"),
        ({"devices": [True]}, "a whole number of 1 to 1,024 devices"),
    ],
)
def test_whatever_is_wrong_with_a_number_the_limits_are_said(given: dict[str, object], where: str) -> None:
    with pytest.raises(ValidationError, match=where):
        Section(**given)  # type: ignore[arg-type]
    assert Section(mtbf_s=3600, share=1, devices=(1, 8)).mtbf_s == 3600.0


@pytest.mark.parametrize("text", ["", "a\0", "a\x1b[2J", "a\nb", "\ud800", "x" * 301, "\u202egpj.exe"])
def test_names_hold_nothing_that_steers_a_terminal(text: str) -> None:
    assert not NAME.holds(text)
    assert NAME.holds("dossier é 日本 😀 [bold]")


def test_prompts_may_have_lines_but_no_nul() -> None:
    assert PROMPT.holds("a cat\r\n\tand a dog")
    assert not PROMPT.holds("a\0")
    assert not PROMPT.holds("\udfff")
