"""Measuring a model."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from predictors.costs import Batch

torch = pytest.importorskip("torch")

from backend.checkpoints import weights_bytes  # noqa: E402
from backend.executor import Executor  # noqa: E402
from backend.kernels.choice import Kernels  # noqa: E402
from backend.loading import geometry_of_pipeline, load_pipeline  # noqa: E402
from backend.profiling import default_sizes, measure, measure_profile  # noqa: E402
from policies.caching import FixedInterval  # noqa: E402
from predictors.latency_model import LatencyModel  # noqa: E402
from predictors.loading import LoadRates  # noqa: E402
from predictors.profile import Profile  # noqa: E402
from tests.backend.kernels.test_graphs import Replayer  # noqa: E402
from traces.errors import BadInput  # noqa: E402
from traces.geometry import GEOMETRIES, geometry_from_json  # noqa: E402

torch.set_num_threads(1)


@pytest.fixture
def undisturbed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is measured is this thread's own work: that of a machine that stalls could not be compared."""
    for module in ("profiling", "load_seconds"):
        monkeypatch.setattr(f"backend.{module}.time", SimpleNamespace(perf_counter=time.thread_time))


@pytest.mark.usefixtures("undisturbed")
def test_a_profile_is_measured_saved_and_fitted(model_folder: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    profile = measure_profile(
        str(model_folder),
        sizes=[(16, 16, 1), (64, 64, 1)],
        max_batch=2,
        repeats=2,
        progress=lambda done, planned: told.append((done, planned)),
    )
    assert len(profile.frame) == 2 * 2 * 2 * 3  # sizes, batches, rounds, stages
    assert told[-1] == (8, 8)
    loads = LoadRates.of(profile.metadata["loads"])
    gb = weights_bytes(model_folder, "float32") / 1e9
    disk_s, host_s = (rate.s + gb / rate.gb_per_s for rate in loads)
    assert 0 < host_s < disk_s < 60
    path = tmp_path / "p.parquet"
    profile.save(path)
    loaded = Profile.load(path)
    geometry = geometry_from_json(loaded.metadata["geometry"])
    table = LatencyModel.fit(loaded, "tiny-sdxl", geometry=geometry)
    small, large = (((side, side, 1), 1) for side in (16, 64))
    assert 0 < table.step_s("denoise", Batch("sd3", (small,))) < table.step_s("denoise", Batch("sd3", (large,)))


@pytest.mark.usefixtures("undisturbed", "loads_not_measured")
def test_mixes_and_a_cache_are_measured(model_folder: Path) -> None:
    sizes = [(16, 16, 1), (16, 32, 1)]
    profile = measure_profile(
        str(model_folder),
        sizes=sizes,
        max_batch=2,
        repeats=1,
        mode="patched",
        mixes=3,
        caching=FixedInterval(2),
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
    table = LatencyModel.fit(profile, "tiny-sdxl", "patched", geometry=geometry_from_json(profile.metadata["geometry"]))
    batch = (((16, 16, 1), 1), ((16, 32, 1), 1))
    assert (
        0
        < table.step_s("denoise", Batch("sd3", batch, 1.0, computed=0.01))
        < table.step_s("denoise", Batch("sd3", batch, 1.0, computed=1.0))
    )


def test_a_size_the_model_cannot_make_is_said(model_folder: Path) -> None:
    with pytest.raises(BadInput, match="height 15 is not a multiple of 4"):
        measure_profile(str(model_folder), sizes=[(15, 16, 1)])


def test_default_sizes_surround_the_native_one_and_can_be_made() -> None:
    for geometry in GEOMETRIES.values():
        sizes = default_sizes(geometry)
        frames = 1 if geometry.frame_factor == 1 else 1 + 2 * geometry.frame_factor
        assert (*geometry.native_size, frames) in sizes
        assert all(h % geometry.size_multiple == w % geometry.size_multiple == 0 for h, w, _ in sizes)


def test_executors_in_memory_are_measured_on_a_plan_of_ones_own(model_folder: Path) -> None:
    executor = Executor(load_pipeline(str(model_folder)), "patched", patch_floor=1, kernels="reference")
    geometry = geometry_of_pipeline(executor.pipeline, "mine")
    plan = [(((16, 16, 1), 1),), (((16, 16, 1), 1), ((16, 32, 1), 2))]
    profile = measure(executor, geometry, plan, repeats=2)
    assert profile.models == ("mine",)
    assert set(profile.frame["composition"]) == {"1@16x16", "1@16x16+2@16x32"}
    assert len(profile.frame) == 2 * 2 * 3  # batches, rounds, stages
    assert profile.metadata["patch_floor"] == "1"
    assert "kernels" not in profile.metadata  # a CPU has no choice
    assert executor.resident == []


def test_recording_is_over_before_anything_is_measured(model_folder: Path) -> None:
    executor = Executor(load_pipeline(str(model_folder)))
    executor.kernels = Kernels(graphs=True)
    executor.recorder._capture = capture = Replayer()
    plan = [(((side, side, 1), 1),) for side in (16, 32)]
    measured: list[int] = []
    measure(
        executor,
        geometry_of_pipeline(executor.pipeline, "mine"),
        plan,
        repeats=1,
        progress=lambda done, planned: measured.append(capture.recorded),
    )
    assert measured == [2, 2]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device: it has a driver, and kernels to choose")
def test_a_profile_of_a_cuda_device_says_what_ran(model_folder: Path) -> None:
    profile = measure_profile(str(model_folder), "cuda", sizes=[(16, 16, 1)], max_batch=1, repeats=1, mode="patched")
    assert profile.metadata["cuda"] == torch.version.cuda
    assert profile.metadata["kernels"] == "fused, graphs"
    assert profile.hardware == torch.cuda.get_device_name("cuda")
