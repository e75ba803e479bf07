"""A request: what one client asked for, and by when."""

from __future__ import annotations

import math
from dataclasses import dataclass
from operator import attrgetter

from traces.adapters import ADAPTERS, AdapterSet, adapters_in
from traces.errors import BadInput
from traces.limits import (
    FRAMES,
    GUIDANCE,
    IMAGES,
    INSTANT,
    LABEL,
    MODEL,
    MOST_PIXELS,
    NAME,
    PIXELS,
    POSITIVE_SPAN,
    PRIORITY,
    PROMPT,
    SIDE,
    STEPS,
    Range,
    Text,
)

Size = tuple[int, ...]
"""(height, width, frames) in pixels and frames. Of what is counted by its cost there is a fourth number where it has
reference pictures, their pixels; see `Request.shape`."""

LIMITS: dict[str, Range | Text] = {
    "request_id": NAME,
    "arrival_s": INSTANT,
    "height": SIDE,
    "width": SIDE,
    "steps": STEPS,
    "frames": FRAMES,
    "images": IMAGES,
    "model": MODEL,
    "prompt": PROMPT,
    "image": MODEL,
    "guidance_scale": GUIDANCE,
    "deadline_s": Range(0, 2 * INSTANT.most, "s"),
    "slo_s": POSITIVE_SPAN,
    "priority": PRIORITY,
    "tenant": LABEL,
    "checkpoint": LABEL,
    "adapters": ADAPTERS,
    "negative_prompt": PROMPT,
    "true_cfg_scale": GUIDANCE,
    "strength": Range(0, 1, above=True),
    "schedule_steps": Range(0, STEPS.most, "steps", whole=True),
    "mask": MODEL,
    "reference_pixels": PIXELS,
}
"""What each field of a request may be, in a trace's columns too. Seeds are limited by the bits that hold them."""
_BOUNDS = [(field, limit.least, limit.most) for field, limit in LIMITS.items() if isinstance(limit, Range)]
_TEXTS = [(field, limit) for field, limit in LIMITS.items() if isinstance(limit, Text)]
_bounded = attrgetter(*[field for field, _, _ in _BOUNDS])
_texts = attrgetter(*[field for field, _ in _TEXTS])


@dataclass(frozen=True, slots=True)
class Request:
    """One request of a trace.

    Times are seconds on the trace's clock. ``deadline_s`` is a point on that clock, ``slo_s`` a span after the
    arrival; a request has at most one of them, and without either it is never late. ``images`` pictures are
    made from the same prompt (seeds ``seed``, ``seed + 1``, ... on the backend's generator). ``image`` names a
    picture or clip to start from: what an image-to-video model is shown, what is edited, or what is enlarged and
    refined; several pictures for an edit are parted by semicolons. ``mask`` names a picture that is white where
    ``image`` is to be painted anew.
    ``priority`` is larger for more important requests. ``checkpoint`` names the weights it wants, of the architecture
    ``model``, and ``adapters`` the adapters (LoRAs) on top of them with their weights, ``style:0.8+detail:0.5``.

    ``negative_prompt`` is what the picture shall not show; empty: the pipeline's own default (a space is a text).
    ``true_cfg_scale`` guides the models that take ``guidance_scale`` as an input (Flux, Qwen-Image) and need a negative
    prompt for it; ``strength`` is the share, above 0 to 1, of the steps that image-to-image does. None: the pipeline's
    own default.

    ``steps`` are the denoising steps that are made. Image to image makes the last ``steps`` of a schedule of
    ``schedule_steps``, see `traces.strength`; 0: of ``steps``, or by its strength of them. ``reference_pixels`` are the
    pixels of the pictures that an edit's denoiser sees beside the one it makes, see `traces.references`.

    Raises:
        BadInput: a value no diffusion request can have.
    """

    request_id: str
    arrival_s: float
    height: int
    width: int
    steps: int
    frames: int = 1
    images: int = 1
    model: str = ""
    prompt: str = ""
    image: str = ""
    seed: int = 0
    guidance_scale: float = 5.0
    deadline_s: float | None = None
    slo_s: float | None = None
    priority: int = 0
    tenant: str = ""
    checkpoint: str = ""
    adapters: str = ""
    negative_prompt: str = ""
    true_cfg_scale: float | None = None
    strength: float | None = None
    schedule_steps: int = 0
    mask: str = ""
    reference_pixels: int = 0

    def __post_init__(self) -> None:
        for value, (field, least, most) in zip(_bounded(self), _BOUNDS, strict=True):
            if value is not None and not least <= value <= most:
                raise self._bad(field, value, str(LIMITS[field]))
        for value, (field, text) in zip(_texts(self), _TEXTS, strict=True):
            if not (text.holds(value) if value else text.least == 0):
                raise self._bad(field, repr(value[:80]), str(text))
        if self.pixels > MOST_PIXELS:
            raise self._bad("height x width x frames", f"{self.pixels:,} pixels", f"at most {MOST_PIXELS:,}")
        if not -(2**63) <= self.seed < 2**64:
            raise self._bad("seed", self.seed, "a whole number of 64 bits, with a sign or without")
        if self.strength == 0:
            raise self._bad("strength", self.strength, str(LIMITS["strength"]))
        if self.schedule_steps and self.schedule_steps < self.steps:
            raise self._bad("schedule_steps", self.schedule_steps, f"0, or at least the {self.steps} steps")
        if self.deadline_s is not None:
            if self.slo_s is not None:
                raise self._bad("slo_s", self.slo_s, "either deadline_s or slo_s, not both")
            if not self.deadline_s > self.arrival_s:
                raise self._bad("deadline_s", self.deadline_s, f"a time after the arrival at {self.arrival_s} s")

    def _bad(self, field: str, value: object, right: str) -> BadInput:
        return BadInput(f"request {self.request_id[:80]!r}: {field} is {value}, expected {right}")

    @property
    def size(self) -> Size:
        """(height, width, frames)."""
        return (self.height, self.width, self.frames)

    @property
    def adapter_set(self) -> AdapterSet:
        """((name, weight), ...) of its adapters, sorted by name."""
        return adapters_in(self.adapters)

    @property
    def shape(self) -> Size:
        """What its cost depends on: (height, width, frames), and the pixels of its reference pictures if it has any."""
        return (*self.size, self.reference_pixels) if self.reference_pixels else self.size

    @property
    def deadline(self) -> float:
        """Seconds on the trace's clock; infinity when the request has no deadline."""
        if self.deadline_s is not None:
            return self.deadline_s
        return math.inf if self.slo_s is None else self.arrival_s + self.slo_s

    @property
    def pixels(self) -> int:
        """Pixels of one image or clip: height x width x frames."""
        return self.height * self.width * self.frames

    @property
    def guided(self) -> bool:
        """Whether classifier-free guidance doubles the work of a denoising step.

        Where there is a true CFG scale, that and a negative prompt do it, else the guidance scale; `Trace.guided_as`
        leaves the one that the model goes by.
        """
        if self.true_cfg_scale is None:
            return self.guidance_scale > 1.0
        return self.true_cfg_scale > 1.0 and self.negative_prompt != ""
