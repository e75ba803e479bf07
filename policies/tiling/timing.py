"""How long refinement lasts: the real policies asked step after step, the devices' seconds and the bytes counted.

A step lasts as long as its busiest device computes, after the pixels that it lacks have come. Nothing here knows a
clock or a queue; `policies.tiling.plan` asks for single requests, `policies.tiling.costs` for typical ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from policies.caching.contract import CachingPolicy
from policies.caching.step import needs_gain
from policies.guard import ask
from policies.placement import Contiguous, PlacementPolicy
from policies.tiling.recipe import TiledShape
from policies.tiling.signals import ModelledTiles
from policies.tiling.step import Move, first_owners, owners_after, plan_step
from predictors.link import Link
from traces.errors import BadInput


@dataclass(frozen=True)
class TileDevices:
    """The devices of one replica, as refinement uses them.

    Attributes:
        count: how many; each holds a copy of the model.
        placement: assigns tiles to them.
        link: between them.
        number_bytes: bytes of one number that travels.

    Raises:
        BadInput: no device, or numbers of no bytes.
    """

    count: int = 1
    placement: PlacementPolicy = field(default_factory=Contiguous)
    link: Link = field(default_factory=Link)
    number_bytes: int = 4

    def __post_init__(self) -> None:
        if self.count < 1 or self.number_bytes < 1:
            raise BadInput(f"{self.count} devices and {self.number_bytes} bytes a number, expected at least 1 of each")

    def exchange(self, moves: tuple[Move, ...], pixel_bytes: int, tensors: int) -> float:
        """Seconds of the device that sends and receives longest; each move is a message a tensor."""
        if not moves:
            return 0.0
        pixels, messages = [0] * self.count, [0] * self.count
        for source, target, count in moves:
            for device in (source, target):
                pixels[device] += count
                messages[device] += tensors
        return max(self.link.seconds(n * pixel_bytes, m) for n, m in zip(pixels, messages, strict=True))


class Timing(NamedTuple):
    """What refining one request takes.

    Attributes:
        device_s: of each step, seconds that each device computes.
        link_s: of each step, seconds of the exchange before it; of the last one also of the gathering after it.
        computed: tiles computed before each step, and in all.
        tiles: tiles that there were before each step, and in all.
        moved: bytes that travel in each step.
    """

    device_s: tuple[tuple[float, ...], ...]
    link_s: tuple[float, ...]
    computed: tuple[int, ...]
    tiles: tuple[int, ...]
    moved: tuple[int, ...]

    @property
    def step_s(self) -> tuple[float, ...]:
        """Seconds of each step."""
        return tuple([max(busy) + link for busy, link in zip(self.device_s, self.link_s, strict=True)])

    @property
    def seconds(self) -> float:
        """Seconds of all steps."""
        return sum(self.step_s)


def refine(
    shape: TiledShape,
    steps: int,
    devices: TileDevices,
    seconds: Callable[[int, int], float],
    pixel_numbers: int,
    caching: CachingPolicy | None = None,
    modelled: ModelledTiles | None = None,
) -> Timing:
    """Plan ``steps`` refinement steps of one request.

    Args:
        shape: what it becomes.
        steps: from the first.
        devices: devices of the replica.
        seconds: seconds of a window of (height, width) latent pixels.
        pixel_numbers: numbers that a latent pixel of all its pictures stands for.
        caching: decides which tiles are computed, and forgets the request in the end; None: all.
        modelled: signals of the tiles; None without ``caching``.
    """
    gains = caching is not None and needs_gain(caching)
    tensors = 2 if gains else 1
    pixel_bytes = pixel_numbers * devices.number_bytes * tensors
    owners = first_owners(shape.grid.canvas)
    device_s, link_s, computed, counts, moved = [], [], [0], [0], []
    names: tuple[str, ...] = ()
    for step in range(steps):
        tiles = shape.grid.tiles(shape.shifts.at(step))
        signals = None if modelled is None else modelled.signals(step, tiles, shape.shifts.renews(step))
        plan = plan_step(
            tiles=tiles,
            owners=owners,
            devices=devices.count,
            placement=devices.placement,
            seconds=seconds,
            caching=caching,
            signals=signals,
        )
        owners = owners_after(owners, plan)
        if modelled is not None and signals is not None:
            modelled.done(step, tiles, plan.computed)
            names = signals.request_ids
        device_s.append(plan.seconds)
        link_s.append(devices.exchange(plan.moves, pixel_bytes, tensors))
        computed.append(computed[-1] + int(plan.computed.sum()))
        counts.append(counts[-1] + len(tiles))
        moved.append(pixel_bytes * sum(move.pixels for move in plan.moves))
    if caching is not None:
        for name in names:
            ask(caching, "forget", name)
    away = np.bincount(owners.ravel())[1:].tolist()
    gathered = tuple(Move(source, 0, pixels) for source, pixels in enumerate(away, 1) if pixels)
    link_s[-1] += devices.exchange(gathered, pixel_numbers * devices.number_bytes, 1)
    return Timing(tuple(device_s), tuple(link_s), tuple(computed), tuple(counts), tuple(moved))
