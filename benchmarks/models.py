"""Models of real block structure and random weights, narrowed until a step takes about a second on one core.

What patches cost depends on the blocks, the sizes and the widths, not on the weights. A narrower model makes their
overhead look larger than it is: a convolution's work grows with the square of its channels, framing it with the
channels.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel, UNet2DConditionModel

from backend.coroutine import DenoiserCall

Side = tuple[int, int]


def sdxl_unet(divisor: int, transformer_layers: tuple[int, int, int] = (1, 1, 2)) -> Any:
    """SDXL's UNet with a ``divisor``-th of its channels, heads and text channels.

    SDXL has (0, 2, 10) transformer layers a block on its levels; the first level's never appear.
    """
    torch.manual_seed(0)
    return UNet2DConditionModel(
        block_out_channels=tuple(channels // divisor for channels in (320, 640, 1280)),
        layers_per_block=2,
        sample_size=128,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=tuple(max(1, heads // divisor) for heads in (5, 10, 20)),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256 // divisor,
        transformer_layers_per_block=transformer_layers,
        projection_class_embeddings_input_dim=2816 // divisor,
        cross_attention_dim=2048 // divisor,
        norm_num_groups=min(32, 320 // divisor // 10),
    ).eval().requires_grad_(False)  # fmt: skip


def sdxl_vae(divisor: int, tile: int = 1024) -> Any:
    """SDXL's autoencoder with a ``divisor``-th of its channels; ``tile`` is the side of its own tiles, pixels."""
    torch.manual_seed(0)
    return AutoencoderKL(
        block_out_channels=tuple(channels // divisor for channels in (128, 256, 512, 512)),
        layers_per_block=2,
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        norm_num_groups=min(32, 128 // divisor // 4),
        sample_size=tile,
    ).eval().requires_grad_(False)  # fmt: skip


def sd3_transformer(layers: int, heads: int) -> Any:
    """SD3's transformer with fewer layers and heads (it has 24 and 24)."""
    torch.manual_seed(0)
    return SD3Transformer2DModel(
        sample_size=128,
        num_layers=layers,
        num_attention_heads=heads,
        attention_head_dim=64,
        joint_attention_dim=1024,
        caption_projection_dim=64 * heads,
        pooled_projection_dim=512,
        pos_embed_max_size=192,
    ).eval().requires_grad_(False)  # fmt: skip


def unet_call(unet: Any, side: Side, seed: int, rows: int = 2) -> DenoiserCall:
    """What the SDXL pipeline passes to its UNet for latents of ``side``; two rows: with guidance."""
    config, random = unet.config, torch.Generator().manual_seed(seed)
    pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
    return DenoiserCall(
        (torch.randn(rows, config.in_channels, *side, generator=random), torch.tensor(1000.0 / (1 + seed))),
        {
            "encoder_hidden_states": torch.randn(rows, 77, config.cross_attention_dim, generator=random),
            "added_cond_kwargs": {
                "text_embeds": torch.randn(rows, pooled, generator=random),
                "time_ids": torch.tensor([[8.0 * side[0], 8.0 * side[1], 0, 0, 8.0 * side[0], 8.0 * side[1]]] * rows),
            },
            "return_dict": False,
        },
    )


def sd3_call(transformer: Any, side: Side, seed: int, rows: int = 2) -> DenoiserCall:
    """What the SD3 pipeline passes to its transformer for latents of ``side``."""
    config, random = transformer.config, torch.Generator().manual_seed(seed)
    arguments = {
        "hidden_states": torch.randn(rows, config.in_channels, *side, generator=random),
        "timestep": torch.full((rows,), 1000.0 / (1 + seed)),
        "encoder_hidden_states": torch.randn(rows, 77, config.joint_attention_dim, generator=random),
        "pooled_projections": torch.randn(rows, config.pooled_projection_dim, generator=random),
        "return_dict": False,
    }
    return DenoiserCall((), arguments)
