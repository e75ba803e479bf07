"""Models: how pixels become latents, which sizes they can make, and what they are asked for where nobody says.

A model that Tilecast knows by name has an entry in `KNOWN_MODELS`; the backend derives the same geometry from the
configuration of any diffusers folder.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from traces.errors import BadInput, did_you_mean
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
        height, width, frames = size[:3]
        latent_frames = 1 + (frames - 1) // self.frame_factor
        return (self.latent_channels, latent_frames, height // self.latent_factor, width // self.latent_factor)

    def tokens(self, size: Size) -> int:
        """Tokens the denoiser sees for one image or clip (latent pixels for a UNet), of reference pictures too."""
        _, frames, height, width = self.latent_shape(size)
        seen = sum(size[3:]) // (self.latent_factor * self.patch) ** 2
        return frames * (height // self.patch) * (width // self.patch) + seen

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


@dataclass(frozen=True, slots=True)
class RequestDefaults:
    """What a model is asked for where nobody says: as its pipeline has it, or, where that is of no use, its model card.

    Attributes:
        size: height and width in pixels, and frames.
        steps: denoising steps.
        guidance_scale: guidance scale.
        guided: whether the denoiser is evaluated with and without the prompt: by that scale or, where the scale is an
            input of the denoiser, by true CFG.
        fps: frames a second of a clip; 0: it is a picture.
    """

    size: Size
    steps: int
    guidance_scale: float
    guided: bool
    fps: float = 0.0


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A model that Tilecast knows by name.

    Attributes:
        geometry: carries its name.
        defaults: what it is asked for where nobody says.
        aliases: other names that people write, in lower case.
        shape: the model whose networks it has; its own name where they are its own.
    """

    geometry: ModelGeometry
    defaults: RequestDefaults
    aliases: tuple[str, ...] = ()
    shape: str = ""


def _known(
    geometry: ModelGeometry,
    steps: int,
    guidance_scale: float = 0.0,
    *,
    size: tuple[int, int] | None = None,
    frames: int = 1,
    fps: float = 0.0,
    aliases: str = "",
    shape: str = "",
) -> KnownModel:
    """A row of the table: sizes are native ones where none is given, and guided what its scale guides."""
    guided = guidance_scale > 1.0 if geometry.guidance == "scale" else geometry.true_cfg_scale > 1.0
    asked = RequestDefaults((*(size or geometry.native_size), frames), steps, guidance_scale, guided, fps)
    return KnownModel(geometry, asked, tuple(aliases.split()), shape or geometry.name)


_SD: dict[str, Any] = {"latent_factor": 8, "latent_channels": 4, "size_multiple": 8}
_DIT: dict[str, Any] = {"latent_factor": 8, "latent_channels": 16, "size_multiple": 16, "patch": 2}
_FLUX2: dict[str, Any] = {**_DIT, "latent_channels": 32, "guidance": "never"}
_CLIP: dict[str, Any] = {**_DIT, "frame_factor": 4}
_LTX: dict[str, Any] = {"latent_factor": 32, "latent_channels": 128, "size_multiple": 32, "frame_factor": 8}

