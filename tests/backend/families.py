"""Every family of diffusion transformers that diffusers has a pipeline for and that is small enough to be tried here.

A small random-weight pipeline of each, of its real classes, and the requests that it is tried with.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from backend.inputs import image_use, start_of
from backend.loading import geometry_of_pipeline
from tests.backend import tiny_clips, tiny_families, tiny_pipelines, tiny_stateful
from tests.backend.tiny_image_to_video import cogvideox_image_to_video, wan_image_to_video
from traces.request import Request

PICTURES = ((32, 48), (64, 32))
"""Sizes of the pictures that requests start from."""


_PROCESSOR = "its processor wants torchvision"


class Family(NamedTuple):
    """A pipeline, and what is special of it.

    Attributes:
        make: builds it.
        unit: pixels that the sizes of requests are multiples of, where a pipeline wants more than it says.
        tolerance: largest difference that mixing may make, in standard deviations of the latents.
        frames: lengths of clips, where the pipeline does not tell.
        dtype: in which it is tried; some pipelines cannot compute in float64.
        refused: what the executor says of it; empty: it is served.
        count_of_requests: requests that it is tried with.
        unfit_for_a_folder: why the small pipeline cannot be loaded from a folder and made small again.
    """

    make: Callable[[], Any]
    unit: int = 0
    tolerance: float = 1e-12
    frames: tuple[int, ...] = ()
    dtype: torch.dtype = torch.float64
    refused: str = ""
    count_of_requests: int = 4
    unfit_for_a_folder: str = ""

    def pipeline(self) -> Any:
        """The pipeline with the same weights in every call, and none of them zero by design."""
        torch.manual_seed(0)
        pipeline = self.make().to(self.dtype)
        pipeline.set_progress_bar_config(disable=True)
        for part in pipeline.components.values():
            if isinstance(part, torch.nn.Module):
                part.eval().requires_grad_(False)
                for name, weights in part.named_parameters():
                    if not weights.any():
                        torch.nn.init.normal_(weights, std=0.02 if weights.ndim > 1 or "bias" in name else 0.1)
        return pipeline

    def requests(self, pipeline: Any) -> list[Request]:
        """Requests of which sizes, prompts, steps, guidance and pictures differ. The second has the size of the first
        turned by a right angle, the last that of the first."""
        geometry = geometry_of_pipeline(pipeline, "mine")
        unit, rng = self.unit or geometry.size_multiple, random.Random(1)
        factor = geometry.frame_factor
        frames = self.frames or ((1 + factor, 1 + 2 * factor) if factor > 1 else (1,))
        first, *others = [(2, 3, frames[0]), (4, 3, frames[-1])][: self.count_of_requests - 2]
        turned = (first[1], first[0], first[2])
        pictures = image_use(pipeline) == "required"
        return [
            Request(
                f"r{index}",
                0.0,
                width * unit,
                height * unit,
                steps=rng.choice((2, 3)),
                seed=index,
                frames=frames,
                prompt="a small red bird by the sea"[: 3 * index + rng.randint(3, 6)],
                negative_prompt=("", "blue")[index % 2],
                guidance_scale=(3.0, 1.0)[index % 4 == 2],
                image=f"{index % len(PICTURES)}.png" if pictures else "",
            )
            for index, (height, width, frames) in enumerate([first, turned, *others, first])
        ]


def mixes(requests: list[Request], count: int) -> list[list[Request]]:
    """Requests that run together, in the order in which they join: all; two of as many tokens; then random ones."""
    rng = random.Random(2)
    drawn = (rng.sample(requests, rng.randint(2, len(requests))) for _ in range(count))
    return [requests, requests[:2], *drawn][:count]


def started(pipeline: Any, request: Request, pictures: Path) -> dict[str, Any]:
    """What a pipeline is called with because of a request's picture."""
    return start_of(request, pictures, image_use(pipeline) != "none").arguments if request.image else {}


def draw_pictures(folder: Path) -> None:
    """What requests start from."""
    for number, (height, width) in enumerate(PICTURES):
        pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")


_IN_FLOAT32: dict[str, Any] = {"dtype": torch.float32, "tolerance": 1e-4, "unfit_for_a_folder": _PROCESSOR}

FAMILIES: dict[str, Family] = {
    "SD3": Family(tiny_pipelines.sd3),
    "Flux": Family(tiny_pipelines.flux),
    "FLUX.2 dev": Family(tiny_families.flux2_dev),
    "FLUX.2 klein": Family(tiny_families.flux2_klein),
    "Qwen-Image": Family(tiny_families.qwen_image),
    "Qwen-Image-Edit": Family(tiny_families.qwen_image_edit, unfit_for_a_folder=_PROCESSOR),
    "Z-Image": Family(tiny_families.z_image),
    "Chroma": Family(tiny_families.chroma),
    "PixArt-alpha": Family(tiny_families.pixart_alpha),
    "PixArt-sigma": Family(tiny_pipelines.pixart),
    "CogView 4": Family(tiny_families.cogview4),
    "Lumina 2": Family(tiny_families.lumina2),
    "Krea 2": Family(tiny_families.krea2),
    "GLM-Image": Family(tiny_families.glm_image, unit=32, count_of_requests=3),
    "Ovis-Image": Family(tiny_families.ovis_image),
    "HunyuanImage 2.1": Family(tiny_stateful.hunyuan_image),
    "Sana": Family(tiny_families.sana),
    "AuraFlow": Family(tiny_families.auraflow),
    "HiDream": Family(tiny_families.hidream, unfit_for_a_folder="all its pictures are a megapixel"),
    "Bria": Family(tiny_families.bria),
    "Lumina-Next": Family(tiny_families.lumina_next),
    "Kandinsky 5 image": Family(
        tiny_clips.kandinsky5_image, dtype=torch.float32, tolerance=1e-4, unfit_for_a_folder=_PROCESSOR
    ),
    "Wan 2.1": Family(tiny_pipelines.wan),
    "Wan 2.1 image to video": Family(wan_image_to_video),
    "Wan 2.2 A14B": Family(tiny_stateful.wan_of_two),
    "Wan 2.2 5B": Family(lambda: tiny_pipelines.wan(expand_timesteps=True)),
    "Wan VACE": Family(tiny_clips.wan_vace),
    "SkyReels 2": Family(tiny_clips.skyreels),
    "SkyReels 2 forcing": Family(tiny_clips.skyreels_forcing, refused="a sampler of its own"),
    "CogVideoX": Family(tiny_pipelines.cogvideox),
    "CogVideoX image to video": Family(cogvideox_image_to_video),
    "HunyuanVideo": Family(tiny_pipelines.hunyuan_video, unit=16),
    "HunyuanVideo 1.5": Family(tiny_clips.hunyuan_video15),
    "LTX": Family(tiny_families.ltx),
    "LTX image to video": Family(tiny_families.ltx_image_to_video),
    "LTX-2": Family(tiny_stateful.ltx2, unit=32),
    "Mochi": Family(tiny_families.mochi),
    "Kandinsky 5": Family(tiny_clips.kandinsky5, **_IN_FLOAT32),
    "Allegro": Family(tiny_clips.allegro),
    "Latte": Family(tiny_clips.latte, frames=(16,)),
    "EasyAnimate": Family(tiny_clips.easyanimate),
}
