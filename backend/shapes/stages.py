"""The stages of a model: its networks, and what each is called with, on the meta device or on a real one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import diffusers
import torch

from backend.coroutine import DenoiserCall

Shape = tuple[int, int, int]
"""Of a latent: frames, height, width."""


class Inputs(Protocol):
    """Makes what networks are given. A type of None is the networks' own."""

    def noise(self, *shape: int, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Normal numbers."""
        ...

    def times(self, rows: int, most: float = 1000.0, dtype: torch.dtype | None = None) -> torch.Tensor:
        """[rows] one timestep from 0 to ``most``, for all rows of a call."""
        ...

    def tokens(self, *shape: int, below: int) -> torch.Tensor:
        """Token ids from 0 on, int64."""
        ...

    def fixed(self, *shape: int, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Normal numbers that all calls of one shape share."""
        ...

    def mask(self, *shape: int) -> torch.Tensor:
        """Ones, int64: every token counts."""
        ...

    def positions(self, height: int, width: int) -> torch.Tensor:
        """[height x width, 3] the position ids of the tokens of an image, 0, line, column: shared like `fixed`."""
        ...


class Nothing:
    """Tensors on the meta device, of bfloat16 where no type is given."""

    def noise(self, *shape: int, dtype: torch.dtype | None = None) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype or torch.bfloat16, device="meta")

    def times(self, rows: int, most: float = 1000.0, dtype: torch.dtype | None = None) -> torch.Tensor:
        return self.noise(rows, dtype=dtype)

    def tokens(self, *shape: int, below: int) -> torch.Tensor:
        return self.noise(*shape, dtype=torch.int64)

    def fixed(self, *shape: int, dtype: torch.dtype | None = None) -> torch.Tensor:
        return self.noise(*shape, dtype=dtype)

    def mask(self, *shape: int) -> torch.Tensor:
        return self.noise(*shape, dtype=torch.int64)

    def positions(self, height: int, width: int) -> torch.Tensor:
        return self.noise(height * width, 3)


@dataclass(frozen=True)
class StageWork:
    """One stage of a model.

    Attributes:
        modules: makes its networks, on the default device, in the default type.
        call: what one of them (its index, itself) is given for ``rows`` rows of one latent shape.
        method: method of the networks, that does the work.
        tiles: None, or (latent shape of a tile, how far tiles lie apart) where the whole needs more memory than a
            device has, so that the documentation of its pipeline advises tiles.
    """

    modules: Callable[[], Sequence[Any]]
    call: Callable[[int, Any, int, Shape, Inputs], DenoiserCall]
    method: str = "__call__"
    tiles: tuple[Shape, Shape] | None = None

    def run(self, modules: Sequence[Any], rows: int, shape: Shape, inputs: Inputs | None = None) -> None:
        """Do the work of ``rows`` rows of one latent shape, by default on the meta device."""
        for index, module in enumerate(modules):
            self._run_one(index, module, rows, shape, inputs or Nothing())

    def _run_one(self, index: int, module: Any, rows: int, shape: Shape, inputs: Inputs) -> None:
        given = self.call(index, module, rows, shape, inputs)
        getattr(module, self.method)(*given.args, **given.kwargs)


def unet(make: Callable[[], Any], text: int = 77) -> StageWork:
    """A UNet that is given so many text tokens, and SDXL's additions where it wants them."""

    def call(_: int, module: Any, rows: int, shape: Shape, given: Inputs) -> DenoiserCall:
        config, (_, height, width) = module.config, shape
        added = None
        if config.addition_embed_type == "text_time":
            pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
            added = {"text_embeds": given.noise(rows, pooled), "time_ids": given.noise(rows, 6)}
        return DenoiserCall(
            (
                given.noise(rows, config.in_channels, height, width),
                given.times(rows),
                given.noise(rows, text, config.cross_attention_dim),
            ),
            {"added_cond_kwargs": added},
        )

    return StageWork(lambda: [make()], call)