KNOWN_MODELS: dict[str, KnownModel] = {
    known.geometry.name: known
    for known in (
        _known(ModelGeometry("tiny-image", 8, 4, 32, (128, 128)), 30, 5.0),
        _known(ModelGeometry("tiny-video", 4, 8, 16, (64, 64), frame_factor=4, patch=2), 30, 5.0, frames=9, fps=8),
        _known(
            ModelGeometry("sd15", **_SD, native_size=(512, 512)), 50, 7.5,
            aliases="sd1.5 sd-1.5 sd-v1-5 stable-diffusion-1.5 stable-diffusion-v1-5",
        ),
        _known(
            ModelGeometry("sd21-base", **_SD, native_size=(512, 512)), 50, 7.5,
            aliases="sd2.1-base stable-diffusion-2-1-base",
        ),
        _known(
            ModelGeometry("sd21", **_SD, native_size=(768, 768)), 50, 7.5, shape="sd21-base",
            aliases="sd2.1 sd-2.1 stable-diffusion-2-1 stable-diffusion-2.1",
        ),
        _known(ModelGeometry("sd-turbo", **_SD, native_size=(512, 512)), 1, shape="sd21-base"),
        _known(
            ModelGeometry("sdxl", **_SD, native_size=(1024, 1024)), 50, 5.0,
            aliases="stable-diffusion-xl stable-diffusion-xl-base-1.0 sdxl-base sdxl-1.0",
        ),
        _known(ModelGeometry("sdxl-turbo", **_SD, native_size=(512, 512)), 1, shape="sdxl"),
        _known(ModelGeometry("sdxl-lightning", **_SD, native_size=(1024, 1024)), 4, shape="sdxl"),
        _known(
            ModelGeometry("sd3", **_DIT, native_size=(1024, 1024)), 28, 7.0,
            aliases="sd3-medium stable-diffusion-3 stable-diffusion-3-medium",
        ),
        _known(
            ModelGeometry("sd3.5-medium", **_DIT, native_size=(1024, 1024)), 28, 7.0,
            aliases="sd35-medium stable-diffusion-3.5-medium",
        ),
        _known(
            ModelGeometry("sd3.5-large", **_DIT, native_size=(1024, 1024)), 28, 7.0,
            aliases="sd35-large stable-diffusion-3.5-large",
        ),
        _known(
            ModelGeometry("sd3.5-large-turbo", **_DIT, native_size=(1024, 1024)), 4, shape="sd3.5-large",
            aliases="sd35-large-turbo stable-diffusion-3.5-large-turbo",
        ),
        _known(
            ModelGeometry("flux", **_DIT, native_size=(1024, 1024), guidance="true"), 28, 3.5,
            aliases="flux.1 flux.1-dev flux1-dev flux-dev",
        ),
        _known(
            ModelGeometry("flux-schnell", **_DIT, native_size=(1024, 1024), guidance="true"), 4,
            aliases="flux.1-schnell flux1-schnell",
        ),
        _known(
            ModelGeometry("chroma", **_DIT, native_size=(1024, 1024)), 35, 5.0, aliases="chroma1-hd chroma-hd",
        ),
        _known(
            ModelGeometry("flux2-dev", **_FLUX2, native_size=(1024, 1024)), 50, 4.0, aliases="flux2 flux.2 flux.2-dev",
        ),
        _known(
            ModelGeometry("flux2-dev-edit", **_FLUX2, native_size=(1024, 1024)), 50, 4.0, aliases="flux.2-dev-edit",
        ),
        _known(
            ModelGeometry("flux2-klein-4b", **_FLUX2, native_size=(1024, 1024)), 4, 1.0,
            aliases="flux2-klein flux.2-klein flux.2-klein-4b",
        ),
        _known(
            ModelGeometry("flux2-klein-9b", **_FLUX2, native_size=(1024, 1024)), 4, 1.0, aliases="flux.2-klein-9b",
        ),
        _known(
            ModelGeometry("qwen-image", **_DIT, native_size=(1328, 1328), guidance="true", true_cfg_scale=4.0), 50, 1.0,
            size=(1024, 1024), aliases="qwenimage",
        ),
        _known(ModelGeometry("z-image", **_DIT, native_size=(1024, 1024)), 50, 5.0, aliases="zimage"),
        _known(
            ModelGeometry("z-image-turbo", **_DIT, native_size=(1024, 1024)), 9, shape="z-image",
            aliases="zimage-turbo",
        ),
        _known(
            ModelGeometry("pixart-alpha", 8, 4, 16, (1024, 1024), patch=2), 20, 4.5,
            aliases="pixart pixart-xl-2-1024-ms",
        ),
        _known(
            ModelGeometry("pixart-sigma", 8, 4, 16, (1024, 1024), patch=2), 20, 4.5,
            aliases="pixart-sigma-xl-2-1024-ms",
        ),
        _known(
            ModelGeometry("sana", 32, 32, 32, (1024, 1024)), 20, 4.5,
            aliases="sana-1.6b sana-1600m sana-1600m-1024px",
        ),
        _known(
            ModelGeometry("wan-1.3b", **_CLIP, native_size=(480, 832)), 50, 5.0, frames=81, fps=16,
            aliases="wan2.1-1.3b wan-2.1-1.3b wan2.1-t2v-1.3b wan-2.1-t2v-1.3b",
        ),
        _known(
            ModelGeometry("wan-14b", **_CLIP, native_size=(720, 1280)), 50, 5.0, size=(480, 832), frames=81, fps=16,
            aliases="wan2.1-14b wan-2.1-14b wan2.1-t2v-14b wan-2.1-t2v-14b",
        ),
        _known(
            ModelGeometry("wan-i2v-14b", **_CLIP, native_size=(480, 832)), 50, 5.0, frames=81, fps=16,
            aliases="wan2.1-i2v-14b wan-2.1-i2v-14b",
        ),
        _known(
            ModelGeometry("wan-2.2-ti2v-5b", 16, 48, 32, (704, 1280), frame_factor=4, patch=2), 50, 5.0, frames=121,
            fps=24, aliases="wan2.2-5b wan-2.2-5b wan2.2-ti2v-5b",
        ),
        _known(
            ModelGeometry("wan-2.2-a14b", **_CLIP, native_size=(720, 1280)), 40, 4.0, frames=81, fps=16,
            aliases="wan2.2 wan-2.2 wan2.2-14b wan2.2-a14b wan2.2-t2v-a14b wan-2.2-t2v-a14b",
        ),
        _known(
            ModelGeometry("wan-2.2-i2v-a14b", **_CLIP, native_size=(480, 832)), 40, 3.5, frames=81, fps=16,
            aliases="wan2.2-i2v wan2.2-i2v-a14b wan2.2-i2v-14b",
        ),
        _known(
            ModelGeometry("ltx-13b", **_LTX, native_size=(512, 704)), 50, 3.0, frames=161, fps=25,
            aliases="ltx ltx-video ltx-video-13b ltx-video-0.9.7-13b",
        ),
        _known(
            ModelGeometry("ltx-2", **_LTX, native_size=(512, 768)), 40, 4.0, frames=121, fps=24,
            aliases="ltx2 ltx-2-19b",
        ),
        _known(ModelGeometry("cogvideox-2b", **_CLIP, native_size=(480, 720)), 50, 6.0, frames=49, fps=8),
        _known(
            ModelGeometry("cogvideox-5b", **_CLIP, native_size=(480, 720)), 50, 6.0, frames=49, fps=8,
            aliases="cogvideox",
        ),
        _known(
            ModelGeometry("cogvideox-1.5", **_CLIP, native_size=(768, 1360)), 50, 6.0, frames=81, fps=16,
            aliases="cogvideox1.5 cogvideox1.5-5b cogvideox-1.5-5b",
        ),
        _known(
            ModelGeometry("hunyuanvideo", **_CLIP, native_size=(720, 1280), guidance="true"), 50, 6.0, frames=129,
            fps=24, aliases="hunyuan-video hunyuan",
        ),
        _known(
            ModelGeometry("hunyuanvideo-1.5", 16, 32, 16, (480, 848), frame_factor=4), 50, 6.0, frames=121, fps=24,
            aliases="hunyuanvideo1.5 hunyuan-video-1.5",
        ),
        _known(
            ModelGeometry("mochi", 8, 12, 16, (480, 848), frame_factor=6, patch=2), 64, 4.5, frames=85, fps=30,
            aliases="mochi-1 mochi-1-preview",
        ),
        _known(
            ModelGeometry("latte", 8, 4, 16, (512, 512), patch=2), 50, 7.5, frames=16, fps=8, aliases="latte-1",
        ),
    )
}  # fmt: skip
"""By their names."""

