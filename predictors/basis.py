"""How far to trust a figure."""

from __future__ import annotations

MEASURED, CALIBRATED, ESTIMATED = "MEASURED", "CALIBRATED", "ESTIMATED"
"""Fitted on measurements of this hardware and model; a roofline fitted to a few of them; a roofline from data sheets
alone."""
