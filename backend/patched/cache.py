"""The patch cache of a UNet: before each block a caching policy says which patches to compute.

A block is one of the UNet's top-level blocks, in the order they run. A patch that is not computed keeps the block's
output of the last time it was; what computed patches need of it (border pixels, moments, keys and values) is kept as
well, so they still see the whole image. A block of which nothing is computed is not run. When everything is computed
the result is exactly that without a cache.

The change of a patch is measured since its kept output was computed, not since the last step: that is the change the
reuse would ignore.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any

import numpy as np
import torch

from backend.cache import BlockCache, Part
from backend.cached_state import State
from backend.patched.context import PatchContext
from policies.caching import CachingPolicy, Signals
from policies.caching.step import decide_block, watches_block

Tensors = list[torch.Tensor]


class PatchCache(BlockCache):
    """Asks a caching policy and keeps what it reuses, for one UNet. What is kept has one entry a patch.

    Args:
        unet: its top-level blocks are wrapped; outside `batch` they behave as before.
        context: context of the UNet's hooked modules.
        policy: the executor's own copy.
        budget_bytes: what may be kept; a request that does not fit runs without a cache.
    """

    def __init__(self, unet: Any, context: PatchContext, policy: CachingPolicy, budget_bytes: int) -> None:
        super().__init__(policy, budget_bytes, top_blocks(unet))
        self._context = context
        for index, block in enumerate(self.blocks):
            block.forward = _CachedBlock(self, index, block.forward, gives_skips=index < len(unet.down_blocks))
        self._state: State = {}
        self._has_output = np.zeros((len(self.blocks), 0), dtype=np.bool_)
        self._signals: Signals | None = None

    @contextmanager
    def batch(self, parts: Sequence[Part]) -> Iterator[None]:
        """Run one forward of the UNet with the cache; units stand as the layout's patches do, all of one patch."""
        with self.arranged(parts) as (self._state, known):
            self._has_output = np.repeat(known.numpy()[None], len(self.blocks), axis=0)
            self._signals = self.signals(parts, [part.member.units for part in parts])
            try:
                yield
            finally:
                self._signals, self._state = None, {}

    def run_block(self, index: int, inputs: Tensors, run: Callable[[torch.Tensor | None], Tensors]) -> Tensors:
        """The outputs of a block, computed by ``run`` (of the selected patches; None: all) where the policy says so.

        Args:
            inputs: the block's input and what comes in by skip connections, each [units, ...].
        """
        assert self._signals is not None
        state, has_output = self._state, self._has_output[index]
        watched = watches_block(self.policy, index)
        changes = self._changes(index, inputs, has_output) if watched else [np.where(has_output, 0.0, np.inf)]
        skip_change = np.max(changes[1:], axis=0) if len(changes) > 1 else np.zeros(len(has_output))
        signals = self._signals._replace(block=index, input_change=changes[0], skip_change=skip_change)
        computed = decide_block(self.policy, signals)
        chosen = int(computed.sum())
        self.by_block[index] += chosen, len(computed) - chosen
        if chosen == 0:
            return self._kept_outputs(index)
        selected = None
        if chosen < len(computed):
            selected = torch.from_numpy(np.flatnonzero(computed)).to(inputs[0].device)
        with self._context.block(selected, state):
            outputs = run(selected)
        if selected is None:
            state.update({f"block{index}.output{i}": tensor for i, tensor in enumerate(outputs)})
        else:
            kept = self._kept_outputs(index)
            for whole, fresh in zip(kept, outputs, strict=True):
                whole.index_copy_(0, selected, fresh)
            outputs = kept
        if watched:
            self._keep_inputs(index, inputs, selected)
        has_output[computed] = True
        return outputs

    def _kept_outputs(self, index: int) -> Tensors:
        outputs, names = [], (f"block{index}.output{i}" for i in count())
        while (tensor := self._state.get(next(names))) is not None:
            outputs.append(tensor)
        return outputs

    def _changes(self, index: int, inputs: Tensors, has_output: Any) -> list[Any]:
        """Relative mean squared change of each input since the kept output was computed, [units] each."""
        if not has_output.any():
            return [np.full(len(has_output), np.inf) for _ in inputs]
        state, changes = self._state, []
        for i, tensor in enumerate(inputs):
            reference, power = state[f"block{index}.input{i}"], state[f"block{index}.power{i}"]
            change = (tensor - reference).flatten(1).square().mean(1, dtype=power.dtype) / power.clamp_min(1e-30)
            changes.append(np.where(has_output, change.double().cpu().numpy(), np.inf))
        return changes

    def _keep_inputs(self, index: int, inputs: Tensors, selected: torch.Tensor | None) -> None:
        # Copies, because an input may be another block's kept output, which the next step writes to.
        state = self._state
        for i, tensor in enumerate(inputs):
            of = tensor if selected is None else tensor.index_select(0, selected)
            exact = torch.float64 if of.dtype == torch.float64 else torch.float32
            power = of.flatten(1).square().mean(1, dtype=exact)
            for name, fresh in ((f"block{index}.input{i}", of), (f"block{index}.power{i}", power)):
                if selected is None:
                    state[name] = fresh.clone()
                else:
                    state[name].index_copy_(0, selected, fresh)

    @property
    def active(self) -> bool:
        """Whether a cached batch is running."""
        return self._signals is not None


def top_blocks(unet: Any) -> list[Any]:
    """The blocks of a UNet in the order they run. What a down block puts out is the last of its skips."""
    middle = [unet.mid_block] if unet.mid_block is not None else []
    return [*unet.down_blocks, *middle, *unet.up_blocks]


class _CachedBlock:
    """The forward of one block: what the UNet hands it, cut down to the patches that are computed."""

    def __init__(self, cache: PatchCache, index: int, forward: Callable[..., Any], gives_skips: bool) -> None:
        self._cache = cache
        self._index = index
        self._forward = forward
        self._gives_skips = gives_skips

    def __call__(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if not self._cache.active:
            return self._forward(hidden_states, *args, **kwargs)
        skips: tuple[torch.Tensor, ...] = kwargs.get("res_hidden_states_tuple", ())

        def run(selected: torch.Tensor | None) -> Tensors:
            x, given = hidden_states, kwargs
            if selected is not None:
                x = x.index_select(0, selected)
                if skips:
                    chosen = tuple(skip.index_select(0, selected) for skip in skips)
                    given = {**kwargs, "res_hidden_states_tuple": chosen}
            out = self._forward(x, *args, **given)
            return list(out[1]) if self._gives_skips else [out]

        outputs = self._cache.run_block(self._index, [hidden_states, *skips], run)
        return (outputs[-1], tuple(outputs)) if self._gives_skips else outputs[0]
