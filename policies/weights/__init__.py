"""Weights policies, by the names the command line knows, and the scheduling policy that swaps models."""

from policies.weights.contract import WeightsPolicy
from policies.weights.cost import CostAware
from policies.weights.lfu import LFU
from policies.weights.lru import LRU
from policies.weights.pin import Pin
from policies.weights.swapping import ModelSwapping

EVICTIONS = {"cost": CostAware, "lru": LRU, "lfu": LFU, "pin": Pin}

__all__ = ["EVICTIONS", "LFU", "LRU", "CostAware", "ModelSwapping", "Pin", "WeightsPolicy"]
