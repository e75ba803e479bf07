"""The stages of a model: its networks, and what each is called with, on the meta device or on a real one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol
from unittest.mock import patch

import diffusers
import torch
from torch.overrides import TorchFunctionMode

from backend.coroutine import DenoiserCall

Shape = tuple[int, int, int]
"""Of a latent: frames, height, width."""


class Inputs(Protocol):
    """Makes what networks are given. A type of None is the networks' own."""

    def noise(self, *shape: int, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Normal numbers."""
        ...

    def times(self, rows: int, most: float = 1000.0, dtype: torch.dtype | None = None) -> torch.Tensor:
        """[rows] one timestep from 0 to ``most``, for all rows of a call."""
        ...

    def tokens(self, *shape: int, below: int) -> torch.Tensor:
        """Token ids from 0 on, int64."""
        ...

    def fixed(self, *shape: int, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Normal numbers that all calls of one shape share."""
        ...

    def mask(self, *shape: int) -> torch.Tensor:
        """Ones, int64: every token counts."""
        ...

    def positions(self, height: int, width: int) -> torch.Tensor:
        """[height x width, 3] the position ids of the tokens of an image, 0, line, column: shared like `fixed`."""
        ...


class Nothing:
    """Tensors on the meta device, of bfloat16 where no type is given."""

    def noise(self, *shape: int, dtype: torch.dtype | None = None) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype or torch.bfloat16, device="meta")

    def times(self, rows: int, most: float = 1000.0, dtype: torch.dtype | None = None) -> torch.Tensor:
        return self.noise(rows, dtype=dtype)

    def tokens(self, *shape: int, below: int) -> torch.Tensor:
        return self.noise(*shape, dtype=torch.int64)

    def fixed(self, *shape: int, dtype: torch.dtype | None = None) -> torch.Tensor:
        return self.noise(*shape, dtype=dtype)

    def mask(self, *shape: int) -> torch.Tensor:
        return self.noise(*shape, dtype=torch.int64)

    def positions(self, height: int, width: int) -> torch.Tensor:
        return self.noise(height * width, 3)


class _Asked(Nothing):
    """The same, with how many numbers each normal tensor has."""

    def __init__(self) -> None:
        self.numbers: list[int] = []

    def noise(self, *shape: int, dtype: torch.dtype | None = None) -> torch.Tensor:
        made = super().noise(*shape, dtype=dtype)
        self.numbers.append(made.numel())
        return made

    def times(self, rows: int, most: float = 1000.0, dtype: torch.dtype | None = None) -> torch.Tensor:
        return super().noise(rows, dtype=dtype)

    def tokens(self, *shape: int, below: int) -> torch.Tensor:
        return super().noise(*shape, dtype=torch.int64)

    def fixed(self, *shape: int, dtype: torch.dtype | None = None) -> torch.Tensor:
        return super().noise(*shape, dtype=dtype)

    def mask(self, *shape: int) -> torch.Tensor:
        return super().noise(*shape, dtype=torch.int64)


def prompt_numbers(denoiser: StageWork, module: Any, shapes: Sequence[Shape]) -> int:
    """Numbers of one row's prompt that a denoiser is given: of its inputs those that any latent shape leaves as they
    are."""
    of_shapes = []
    for shape in shapes:
        asked = _Asked()
        denoiser.call(0, module, 1, shape, asked)
        of_shapes.append(asked.numbers)
    return sum([each[0] for each in zip(*of_shapes, strict=True) if len(set(each)) == 1])


class _EveryTokenCounts(TorchFunctionMode):
    """Masks on the meta device say nothing, and some networks ask them: prompts fill their tokens."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.all, torch.Tensor.all) and len(args) == 1 and not kwargs:
            return True
        if func is torch.nonzero:
            return torch.arange(args[0].numel(), device=args[0].device)[:, None]
        if func is torch.Tensor.__invert__:
            inverted = func(*args)
            inverted.leaves_nothing = True  # type: ignore[attr-defined]
            return inverted
        if func is torch.Tensor.__getitem__ and isinstance(args[1], torch.Tensor) and args[1].dtype is torch.bool:
            rows = args[0]
            return rows[:0] if hasattr(args[1], "leaves_nothing") else rows.clone()
        return func(*args, **(kwargs or {}))


@contextmanager
def _on_meta() -> Iterator[None]:
    """Networks can run that ask their inputs for values, or for automatic types, which the meta device has not."""
    with _EveryTokenCounts(), patch.object(torch, "autocast", lambda *_: nullcontext()):
        yield


@dataclass(frozen=True)
class StageWork:
    """One stage of a model.

    Attributes:
        modules: makes its networks, on the default device, in the default type.
        call: what one of them (its index, itself) is given for ``rows`` rows of one latent shape.
        method: method of the networks, that does the work.
        tiles: None, or (latent shape of a tile, how far tiles lie apart) where the whole needs more memory than a
            device has, so that the documentation of its pipeline advises tiles.
        held: makes networks that a device holds beside those that run.
    """

    modules: Callable[[], Sequence[Any]]
    call: Callable[[int, Any, int, Shape, Inputs], DenoiserCall]
    method: str = "__call__"
    tiles: tuple[Shape, Shape] | None = None
    held: Callable[[], Sequence[Any]] = list

    def run(self, modules: Sequence[Any], rows: int, shape: Shape, inputs: Inputs | None = None) -> None:
        """Do the work of ``rows`` rows of one latent shape, by default on the meta device."""
        with _on_meta() if inputs is None else nullcontext():
            for index, module in enumerate(modules):
                self._run_one(index, module, rows, shape, inputs or Nothing())

    def _run_one(self, index: int, module: Any, rows: int, shape: Shape, inputs: Inputs) -> None:
        given = self.call(index, module, rows, shape, inputs)
        getattr(module, self.method)(*given.args, **given.kwargs)


_PICTURES = (diffusers.AutoencoderKL, diffusers.AutoencoderKLFlux2, diffusers.AutoencoderDC)


def decoder(channels: int, make: Callable[[], Any], tiles: tuple[Shape, Shape] | None = None) -> StageWork:
    """An autoencoder, of pictures or of clips; see `StageWork` for ``tiles``. One of pictures decodes the frames of a
    clip as so many pictures.
    """

    def call(_: int, module: Any, rows: int, shape: Shape, given: Inputs) -> DenoiserCall:
        frames, height, width = shape
        if isinstance(module, _PICTURES):
            return DenoiserCall((given.noise(rows * frames, channels, height, width),), {})
        latent = given.noise(rows, channels, *shape)
        if module.config.get("timestep_conditioning"):
            return DenoiserCall((latent, given.times(rows, most=1.0)), {})
        return DenoiserCall((latent,), {})

    return StageWork(lambda: [make()], call, "decode", tiles)


def encoder(*texts: tuple[Callable[[], Any], int], held: Callable[[], Sequence[Any]] = list) -> StageWork:
    """Text encoders, each with the tokens it is given; see `StageWork` for ``held``."""

    def call(index: int, module: Any, rows: int, shape: Shape, given: Inputs) -> DenoiserCall:
        return DenoiserCall((given.tokens(rows, texts[index][1], below=module.config.vocab_size),), {})

    return StageWork(lambda: [make() for make, _ in texts], call, held=held)
