"""Adapters (LoRAs) of one pipeline: loaded beside its weights, and put on a set at a time.

Every adapter that requests may name is loaded once, by diffusers itself (`load_lora_weights`, with peft), from
safetensors alone. A forward runs with one set of them, so that the calls of a batch must want the same; to put another
set on is to switch layers and write down their scales, once around a batch, and moves no weights.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from backend.coroutine import DenoiserCall
from backend.loading import said_of
from backend.merge import Mixer
from traces.adapters import AdapterSet
from traces.errors import BadInput
from traces.request import Request

SUFFIX = ".safetensors"


def adapter_files(folder: Path | None, requests: Sequence[Request]) -> dict[str, Path]:
    """The file of each adapter that requests name, ``NAME.safetensors`` in the folder.

    Raises:
        BadInput: no folder is named, or a file is missing or lies elsewhere.
    """
    found: dict[str, Path] = {}
    for request in requests:
        for name, _ in request.adapter_set:
            if name in found:
                continue
            where = f"request {request.request_id!r} names adapter {name!r}"
            if folder is None:
                raise BadInput(f"{where}; set cluster.adapters to the folder of {name}{SUFFIX}")
            path = (folder / f"{name}{SUFFIX}").resolve()
            if not path.is_relative_to(folder.resolve()):
                raise BadInput(f"{where}, whose file lies outside {folder}")
            if not path.is_file():
                known = ", ".join(sorted(file.stem for file in folder.glob(f"*{SUFFIX}"))) or "none"
                raise BadInput(f"{where}, but {folder} has no {name}{SUFFIX}; it has: {known}")
            found[name] = path
    return found


class Adapters:
    """Those of a pipeline, none of them put on. To be made before the pipeline's denoisers are looked at.

    Args:
        pipeline: becomes one with adapters.
        files: a safetensors file for each name.

    Attributes:
        on: the set that is put on.

    Raises:
        BadInput: the pipeline takes no adapters, or a file holds none for it.
    """

    def __init__(self, pipeline: Any, files: Mapping[str, Path]) -> None:
        self._pipeline = pipeline
        self._called = {name: f"adapter_{number}" for number, name in enumerate(sorted(files))}  # peft's have no dots
        self.on: AdapterSet = ()
        if not files:
            return
        kind = type(pipeline).__name__
        if not hasattr(pipeline, "load_lora_weights"):
            raise BadInput(f"{kind} takes no adapters, which requests name: {', '.join(sorted(files))}")
        try:
            import peft  # noqa: F401
        except ImportError as error:
            raise BadInput("adapters need peft; install tilecast[backend]") from error
        for name, called in self._called.items():
            path = files[name]
            with said_of(path, kind):
                pipeline.load_lora_weights(
                    str(path.parent),
                    weight_name=path.name,
                    adapter_name=called,
                    use_safetensors=True,
                    local_files_only=True,
                )
            if called not in {each for several in pipeline.get_list_adapters().values() for each in several}:
                raise BadInput(f"{path}: no weights for the layers of {kind}")
        for part in pipeline.components.values():
            if isinstance(part, torch.nn.Module):
                _as_its_layers(part)
        pipeline.disable_lora()

    def check(self, request: Request) -> None:
        """See that the adapters of a request are here.

        Raises:
            BadInput: one is not.
        """
        for name, _ in request.adapter_set:
            if name not in self._called:
                known = ", ".join(sorted(self._called)) or "none"
                raise BadInput(f"request {request.request_id!r}: adapter {name!r} is not loaded; loaded: {known}")

    def put_on(self, wanted: AdapterSet) -> None:
        """Let the pipeline's forwards run with a set of adapters, and with no others."""
        if wanted == self.on:
            return
        if not wanted:
            self._pipeline.disable_lora()
        else:
            if not self.on:
                self._pipeline.enable_lora()
            self._pipeline.set_adapters([self._called[name] for name, _ in wanted], [weight for _, weight in wanted])
        self.on = wanted


def _as_its_layers(part: torch.nn.Module) -> None:
    """Let the adapters of a component be in the number format of the layers that they change, and in evaluation."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    part.eval().requires_grad_(False)
    for layer in part.modules():
        if isinstance(layer, BaseTunerLayer):
            for name in layer.adapter_layer_names:
                getattr(layer, name).to(layer.get_base_layer().weight.dtype)


class OneSet:
    """A `Mixer` whose forwards run with the adapters of their calls: calls of several sets never share one.

    Args:
        mixer: runs the calls.
        put_on: puts a set of adapters on.
    """

    def __init__(self, mixer: Mixer, put_on: Callable[[AdapterSet], None]) -> None:
        self.mixer = mixer
        self._put_on = put_on

    @property
    def notes(self) -> list[str]:
        """What a reader of its figures must know, a line each."""
        return list(getattr(self.mixer, "notes", []))

    def key(self, call: DenoiserCall) -> Hashable:
        return call.adapters, self.mixer.key(call)

    def run(self, calls: Sequence[DenoiserCall]) -> list[Any]:
        self._put_on(calls[0].adapters)
        return self.mixer.run(calls)
