"""Seconds and memory of functions on a device.

On a CUDA device each repeat lies between two events; elsewhere a clock is read. Nothing else runs between repeats, the
first calls are not counted, and all repeats are kept: who reads them takes the median.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

from benchmarks.gpu_suite.limits import Limits
from benchmarks.gpu_suite.point import Result

Function = Callable[[], Any]

_AHEAD_S = 1e-3  # how long the device is held back while the host fills its queue,
_AHEAD_CALL_S = 2e-4  # and for each call
_CYCLES_PER_S = 2e9


class Timer:
    """Times functions on one device."""

    def __init__(self, device: torch.device, limits: Limits) -> None:
        self.device, self.limits = device, limits
        self._cuda = device.type == "cuda"

    def timed(self, function: Function, warmups: int | None = None, queued: bool = False, calls: int = 1) -> Result:
        """Seconds of one call.

        Args:
            function: its answer is dropped at once.
            warmups: calls before, by default those of the limits.
            queued: the device waits until the host has asked for all of it: seconds of the device alone, for kernels
                that take less time than starting them. By default the host's time counts where it is the longer one,
                as it does when a model is served.
            calls: in each repeat, one after another.

        Returns:
            ``seconds`` (median), ``repeats`` (all, seconds of one call), ``first_s`` (of the first call, compilation
            included), and see `Memory`.
        """
        first, usual = self._warm(function, warmups)
        repeats: list[float] = []
        spent, wanted = 0.0, self.limits.repeats(usual * calls)
        with Memory(self.device) as memory:
            while len(repeats) < wanted and not self.limits.over(spent, len(repeats)):
                took = self._once(function, queued, calls)
                spent += took
                repeats.append(took / calls)
        return {"seconds": statistics.median(repeats), "repeats": repeats, "first_s": first, **memory.result}

    def timed_ways(self, ways: Mapping[str, Function], warmups: int | None = None) -> dict[str, Result]:
        """Seconds of several functions that do the same, round by round: what changes on the device meanwhile changes
        all of them. Every round starts with another one.

        Args:
            ways: functions by name. Those that need more than one call until they run as usual have had them.
            warmups: see `timed`; by default one.

        Returns:
            For each what `timed` returns of it.
        """
        limits = self.limits.of_ways(len(ways))
        warm = {name: self._warm(function, warmups or limits.warmups) for name, function in ways.items()}
        repeats: dict[str, list[float]] = {name: [] for name in ways}
        memory: dict[str, Result] = {}
        names, spent, rounds = list(ways), 0.0, 0
        wanted = limits.repeats(sum(usual for _, usual in warm.values()))
        while rounds < wanted and not limits.over(spent, rounds):
            for name in names[rounds % len(names) :] + names[: rounds % len(names)]:
                with Memory(self.device) as used:
                    took = self._once(ways[name], queued=False, calls=1)
                spent += took
                repeats[name].append(took)
                memory[name] = used.most(memory.get(name))
            rounds += 1
        return {
            name: {"seconds": statistics.median(repeats[name]), "repeats": repeats[name], "first_s": warm[name][0]}
            | memory[name]
            for name in names
        }

    def _warm(self, function: Function, warmups: int | None) -> tuple[float, float]:
        """(seconds of the first call, of a usual one)."""
        took: list[float] = []
        wanted = self.limits.warmups if warmups is None else max(1, warmups)
        while len(took) < wanted:
            self._wait()
            start = time.perf_counter()
            function()
            self._wait()
            took.append(time.perf_counter() - start)
            if warmups is None:
                wanted = self.limits.warm(min(took))
        return took[0], min(took)

    def _once(self, function: Function, queued: bool, calls: int) -> float:
        if not self._cuda:
            start = time.perf_counter()
            for _ in range(calls):
                function()
            return time.perf_counter() - start
        before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self._wait()
        if queued and hasattr(torch.cuda, "_sleep"):
            torch.cuda._sleep(int((_AHEAD_S + calls * _AHEAD_CALL_S) * _CYCLES_PER_S))
        stream = torch.cuda.current_stream(self.device)
        before.record(stream)
        for _ in range(calls):
            function()
        after.record(stream)
        after.synchronize()
        return float(before.elapsed_time(after)) / 1000

    def _wait(self) -> None:
        if self._cuda:
            torch.cuda.synchronize(self.device)


class Memory:
    """What tensors took while the ``with`` block ran.

    ``result`` has ``peak_bytes``, the most that was allocated on the device, weights included, and
    ``activation_bytes``, how much of it was not there before; both None on a CPU, where torch does not count.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.result: Result = {"peak_bytes": None, "activation_bytes": None}

    def __enter__(self) -> Memory:
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
            self._before = torch.cuda.memory_allocated(self._device)
        return self

    def __exit__(self, *_: object) -> None:
        if self._device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(self._device)
            self.result = {"peak_bytes": peak, "activation_bytes": peak - self._before}

    def most(self, other: Result | None) -> Result:
        """The larger of this result and another."""
        if other is None or other["peak_bytes"] is None:
            return self.result
        return {key: max(value, other[key]) for key, value in self.result.items()}
