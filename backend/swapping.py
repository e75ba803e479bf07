"""Several checkpoints on one replica: weights come onto the device and leave it, as the scheduling policy decides.

Every checkpoint has an executor of its own, of whatever model it is. Its modules and its weights are apart: when the
weights leave the device, the modules stay for as long as the host keeps a copy of the weights or a request is under way
with them. So a request whose weights left between two of its steps goes on where it was once they are back, in the very
modules that its pipeline knows, and nothing else of the checkpoint is left behind on the device.

What the host keeps, and what it forgets, is what `predictors.loading.LoadTimes` says, so that a load comes from where
it was predicted to come. What the host does not keep comes from the disk: the operating system is told to keep nothing
of the files either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from backend.checkpoints import forget_pages
from backend.executor import Deliver, Executor
from backend.loading import check_device, load_pipeline, said_of
from policies.contract import Outcome
from predictors.loading import LoadTimes, Weights
from traces.request import Request
from traces.stages import Recipe


class PipelineWeights:
    """The weights of a pipeline, apart from its modules.

    Args:
        pipeline: as it was loaded, without adapters; those it gets later travel with it.
    """

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline
        self._own = frozenset(_tensors(pipeline))
        self._others: dict[str, torch.Tensor] = {}  # of adapters, while the weights are away

    @property
    def held_bytes(self) -> int:
        """What the weights take where they are."""
        return sum([each.numel() * each.element_size() for each in _tensors(self._pipeline).values()])

    def copied(self) -> dict[str, torch.Tensor]:
        """A copy of the checkpoint's tensors by name, in the host's memory."""
        return {name: each.to("cpu", copy=True) for name, each in _tensors(self._pipeline).items() if name in self._own}

    def put_on(self, device: torch.device, source: Mapping[str, torch.Tensor]) -> None:
        """Bring the weights onto a device.

        Args:
            device: where to.
            source: the checkpoint's tensors by name, which are copied.
        """
        for name, each in _tensors(self._pipeline).items():
            each.data = (source if name in self._own else self._others)[name].to(device, copy=True)
        self._others = {}

    def take_off(self) -> None:
        """Free what the weights take where they are."""
        for name, each in _tensors(self._pipeline).items():
            if name not in self._own:
                self._others[name] = each.to("cpu", copy=True)
            each.data = each.new_empty(0)


def tensors_of(module: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Every parameter and buffer of a module, by name."""
    return chain(module.named_parameters(), module.named_buffers())


def _tensors(pipeline: Any) -> dict[str, torch.Tensor]:
    """Every parameter and buffer of a pipeline by component and name, each once, with adapters on or without."""
    found: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    for component, part in pipeline.components.items():
        if not isinstance(part, torch.nn.Module):
            continue
        for name, each in tensors_of(part):
            if id(each) not in seen:
                seen.add(id(each))
                found[f"{component}.{name.replace('.base_layer.', '.')}"] = each
    return found


