"""Loading a diffusers pipeline from a folder, and reading its geometry off its configuration.

Nothing is downloaded and nothing is unpickled: the folder must hold safetensors.
"""

from __future__ import annotations

import copy
import inspect
import os
import re
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import diffusers
import torch
from diffusers import DiffusionPipeline
from diffusers.pipelines.pipeline_loading_utils import simple_get_class_obj
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from backend.folder import ModelFolder, model_folder
from backend.handover.absent import absent, at_once, built_without_weights
from backend.machine import check_present
from traces.errors import BadInput
from traces.geometry import GEOMETRIES, ModelGeometry, known_model

DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16, "float16": torch.float16}
_DENOISERS = ("transformer", "unet")
_HOST = torch.device("cpu")
_ONE_AT_A_TIME = threading.Lock()
"""The libraries patch torch's modules while they build one, for every thread of the process."""


def load_pipeline(model: str, device: str = "cpu", dtype: str = "float32", stages: Sequence[str] | None = None) -> Any:
    """A diffusers pipeline in evaluation mode on ``device``.

    A folder that has its weights in one variant only (``*.fp16.safetensors``) is loaded from it; of several, the
    dtype's is taken. Threads may load at the same time; they wait for each other.

    Args:
        model: a folder, or the name of an embedded model.
        device: as torch names it.
        dtype: number format of the weights.
        stages: those that it is for; the weights of networks that others need are not loaded, see
            `backend.handover.absent`. None: all.

    Raises:
        BadInput: unknown model; a folder that is not whole, cannot be read or whose weights do not fit its
            configuration; unknown dtype; a device that this machine does not have, or that is too small.
    """
    path = model_folder(model)
    check_device(device, dtype)
    diffusers_logging.set_verbosity_error()
    diffusers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    folder = ModelFolder.read(path)
    pipeline_class = _pipeline_class(folder)
    folder.check()
    with _ONE_AT_A_TIME, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        components = _components(folder, dtype, stages, torch.device(device))
        with said_of(path, folder.pipeline):
            pipeline = pipeline_class.from_pretrained(str(path), local_files_only=True, **components)
        with said_of(path, f"device {device!r}"):
            pipeline.to(device)
    pipeline.set_progress_bar_config(disable=True)
    for module in pipeline.components.values():
        if isinstance(module, torch.nn.Module):
            module.eval().requires_grad_(False)
    return pipeline


def check_device(device: str, dtype: str) -> None:
    """See that a model could run there, in this number format.

    Raises:
        BadInput: unknown dtype; a device that this machine does not have.
    """
    if dtype not in DTYPES:
        raise BadInput(f"unknown dtype {dtype!r}; known: {', '.join(DTYPES)}")
    check_present(device)


def load_modules(path: Path, dtype: str, only: str | None = None) -> dict[str, torch.nn.Module]:
    """The components of a diffusers folder that have weights, by name, in the host's memory.

    Args:
        path: the folder.
        dtype: number format of the weights.
        only: this component and no other; None: all.

    Raises:
        BadInput: see `load_pipeline`.
    """
    folder = ModelFolder.read(path)
    chosen = {name: of for name, of in folder.components.items() if only in (None, name)}
    with _ONE_AT_A_TIME, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = _components(replace(folder, components=chosen), dtype)
    return {name: part for name, part in found.items() if isinstance(part, torch.nn.Module)}


def _pipeline_class(folder: ModelFolder) -> Any:
    """The class of a folder's pipeline."""
    found = getattr(diffusers, folder.pipeline, None)
    known = isinstance(found, type) and issubclass(found, DiffusionPipeline) and "__call__" in dir(found)
    if not known:
        raise BadInput(
            f"{folder.path / 'model_index.json'}: _class_name {folder.pipeline!r} is no pipeline of diffusers "
            f"{diffusers.__version__}"
        )
    return found


