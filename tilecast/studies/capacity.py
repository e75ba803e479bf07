"""What a replica carries at the very most, without a simulation: every image in the best batch of its size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from sim.world import Latencies
from traces.request import Request, Size
from traces.stages import ordinary

BATCHES = (1, 2, 4, 8, 16, 32, 64)

MARGIN = 1.25
"""It may be so much more: batches of several sizes can be better than those of one."""


def best_seconds(latencies: Latencies, requests: Iterable[Request]) -> float:
    """Mean seconds of a request when each image has its share of the fastest batch of its size, without waiting."""
    images: Counter[tuple[str, Size, bool]] = Counter()
    count = 0
    for request in requests:
        count += 1
        for stage, steps in ordinary(request):
            images[stage, request.size, request.guided] += steps * request.images
    best = {
        (stage, size, guided): min([latencies.seconds(stage, ((size, n),), float(guided)) / n for n in BATCHES])
        for stage, size, guided in images
    }
    return sum([count_of * best[what] for what, count_of in images.items()]) / count


def capacity_rps(latencies: Latencies, requests: Iterable[Request]) -> float:
    """Requests a second that one replica carries at the very most."""
    return MARGIN / best_seconds(latencies, requests)