class SwappingExecutor:
    """Runs launches of requests for several checkpoints, each on its own weights. All calls come from one thread.

    Args:
        folders: the diffusers folder of each checkpoint.
        make: makes the executor of a checkpoint, by its name, of its pipeline, which is on the device.
        weights: sizes of the checkpoints, and the host's memory for them.
        device: what they run on.
        dtype: number format of the weights.
        loaded: checkpoints to bring at once.

    Raises:
        BadInput: this machine has no such device, or one of ``loaded`` cannot be loaded.
    """

    def __init__(
        self,
        folders: Mapping[str, Path],
        make: Callable[[str, Any], Executor],
        weights: Weights,
        device: str = "cpu",
        dtype: str = "float32",
        loaded: Sequence[str] = (),
    ) -> None:
        check_device(device, dtype)
        self.device = torch.device(device)
        self._folders, self._make, self._dtype = folders, make, dtype
        self._host = LoadTimes(weights, [()])
        self.handed: dict[str, bytes] = {}
        self._copies: dict[str, dict[str, torch.Tensor]] = {}
        self._known: dict[str, tuple[Executor, PipelineWeights]] = {}
        self._here: dict[str, None] = {}
        self._notes: dict[str, None] = {}
        self._cache_peak_bytes: int | None = None
        for checkpoint in loaded:
            self.load(checkpoint)

    hub = None
    """Launches run one after another."""

    @property
    def computes_on(self) -> torch.device:
        """What they run on."""
        return self.device

    @property
    def loaded(self) -> tuple[str, ...]:
        """The checkpoints whose weights lie on the device, in the order they came."""
        return tuple(self._here)

    @property
    def kept(self) -> tuple[str, ...]:
        """The checkpoints of which the host keeps a copy, the latest last."""
        return tuple(self._copies)

    @property
    def held_bytes(self) -> int:
        """Device memory of the weights that lie there."""
        return sum([weights.held_bytes for _, weights in self._known.values()])

    @property
    def notes(self) -> list[str]:
        """What a reader of its figures must know, a line each."""
        for executor, _ in self._known.values():
            self._notes |= dict.fromkeys(executor.notes)
        return list(self._notes)

    @property
    def cache_peak_bytes(self) -> int | None:
        """The most that the cache of one checkpoint kept; None: there is none."""
        peaks = [peak for executor, _ in self._known.values() if (peak := executor.cache_peak_bytes) is not None]
        if self._cache_peak_bytes is not None:
            peaks.append(self._cache_peak_bytes)
        return max(peaks, default=None)

    @property
    def resident(self) -> list[str]:
        """Ids of the requests whose state lies here."""
        return [name for executor, _ in self._known.values() for name in executor.resident]

    def load(self, checkpoint: str, evict: Sequence[str] = ()) -> None:
        """Bring a checkpoint onto the device: from the host's memory if that keeps it, or else from disk.

        Args:
            checkpoint: which; it does not lie there.
            evict: those to free first.

        Raises:
            BadInput: its folder cannot be read, or the device is too small.
        """
        for name in evict:
            self._evict(name)
        kept = checkpoint in self._copies
        self._host.seconds(0, checkpoint)
        self._tidy()  # what the host forgets for it goes first
        if kept:
            _, weights = self._known[checkpoint]
            self._put_on(checkpoint, weights, self._copies[checkpoint])
        else:
            self._load_from_disk(checkpoint)
        self._here[checkpoint] = None

    def _load_from_disk(self, checkpoint: str) -> None:
        path = self._folders[checkpoint]
        pipeline = load_pipeline(str(path), "cpu", self._dtype)
        read = _tensors(pipeline)
        known = self._known.get(checkpoint)
        weights = PipelineWeights(pipeline) if known is None else known[1]
        keeps = checkpoint in self._host.held(0)
        copy = PipelineWeights(pipeline).copied() if keeps else None
        self._put_on(checkpoint, weights, {name: each.data for name, each in read.items()})
        if known is None:
            self._known[checkpoint] = self._make(checkpoint, pipeline), weights
        if copy is not None:
            self._copies[checkpoint] = copy
        del pipeline, read  # files stay open as long as something of theirs is used
        forget_pages(path)

    def _put_on(self, checkpoint: str, weights: PipelineWeights, source: Mapping[str, torch.Tensor]) -> None:
        with said_of(self._folders[checkpoint], f"device {str(self.device)!r}"):
            weights.put_on(self.device, source)
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)

    def _evict(self, checkpoint: str) -> None:
        executor, weights = self._known[checkpoint]
        del self._here[checkpoint]
        executor.leave_device()
        weights.take_off()

    def _tidy(self) -> None:
        """Let go of what neither the device nor the host keeps, and no request is under way with."""
        held = self._host.held(0)
        for name in [name for name in self._copies if name not in held]:
            del self._copies[name]
        for name, (executor, _) in list(self._known.items()):
            if name in self._here or name in held or executor.resident:
                continue
            self._notes |= dict.fromkeys(executor.notes)
            self._cache_peak_bytes = self.cache_peak_bytes
            executor.close()
            del self._known[name]

    @contextmanager
    def lent(self, checkpoint: str) -> Iterator[Executor]:
        """The executor of a checkpoint to warm up, before anything is served.

        One that does not lie here is brought for that, alone, and then what lay here is brought again.
        """
        if checkpoint in self._here:
            yield self._known[checkpoint][0]
            return
        lay_here = self.loaded
        self.load(checkpoint, lay_here)
        yield self._known[checkpoint][0]
        self._evict(checkpoint)
        self._host.lost(0)
        self._tidy()
        for name in lay_here:
            self.load(name)

    def execute(
        self,
        stage: str,
        requests: Sequence[Request],
        steps: int = 1,
        recalled: Callable[[], bool] = lambda: False,
        deliver: Deliver | None = None,
        devices: Sequence[int] = (0,),
    ) -> Outcome:
        """Run one launch of requests for one checkpoint, which lies here; see `backend.executor.Executor.execute`."""
        return self._of(requests[0]).execute(stage, requests, steps, recalled, deliver, devices=devices)

    def recipe(self, request: Request) -> Recipe:
        """(Stage, steps) of a request here; its checkpoint lies here."""
        return self._of(request).recipe(request)

    def _of(self, request: Request) -> Executor:
        if request.checkpoint not in self._here:
            raise RuntimeError(f"checkpoint {request.checkpoint!r} of request {request.request_id!r} is not loaded")
        return self._known[request.checkpoint][0]

    def take(self, request: Request, handed: bytes) -> None:
        """Requests are handed from replica to replica only where weights stay.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError("a request cannot be handed to a replica that loads weights")

    def keep_only(self, request_ids: set[str]) -> None:
        """Free every request not named: it ended elsewhere (dropped or cancelled)."""
        for executor, _ in self._known.values():
            executor.keep_only(request_ids)
        self._tidy()

    def close(self) -> None:
        """Free everything."""
        for executor, _ in self._known.values():
            executor.close()
        self._known, self._copies, self._here = {}, {}, {}
