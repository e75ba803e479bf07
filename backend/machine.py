"""What this machine is asked to give: CPU threads, and a device for each replica."""

from __future__ import annotations

import os

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


def cores_of(device: str, replicas: int, threads: int | None) -> list[list[int]]:
    """The processor cores of each replica: of its own where a CPU computes and there are enough, else any (empty).

    Args:
        device: as torch names it.
        replicas: number of replicas.
        threads: CPU threads of each; None: as torch chooses.
    """
    if device != "cpu" or threads is None or not hasattr(os, "sched_getaffinity"):
        return [[] for _ in range(replicas)]
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < replicas * threads:
        return [[] for _ in range(replicas)]
    return [cores[index * threads : (index + 1) * threads] for index in range(replicas)]
