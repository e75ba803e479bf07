"""Memory stays flat over hundreds of mixed requests; run it with TILECAST_SLOW=1."""

from __future__ import annotations

import gc
import os
import random
import tracemalloc

import pytest

torch = pytest.importorskip("torch")

from backend.executor import Executor  # noqa: E402
from tests.backend import tiny_pipelines  # noqa: E402
from traces.request import Request  # noqa: E402

REQUESTS = 500
SETTLED = 200
"""Requests until every size has been met, and all that is kept by size is there."""
UNITS = {"sd3": 4, "flux": 4, "wan": 16}


def tensors() -> int:
    return sum(1 for thing in gc.get_objects() if type(thing) is torch.Tensor)


@pytest.mark.skipif(not os.environ.get("TILECAST_SLOW"), reason="takes minutes; set TILECAST_SLOW=1")
def test_memory_is_flat_over_500_mixed_requests_of_three_families() -> None:
    torch.set_num_threads(1)
    rng = random.Random(0)
    executors = {name: Executor(getattr(tiny_pipelines, name)(), "packed") for name in UNITS}
    seen: list[tuple[int, int]] = []
    tracemalloc.start()
    for first in range(0, REQUESTS, 4):
        name = rng.choice(list(UNITS))
        requests = [
            Request(
                f"{first + index}",
                0.0,
                rng.choice([1, 2, 3]) * UNITS[name],
                rng.choice([1, 2]) * UNITS[name],
                steps=2,
                seed=first + index,
                prompt="a small red bird"[: rng.randint(3, 16)],
                frames=5 if name == "wan" else 1,
            )
            for index in range(4)
        ]
        executor = executors[name]
        assert executor.execute("encode", requests).failed is None
        assert executor.execute("denoise", requests, 2).failed is None
        assert executor.execute("decode", requests, deliver=lambda *_: None).failed is None
        executor.keep_only(set())
        if first in (SETTLED, REQUESTS - 4):
            gc.collect()
            seen.append((tensors(), tracemalloc.get_traced_memory()[0]))
    (before, bytes_before), (after, bytes_after) = seen
    print(f"tensors {before} -> {after}, bytes of Python {bytes_before} -> {bytes_after}")
    assert after <= 1.05 * before
    assert bytes_after <= 1.05 * bytes_before
