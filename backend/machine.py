"""What this machine is and is asked to give: CPU threads, and a device for each replica."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import torch

from traces.errors import BadInput


def use_threads(count: int | None) -> None:
    """Have torch compute with so many CPU threads; None: as it would."""
    if count is not None:
        torch.set_num_threads(count)


def devices_of(asked: Sequence[str], devices: Sequence[int]) -> list[str]:
    """The device of each replica: ``cuda`` spreads them over those of the machine that none names, others are shared.

    Args:
        asked: of each replica, as torch names it.
        devices: how many each replica has.

    Raises:
        BadInput: the machine has fewer, or several replicas are to have several each.
    """
    spread = [count for device, count in zip(asked, devices, strict=True) if device == "cuda"]
    found = torch.cuda.device_count() if spread else 0
    free = [f"cuda:{index}" for index in range(found or len(spread)) if f"cuda:{index}" not in asked]
    if len(free) < len(spread):
        named = f", of which {found - len(free)} are named" if len(free) < found else ""
        raise BadInput(f"{len(spread)} replicas are to have a CUDA device each, but this machine has {found}{named}")
    if len(spread) > 1 and max(spread) > 1:
        raise BadInput("on CUDA a replay has several replicas or several devices a replica, not both")
    given = iter(free)
    return [next(given) if device == "cuda" else device for device in asked]


def cores_of(devices: Sequence[str], threads: int | None) -> list[list[int]]:
    """The processor cores of each replica: of its own where a CPU computes and there are enough, else any (empty).

    Args:
        devices: of each replica, as torch names it.
        threads: CPU threads of each; None: as torch chooses.
    """
    if threads is None or not hasattr(os, "sched_getaffinity"):
        return [[] for _ in devices]
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < devices.count("cpu") * threads:
        return [[] for _ in devices]
    free = iter(cores)
    return [list(islice(free, threads)) if device == "cpu" else [] for device in devices]


def check_present(device: str) -> None:
    """See that this machine has a device.

    Args:
        device: as torch names it.

    Raises:
        BadInput: it has none of that kind, or fewer; or there is no such kind.
    """
    kind, _, index = device.partition(":")
    counts = {
        "cpu": lambda: 1,
        "cuda": torch.cuda.device_count,
        "xpu": torch.xpu.device_count,
        "mps": lambda: int(torch.backends.mps.is_available()),
    }
    if kind not in counts or (index and not index.isdecimal()):
        raise BadInput(f"device is {device!r}, expected cpu, cuda, cuda:1, xpu or mps")
    found = counts[kind]()
    if not found:
        raise BadInput(f"device {device!r} is not available: torch sees no {kind.upper()} device; use --device cpu")
    if int(index or 0) >= found:
        raise BadInput(f"device {device!r} is not available: torch sees {found} of {kind}, counted from 0")


def hardware_name(device: str) -> str:
    """What a device is called in profiles and run logs.

    Raises:
        BadInput: this machine does not have it.
    """
    check_present(device)
    if device.startswith("cuda"):
        return str(torch.cuda.get_device_name(device))
    threads = torch.get_num_threads()
    return f"{_processor()}, {threads} thread{'s' if threads > 1 else ''}"


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
