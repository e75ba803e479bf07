"""What this machine is asked to give: CPU threads, and a device for each replica."""

from __future__ import annotations

import torch

from traces.errors import BadInput


def use_threads(count: int | None) -> None:
    """Have torch compute with so many CPU threads; None: as it would."""
    if count is not None:
        torch.set_num_threads(count)


def devices_of(device: str, replicas: int, devices: int) -> list[str]:
    """The device of each replica: ``cuda`` spreads them over the machine's, all others are shared.

    Args:
        device: as torch names it.
        replicas: number of replicas.
        devices: devices per replica.

    Raises:
        BadInput: the machine has fewer, or several replicas are to have several each.
    """
    if device != "cuda":
        return [device] * replicas
    found = torch.cuda.device_count()
    if 0 < found < replicas:
        raise BadInput(f"cluster.replicas is {replicas}, but this machine has {found} CUDA devices")
    if replicas > 1 and devices > 1:
        raise BadInput("on CUDA a replay has several replicas or several devices a replica, not both")
    return [f"cuda:{index}" for index in range(replicas)]
