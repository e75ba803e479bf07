"""Made-up recordings of cache signals, by a formula simple enough to check against."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from predictors.recording import Recording

BLOCKS = 5  # two down, mid, two up; only the up blocks have skips
PATCH = 32
STEPS = 10
SIZES = ((96, 96), (128, 64))


def mean_log_change(block: int, step: np.ndarray, age: np.ndarray, steps: int = STEPS) -> np.ndarray:
    """log10 of the typical input change: it falls with the step, and grows with the square of the share of the run."""
    return -1.0 - 0.1 * block - 1.5 * step / steps + 2.0 * np.log10(age / steps) + 2.0


def made_up(
    requests: int = 8, sizes: Sequence[tuple[int, int]] = SIZES, seed: int = 0, output_noise: float = 0.1
) -> Recording:
    """Every request and unit is faster or slower than typical (0.3 and 0.2 in log10), constant over its steps.

    The output changes 0.8 times as much as the input in log10, less 0.2, give or take ``output_noise``.
    """
    rng = np.random.default_rng(seed)
    frames = []
    for request in range(requests):
        height, width = sizes[request % len(sizes)]
        of_request = rng.normal(0, 0.3)
        for unit in range(2 * (height // PATCH) * (width // PATCH)):
            of_unit = of_request + rng.normal(0, 0.2)
            block, step = (index.reshape(-1) for index in np.indices((BLOCKS, STEPS))[:, :, 1:])
            age = np.minimum(step, rng.integers(1, 5, len(step)))
            change = np.concatenate([mean_log_change(b, step[block == b], age[block == b]) for b in range(BLOCKS)])
            change = change + of_unit + rng.normal(0, 0.05, len(step))
            skip = np.where(block > 2, 10 ** (change + 0.1), 0.0)
            output = 10 ** (0.8 * change - 0.2 + rng.normal(0, output_noise, len(step)))
            frame = pd.DataFrame({"block": block, "step": step, "age": age})
            frames.append(
                frame.assign(
                    request_id=f"r{request}",
                    height=height,
                    width=width,
                    steps=STEPS,
                    unit=unit,
                    blocks=BLOCKS,
                    input_change=10**change,
                    skip_change=skip,
                    output_change=output,
                    block_s=(1.0 + block) * height * width * 1e-7,
                )
            )
    facts = {"model": "made-up", "patch": str(PATCH), "floor": str(PATCH)}
    return Recording(pd.concat(frames, ignore_index=True), facts)
