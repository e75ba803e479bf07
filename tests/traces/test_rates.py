"""Rates and percentages as people write them."""

from __future__ import annotations

import pytest

from traces.errors import BadInput
from traces.rates import parse_percent, parse_rate


@pytest.mark.parametrize(
    ("text", "rate"), [("3", 3.0), ("3/s", 3.0), (" 30 / min ", 0.5), ("500/h", 500 / 3600), ("86400/day", 1.0)]
)
def test_a_rate(text: str, rate: float) -> None:
    assert parse_rate(text, "--rate") == pytest.approx(rate, rel=1e-15)


@pytest.mark.parametrize(
    "text", ["", "/h", "500/", "500/year", "-1/s", "0", "nan", "inf/h", "1e9", "five/s", "9" * 400 + "/h"]
)
def test_no_rate(text: str) -> None:
    with pytest.raises(BadInput, match="--rate is"):
        parse_rate(text, "--rate")


@pytest.mark.parametrize(
    ("text", "share"), [("20%", 0.2), (" 12.5 % ", 0.125), ("0.2", 0.2), ("0", 0.0), ("1000%", 10.0)]
)
def test_a_percentage(text: str, share: float) -> None:
    assert parse_percent(text, "--headroom") == pytest.approx(share, rel=1e-15)


@pytest.mark.parametrize("text", ["", "%", "-1%", "20", "20%%", "20% more", "nan", "inf%", "some", "1001%", "9" * 400])
def test_no_percentage(text: str) -> None:
    with pytest.raises(BadInput, match=r"--headroom is .*expected a number of 0 to 1,000 % like 20%"):
        parse_percent(text, "--headroom")
