"""What a replica carries at the very most, without a simulation: every image in the best batch of its size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from predictors.costs import Batch, CostModel
from traces.request import Request, Size
from traces.stages import Recipe, ordinary

BATCHES = (1, 2, 4, 8, 16, 32, 64)

MARGIN = 1.25
"""It may be so much more: batches of several sizes can be better than those of one."""


def best_seconds(
    costs: CostModel, requests: Iterable[Request], recipe: Callable[[Request], Recipe] = ordinary
) -> float:
    """Mean seconds of a request when each image has its share of the fastest batch of its size, without waiting."""
    images: Counter[tuple[str, str, Size, bool]] = Counter()
    count = 0
    for request in requests:
        count += 1
        for stage, steps in recipe(request):
            images[stage, request.model, request.shape, request.guided] += steps * request.images
    best = {
        (stage, model, size, guided): min(
            [costs.step_s(stage, Batch(model, ((size, n),), float(guided))) / n for n in BATCHES]
        )
        for stage, model, size, guided in images
    }
    return sum([count_of * best[what] for what, count_of in images.items()]) / count


def capacity_rps(
    costs: CostModel, requests: Iterable[Request], recipe: Callable[[Request], Recipe] = ordinary
) -> float:
    """Requests a second that one replica carries at the very most, where ``recipe`` is all that they go through."""
    return MARGIN / best_seconds(costs, requests, recipe)
