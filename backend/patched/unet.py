"""A diffusers UNet that runs denoiser calls of any sizes in one forward, cut into equal patches.

Each row of each call is an image of its own, at its own timestep and with its own text, so requests of any size, step
and guidance share the batch; what comes out equals what the unmodified model gives each call alone, to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from math import gcd
from typing import Any

import torch

from backend.cache import Part
from backend.cached_state import Member
from backend.coroutine import DenoiserCall
from backend.kernels.choice import REFERENCE, Kernels
from backend.kernels.graphs import Recorder, replaced
from backend.merge import Stacked, merge_key, rows_of
from backend.patched.cache import PatchCache
from backend.patched.context import PatchContext
from backend.patched.hooks import Unpatchable, hook
from backend.patched.layout import PatchLayout, Side, group_sizes, layout_of, patch_of
from policies.caching import CachingPolicy
from traces.errors import BadInput

PATCH_FLOOR = 16
"""Latent pixels: on one CPU core patches of 16 cost 1.09 to 1.13 times whole images, of 8 1.25 to 1.33 times, over
three runs of the common divisors of ``python -m benchmarks.patches``."""


class PatchedUNet:
    """Runs calls of one UNet in patches.

    Args:
        pipeline: its ``unet`` is hooked; outside `run` it behaves as before.
        floor: least side of a patch, latent pixels. Sizes whose greatest common divisor is smaller get a forward of
            their own; a patch is in any case such that every level can halve it.
        caching: decides which patches are computed; None: all, and nothing is kept.
        cache_bytes: what the cache may keep.
        cache_patch: largest side of a patch with the cache, latent pixels; 0: images are not cut. A size keeps its
            patch whoever joins, so that what is kept of it stays of use: its sides' greatest common divisors with this.
        kernels: fused ones want channels last: without a cache, the UNet's weights are put in this order.
        recorder: may record forwards; not those with a cache, which decides on the way.

    Raises:
        BadInput: the pipeline has no UNet, or one with a module that patches cannot pass exactly.
    """

    def __init__(
        self,
        pipeline: Any,
        floor: int = PATCH_FLOOR,
        caching: CachingPolicy | None = None,
        cache_bytes: int = 2**30,
        cache_patch: int = 32,
        kernels: Kernels = REFERENCE,
        recorder: Recorder | None = None,
    ) -> None:
        self.unet = getattr(pipeline, "unet", None)
        if self.unet is None:
            raise BadInput(f"cluster.executor 'patched' needs a UNet; {type(pipeline).__name__} has none: use 'packed'")
        config = self.unet.config
        self.multiple = 2 ** (len(config.block_out_channels) - 1)
        self.floor = max(self.multiple, floor)
        self.context = PatchContext(kernels)
        if config.get("class_embed_type") or config.get("addition_embed_type") == "image_hint":
            raise BadInput(f"cluster.executor 'patched' does not know the embeddings of {type(pipeline).__name__}")
        try:
            hook(self.unet, self.context)
        except Unpatchable as error:
            raise BadInput(f"cluster.executor 'patched' cannot run {type(pipeline).__name__}: {error}") from error
        self.forward: Callable[..., Any] = self.unet.forward
        if kernels.fused and caching is None:
            self.unet.to(memory_format=torch.channels_last)
            self.forward = channels_last(self.unet.forward)
        self.recorder = recorder or Recorder()
        self._stacked = Stacked(self.forward, self.recorder)
        self.cache = None if caching is None else PatchCache(self.unet, self.context, caching, cache_bytes)
        self._cache_patch = cache_patch

    def key(self, call: DenoiserCall) -> Hashable:
        """Calls of equal keys share a forward, whatever their sizes and steps; see `floor`."""
        sample, _, text, rest = _arguments(call)
        height, width = sample.shape[-2:]
        if height % self.multiple or width % self.multiple or _unknown(rest):
            return merge_key(call)
        return (sample.dtype, sample.device, None if text is None else text.shape[1:], _settings(rest))

    def run(self, calls: Sequence[DenoiserCall]) -> list[Any]:
        """The outputs of calls of one `key`, in order."""
        sides = [_side(call) for call in calls]
        cut = not any(side % self.multiple for side in sides[0]) and not _unknown(_arguments(calls[0])[3])
        if self.cache is not None and cut:
            return self._run_cached(calls, self.cache)
        if len({merge_key(call) for call in calls}) == 1:
            return self._stacked.run(calls)
        outputs: list[Any] = [None] * len(calls)
        for group in group_sizes(sides, self.floor):
            members = [index for index, side in enumerate(sides) if side in group]
            of_group = [calls[index] for index in members]
            alike = len({merge_key(call) for call in of_group}) == 1
            done = self._stacked.run(of_group) if alike else self.run_patched(of_group)
            for index, output in zip(members, done, strict=True):
                outputs[index] = output
        return outputs

    def _run_cached(self, calls: Sequence[DenoiserCall], cache: PatchCache) -> list[Any]:
        """Calls of one patch together, those for which there is no room in a forward of their own.

        Images that are not cut keep less than cut ones (no borders), so they are apart from those of the same patch.
        """
        outputs: list[Any] = [None] * len(calls)
        members = [_member(call, self.patch_with_cache(_side(call))) for call in calls]
        groups: dict[tuple[Hashable, bool], list[int]] = {}
        for index, admitted in enumerate(cache.admit(members)):
            groups.setdefault((members[index].shape, admitted), []).append(index)
        for (_, admitted), indices in groups.items():
            of_group = [calls[index] for index in indices]
            patch = self.patch_with_cache(_side(of_group[0]))
            if admitted:
                batch = PatchBatch(of_group, patch)
                ordered = [indices[position] for position in batch.order]
                parts = [Part(members[index], calls[index].step, calls[index].steps) for index in ordered]
                with self.context.batch(batch.layout), cache.batch(parts):
                    done = batch.outputs(batch.forward(self.forward))
            else:
                done = self.run_patched(of_group, patch)
                cache.by_block[:, 0] += sum(members[index].units for index in indices)
            for index, output in zip(indices, done, strict=True):
                outputs[index] = output
        return outputs

    def patch_with_cache(self, side: Side) -> Side:
        """The patch of latents of this size when there is a cache."""
        height, width = (gcd(length, self._cache_patch) for length in side)  # gcd(n, 0) is n
        return (height if height >= self.multiple else side[0], width if width >= self.multiple else side[1])

    def run_patched(self, calls: Sequence[DenoiserCall], patch: Side | None = None) -> list[Any]:
        """Like `run`, in one forward in any case, on patches of ``patch`` latent pixels (by default the largest)."""
        batch = PatchBatch(calls, patch)
        layout = batch.layout

        def forward(patches: torch.Tensor, timesteps: torch.Tensor, text: Any, settings: dict[str, Any]) -> Any:
            with self.context.batch(layout):
                return self.forward(patches, timesteps, text, **settings)

        key = ("patches", layout.sizes, layout.patch)
        return batch.outputs(self.recorder.run(key, forward, *batch.arguments))


class PatchBatch:
    """Calls of one key as one call on patches, and the way back.

    Attributes:
        order: the calls' indices, equal sizes together.
        layout: one row a row of a call, in this order.
    """

    def __init__(self, calls: Sequence[DenoiserCall], patch: Side | None = None) -> None:
        self._calls = calls
        sides = [_side(call) for call in calls]
        self.order = sorted(range(len(calls)), key=lambda index: (sides[index], index))
        self.rows = [rows_of(calls[index]) for index in self.order]
        of_rows = tuple(sides[index] for index, rows in zip(self.order, self.rows, strict=True) for _ in range(rows))
        arguments = [_arguments(calls[index]) for index in self.order]
        self._samples = [sample for sample, *_ in arguments]
        self.layout: PatchLayout = layout_of(of_rows, patch or patch_of(of_rows), self._samples[0].device)
        timesteps = [timesteps_of(arguments[i][1], rows, self._samples[0]) for i, rows in enumerate(self.rows)]
        self.timesteps = torch.cat(timesteps)[self.layout.row_of]
        texts = [text for _, _, text, _ in arguments if text is not None]
        self.text = torch.cat(texts) if texts else None
        self.settings = _joined_settings([rest for *_, rest in arguments])

    @property
    def arguments(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, dict[str, Any]]:
        """Patches, their timesteps, the text, and the other arguments of the UNet's forward by name."""
        return self.layout.split(self._samples), self.timesteps, self.text, self.settings

    def forward(self, forward: Callable[..., Any]) -> Any:
        """What the UNet's forward gives the patches; to be called inside the context's batch."""
        patches, timesteps, text, settings = self.arguments
        return forward(patches, timesteps, text, **settings)

    def outputs(self, out: Any) -> list[Any]:
        """What the patched forward gave, as each call expects it, in the order of the calls."""
        patches = out[0] if isinstance(out, tuple) else out.sample
        rows = [row for stack in self.layout.join(patches) for row in stack.split(1)]
        outputs: list[Any] = [None] * len(self._calls)
        done = 0
        for index, count in zip(self.order, self.rows, strict=True):
            image = torch.cat(rows[done : done + count])
            outputs[index] = (image,) if isinstance(out, tuple) else type(out)(sample=image)
            done += count
        return outputs


