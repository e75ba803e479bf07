"""Which function measures a group of points."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.gpu_suite.bench import Bench
from benchmarks.gpu_suite.ceilings import measure_ceiling
from benchmarks.gpu_suite.kernels import measure_kernel
from benchmarks.gpu_suite.mixes import measure_mix
from benchmarks.gpu_suite.point import Point, Result
from benchmarks.gpu_suite.replay import measure_replay
from benchmarks.gpu_suite.steps import measure_decode, measure_encode, measure_step
from benchmarks.gpu_suite.tiles import measure_cached, measure_tile

MEASURES: dict[str, Callable[[Point, Bench], Result]] = {
    "ceiling": measure_ceiling,
    "kernel": measure_kernel,
    "step": measure_step,
    "mix": measure_mix,
    "decode": measure_decode,
    "encode": measure_encode,
    "tile": measure_tile,
    "cached": measure_cached,
    "replay": measure_replay,
}
