"""Checkpoints by the names that requests have for them: the folder of each, what it weighs, and whether it is alike.

Headers of files are read and nothing else, so that a simulation knows what a real run would load, without torch.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from backend.folder import ModelFolder, Tensor, model_folder
from traces.errors import BadInput

BYTES = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}
"""Of a number of each dtype that weights are loaded in."""
_OTHERS = {"BOOL": 1, "U8": 1, "I8": 1, "U16": 2, "I16": 2, "U32": 4, "I32": 4, "U64": 8, "I64": 8}
"""Of what stays as it is in the file."""


def checkpoint_folders(folder: Path | None, model: str, checkpoints: Iterable[str]) -> dict[str, Path]:
    """The diffusers folder of each checkpoint: ``folder/NAME``, or the model's own where the name is empty.

    Args:
        folder: where checkpoints lie; None: nowhere.
        model: the model's own, as `backend.folder.model_folder` takes it.
        checkpoints: names.

    Raises:
        BadInput: there is no such folder, one lies elsewhere, or is no diffusers folder.
    """
    found: dict[str, Path] = {}
    for name in dict.fromkeys(checkpoints):
        if not name:
            found[name] = model_folder(model)
            continue
        where = f"checkpoint {name!r}"
        if folder is None:
            raise BadInput(f"{where} of the trace has no folder; set weights.folder to the folder of {name}/")
        if not folder.is_dir():
            raise BadInput(f"weights.folder is {folder}, which is no folder; expected that of {name}/")
        path = (folder / name).resolve()
        if not path.is_relative_to(folder.resolve()) or path == folder.resolve():
            raise BadInput(f"{where} of the trace lies outside weights.folder, {folder}")
        if not (path / "model_index.json").is_file():
            known = ", ".join(sorted(index.parent.name for index in folder.glob("*/model_index.json"))) or "none"
            raise BadInput(f"{where} of the trace: {folder} has no diffusers folder {name}/; it has: {known}")
        found[name] = path
    return found


def weights_bytes(folder: Path, dtype: str) -> int:
    """What the weights of a diffusers folder take on a device: numbers in ``dtype``, whatever they are in its files.

    An encoder whose file holds a whole model is counted with all of it.

    Raises:
        BadInput: a file is not whole, or nothing says which variant is meant.
    """
    tensors = ModelFolder.read(folder).tensors(dtype).values()
    return sum([math.prod(each.shape) * _OTHERS.get(each.dtype, BYTES[dtype]) for each in tensors])


def check_alike(folders: Mapping[str, Path], dtype: str) -> None:
    """See that checkpoints are whole, and of one architecture: the same pipeline, with the same tensors.

    Args:
        folders: of each, by name.
        dtype: that they are loaded in.

    Raises:
        BadInput: one is not, and in what.
    """
    first: tuple[str, ModelFolder, dict[str, Tensor]] | None = None
    for name, path in folders.items():
        folder = ModelFolder.read(path)
        folder.check()
        tensors = folder.tensors(dtype)
        if first is None:
            first = name, folder, tensors
        elif difference := _difference(first[1], first[2], folder, tensors):
            other = repr(first[0]) if first[0] else "the model"
            raise BadInput(f"checkpoint {name!r} ({path}) is of another architecture than {other}: {difference}")


def _difference(ours: ModelFolder, our: dict[str, Tensor], theirs: ModelFolder, their: dict[str, Tensor]) -> str:
    """In what two folders differ, theirs first; "": in nothing that matters."""
    if theirs.pipeline != ours.pipeline:
        return f"its pipeline is {theirs.pipeline}, not {ours.pipeline}"
    for name in dict.fromkeys([*our, *their]):
        if name not in their:
            return f"it lacks the tensor {name}"
        if name not in our:
            return f"it has the tensor {name}"
        if their[name].shape != our[name].shape:
            return f"its {name} has the shape {list(their[name].shape)}, not {list(our[name].shape)}"
    return ""


def forget_pages(folder: Path) -> None:
    """Have the operating system drop what it keeps of the files of a folder, where it can be told to.

    So a load from disk is one, and what stays in the host's memory is what is meant to.
    """
    if not hasattr(os, "posix_fadvise"):
        return
    for file in folder.glob("*/*.safetensors"):
        with suppress(OSError), file.open("rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