def channels_last(forward: Callable[..., Any]) -> Callable[..., Any]:
    """A UNet's forward whose sample comes in and goes out in any memory format, and goes through in channels-last."""

    def call(sample: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        out = forward(sample.contiguous(memory_format=torch.channels_last), *args, **kwargs)
        return replaced(out, torch.Tensor.contiguous)

    return call


def timesteps_of(timestep: Any, rows: int, sample: torch.Tensor) -> torch.Tensor:
    """[rows] timesteps of a call that gave one number, or one a row."""
    if not isinstance(timestep, torch.Tensor):
        timestep = torch.tensor(timestep, dtype=torch.float64 if isinstance(timestep, float) else torch.int64)
    return timestep.to(sample.device).expand(rows)


def _arguments(call: DenoiserCall) -> tuple[torch.Tensor, Any, torch.Tensor | None, dict[str, Any]]:
    """(sample, timestep, encoder_hidden_states, the others) of a UNet call."""
    rest = dict(call.kwargs)
    names = ("sample", "timestep", "encoder_hidden_states")
    values = [call.args[i] if i < len(call.args) else rest.pop(name, None) for i, name in enumerate(names)]
    return values[0], values[1], values[2], rest


def _side(call: DenoiserCall) -> Side:
    height, width = _arguments(call)[0].shape[-2:]
    return int(height), int(width)


def _member(call: DenoiserCall, patch: Side) -> Member:
    height, width = _side(call)
    cut = (height, width) != patch
    return Member(call.request_id, rows_of(call) * (height // patch[0]) * (width // patch[1]), (patch, cut))


_PER_ROW = ("added_cond_kwargs",)
_SHARED = ("return_dict", "cross_attention_kwargs")


def _unknown(rest: dict[str, Any]) -> bool:
    """Whether a call has an argument that patches do not know, such as residuals of a ControlNet."""
    return any(value is not None and name not in (*_PER_ROW, *_SHARED) for name, value in rest.items())


def _settings(rest: dict[str, Any]) -> Hashable:
    added = rest.get("added_cond_kwargs") or {}
    return (
        tuple((name, repr(rest.get(name))) for name in _SHARED),
        tuple((name, tuple(added[name].shape[1:])) for name in sorted(added)),
    )


def _joined_settings(rests: Sequence[dict[str, Any]]) -> dict[str, Any]:
    joined = {name: value for name, value in rests[0].items() if value is not None}
    added = [rest.get("added_cond_kwargs") for rest in rests]
    if added[0]:
        joined["added_cond_kwargs"] = {name: torch.cat([a[name] for a in added if a]) for name in added[0]}
    return joined
