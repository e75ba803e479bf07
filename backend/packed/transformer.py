"""Denoiser calls of mixed sizes in one forward of an unmodified diffusers transformer.

Whole-image batching can only stack equal shapes. A transformer does not need that: nearly all of it works token by
token, so the tokens of any images can stand in one tensor, as long as attention stays within each image, positions are
counted within each image, and each token is modulated by its own image's timestep. The result is the stock model's, to
the rounding of the arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from itertools import islice
from typing import Any

import torch
from diffusers.models.modeling_outputs import Transformer2DModelOutput

from backend.cache import Part
from backend.coroutine import DenoiserCall
from backend.kernels.choice import REFERENCE, Kernels
from backend.kernels.graphs import Recorder
from backend.merge import Stacked, merge_key, rows_of
from backend.packed.cache import TokenCache
from backend.packed.cogvideox import PackedCogVideoX
from backend.packed.family import Arguments, Family
from backend.packed.flow import Flow, Rotary
from backend.packed.flux import PackedFlux
from backend.packed.hooks import hooked, lora_scaled
from backend.packed.hunyuan_video import PackedHunyuanVideo
from backend.packed.layout import Layout, layout_of
from backend.packed.pixart import PackedPixArt
from backend.packed.stable_diffusion_3 import PackedStableDiffusion3
from backend.packed.units import units_of
from backend.packed.wan import PackedWan
from policies.caching import CachingPolicy

FAMILIES: dict[str, type[Family]] = {
    "CogVideoXTransformer3DModel": PackedCogVideoX,
    "FluxTransformer2DModel": PackedFlux,
    "HunyuanVideoTransformer3DModel": PackedHunyuanVideo,
    "PixArtTransformer2DModel": PackedPixArt,
    "SD3Transformer2DModel": PackedStableDiffusion3,
    "WanTransformer3DModel": PackedWan,
}


def supports(model: Any) -> bool:
    """Whether a model's calls can be packed: by its class, and by what its configuration conditions it on."""
    family = FAMILIES.get(type(model).__name__)
    return family is not None and family(model).accepts()


