"""Families of pipelines that nothing else in Tilecast knows: measured as their folders are, or refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

import diffusers  # noqa: E402

from backend.executor import Executor  # noqa: E402
from backend.loading import geometry_of_pipeline  # noqa: E402
from backend.profiling import measure_profile  # noqa: E402
from tests.backend import tiny_pipelines  # noqa: E402
from tests.backend.tiny_families import FAMILIES  # noqa: E402
from traces.errors import BadInput  # noqa: E402
from traces.geometry import geometry_from_json  # noqa: E402

SCALES = {  # pixels a latent pixel, frames a latent frame, pixels that sides are multiples of
    "ltx": (32, 8, 32),
    "ltx image to video": (32, 8, 32),
    "sana": (32, 1, 32),
    "mochi": (8, 6, 16),
    "lumina 2": (8, 1, 16),
    "z-image": (2, 1, 4),
    "qwen-image": (4, 1, 8),
    "wan image to video": (8, 4, 16),
    "cogvideox image to video": (8, 4, 16),
    "pixart": (8, 1, 16),
    "hunyuan video": (8, 4, 8),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_measured_from_its_folder(family: str, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    made = FAMILIES[family]()
    made.save_pretrained(tmp_path / "mine")
    factor, frames, multiple = SCALES[family]
    geometry = geometry_of_pipeline(made, "mine")
    assert (geometry.latent_factor, geometry.frame_factor, geometry.size_multiple) == (factor, frames, multiple)
    size = (32, 32, 1 if frames == 1 else 1 + frames)
    profile = measure_profile(str(tmp_path / "mine"), sizes=[size], max_batch=1, repeats=1, minutes=0)
    assert list(profile.frame["stage"]) == ["decode", "denoise", "encode"]
    assert geometry_from_json(profile.metadata["geometry"]) == geometry


def test_what_has_no_scale_or_no_denoiser_is_refused() -> None:
    made = tiny_pipelines.sdxl()
    made.vae = None
    with pytest.raises(BadInput, match="geometry of StableDiffusionXLPipeline cannot be read"):
        geometry_of_pipeline(made, "mine")
    cascade = diffusers.StableCascadePriorPipeline.__new__(diffusers.StableCascadePriorPipeline)
    with pytest.raises(BadInput, match="StableCascadePriorPipeline"):
        geometry_of_pipeline(cascade, "mine")


def test_a_pipeline_of_other_arguments_is_refused() -> None:
    for cls in (diffusers.StableDiffusionXLInpaintPipeline, diffusers.FluxControlNetPipeline):
        pipeline = cls.__new__(cls)
        with pytest.raises(BadInput, match=f"{cls.__name__} needs"):
            Executor(pipeline)