def _components(
    folder: ModelFolder, dtype: str, stages: Sequence[str] | None = None, home: torch.device = _HOST
) -> dict[str, Any]:
    """Every component of a folder, loaded; of those that other ``stages`` need all but the weights."""
    classes = {name: _component_class(folder, name, *value) for name, value in folder.components.items()}
    modules = [name for name, found in classes.items() if issubclass(found, torch.nn.Module)]
    variants = folder.variant(modules, dtype)
    for name in modules:  # all of them, before the first is loaded
        folder.check_weights(name, variants[name])
    first = next((name for name in _DENOISERS if name in classes), None)

    def component(name: str, found: Any) -> Any:
        if name not in variants:
            return _other(folder, name, found)
        denoises = first is not None and found is classes[first]
        if stages is None or at_once(name, found, denoises, stages):
            return _module(folder.path / name, found, variants[name], dtype)
        bare = built_without_weights(found, folder.path / name, folder.weights(name, variants[name]), DTYPES[dtype])
        return absent(bare, home, None if denoises else load(name, found))

    def load(name: str, found: Any) -> Callable[[], torch.nn.Module]:
        def come() -> torch.nn.Module:
            with _ONE_AT_A_TIME, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                loaded = _module(folder.path / name, found, variants[name], dtype).to(home)
            return loaded.eval().requires_grad_(False)

        return come

    return {name: component(name, found) for name, found in classes.items()}


def _component_class(folder: ModelFolder, name: str, library: str, class_name: str) -> type:
    where = f"{folder.path / 'model_index.json'}: component {name!r}"
    if library not in ("diffusers", "transformers") and not hasattr(diffusers.pipelines, library):
        raise BadInput(
            f"{where} is of {library!r}; expected diffusers, transformers or a folder of diffusers' pipelines"
        )
    try:
        found = simple_get_class_obj(library, class_name)
    except (AttributeError, ValueError):
        found = None
    if not isinstance(found, type) or not hasattr(found, "from_pretrained"):
        raise BadInput(f"{where}: {library} has no component {class_name!r}")
    return found


def _module(path: Path, cls: Any, variant: str | None, dtype: str) -> torch.nn.Module:
    """A component with weights: every tensor of it comes from its files.

    The libraries fill what the files lack with random numbers, and say so in a warning at best.
    """
    ours = issubclass(cls, diffusers.ModelMixin)
    options = {"torch_dtype" if ours else "dtype": DTYPES[dtype], "local_files_only": True, "use_safetensors": True}
    if variant is not None:
        options["variant"] = variant
    with said_of(path.parent, path.name):
        module, told = cls.from_pretrained(
            str(path), output_loading_info=True, ignore_mismatched_sizes=True, low_cpu_mem_usage=True, **options
        )
    for name, found, expected in sorted(told["mismatched_keys"]):
        raise BadInput(f"{path}: tensor {name!r} has the shape {list(found)}, its configuration wants {list(expected)}")
    if missing := sorted(told["missing_keys"]):
        raise BadInput(f"{path}: the weights lack {_some(missing)} that the configuration wants")
    unexpected = sorted(told["unexpected_keys"])
    if not ours:  # an encoder is often loaded from the weights of a whole model
        known = {_any_layer(name) for name in module.state_dict()}
        unexpected = [name for name in unexpected if _any_layer(name) in known]
    if unexpected:
        raise BadInput(f"{path}: the weights have {_some(unexpected)} that the configuration does not know")
    return module


def _other(folder: ModelFolder, name: str, cls: Any) -> Any:
    """A component without weights: a sampler, a tokenizer, an image processor."""
    with said_of(folder.path, name):
        found = cls.from_pretrained(str(folder.path / name), local_files_only=True)
        if isinstance(found, diffusers.SchedulerMixin):
            _check_sampler(found)
        return found


