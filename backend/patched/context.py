"""What the hooked modules of one model know of the batch that runs through them."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager

import torch

from backend.kernels.choice import REFERENCE, Kernels
from backend.patched.layout import PatchLayout, Side, Strip

State = MutableMapping[str, torch.Tensor]


class PatchContext:
    """The layout of the running batch, shared by all hooked modules of one model.

    Inside `batch` the modules treat their input as patches; outside, the model is what it was. Inside `block` they
    get only the patches ``selected`` and take what they need of the others (border pixels, moments, keys and values)
    from ``state``, where everything they compute is kept.

    Args:
        kernels: what the modules run on.

    Attributes:
        layout: None outside a batch.
        selected: [computed] indices of the patches that go through the running block; None: all.
        rows: [computed] row of each of these patches.
    """

    def __init__(self, kernels: Kernels = REFERENCE) -> None:
        self.kernels = kernels
        self.layout: PatchLayout | None = None
        self.selected: torch.Tensor | None = None
        self.rows: torch.Tensor | None = None
        self._strips: dict[Side, Strip] | None = None
        self._state: State | None = None

    @contextmanager
    def batch(self, layout: PatchLayout) -> Iterator[None]:
        """Run the model on patches laid out like this."""
        self.layout, self.rows = layout, layout.row_of
        try:
            yield
        finally:
            self.layout = self.rows = None

    @contextmanager
    def block(self, selected: torch.Tensor | None, state: State) -> Iterator[None]:
        """Within `batch`: run a block on some patches, with what its modules keep."""
        assert self.layout is not None
        self._state = state
        if selected is not None:
            self.selected, self.rows = selected, self.layout.row_of[selected]
        try:
            yield
        finally:
            self.selected = self._strips = self._state = None
            self.rows = self.layout.row_of

    @property
    def keeps(self) -> bool:
        """Whether modules must keep what they compute."""
        return self._state is not None

    @property
    def strips(self) -> dict[Side, Strip]:
        """Neighbours of the patches selected, by direction; see `PatchLayout.strips_of`."""
        assert self.layout is not None
        assert self.selected is not None
        if self._strips is None:
            self._strips = self.layout.strips_of(self.selected)
        return self._strips

    def of_all(self, name: str, fresh: torch.Tensor) -> torch.Tensor:
        """What a module computed of the selected patches, with what was kept of the others: [patches, ...]."""
        if self._state is None:
            return fresh
        if self.selected is None:
            self._state[name] = fresh
            return fresh
        kept = self._state[name]
        kept.index_copy_(0, self.selected, fresh)
        return kept

    def queries_of_rows(self) -> list[int]:
        """How many of the computed patches each row has."""
        assert self.layout is not None
        if self.rows is None or self.selected is None:
            return self.layout.patches_of_row.tolist()
        counts: list[int] = torch.bincount(self.rows, minlength=len(self.layout.sizes)).tolist()
        return counts
