"""Forwards recorded once and replayed: a graph a bucket.

A forward on a small batch takes longer to start, kernel by kernel, than to run. A recorded one is started as a whole.
A *bucket* is all that a forward depends on but the contents of its tensors: shapes, types, numbers, flags, and a key
that names the rest. A recording reads fixed buffers, so a call's tensors are copied in and its results copied out.

Recording costs some forwards and memory, so it has to pay. A bucket's first calls run as ever. The third is measured:
if most of the time goes into starting kernels, the forward is recorded, and kept if a replay is faster. What cannot be
recorded, or does not pay, runs as ever for good. Nothing that goes wrong with a recording is seen by a caller.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch.utils._python_dispatch import TorchDispatchMode

TRIALS = 3
"""Calls until a bucket is measured, that one included: the first chooses and compiles kernels."""
STARTING = 0.6
"""Share of a forward's time that the host must be busy with starting it."""
GAIN = 0.95
"""A replay may take this share of the forward's time at most."""
RECORDINGS = 32
STALE = 1000
"""Calls, of whatever bucket, after which a recording that none of them used may make room for another."""
KNOWN = 4096
"""Buckets that are remembered, recorded or not."""

_WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "unique_dim", "_unique2", "repeat_interleave"}
"""Operations whose result, or its size, the host has to wait for; the last one unless it is told the size."""


class NotRecordable(RuntimeError):  # noqa: N818
    """A forward cannot be recorded; the message says why."""


class RecordedGraph(Protocol):
    """A recorded forward.

    Attributes:
        held_bytes: the device memory that it holds on to.
    """

    held_bytes: int

    def replay(self, tensors: list[torch.Tensor]) -> Any:
        """What the forward returns for these tensors, in memory of its own."""
        ...


class Capture(Protocol):
    """How a device records. `backend.kernels.cuda_graphs.CudaCapture` is the real one.

    Attributes:
        device: where it records.
        limit_bytes: bytes of all recordings together.
    """

    device: torch.device
    limit_bytes: int

    def timed(self, call: Callable[[], Any]) -> tuple[Any, float, float]:
        """What ``call`` returns, seconds until it did, and seconds until the device was done."""
        ...

    def record(self, function: Callable[..., Any], inputs: tuple[Any, ...]) -> RecordedGraph:
        """Record a call that has run before.

        Raises:
            Exception: it cannot be recorded; the device is as before.
        """
        ...


@dataclass(slots=True)
class _Bucket:
    calls: int = 0
    used: int = 0
    recording: RecordedGraph | None = None
    eager: str = ""  # why it is never recorded


