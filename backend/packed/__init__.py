"""Exact packing: images and clips of any sizes in one forward of a diffusion transformer, whatever its class."""

from backend.packed.blocks import Blocks
from backend.packed.cached_blocks import CachedBlocks
from backend.packed.choice import packer_of

__all__ = ["Blocks", "CachedBlocks", "packer_of"]
