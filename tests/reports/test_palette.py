"""Colours that everybody can tell apart and read, computed."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from skimage.color import deltaE_ciede2000, rgb2lab

from reports.palette import BLUE, DARK, DATA, GREEN, LIGHT, PURPLE, VERMILLION

VISIONS = {
    "all colours": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}
"""On linear RGB, from Machado, Oliveira and Fernandes, A Physiologically-based Model for Simulation of Color Vision
Deficiency (2009), severity 1."""

TEXTS = [
    (text, ground)
    for text in ("ink", "muted", "accent", "caution")
    for ground in ("ground", "panel", "caution-panel")
    if (text, ground) != ("accent", "caution-panel")
]


def linear(colour: str) -> np.ndarray:
    """Linear RGB of ``#rrggbb``."""
    value = np.array([int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)])
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    """WCAG 2's contrast ratio."""
    darker, lighter = sorted(float(linear(colour) @ [0.2126, 0.7152, 0.0722]) for colour in (one, other))
    return (lighter + 0.05) / (darker + 0.05)


def difference(one: str, other: str, vision: object) -> float:
    """CIEDE2000 between two colours as they are seen."""
    seen = [np.clip(np.asarray(vision) @ linear(colour), 0, 1) for colour in (one, other)]
    coded = [np.where(rgb <= 0.0031308, 12.92 * rgb, 1.055 * rgb ** (1 / 2.4) - 0.055) for rgb in seen]
    return float(deltaE_ciede2000(*(rgb2lab(rgb.reshape(1, 1, 3)) for rgb in coded))[0, 0])


def test_contrast_of_black_on_white():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)


@pytest.mark.parametrize("scheme", [LIGHT, DARK], ids=["light", "dark"])
def test_text_is_readable(scheme):
    weak = {pair: contrast(scheme[pair[0]], scheme[pair[1]]) for pair in TEXTS}
    assert {pair: ratio for pair, ratio in weak.items() if ratio < 4.5} == {}


@pytest.mark.parametrize("scheme", [LIGHT, DARK], ids=["light", "dark"])
def test_marks_stand_out_from_both_grounds(scheme):
    assert min(contrast(colour, scheme["ground"]) for colour in (BLUE, VERMILLION, GREEN, PURPLE)) >= 3
    assert min(contrast(colour, scheme["ground"]) for colour in DATA) >= 2


@pytest.mark.parametrize("vision", list(VISIONS))
def test_colours_of_data_are_told_apart(vision):
    close = {pair: difference(*pair, VISIONS[vision]) for pair in combinations(DATA, 2)}
    assert {pair: apart for pair, apart in close.items() if apart < 10} == {}


def test_red_and_green_would_not_pass():
    assert difference("#8f8f00", "#b47600", VISIONS["deuteranopia"]) < 10
