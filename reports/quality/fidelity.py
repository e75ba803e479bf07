"""How close pictures are to a reference, usually the same request without tiles or without a cache."""

from __future__ import annotations

import math

import numpy as np

from reports.quality.frames import Frames

SSIM_WINDOW = 7
"""Pixels a side of the window that local means and variances are taken over."""


def psnr_db(frames: Frames, reference: Frames) -> float:
    """Peak signal-to-noise ratio, ``-10 log10(mean (a - b)^2)`` decibels, over all frames; infinite where equal."""
    error = float(np.mean((frames.astype(np.float64) - reference) ** 2))
    return -10 * math.log10(error) if error > 0 else math.inf


def ssim(frames: Frames, reference: Frames) -> float:
    """Structural similarity, -1..1, the mean over channels and frames; NaN for sides below `SSIM_WINDOW`.

    Source: Wang, Bovik, Sheikh and Simoncelli, "Image quality assessment: from error visibility to structural
    similarity", 2004, with the uniform window that is scikit-image's default.
    """
    from skimage.metrics import structural_similarity

    if min(frames.shape[1:3]) < SSIM_WINDOW:
        return math.nan
    pairs = zip(frames, reference, strict=True)
    scores = [structural_similarity(a, b, win_size=SSIM_WINDOW, channel_axis=-1, data_range=1.0) for a, b in pairs]
    return float(np.mean(scores))


def largest_difference(frames: Frames, reference: Frames) -> float:
    """The largest ``|a - b|`` of a channel of a pixel: zero only for equal pictures."""
    return float(np.abs(frames - reference).max())
