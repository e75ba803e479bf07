"""One refinement step, decided: which tiles are computed, on which device, and which pixels travel.

Both drivers go through `plan_step`: the backend with signals of its tensors, the simulator with modelled ones. It is a
pure function but for the caching policy's own state, so a replica asks it once a step and its devices obey.

Every latent pixel has one owner: the device that holds its latents and what the cache holds of it. Before a step a
device that computes a tile fetches those pixels of its window that it does not own; afterwards it owns the tile's core.
A reused tile needs nobody: each of its pixels is reused where it lies. So traffic is what the grid's movement and the
placement make necessary, and not the whole canvas.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from policies import answers
from policies.caching.contract import CachingPolicy, Flags, Signals
from policies.caching.step import decide_block
from policies.guard import ask
from policies.placement.contract import PlacementPolicy, TileWork
from policies.tiling.grid import Box, Tile

Owners = npt.NDArray[np.int16]
"""The device that owns each latent pixel, [height, width]."""

REUSED = -1
"""In place of a device: nobody computes the tile."""


class Move(NamedTuple):
    """Pixels that a device fetches from another because they lie in windows that it computes."""

    source: int
    target: int
    pixels: int


class StepPlan(NamedTuple):
    """What one refinement step does.

    Attributes:
        tiles: tiles of the step, in order.
        devices: which device computes each tile; `REUSED` for those that are reused.
        moves: pixels that travel before it.
        seconds: predicted work of each device.
    """

    tiles: tuple[Tile, ...]
    devices: tuple[int, ...]
    moves: tuple[Move, ...]
    seconds: tuple[float, ...]

    @property
    def computed(self) -> Flags:
        """Which tiles are computed, [tiles]."""
        return np.array(self.devices) != REUSED


def first_owners(canvas: tuple[int, int]) -> Owners:
    """Before refinement the first device owns everything: it made the sketch."""
    return np.zeros(canvas, dtype=np.int16)


def plan_step(
    tiles: Sequence[Tile],
    owners: Owners,
    devices: int,
    placement: PlacementPolicy,
    seconds: Callable[[int, int], float],
    caching: CachingPolicy | None = None,
    signals: Signals | None = None,
) -> StepPlan:
    """Decide one step.

    Args:
        tiles: tiles of the step.
        owners: before the step; not changed.
        devices: devices of the replica.
        placement: assigns tiles to them.
        seconds: predicted seconds of a window of (height, width) latent pixels.
        caching: decides which tiles are computed; None: all.
        signals: signals of the tiles, in their order; None without ``caching``.

    Raises:
        PolicyError: a policy's answer is not one a tile, or names no device.
    """
    computed = np.ones(len(tiles), dtype=np.bool_)
    if caching is not None and signals is not None:
        computed = decide_block(caching, signals)
    work = []
    for place, (tile, fresh) in enumerate(zip(tiles, computed, strict=True)):
        cost = seconds(tile.window.height, tile.window.width) if fresh else 0.0
        held = np.bincount(_within(owners, tile.window).ravel(), minlength=devices).tolist()
        work.append(TileWork(place, cost, held.index(max(held)), tuple(held)))
    assigned = assign_tiles(placement, work, devices)
    of_tiles = tuple(device if fresh else REUSED for device, fresh in zip(assigned, computed, strict=True))
    busy = [0.0] * devices
    for device, item in zip(of_tiles, work, strict=True):
        if device != REUSED:
            busy[device] += item.seconds
    return StepPlan(tuple(tiles), of_tiles, moves_of(tiles, owners, of_tiles), tuple(busy))


def assign_tiles(placement: PlacementPolicy, work: Sequence[TileWork], devices: int) -> list[int]:
    """The device of each tile.

    Raises:
        PolicyError: the answer is not one device a tile, or the policy raised.
    """
    return answers.devices(placement, ask(placement, "assign", tuple(work), devices), len(work), devices)


def moves_of(tiles: Sequence[Tile], owners: Owners, of_tiles: Sequence[int]) -> tuple[Move, ...]:
    """What travels before a step in which ``of_tiles`` compute the tiles."""
    moves = []
    for target in sorted({device for device in of_tiles if device != REUSED}):
        counts = np.bincount(owners[seen_by(target, tiles, of_tiles, owners.shape)])
        moves += [Move(source, target, n) for source, n in enumerate(counts.tolist()) if n and source != target]
    return tuple(moves)


def seen_by(device: int, tiles: Sequence[Tile], of_tiles: Sequence[int], canvas: tuple[int, ...]) -> Flags:
    """Which pixels lie in a window that ``device`` computes, [height, width]."""
    seen = np.zeros(canvas, dtype=np.bool_)
    for tile, of_tile in zip(tiles, of_tiles, strict=True):
        if of_tile == device:
            seen[np.ix_(tile.window.rows(canvas[0]), tile.window.columns(canvas[1]))] = True
    return seen


def owners_after(owners: Owners, plan: StepPlan) -> Owners:
    """Who owns what after a step."""
    after = owners.copy()
    for tile, device in zip(plan.tiles, plan.devices, strict=True):
        if device != REUSED:
            after[np.ix_(tile.core.rows(after.shape[0]), tile.core.columns(after.shape[1]))] = device
    return after


def _within(owners: Owners, box: Box) -> Owners:
    return owners[np.ix_(box.rows(owners.shape[0]), box.columns(owners.shape[1]))]