def _check_sampler(sampler: Any) -> None:
    """Use a copy of a sampler once: names in its configuration that it does not know are only found then.

    Raises:
        ValueError: such a name. Whatever else fails may be the sampler's own way to be used.
    """
    tried = copy.deepcopy(sampler)
    names = {value for value in tried.config.values() if isinstance(value, str)}
    shifted = "mu" in inspect.signature(tried.set_timesteps).parameters
    try:
        tried.set_timesteps(4, **({"mu": 0.5} if shifted else {}))
        sample = torch.zeros(1, 4, 4, 4)
        tried.step(sample, tried.timesteps[0], sample)
    except UnboundLocalError:
        raise ValueError(f"one of {', '.join(sorted(names))} is unknown to {type(sampler).__name__}") from None
    except (ValueError, NotImplementedError) as error:
        if any(name in str(error) for name in names):
            raise
    except Exception:
        pass


@contextmanager
def said_of(path: Path, part: str) -> Iterator[None]:
    """Whatever the libraries raise over a part of a folder is bad input, in one line."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise BadInput(f"cannot load model {str(path)!r}: out of device memory ({first_line(error)})") from error
    except ImportError as error:
        missing = f"{error.name} is not installed" if error.name else first_line(error)
        raise BadInput(f"cannot load model {str(path)!r}: {part}: {missing}") from error
    except Exception as error:
        raise BadInput(
            f"cannot load model {str(path)!r}: {part}: {type(error).__name__}: {first_line(error)}"
        ) from error


def first_line(error: BaseException) -> str:
    """The first line that an error says, cut where it is long."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else ""


def _some(names: list[str]) -> str:
    """``3 tensors (a, b, ...)``."""
    shown = ", ".join(names[:2]) + (", ..." if len(names) > 2 else "")
    return f"{len(names)} tensor{'s' if len(names) > 1 else ''} ({shown})"


def _any_layer(name: str) -> str:
    return re.sub(r"\d+", "#", name)


def denoiser_name(pipeline: Any) -> str:
    """The component that is called once or twice a step: ``unet`` or ``transformer``."""
    for name in _DENOISERS:
        if getattr(pipeline, name, None) is not None:
            return name
    raise BadInput(f"pipeline {type(pipeline).__name__} has neither a unet nor a transformer")


def denoiser_names(pipeline: Any) -> list[str]:
    """All denoisers, the first one first: Wan 2.2 has a ``transformer_2``, which makes the second part of the steps."""
    first = denoiser_name(pipeline)
    kind = type(getattr(pipeline, first))
    return [first, *(name for name, part in pipeline.components.items() if name != first and isinstance(part, kind))]


_SPATIAL = ("vae_scale_factor", "vae_scale_factor_spatial", "vae_spatial_compression_ratio", "vae_spatial_scale_factor")
_TEMPORAL = ("vae_scale_factor_temporal", "vae_temporal_compression_ratio", "vae_temporal_scale_factor")
"""What pipelines call the pixels and the frames of a latent pixel."""
_USUAL = 1024
"""Pixels a side where a pipeline has a size only in its code, as Z-Image has."""


def _first(pipeline: Any, names: tuple[str, ...]) -> int:
    """The first of a pipeline's attributes that is there; 0: none."""
    found = [value for name in names if isinstance(value := getattr(pipeline, name, None), int | float) and value]
    return int(found[0]) if found else 0


