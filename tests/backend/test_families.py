"""Families of pipelines that nothing else in Tilecast knows: measured as their folders are, or refused in one line."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import diffusers  # noqa: E402

from backend.executor import Executor  # noqa: E402
from backend.loading import geometry_of_pipeline, load_pipeline  # noqa: E402
from backend.profiling import measure_profile  # noqa: E402
from tests.backend import tiny_pipelines  # noqa: E402
from tests.backend.families import FAMILIES  # noqa: E402
from tests.sweep import SWEEP  # noqa: E402
from traces.errors import BadInput  # noqa: E402
from traces.geometry import GEOMETRIES, geometry_from_json  # noqa: E402

LOADED = ("SD3", "Wan 2.2 A14B", "LTX-2")
"""Of these the seconds of loads are measured, too, where not all are swept."""
MEASURED = (
    *LOADED,
    *("PixArt-sigma", "GLM-Image", "HunyuanImage 2.1", "Wan 2.1 image to video", "Latte"),
)
"""These are measured where not all are swept; the others are loaded."""
FROM_A_FOLDER = {name: family for name, family in FAMILIES.items() if family.unfit_for_a_folder == ""}
SCALES = {  # pixels a latent pixel, frames a latent frame, pixels that sides are multiples of, the size it makes
    "SD3": (2, 1, 4, (32, 32)),
    "Flux": (2, 1, 4, (256, 256)),
    "FLUX.2 dev": (2, 1, 4, (256, 256)),
    "FLUX.2 klein": (2, 1, 4, (256, 256)),
    "Qwen-Image": (4, 1, 8, (512, 512)),
    "Qwen-Image-Edit": (4, 1, 8, (512, 512)),
    "Z-Image": (2, 1, 4, (1024, 1024)),
    "Chroma": (2, 1, 4, (256, 256)),
    "PixArt-alpha": (32, 1, 64, (4096, 4096)),
    "PixArt-sigma": (8, 1, 16, (256, 256)),
    "CogView 4": (8, 1, 16, (1024, 1024)),
    "Lumina 2": (8, 1, 16, (64, 64)),
    "Krea 2": (4, 1, 8, (1024, 1024)),
    "GLM-Image": (8, 1, 32, (1024, 1024)),
    "Ovis-Image": (2, 1, 4, (256, 256)),
    "HunyuanImage 2.1": (4, 1, 4, (256, 256)),
    "Sana": (32, 1, 32, (1024, 1024)),
    "AuraFlow": (2, 1, 4, (1024, 1024)),
    "HiDream": (2, 1, 4, (32, 32)),
    "Bria": (2, 1, 4, (128, 128)),
    "Lumina-Next": (8, 1, 16, (64, 64)),
    "Kandinsky 5 image": (8, 1, 16, (1024, 1024)),
    "Wan 2.1": (8, 4, 16, (480, 832)),
    "Wan 2.1 image to video": (8, 4, 16, (480, 832)),
    "Wan 2.2 A14B": (8, 4, 16, (480, 832)),
    "Wan 2.2 5B": (8, 4, 16, (480, 832)),
    "Wan VACE": (8, 4, 16, (480, 832)),
    "SkyReels 2": (8, 4, 16, (544, 960)),
    "SkyReels 2 forcing": (8, 4, 16, (544, 960)),
    "CogVideoX": (8, 4, 16, (32, 32)),
    "CogVideoX image to video": (8, 4, 16, (128, 128)),
    "HunyuanVideo": (8, 4, 16, (720, 1280)),
    "HunyuanVideo 1.5": (16, 4, 16, (16, 16)),
    "LTX": (32, 8, 32, (512, 704)),
    "LTX image to video": (32, 8, 32, (512, 704)),
    "LTX-2": (8, 2, 32, (512, 768)),
    "Mochi": (8, 6, 16, (480, 848)),
    "Kandinsky 5": (8, 4, 16, (512, 768)),
    "Allegro": (8, 4, 16, (64, 64)),
    "Latte": (8, 1, 16, (512, 512)),
    "EasyAnimate": (8, 4, 16, (512, 512)),
}


@functools.cache
def made_of(name: str) -> Any:
    """A family's pipeline, which is looked at and saved, and not run."""
    torch.manual_seed(0)
    return FAMILIES[name].make()


@pytest.mark.parametrize("name", FAMILIES)
def test_its_shapes_are_read_off_a_pipeline(name: str) -> None:
    geometry = geometry_of_pipeline(made_of(name), "mine")
    read = (geometry.latent_factor, geometry.frame_factor, geometry.size_multiple, geometry.native_size)
    assert read == SCALES[name]


def test_a_folder_called_like_a_known_model_has_that_models_size_only_if_it_is_one() -> None:
    """Wan 2.1 and 2.2 A14B share a pipeline, whose default is the smaller one's size."""
    wan, flux = tiny_pipelines.wan(), tiny_pipelines.flux()
    assert geometry_of_pipeline(wan, "Wan2.2-T2V-A14B-Diffusers").native_size == (720, 1280)
    assert geometry_of_pipeline(wan, "Wan2.1-T2V-1.3B").native_size == (480, 832)
    flux.vae_scale_factor = 8
    flux.vae.register_to_config(latent_channels=16)
    assert geometry_of_pipeline(flux, "FLUX.1-dev") == replace(GEOMETRIES["flux"], name="FLUX.1-dev")
    flux.vae.register_to_config(latent_channels=4)
    assert geometry_of_pipeline(flux, "flux").latent_channels == 4


@pytest.mark.parametrize("name", [name for name in FROM_A_FOLDER if name not in MEASURED and not SWEEP])
def test_a_family_is_loaded_from_its_folder(name: str, tmp_path: Path) -> None:
    made = made_of(name)
    made.save_pretrained(tmp_path / "mine")
    if FAMILIES[name].refused:
        with pytest.raises(BadInput, match=FAMILIES[name].refused):
            Executor(load_pipeline(str(tmp_path / "mine")))
        return
    loaded = Executor(load_pipeline(str(tmp_path / "mine"))).pipeline
    assert type(loaded) is type(made)
    assert geometry_of_pipeline(loaded, "mine") == geometry_of_pipeline(made, "mine")


@pytest.mark.parametrize("name", [name for name in FROM_A_FOLDER if name in MEASURED or SWEEP])
def test_a_family_is_measured_from_its_folder(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    torch.set_num_threads(1)
    if name not in LOADED and not SWEEP:
        request.getfixturevalue("loads_not_measured")
    family = FAMILIES[name]
    made = made_of(name)
    made.save_pretrained(tmp_path / "mine")
    geometry = geometry_of_pipeline(made, "mine")
    frames = family.frames[0] if family.frames else 1 if geometry.frame_factor == 1 else 1 + geometry.frame_factor
    size = (geometry.size_multiple, 2 * geometry.size_multiple, frames)
    if family.refused:
        with pytest.raises(BadInput, match=family.refused):
            measure_profile(str(tmp_path / "mine"), sizes=[size], max_batch=1, repeats=1, minutes=0)
        return
    profile = measure_profile(str(tmp_path / "mine"), sizes=[size], max_batch=1, repeats=1, minutes=0)
    assert sorted(set(profile.frame["stage"])) == ["decode", "denoise", "encode"]
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
    for cls in (diffusers.FluxControlPipeline, diffusers.FluxControlNetPipeline):
        pipeline = cls.__new__(cls)
        with pytest.raises(BadInput, match=f"{cls.__name__} needs"):
            Executor(pipeline)
