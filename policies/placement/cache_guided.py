"""Balance what is really computed, then move as little as that allows."""

from __future__ import annotations

from collections.abc import Sequence

from policies.parameters import Weight
from policies.placement.balance import fewest_moved
from policies.placement.contract import PlacementPolicy, TileWork
from traces.errors import BadInput


class CacheGuided(PlacementPolicy):
    """Assigns anew after the caching policy's decisions (SuperGen, section 4), by makespan first and traffic second.

    The paper splits the list of computed tiles evenly, wherever their state is. Here tiles that cost different times
    are balanced too, and of all assignments with the least makespan, give or take a share of ``tolerance``, the one
    is taken for which the fewest pixels travel.

    Args:
        tolerance: the share by which a step may be longer than the shortest.

    Raises:
        BadInput: ``tolerance`` below 0.
    """

    def __init__(self, tolerance: Weight = 0.01) -> None:
        if not tolerance >= 0:
            raise BadInput(f"tolerance is {tolerance}, expected at least 0")
        self.tolerance = tolerance

    def assign(self, tiles: Sequence[TileWork], devices: int) -> list[int]:
        answer = [max(tile.owner, 0) for tile in tiles]
        if busy := [i for i, tile in enumerate(tiles) if tile.seconds > 0]:
            found = fewest_moved([tiles[i] for i in busy], devices, self.tolerance)
            for i, device in zip(busy, found, strict=True):
                answer[i] = device
        return answer
