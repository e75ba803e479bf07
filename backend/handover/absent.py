"""Networks without their weights, in the pipelines of replicas that do not serve the stages which they are for.

A pipeline asks its networks for more than answers: for their configuration, their number format, statistics that they
keep beside their weights. So what stands in their place is the network itself, of its own class, whose weights alone
are missing. One that is asked after all, as a safety checker is, is loaded then; a replica is warmed up with requests
of every kind before it serves, so that it has by then what it needs and no more.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers import ModelMixin
from safetensors import safe_open
from transformers import PreTrainedModel

from backend.handover.script import CALLED
from traces.stages import STAGES

Load = Callable[[], torch.nn.Module]
"""Loads a network with its weights, on its device."""

_HOME, _LOAD = "_tilecast_home", "_tilecast_load"


class NotHere(RuntimeError):  # noqa: N818 - named for what it is
    """A network is asked whose weights the replica does not have, and that it is not for."""


def absent(module: torch.nn.Module, home: torch.device, load: Load | None) -> torch.nn.Module:
    """A module without weights, in the place of one with them.

    Args:
        module: its parameters are on the meta device.
        home: the device that it says it is on.
        load: brings it when it is asked; None: it must not be.
    """
    vars(module)[_HOME], vars(module)[_LOAD] = home, load
    module.__class__ = _absent(type(module))  # type: ignore[arg-type]  # a class is hashable
    return module


def at_once(name: str, kind: type, denoises: bool, stages: Iterable[str]) -> bool:
    """Whether a replica of some stages loads a network from the beginning; others when they are asked, or never.

    Args:
        name: of the component.
        kind: its class.
        denoises: whether it is a denoiser.
        stages: that the replica serves.
    """
    rows = [STAGES[stage] for stage in stages]
    if denoises:
        return any(row.sampler for row in rows)
    if any(row.prepares for row in rows) and issubclass(kind, PreTrainedModel) and "checker" not in name:
        return True
    return any(row.finishes for row in rows) and hasattr(kind, "decode")


def is_absent(module: Any) -> bool:
    """Whether a network's weights are not there."""
    return _HOME in getattr(module, "__dict__", {})


def without_weights(module: torch.nn.Module) -> torch.nn.Module:
    """A copy of a network whose parameters are on the meta device; its buffers are copied."""
    memo: dict[int, Any] = {
        id(each): torch.nn.Parameter(each.to("meta"), requires_grad=False) for each in module.parameters()
    }
    return copy.deepcopy(module, memo)


def built_without_weights(kind: Any, folder: Path, files: list[Path], dtype: torch.dtype) -> torch.nn.Module:
    """A network as its folder describes it, without weights; it has the buffers that are saved with them.

    Args:
        kind: its class, of diffusers or transformers.
        folder: its own.
        files: of its weights.
        dtype: of its weights.
    """

    def build() -> torch.nn.Module:
        if issubclass(kind, ModelMixin):
            configured: Any = kind
            built: torch.nn.Module = configured.from_config(configured.load_config(str(folder), local_files_only=True))
        else:
            built = kind(kind.config_class.from_pretrained(str(folder), local_files_only=True))
        return built

    try:
        with torch.device("meta"):
            module = build()
    except (RuntimeError, NotImplementedError):  # it computes with its tensors while it is built
        with init_empty_weights(include_buffers=True):
            module = build()
    module.to(dtype)
    _put_buffers(module, files, dtype)
    return module


def _put_buffers(module: torch.nn.Module, files: list[Path], dtype: torch.dtype) -> None:
    wanted = {name for name, _ in module.named_buffers()}
    for file in files:
        with safe_open(str(file), framework="pt") as opened:
            for name in wanted.intersection(opened.keys()):
                found = opened.get_tensor(name)
                owner, _, own = name.rpartition(".")
                put: Any = module.get_submodule(owner)
                put._buffers[own] = found.to(dtype) if found.is_floating_point() else found


@functools.cache
def _absent(kind: Any) -> Any:
    own: Mapping[str, Any] = {
        "__module__": kind.__module__,
        "device": property(lambda self: vars(self)[_HOME]),
        "to": lambda self, *_, **__: self,
        "_apply": lambda self, *_, **__: self,
        **{method: _coming(kind, method) for method in CALLED if hasattr(kind, method)},
    }
    return type(kind.__name__, (kind,), dict(own))


def _coming(kind: Any, method: str) -> Any:
    @functools.wraps(getattr(kind, method))
    def called(self: Any, *args: Any, **kwargs: Any) -> Any:
        if is_absent(self):
            _come(self, kind)
        return getattr(kind, method)(self, *args, **kwargs)

    return called


def _come(module: Any, kind: Any) -> None:
    load = vars(module)[_LOAD]
    if load is None:
        raise NotHere(f"a {kind.__name__} is asked, which this replica is not for: the stages of its pool need none")
    asked = {name: vars(module)[name] for name in CALLED if name in vars(module)}
    loaded = load()
    vars(module).clear()
    vars(module).update(vars(loaded))
    vars(module).update(asked)
    module.__class__ = kind
