"""A tiled request in a folder, to go on from later, elsewhere, on any number of ranks.

It can be saved when its sketch is done and between two refinement steps, and goes on as if it had never stopped, bit
for bit. The text is encoded anew: that is cheaper than what a prompt's embeddings take on disk, and exact. What a
caching policy has learned is not written down, for a policy may keep anything; it is told again what was done, and
nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from backend.tiled.run import TiledRun
from policies.tiling.recipe import TiledShape, shape_from
from traces.errors import BadInput
from traces.marks import OutputKind
from traces.output import claim_folder
from traces.request import Request
from traces.text import write_text

_FORMAT = 1
_PLAIN, _TENSORS, _DIGESTS = "request.json", "tensors.safetensors", "sha256.json"
SAVED_REQUEST = OutputKind("saved request", files={_PLAIN: "saved request", _TENSORS: "", _DIGESTS: ""})


class Saved(NamedTuple):
    """A saved request.

    Attributes:
        request: what to make.
        shape: what it becomes.
        made_by: what must be the same to go on: pipeline, precision, positions, cache and reuse.
        sketch: pixels of the finished sketch, [images, 3, frames, h, w]; None once refinement has begun.
        state: state of the refinement, see `TiledRun.state`; None before it.
    """

    request: Request
    shape: TiledShape
    made_by: dict[str, Any]
    sketch: torch.Tensor | None
    state: dict[str, Any] | None


def made_by(run: TiledRun) -> dict[str, Any]:
    """What must be the same for a run to go on from another's folder."""
    return {
        "pipeline": type(run.pipeline).__name__,
        "precision": str(run.pipeline.dtype).removeprefix("torch."),
        "positions": run.adapter.positions,
        "cached": run.cached,
        "gains": run.gains,
        "reuse": run.reuse,
    }


def save(run: TiledRun, folder: Path) -> None:
    """Write a request to ``folder``, whole or not at all. Refinement must have been gathered on this rank.

    Raises:
        BadInput: its sketch is not done, its sampler cannot be interrupted, or the folder cannot be written.
    """
    if run.sketch is None and not run.is_refining:
        raise BadInput(f"request {run.request.request_id!r} can be saved when its sketch is done")
    tensors: dict[str, torch.Tensor] = {}
    plain = {
        "format": _FORMAT,
        "request": asdict(run.request),
        "shape": asdict(run.shape),
        "made_by": made_by(run),
        "sketch": without_tensors(run.sketch, tensors, "sketch"),
        "state": without_tensors(run.state() if run.is_refining else None, tensors, "state"),
    }
    with claim_folder(folder, SAVED_REQUEST) as claimed, claimed.renewed() as new:
        write_text(new / _PLAIN, SAVED_REQUEST.json(json.dumps(plain, indent=1)) + "\n")
        save_file({name: tensor.cpu().clone().contiguous() for name, tensor in tensors.items()}, new / _TENSORS)
        digests = {name: _digest(new / name) for name in (_PLAIN, _TENSORS)}
        write_text(new / _DIGESTS, json.dumps(digests) + "\n")


def load(folder: Path) -> Saved:
    """Read a saved request.

    Raises:
        BadInput: there is none, or the folder is damaged.
    """
    try:
        for name, digest in json.loads((folder / _DIGESTS).read_text(encoding="utf-8")).items():
            if _digest(folder / name) != digest:
                raise BadInput(f"cannot resume from {folder}: {name} is damaged")
        plain = json.loads((folder / _PLAIN).read_text(encoding="utf-8"))
        if plain["format"] != _FORMAT:
            raise BadInput(f"cannot resume from {folder}: its format is {plain['format']}, expected {_FORMAT}")
        tensors = load_file(folder / _TENSORS)
        return Saved(
            Request(**plain["request"]),
            shape_from(plain["shape"]),
            plain["made_by"],
            with_tensors(plain["sketch"], tensors),
            with_tensors(plain["state"], tensors),
        )
    except BadInput:
        raise
    except OSError as error:
        raise BadInput(f"cannot resume from {folder}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise BadInput(f"cannot resume from {folder}: it is no saved request ({type(error).__name__})") from error


def without_tensors(value: Any, tensors: dict[str, torch.Tensor], name: str) -> Any:
    """A nest as JSON can hold it: its tensors are put into ``tensors`` under names that begin with ``name``."""
    if isinstance(value, torch.Tensor):
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, Mapping):
        return {key: without_tensors(item, tensors, f"{name}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_tensors(item, tensors, f"{name}.{index}") for index, item in enumerate(value)]
    return value


def with_tensors(value: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    """The way back from `without_tensors`."""
    if isinstance(value, dict):
        if set(value) == {"tensor"}:
            return tensors[value["tensor"]]
        return {key: with_tensors(item, tensors) for key, item in value.items()}
    return [with_tensors(item, tensors) for item in value] if isinstance(value, list) else value


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
