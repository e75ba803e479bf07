"""Exact packing: images and clips of any sizes in one forward of a diffusion transformer."""

from backend.packed.transformer import PackedTransformer, supports

__all__ = ["PackedTransformer", "supports"]
