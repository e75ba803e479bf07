"""What the device can do at best: products of matrices, and copies."""

from __future__ import annotations

import torch

from benchmarks.gpu_suite.bench import Bench
from benchmarks.gpu_suite.point import Point, Result
from traces.errors import BadInput

_MIB = 2**20
_WARMUPS = 40
"""An idle device raises its clock while it works."""


@torch.no_grad()
def measure_ceiling(point: Point, bench: Bench) -> Result:
    """A product of square matrices (``matmul``; way: their type; detail: their side) or a copy (``copy``; way: from
    where to where; detail: MiB).

    Raises:
        BadInput: no such ceiling.
    """
    if point.name == "matmul":
        return _product(getattr(torch, point.way), int(point.detail), bench)
    if point.name == "copy" and point.way == "device":
        return copied(int(point.detail) * _MIB, bench)
    if point.name == "copy" and point.way == "host-to-device":
        return _from_host(int(point.detail) * _MIB, bench)
    raise BadInput(f"the suite has no ceiling {point.name!r} of {point.way!r}")


def copied(size: int, bench: Bench) -> Result:
    """A copy of ``size`` bytes within the device's memory; ``bytes`` counts those read and those written."""
    source = torch.empty(size // 4, dtype=torch.float32, device=bench.device).normal_(generator=bench.generator)
    target = torch.empty_like(source)
    return {**bench.timed(lambda: target.copy_(source), _warmups(bench), queued=True), "bytes": 2 * source.nbytes}


def copy_rate(bench: Bench) -> float:
    """Bytes a second, read and written, of a copy far larger than the device's cache."""
    result = copied((4 if bench.smoke else 1024) * _MIB, bench)
    return float(result["bytes"] / result["seconds"])


def _product(dtype: torch.dtype, side: int, bench: Bench) -> Result:
    left, right = (
        torch.empty(side, side, dtype=dtype, device=bench.device).normal_(generator=bench.generator) for _ in range(2)
    )
    out = torch.empty_like(left)
    timed = bench.timed(lambda: torch.mm(left, right, out=out), _warmups(bench), queued=True)
    return {**timed, "tflop": 2 * side**3 / 1e12}


def _warmups(bench: Bench) -> int | None:
    return None if bench.smoke else _WARMUPS


def _from_host(size: int, bench: Bench) -> Result:
    """From pinned memory, where there is such a thing."""
    source = torch.rand(size // 4, pin_memory=bench.device.type == "cuda")
    target = torch.empty(size // 4, dtype=torch.float32, device=bench.device)
    return {**bench.timed(lambda: target.copy_(source, non_blocking=True)), "bytes": source.nbytes}
