"""Image to image: which steps of its schedule a request makes.

An image-to-image pipeline adds noise to a picture and takes it away again, an inpainting one inside a mask.
``strength`` says how much: the share of the sampler's schedule that runs, its last steps. Families round that share up
or down, so what a request costs depends on the pipeline's class, which planning must know without loading it.
"""

from __future__ import annotations

from typing import NamedTuple


class ImageToImage(NamedTuple):
    """How a pipeline takes its strength.

    Attributes:
        strength: strength of requests that name none: the pipeline's own.
        rounds_up: whether part of a step is made a whole one, not left out.
    """

    strength: float
    rounds_up: bool = False

    def steps(self, schedule_steps: int, strength: float) -> int:
        """How many of the last steps of a schedule are made. The same arithmetic as diffusers', to the last bit."""
        share = schedule_steps * strength
        if self.rounds_up:
            return schedule_steps - int(max(schedule_steps - min(share, schedule_steps), 0))
        return min(int(share), schedule_steps)


IMAGE_TO_IMAGE: dict[str, ImageToImage] = {
    "ChromaImg2ImgPipeline": ImageToImage(0.9, True),
    "ChromaInpaintPipeline": ImageToImage(0.6, True),
    "FluxFillPipeline": ImageToImage(1.0, True),
    "FluxImg2ImgPipeline": ImageToImage(0.6, True),
    "FluxInpaintPipeline": ImageToImage(0.6, True),
    "Kandinsky3Img2ImgPipeline": ImageToImage(0.3),
    "KolorsImg2ImgPipeline": ImageToImage(0.3),
    "QwenImageImg2ImgPipeline": ImageToImage(0.6, True),
    "QwenImageInpaintPipeline": ImageToImage(0.6, True),
    "StableDiffusion3Img2ImgPipeline": ImageToImage(0.6, True),
    "StableDiffusion3InpaintPipeline": ImageToImage(0.6, True),
    "StableDiffusion3PAGImg2ImgPipeline": ImageToImage(0.6, True),
    "StableDiffusionImg2ImgPipeline": ImageToImage(0.8),
    "StableDiffusionInpaintPipeline": ImageToImage(1.0),
    "StableDiffusionPAGImg2ImgPipeline": ImageToImage(0.8),
    "StableDiffusionPAGInpaintPipeline": ImageToImage(0.9999),
    "StableDiffusionXLImg2ImgPipeline": ImageToImage(0.3),
    "StableDiffusionXLInpaintPipeline": ImageToImage(0.9999),
    "StableDiffusionXLPAGImg2ImgPipeline": ImageToImage(0.3),
    "StableDiffusionXLPAGInpaintPipeline": ImageToImage(0.9999),
    "ZImageImg2ImgPipeline": ImageToImage(0.6, True),
    "ZImageInpaintPipeline": ImageToImage(1.0, True),
}
"""By the class of the pipeline."""
