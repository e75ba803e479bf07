"""What others call the models and devices that Tilecast knows."""

from __future__ import annotations

import re
from collections.abc import Iterable

from predictors.hardware import Hardware, shipped_hardware
from traces.geometry import GEOMETRIES

ALIASES = {
    "stable-diffusion-v1-5": "sd15",
    "stable-diffusion-1.5": "sd15",
    "sd-v1-5": "sd15",
    "sd1.5": "sd15",
    "stable-diffusion-xl": "sdxl",
    "stable-diffusion-xl-base-1.0": "sdxl",
    "stable-diffusion-3-medium": "sd3",
    "sd3-medium": "sd3",
    "stable-diffusion-3.5-medium": "sd3.5-medium",
    "flux.1-dev": "flux",
    "flux.1-schnell": "flux",
    "wan2.1-t2v-1.3b": "wan-1.3b",
    "wan-2.1-t2v-1.3b": "wan-1.3b",
    "wan2.1-t2v-14b": "wan-14b",
    "wan-2.1-t2v-14b": "wan-14b",
    "cogvideox1.5-5b": "cogvideox-1.5",
}
"""Names in papers and on model hubs; see `known_model`."""

_VENDORS = frozenset({"nvidia", "amd", "geforce", "instinct", "tesla", "gpu", "rtx"})


def known_model(name: str) -> str:
    """The model of `traces.geometry.GEOMETRIES` that ``name`` means; empty: none.

    It may be a repository of a model hub (``org/Model-Diffusers``) or a folder that ends in its name.
    """
    plain = name.strip().rstrip("/").rpartition("/")[2].lower().replace("_", "-").removesuffix("-diffusers")
    meant = ALIASES.get(plain, plain)
    return meant if meant in GEOMETRIES else ""


def known_hardware(name: str) -> Hardware | None:
    """The kind of the shipped catalogue that has the chip that ``name`` says; None: there is none.

    Of several kinds with this chip it is the one that shares most words with the name.
    """
    for key, kind in shipped_hardware().items():
        if _compact(name) in (_compact(key), _compact(kind.name)):
            return kind
    words = _words([name])
    chips = {word for word in words if re.search(r"[a-z]\d|^\d{4}$", word) and not word.endswith("gb")}
    best, shared = None, 0
    for key, kind in shipped_hardware().items():
        own = _words([key, kind.name])
        if chips & own and len(words & own) > shared:
            best, shared = kind, len(words & own)
    return best


def _words(texts: Iterable[str]) -> set[str]:
    return {word for text in texts for word in re.findall(r"[a-z0-9.]+", text.lower())} - _VENDORS


def _compact(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())
