"""The longest tile first, to the device that is free first."""

from __future__ import annotations

from collections.abc import Sequence

from policies.placement.balance import longest_first
from policies.placement.contract import PlacementPolicy, TileWork


class LongestFirst(PlacementPolicy):
    """Balances the tiles that are computed (Graham's LPT: at most 4/3 of the best makespan), blind to their state."""

    def assign(self, tiles: Sequence[TileWork], devices: int) -> list[int]:
        busy = [i for i, tile in enumerate(tiles) if tile.seconds > 0]
        answer = [max(tile.owner, 0) for tile in tiles]
        for i, device in zip(busy, longest_first([tiles[i].seconds for i in busy], devices), strict=True):
            answer[i] = device
        return answer
