"""Where the tokens of each row lie when rows of different sizes stand in one tensor.

A row is one image or clip of a denoiser call; with classifier-free guidance a request has two. Tokens of all rows
follow each other on the *batch* axis, [tokens, 1, channels], because every modulation in diffusers is written for
[batch, 1, channels]: a linear, a norm or a feed-forward works on such a tensor as it is, and a shift or a scale does
too, once it has one entry a token.

Image and text tokens are two streams. Blocks that mix them want a row's text and image side by side: that is the joint
order, row by row, text first.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, lru_cache

import torch

from backend.kernels.attention import Segments


class Layout:
    """The image tokens, the text tokens and the joint order of one pack.

    Attributes:
        image, text, joint: the rows of each.
        text_at, image_at: where the text and the image tokens stand in joint order.
    """

    def __init__(self, image: Sequence[int], text: Sequence[int], device: torch.device) -> None:
        self.image = Segments(image, device)
        self.text = Segments(text, device)
        self.joint = Segments([t + i for t, i in zip(text, image, strict=True)], device)
        self._runs = [n for pair in zip(text, image, strict=True) for n in pair]
        self._device = device

    @cached_property
    def text_at(self) -> torch.Tensor:
        return self.split(torch.arange(len(self.joint.rows), device=self._device))[0]

    @cached_property
    def image_at(self) -> torch.Tensor:
        return self.split(torch.arange(len(self.joint.rows), device=self._device))[1]

    @cached_property
    def rows_of_streams(self) -> torch.Tensor:
        """The row of each token in joint order, where rows stand twice: all for their text, then for their image."""
        return self.join(self.text.rows, self.image.rows + len(self.image.lengths))

    def join(self, text: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        """Two streams, [text tokens, ...] and [image tokens, ...], in joint order."""
        runs = zip(text.split(self.text.lengths), image.split(self.image.lengths), strict=True)
        return torch.cat([run for pair in runs for run in pair])

    def split(self, joint: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The text and the image tokens of a tensor in joint order."""
        runs = joint.split(self._runs)
        return torch.cat(runs[0::2]), torch.cat(runs[1::2])


@lru_cache(maxsize=64)
def layout_of(image: tuple[int, ...], text: tuple[int, ...], device: torch.device) -> Layout:
    """The layout of a composition; a batch whose composition stays keeps its tables."""
    return Layout(image, text, device)
