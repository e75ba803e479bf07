"""What a model is told for the length of one forward, and only that long."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from diffusers.utils import USE_PEFT_BACKEND, scale_lora_layers, unscale_lora_layers


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
