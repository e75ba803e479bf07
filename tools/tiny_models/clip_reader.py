"""Read a clip back: what moves where on which ground, and whether that is what a prompt asked.

Every frame is read as a picture by `scene_reader`; the path of the one thing's centre is the motion. The reader is
checked on drawn clips, where the truth is known, before its verdict on generated ones means anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tools.tiny_models.moving_scenes import FRAMES, SPEEDS, STEP, MovingScene, draw_clip
from tools.tiny_models.scene_reader import Blob, read

# Shorter sides of the canvas a frame. Below the first a thing stands still, above the second it is quick.
STILL_BELOW = min(SPEEDS.values()) / 2
QUICK_ABOVE = (SPEEDS["slowly"] * SPEEDS["quickly"]) ** 0.5
# A straight path: how far across it may lead, as a share of how far it leads along.
LARGEST_DRIFT = 0.4
LEAST_SHAPES_RIGHT = 0.5  # of the frames


@dataclass(frozen=True)
class Verdict:
    """Whether a clip shows what its scene says.

    `colour`: in every frame exactly one thing, of its colour, on its ground. `shape`: exactly one thing in every frame
    and its shape in more than half of them. `motion`: exactly one thing in every frame, which stands still or moves
    in the told direction, and at the told speed if one is told.
    """

    colour: bool
    shape: bool
    motion: bool


@dataclass(frozen=True)
class Motion:
    """What moves how: `direction` is None for standing still, "other" for no straight path; `speed` for a direction."""

    direction: str | None
    speed: str | None


def judge(scene: MovingScene, clip: NDArray[np.uint8]) -> Verdict:
    """Compare what an RGB clip `(frames, height, width, 3)` shows with what the scene says."""
    readings = [read(frame) for frame in clip]
    if any(len(reading.blobs) != 1 for reading in readings):
        return Verdict(colour=False, shape=False, motion=False)
    things = [reading.blobs[0] for reading in readings]
    colours = all(
        reading.background == scene.background and thing.colour == scene.thing.colour
        for reading, thing in zip(readings, things, strict=True)
    )
    shapes = sum(thing.shape == scene.thing.shape for thing in things) > LEAST_SHAPES_RIGHT * len(things)
    seen = motion_of(things, clip.shape[1], clip.shape[2])
    right = seen.direction == scene.direction and scene.speed in (None, seen.speed)
    return Verdict(colour=colours, shape=shapes, motion=right)


def motion_of(things: Sequence[Blob], height: int, width: int) -> Motion:
    """The motion of one thing, from its reading in each frame; sizes in pixels."""
    path = np.array([thing.centre for thing in things]) * (height, width) / min(height, width)
    step = (path[-1] - path[0]) / max(1, len(path) - 1)
    if np.abs(step).max() < STILL_BELOW:
        return Motion(None, None)
    axis = int(np.abs(step).argmax())
    if np.abs(step[1 - axis]) > LARGEST_DRIFT * np.abs(step[axis]):
        return Motion("other", None)
    direction = next(name for name, unit in STEP.items() if unit[axis] == np.sign(step[axis]))
    return Motion(direction, "quickly" if np.abs(step[axis]) > QUICK_ABOVE else "slowly")


def share_right(verdicts: Sequence[Verdict]) -> dict[str, float]:
    """Shares (0..1) of verdicts that are right in colour, in shape and in motion."""
    return {
        name: sum(getattr(verdict, name) for verdict in verdicts) / len(verdicts)
        for name in ("colour", "shape", "motion")
    }


def accuracy_on_drawn(
    scenes: Sequence[MovingScene], height: int, width: int, frames: int = FRAMES, seed: int = 0
) -> dict[str, float]:
    """What `share_right` says of drawn (so surely right) clips of the scenes."""
    rng = np.random.default_rng(seed)
    return share_right([judge(scene, draw_clip(scene, height, width, rng, frames)) for scene in scenes])
