"""What a tile costs by its size, from a video transformer's published shape alone.

A layer multiplies every token by 12 width^2 weights (attention's four projections and a feed-forward of four times the
width; joined blocks have as many) and every token by every other, twice over its width. So attention's part of a tile
grows with the square of its area, and its share follows from the tokens and the width.
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.refinement.published import FRAMES, TILE
from traces.geometry import ModelGeometry
from traces.request import Size

GEOMETRY = ModelGeometry("720p video", 8, 16, 16, (TILE[0] * 8, TILE[1] * 8), frame_factor=4, patch=2)
NATIVE: Size = (TILE[0] * 8, TILE[1] * 8, FRAMES)


@dataclass(frozen=True)
class Transformer:
    """Attributes: width of the hidden states, latent frames a token spans, tokens of the prompt."""

    width: int
    frames: int
    prompt: int

    def tokens(self, size: Size) -> float:
        """Of a tile of (height, width, frames) pixels, and its prompt."""
        _, latent_frames, height, width = GEOMETRY.latent_shape(size)
        return self.prompt + -(-latent_frames // self.frames) * height * width / GEOMETRY.patch**2

    def relative(self, size: Size) -> float:
        """Multiplications of a tile over those of one of native size."""
        here, native = self.tokens(size), self.tokens(NATIVE)
        return here * (6 * self.width + here) / (native * (6 * self.width + native))

    @property
    def attention(self) -> float:
        """Attention's share of a native tile's multiplications."""
        native = self.tokens(NATIVE)
        return native / (6 * self.width + native)


TRANSFORMERS = {"CogVideoX-1.5": Transformer(3072, 2, 226), "HunyuanVideo": Transformer(3072, 1, 256)}
"""As their published configurations have it."""
