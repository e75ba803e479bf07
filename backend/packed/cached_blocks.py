"""Packed blocks with a cache: a policy says which tokens go through which block, and what the others keep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from backend.coroutine import DenoiserCall
from backend.kernels.choice import REFERENCE, Kernels
from backend.kernels.graphs import Recorder
from backend.packed.blocks import Blocks, alike_together
from backend.packed.cache import CachedPass, Given, NoRoom, PackedBlock, TokenCache
from backend.packed.lockstep import BY_ITSELF, Stop
from backend.packed.pack import NotPackable
from backend.packed.trust import Launched
from backend.packed.units import Grid, grid_of_tokens
from policies.caching import CachingPolicy


class CachedBlocks(Blocks):
    """`Blocks` of which a caching policy decides which tokens are computed.

    Args:
        model: a transformer of diffusers.
        caching: decides which tokens go through which block, refiners of the text or the image apart.
        cache_bytes: what the cache may keep.
        cache_patch: side of the groups of tokens that the cache decides about, latent pixels; 0: whole images.
        kernels: kernels of the packed blocks.
        recorder: may record the forwards of calls that are equal in every shape.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        caching: CachingPolicy,
        cache_bytes: int = 2**30,
        cache_patch: int = 32,
        kernels: Kernels = REFERENCE,
        recorder: Recorder | None = None,
    ) -> None:
        super().__init__(model, kernels, recorder)
        cached = [block for block, name in self.blocks.items() if "refiner" not in name]
        self.cache = TokenCache(caching, cache_bytes, cached, cache_patch)
        self._pass: CachedPass | None = None

    def run(self, calls: Sequence[DenoiserCall]) -> list[Any]:
        """See `Lockstep.run`. Calls that are the same part of their steps run together."""
        outputs: list[Any] = [None] * len(calls)
        groups: dict[int, list[int]] = {}
        for index, call in enumerate(calls):
            groups.setdefault(call.part, []).append(index)
        for indices in groups.values():
            done = self._run_cached([calls[index] for index in indices])
            for index, output in zip(indices, done, strict=True):
                outputs[index] = output
        return outputs

    @torch.no_grad()
    def _run_cached(self, calls: Sequence[DenoiserCall]) -> list[Any]:
        order = alike_together(calls)
        ordered = [calls[index] for index in order]
        try:
            with CachedPass(self.cache, ordered, self._grid) as self._pass:
                done = self.in_order(ordered)
        except NoRoom as error:
            self._pass = None
            done = self._run_some_cached(ordered, error)
        finally:
            self._pass = None
        return [done[order.index(index)] for index in range(len(calls))]

    def _run_some_cached(self, calls: Sequence[DenoiserCall], room: NoRoom) -> list[Any]:
        """Those for which there is room with the cache, the others without."""
        outputs: list[Any] = [None] * len(calls)
        for admitted in (True, False):
            indices = [index for index, has_room in enumerate(room.admitted) if has_room == admitted]
            if not indices:
                continue
            some = [calls[index] for index in indices]
            done = self._run_cached(some) if admitted else super().run(some)
            if not admitted:
                self.cache.by_block[:, 0] += sum(room.units[index] for index in indices)
            for index, output in zip(indices, done, strict=True):
                outputs[index] = output
        return outputs

    def _grid(self, call: DenoiserCall, tokens: int) -> tuple[Grid, int]:
        patch = getattr(self.model.config, "patch_size", 1)
        return grid_of_tokens(call, tokens, patch[-1] if isinstance(patch, list | tuple) else patch or 1)

    def packs(self, layer: torch.nn.Module, stops: Sequence[Stop]) -> bool:
        """See `Blocks.packs`. A cached block runs packed for one call, too."""
        return super().packs(layer, stops) or self._is_cached(layer)

    def _is_cached(self, layer: torch.nn.Module) -> bool:
        return self._pass is not None and layer in self.cache.index

    def at_once(self, layer: torch.nn.Module, stops: Sequence[Stop]) -> list[Any]:
        """See `Blocks.at_once`; as much of it as the policy wants computed."""
        if self._pass is None or layer not in self.cache.index:
            return super().at_once(layer, stops)
        if not self.all_came(stops):
            raise NotPackable("some calls do not come to it")
        cached, trust = self._pass, self.trust
        calls = [trust.named(layer, stop) for stop in stops]
        launch = trust.launch(layer, calls, any_lengths=True)
        if launch.form not in trust or layer not in self.cache.given:
            rows = sum(launch.packer.streams.rows)
            self._pass = None
            try:
                super().at_once(layer, stops if rows > 1 else [*stops, *stops])  # one row alone would prove nothing
            finally:
                self._pass = cached
            launch = trust.launch(layer, calls, any_lengths=True)
        block = PackedBlock(layer, stops[0].forward, launch.packer, launch.pack, launch.arguments)
        if launch.form not in trust or not cached.takes(block):
            return super().at_once(layer, stops) if len(stops) > 1 else [BY_ITSELF]
        given = cached.run(block, trust.habits(launch.form).joins)
        self.packed[type(layer).__name__] += 1
        return given

    def ran(self, layer: torch.nn.Module, stops: Sequence[Stop], launched: Launched) -> None:
        """See `Blocks.ran`. Cached blocks are asked about one by one: there are no chains of them."""
        self.cache.given[layer] = Given.of(launched.out, launched.calls.pack)
