"""What a tile cache saves and what it costs the picture, and the threshold that keeps a given fidelity.

The same sketches are refined with and without a cache, from the same seeds; what comes out is compared.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from policies.caching import CachingPolicy
from policies.load import built, made_with

if TYPE_CHECKING:
    import torch

    from backend.tiled.refiner import Refined, Refiner
    from traces.request import Request

LARGEST_PSNR_DB = 60.0
"""Equal pictures count as this."""

_OUTWARD = 12


@dataclass(frozen=True, slots=True)
class CacheTradeOff:
    """A cache on some requests, against the uncached runs.

    Attributes:
        threshold: threshold of the policy; NaN: it has none.
        computed: share of the tiles that were computed.
        speed: refinement's CPU seconds without the cache over those with it.
        psnr_db: mean over the requests, equal ones counting as `LARGEST_PSNR_DB`.
        least_psnr_db: the worst of them.
        ssim: mean.
        psnrs_db: PSNR of each request, decibels.
    """

    threshold: float
    computed: float
    speed: float
    psnr_db: float
    least_psnr_db: float
    ssim: float
    psnrs_db: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        """For a report."""
        return asdict(self)


def threshold_of(policy: CachingPolicy) -> float | None:
    """What a policy was made with as its ``threshold``; None: it has no such parameter, or one that is no float."""
    threshold = made_with(policy).get("threshold")
    return threshold if isinstance(threshold, float) else None


def with_threshold(policy: CachingPolicy, threshold: float) -> CachingPolicy:
    """A new policy of the same class and parameters, but for its threshold.

    Raises:
        BadInput: the policy does not take this threshold.
    """
    made: CachingPolicy = built(type(policy), {**made_with(policy), "threshold": threshold}, "the caching policy")
    return made


class Yardstick:
    """Some requests of a model, and what becomes of them without a cache.

    Args:
        refiner: the model and its tiling.
        requests: all of one size, say.
        progress: called with the number of requests sketched and refined.
    """

    def __init__(self, refiner: Refiner, requests: Sequence[Request], progress: Callable[[int], None] = lambda _: None):
        self._refiner = refiner
        self.requests = tuple(requests)
        self._sketches: list[torch.Tensor] = []
        self._uncached: list[Refined] = []
        for request in self.requests:
            refiner.check(request)
            self._sketches.append(refiner.sketch(request))
            self._uncached.append(refiner.refine(request, self._sketches[-1]))
            progress(len(self._uncached))

    def point(self, policy: CachingPolicy, reuse: str = "output", again: bool = False) -> CacheTradeOff:
        """Measure a cache.

        Args:
            policy: decides; its threshold is noted.
            reuse: what a reused tile hands on, see `backend.tiled.refine.REUSE`.
            again: time the uncached refinement anew beside each cached one, so that a slow spell meets both.
        """
        psnrs, ssims, computed, tiles, seconds, whole_s = [], [], 0, 0, 0.0, 0.0
        for request, sketch, uncached in zip(self.requests, self._sketches, self._uncached, strict=True):
            if again:
                uncached = self._refiner.refine(request, sketch)
            cached = self._refiner.refine(request, sketch, policy, reuse)
            psnr, similarity = fidelity(cached, uncached)
            psnrs.append(psnr)
            ssims.append(similarity)
            computed, tiles = computed + cached.computed, tiles + cached.tiles
            seconds, whole_s = seconds + cached.seconds, whole_s + uncached.seconds
        return CacheTradeOff(
            threshold=math.nan if (threshold := threshold_of(policy)) is None else threshold,
            computed=computed / tiles,
            speed=whole_s / seconds,
            psnr_db=float(np.mean(psnrs)),
            least_psnr_db=min(psnrs),
            ssim=float(np.mean(ssims)),
            psnrs_db=tuple(psnrs),
        )


def fidelity(cached: Refined, uncached: Refined) -> tuple[float, float]:
    """(PSNR, SSIM) of a result against the uncached one, means over images; PSNR at most `LARGEST_PSNR_DB`."""
    from reports.quality.fidelity import psnr_db, ssim
    from reports.quality.frames import frames_of

    pairs = [(frames_of(one), frames_of(other)) for one, other in zip(cached.pixels, uncached.pixels, strict=True)]
    psnr = float(np.mean([min(LARGEST_PSNR_DB, psnr_db(*pair)) for pair in pairs]))
    return psnr, float(np.mean([ssim(*pair) for pair in pairs]))


def calibrate(
    measure: Callable[[float], CacheTradeOff], target_db: float, first: float, bisections: int = 6
) -> Iterator[CacheTradeOff]:
    """Points that close in on the largest threshold whose mean PSNR is at least ``target_db``, as they are measured.

    From ``first`` the threshold is halved or doubled until the target lies between two; these are then bisected in
    their logarithms. It ends early where four times the threshold reuses no more, or after `_OUTWARD` halvings or
    doublings.

    Args:
        measure: the point of a threshold.
        target_db: least `CacheTradeOff.psnr_db` that will do, decibels.
        first: threshold to begin with.
        bisections: how many thresholds to try between two that enclose the target.
    """
    keeps = fails = None
    threshold, computed = first, [1.0]
    for _ in range(_OUTWARD + bisections):
        point = measure(threshold)
        yield point
        if point.psnr_db >= target_db:
            keeps = threshold
        else:
            fails = threshold
        if keeps is None:
            threshold /= 2
        elif fails is None:
            if computed[-2:] == [point.computed] * 2 and point.computed < 1:
                return
            threshold *= 2
        else:
            if not bisections:
                return
            bisections -= 1
            threshold = (keeps * fails) ** 0.5
        computed.append(point.computed)


def best_of(points: Sequence[CacheTradeOff], target_db: float) -> CacheTradeOff | None:
    """Of the points that keep the target the one that computes least; None: none keeps it."""
    kept = [point for point in points if point.psnr_db >= target_db]
    return min(kept, key=lambda point: (point.computed, -point.psnr_db), default=None)
