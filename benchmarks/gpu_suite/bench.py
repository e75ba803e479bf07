"""What measurements need: a device, how to time on it, and the networks that are on it.

A measurement is a function of a `Point` and a `Bench` that returns a `Result`; `benchmarks.gpu_suite.measures` says
which one belongs to which group of points.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar

import torch

from backend.kernels.choice import Kernels, kernels_for
from benchmarks.gpu_suite.limits import DEVICE, SMOKE, Limits
from benchmarks.gpu_suite.models import build, model_of
from benchmarks.gpu_suite.point import Result
from benchmarks.gpu_suite.timing import Function, Timer

Made = TypeVar("Made")

_L2_BYTES = 64e6  # where the driver does not say
_TIMES_L2 = 4


class Bench:
    """One device for one run of the suite.

    Attributes:
        device: measured on.
        dtype: of networks.
        kernels: the choice of kernels, one of `backend.kernels.choice.CHOICES`.
        smoke: narrow models on small sizes.
        limits: how often things are timed.
        generator: of random numbers on the device.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype, kernels: str = "auto", smoke: bool = False) -> None:
        self.device, self.dtype, self.kernels, self.smoke = device, dtype, kernels, smoke
        self.limits: Limits = SMOKE if smoke else DEVICE
        self.generator = torch.Generator(device).manual_seed(0)
        self._timer = Timer(device, self.limits)
        self._kept: dict[str, tuple[Hashable, Any]] = {}

    @property
    def chosen(self) -> Kernels:
        """What the choice of kernels means on the device.

        Raises:
            BadInput: no such choice.
        """
        return kernels_for(self.kernels, self.device)

    def timed(self, function: Function, warmups: int | None = None, queued: bool = False, calls: int = 1) -> Result:
        """See `Timer.timed`."""
        return self._timer.timed(function, warmups, queued, calls)

    def timed_ways(self, ways: Mapping[str, Function], warmups: int | None = None) -> dict[str, Result]:
        """See `Timer.timed_ways`."""
        return self._timer.timed_ways(ways, warmups)

    def networks(self, model: str, stage: str, variant: str = "") -> list[Any]:
        """The networks of a stage of a model with random weights on the device, kept until another model's are asked
        for.

        Args:
            variant: tells networks that were changed in place, such as compiled ones, from others.

        Raises:
            BadInput: the suite has no such model.
        """

        def make() -> list[Any]:
            return build(model_of(model, self.smoke).stages[stage], self.device, self.dtype)

        return self.kept(stage, (model, variant), make)

    def kept(self, kind: str, key: Hashable, make: Callable[[], Made]) -> Made:
        """What ``make`` made for this key when it was last asked for; one object of a kind is kept, and the former one
        is freed before the next is made."""
        if kind not in self._kept or self._kept[kind][0] != key:
            if self._kept.pop(kind, None) is not None:
                self._freed()
            self._kept[kind] = (key, make())
        made: Made = self._kept[kind][1]
        return made

    def forget(self, but: str = "") -> None:
        """Free everything that is kept, but for this kind."""
        self._kept = {kind: kept for kind, kept in self._kept.items() if kind == but}
        self._freed()

    def copies(self, used_bytes: int) -> int:
        """How many sets of inputs of so many bytes a bandwidth measurement must take in turn, so that none is still in
        the cache of the device when its turn comes again."""
        cache = _L2_BYTES
        if self.device.type == "cuda":
            cache = getattr(torch.cuda.get_device_properties(self.device), "L2_cache_size", 0) or _L2_BYTES
        return 1 if self.smoke else 1 + int(_TIMES_L2 * cache // max(used_bytes, 1))

    def _freed(self) -> None:
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
