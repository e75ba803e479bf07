"""Exact packing: images and clips of any sizes in one forward of a diffusion transformer."""

from backend.packed.choice import packer_of
from backend.packed.transformer import PackedTransformer

__all__ = ["PackedTransformer", "packer_of"]
