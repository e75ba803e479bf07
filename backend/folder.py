"""A model folder in diffusers' layout: what it says it holds, and whether that is all there.

Folders come from the outside world: a download that ended early, a git-lfs pointer in place of a file, one precision
only. The libraries that load them notice late, or never: they fill tensors that a file lacks with random numbers. So
everything is looked at first, which costs a few kilobytes a file. Nothing is unpickled and no code of a folder runs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from traces.errors import BadInput
from traces.geometry import KNOWN_MODELS

EMBEDDED = Path(__file__).parent / "embedded"
WEIGHTS = ("diffusion_pytorch_model", "model")
"""What files of weights are called, as diffusers and transformers write them."""
_WEIGHTS = re.compile(
    rf"(?:{'|'.join(WEIGHTS)})(?:\.(?P<variant>[^.]+?))?(?:-\d+-of-\d+)?(?:\.(?P<legacy>[^.]+))?\.safetensors"
)
_PICKLED = (".bin", ".ckpt", ".pt", ".pth")
_POINTER = b"version https://git-lfs"
_TEXTS = (".json", ".txt", ".model", ".jinja")
_MAX_HEADER = 100_000_000
VARIANTS = {"float16": ("fp16",), "bfloat16": ("bf16",), "float32": ("fp32",), "float64": ("fp64", "fp32")}
"""What the variant of a dtype is called."""


def model_folder(model: str) -> Path:
    """The folder of a model: an embedded model's name, or a path.

    Raises:
        BadInput: neither.
    """
    embedded = EMBEDDED / model
    folder = embedded if (embedded / "model_index.json").is_file() else Path(model)
    if not (folder / "model_index.json").is_file():
        names = ", ".join(sorted(p.parent.name for p in EMBEDDED.glob("*/model_index.json")))
        if model in KNOWN_MODELS:
            raise BadInput(
                f"model {model!r} is known by its shape alone, which is enough to simulate it; to run it, give the "
                f"folder of its weights, a diffusers folder with a model_index.json (there is one for: {names})"
            )
        what = "is a file: " if folder.is_file() else "is "
        raise BadInput(
            f"model {model!r} {what}neither an embedded model ({names}) nor a diffusers folder with a model_index.json"
        )
    return folder


@dataclass(frozen=True)
class ModelFolder:
    """A folder with a ``model_index.json``.

    Attributes:
        path: the folder.
        pipeline: the class of its pipeline.
        components: (library, class) of each component that it holds, by name.
    """

    path: Path
    pipeline: str
    components: dict[str, tuple[str, str]]

    @classmethod
    def read(cls, path: Path) -> ModelFolder:
        """The folder as its ``model_index.json`` describes it.

        Raises:
            BadInput: that file is no index, or it names code that is not diffusers' or transformers'.
        """
        file = path / "model_index.json"
        index = _json(file)
        pipeline = index.get("_class_name") if isinstance(index, dict) else None
        if isinstance(pipeline, list):
            raise BadInput(f"{file}: _class_name {pipeline} is code of the folder, which is not run; expected a name")
        if not isinstance(pipeline, str) or not pipeline:
            raise BadInput(f"{file}: _class_name is {pipeline!r}, expected the name of a diffusers pipeline")
        components = {}
        for name, value in index.items():
            if name.startswith("_") or not isinstance(value, list) or not any(isinstance(part, str) for part in value):
                continue  # an absent component, or a list of numbers, which is a setting of the pipeline
            if len(value) != 2 or not all(isinstance(part, str) for part in value):
                raise BadInput(f"{file}: component {name!r} is {value}, expected [library, class]")
            if not re.fullmatch(r"\w+", name):
                raise BadInput(f"{file}: component {name!r} is no name of a folder in it")
            if (path / name / f"{value[0]}.py").is_file():
                raise BadInput(f"{file}: component {name!r} is code of the folder ({value[0]}.py), which is not run")
            components[name] = (value[0], value[1])
        return cls(path, pipeline, components)

    def check(self) -> None:
        """See that every component has a folder, whose files of text can be read and parsed.

        Raises:
            BadInput: the first that cannot.
        """
        for name in self.components:
            folder = self.path / name
            if not folder.is_dir():
                raise BadInput(f"{self.path}: the folder of component {name!r} is missing")
            names = {file.name for file in _files(folder)}
            for file in _files(folder):
                if file.suffix in _TEXTS:
                    _not_a_pointer(file, _start(file))
                if file.suffix == ".json":
                    _json(file)
            pieces = [file for file in sorted(names) if file.endswith(".model")]
            if pieces and "tokenizer.json" not in names and find_spec("sentencepiece") is None:
                raise BadInput(
                    f"{folder / pieces[0]} needs sentencepiece, which is not installed; it comes with tilecast[backend]"
                )

    def variant(self, modules: Iterable[str], dtype: str) -> dict[str, str | None]:
        """Which weights of each component of ``modules`` to load: the plain ones (None) or a variant, such as fp16.

        Without plain ones the only variant there, or that of the dtype.

        Raises:
            BadInput: there are no safetensors, or several variants and none of the dtype.
        """
        return {name: self._variant(name, dtype) for name in modules}

    def _variant(self, name: str, dtype: str) -> str | None:
        folder = self.path / name
        found = {variant for file in _files(folder) if (variant := _variant_of(file)) is not None}
        if "" in found:
            return None
        if len(found) > 1:
            found = found & set(VARIANTS.get(dtype, ())) or found
        if len(found) > 1:
            raise BadInput(
                f"{folder} holds the variants {', '.join(sorted(found))} of its weights and no plain ones; the dtype "
                f"(--dtype, cluster.dtype) chooses between fp16, bf16 and fp32, and none is of {dtype}"
            )
        if not found:
            pickled = [file.name for file in _files(folder) if file.suffix in _PICKLED]
            why = f"; {pickled[0]} is a pickle, and reading one runs its code: convert it" if pickled else ""
            raise BadInput(
                f"{folder} holds no weights; expected {' or '.join(WEIGHTS)}.safetensors, or parts of it{why}"
            )
        return found.pop()

    def tensors(self, dtype: str) -> dict[str, Tensor]:
        """Every tensor that its files of weights hold, by ``component.tensor``, from their headers alone.

        Args:
            dtype: that it is loaded in, which chooses between variants.

        Raises:
            BadInput: a component's folder is missing, a file is not whole, or nothing says which variant is meant.
        """
        found: dict[str, Tensor] = {}
        for name in self.components:
            files = _files(self.path / name)
            if not any(_variant_of(file) is not None or file.suffix in _PICKLED for file in files):
                continue  # a sampler, a tokenizer
            variant = self._variant(name, dtype) or ""
            for file in files:
                if _variant_of(file) == variant:
                    found |= {f"{name}.{tensor}": of for tensor, of in check_safetensors(file).items()}
        return found

    def weights(self, name: str, variant: str | None) -> list[Path]:
        """The files of a component's chosen weights."""
        return [file for file in _files(self.path / name) if _variant_of(file) == (variant or "")]

    def check_weights(self, name: str, variant: str | None) -> None:
        """See that the chosen weights of a component are whole: their lengths are those their headers tell.

        Raises:
            BadInput: the first file that is not.
        """
        folder, files = self.path / name, self.weights(name, variant)
        ending = ".safetensors.index.json" if variant is None else f".safetensors.index.{variant}.json"
        for index in [file for file in _files(folder) if file.name in {base + ending for base in WEIGHTS}]:
            parts = _json(index)
            parts = parts.get("weight_map") if isinstance(parts, dict) else None
            if not isinstance(parts, dict) or not all(isinstance(part, str) for part in parts.values()):
                raise BadInput(f"{index}: expected a weight_map of files")
            for part in sorted(set(parts.values())):
                if not (folder / part).is_file():
                    raise BadInput(f"{folder / part} is missing; {index.name} names it")
        for file in files:
            check_safetensors(file)


