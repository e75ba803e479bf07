"""Which kernels a forward uses.

``auto`` takes the fused Triton kernels and recorded graphs on CUDA devices, and the plain PyTorch path elsewhere;
``reference`` is the plain path everywhere. Some kernels have instructions of NVIDIA's devices, so on AMD's, which
PyTorch calls CUDA as well, only graphs are taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

import torch

from traces.errors import BadInput

CHOICES = ("auto", "reference")


@dataclass(frozen=True, slots=True)
class Kernels:
    """What takes the place of plain PyTorch.

    Attributes:
        fused: Triton kernels, wherever they know the shapes and types; else their references.
        graphs: forwards whose kernels take longer to start than to run are recorded, a graph a shape, and replayed.
    """

    fused: bool = False
    graphs: bool = False


REFERENCE = Kernels()
"""Plain PyTorch, on every device."""


def kernels_for(choice: str, device: torch.device) -> Kernels:
    """What ``choice``, one of `CHOICES`, means on a device.

    Raises:
        BadInput: no such choice.
    """
    if choice not in CHOICES:
        raise BadInput(f"kernels is {choice!r}, expected one of {', '.join(CHOICES)}")
    if choice == "reference" or device.type != "cuda":
        return REFERENCE
    return Kernels(fused=torch.version.hip is None and find_spec("triton") is not None, graphs=True)
