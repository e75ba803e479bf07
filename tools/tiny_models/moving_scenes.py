"""A closed world of flat things that move: its sentences, its clips, and which sentences a model never trains on.

The still world of `scenes` with one thing and time. As there, a sentence says all that must be seen, so a program can
check a generated clip (see `clip_reader`). Size and speed may be left open; then either will do.

    a red circle moving right on blue
    a small yellow triangle moving up quickly on white
    a big green square standing still on red
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from tools.tiny_models.scenes import HELD_OUT_ONE_IN, PALETTE, SHAPES, SUPERSAMPLING, Thing, draw_thing

FRAMES = 9
STEP = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}  # (dy, dx)
SPEEDS = {"slowly": 0.018, "quickly": 0.04}  # shorter sides of the canvas a frame
RADII = {"small": (0.17, 0.19), "big": (0.25, 0.28)}  # least and most, in shorter sides of the canvas
MARGIN = 0.02  # shorter sides of the canvas that stay free between a thing and the canvas' edge
FREEDOM = 0.1  # how far the middle of a path may lie from the middle of the canvas, as a fraction of the canvas


@dataclass(frozen=True)
class MovingScene:
    """One thing and how it moves on a plain background of another colour; None leaves size, speed or all motion open.

    `direction` None is standing still, and then there is no speed. Raises ValueError for anything else.
    """

    thing: Thing
    background: str
    direction: str | None = None
    speed: str | None = None
    size: str | None = None

    def __post_init__(self) -> None:
        for what, value, known in (
            ("background", self.background, tuple(PALETTE)),
            ("direction", self.direction, (None, *STEP)),
            ("speed", self.speed, (None, *SPEEDS)),
            ("size", self.size, (None, *RADII)),
        ):
            if value not in known:
                names = ", ".join(name for name in known if name is not None)
                raise ValueError(f"unknown {what} {value!r}; known: {names}")
        if self.direction is None and self.speed is not None:
            raise ValueError("what stands still has no speed")
        if self.thing.colour == self.background:
            raise ValueError(f"a {self.background} thing cannot be seen on {self.background}")

    @property
    def prompt(self) -> str:
        """The scene's one sentence; `MovingScene.parse` reads it back."""
        motion = ("standing still",) if self.direction is None else ("moving", self.direction, self.speed)
        words = ("a", self.size, self.thing.colour, self.thing.shape, *motion, "on", self.background)
        return " ".join(word for word in words if word is not None)

    @property
    def is_held_out(self) -> bool:
        """Whether training must never see this scene."""
        digest = hashlib.blake2b(self.prompt.encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") % HELD_OUT_ONE_IN == 0

    @classmethod
    def parse(cls, prompt: str) -> MovingScene:
        """Read a prompt of the closed grammar; raises ValueError that says what is wrong with it."""
        words = prompt.lower().split()
        body, background = words[:-2], words[-1:]
        if len(words) < 2 or words[-2] != "on":
            raise ValueError(f"{prompt!r} names no background; write e.g. 'a red circle moving right on blue'")
        if body[-2:] == ["standing", "still"]:
            what, motion = body[:-2], []
        elif "moving" in body:
            at = body.index("moving")
            what, motion = body[:at], body[at + 1 :]
        else:
            raise ValueError(f"{prompt!r} says neither 'standing still' nor 'moving left', 'right', 'up' or 'down'")
        size = what.pop(1) if len(what) == 4 else None
        if len(what) != 3 or what[0] != "a":
            raise ValueError(f"expected 'a [small or big] COLOUR SHAPE', got {' '.join(body)!r}")
        if "moving" in body and not 1 <= len(motion) <= 2:
            raise ValueError(f"expected 'moving DIRECTION [slowly or quickly]', got {' '.join(body)!r}")
        direction, speed = [*motion, None, None][:2]
        return cls(Thing(what[1], what[2]), background[0], direction, speed, size)


def all_scenes() -> list[MovingScene]:
    """Every scene of the world, in a fixed order."""
    motions = [(None, None), *product(STEP, (None, *SPEEDS))]
    return [
        MovingScene(Thing(colour, shape), ground, direction, speed, size)
        for colour, shape, ground, (direction, speed), size in product(
            PALETTE, SHAPES, PALETTE, motions, (None, *RADII)
        )
        if colour != ground
    ]


def training_scenes() -> list[MovingScene]:
    """The scenes a model may train on."""
    return [scene for scene in all_scenes() if not scene.is_held_out]


def held_out_scenes() -> list[MovingScene]:
    """The scenes no model trains on: what its quality is measured with."""
    return [scene for scene in all_scenes() if scene.is_held_out]


def draw_clip(
    scene: MovingScene, height: int, width: int, rng: np.random.Generator, frames: int = FRAMES
) -> NDArray[np.uint8]:
    """Draw a scene with a little freedom in place and size; returns `(frames, height, width, 3)` RGB bytes.

    The thing moves evenly and never touches the canvas' edge. Raises ValueError where it would have to: a clip too
    long for its speed.
    """
    short = min(height, width)
    size = scene.size or str(rng.choice(list(RADII)))
    speed = scene.speed or str(rng.choice(list(SPEEDS)))
    radius = rng.uniform(*RADII[size]) * short
    step = np.array(STEP[scene.direction] if scene.direction else (0, 0)) * SPEEDS[speed] * short
    middle = []
    for side, travel in zip((height, width), np.abs(step) * (frames - 1), strict=True):
        room = side / 2 - radius - travel / 2 - MARGIN * short
        if room < 0:
            raise ValueError(f"{frames} frames are too many: {scene.prompt!r} would leave {height} x {width} px")
        middle.append(side / 2 + rng.uniform(-1, 1) * min(room, FREEDOM * side))
    times = np.arange(frames) - (frames - 1) / 2
    return np.stack([_draw_frame(scene, height, width, radius, middle + time * step) for time in times])


def _draw_frame(
    scene: MovingScene, height: int, width: int, radius: float, centre: NDArray[np.float64]
) -> NDArray[np.uint8]:
    fine = SUPERSAMPLING
    canvas = Image.new("RGB", (width * fine, height * fine), PALETTE[scene.background])
    draw_thing(ImageDraw.Draw(canvas), scene.thing, centre[1] * fine, centre[0] * fine, radius * fine)
    return np.asarray(canvas.resize((width, height), Image.Resampling.BOX))
