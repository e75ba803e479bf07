"""The colours of every page: tokens of text and ground for light and dark, and colours of data that fit both.

Data colours are Okabe and Ito's, without their yellow and black, which vanish on one of the two grounds. Colour is
never alone: lines differ in dash, points in symbol, and what is good or bad is also said in words.
"""

from __future__ import annotations

LIGHT = {
    "ink": "#1f2328",
    "muted": "#57606a",
    "ground": "#ffffff",
    "panel": "#f5f7f9",
    "rule": "#d8dee4",
    "accent": "#00629b",
    "caution": "#8a4600",
    "caution-panel": "#fff7ea",
}
DARK = {
    "ink": "#e6e9ec",
    "muted": "#a3adb8",
    "ground": "#15191e",
    "panel": "#1e242b",
    "rule": "#38414b",
    "accent": "#6cb8ea",
    "caution": "#f0b05a",
    "caution-panel": "#2b2315",
}

BLUE, VERMILLION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
DATA = (BLUE, VERMILLION, GREEN, PURPLE, "#E69F00", "#56B4E9", "#6e6e6e")
"""Colours of data, in the order of use."""

DASHES = ("solid", "dash", "dot", "dashdot")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "pentagon", "star", "hexagon", "triangle-down")