def sd3(text: int = 333, **config: Any) -> StageWork:
    """Stable Diffusion 3; the text of two CLIPs and a T5 by default."""

    def call(_: int, module: Any, rows: int, shape: Shape, given: Inputs) -> DenoiserCall:
        config, (_, height, width) = module.config, shape
        return DenoiserCall(
            (
                given.noise(rows, config.in_channels, height, width),
                given.noise(rows, text, config.joint_attention_dim),
                given.noise(rows, config.pooled_projection_dim),
                given.times(rows),
            ),
            {},
        )

    return StageWork(lambda: [diffusers.SD3Transformer2DModel(**config)], call)


def flux(text: int = 512, **config: Any) -> StageWork:
    """Flux; a token is 2x2 latent pixels."""

    def call(_: int, module: Any, rows: int, shape: Shape, given: Inputs) -> DenoiserCall:
        config, (_, height, width) = module.config, shape
        image_ids, text_ids = given.positions(height // 2, width // 2), given.fixed(text, 3)
        return DenoiserCall(
            (
                given.noise(rows, height // 2 * (width // 2), config.in_channels),
                given.noise(rows, text, config.joint_attention_dim),
                given.noise(rows, config.pooled_projection_dim),
                given.times(rows, most=1.0),
                image_ids,
                text_ids,
                given.times(rows, most=7.0, dtype=torch.float32),
            ),
            {},
        )

    return StageWork(lambda: [diffusers.FluxTransformer2DModel(**config)], call)


def wan(text: int = 512, **config: Any) -> StageWork:
    """Wan 2.1."""

    def call(_: int, module: Any, rows: int, shape: Shape, given: Inputs) -> DenoiserCall:
        config = module.config
        return DenoiserCall(
            (
                given.noise(rows, config.in_channels, *shape),
                given.times(rows),
                given.noise(rows, text, config.text_dim),
            ),
            {},
        )

    return StageWork(lambda: [diffusers.WanTransformer3DModel(**config)], call)


def cogvideox(text: int = 226, **config: Any) -> StageWork:
    """CogVideoX 1.5: tokens of two frames, whose rotary positions the pipeline passes."""

    def call(_: int, module: Any, rows: int, shape: Shape, given: Inputs) -> DenoiserCall:
        config, (frames, height, width) = module.config, shape
        tokens = frames // config.patch_size_t * (height // 2) * (width // 2)
        rotary = tuple(given.fixed(tokens, config.attention_head_dim, dtype=torch.float32) for _ in range(2))
        latent = given.noise(rows, frames, config.in_channels, height, width)
        return DenoiserCall(
            (latent, given.noise(rows, text, config.text_embed_dim), given.times(rows)), {"image_rotary_emb": rotary}
        )

    return StageWork(lambda: [diffusers.CogVideoXTransformer3DModel(**config)], call)


def hunyuan_video(text: int = 256, **config: Any) -> StageWork:
    """HunyuanVideo; a prompt that fills its tokens."""

    def call(_: int, module: Any, rows: int, shape: Shape, given: Inputs) -> DenoiserCall:
        config = module.config
        return DenoiserCall(
            (
                given.noise(rows, config.in_channels, *shape),
                given.times(rows, dtype=torch.int64),
                given.noise(rows, text, config.text_embed_dim),
                given.mask(rows, text),
                given.noise(rows, config.pooled_projection_dim),
                given.times(rows, most=7000.0),
            ),
            {},
        )

    return StageWork(lambda: [diffusers.HunyuanVideoTransformer3DModel(**config)], call)


def decoder(channels: int, make: Callable[[], Any], tiles: tuple[Shape, Shape] | None = None) -> StageWork:
    """An autoencoder, of pictures or of clips; see `StageWork` for ``tiles``."""

    def call(_: int, module: Any, rows: int, shape: Shape, given: Inputs) -> DenoiserCall:
        lengths = shape[1:] if isinstance(module, diffusers.AutoencoderKL) else shape
        return DenoiserCall((given.noise(rows, channels, *lengths),), {})

    return StageWork(lambda: [make()], call, "decode", tiles)


def encoder(*texts: tuple[Callable[[], Any], int]) -> StageWork:
    """Text encoders, each with the tokens it is given."""

    def call(index: int, module: Any, rows: int, shape: Shape, given: Inputs) -> DenoiserCall:
        return DenoiserCall((given.tokens(rows, texts[index][1], below=module.config.vocab_size),), {})

    return StageWork(lambda: [make() for make, _ in texts], call)
