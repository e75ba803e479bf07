"""Small random LoRA files for the linear layers of a pipeline's components."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file


def lora_file(pipeline: Any, path: Path, seed: int, layers: tuple[str, ...], rank: int = 2) -> Path:
    """A LoRA of all linear layers whose name ends in one of ``layers``, in each component that takes one."""
    random = torch.Generator().manual_seed(seed)
    tensors: dict[str, torch.Tensor] = {}
    for component in pipeline._lora_loadable_modules:
        part = getattr(pipeline, component, None)
        for name, layer in part.named_modules() if part is not None else ():
            if isinstance(layer, torch.nn.Linear) and name.endswith(layers):
                for side, shape in (("A", (rank, layer.in_features)), ("B", (layer.out_features, rank))):
                    tensors[f"{component}.{name}.lora_{side}.weight"] = torch.randn(shape, generator=random) * 0.3
    save_file(tensors, path)
    return path
