"""A model's modules changed for the length of one packed forward, and only that long.

Nothing stays on the model: outside a packed forward it is the stock model, whatever is loaded into it, and two models
in two threads share nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from diffusers.utils import USE_PEFT_BACKEND, scale_lora_layers, unscale_lora_layers

from backend.packed.per_row import PerRow


class Hooks(NamedTuple):
    """What a packed forward changes.

    Attributes:
        processors: attention modules and the processor each has meanwhile.
        expansions: modules that give one entry a row (the linear of an adaptive norm), and what makes of their output
            one entry a token.
    """

    processors: Sequence[tuple[Any, Callable[..., Any]]]
    expansions: Sequence[tuple[torch.nn.Module, Callable[[torch.Tensor], PerRow]]] = ()


@contextmanager
def hooked(hooks: Hooks) -> Iterator[None]:
    """The changes in force."""
    stock = [(module, module.processor) for module, _ in hooks.processors]
    handles = [
        module.register_forward_hook(lambda _module, _args, output, expand=expand: expand(output))
        for module, expand in hooks.expansions
    ]
    try:
        for module, processor in hooks.processors:
            module.processor = processor
        yield
    finally:
        for module, processor in stock:
            module.processor = processor
        for handle in handles:
            handle.remove()


@contextmanager
def lora_scaled(model: Any, scale: float) -> Iterator[None]:
    """The model's LoRA weights at ``scale``, as diffusers scales them in a forward of its own."""
    if scale == 1.0 or not USE_PEFT_BACKEND:
        yield
        return
    scale_lora_layers(model, scale)
    try:
        yield
    finally:
        unscale_lora_layers(model, scale)
