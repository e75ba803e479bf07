"""Small random transformers of families that have no small pipeline here, and calls as their pipelines make them.

Each family has its configuration and a function that makes the arguments of one call: of a grid of tokens, a number of
text tokens and a time between 0 and 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import diffusers
import torch

FRAMES = 2


class Asked(NamedTuple):
    """What a call is about: rows, the grid of latent tokens, text tokens, a time between 0 and 1, and its numbers."""

    rows: int
    height: int
    width: int
    text: int
    time: float
    random: torch.Generator

    def numbers(self, *shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=self.random, dtype=torch.float64)

    @property
    def timestep(self) -> torch.Tensor:
        return torch.full((self.rows,), self.time, dtype=torch.float64)

    @property
    def tokens(self) -> int:
        return self.height * self.width

    def mask(self, unused: int = 1) -> torch.Tensor:
        """[rows, text tokens] of which the last ones are padding."""
        mask = torch.ones(self.rows, self.text, dtype=torch.int64)
        mask[:, self.text - unused :] = 0
        return mask

    def sides(self) -> torch.Tensor:
        return torch.tensor([[self.height * 16.0, self.width * 16.0]] * self.rows, dtype=torch.float64)

    def positions(self, axes: int, numbered: int | None = None) -> dict[str, torch.Tensor]:
        image = torch.zeros(self.height, self.width, axes, dtype=torch.float64)
        image[..., 1] += torch.arange(self.height)[:, None]
        image[..., 2] += torch.arange(self.width)[None]
        text = torch.zeros(self.text, axes, dtype=torch.float64)
        if numbered is not None:
            text[:, numbered] = torch.arange(self.text)
        return {"img_ids": image.reshape(-1, axes), "txt_ids": text}


class Family(NamedTuple):
    """A transformer of diffusers, its configuration, and one call of it."""

    name: str
    config: dict[str, Any]
    call: Callable[[Asked], dict[str, Any]]

    def model(self) -> Any:
        """All parameters random, so that nothing that matters is zero."""
        model = getattr(diffusers, self.name)(**self.config).double().eval().requires_grad_(False)
        random = torch.Generator().manual_seed(1)
        for parameter in model.parameters():
            numbers = torch.randn(parameter.shape, generator=random, dtype=torch.float64)
            parameter.copy_(0.25 * numbers if parameter.ndim > 1 else 1 + 0.1 * numbers)
        return model


def _flux2(asked: Asked) -> dict[str, Any]:
    ids = {name: ids[None].expand(asked.rows, -1, -1) for name, ids in asked.positions(4, 3).items()}
    return {
        "hidden_states": asked.numbers(asked.rows, asked.tokens, 4),
        "encoder_hidden_states": asked.numbers(asked.rows, asked.text, 32),
        "timestep": asked.timestep,
        **ids,
    }


def _chroma(asked: Asked) -> dict[str, Any]:
    mask = torch.ones(asked.rows, asked.text + asked.tokens, dtype=torch.float64)
    mask[:, asked.text - 2 : asked.text] = 0
    return {**_ovis(asked), "attention_mask": mask}


def _ovis(asked: Asked) -> dict[str, Any]:
    return {
        "hidden_states": asked.numbers(asked.rows, asked.tokens, 4),
        "encoder_hidden_states": asked.numbers(asked.rows, asked.text, 32),
        "timestep": asked.timestep,
        **asked.positions(3),
    }


def _qwen_edit(asked: Asked) -> dict[str, Any]:
    """The tokens of a picture that is to be edited follow the image's."""
    return {
        "hidden_states": asked.numbers(asked.rows, asked.tokens + 24, 16),
        "encoder_hidden_states": asked.numbers(asked.rows, asked.text, 16),
        "encoder_hidden_states_mask": asked.mask(2) if asked.text > 10 else None,
        "timestep": asked.timestep,
        "img_shapes": [[(1, asked.height, asked.width), (1, 4, 6)]] * asked.rows,
    }


def _cogview4(asked: Asked) -> dict[str, Any]:
    return {
        "hidden_states": asked.numbers(asked.rows, 4, 2 * asked.height, 2 * asked.width),
        "encoder_hidden_states": asked.numbers(asked.rows, asked.text, 8),
        "timestep": 1000 * asked.timestep,
        "original_size": asked.sides(),
        "target_size": asked.sides(),
        "crop_coords": 0 * asked.sides(),
    }


def _glm(asked: Asked) -> dict[str, Any]:
    return {
        "hidden_states": asked.numbers(asked.rows, 4, 2 * asked.height, 2 * asked.width),
        "encoder_hidden_states": asked.numbers(asked.rows, asked.text, 32),
        "prior_token_id": torch.randint(0, 64, (asked.rows, asked.tokens), generator=asked.random),
        "prior_token_drop": torch.zeros(asked.rows, asked.tokens, dtype=torch.bool),
        "timestep": 1000 * asked.timestep,
        "target_size": asked.sides(),
        "crop_coords": 0 * asked.sides(),
    }


def _krea2(asked: Asked) -> dict[str, Any]:
    positions = torch.zeros(asked.text + asked.tokens, 3, dtype=torch.float64)
    positions[asked.text :, 1] = torch.arange(asked.height).repeat_interleave(asked.width)
    positions[asked.text :, 2] = torch.arange(asked.width).repeat(asked.height)
    return {
        "hidden_states": asked.numbers(asked.rows, asked.tokens, 16),
        "encoder_hidden_states": asked.numbers(asked.rows, asked.text, 3, 16),
        "timestep": asked.timestep,
        "position_ids": positions,
        "encoder_attention_mask": asked.mask().bool(),
    }


