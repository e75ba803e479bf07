"""Caching policies, by the names the command line knows."""

from policies.caching.bounded import BoundedReuse
from policies.caching.compute_all import ComputeAll
from policies.caching.contract import CachingPolicy, Flags, Signals
from policies.caching.first_block import FirstBlock
from policies.caching.forest import ForestReuse
from policies.caching.interval import FixedInterval
from policies.caching.region_aware import RegionAware
from policies.caching.threshold import Threshold

CACHES: dict[str, type[CachingPolicy]] = {
    "none": ComputeAll,
    "interval": FixedInterval,
    "threshold": Threshold,
    "first-block": FirstBlock,
    "forest": ForestReuse,
    "region-aware": RegionAware,
}

__all__ = [
    "CACHES",
    "BoundedReuse",
    "CachingPolicy",
    "ComputeAll",
    "FirstBlock",
    "FixedInterval",
    "Flags",
    "ForestReuse",
    "RegionAware",
    "Signals",
    "Threshold",
]
