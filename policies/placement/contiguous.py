"""Contiguous runs of tiles."""

from __future__ import annotations

from collections.abc import Sequence

from policies.placement.contract import PlacementPolicy, TileWork


class Contiguous(PlacementPolicy):
    """Cuts the row-by-row list of tiles into runs whose lengths differ by at most one (SuperGen's assignment)."""

    def assign(self, tiles: Sequence[TileWork], devices: int) -> list[int]:
        return [i * devices // len(tiles) for i in range(len(tiles))]