def _hunyuan_video15(asked: Asked) -> dict[str, Any]:
    return {
        "hidden_states": asked.numbers(asked.rows, 4, FRAMES, asked.height, asked.width),
        "timestep": 1000 * asked.timestep,
        "encoder_hidden_states": asked.numbers(asked.rows, asked.text, 16),
        "encoder_hidden_states_2": asked.numbers(asked.rows, 4, 8),
        "encoder_attention_mask": asked.mask().double(),
        "encoder_attention_mask_2": torch.ones(asked.rows, 4, dtype=torch.float64),
        "image_embeds": torch.zeros(asked.rows, 3, 12, dtype=torch.float64),
    }


def _skyreels(asked: Asked) -> dict[str, Any]:
    return {
        "hidden_states": asked.numbers(asked.rows, 4, FRAMES, 2 * asked.height, 2 * asked.width),
        "encoder_hidden_states": asked.numbers(asked.rows, asked.text, 16),
        "timestep": 1000 * asked.timestep,
    }


def _vace(asked: Asked) -> dict[str, Any]:
    control = asked.numbers(asked.rows, 6, FRAMES, 2 * asked.height, 2 * asked.width)
    return {**_skyreels(asked), "control_hidden_states": control}


_FLUX = {
    "patch_size": 1,
    "in_channels": 4,
    "num_layers": 2,
    "num_single_layers": 2,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": 32,
}
_FLUX2 = {**_FLUX, "timestep_guidance_channels": 256, "axes_dims_rope": [4, 4, 4, 4]}
_WAN = {
    "patch_size": (1, 2, 2),
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "in_channels": 4,
    "out_channels": 4,
    "text_dim": 16,
    "freq_dim": 256,
    "ffn_dim": 32,
    "num_layers": 2,
    "cross_attn_norm": True,
    "qk_norm": "rms_norm_across_heads",
    "rope_max_seq_len": 32,
}

FAMILIES: dict[str, Family] = {
    "flux.2 dev": Family(
        "Flux2Transformer2DModel",
        {**_FLUX2, "guidance_embeds": True},
        lambda asked: {**_flux2(asked), "guidance": 4 * asked.timestep},
    ),
    "flux.2 klein": Family("Flux2Transformer2DModel", {**_FLUX2, "guidance_embeds": False}, _flux2),
    "qwen-image edit": Family(
        "QwenImageTransformer2DModel",
        {
            "patch_size": 2,
            "in_channels": 16,
            "out_channels": 4,
            "num_layers": 2,
            "attention_head_dim": 16,
            "num_attention_heads": 4,
            "joint_attention_dim": 16,
            "axes_dims_rope": (8, 4, 4),
            "zero_cond_t": True,
        },
        _qwen_edit,
    ),
    "chroma": Family(
        "ChromaTransformer2DModel",
        {
            **_FLUX,
            "axes_dims_rope": [4, 4, 8],
            "approximator_num_channels": 8,
            "approximator_hidden_dim": 16,
            "approximator_layers": 1,
        },
        _chroma,
    ),
    "ovis-image": Family(
        "OvisImageTransformer2DModel", {**_FLUX, "axes_dims_rope": (4, 4, 8), "out_channels": 4}, _ovis
    ),
    "cogview 4": Family(
        "CogView4Transformer2DModel",
        {
            "patch_size": 2,
            "in_channels": 4,
            "num_layers": 2,
            "attention_head_dim": 4,
            "num_attention_heads": 4,
            "out_channels": 4,
            "text_embed_dim": 8,
            "time_embed_dim": 8,
            "condition_dim": 4,
        },
        _cogview4,
    ),
    "glm-image": Family(
        "GlmImageTransformer2DModel",
        {
            "patch_size": 2,
            "in_channels": 4,
            "out_channels": 4,
            "num_layers": 2,
            "attention_head_dim": 8,
            "num_attention_heads": 2,
            "text_embed_dim": 32,
            "time_embed_dim": 16,
            "condition_dim": 8,
            "prior_vq_quantizer_codebook_size": 64,
        },
        _glm,
    ),
    "krea 2": Family(
        "Krea2Transformer2DModel",
        {
            "in_channels": 16,
            "num_layers": 2,
            "attention_head_dim": 8,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "intermediate_size": 32,
            "timestep_embed_dim": 8,
            "text_hidden_dim": 16,
            "num_text_layers": 3,
            "text_num_attention_heads": 2,
            "text_num_key_value_heads": 1,
            "text_intermediate_size": 16,
            "num_layerwise_text_blocks": 1,
            "num_refiner_text_blocks": 1,
            "axes_dims_rope": (4, 2, 2),
            "rope_theta": 1000.0,
            "norm_eps": 1e-5,
        },
        _krea2,
    ),
    "hunyuan video 1.5": Family(
        "HunyuanVideo15Transformer3DModel",
        {
            "in_channels": 4,
            "out_channels": 4,
            "num_attention_heads": 2,
            "attention_head_dim": 8,
            "num_layers": 2,
            "num_refiner_layers": 1,
            "mlp_ratio": 2.0,
            "patch_size": 1,
            "patch_size_t": 1,
            "text_embed_dim": 16,
            "text_embed_2_dim": 8,
            "image_embed_dim": 12,
            "rope_axes_dim": (2, 2, 4),
            "target_size": 16,
            "task_type": "t2v",
        },
        _hunyuan_video15,
    ),
    "skyreels 2": Family("SkyReelsV2Transformer3DModel", _WAN, _skyreels),
    "wan vace": Family("WanVACETransformer3DModel", {**_WAN, "vace_layers": [0], "vace_in_channels": 6}, _vace),
}
