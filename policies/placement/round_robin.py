"""Tiles in turn."""

from __future__ import annotations

from collections.abc import Sequence

from policies.placement.contract import PlacementPolicy, TileWork


class RoundRobinTiles(PlacementPolicy):
    """Deals the tiles out row by row, whatever they cost and wherever their state is: the floor for others."""

    def assign(self, tiles: Sequence[TileWork], devices: int) -> list[int]:
        return [i % devices for i in range(len(tiles))]