class Recorder:
    """Runs forwards, from recordings where that pays. One a replica: calls must come from one thread.

    Args:
        capture: how to record; None: nothing is recorded.

    Attributes:
        weights: says which weights forwards run on now, of several that take turns: each has its own recordings.
    """

    def __init__(self, capture: Capture | None = None) -> None:
        self.weights: Hashable = ()
        self._capture = capture
        self._buckets: dict[Hashable, _Bucket] = {}
        self._beside: list[Callable[[], None]] = []
        self._calls = 0

    def run(self, key: Hashable, function: Callable[..., Any], *inputs: Any) -> Any:
        """``function(*inputs)``.

        Args:
            key: what the result depends on beside ``inputs``. Functions of equal keys must do the same.
            function: depends on nothing that changes between calls, and holds on to what it needs (tables of a
                layout) but to no call's tensors: with a recording it lives on.
            inputs: tensors, numbers, texts and flags, in tuples, lists and dictionaries; the result likewise.
        """
        capture = self._capture
        if capture is None:
            return function(*inputs)
        tensors: list[torch.Tensor] = []
        try:
            bucket = self._bucket((key, self.weights, _shape_of(inputs, tensors)))
        except NotRecordable:
            return function(*inputs)
        if bucket.recording is not None:
            try:
                return bucket.recording.replay(tensors)
            except Exception as error:
                bucket.recording, bucket.eager = None, _reason(error)
        if bucket.eager or bucket.calls < TRIALS or not self._has_room(capture):
            return function(*inputs)
        output, host_s, device_s = capture.timed(lambda: function(*inputs))
        if host_s < STARTING * device_s:
            bucket.eager = "the device is busy enough"
            return output
        try:
            bucket.recording = self._recording(capture, device_s, function, inputs, tensors)
        except Exception as error:
            bucket.eager = _reason(error)
        return output

    def clear(self) -> None:
        """Forget everything. To be called when weights have been exchanged: recordings go on with the old ones."""
        self._buckets.clear()
        for clear in self._beside:
            clear()

    def clear_beside(self, clear: Callable[[], None]) -> None:
        """Something else that is kept on the device only to be faster, and is freed when recordings are."""
        self._beside.append(clear)

    @property
    def recorded(self) -> int:
        """Buckets that have a recording."""
        return sum(bucket.recording is not None for bucket in self._buckets.values())

    @property
    def held_bytes(self) -> int:
        """Device memory of the recordings."""
        return sum(bucket.recording.held_bytes for bucket in self._buckets.values() if bucket.recording is not None)

    @property
    def eager(self) -> Counter[str]:
        """Why buckets are not recorded, though called often enough, and how many."""
        return Counter(bucket.eager for bucket in self._buckets.values() if bucket.eager)

    def _bucket(self, key: Hashable) -> _Bucket:
        """The bucket of a call, which is counted; the most recent ones last."""
        bucket = self._buckets.pop(key, None) or _Bucket()
        self._buckets[key] = bucket
        if len(self._buckets) > KNOWN:
            del self._buckets[next(iter(self._buckets))]
        self._calls += 1
        bucket.calls += 1
        bucket.used = self._calls
        return bucket

    def _has_room(self, capture: Capture) -> bool:
        """Whether there is room for one more recording, once stale ones are gone."""
        recorded = [bucket for bucket in self._buckets.values() if bucket.recording is not None]
        while len(recorded) >= RECORDINGS or (recorded and self.held_bytes >= capture.limit_bytes):
            oldest = recorded.pop(0)
            if self._calls - oldest.used < STALE:
                return False
            oldest.recording, oldest.calls = None, 0
        return True

    def _recording(
        self,
        capture: Capture,
        eager_s: float,
        function: Callable[..., Any],
        inputs: tuple[Any, ...],
        tensors: list[torch.Tensor],
    ) -> RecordedGraph:
        inputs = replaced(inputs, lambda tensor: tensor.to(capture.device))
        with _NoWaiting(capture.device):
            function(*inputs)
        recording = capture.record(function, inputs)
        if self.held_bytes + recording.held_bytes > capture.limit_bytes:
            raise NotRecordable("its recording needs too much memory")
        recording.replay(tensors)  # the first one brings the graph to the device
        _, _, replay_s = capture.timed(lambda: recording.replay(tensors))
        if replay_s > GAIN * eager_s:
            raise NotRecordable("a replay is not faster")
        return recording


def replaced(value: Any, by: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """A nest of tensors with every tensor replaced, in a fixed order."""
    if isinstance(value, torch.Tensor):
        return by(value)
    if isinstance(value, dict):  # diffusers' output classes are dictionaries
        items = {name: replaced(item, by) for name, item in value.items()}
        return items if type(value) is dict else type(value)(**items)
    if isinstance(value, list | tuple):
        parts = [replaced(item, by) for item in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value


def _shape_of(value: Any, tensors: list[torch.Tensor]) -> Hashable:
    """All that matters of a nest but the contents of its tensors, which are listed in the order of `replaced`."""
    if isinstance(value, torch.Tensor):
        tensors.append(value)
        return (value.dtype, value.device, value.shape, value.stride())
    if isinstance(value, dict):
        return (type(value), tuple([(name, _shape_of(item, tensors)) for name, item in value.items()]))
    if isinstance(value, list | tuple):
        return (type(value), tuple([_shape_of(item, tensors) for item in value]))
    if value is None or isinstance(value, bool | int | float | str | torch.dtype):
        return (type(value), repr(value))
    raise NotRecordable(f"cannot tell one {type(value).__name__} from another")


def _reason(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


class _NoWaiting(TorchDispatchMode):
    """Refuses what makes the host wait for the device, or copies from one to the other, before a recording meets it."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self._device = device

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = func._schema.name.removeprefix("aten::"), kwargs or {}
        if name in _WAITING and args[0].device.type == self._device.type and kwargs.get("output_size") is None:
            raise NotRecordable(f"{name} waits for the device")
        if name.startswith("index") and any(_is_mask(index) for index in _listed(args[1:2])):
            raise NotRecordable(f"{name} by a mask waits for the device")
        out = func(*args, **kwargs)
        if name in ("_to_copy", "copy_"):
            source = args[1] if name == "copy_" else args[0]
            if source.device.type != out.device.type:
                raise NotRecordable(f"{name} copies from {source.device.type} to {out.device.type}")
        if name == "lift_fresh" and out.device.type == self._device.type and (out.is_cuda or out.ndim):
            raise NotRecordable("a tensor is made of the host's numbers")
        return out


def _listed(args: Any) -> list[Any]:
    return list(args[0]) if args and isinstance(args[0], list | tuple) else []


def _is_mask(index: Any) -> bool:
    return isinstance(index, torch.Tensor) and index.dtype in (torch.bool, torch.uint8)
