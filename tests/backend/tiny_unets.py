"""Further small random-weight pipelines with UNets: what SDXL's own tiny one does not show."""

from __future__ import annotations

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextModel

from tests.backend.tiny_pipelines import _clip, _tokenizer, _vae


def sd15(levels: int = 2) -> StableDiffusionPipeline:
    """SD 1.5 classes: convolutional projections, attention on the top level too, whole-number timesteps.

    A UNet of ``levels`` halves the latents ``levels - 1`` times.
    """
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        block_out_channels=(16, 32, 32, 32)[:levels],
        layers_per_block=1,
        sample_size=32,
        down_block_types=("CrossAttnDownBlock2D",) * (levels - 1) + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * (levels - 1),
        attention_head_dim=4,
        cross_attention_dim=16,
        norm_num_groups=4,
    ).eval()
    pipeline = StableDiffusionPipeline(
        unet=unet,
        vae=_vae(latent_channels=4),
        scheduler=DDIMScheduler(clip_sample=False, set_alpha_to_one=False),
        text_encoder=_clip(CLIPTextModel),
        tokenizer=_tokenizer(24),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
