"""Tiled requests saved to a folder and resumed in another executor."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from diffusers import (  # noqa: E402
    CogVideoXDPMScheduler,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    UniPCMultistepScheduler,
)

from backend.executor import Executor  # noqa: E402
from policies.caching import CachingPolicy, FixedInterval, RegionAware, Threshold  # noqa: E402
from tests.backend import tiny_pipelines  # noqa: E402
from tests.backend.tiled_runs import decoded, executor_of, latents_of, refine, upscaled  # noqa: E402
from traces.errors import BadInput  # noqa: E402
from traces.request import Request  # noqa: E402

torch.set_num_threads(1)

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
RULE = {"refine": 1.0}
STEPS = 4
SAVED_AT = (1, 2)


def sdxl(sampler: Any = None) -> Callable[[], Any]:
    def build() -> Any:
        pipeline = tiny_pipelines.sdxl()
        pipeline.scheduler = sampler or pipeline.scheduler
        return pipeline

    return build


def wan_unipc() -> Any:
    pipeline = tiny_pipelines.wan()
    pipeline.scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    return pipeline


CASES: dict[str, tuple[Callable[[], Any], CachingPolicy | None, dict[str, Any]]] = {
    "euler": (tiny_pipelines.sdxl, None, {}),
    "heun, region-aware": (lambda: tiny_pipelines.sdxl(heun=True), RegionAware(9.0, warmup=2, refresh=2), {}),
    "dpm, region-aware": (sdxl(DPMSolverMultistepScheduler(**BETAS)), RegionAware(1.5, warmup=1, refresh=2), {}),
    "dpm sde, threshold": (
        sdxl(DPMSolverMultistepScheduler(**BETAS, algorithm_type="sde-dpmsolver++")), Threshold(9.0, warmup=1), {},
    ),
    "ancestral, residual": (
        sdxl(EulerAncestralDiscreteScheduler(**BETAS)), FixedInterval(2, warmup=1), {"reuse": "residual"},
    ),
    "ddim": (sdxl(DDIMScheduler(**BETAS)), None, {}),
    "flux": (tiny_pipelines.flux, FixedInterval(2, warmup=1), {}),
    "wan unipc": (wan_unipc, RegionAware(9.0, warmup=1), {}),
    "hunyuan": (tiny_pipelines.hunyuan_video, None, {}),
}  # fmt: skip


def request_for(name: str) -> Request:
    frames = 5 if name in ("wan unipc", "hunyuan") else 1
    side = 32 if name == "hunyuan" else 16
    images = 2 if name in ("euler", "flux") else 1
    return Request("a", 0.0, side, 2 * side, STEPS, frames, seed=3, prompt="a cat", guidance_scale=3.0, images=images)


def executor_for(name: str) -> Executor:
    build, caching, tiling = CASES[name]
    native = (32, 32) if name == "hunyuan" else (16, 16)
    return executor_of(build(), native, {**RULE, "overlap": 4 if name == "euler" else 0}, caching=caching, **tiling)


@pytest.mark.parametrize("name", CASES)
def test_a_resumed_request_comes_out_bit_equal(name: str, tmp_path: Path) -> None:
    request = request_for(name)
    whole = executor_for(name)
    upscaled(whole, request)
    whole.save("a", tmp_path / "0")
    outcome = whole.execute("refine", [request], STEPS)
    assert outcome.failed is None
    assert outcome.reused > 0 or CASES[name][1] is None
    expected = decoded(whole, request)["a"]

    first = executor_for(name)
    first.resume(tmp_path / "0")
    for done in range(STEPS):
        if done in SAVED_AT:
            first.save("a", tmp_path / str(done))
        refine(first, request, steps=1)
    np.testing.assert_array_equal(decoded(first, request)["a"], expected)  # it has gone on all the same
    for done in SAVED_AT:
        resumed, left = whole.resume(tmp_path / str(done))  # where another was made meanwhile
        assert resumed == request
        assert left == (("refine", STEPS - done), ("decode", 1))
        refine(whole, request, steps=STEPS - done)
        np.testing.assert_array_equal(decoded(whole, request)["a"], expected)


def test_a_resumed_request_can_be_saved_and_resumed_again(tmp_path: Path) -> None:
    name = "dpm, region-aware"
    request = request_for(name)
    executor = executor_for(name)
    upscaled(executor, request)
    for step in range(STEPS):
        executor.save("a", tmp_path / "here")
        executor = executor_for(name)
        executor.resume(tmp_path / "here")
        refine(executor, request, steps=1)
        assert executor._runs["a"].steps_done == step + 1
    whole = executor_for(name)
    upscaled(whole, request)
    assert torch.equal(refine(whole, request)["a"], latents_of(executor, "a"))


def test_a_finished_sketch_can_be_saved(tmp_path: Path) -> None:
    request = request_for("euler")
    whole, first, other = (executor_for("euler") for _ in range(3))
    upscaled(whole, request)
    refine(whole, request)
    assert first.execute("encode", [request]).failed is None
    assert first.execute("sketch", [request], STEPS - 1).failed is None
    with pytest.raises(BadInput, match="'a' can be saved when its sketch is done"):
        first.save("a", tmp_path / "sketch")
    assert not (tmp_path / "sketch").exists()
    assert first.execute("sketch", [request], 1).failed is None
    first.save("a", tmp_path / "sketch")
    _, left = other.resume(tmp_path / "sketch")
    assert left == (("upscale", 1), ("refine", STEPS), ("decode", 1))
    expected = decoded(whole, request)["a"]
    for executor in (first, other):
        assert executor.execute("upscale", [request]).failed is None
        refine(executor, request)
        np.testing.assert_array_equal(decoded(executor, request)["a"], expected)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "a"
    executor, request = executor_for("dpm, region-aware"), request_for("dpm, region-aware")
    upscaled(executor, request)
    refine(executor, request, steps=2)
    executor.save("a", folder)
    return folder


@pytest.fixture(scope="module")
def refusing() -> Executor:
    """One that resumes none of what it is given."""
    return executor_for("dpm, region-aware")


def damaged(folder: Path, into: Path, name: str, change: Callable[[bytes], bytes]) -> Path:
    into.mkdir()
    for file in folder.iterdir():
        content = file.read_bytes()
        (into / file.name).write_bytes(change(content) if file.name == name else content)
    return into


@pytest.mark.parametrize("name", ["request.json", "tensors.safetensors", "sha256.json"])
@pytest.mark.parametrize("how", ["cut", "flipped", "empty"])
def test_a_damaged_folder_is_one_clear_error(
    saved: Path, refusing: Executor, tmp_path: Path, name: str, how: str
) -> None:
    changes: dict[str, Callable[[bytes], bytes]] = {
        "cut": lambda content: content[:-10],
        "flipped": lambda content: content[:-20] + bytes([content[-20] ^ 1]) + content[-19:],
        "empty": lambda content: b"",
    }
    folder = damaged(saved, tmp_path / "bad", name, changes[how])
    with pytest.raises(BadInput, match=r"cannot resume from .*bad: ") as caught:
        refusing.resume(folder)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_none_is_one_clear_error(saved: Path, refusing: Executor, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="No such file"):
        refusing.resume(tmp_path / "nothing")
    folder = damaged(saved, tmp_path / "new", "", bytes)
    (folder / "request.json").write_text(json.dumps({"format": 2}))
    (folder / "sha256.json").write_text("{}")
    with pytest.raises(BadInput, match="its format is 2, expected 1"):
        refusing.resume(folder)
    (folder / "request.json").write_text(json.dumps({"format": 1, "request": {"request_id": "a"}}))
    with pytest.raises(BadInput, match="it is no saved request"):
        refusing.resume(folder)


def test_what_made_the_request_must_be_the_same(saved: Path) -> None:
    with pytest.raises(BadInput, match="request 'a': cached was True, and is False here"):
        executor_for("euler").resume(saved)
    with pytest.raises(BadInput, match="pipeline was StableDiffusionXLPipeline, and is FluxPipeline here"):
        executor_for("flux").resume(saved)
    with pytest.raises(BadInput, match="nothing is tiled here"):
        Executor(tiny_pipelines.sdxl()).resume(saved)
    executor = executor_for("dpm, region-aware")
    executor.resume(saved)
    with pytest.raises(BadInput, match="'a' is under way"):
        executor.resume(saved)


def test_only_tiled_requests_that_are_under_way_can_be_saved(tmp_path: Path) -> None:
    executor = executor_for("euler")
    small = Request("small", 0.0, 16, 16, 2, prompt="x")
    executor.execute("encode", [small])
    for name in ("small", "nobody"):
        with pytest.raises(BadInput, match=f"'{name}' is no tiled request that is under way"):
            executor.save(name, tmp_path / "x")


def test_a_sampler_whose_pipeline_keeps_its_history_is_refused(tmp_path: Path) -> None:
    pipeline = tiny_pipelines.cogvideox()
    pipeline.scheduler = CogVideoXDPMScheduler()
    executor = executor_of(pipeline, (16, 16), RULE)
    request = Request("a", 0.0, 32, 32, 3, 9, prompt="a cat")
    upscaled(executor, request)
    refine(executor, request, steps=1)
    with pytest.raises(BadInput, match="CogVideoXDPMScheduler cannot be interrupted"):
        executor.save("a", tmp_path / "x")
    assert not (tmp_path / "x").exists()
