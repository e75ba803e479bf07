"""Nests of tensors and plain values as bytes, and back: a header of JSON, then what the tensors hold.

Nothing is pickled: a message can name classes of outputs of diffusers and transformers, and no other code. A tensor
may travel as its form alone: where it lands, it is full of NaN, so that whatever depends on it is seen not to be a
number, and never taken for one.
"""

from __future__ import annotations

import json
import sys
import zlib
from collections.abc import Callable, Mapping
from importlib import import_module
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution, IdentityDistribution
from diffusers.utils import BaseOutput
from transformers.utils import ModelOutput

_LENGTH = 8
_ALIGNED = 16
_DISTRIBUTIONS = {kind.__name__: kind for kind in (DiagonalGaussianDistribution, IdentityDistribution)}
_LIBRARIES = ("diffusers", "transformers")


class Form:
    """What is known of a tensor whose numbers are elsewhere.

    Args:
        tensor: which.
        home: the device of the replica that it lies on.
    """

    __slots__ = ("at_home", "dtype", "shape")

    def __init__(self, tensor: torch.Tensor, home: torch.device) -> None:
        self.shape, self.dtype, self.at_home = tuple(tensor.shape), tensor.dtype, _same(tensor.device, home)

    def filled(self, home: torch.device) -> torch.Tensor:
        """A tensor of this form on another replica, full of NaN."""
        return torch.full(self.shape, torch.nan, dtype=self.dtype, device=home if self.at_home else "cpu")


class Unknown:
    """In the place of an object that cannot travel.

    Args:
        kind: the name of its class.
    """

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"a {self._kind} cannot be handed to another replica, and its {name!r} is wanted there")


def mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    """A nest with its tensors and `Form` leaves changed."""
    if isinstance(value, torch.Tensor | Form):
        return change(value)
    if isinstance(value, BaseOutput | ModelOutput):
        return _output(type(value), {name: mapped(item, change) for name, item in value.items()})
    if isinstance(value, dict):
        return {name: mapped(item, change) for name, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)([mapped(item, change) for item in value])
    if type(value).__name__ in _DISTRIBUTIONS:
        parameters = change(value.parameters)
        same = parameters is value.parameters or isinstance(parameters, Form)  # it travels with its numbers
        return value if same else _distribution(value, parameters)
    return value


def without_numbers(value: Any, home: torch.device) -> Any:
    """A nest in which the forms of floating-point tensors stand for them."""

    def formed(leaf: Any) -> Any:
        return Form(leaf, home) if isinstance(leaf, torch.Tensor) and leaf.is_floating_point() else leaf

    return mapped(value, formed)


def filled(value: Any, home: torch.device) -> Any:
    """A nest in which tensors of NaN stand for forms."""
    return mapped(value, lambda leaf: leaf.filled(home) if isinstance(leaf, Form) else leaf)


def packed(value: Any, home: torch.device) -> bytes:
    """A nest as bytes.

    Args:
        value: of tensors, forms, plain values, outputs and distributions of diffusers and transformers.
        home: the device of the replica that it lies on.
    """
    writer = _Writer(home)
    header = json.dumps(writer.spec(value)).encode()
    header += b" " * (-(len(header) + _LENGTH) % _ALIGNED)
    return b"".join([len(header).to_bytes(_LENGTH, "big"), header, *writer.parts])


def unpacked(data: bytes, home: torch.device) -> Any:
    """The nest that `packed` made the bytes of, on the device of another replica.

    Raises:
        ValueError: they are no such bytes.
    """
    end = _LENGTH + int.from_bytes(data[:_LENGTH], "big")
    try:
        spec = json.loads(data[_LENGTH:end])
        return _Reader(memoryview(data)[end:], home).nest(spec)
    except (ValueError, LookupError, TypeError, AttributeError, ImportError, RuntimeError) as error:
        raise ValueError(f"what was handed over cannot be read: {error}") from error


def signature(value: Any) -> int:
    """A checksum of what a network is asked: shapes, types, plain values, and numbers that are not floating-point."""
    return zlib.crc32(repr(_signed(value)).encode())


def checksum(value: Any) -> int:
    """A checksum of all tensors of a nest."""
    sums: list[int] = []

    def add(leaf: Any) -> Any:
        sums.append(zlib.crc32(_bytes(leaf)))
        return leaf

    mapped(value, add)
    return zlib.crc32(repr((shapes(value), sums)).encode())


def shapes(value: Any) -> list[Any]:
    """The shape and the number format of every tensor of a nest."""
    found: list[Any] = []

    def add(leaf: Any) -> Any:
        found.append((tuple(leaf.shape), str(leaf.dtype)))
        return leaf

    mapped(value, add)
    return found


