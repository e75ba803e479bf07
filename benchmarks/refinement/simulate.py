"""Refinement on modelled devices: the real placement policies and `plan_step`, step after step, with drawn reuse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from benchmarks.refinement.published import STEPS
from policies.caching.contract import CachingPolicy, Flags, Signals
from policies.placement import PlacementPolicy
from policies.tiling.grid import TileGrid
from policies.tiling.shifts import ShiftSchedule
from policies.tiling.step import Owners, first_owners, owners_after, plan_step
from predictors.link import Link
from traces.streams import stream

LINK = Link(2e-5, 3e11)
"""NVLink of an H100 at a third of what it could carry; nothing here depends on it by more than a part in a thousand."""

PIXEL_BYTES = 16 * 11 * 2
"""A latent pixel of 41 frames: 16 channels, 11 latent frames, 2 bytes."""


def drawn(reuse: float, alike: float, tiles: tuple[int, int], seed: int, warm_up: int = 1) -> Flags:
    """Which tiles are computed, [steps, tiles]: everything at first and at last, else what chance does not reuse.

    Args:
        reuse: probability that a tile is reused.
        alike: how strongly tiles of a row of the grid are reused together, 0 to 1: the share of the variance behind
            their draws that they have in common.
        tiles: (down, across).
        seed: of the draws; they are the same for every ``reuse``, so more reuse only adds to what is reused.
        warm_up: steps in which everything is computed; in the first there is nothing to reuse.
    """
    rng, (down, across) = stream(seed, "supergen/reuse"), tiles
    common, own = rng.standard_normal((STEPS, down, 1)), rng.standard_normal((STEPS, down, across))
    computed = (np.sqrt(alike) * common + np.sqrt(1 - alike) * own >= ndtri(reuse)).reshape(STEPS, -1)
    computed[:warm_up] = computed[-1] = True
    return computed


class Drawn(CachingPolicy):
    """Reuses what was drawn."""

    def __init__(self, computed: Flags) -> None:
        self.computed = computed

    def decide(self, signals: Signals) -> Flags:
        return self.computed[signals.step, signals.unit]


@dataclass(frozen=True)
class Run:
    """A refinement of `STEPS` steps.

    Attributes:
        busy_s: seconds that each device computes, [steps, devices].
        received: latent pixels that come to each device, [steps, devices].
        sent: that go from it.
        messages: to and from it.
    """

    busy_s: npt.NDArray[np.float64]
    received: npt.NDArray[np.int64]
    sent: npt.NDArray[np.int64]
    messages: npt.NDArray[np.int64]

    def seconds(self, link: Link = LINK, pixel_bytes: float = PIXEL_BYTES) -> float:
        """Of all steps: the slowest exchange, then the slowest device."""
        exchange = self.messages * link.latency_s + (self.received + self.sent) * pixel_bytes / link.bytes_per_s
        return float((exchange.max(1) + self.busy_s.max(1)).sum())


def refine(
    grid: TileGrid,
    devices: int,
    placement: PlacementPolicy,
    tile_s: Callable[[int, int], float],
    computed: Flags | None = None,
) -> Run:
    """Run the steps of one request.

    Args:
        grid: of its canvas.
        devices: of the replica.
        placement: assigns tiles to them.
        tile_s: seconds of a window of (height, width) latent pixels.
        computed: which tiles are, [steps, tiles]; None: all.
    """
    shifts = ShiftSchedule.of(grid)
    owners: Owners = first_owners(grid.canvas)
    cache = None if computed is None else Drawn(computed)
    busy = np.zeros((STEPS, devices))
    received, sent, messages = (np.zeros((STEPS, devices), dtype=np.int64) for _ in range(3))
    for step in range(STEPS):
        tiles = grid.tiles(shifts.at(step))
        plan = plan_step(tiles, owners, devices, placement, tile_s, cache, _signals(step, len(tiles)))
        busy[step] = plan.seconds
        for source, target, pixels in plan.moves:
            sent[step, source] += pixels
            received[step, target] += pixels
            messages[step, [source, target]] += 1
        owners = owners_after(owners, plan)
    return Run(busy, received, sent, messages)


def _signals(step: int, tiles: int) -> Signals:
    """What `Drawn` looks at; before the first step nothing can be reused."""
    of, steps, still = np.zeros(tiles, dtype=np.int64), np.full(tiles, STEPS), np.zeros(tiles)
    return Signals(("r",), of, np.arange(tiles), 0, 1, of + step, steps, still if step else still + np.inf, still)
