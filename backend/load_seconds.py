"""What it takes to bring a checkpoint onto a device, from disk and from the host's memory.

A whole checkpoint is loaded as in a replay, its executor included, with none of its files in the operating system's
memory. Its components, loaded one by one, are of several sizes: they say what a byte more takes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median
from typing import Any

import torch

from backend.checkpoints import forget_pages, weights_bytes
from backend.executor import Executor
from backend.folder import model_folder
from backend.loading import load_modules
from backend.swapping import SwappingExecutor, tensors_of
from predictors.loading import LoadRate, LoadRates, Weights


def load_rates(
    model: str, make: Callable[[Any], Executor], device: str = "cpu", dtype: str = "float32", repeats: int = 3
) -> LoadRates:
    """What loads of a model take.

    Args:
        model: an embedded model's name or a diffusers folder.
        make: makes the executor of a pipeline that is on the device.
        device: where to.
        dtype: number format of the weights.
        repeats: loads of each kind, of which the median counts.

    Raises:
        BadInput: the model cannot be loaded there.
    """
    path = model_folder(model)
    gb = weights_bytes(path, dtype) / 1e9

    def whole(host_gb: float) -> float:
        sizes = Weights(math.inf, gb, host_gb=host_gb)
        replica = SwappingExecutor({"": path}, lambda _, pipeline: make(pipeline), sizes, device, dtype, [""])
        seconds = _median_s(lambda: replica.load("", [""]), repeats)
        replica.close()
        return seconds

    whole_s = whole(0.0), whole(2.0 * gb)
    modules = load_modules(path, dtype)  # the libraries are imported by now
    parts = [_part(path, name, torch.device(device), dtype, repeats) for name in modules]
    disk = LoadRate.fitted([(of_gb, disk_s) for of_gb, disk_s, _ in parts], gb, whole_s[0])
    host = LoadRate.fitted([(of_gb, host_s) for of_gb, _, host_s in parts], gb, whole_s[1])
    return LoadRates(disk, host)


def _part(path: Path, name: str, device: torch.device, dtype: str, repeats: int) -> tuple[float, float, float]:
    """GB of a component, and the seconds that it takes from disk and from the host's memory."""

    def to_device(tensors: Iterable[tuple[str, torch.Tensor]]) -> None:
        for _, each in tensors:
            each.to(device, copy=True)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    def from_disk() -> None:
        to_device(tensors_of(load_modules(path, dtype, only=name)[name]))
        forget_pages(path)

    kept = [(part, each.clone()) for part, each in tensors_of(load_modules(path, dtype, only=name)[name])]
    forget_pages(path)
    gb = sum([each.numel() * each.element_size() for _, each in kept]) / 1e9
    return gb, _median_s(from_disk, repeats), _median_s(lambda: to_device(kept), repeats)


def _median_s(call: Callable[[], Any], repeats: int) -> float:
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return median(seconds)
