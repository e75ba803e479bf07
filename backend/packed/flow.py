"""A packed forward under way: what the processors and hooks of its model look at.

With a cache not every token goes through every block. What is computed has a layout of its own then, queries come from
it alone, and the keys and values of the others from memory.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, Protocol

import torch

from backend.kernels.attention import Segments
from backend.kernels.choice import REFERENCE, Kernels
from backend.packed.layout import Layout
from backend.packed.per_row import PerRow

Tables = tuple[torch.Tensor, torch.Tensor]
"""Cosines and sines of rotary positions, [tokens, head channels] each."""


class Selection(NamedTuple):
    """The tokens that a block computes, as indices of a pack's image and text tokens, and their layout."""

    image: torch.Tensor
    text: torch.Tensor
    layout: Layout


class Rotary:
    """Rotary positions of a pack.

    Args:
        rotate: the family's own formula: [tokens, heads, channels] and tables to the same.
        image: tables of the image tokens, each row's positions counted in its own image.
        text: tables of the text tokens; None leaves text as it is.
    """

    def __init__(
        self,
        rotate: Callable[[torch.Tensor, Tables], torch.Tensor],
        image: Tables,
        text: Tables | None = None,
    ) -> None:
        self._rotate = rotate
        self._image = image
        self._text = text
        self._joint: Tables | None = None

    @property
    def tables(self) -> tuple[Tables | None, Tables | None]:
        """Those of the image and of the text tokens."""
        return self._image, self._text

    def over(self, tables: tuple[Tables | None, Tables | None]) -> Rotary:
        """The same formula over other `tables`; it cannot be used as long as those of image tokens are None."""
        other = copy.copy(self)
        other._image, other._text = tables  # type: ignore[assignment]
        other._joint = None
        return other

    def image(self, x: torch.Tensor) -> torch.Tensor:
        """Image tokens, turned."""
        return self._rotate(x, self._image)

    def text(self, x: torch.Tensor) -> torch.Tensor:
        """Text tokens, turned where text has positions."""
        return x if self._text is None else self._rotate(x, self._text)

    def joint(self, x: torch.Tensor, layout: Layout) -> torch.Tensor:
        """Tokens in joint order, turned. Text without positions is not touched, not even rounded."""
        if self._text is None:
            text, image = layout.split(x)
            return layout.join(text, self.image(image))
        if self._joint is None:
            (text_cos, text_sin), (image_cos, image_sin) = self._text, self._image
            self._joint = layout.join(text_cos, image_cos), layout.join(text_sin, image_sin)
        return self._rotate(x, self._joint)

    def of(self, selection: Selection) -> Rotary:
        """The positions of some tokens."""
        cos, sin = (table.index_select(0, selection.image) for table in self._image)
        text = None
        if self._text is not None:
            text = self._text[0].index_select(0, selection.text), self._text[1].index_select(0, selection.text)
        return Rotary(self._rotate, (cos, sin), text)


class CrossMemory(Protocol):
    """Keys and values of the tokens that a block does not compute."""

    def complete(self, name: str, k: torch.Tensor, v: torch.Tensor, joint: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Those of all tokens of the pack, given those of the computed ones.

        Args:
            name: which attention of the running block.
            k: [computed tokens, heads, channels], and so is ``v``.
            joint: whether tokens are in joint order; else image tokens alone.
        """
        ...


class Flow:
    """One packed forward.

    Args:
        layout: layout of all its tokens.
        rotary: their positions, where they are rotary.
        kernels: what its modules run on.

    Attributes:
        whole: the layout of all tokens.
        layout: the layout of the tokens that go through the running block, and ``rotary`` their positions.
        selection: which these are; None: all.
        memory: None when every block computes every token.
    """

    def __init__(self, layout: Layout, rotary: Rotary | None, kernels: Kernels = REFERENCE) -> None:
        self.kernels = kernels
        self.whole = self.layout = layout
        self.rotary = self._whole_rotary = rotary
        self.selection: Selection | None = None
        self.memory: CrossMemory | None = None

    @contextmanager
    def computing(self, selection: Selection) -> Iterator[None]:
        """Run a block on some of the tokens."""
        self.selection, self.layout = selection, selection.layout
        self.rotary = None if self._whole_rotary is None else self._whole_rotary.of(selection)
        try:
            yield
        finally:
            self.selection, self.layout, self.rotary = None, self.whole, self._whole_rotary

    def keys(
        self, name: str, k: torch.Tensor, v: torch.Tensor, joint: bool
    ) -> tuple[torch.Tensor, torch.Tensor, Segments]:
        """Keys and values to attend to, and their rows: of all tokens, whichever were computed. See `CrossMemory`."""
        if self.memory is not None:
            k, v = self.memory.complete(name, k, v, joint)
        return k, v, self.whole.joint if joint else self.whole.image

    def per_image_token(self, rows: torch.Tensor, becomes: torch.dtype | None = None) -> PerRow:
        """One entry a row to one entry an image token. See `PerRow` for ``becomes``."""
        return PerRow(rows, self.layout.image.rows, self.kernels.fused, becomes)

    def per_text_token(self, rows: torch.Tensor) -> PerRow:
        """One entry a row to one entry a text token."""
        return PerRow(rows, self.layout.text.rows, self.kernels.fused)

    def per_joint_token(self, rows: torch.Tensor) -> PerRow:
        """One entry a row to one entry a token, in joint order."""
        return PerRow(rows, self.layout.joint.rows, self.kernels.fused)

    def per_joint_token_of_streams(self, text: torch.Tensor, image: torch.Tensor) -> PerRow:
        """Entries of the rows for their text and for their image to one entry a token, in joint order."""
        return PerRow(torch.cat([text, image]), self.layout.rows_of_streams, self.kernels.fused)

    def of_image_tokens(self, tokens: torch.Tensor) -> torch.Tensor:
        """One entry an image token of the pack to those of the computed ones."""
        return tokens if self.selection is None else tokens.index_select(0, self.selection.image)
