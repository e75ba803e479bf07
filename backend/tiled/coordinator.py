"""What the first rank decides for all: one request's tiles, step by step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from backend.tiled.signals import MeasuredTileSignals, as_table
from policies.caching.contract import CachingPolicy, Flags, Signals
from policies.guard import ask
from policies.placement.contract import PlacementPolicy
from policies.tiling.grid import Tile
from policies.tiling.recipe import TiledShape
from policies.tiling.step import Owners, StepPlan, plan_step


class Coordinator:
    """Asks the policies about the steps of one request.

    Args:
        request_id: whose.
        steps: evaluations of its refinement.
        values: numbers a latent pixel stands for.
        devices: devices of the replica.
        placement: assigns tiles.
        seconds: predicted seconds of a window of (height, width) latent pixels.
        caching: decides which tiles are computed; None: all.
    """

    def __init__(
        self,
        request_id: str,
        steps: int,
        values: int,
        devices: int,
        placement: PlacementPolicy,
        seconds: Callable[[int, int], float],
        caching: CachingPolicy | None,
    ) -> None:
        self._devices = devices
        self._placement = placement
        self._seconds = seconds
        self._caching = caching
        self._request_id = request_id
        self._signals = MeasuredTileSignals(request_id, steps, values)
        self._last: Sequence[Tile] = ()
        self._decided: list[tuple[Signals, Flags]] = []

    def decide(
        self,
        step: int,
        tiles: Sequence[Tile],
        owners: Owners,
        totals: torch.Tensor | None,
        changes: torch.Tensor | None,
        renewed: bool = False,
    ) -> StepPlan:
        """Decide a step from `backend.tiled.signals.measured`'s totals and how far the last outputs moved.

        ``renewed``: what is held is not to be reused.
        """
        if self._caching is None:
            return plan_step(tiles, owners, self._devices, self._placement, self._seconds)
        if changes is not None:
            self._signals.changed(self._last, changes)
        signals = self._signals.of(step, tiles, totals, renewed)
        plan = plan_step(
            tiles=tiles,
            owners=owners,
            devices=self._devices,
            placement=self._placement,
            seconds=self._seconds,
            caching=self._caching,
            signals=signals,
        )
        self._last = tiles
        self._signals.computed([tile for tile, fresh in zip(tiles, plan.computed, strict=True) if fresh])
        self._decided.append((signals, plan.computed))
        return plan

    def state(self) -> dict[str, Any]:
        """What was decided so far, to go on from. What a policy knows it has learned from that alone."""
        return {
            "signals": self._signals.state(),
            "decided": [[as_table(signals), torch.from_numpy(computed)] for signals, computed in self._decided],
        }

    def restore(self, state: Mapping[str, Any], shape: TiledShape) -> None:
        """Go on from a `state` of a request of this shape: the policy is told again what was done."""
        self._signals.restore(state["signals"])
        for step, (table, computed) in enumerate(state["decided"]):
            signals, flags = self._signals.from_table(step, table.cpu()), computed.cpu().numpy()
            if self._caching is not None:
                ask(self._caching, "commit", signals, flags)
            self._decided.append((signals, flags))
        if self._decided:
            self._last = shape.grid.tiles(shape.shifts.at(len(self._decided) - 1))

    def forget(self) -> None:
        """The request has ended."""
        if self._caching is not None:
            ask(self._caching, "forget", self._request_id)
