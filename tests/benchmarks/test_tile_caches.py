"""What the comparison of tile caches reads off its runs."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("torch")

from benchmarks.tile_caches import Gains, at_psnr, count_gains, reused_shares
from policies.caching import Signals

NAMES = ["policy", "reuse", "fewer", "psnr_db", "least_psnr_db"]


def test_curves_are_read_between_measured_points() -> None:
    rows = [
        ("threshold:threshold=1", "output", 2.0, 30.0, 20.0),
        ("threshold:threshold=2", "output", 3.0, 20.0, 10.0),
        ("interval:every=2", "output", 1.5, 40.0, 40.0),
        ("threshold:threshold=1", "residual", 9.0, 30.0, 30.0),
    ]
    summary = pd.DataFrame(rows, columns=np.array(NAMES))
    assert at_psnr(summary, "threshold", "output", 45.0) == 1.0
    assert at_psnr(summary, "threshold", "output", 30.0) == 2.0
    assert at_psnr(summary, "threshold", "output", 25.0) == 2.5
    assert at_psnr(summary, "threshold", "output", 15.0, "least_psnr_db") == 2.5
    assert np.isnan(at_psnr(summary, "threshold", "output", 15.0))
    assert np.isnan(at_psnr(summary, "interval", "output", 30.0))
    assert np.isnan(at_psnr(summary, "forest", "output", 30.0))


def step(gains: list[float], computed: list[bool], unit: tuple[int, ...] = (0, 1)) -> tuple[Signals, np.ndarray]:
    n = len(unit)
    nothing = np.zeros(n)
    signals = Signals(
        ("r",), np.zeros(n, int), np.array(unit), 0, 1, np.zeros(n, int), np.full(n, 9), nothing, nothing,
        nothing, nothing, np.array(gains), np.array([float(gain > 0) for gain in gains]),
    )  # fmt: skip
    return signals, np.array(computed)


def test_collapsed_gains_are_counted() -> None:
    sound = [step([0, 0], [True, True]), step([2, 3], [True, False]), step([2.5, 3], [False, True])]
    assert count_gains(sound) == Gains(4, 0, 0)
    collapsed = [*sound, step([1.0, 3.5], [False, False]), step([1.0, 1.0], [False, False])]
    assert count_gains(collapsed) == Gains(8, 3, 2)


def test_reuse_is_counted_by_tile_where_it_is_there() -> None:
    log = [step([2, 2], [True, False]), step([2], [False], unit=(1,)), step([2, 2], [False, True])]
    assert reused_shares(log) == {0: 0.5, 1: pytest.approx(2 / 3)}
