"""When parallelism pays, and when batching does."""

from __future__ import annotations

import pytest

from predictors.costs import Batch, CostModel
from predictors.paying import BOTH, LATENCY, THROUGHPUT, batches_up_to, paying
from traces.request import Request

ONE = Request("one", 0.0, 512, 512, 10, model="m", guidance_scale=1.0)


class Launched(CostModel):
    """A step takes a start that batches share, and its work, which devices share but for a part."""

    def step_s(self, stage: str, batch: Batch) -> float:
        images = sum([count for _, count in batch.composition])
        if stage != "denoise":
            return 0.1 * images
        return 0.2 + images * (0.1 + 0.7 / (batch.devices or 1))


def test_the_most_devices_are_fastest_and_one_with_a_full_batch_makes_most() -> None:
    rows = {(row.devices, row.images): row for row in paying(Launched(), ONE, (1, 2, 4), (1, 4))}
    assert rows[4, 1].best_for == LATENCY
    assert rows[1, 4].best_for == THROUGHPUT
    assert [row.best_for for row in rows.values()].count("") == 4
    assert rows[2, 1].latency_s == pytest.approx(0.1 + 10 * 0.65 + 0.1)
    assert rows[2, 4].images_per_s == pytest.approx(4 / (0.4 + 2 * 10 * (0.2 + 4 * 0.45) + 0.4))  # one decodes


def test_what_nothing_beats_is_best_for_both() -> None:
    (row,) = paying(Launched(), ONE, (1,), (1,))
    assert (row.best_for, row.parallel) == (BOTH, "")


def test_batches_double_as_far_as_they_fit() -> None:
    assert [batches_up_to(most) for most in (0, 1, 3, 8, 100)] == [(1,), (1,), (1, 2), (1, 2, 4, 8), (1, 2, 4, 8)]