class PackedTransformer:
    """Runs denoiser calls of any sizes together.

    Args:
        model: a transformer that `supports` names. Between calls of `run` it is left as it is.
        caching: decides which image tokens go through which block; None: all, and nothing is kept.
        cache_bytes: what the cache may keep.
        cache_patch: side of the groups of image tokens that the cache decides about, latent pixels; 0: whole images.
        kernels: kernels of the packed forward.
        recorder: may record forwards; not those with a cache, which decides on the way.

    Attributes:
        cache: None without a caching policy.

    Raises:
        ValueError: the model is not one of them.
    """

    def __init__(
        self,
        model: Any,
        caching: CachingPolicy | None = None,
        cache_bytes: int = 2**30,
        cache_patch: int = 32,
        kernels: Kernels = REFERENCE,
        recorder: Recorder | None = None,
    ) -> None:
        if not supports(model):
            raise ValueError(f"cannot pack calls of {type(model).__name__}; known: {', '.join(sorted(FAMILIES))}")
        self.model = model
        self.cache: TokenCache | None = None
        self._family = family = FAMILIES[type(model).__name__](model)
        self.recorder = recorder or Recorder()
        self._kernels = kernels
        self._stacked = Stacked(model.forward, self.recorder)
        self._unit_side = -(-cache_patch // family.token_side())
        if caching is not None:
            self.cache = TokenCache(caching, cache_bytes, family.block_modules(), family.joint)

    def key(self, call: DenoiserCall) -> Hashable:
        """Calls of equal keys share a forward: sizes, timesteps, texts and guidance do not matter.

        A call with something a pack has no place for (an image prompt, residuals of a ControlNet) can only be stacked.
        """
        shared = self._family.shared(self._family.arguments(call))
        return ("stacked", merge_key(call)) if shared is None else ("packed", shared)

    @torch.no_grad()
    def run(self, calls: Sequence[DenoiserCall]) -> list[Any]:
        """The outputs of calls of one `key`, in order, each as the stock forward would give it to the call alone.

        Calls that happen to be equal in every shape are stacked, which costs less than packing them.
        """
        packable = self._family.shared(self._family.arguments(calls[0])) is not None
        if self.cache is not None and packable:
            return self._run_cached(calls, self.cache)
        if not packable or len({merge_key(call) for call in calls}) == 1:
            return self._stacked.run(calls)
        return self.run_packed(calls)

    def run_packed(self, calls: Sequence[DenoiserCall], parts: Sequence[Part] | None = None) -> list[Any]:
        """Like `run`, packed in any case; with the cache where ``parts`` says which requests the calls belong to."""
        arguments = [self._family.arguments(call) for call in calls]
        scale = self._family.lora_scale(arguments[0])
        with lora_scaled(self.model, scale):
            samples = self._denoise(arguments, [rows_of(call) for call in calls], parts, scale)
        return [
            Transformer2DModelOutput(sample=sample) if asked.get("return_dict", True) else (sample,)
            for sample, asked in zip(samples, arguments, strict=True)
        ]

    def _run_cached(self, calls: Sequence[DenoiserCall], cache: TokenCache) -> list[Any]:
        """Calls that are the same part of their steps share a forward; so do those for which there is no room."""
        outputs: list[Any] = [None] * len(calls)
        members = [
            cache.member(call.request_id, call.part, self._family.entries(self._family.arguments(call), rows_of(call)))
            for call in calls
        ]
        groups: dict[int | None, list[int]] = {}
        for index, admitted in enumerate(cache.admit(members)):
            groups.setdefault(calls[index].part if admitted else None, []).append(index)
        for part, indices in groups.items():
            parts = [Part(members[index], calls[index].step, calls[index].steps) for index in indices]
            done = self.run_packed([calls[index] for index in indices], None if part is None else parts)
            if part is None:
                cache.by_block[:, 0] += sum(self._units(calls[index]) for index in indices)
            for index, output in zip(indices, done, strict=True):
                outputs[index] = output
        return outputs

    def _units(self, call: DenoiserCall) -> int:
        """Cache units of all rows of a call."""
        grids = (self._family.grid(self._family.arguments(call)),) * rows_of(call)
        return len(units_of(grids, self._unit_side))

    def _denoise(
        self, calls: Sequence[Arguments], rows: Sequence[int], parts: Sequence[Part] | None, scale: float
    ) -> list[torch.Tensor]:
        family, tokens = self._family, self._family.embed(calls)
        layout = layout_of(tokens.image_lengths, tokens.text_lengths, tokens.image.device)
        if parts is not None and self.cache is not None:
            flow = Flow(layout, tokens.rotary, self._kernels)
            with hooked(family.hooks(flow)):
                grids = tuple(family.grid(call) for call, n in zip(calls, rows, strict=True) for _ in range(n))
                blocks, units = family.blocks(flow, tokens.condition), units_of(grids, self._unit_side)
                image = self.cache.run(flow, blocks, tokens, units, parts, rows)
                patches = family.head(flow, image, tokens.condition)
        else:
            rotary = tokens.rotary
            patches = self.recorder.run(
                ("packed", tokens.image_lengths, tokens.text_lengths, scale),
                self._through(layout, None if rotary is None else rotary.over((None, None))),
                tokens.image,
                tokens.text,
                tokens.condition,
                None if rotary is None else rotary.tables,
            )
        of_rows = iter(patches[:, 0].split(layout.image.lengths))
        return [
            family.unpatchify(torch.stack(list(islice(of_rows, n))), call["hidden_states"])
            for call, n in zip(calls, rows, strict=True)
        ]

    def _through(self, layout: Layout, rotary: Rotary | None) -> Callable[..., torch.Tensor]:
        """From embedded tokens to patches, through all blocks: what can be recorded. ``rotary`` needs no tables."""
        family, kernels = self._family, self._kernels

        def forward(image: torch.Tensor, text: torch.Tensor, condition: Any, tables: Any) -> torch.Tensor:
            flow = Flow(layout, None if rotary is None else rotary.over(tables), kernels)
            with hooked(family.hooks(flow)):
                for block in family.blocks(flow, condition):
                    image, text = block(image, text)
                return family.head(flow, image, condition)

        return forward
