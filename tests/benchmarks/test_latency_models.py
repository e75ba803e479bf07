"""The benchmark of latency models: what its goals mean, and that a launch-bound model meets them."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.latency_models import Row, launch_bound, measured


def test_a_launch_bound_model_meets_every_goal() -> None:
    (row,) = measured("made up", launch_bound(), quick=True)
    assert row.chosen in ("floor", "floor-gaussian")
    assert abs(row.singles) < 0.03
    assert row.compositions < 1.2 * row.noise
    assert row.sizes < 1.5 * row.noise
    assert not [cell for cell in row.cells() if cell.endswith("!")]


def test_a_goal_that_is_missed_is_marked() -> None:
    good = Row(
        name="a",
        chosen="floor",
        noise=0.02,
        attainable=0.018,
        deviation=0.03,
        singles=-0.04,
        compositions=0.02,
        sizes=0.03,
        repeats=0.02,
        median=0.02,
    )
    assert good.cells()[2:7] == ["2.0 %", "-4.0 %", "1.00x", "1.50x", "0.90x"]
    assert replace(good, singles=0.06).cells()[3] == "+6.0 %!"
    assert replace(good, singles=0.06, deviation=0.07).cells()[3] == "+6.0 %"
    assert replace(good, compositions=0.03).cells()[4] == "1.50x!"
    assert replace(good, sizes=0.04).cells()[5] == "2.00x!"
    unknown = float("nan")
    nothing = replace(good, noise=unknown, attainable=unknown, deviation=unknown, median=unknown)
    assert nothing.cells()[4:] == ["2.0 %", "3.0 %", "-", "-"]
