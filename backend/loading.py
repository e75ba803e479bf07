"""Loading a diffusers pipeline from a folder, and reading its geometry off its configuration.

Nothing is downloaded and nothing is unpickled: the folder must hold safetensors.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import torch
from diffusers import DiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from traces.errors import BadInput
from traces.geometry import GEOMETRIES, ModelGeometry

EMBEDDED = Path(__file__).parent / "embedded"
DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16, "float16": torch.float16}


def model_folder(model: str) -> Path:
    """The folder of a model: an embedded model's name, or a path.

    Raises:
        BadInput: neither.
    """
    embedded = EMBEDDED / model
    folder = embedded if (embedded / "model_index.json").is_file() else Path(model)
    if not (folder / "model_index.json").is_file():
        names = ", ".join(sorted(p.parent.name for p in EMBEDDED.glob("*/model_index.json")))
        raise BadInput(
            f"model {model!r} is neither an embedded model ({names}) nor a diffusers folder with a model_index.json"
        )
    return folder


def load_pipeline(model: str, device: str = "cpu", dtype: str = "float32") -> Any:
    """A diffusers pipeline in evaluation mode on ``device``.

    Raises:
        BadInput: unknown model, unreadable folder, unknown dtype, or a device this machine does not have.
    """
    folder = model_folder(model)
    if dtype not in DTYPES:
        raise BadInput(f"unknown dtype {dtype!r}; known: {', '.join(DTYPES)}")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise BadInput(f"device {device!r} is not available: torch sees no CUDA device; use --device cpu")
    diffusers_logging.set_verbosity_error()
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    try:
        pipeline = DiffusionPipeline.from_pretrained(
            str(folder), dtype=DTYPES[dtype], local_files_only=True, use_safetensors=True
        )
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise BadInput(f"cannot load model {model!r}: {str(error).splitlines()[0]}") from error
    pipeline.to(device)
    pipeline.set_progress_bar_config(disable=True)
    for module in pipeline.components.values():
        if isinstance(module, torch.nn.Module):
            module.eval().requires_grad_(False)
    return pipeline


def denoiser_name(pipeline: Any) -> str:
    """The component that is called once or twice a step: ``unet`` or ``transformer``."""
    for name in ("transformer", "unet"):
        if getattr(pipeline, name, None) is not None:
            return name
    raise BadInput(f"pipeline {type(pipeline).__name__} has neither a unet nor a transformer")


def geometry_of_pipeline(pipeline: Any, name: str) -> ModelGeometry:
    """The geometry of a loaded pipeline, called ``name``; the known entry when there is one."""
    if name in GEOMETRIES:
        return GEOMETRIES[name]
    config = getattr(pipeline, denoiser_name(pipeline)).config
    factor = int(getattr(pipeline, "vae_scale_factor", 0) or pipeline.vae_scale_factor_spatial)
    frame_factor = getattr(pipeline, "vae_scale_factor_temporal", 1)
    if denoiser_name(pipeline) == "unet":
        patch, multiple = 1, factor * 2 ** (len(config.block_out_channels) - 1)
    else:
        # Flux packs 2x2 latents into channels in the pipeline and has patch_size 1 in its configuration.
        patch_size = config.get("patch_size", 1)
        patch = patch_size[-1] if isinstance(patch_size, list | tuple) else patch_size
        patch = max(patch, 2 if hasattr(pipeline, "_pack_latents") else 1)
        multiple = factor * patch
    sample = config.get("sample_size") or 128 // factor * 4
    side = (sample if isinstance(sample, int) else max(sample)) * factor
    side = max(multiple, side // multiple * multiple)
    return ModelGeometry(
        name=name,
        latent_factor=factor,
        latent_channels=pipeline.vae.config.get("latent_channels") or pipeline.vae.config.get("z_dim") or 4,
        size_multiple=multiple,
        native_size=(side, side),
        frame_factor=frame_factor,
        patch=patch,
    )
