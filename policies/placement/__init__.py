"""Placement policies, by the names the command line knows."""

from policies.placement.cache_guided import CacheGuided
from policies.placement.contiguous import Contiguous
from policies.placement.contract import PlacementPolicy, TileWork
from policies.placement.longest_first import LongestFirst
from policies.placement.planned import Planned
from policies.placement.round_robin import RoundRobinTiles

PLACEMENTS = {
    "contiguous": Contiguous,
    "round-robin": RoundRobinTiles,
    "longest-first": LongestFirst,
    "cache-guided": CacheGuided,
    "planned": Planned,
}

__all__ = [
    "PLACEMENTS",
    "CacheGuided",
    "Contiguous",
    "LongestFirst",
    "PlacementPolicy",
    "Planned",
    "RoundRobinTiles",
    "TileWork",
]
