"""The benchmark of packing: half precision packed errs as the stock network does, with fewer kernels."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from benchmarks.gpu_suite.models import NARROW  # noqa: E402
from benchmarks.packing import IMAGES, error_of, measured, stages_beside, table_beside, table_of  # noqa: E402

torch.set_num_threads(1)


def test_packed_errs_as_the_stock_network_does_and_starts_fewer_kernels() -> None:
    row = measured("flux", NARROW["flux"], IMAGES[:3], rounds=1)
    assert 1e-4 < row["error_packed"] < 2 * row["error_alone"] < 0.1
    assert row["kernels_packed"] < 0.7 * row["kernels_alone"]
    assert row["notes"] == []
    assert table_of([row]).row_count == 1


def test_an_error_is_of_the_worst_image() -> None:
    exact = [torch.tensor([0.0, 2.0], dtype=torch.float64)] * 2
    near, far = torch.tensor([0.0, 2.0]), torch.tensor([1.0, 3.0])
    assert error_of([near, near], exact) == 0
    assert error_of([near, far], exact) == pytest.approx(1 / 2**0.5)


def test_stages_beside_denoising_are_launched_both_ways() -> None:
    rows = stages_beside("tiny-image", 32, 1, 2, rounds=1)
    assert [row["stage"] for row in rows] == ["encode", "denoise", "decode"]
    assert all(0 < row["lowest"] <= row["ratio"] <= row["highest"] for row in rows)
    assert table_beside(rows).row_count == 3