def _signed(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        own = "" if value.is_floating_point() else zlib.crc32(_bytes(value))
        return tuple(value.shape), str(value.dtype), own
    if isinstance(value, Mapping):
        return {name: _signed(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_signed(item) for item in value]
    return value if isinstance(value, str | int | float | bool | None) else type(value).__name__


def _bytes(tensor: torch.Tensor) -> memoryview:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    if flat.numel() < 2:
        flat = flat.clone(memory_format=torch.contiguous_format)  # its stride may be any
    array: np.ndarray[Any, Any] = flat.view(torch.uint8).numpy()
    return array.data


def _same(one: torch.device, other: torch.device) -> bool:
    return one.type == other.type


def _output(kind: Any, fields: dict[str, Any]) -> Any:
    return kind(**fields)


def _distribution(like: Any, parameters: torch.Tensor) -> Any:
    if isinstance(like, DiagonalGaussianDistribution):
        return DiagonalGaussianDistribution(parameters, like.deterministic)
    return type(like)(parameters)


class _Writer:
    """Takes nests apart."""

    def __init__(self, home: torch.device) -> None:
        self.parts: list[Any] = []
        self._home = home
        self._at = 0
        self._known: dict[Any, dict[str, Any]] = {}

    def spec(self, value: Any) -> dict[str, Any]:
        """The nest as JSON has it; its tensors are added to the parts."""
        if isinstance(value, torch.Tensor):
            return self._tensor(value)
        if isinstance(value, Form):
            return {"form": value.shape, "dtype": _name(value.dtype), "home": value.at_home}
        if value is None or isinstance(value, str | int | float | bool):
            return {"plain": value}
        if isinstance(value, BaseOutput | ModelOutput):
            fields = {name: self.spec(item) for name, item in value.items()}
            return {"output": f"{type(value).__module__}:{type(value).__qualname__}", "fields": fields}
        if isinstance(value, dict) and all(isinstance(name, str) for name in value):
            return {"dict": {name: self.spec(item) for name, item in value.items()}}
        if type(value) in (list, tuple):
            return {type(value).__name__: [self.spec(item) for item in value]}
        if type(value).__name__ in _DISTRIBUTIONS:
            own = {"distribution": type(value).__name__, "of": self.spec(value.parameters)}
            return own | {"deterministic": getattr(value, "deterministic", False)}
        return {"unknown": type(value).__name__}

    def _tensor(self, value: torch.Tensor) -> dict[str, Any]:
        if value.is_meta:
            return {"unknown": "tensor without numbers"}
        same = (value.data_ptr(), tuple(value.shape), value.stride(), value.dtype)
        if same in self._known:
            return self._known[same]
        strides = value.stride()
        order = sorted(range(value.ndim), key=lambda axis: (-strides[axis], axis))
        part = _bytes(value.permute(order))
        own = {
            "tensor": [value.shape[axis] for axis in order],
            "order": order,
            "dtype": _name(value.dtype),
            "home": _same(value.device, self._home),
            "at": self._at,
        }
        self._known[same] = own
        padding = -part.nbytes % _ALIGNED
        self.parts += [part, b"\0" * padding]
        self._at += part.nbytes + padding
        return own


class _Reader:
    """Puts nests together."""

    def __init__(self, numbers: memoryview, home: torch.device) -> None:
        self._numbers = numbers
        self._home = home

    def nest(self, spec: dict[str, Any]) -> Any:
        if "plain" in spec:
            return spec["plain"]
        if "tensor" in spec:
            return self._tensor(spec)
        if "form" in spec:
            form: Any = Form.__new__(Form)
            form.shape, form.dtype, form.at_home = tuple(spec["form"]), _dtype(spec["dtype"]), spec["home"]
            return form
        if "output" in spec:
            return _output(_output_class(spec["output"]), self._named(spec["fields"]))
        if "dict" in spec:
            return self._named(spec["dict"])
        if "list" in spec:
            return [self.nest(item) for item in spec["list"]]
        if "tuple" in spec:
            return tuple([self.nest(item) for item in spec["tuple"]])
        if "distribution" in spec:
            parameters = self.nest(spec["of"])
            if spec["distribution"] == DiagonalGaussianDistribution.__name__:
                return DiagonalGaussianDistribution(parameters, spec["deterministic"])
            return _DISTRIBUTIONS[spec["distribution"]](parameters)
        return Unknown(spec["unknown"])

    def _named(self, specs: dict[str, Any]) -> dict[str, Any]:
        return {name: self.nest(item) for name, item in specs.items()}

    def _tensor(self, spec: dict[str, Any]) -> torch.Tensor:
        shape, dtype, order = spec["tensor"], _dtype(spec["dtype"]), spec["order"]
        (*_, count) = accumulate(shape, lambda one, other: one * other, initial=1)
        size = count * dtype.itemsize
        own = bytearray(self._numbers[spec["at"] : spec["at"] + size])
        flat = torch.frombuffer(own, dtype=torch.uint8).view(dtype) if count else torch.empty(0, dtype=dtype)
        inverse = sorted(range(len(order)), key=order.__getitem__)
        found = flat.reshape(shape).permute(inverse)
        return found.to(self._home) if spec["home"] else found


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _dtype(name: str) -> torch.dtype:
    found = getattr(torch, name)
    if not isinstance(found, torch.dtype):
        raise TypeError(f"{name} is no number format")
    return found


def _output_class(name: str) -> Any:
    module, _, kind = name.partition(":")
    if module.partition(".")[0] not in _LIBRARIES:
        raise TypeError(f"{name} is not of diffusers or transformers")
    found: Any = sys.modules.get(module) or import_module(module)
    found = getattr(found, kind)
    if not (isinstance(found, type) and issubclass(found, BaseOutput | ModelOutput)):
        raise TypeError(f"{name} is no class of outputs")
    return found