class Tensor(NamedTuple):
    """What the header of a file says of a tensor: its type, as safetensors spell it (``F16``), and its shape."""

    dtype: str
    shape: tuple[int, ...]


def check_safetensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a file by their names, which is seen to be whole, by its header alone.

    Raises:
        BadInput: it cannot be read, it is a git-lfs pointer, no such file, or too short or long.
    """
    start = _start(file)
    _not_a_pointer(file, start)
    size = file.stat().st_size
    length = int.from_bytes(start[:8], "little")
    if size < 8 or not 2 <= length <= _MAX_HEADER:
        raise BadInput(f"{file} is no file of safetensors ({size} bytes); download it again")
    ends = [0]
    if 8 + length <= size:
        try:
            with file.open("rb") as opened:
                header = json.loads(opened.read(8 + length)[8:])
            header.pop("__metadata__", None)
            ends += [tensor["data_offsets"][1] for tensor in header.values()]
            found = {name: Tensor(str(of["dtype"]), tuple(map(int, of["shape"]))) for name, of in header.items()}
            expected = 8 + length + max(ends)
        except (ValueError, TypeError, LookupError, AttributeError):
            raise BadInput(f"{file} is no file of safetensors: its header cannot be read; download it again") from None
        if size == expected:
            return found
        raise BadInput(f"{file} has {size} bytes of the {expected} that its header tells; download it again")
    raise BadInput(f"{file} has {size} bytes and ends within its header; download it again")


def _variant_of(file: Path) -> str | None:
    """The variant of a file of weights, "" for plain ones; None: no file of weights."""
    found = _WEIGHTS.fullmatch(file.name)
    return None if found is None else found["variant"] or found["legacy"] or ""


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(file for file in folder.iterdir() if not file.is_dir())
    except OSError as error:
        raise BadInput(f"{folder} cannot be read: {error.strerror}") from None


def _start(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            return opened.read(64)
    except OSError as error:
        raise BadInput(f"{file} cannot be read: {error.strerror}") from None


def _not_a_pointer(file: Path, start: bytes) -> None:
    if start.startswith(_POINTER):
        raise BadInput(f"{file} is a git-lfs pointer, not the file; fetch it with 'git lfs pull'")


def _json(file: Path) -> Any:
    """The content of a JSON file, which loaders read as UTF-8."""
    _not_a_pointer(file, _start(file))
    try:
        return json.loads(file.read_bytes().decode())
    except UnicodeDecodeError:
        raise BadInput(f"{file} is not UTF-8; save it as UTF-8") from None
    except RecursionError:
        raise BadInput(f"{file} is not JSON that can be read: it nests too deep") from None
    except ValueError as error:
        if file.read_bytes().startswith(b"\xef\xbb\xbf"):
            raise BadInput(f"{file} begins with a byte order mark; save it as UTF-8 without one") from None
        raise BadInput(f"{file} is not JSON ({error}); was it downloaded to its end?") from None
