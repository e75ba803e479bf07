"""Profiles that tests of predictors are made of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from predictors.importers.mixfusion import import_mixfusion
from predictors.profile import Profile
from traces.composition import composition_of, format_composition

SHARED = Path(__file__).parents[2] / "../shared/data/mixfusion/profile"


def true_seconds(stage: str, tokens: int) -> float:
    """Seconds per step of the made-up hardware that `made_up` measures."""
    return {"encode": 0.01, "denoise": 0.02 + 4e-6 * tokens, "decode": 0.004 + 1e-6 * tokens}[stage]


@pytest.fixture(scope="session")
def made_up() -> Profile:
    """Whole and patched batches of two sizes of sd3, two repeats each, 3 % noise; no encode for patched."""
    rng = np.random.default_rng(0)
    rows = []
    mixes = [{512: n} for n in range(1, 9)] + [{1024: n} for n in range(1, 5)]
    mixes += [{512: n, 1024: m} for n in (1, 2, 4) for m in (1, 2)]
    for mix in mixes:
        executors = ["patched"] if len(mix) > 1 else ["whole", "patched"]
        tokens = sum(n * (side // 16) ** 2 for side, n in mix.items())
        composition = format_composition(composition_of(((side, side, 1), n) for side, n in mix.items()))
        for executor in executors:
            for stage in ("encode", "denoise", "decode") if executor == "whole" else ("denoise",):
                steps = 10 if stage == "denoise" else 1
                for _ in range(2):
                    seconds = steps * true_seconds(stage, tokens) * rng.normal(1, 0.03)
                    rows.append((executor, stage, composition, steps, seconds))
    frame = pd.DataFrame(rows, columns=["executor", "stage", "composition", "steps", "seconds"])
    frame = frame.assign(hardware="abacus", software="test", model="sd3", guided=True)
    return Profile.from_frame(frame, {"source": "made up"})


def launch_bound_seconds(tokens: int) -> float:
    """Seconds per step of `launch_bound`: five guided images of 512x512 take as long as one."""
    return 0.05 * max(1.0, tokens / (2 * 5 * 32**2))


@pytest.fixture(scope="session")
def launch_bound() -> Profile:
    """Whole batches of three sizes of sd3, three repeats each, 1 % noise, where starting kernels takes 50 ms a step."""
    rng = np.random.default_rng(0)
    rows = []
    for side in (512, 768, 1024):
        for images in (1, 2, 3, 4, 5, 6, 8, 10, 12):
            true = 10 * launch_bound_seconds(2 * images * (side // 16) ** 2)
            rows += [(f"{images}@{side}x{side}", true * rng.normal(1, 0.01)) for _ in range(3)]
    frame = pd.DataFrame(rows, columns=["composition", "seconds"]).assign(executor="whole", stage="denoise", steps=10)
    frame = frame.assign(hardware="abacus", software="test", model="sd3", guided=True)
    return Profile.from_frame(frame, {"source": "made up"})


@pytest.fixture(scope="session")
def published() -> Profile:
    """The published H100 measurements; the test is skipped where they are absent."""
    if not SHARED.is_dir():
        pytest.skip("published data not here")
    return import_mixfusion(sorted(SHARED.glob("*.csv")))
