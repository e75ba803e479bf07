"""What a scenario takes where it says nothing: what is usual on the device, and what its profile was measured with."""

from __future__ import annotations

from pathlib import Path

import pytest

from predictors.profile import Profile
from tests.tilecast.test_setup import write_profile
from tilecast.scenario import Scenario
from tilecast.served import as_measured, served_models


@pytest.mark.parametrize(
    ("device", "dtype"), [("cpu", "float32"), ("cuda", "bfloat16"), ("cuda:1", "bfloat16"), ("mps", "float32")]
)
def test_weights_are_held_as_is_usual_on_the_device(device: str, dtype: str) -> None:
    assert Scenario("sdxl", cluster={"device": device}).cluster.weights_dtype == dtype
    assert Scenario("sdxl", cluster={"device": device, "dtype": "float16"}).cluster.weights_dtype == "float16"


def test_cached_patches_are_those_of_the_profile(tmp_path: Path) -> None:
    write_profile(tmp_path / "p.parquet")
    plain = Profile.load(tmp_path / "p.parquet")
    measured = Profile(plain.frame, {**plain.metadata, "cache_patch": "48"})
    cached = {"cluster": {"executor": "patched"}, "policies": {"caching": "interval"}}
    assert as_measured(Scenario("sdxl", **cached), measured).cluster.side_of_cached_patch == 48
    assert as_measured(Scenario("sdxl", **cached), plain).cluster.side_of_cached_patch == 32
    said = Scenario("sdxl", **{**cached, "cluster": {"executor": "patched", "cache_patch": 16}})
    assert as_measured(said, measured).cluster.side_of_cached_patch == 16
    quick = {"profile": measured, "predictor": {"latency_model": "linear"}, "policies": {"caching": "interval"}}
    [member] = served_models(Scenario("tiny-image", **quick))
    assert member.scenario.cluster.cache_patch == 48
