"""The geometry of a model: how pixels become latents, and which sizes it can make.

A model that Tilecast knows by name has an entry in `GEOMETRIES`; the backend derives the same record from the
configuration of any diffusers folder.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from traces.errors import BadInput
from traces.request import Request, Size

GUIDANCE = ("scale", "true", "never")
"""See `ModelGeometry.guidance`."""


@dataclass(frozen=True, slots=True)
class ModelGeometry:
    """Shapes of a latent diffusion model.

    Attributes:
        name: what traces and profiles call the model.
        latent_factor: pixels per latent pixel, along one axis.
        latent_channels: channels of the latent.
        size_multiple: height and width must be multiples of this many pixels.
        native_size: (height, width) in pixels the model was trained at.
        frame_factor: frames per latent frame; the first frame stands alone (1 + (frames - 1) / factor).
        patch: latent pixels per token along one axis (1 for UNets).
        guidance: what makes a step evaluate the denoiser with and without the prompt, which doubles its work:
            ``scale``, a guidance_scale above 1; ``true``, a true_cfg_scale above 1 beside a negative prompt
            (guidance_scale is an input of the denoiser); ``never``, nothing.
        true_cfg_scale: of ``true``, where a request gives none.
    """

    name: str
    latent_factor: int
    latent_channels: int
    size_multiple: int
    native_size: tuple[int, int]
    frame_factor: int = 1
    patch: int = 1
    guidance: str = "scale"
    true_cfg_scale: float = 1.0

    def __post_init__(self) -> None:
        for field in ("latent_factor", "latent_channels", "size_multiple", "frame_factor", "patch"):
            value = getattr(self, field)
            if value < 1:
                raise BadInput(f"geometry of {self.name!r}: {field} is {value}, expected a whole number of at least 1")
        if self.guidance not in GUIDANCE:
            raise BadInput(
                f"geometry of {self.name!r}: guidance is {self.guidance!r}, expected one of {', '.join(GUIDANCE)}"
            )
        if self.size_multiple % self.latent_factor:
            raise BadInput(
                f"geometry of {self.name!r}: size_multiple {self.size_multiple} is not a multiple of "
                f"latent_factor {self.latent_factor}"
            )
        if any(side < self.size_multiple for side in self.native_size):
            raise BadInput(f"geometry of {self.name!r}: native_size {self.native_size} is below size_multiple")

    def latent_shape(self, size: Size) -> tuple[int, int, int, int]:
        """(channels, frames, height, width) of the latent of one image or clip."""
        height, width, frames = size
        latent_frames = 1 + (frames - 1) // self.frame_factor
        return (self.latent_channels, latent_frames, height // self.latent_factor, width // self.latent_factor)

    def tokens(self, size: Size) -> int:
        """Tokens the denoiser sees for one image or clip (latent pixels for a UNet)."""
        _, frames, height, width = self.latent_shape(size)
        return frames * (height // self.patch) * (width // self.patch)

    def check(self, request: Request) -> None:
        """Raise BadInput when the model cannot make this request's size."""
        m = self.size_multiple
        for field, value in (("height", request.height), ("width", request.width)):
            if value % m:
                raise BadInput(
                    f"request {request.request_id!r}: {field} {value} is not a multiple of {m} px, which model "
                    f"{self.name!r} needs; nearest: {max(m, value // m * m)} or {(value // m + 1) * m}"
                )
        if (request.frames - 1) % self.frame_factor:
            f = self.frame_factor
            raise BadInput(
                f"request {request.request_id!r}: frames {request.frames} is not 1 plus a multiple of {f}, which "
                f"model {self.name!r} needs; nearest: {1 + (request.frames - 1) // f * f}"
            )


GEOMETRIES: dict[str, ModelGeometry] = {
    g.name: g
    for g in (
        ModelGeometry("tiny-image", 8, 4, 32, (128, 128)),
        ModelGeometry("tiny-video", 4, 8, 16, (64, 64), frame_factor=4, patch=2),
        ModelGeometry("sd15", 8, 4, 8, (512, 512)),
        ModelGeometry("sdxl", 8, 4, 8, (1024, 1024)),
        ModelGeometry("sd3", 8, 16, 16, (1024, 1024), patch=2),
        ModelGeometry("sd3.5-medium", 8, 16, 16, (1024, 1024), patch=2),
        ModelGeometry("flux", 8, 16, 16, (1024, 1024), patch=2, guidance="true"),
        ModelGeometry("wan-1.3b", 8, 16, 16, (480, 832), frame_factor=4, patch=2),
        ModelGeometry("wan-14b", 8, 16, 16, (720, 1280), frame_factor=4, patch=2),
        ModelGeometry("cogvideox-1.5", 8, 16, 16, (768, 1360), frame_factor=4, patch=2),
        ModelGeometry("hunyuanvideo", 8, 16, 16, (720, 1280), frame_factor=4, patch=2, guidance="true"),
    )
}


def geometry_from_json(text: str) -> ModelGeometry:
    """The geometry written as a JSON object of its fields, as profiles carry it.

    Raises:
        BadInput: not such an object.
    """
    try:
        fields = json.loads(text)
        return ModelGeometry(**{**fields, "native_size": tuple(fields["native_size"])})
    except (ValueError, TypeError, KeyError) as error:
        raise BadInput(f"not a model geometry: {text[:80]!r}") from error


def geometry_of(name: str) -> ModelGeometry:
    """The known geometry called ``name``; BadInput names what is known otherwise."""
    try:
        return GEOMETRIES[name]
    except KeyError:
        raise BadInput(f"unknown model {name!r}; known: {', '.join(sorted(GEOMETRIES))}") from None
