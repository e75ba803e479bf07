"""Models from folders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from backend.loading import geometry_of_pipeline, load_pipeline  # noqa: E402
from tests.backend import tiny_pipelines  # noqa: E402
from traces.errors import BadInput  # noqa: E402


def test_a_folder_loads_in_the_dtype_asked_for(model_folder: Path) -> None:
    pipeline = load_pipeline(str(model_folder), dtype="float64")
    assert pipeline.unet.dtype == torch.float64
    assert not pipeline.unet.training


def test_geometry_is_read_off_the_configuration() -> None:
    sdxl = geometry_of_pipeline(tiny_pipelines.sdxl(), "mine")
    assert (sdxl.latent_factor, sdxl.latent_channels, sdxl.size_multiple, sdxl.native_size) == (2, 4, 4, (64, 64))
    flux = geometry_of_pipeline(tiny_pipelines.flux(), "mine")
    assert (flux.latent_factor, flux.patch, flux.size_multiple) == (2, 2, 4)
    wan = geometry_of_pipeline(tiny_pipelines.wan(), "mine")
    assert (wan.latent_channels, wan.frame_factor, wan.patch) == (16, 4, 2)


@pytest.mark.parametrize(
    ("model", "options", "complaint"),
    [
        ("nowhere", {}, "neither an embedded model"),
        (None, {"dtype": "int4"}, "unknown dtype 'int4'"),
        pytest.param(
            None,
            {"device": "cuda"},
            "sees no CUDA device",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device"),
        ),
    ],
)
def test_what_cannot_be_loaded_is_said(
    model_folder: Path, model: str | None, options: dict[str, str], complaint: str
) -> None:
    with pytest.raises(BadInput, match=complaint):
        load_pipeline(model or str(model_folder), **options)


def test_pickled_weights_are_refused(tmp_path: Path, model_folder: Path) -> None:
    import shutil

    folder = tmp_path / "pickled"
    shutil.copytree(model_folder, folder)
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save({"x": torch.zeros(1)}, weights.with_name("diffusion_pytorch_model.bin"))
    weights.unlink()
    with pytest.raises(BadInput, match="cannot load model"):
        load_pipeline(str(folder))


def test_a_broken_folder_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "NoSuchPipeline"}))
    with pytest.raises(BadInput, match="cannot load model") as caught:
        load_pipeline(str(tmp_path))
    assert "\n" not in str(caught.value)
