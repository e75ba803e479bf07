"""The comparison of caching policies runs, and what it says is true of the simplest ones."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from benchmarks.caches import LARGEST_PSNR, compare, plot, summarise  # noqa: E402

torch.set_num_threads(1)


def test_less_reuse_is_nearer_to_the_uncached_picture() -> None:
    policies = ["interval:every=2", "interval:every=4", "first-block:threshold=0"]
    summary = summarise(compare("tiny-image", policies, [0], prompts=1, sizes="64x64:1", steps=8)).set_index("policy")
    assert summary.loc["interval:every=2", "reuse"] == pytest.approx(2.5 / 8, abs=0.1)
    assert summary.loc["interval:every=4", "reuse"] > summary.loc["interval:every=2", "reuse"]
    assert summary.loc["interval:every=4", "psnr_db"] < summary.loc["interval:every=2", "psnr_db"]
    exact = summary.loc["first-block:threshold=0"]
    assert (exact["reuse"], exact["psnr_db"], exact["ssim"]) == (0, LARGEST_PSNR, pytest.approx(1))
    assert len(plot(summary.reset_index()).data) == 2