GEOMETRIES: dict[str, ModelGeometry] = {name: known.geometry for name, known in KNOWN_MODELS.items()}
"""Geometries of `KNOWN_MODELS`."""

_CALLED = {alias: name for name, known in KNOWN_MODELS.items() for alias in known.aliases}


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


def known_model(name: str) -> str:
    """The name of `KNOWN_MODELS` that ``name`` means; empty: none.

    It may be an alias in any case, a repository of a model hub (``org/Model-Diffusers``), or a folder that ends in its
    name.
    """
    if name in KNOWN_MODELS:
        return name
    plain = name.strip().rstrip("/").rpartition("/")[2].lower().replace("_", "-").removesuffix("-diffusers")
    meant = _CALLED.get(plain, plain)
    return meant if meant in KNOWN_MODELS else ""


def model_called(name: str) -> KnownModel:
    """The known model that ``name`` means, see `known_model`.

    Raises:
        BadInput: there is none; the nearest name is offered, or all.
    """
    if meant := known_model(name):
        return KNOWN_MODELS[meant]
    raise BadInput(f"unknown model {name!r}; {did_you_mean(name, KNOWN_MODELS)}")


def geometry_of(name: str) -> ModelGeometry:
    """The geometry of the known model that ``name`` means; as `model_called`."""
    return model_called(name).geometry
