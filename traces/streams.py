"""Named random streams: one seed, as many independent generators as there are things to draw.

A single generator shared by everything ties unrelated draws together: one size more and every later arrival
moves. Here each thing draws from a stream of its own name, so a change in one leaves the others as they were.
"""

from __future__ import annotations

import hashlib

import numpy as np

from traces.errors import BadInput


def stream(seed: int, name: str) -> np.random.Generator:
    """The generator called ``name`` under ``seed``: the same on every machine and in every process.

    Raises:
        BadInput: a negative seed.
    """
    if seed < 0:
        raise BadInput(f"seed is {seed}, expected a whole number of at least 0")
    words = np.frombuffer(hashlib.sha256(name.encode()).digest()[:16], dtype="<u4")
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=tuple(int(word) for word in words)))
