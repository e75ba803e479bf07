"""The patch cache of a transformer: before each block a caching policy says which image tokens go through it.

A block is one transformer block, a unit a group of neighbouring image tokens of one row. A unit that is not computed
keeps the block's output of the last time it was; its keys and values are kept as well, so that the computed tokens
still attend to the whole image. Text goes through a block with every row of which something is computed; a row of
which nothing is computed keeps its text too. A block of which nothing is computed is not run. When everything is
computed the result is exactly that without a cache.

What is decided for a row depends on nothing but this row, so a request is served the same whoever runs beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from backend.cache import BlockCache, Part
from backend.cached_state import Member, State
from backend.packed.family import Block, Tokens
from backend.packed.flow import Flow, Selection
from backend.packed.layout import Layout
from backend.packed.units import Units
from policies.caching import CachingPolicy, Signals
from policies.caching.contract import Flags, Floats
from policies.caching.step import decide_block, watches_block


class TokenCache(BlockCache):
    """Asks a caching policy and keeps what it reuses, for one transformer.

    What is kept has one entry a token: of text and image in joint order, or of the image alone.

    Args:
        policy: the executor's own copy.
        budget_bytes: what may be kept; a request that does not fit runs without a cache.
        blocks: the model's, in the order they run.
        joint: whether text goes through the blocks; else it only conditions them.
    """

    def __init__(self, policy: CachingPolicy, budget_bytes: int, blocks: Sequence[Any], joint: bool) -> None:
        super().__init__(policy, budget_bytes, blocks)
        self.joint = joint
        self._names: dict[str, set[str]] = {}

    def member(self, request_id: str, part: int, tokens: int) -> Member:
        """A call in the kept state. The calls of one step (with and without the text) are kept apart, and so are the
        batches they stand in: these follow each other in every step."""
        name = f"{request_id}\0{part}" if part else request_id  # no request can be called so
        self._names.setdefault(request_id, set()).add(name)
        return Member(name, tokens, part)

    def forget(self, request_id: str) -> None:
        """The request has ended."""
        for name in self._names.pop(request_id, {request_id}):
            super().forget(name)

    def run(
        self,
        flow: Flow,
        blocks: Sequence[Block],
        tokens: Tokens,
        units: Units,
        parts: Sequence[Part],
        rows: Sequence[int],
    ) -> torch.Tensor:
        """The image tokens after all blocks, [image tokens, 1, channels].

        Args:
            flow: the forward under way, of all tokens.
            blocks: the family's, in order.
            tokens: what goes in.
            units: units of the image tokens.
            parts: the calls, all the same part of their steps, with ``rows`` rows each.
        """
        units_of_parts = units.of_rows(rows)
        image, text = tokens.image, tokens.text
        with self.arranged(parts) as (state, known):
            firsts = np.cumsum([0, *(part.member.units for part in parts)])[:-1]
            has_output = np.repeat(known.numpy()[firsts], units_of_parts)
            signals = self.signals(parts, units_of_parts)
            flow.memory = cached = CachedPass(self, state, flow, units)
            try:
                for index, block in enumerate(blocks):
                    image, text = cached.run_block(index, block, image, text, signals, has_output)
            finally:
                flow.memory = None
        return image


class CachedPass:
    """One forward with the cache; the flow's memory meanwhile.

    What is kept has an entry a token of the stream that goes through the blocks. ``_at`` are the entries of the tokens
    that the running block computes, None for all of them; ``_image_at`` are those of image tokens.
    """

    def __init__(self, cache: TokenCache, state: State, flow: Flow, units: Units) -> None:
        self._cache = cache
        self._state = state
        self._flow = flow
        self._units = units
        self._of_token = torch.from_numpy(units.of_token).to(flow.whole.image.rows.device)
        self._row_of_text = np.repeat(np.arange(len(flow.whole.text.lengths)), flow.whole.text.lengths)
        self._block = 0
        self._at: torch.Tensor | None = None
        self._image_at: torch.Tensor | None = None

    def run_block(
        self, index: int, block: Block, image: torch.Tensor, text: torch.Tensor, signals: Signals, has_output: Flags
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What a block gives, computed where the policy says so; ``has_output``: units of which something is kept."""
        cache, flow = self._cache, self._flow
        watched = watches_block(cache.policy, index)
        change = self._change(index, image, has_output) if watched else np.where(has_output, 0.0, np.inf)
        computed = decide_block(cache.policy, signals._replace(block=index, input_change=change))
        count = int(computed.sum())
        cache.by_block[index] += count, len(computed) - count
        if count == 0:
            return self._parted(self._state[f"block{index}.output"], text)
        self._block = index
        if count == len(computed):
            self._at, self._image_at = None, flow.whole.image_at if cache.joint else None
            fresh, after = image, block(image, text)
            self._store(f"block{index}.output", self._whole(*after))
        else:
            selection = self._select(computed)
            self._image_at = flow.whole.image_at[selection.image] if cache.joint else selection.image
            self._at = self._image_at
            if cache.joint:
                self._at = selection.layout.join(flow.whole.text_at[selection.text], self._image_at)
            fresh = image.index_select(0, selection.image)
            with flow.computing(selection):
                computed_after = block(fresh, text.index_select(0, selection.text))
                kept = self._store(f"block{index}.output", self._whole(*computed_after))
            after = self._parted(kept, text)
        if watched:
            exact = torch.float64 if fresh.dtype == torch.float64 else torch.float32
            self._store_image(f"block{index}.input", fresh.clone())  # it may be the kept output of the block before
            self._store_image(f"block{index}.power", fresh.square().mean((1, 2), dtype=exact))
        return after[0], after[1] if cache.joint else text

    def complete(self, name: str, k: torch.Tensor, v: torch.Tensor, joint: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of all tokens, given those of the computed ones. See `backend.packed.flow.CrossMemory`."""
        store = self._store if joint else self._store_image
        return store(f"block{self._block}.{name}.key", k), store(f"block{self._block}.{name}.value", v)

    def _change(self, index: int, image: torch.Tensor, has_output: Flags) -> Floats:
        """Relative mean squared change of each unit's input since its kept output was computed, [units]."""
        if not has_output.any():
            return np.full(len(has_output), np.inf)
        reference, power = (self._image_of(f"block{index}.{name}") for name in ("input", "power"))
        change = (image - reference).square().mean((1, 2), dtype=power.dtype)
        sums = power.new_zeros(2, len(self._units)).index_add_(1, self._of_token, torch.stack((change, power)))
        relative = (sums[0] / sums[1].clamp_min(1e-30)).double().cpu().numpy()
        return np.where(has_output, relative, np.inf)

    def _select(self, computed: Flags) -> Selection:
        """The image tokens of some units, and the text of their rows."""
        units, layout = self._units, self._flow.whole
        device = layout.image.rows.device
        tokens = np.bincount(units.row[computed], units.tokens[computed], minlength=len(layout.image.lengths))
        active = tokens > 0
        return Selection(
            image=torch.from_numpy(np.flatnonzero(computed[units.of_token])).to(device),
            text=torch.from_numpy(np.flatnonzero(active[self._row_of_text])).to(device),
            layout=Layout(
                tokens.astype(int).tolist(), (active * np.array(layout.text.lengths)).astype(int).tolist(), device
            ),
        )

    def _whole(self, image: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """The stream that goes through the blocks."""
        return self._flow.layout.join(text, image) if self._cache.joint else image

    def _parted(self, stream: torch.Tensor, text: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if not self._cache.joint:
            return stream, text
        text, image = self._flow.whole.split(stream)
        return image, text

    def _store(self, name: str, fresh: torch.Tensor) -> torch.Tensor:
        """Keep what was computed of the stream; what is kept of all of it."""
        state = self._state
        if self._at is None:
            state[name] = fresh
        else:
            state[name].index_copy_(0, self._at, fresh)
        return state[name]

    def _store_image(self, name: str, fresh: torch.Tensor) -> torch.Tensor:
        """Keep what was computed of the image; what is kept of all of it."""
        if not self._cache.joint:
            return self._store(name, fresh)
        assert self._image_at is not None
        state = self._state
        if name not in state:
            state[name] = fresh.new_zeros(len(self._flow.whole.joint.rows), *fresh.shape[1:])
        state[name].index_copy_(0, self._image_at, fresh)
        return self._image_of(name)

    def _image_of(self, name: str) -> torch.Tensor:
        kept = self._state[name]
        return kept.index_select(0, self._flow.whole.image_at) if self._cache.joint else kept
