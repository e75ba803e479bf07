"""The denoisers of model families: how their pipelines call them, and a stage that does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusers
import torch

from backend.coroutine import DenoiserCall
from backend.shapes.networks import ltx2_sounds
from backend.shapes.stages import Inputs, Shape, StageWork

UNPADDED = 64
"""Tokens of a prompt, of models whose pipelines do not pad prompts to one length: one or two sentences."""


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
                given.times(rows, most=7.0, dtype=torch.float32) if config.guidance_embeds else None,
            ),
            {},
        )

    return StageWork(lambda: [diffusers.FluxTransformer2DModel(**config)], call)


def flux2(text: int = 512, references: int = 0, **config: Any) -> StageWork:
    """Flux 2; a token is 2x2 latent pixels. References are pictures of the size of the result, to be edited."""

    def call(_: int, module: Any, rows: int, shape: Shape, given: Inputs) -> DenoiserCall:
        config, (_, height, width) = module.config, shape
        tokens = height // 2 * (width // 2) * (1 + references)
        return DenoiserCall(
            (
                given.noise(rows, tokens, config.in_channels),
                given.noise(rows, text, config.joint_attention_dim),
                given.times(rows, most=1.0),
                given.fixed(tokens, 4),
                given.fixed(text, 4),
                given.times(rows, most=7.0) if config.guidance_embeds else None,
            ),
            {},
        )

    return StageWork(lambda: [diffusers.Flux2Transformer2DModel(**config)], call)


def chroma(text: int = 512) -> StageWork:
    """Chroma, a Flux that is given no pooled text and masks what pads its prompt."""

    def call(_: int, module: Any, rows: int, shape: Shape, given: Inputs) -> DenoiserCall:
        config, (_, height, width) = module.config, shape
        tokens = height // 2 * (width // 2)
        return DenoiserCall(
            (
                given.noise(rows, tokens, config.in_channels),
                given.noise(rows, text, config.joint_attention_dim),
                given.times(rows, most=1.0),
                given.positions(height // 2, width // 2),
                given.fixed(text, 3),
                given.noise(rows, text + tokens),
            ),
            {},
        )

    return StageWork(lambda: [diffusers.ChromaTransformer2DModel()], call)


def qwen_image(text: int = UNPADDED) -> StageWork:
    """Qwen-Image; a token is 2x2 latent pixels."""

    def call(_: int, module: Any, rows: int, shape: Shape, given: Inputs) -> DenoiserCall:
        config, (frames, height, width) = module.config, shape
        lines, columns = height // 2, width // 2
        return DenoiserCall(
            (
                given.noise(rows, frames * lines * columns, config.in_channels),
                given.noise(rows, text, config.joint_attention_dim),
                None,
                given.times(rows, most=1.0),
                [[(frames, lines, columns)]] * rows,
            ),
            {},
        )

    return StageWork(lambda: [diffusers.QwenImageTransformer2DModel()], call)


def z_image(text: int = UNPADDED) -> StageWork:
    """Z-Image, which takes lists: one latent and one prompt a row."""

    def call(_: int, module: Any, rows: int, shape: Shape, given: Inputs) -> DenoiserCall:
        config = module.config
        latents = [given.noise(config.in_channels, *shape) for _ in range(rows)]
        prompts = [given.noise(text, config.cap_feat_dim) for _ in range(rows)]
        return DenoiserCall((latents, given.times(rows, most=1.0), prompts), {})

    return StageWork(lambda: [diffusers.ZImageTransformer2DModel()], call)


def pixart(text: int, **config: Any) -> StageWork:
    """PixArt; alpha is told resolution and aspect ratio."""

    def call(_: int, module: Any, rows: int, shape: Shape, given: Inputs) -> DenoiserCall:
        config, (_, height, width) = module.config, shape
        told = config.use_additional_conditions
        size = {"resolution": given.noise(rows, 2), "aspect_ratio": given.noise(rows, 1)} if told else {}
        return DenoiserCall(
            (
                given.noise(rows, config.in_channels, height, width),
                given.noise(rows, text, config.caption_channels),
                given.times(rows),
                {"resolution": None, "aspect_ratio": None} | size,
            ),
            {"encoder_attention_mask": given.noise(rows, text)},
        )

    fixed = {"sample_size": 128, "cross_attention_dim": 1152, "caption_channels": 4096}
    return StageWork(lambda: [diffusers.PixArtTransformer2DModel(**fixed, **config)], call)


def sana(text: int = 300, **config: Any) -> StageWork:
    """Sana, whose attention is linear."""

    def call(_: int, module: Any, rows: int, shape: Shape, given: Inputs) -> DenoiserCall:
        config, (_, height, width) = module.config, shape
        return DenoiserCall(
            (
                given.noise(rows, config.in_channels, height, width),
                given.noise(rows, text, config.caption_channels),
                given.times(rows),
            ),
            {"encoder_attention_mask": given.noise(rows, text)},
        )

    return StageWork(lambda: [diffusers.SanaTransformer2DModel(**config)], call)


def wan(text: int = 512, experts: int = 1, tokens_have_times: bool = False, **config: Any) -> StageWork:
    """Wan 2.1 and 2.2.

    Args:
        text: tokens of a prompt.
        experts: denoisers that a device holds; one at a time runs.
        tokens_have_times: every token has a timestep of its own.
        config: configuration of an expert.
    """

    def call(_: int, module: Any, rows: int, shape: Shape, given: Inputs) -> DenoiserCall:
        config, times = module.config, given.times(rows)
        if tokens_have_times:
            _, height, width = config.patch_size
            tokens = shape[0] * (shape[1] // height) * (shape[2] // width)
            times = times[:, None].expand(rows, tokens)
        image = None if config.image_dim is None else given.noise(rows, 257, config.image_dim)
        return DenoiserCall(
            (given.noise(rows, config.in_channels, *shape), times, given.noise(rows, text, config.text_dim), image), {}
        )

    def make(count: int) -> list[Any]:
        return [diffusers.WanTransformer3DModel(**config) for _ in range(count)]

    return StageWork(lambda: make(1), call, held=lambda: make(experts - 1))


def ltx(text: int = 128, **config: Any) -> StageWork:
    """LTX-Video; a token is a latent pixel."""

    def call(_: int, module: Any, rows: int, shape: Shape, given: Inputs) -> DenoiserCall:
        config, (frames, height, width) = module.config, shape
        return DenoiserCall(
            (
                given.noise(rows, frames * height * width, config.in_channels),
                given.noise(rows, text, config.caption_channels),
                given.times(rows),
                given.noise(rows, text),
                frames,
                height,
                width,
                (8 / 25, 32, 32),
            ),
            {},
        )

    return StageWork(lambda: [diffusers.LTXVideoTransformer3DModel(**config)], call)


def ltx2(text: int = 1024, **config: Any) -> StageWork:
    """LTX-2: a clip of 24 frames a second and its sound; a token is a latent pixel."""

    def call(_: int, module: Any, rows: int, shape: Shape, given: Inputs) -> DenoiserCall:
        config, (frames, height, width) = module.config, shape
        sounds = ltx2_sounds(frames)
        return DenoiserCall(
            (
                given.noise(rows, frames * height * width, config.in_channels),
                given.noise(rows, sounds, config.audio_in_channels),
                given.noise(rows, text, config.caption_channels),
                given.noise(rows, text, config.caption_channels),
                given.times(rows),
            ),
            {
                "encoder_attention_mask": given.mask(rows, text),
                "audio_encoder_attention_mask": given.mask(rows, text),
                "num_frames": frames,
                "height": height,
                "width": width,
                "audio_num_frames": sounds,
            },
        )

    return StageWork(lambda: [diffusers.LTX2VideoTransformer3DModel(**config)], call)


def cogvideox(text: int = 226, **config: Any) -> StageWork:
    """CogVideoX; where its tokens have rotary positions, the pipeline passes them. Those of 1.5 are of two frames."""

    def call(_: int, module: Any, rows: int, shape: Shape, given: Inputs) -> DenoiserCall:
        config, (frames, height, width) = module.config, shape
        rotary = None
        if config.use_rotary_positional_embeddings:
            tokens = frames // (config.patch_size_t or 1) * (height // 2) * (width // 2)
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


def hunyuan_video_15(text: int = 1000, glyphs: int = 256, image: int = 729, **config: Any) -> StageWork:
    """HunyuanVideo 1.5 from text alone: the tokens of an image are there, and masked."""

    def call(_: int, module: Any, rows: int, shape: Shape, given: Inputs) -> DenoiserCall:
        config = module.config
        return DenoiserCall(
            (
                given.noise(rows, config.in_channels, *shape),
                given.times(rows),
                given.noise(rows, text, config.text_embed_dim),
                given.mask(rows, text),
            ),
            {
                "encoder_hidden_states_2": given.noise(rows, glyphs, config.text_embed_2_dim),
                "encoder_attention_mask_2": given.mask(rows, glyphs),
                "image_embeds": given.noise(rows, image, config.image_embed_dim),
            },
        )

    return StageWork(lambda: [diffusers.HunyuanVideo15Transformer3DModel(task_type="t2v", **config)], call)


def mochi(text: int = 256, **config: Any) -> StageWork:
    """Mochi 1; a prompt that fills its tokens."""

    def call(_: int, module: Any, rows: int, shape: Shape, given: Inputs) -> DenoiserCall:
        config = module.config
        return DenoiserCall(
            (
                given.noise(rows, config.in_channels, *shape),
                given.noise(rows, text, config.text_embed_dim),
                given.times(rows),
                given.mask(rows, text),
            ),
            {},
        )

    return StageWork(lambda: [diffusers.MochiTransformer3DModel(**config)], call)


def latte(text: int = 120) -> StageWork:
    """Latte: blocks that see one frame take turns with blocks that see one place."""

    def call(_: int, module: Any, rows: int, shape: Shape, given: Inputs) -> DenoiserCall:
        config = module.config
        latent = given.noise(rows, config.in_channels, *shape)
        return DenoiserCall((latent, given.times(rows), given.noise(rows, text, config.caption_channels)), {})

    config = {
        "num_attention_heads": 16, "attention_head_dim": 72, "in_channels": 4, "out_channels": 8, "num_layers": 28,
        "cross_attention_dim": 1152, "attention_bias": True, "sample_size": 64, "patch_size": 2,
        "activation_fn": "gelu-approximate", "num_embeds_ada_norm": 1000, "norm_type": "ada_norm_single",
        "norm_elementwise_affine": False, "norm_eps": 1e-6, "caption_channels": 4096, "video_length": 16,
    }  # fmt: skip
    return StageWork(lambda: [diffusers.LatteTransformer3DModel(**config)], call)
