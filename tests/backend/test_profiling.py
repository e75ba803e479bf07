"""Measuring a model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from backend.profiling import default_sizes, measure_profile  # noqa: E402
from policies.caching import Interval  # noqa: E402
from predictors.profile import Profile  # noqa: E402
from predictors.table import LatencyTable  # noqa: E402
from traces.errors import BadInput  # noqa: E402
from traces.geometry import GEOMETRIES, geometry_from_json  # noqa: E402

torch.set_num_threads(1)


def test_a_profile_is_measured_saved_and_fitted(model_folder: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    profile = measure_profile(
        str(model_folder),
        sizes=[(16, 16, 1), (32, 32, 1), (64, 64, 1)],
        max_batch=2,
        repeats=2,
        progress=lambda done, planned: told.append((done, planned)),
    )
    assert len(profile.frame) == 3 * 2 * 2 * 3  # sizes, batches, rounds, stages
    assert told[-1] == (12, 12)
    path = tmp_path / "p.parquet"
    profile.save(path)
    loaded = Profile.load(path)
    geometry = geometry_from_json(loaded.metadata["geometry"])
    table = LatencyTable.fit(loaded, "tiny-sdxl", geometry=geometry)
    small, large = (((side, side, 1), 1) for side in (16, 64))
    assert 0 < table.seconds("denoise", (small,)) < table.seconds("denoise", (large,))


def test_mixes_and_a_cache_are_measured(model_folder: Path) -> None:
    sizes = [(16, 16, 1), (16, 32, 1)]
    profile = measure_profile(
        str(model_folder),
        sizes=sizes,
        max_batch=2,
        repeats=1,
        mode="patched",
        mixes=3,
        caching=Interval(2),
        cache_patch=0,
    )
    frame = profile.frame
    assert set(frame["executor"]) == {"patched"}
    assert "1@16x16+1@16x32" in set(frame["composition"])
    plain, cached = frame[~frame["cached"]], frame[frame["cached"]]
    assert (plain["computed"] == 1).all()
    assert set(cached["stage"]) == {"denoise"}
    one = cached[cached["composition"] == "1@16x16"]["computed"]
    assert sorted(set(one)) == [0.01, 1.0]  # every second step computes nothing
    assert len(one) == 12
    weights = json.loads(profile.metadata["block_weights"])
    assert len(weights) == 5
    assert sum(weights) == pytest.approx(1, abs=1e-3)
    table = LatencyTable.fit(profile, "tiny-sdxl", "patched", geometry=geometry_from_json(profile.metadata["geometry"]))
    batch = (((16, 16, 1), 1), ((16, 32, 1), 1))
    assert 0 < table.seconds("denoise", batch, 1.0, 0.01) < table.seconds("denoise", batch, 1.0, 1.0)


def test_a_size_the_model_cannot_make_is_said(model_folder: Path) -> None:
    with pytest.raises(BadInput, match="height 15 is not a multiple of 4"):
        measure_profile(str(model_folder), sizes=[(15, 16, 1)])


def test_default_sizes_surround_the_native_one_and_can_be_made() -> None:
    for geometry in GEOMETRIES.values():
        sizes = default_sizes(geometry)
        frames = 1 if geometry.frame_factor == 1 else 1 + 2 * geometry.frame_factor
        assert (*geometry.native_size, frames) in sizes
        assert all(h % geometry.size_multiple == w % geometry.size_multiple == 0 for h, w, _ in sizes)
