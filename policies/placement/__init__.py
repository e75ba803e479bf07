"""Placement policies, by the names the command line knows."""

from policies.placement.contiguous import Contiguous
from policies.placement.contract import PlacementPolicy, TileWork

PLACEMENTS = {"contiguous": Contiguous}

__all__ = ["PLACEMENTS", "Contiguous", "PlacementPolicy", "TileWork"]
