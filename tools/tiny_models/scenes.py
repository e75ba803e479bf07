"""A closed world of flat scenes: its sentences, its pictures, and which sentences a model never trains on.

The world is small on purpose. Every sentence says completely what the picture must show, so a program can
check a generated picture (see `scene_reader`) and no judge, human or neural, is needed.

    a red circle on green
    a red circle left of a blue square on green
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

PALETTE: dict[str, tuple[int, int, int]] = {
    "red": (220, 30, 30),
    "green": (30, 170, 60),
    "blue": (30, 60, 220),
    "yellow": (250, 220, 40),
    "white": (245, 245, 245),
}
SHAPES = ("circle", "square", "triangle")
RELATIONS = ("left of", "right of", "above", "below")

# One prompt in HELD_OUT_ONE_IN, chosen by the hash of its text, is kept from training.
HELD_OUT_ONE_IN = 8
SUPERSAMPLING = 4


@dataclass(frozen=True)
class Thing:
    """One coloured shape."""

    colour: str
    shape: str

    def __post_init__(self) -> None:
        if self.colour not in PALETTE:
            raise ValueError(f"unknown colour {self.colour!r}; known: {', '.join(PALETTE)}")
        if self.shape not in SHAPES:
            raise ValueError(f"unknown shape {self.shape!r}; known: {', '.join(SHAPES)}")


@dataclass(frozen=True)
class Scene:
    """One thing, or two things and how the first lies to the second, on a plain background.

    All colours of a scene differ, so that every thing can be seen and told apart. `relation` and `second`
    come together or not at all. Raises ValueError for anything else.
    """

    first: Thing
    background: str
    relation: str | None = None
    second: Thing | None = None

    def __post_init__(self) -> None:
        if self.background not in PALETTE:
            raise ValueError(f"unknown background {self.background!r}; known: {', '.join(PALETTE)}")
        if (self.relation is None) != (self.second is None):
            raise ValueError("a relation and a second thing come together")
        if self.relation is not None and self.relation not in RELATIONS:
            raise ValueError(f"unknown relation {self.relation!r}; known: {', '.join(RELATIONS)}")
        colours = [thing.colour for thing in self.things] + [self.background]
        if len(set(colours)) < len(colours):
            raise ValueError(f"the colours of a scene must differ, got {', '.join(colours)}")

    @property
    def things(self) -> tuple[Thing, ...]:
        return (self.first,) if self.second is None else (self.first, self.second)

    @property
    def prompt(self) -> str:
        """The scene's one sentence; `Scene.parse` reads it back."""
        words = f" {self.relation} ".join(f"a {thing.colour} {thing.shape}" for thing in self.things)
        return f"{words} on {self.background}"

    @property
    def is_held_out(self) -> bool:
        """Whether training must never see this scene."""
        digest = hashlib.blake2b(self.prompt.encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") % HELD_OUT_ONE_IN == 0

    @classmethod
    def parse(cls, prompt: str) -> Scene:
        """Read a prompt of the closed grammar; raises ValueError that says what is wrong with it."""
        body, on, background = prompt.strip().lower().rpartition(" on ")
        if not on:
            raise ValueError(f"{prompt!r} names no background; write e.g. 'a red circle on green'")
        for relation in RELATIONS:
            first, found, second = body.partition(f" {relation} ")
            if found:
                return cls(_parse_thing(first), background.strip(), relation, _parse_thing(second))
        return cls(_parse_thing(body), background.strip())


def _parse_thing(text: str) -> Thing:
    words = text.split()
    if len(words) != 3 or words[0] != "a":
        raise ValueError(f"expected 'a <colour> <shape>', got {text!r}")
    return Thing(words[1], words[2])


def all_scenes() -> list[Scene]:
    """Every scene of the world, in a fixed order: the single things first."""
    things = [Thing(colour, shape) for colour, shape in product(PALETTE, SHAPES)]
    singles = [Scene(thing, ground) for thing, ground in product(things, PALETTE) if thing.colour != ground]
    pairs = [
        Scene(first, ground, relation, second)
        for first, relation, second, ground in product(things, RELATIONS, things, PALETTE)
        if len({first.colour, second.colour, ground}) == 3
    ]
    return singles + pairs


def all_prompts() -> list[str]:
    """Every prompt of the closed grammar, in a fixed order."""
    return [scene.prompt for scene in all_scenes()]


def training_scenes() -> list[Scene]:
    """The scenes a model may train on."""
    return [scene for scene in all_scenes() if not scene.is_held_out]


def held_out_scenes() -> list[Scene]:
    """The scenes no model trains on: what its quality is measured with."""
    return [scene for scene in all_scenes() if scene.is_held_out]


def draw(scene: Scene, height: int, width: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draw a scene with a little freedom in place and size; returns `(height, width, 3)` RGB bytes.

    Two things stand on opposite quarters of the axis their relation names; one thing stands in the middle.
    Sizes follow the canvas' shorter side, and nothing touches anything else or the canvas' edge.
    """
    short = min(height, width)
    canvas = Image.new("RGB", (width * SUPERSAMPLING, height * SUPERSAMPLING), PALETTE[scene.background])
    pen = ImageDraw.Draw(canvas)
    largest = 0.34 if scene.second is None else 0.2
    for thing, (centre_y, centre_x) in zip(scene.things, _centres(scene, rng), strict=True):
        radius = rng.uniform(0.8 * largest, largest) * short * SUPERSAMPLING
        x, y = centre_x * width * SUPERSAMPLING, centre_y * height * SUPERSAMPLING
        draw_thing(pen, thing, x, y, radius)
    return np.asarray(canvas.resize((width, height), Image.Resampling.BOX))


def _centres(scene: Scene, rng: np.random.Generator) -> list[tuple[float, float]]:
    """Centres `(y, x)` of the scene's things as fractions of the canvas."""
    if scene.relation is None:
        return [(0.5 + rng.uniform(-0.12, 0.12), 0.5 + rng.uniform(-0.12, 0.12))]
    first_is_near = scene.relation in ("left of", "above")
    centres = []
    for near in (first_is_near, not first_is_near):
        along = (0.26 if near else 0.74) + rng.uniform(-0.02, 0.02)
        across = 0.5 + rng.uniform(-0.1, 0.1)
        centres.append((across, along) if scene.relation in ("left of", "right of") else (along, across))
    return centres


def draw_thing(pen: ImageDraw.ImageDraw, thing: Thing, x: float, y: float, radius: float) -> None:
    """Draw one thing that fits a circle of `radius` (square: nearly) around `(x, y)`, in canvas pixels."""
    ink = PALETTE[thing.colour]
    if thing.shape == "circle":
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=ink)
    elif thing.shape == "square":
        half = 0.88 * radius
        pen.rectangle((x - half, y - half, x + half, y + half), fill=ink)
    else:
        base = y + 0.85 * radius
        pen.polygon(((x, y - radius), (x - radius, base), (x + radius, base)), fill=ink)
