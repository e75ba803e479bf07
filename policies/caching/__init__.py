"""Caching policies, by the names the command line knows."""

from policies.caching.compute_all import ComputeAll
from policies.caching.contract import CachingPolicy, Signals

CACHES = {"none": ComputeAll}

__all__ = ["CACHES", "CachingPolicy", "ComputeAll", "Signals"]
