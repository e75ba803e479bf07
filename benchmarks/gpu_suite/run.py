"""Runs the points of the suite one after another, and keeps what came of them."""

from __future__ import annotations

import json
import signal
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from platform import python_version
from types import FrameType

import torch

from backend.kernels.choice import CHOICES
from backend.machine import hardware_name
from backend.profiling import driver_facts
from benchmarks.gpu_suite.bench import Bench
from benchmarks.gpu_suite.budget import Pace
from benchmarks.gpu_suite.point import Point, Result
from benchmarks.gpu_suite.store import Store
from benchmarks.gpu_suite.table import spell_seconds
from traces.errors import BadInput

Measure = Callable[[Point, Bench], Result]
Say = Callable[[str], None]

_PACKAGES = ("tilecast", "torch", "triton", "diffusers", "transformers")
_LONGEST = 300  # letters of a reason


class TooSlow(BaseException):
    """A point's deadline passed. Not an `Exception`: nothing on the way may take it for a failure of its own."""


class DeviceLost(Exception):  # noqa: N818
    """After a failure the device does nothing any more."""


def bench_on(device: str | None, kernels: str, smoke: bool) -> Bench:
    """The bench on a device, by default ``cuda``, for a smoke run ``cpu``: bfloat16, on a CPU one thread and float32.

    Raises:
        BadInput: no such device, or no such kernels.
    """
    if kernels not in CHOICES:
        raise BadInput(f"kernels is {kernels!r}, expected one of {', '.join(CHOICES)}")
    name = device or ("cpu" if smoke else "cuda")
    try:
        found = torch.device(name)
    except RuntimeError as error:
        raise BadInput(f"device is {name!r}, expected cuda, cuda:1, ... or, with --smoke, cpu") from error
    if found.type == "cuda" and not torch.cuda.is_available():
        raise BadInput(f"device is {name!r}, but torch finds no CUDA device; --smoke runs on the CPU")
    if found.type not in ("cuda", "cpu") or (found.type == "cpu" and not smoke):
        raise BadInput(f"device is {name!r}, expected cuda, cuda:1, ... or, with --smoke, cpu")
    if found.type == "cpu":
        torch.set_num_threads(1)
        return Bench(found, torch.float32, kernels, smoke)
    if (index := found.index or 0) >= torch.cuda.device_count():
        raise BadInput(f"device is {name!r}, but torch finds {torch.cuda.device_count()} of them, from cuda:0")
    found = torch.device("cuda", index)
    torch.cuda.set_device(found)
    return Bench(found, torch.bfloat16, kernels, smoke)


def facts_of(bench: Bench) -> dict[str, str]:
    """What results depend on beside the code."""
    found = {"hardware": hardware_name(str(bench.device)), **driver_facts(bench.device), "python": python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found | {
        "torch": torch.__version__,
        "dtype": str(bench.dtype).removeprefix("torch."),
        "kernels": bench.kernels,
        "models": "narrow" if bench.smoke else "real",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def run(
    points: Sequence[Point],
    store: Store,
    bench: Bench,
    pace: Pace,
    measures: Mapping[str, Measure],
    elapsed: Callable[[], float],
    say: Say,
) -> tuple[int, list[Point]]:
    """Measure every point for which there is time, the more valuable ones first; those that failed in a former run
    come last. What was left out is tried again at the end, as predictions may have been too long.

    Args:
        elapsed: seconds since the run began.
        say: told in a line what came of each point.

    Returns:
        How many points failed, and which were left out.

    Raises:
        DeviceLost: the device does nothing any more; what was measured is kept.
        KeyboardInterrupt: likewise.
    """
    missing = [point for point in points if point not in store]
    todo = missing + [point for point in points if store.failed(point)]
    for point in set(points).difference(todo):
        pace.release(point)
    failed = 0
    left: list[Point] = []
    for point in chain(todo, _left_out(left)):
        if not pace.fits(point, elapsed()):
            left.append(point)
            continue
        start = elapsed()
        result = _measured(point, store, bench, measures[point.group], pace.deadline_s(point))
        store.add(point, result)
        reason = result.get("failed")
        pace.ended(point, elapsed() - start, failed=reason is not None)
        failed += reason is not None
        say(f"{elapsed():6.1f} s  {point.key}: {f'failed: {reason}' if reason else spell_seconds(result['seconds'])}")
        if reason is not None:
            _must_live(bench, point)
    return failed, left


def _left_out(left: list[Point]) -> Iterator[Point]:
    """What is in the list when all else is done; those are no longer in it."""
    found = tuple(left)
    left.clear()
    yield from found


def _measured(point: Point, store: Store, bench: Bench, measure: Measure, deadline: int) -> Result:
    """What a point came to; a failure and its reason where it has none, after which nothing stays on the device."""
    try:
        with _deadline(deadline), torch.no_grad():
            result = measure(point, bench)
            json.dumps(result)
        if "failed" not in result:
            return result
        reason = trace = str(result["failed"])
    except torch.cuda.OutOfMemoryError as error:
        reason, trace = f"out of memory: {_one_line(str(error))}", traceback.format_exc()
    except TooSlow:
        reason, trace = f"given up after {deadline} s", traceback.format_exc()
    except Exception as error:
        reason, trace = f"{type(error).__name__}: {_one_line(str(error))}", traceback.format_exc()
    store.explain(point, trace)
    with suppress(RuntimeError):  # of a lost device, which the caller finds
        bench.forget()
    return {"failed": _one_line(reason)}


def _must_live(bench: Bench, point: Point) -> None:
    if bench.device.type != "cuda":
        return
    try:
        torch.cuda.synchronize(bench.device)
        torch.zeros(1, device=bench.device).item()
    except RuntimeError as error:
        raise DeviceLost(f"the device was lost in {point.key}: {_one_line(str(error))}") from error


@contextmanager
def _deadline(seconds: int) -> Iterator[None]:
    """Raises `TooSlow` in the block when it takes longer, between two lines of Python."""

    def ring(_: int, __: FrameType | None) -> None:
        raise TooSlow

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _one_line(text: str) -> str:
    """Its first line that says something, not too long."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return (lines[0] if lines else "for no reason that was given")[:_LONGEST]
