"""Blocks of transformers of which nothing is known: random mixes of sizes, texts, times and rows, each as alone."""

from __future__ import annotations

import os
import random
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from backend.coroutine import DenoiserCall  # noqa: E402
from backend.packed.blocks import Blocks  # noqa: E402
from tests.backend.tiny_transformers import FAMILIES, Asked  # noqa: E402

torch.set_num_threads(1)
MIXES = int(os.environ.get("TILECAST_MIXES", "5"))


def mix(seed: int) -> list[Asked]:
    rng = random.Random(seed)
    rows = rng.choice([1, 1, 2])
    return [
        Asked(
            rows=rows,
            height=rng.choice([2, 4, 6, 8]),
            width=rng.choice([2, 4, 6, 8]),
            text=rng.choice([4, 5, 7, 8, 12, 16]),
            time=rng.random(),
            random=torch.Generator().manual_seed(10 * seed + index),
        )
        for index in range(rng.choice([2, 3, 4]))
    ]


def parts_of(output: Any) -> list[Any]:
    if isinstance(output, torch.Tensor):
        return [output]
    return [part for one in output for part in parts_of(one)]


@pytest.mark.parametrize("name", FAMILIES)
def test_random_mixes_equal_each_call_alone(name: str) -> None:
    family = FAMILIES[name]
    model = family.model()
    blocks = Blocks(model)
    for seed in range(MIXES):
        calls = [{**family.call(asked), "return_dict": False} for asked in mix(seed)]
        with torch.no_grad():
            alone = [parts_of(model(**call)) for call in calls]
        together = blocks.run_in_step([DenoiserCall((), call) for call in calls])
        for expected, given in zip(alone, together, strict=True):
            for one, other in zip(expected, parts_of(given), strict=True):
                assert (one - other).abs().max() <= 1e-12 * one.std(), (seed, blocks.notes)
    assert blocks.packed.total() >= MIXES * len(blocks.packed)


@pytest.mark.parametrize("name", FAMILIES)
def test_what_a_call_says_matters(name: str) -> None:
    """Else the test above could not fail."""
    family = FAMILIES[name]
    model = family.model()
    asked, other = mix(1)[:2]
    calls = [
        family.call(one._replace(random=torch.Generator().manual_seed(3)))
        for one in (asked, asked._replace(time=other.time))
    ]
    with torch.no_grad():
        one, two = (parts_of(model(**call, return_dict=False))[0] for call in calls)
    assert (one - two).abs().max() > 1e-3 * one.std()
