"""Steps of requests that are refined by tiles, and of requests of which a cache computes only a part."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count

import numpy as np
import torch

from backend.cache import BlockCache
from benchmarks.gpu_suite.bench import Bench
from benchmarks.gpu_suite.point import Point, Result
from benchmarks.gpu_suite.ways import Denoiser, Rounds, relative_error, together, wrong
from policies.caching import CachingPolicy, Flags, Signals
from traces.errors import BadInput

CACHE_BYTES = 48 * 2**30


@torch.no_grad()
def measure_tile(point: Point, bench: Bench) -> Result:
    """A step of tiles in one batch, as `backend.tiled` runs those that a device has of one size; also of one tile.

    Raises:
        BadInput: no such way.
    """
    if point.way != "tiled":
        raise BadInput(f"the suite has no tiles that are {point.way!r}; known: tiled")
    denoiser = Denoiser.of(point.name, bench)
    rounds = denoiser.rounds(point.composition)
    result = denoiser.weighed(bench.timed(together(denoiser.stock(), rounds)), None)
    facts = {"rows": denoiser.rows(rounds), "tflop": denoiser.tflop(point.composition)}
    return result | facts | {"tile_s": result["seconds"] / len(rounds[0])}


@torch.no_grad()
def measure_cached(point: Point, bench: Bench) -> Result:
    """A step of a mixed batch of which a cache computes the share that the detail says (``share=0.5``), the first step
    left out, and of the same batch without a cache (``uncached``), timed round by round.

    The policy watches what comes into every block, as those do that decide by it. Inputs are the same at every step, so
    that what is reused is what would be computed.

    Raises:
        BadInput: no such share.
    """
    share = share_of(point.detail)
    denoiser = Denoiser.of(point.name, bench)
    rounds = denoiser.rounds(point.composition)
    cached = denoiser.cached(FixedShare(share), CACHE_BYTES)
    uncached = denoiser.mixed(denoiser.kernels)
    cache: BlockCache | None = cached.cache
    assert cache is not None
    steps = count()

    def own() -> list[torch.Tensor]:
        step = next(steps)
        now: Rounds = [[call._replace(step=step, steps=step + 2) for call in calls] for calls in rounds]
        return together(cached, now)()

    without = together(uncached, rounds)
    expected = together(denoiser.stock(), rounds)()
    own()
    cache.start_count()
    error = relative_error(own(), expected)
    computed = cache.computed / (cache.computed + cache.reused)
    errors = {point.way: error, "uncached": relative_error(denoiser.settled(without), expected)}
    for way, found in errors.items():
        if (failed := wrong(way, found)) is not None:
            return failed
    if abs(computed - share) > max(0.1, share / 4):
        return {"failed": f"the cache computed {computed:.2f} of the units instead of {share:g}"}
    timed = bench.timed_ways({point.way: own, "uncached": without}, warmups=1)
    kept_bytes = cache.kept.bytes
    for call in rounds[0]:
        cache.forget(call.request_id)
    ways = {
        name: denoiser.weighed(result, uncached if name == "uncached" else None) | {"error": errors[name]}
        for name, result in timed.items()
    }
    facts = {"rows": denoiser.rows(rounds), "computed": computed, "kept_bytes": kept_bytes, "tflop": None}
    return ways[point.way] | facts | {"ways": ways}


def share_of(detail: str) -> float:
    """The share that ``share=0.5`` says.

    Raises:
        BadInput: it says none from 0 to 1.
    """
    name, _, number = detail.partition("=")
    try:
        share = float(number)
    except ValueError:
        share = -1.0
    if name != "share" or not 0 <= share <= 1:
        raise BadInput(f"a cached point's detail is {detail!r}, expected one like share=0.5, from 0 to 1")
    return share


@dataclass
class FixedShare(CachingPolicy):
    """Computes the same share of every request's units in every block, evenly spread, whatever the signals say."""

    share: float

    def decide(self, signals: Signals) -> Flags:
        flags: Flags = np.floor((signals.unit + 1) * self.share) > np.floor(signals.unit * self.share)
        return flags