def geometry_of_pipeline(pipeline: Any, name: str) -> ModelGeometry:
    """The geometry of a loaded pipeline, called ``name``.

    All is read off the pipeline, but for the native size where ``name`` means a known model of the same shapes: models
    of several sizes share a pipeline's code, in which one size is the default.

    Raises:
        BadInput: it has no denoiser, or no autoencoder that tells its scale.
    """
    config = getattr(pipeline, denoiser_name(pipeline)).config
    factor, frame_factor = _first(pipeline, _SPATIAL), _first(pipeline, _TEMPORAL) or 1
    vae = getattr(getattr(pipeline, "vae", None), "config", None)
    if not factor or vae is None:
        raise BadInput(f"the geometry of {type(pipeline).__name__} cannot be read: no autoencoder tells its scale")
    levels = len(vae.get("block_out_channels") or ())
    if hasattr(pipeline, "_pack_latents") and factor == 2**levels:
        factor //= 2  # Bria's tells the pixels of a token
    if denoiser_name(pipeline) == "unet":
        patch, multiple = 1, factor * 2 ** (len(config.block_out_channels) - 1)
    else:
        # Flux packs 2x2 latents into channels in the pipeline and has patch_size 1 in its configuration.
        patch_size = config.get("patch_size") or config.get("all_patch_size") or 1
        patch = patch_size[-1] if isinstance(patch_size, list | tuple) else patch_size
        packs = hasattr(pipeline, "_pack_latents") and not hasattr(pipeline, "transformer_spatial_patch_size")
        patch = max(patch, 2 if packs else 1)
        multiple = _accepted(pipeline, factor * patch)
    read = ModelGeometry(
        name=name,
        latent_factor=factor,
        latent_channels=vae.get("latent_channels") or vae.get("z_dim") or config.get("in_channels") or 4,
        size_multiple=multiple,
        native_size=_default_size(pipeline, config, factor, multiple),
        frame_factor=frame_factor,
        patch=patch,
        **guidance_of(pipeline),
    )
    known = GEOMETRIES.get(known_model(name))
    if known is not None and replace(read, name=known.name, native_size=known.native_size) == known:
        return replace(read, native_size=known.native_size)
    return read


def _accepted(pipeline: Any, multiple: int) -> int:
    """The least of 1, 2, 4 times this multiple that the pipeline's own check takes for a side, in pixels."""
    check = getattr(pipeline, "check_inputs", None)
    known = inspect.signature(check).parameters if check is not None else {}
    needed = {name: None for name, parameter in known.items() if parameter.default is inspect.Parameter.empty}
    if check is None or not {"height", "width"} <= known.keys():
        return multiple
    for side in (multiple, 2 * multiple, 4 * multiple):
        try:
            check(**{**needed, "prompt": "a", "height": side, "width": side})
        except ValueError as error:
            if "divisible" in str(error):
                continue
        except Exception:  # it misses something else, which it looks at later
            pass
        return side
    return multiple


def _default_size(pipeline: Any, config: Any, factor: int, multiple: int) -> tuple[int, int]:
    """(height, width) in pixels that a pipeline makes where it is told nothing; models are trained near it."""
    takes = inspect.signature(type(pipeline).__call__).parameters
    told = [takes[side].default if side in takes else None for side in ("height", "width")]
    sample = config.get("sample_size")
    ratio = getattr(pipeline, "default_aspect_ratio", None)
    if ratio and hasattr(pipeline.video_processor, "calculate_default_height_width"):
        told = list(pipeline.video_processor.calculate_default_height_width(*ratio[::-1], pipeline.target_size))
    elif not all(isinstance(side, int) for side in told):
        told = [getattr(pipeline, f"default_{side}", None) for side in ("height", "width")]
    if not all(isinstance(side, int) for side in told):
        told = [config.get(f"sample_{side}", 0) * factor for side in ("height", "width")]
    if not all(told):
        square = getattr(pipeline, "default_sample_size", None) or sample or 0
        told = [side * factor for side in (square if isinstance(square, list | tuple) else (square, square))]
    height, width = (max(multiple, (side or _USUAL) // multiple * multiple) for side in told)
    return height, width


def guidance_of(pipeline: Any) -> dict[str, Any]:
    """`ModelGeometry.guidance` and ``true_cfg_scale`` of a pipeline, as its class has them."""
    takes = inspect.signature(type(pipeline).__call__).parameters
    if hasattr(type(pipeline), "do_classifier_free_guidance"):
        asked = copy.copy(pipeline)  # distilled models say no whatever the scale
        asked._guidance_scale = 5.0
        try:
            doubled = bool(asked.do_classifier_free_guidance)
        except Exception:  # it needs more than a scale to tell
            doubled = True
    else:
        doubled = "negative_prompt" in takes and "true_cfg_scale" not in takes
    if doubled:
        return {"guidance": "scale"}
    if "true_cfg_scale" not in takes:
        return {"guidance": "never"}
    return {"guidance": "true", "true_cfg_scale": float(takes["true_cfg_scale"].default)}
