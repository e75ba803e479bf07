"""How a CUDA device records a forward: as a CUDA graph over fixed buffers."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch

from backend.kernels.graphs import NotRecordable, Recorder, replaced

SHARE = 1 / 8
"""Of the device's memory, for all recordings of a replica."""

_one_at_a_time = threading.Lock()
"""PyTorch captures one graph at a time in a process; replicas have a thread each."""


def recorder_on(device: torch.device) -> Recorder:
    """A recorder for a replica on ``device``; where that is no CUDA device, it records nothing."""
    return Recorder(CudaCapture(device) if device.type == "cuda" else None)


class CudaCapture:
    """Records on one CUDA device.

    Graphs are captured in thread-local mode, so that replicas on other devices go on meanwhile. All share one pool of
    memory for what they compute on the way: they are replayed one after another.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.limit_bytes = int(SHARE * torch.cuda.get_device_properties(device).total_memory)
        self._side: torch.cuda.Stream | None = None
        self._alive: weakref.WeakSet[_Graph] = weakref.WeakSet()
        self._broken = ""

    def timed(self, call: Callable[[], Any]) -> tuple[Any, float, float]:
        """What ``call`` returns, seconds until it did, and seconds until the device was done."""
        with torch.cuda.device(self.device):
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            torch.cuda.synchronize()
            begin.record()
            started = time.perf_counter()
            output = call()
            host_s = time.perf_counter() - started
            end.record()
            end.synchronize()
            return output, host_s, begin.elapsed_time(end) / 1000

    def record(self, function: Callable[..., Any], inputs: tuple[Any, ...]) -> _Graph:
        """Capture ``function(*inputs)``, which has run before: what it does once, such as to compile, is done.

        Raises:
            NotRecordable: an earlier capture ended so badly that no other is tried.
            Exception: whatever the capture raised.
        """
        if self._broken:
            raise NotRecordable(self._broken)
        buffers: list[torch.Tensor] = []

        def buffer(tensor: torch.Tensor) -> torch.Tensor:
            buffers.append(torch.empty_like(tensor).copy_(tensor))
            return buffers[-1]

        with _one_at_a_time, torch.cuda.device(self.device):
            fixed = replaced(inputs, buffer)
            current = torch.cuda.current_stream()
            if self._side is None:
                self._side = torch.cuda.Stream()
            self._side.wait_stream(current)
            try:
                with torch.cuda.stream(self._side):
                    function(*fixed)  # libraries set up what they need a stream
                    torch.cuda.synchronize()
                    before = torch.cuda.memory_reserved()
                    graph, output = self._captured(function, fixed)
                    grown = max(0, torch.cuda.memory_reserved() - before)
            finally:
                current.wait_stream(self._side)
        recording = _Graph(graph, function, buffers, output, grown)
        self._alive.add(recording)
        return recording

    def _captured(self, function: Callable[..., Any], fixed: tuple[Any, ...]) -> tuple[torch.cuda.CUDAGraph, Any]:
        graph = torch.cuda.CUDAGraph()
        # a pool whose graphs are all gone cannot be captured into again
        pool = next((other.graph.pool() for other in self._alive), None) or torch.cuda.graph_pool_handle()
        graph.capture_begin(pool=pool, capture_error_mode="thread_local")
        try:
            output = function(*fixed)
        except BaseException:
            with suppress(Exception):
                self._end(graph, pool)
            raise
        self._end(graph, pool)
        return graph, output

    def _end(self, graph: torch.cuda.CUDAGraph, pool: Any) -> None:
        """End a capture. One that the driver has given up leaves the allocator in it: get it out."""
        try:
            graph.capture_end()
        except Exception as error:
            self._broken = f"no more recordings: one failed with {str(error).splitlines()[0]}"
            for name in ("_cuda_endAllocateToPool", "_cuda_releasePool"):
                with suppress(Exception):
                    getattr(torch._C, name)(torch.cuda.current_device(), pool)
            raise


class _Graph:
    def __init__(
        self,
        graph: torch.cuda.CUDAGraph,
        function: Callable[..., Any],
        buffers: list[torch.Tensor],
        output: Any,
        grown_bytes: int,
    ) -> None:
        self.graph = graph
        self.held_bytes = grown_bytes + sum(buffer.nbytes for buffer in buffers)
        self._function = function  # keeps alive what the graph reads
        self._buffers = buffers
        self._output = output

    def replay(self, tensors: list[torch.Tensor]) -> Any:
        """What the function returns for these tensors, in memory of its own."""
        for buffer, tensor in zip(self._buffers, tensors, strict=True):
            buffer.copy_(tensor, non_blocking=True)
        self.graph.replay()
        return replaced(self._output, torch.clone)
