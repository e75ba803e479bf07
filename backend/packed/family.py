"""What one model class has to say for its forward to be packed.

A family embeds the rows of each call with the model's own embedders, so that positions are counted within each image,
names the blocks and the modules that need a hook, and turns tokens back into latents. All that is between is the
model's own code.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch

from backend.coroutine import DenoiserCall
from backend.packed.flow import Flow, Rotary, Tables
from backend.packed.hooks import Hooks
from backend.packed.units import Grid

Arguments = dict[str, Any]
"""A denoiser call by the names of the model's forward."""
Block = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""Image and text tokens to image and text tokens."""


@dataclass(frozen=True)
class Tokens:
    """The rows of several calls, embedded.

    Attributes:
        image: [image tokens, 1, channels].
        text: [text tokens, 1, channels].
        image_lengths: tokens of each row, and so ``text_lengths``.
        condition: what modulates the blocks, one entry a row.
        rotary: positions, where they are not in the tokens already.
    """

    image: torch.Tensor
    text: torch.Tensor
    image_lengths: tuple[int, ...]
    text_lengths: tuple[int, ...]
    condition: Any
    rotary: Rotary | None = None


class Family:
    """Base of every family.

    Attributes:
        reads: arguments of the model's forward that the family understands. A call that gives anything else (an image
            prompt, residuals of a ControlNet) is not packed.
        scaled_by: the argument in which diffusers looks for the scale of LoRA weights.
        joint: whether text goes through the blocks with the image; else it only conditions them.
    """

    reads: frozenset[str] = frozenset()
    scaled_by = ""
    joint = True

    def __init__(self, model: Any) -> None:
        self.model = model
        self._signature = inspect.signature(type(model).forward)

    def accepts(self) -> bool:
        """Whether this configuration of the class can be packed."""
        return True

    def arguments(self, call: DenoiserCall) -> Arguments:
        """A call's arguments by name."""
        bound = self._signature.bind(self.model, *call.args, **call.kwargs).arguments
        return {name: value for name, value in bound.items() if name != "self" and value is not None}

    def shared(self, arguments: Arguments) -> Hashable | None:
        """What all calls of a pack must have in common; None when the call cannot be packed."""
        if not arguments.keys() <= self.reads | {"return_dict", self.scaled_by}:
            return None
        if not arguments.get(self.scaled_by, {}).keys() <= {"scale"}:
            return None
        return self.lora_scale(arguments), tuple((name, _kind(arguments.get(name))) for name in sorted(self.reads))

    def lora_scale(self, arguments: Arguments) -> float:
        """The scale of LoRA weights that the call asks for."""
        return float(arguments.get(self.scaled_by, {}).get("scale", 1.0))

    def embed(self, calls: Sequence[Arguments]) -> Tokens:
        """The tokens of all rows of all calls, in order."""
        raise NotImplementedError

    def hooks(self, flow: Flow) -> Hooks:
        """What to change in the model while ``flow`` is under way."""
        raise NotImplementedError

    def block_modules(self) -> list[Any]:
        """The model's blocks, in order."""
        return list(self.model.transformer_blocks)

    def blocks(self, flow: Flow, condition: Any) -> list[Block]:
        """How to run each of `block_modules` while ``flow`` is under way."""
        raise NotImplementedError

    def head(self, flow: Flow, image: torch.Tensor, condition: Any) -> torch.Tensor:
        """What follows the last block: [image tokens, 1, channels of one latent patch]."""
        raise NotImplementedError

    def grid(self, call: Arguments) -> Grid:
        """How the tokens of each of the call's rows lie: (frames, height, width)."""
        raise NotImplementedError

    def text_tokens(self, call: Arguments) -> int:
        """Text tokens of all rows of a call."""
        rows, tokens = call["encoder_hidden_states"].shape[:2]
        return int(rows * tokens)

    def entries(self, call: Arguments, rows: int) -> int:
        """Tokens of a call that go through the blocks."""
        return rows * prod(self.grid(call)) + (self.text_tokens(call) if self.joint else 0)

    def token_side(self) -> int:
        """Latent pixels along a token's side."""
        return int(self.model.config.patch_size)

    def unpatchify(self, patches: torch.Tensor, sample: torch.Tensor) -> torch.Tensor:
        """[rows, tokens, channels of one latent patch] to latents of ``sample``'s size, for one call."""
        raise NotImplementedError


def flatten_rows(tokens: torch.Tensor) -> torch.Tensor:
    """[rows, tokens, channels] to [rows x tokens, 1, channels]."""
    return tokens.flatten(0, 1)[:, None]


def lengths_of(tokens: Sequence[torch.Tensor]) -> tuple[int, ...]:
    """Tokens of each row of several [rows, tokens, channels]."""
    return tuple(n for t in tokens for n in [t.shape[1]] * t.shape[0])


def concatenated(calls: Sequence[Arguments], name: str) -> torch.Tensor:
    """An argument with one entry a row, of all calls."""
    return torch.cat([call[name] for call in calls])


def repeated(tables: Sequence[Tables], rows: Sequence[int]) -> Tables:
    """Rotary tables, one pair a call, for every row of the calls: [tokens, channels] each."""
    cos = torch.cat([table[0] for table, n in zip(tables, rows, strict=True) for _ in range(n)])
    sin = torch.cat([table[1] for table, n in zip(tables, rows, strict=True) for _ in range(n)])
    return cos, sin


def valid_text(mask: torch.Tensor, by_count: bool) -> tuple[tuple[int, ...], torch.Tensor]:
    """Which text tokens a mask keeps: how many in each row, and their indices among the rows' tokens.

    Args:
        mask: [rows, tokens], 1 for a token that is attended to, 0 for padding.
        by_count: keep the first tokens, as many as the row's ones; else keep the ones, and of a row without any all,
            as a mask that is a bias of attention scores does.

    Pipelines pass the same mask at every step, so the answer is kept on the tensor: reading it waits for the device.
    """
    known: tuple[tuple[int, ...], torch.Tensor] | None = getattr(mask, "_tilecast_valid", None)
    if known is None:
        keep = mask != 0
        if by_count:
            keep = torch.arange(mask.shape[1], device=mask.device) < keep.sum(1, keepdim=True)
        else:
            keep |= ~keep.any(1, keepdim=True)
        known = tuple(keep.sum(1).tolist()), keep.flatten().nonzero().flatten()
        mask._tilecast_valid = known  # type: ignore[attr-defined]
    return known


def _kind(value: Any) -> Hashable:
    if isinstance(value, torch.Tensor):
        return value.dtype, value.device, value.ndim
    if isinstance(value, dict):
        return tuple((name, _kind(value[name])) for name in sorted(value))
    if isinstance(value, list | tuple):
        return tuple(_kind(item) for item in value)
    return value
