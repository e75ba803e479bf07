"""The two ways tensors travel between ranks, each a process group of torch.distributed of its own.

All ranks connect at once, with the same store; torch raises RuntimeError where they cannot.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist


def gloo(store: Any, rank: int, size: int, timeout_s: float, loopback: bool) -> Any:
    """Connect for CPU tensors, on the loopback interface or on that of GLOO_SOCKET_IFNAME or the host name."""
    if not loopback:
        return dist.ProcessGroupGloo(store, rank, size, timedelta(seconds=timeout_s))
    options = dist.ProcessGroupGloo._Options()  # type: ignore[attr-defined]
    options._devices = [dist.ProcessGroupGloo.create_device(hostname="127.0.0.1")]
    options._timeout = timedelta(seconds=timeout_s)
    return dist.ProcessGroupGloo(store, rank, size, options)


def nccl(store: Any, rank: int, size: int, timeout_s: float, device: torch.device) -> Any:
    """Connect for tensors on CUDA devices, of which ``device`` is this rank's."""
    options = dist.ProcessGroupNCCL.Options()
    options._timeout = timedelta(seconds=2 * timeout_s + 60)  # NCCL's own watchdog ends the process: ours comes first
    group: Any = dist.ProcessGroupNCCL(store, rank, size, options)
    group.allreduce([torch.zeros(1, device=device)]).wait()  # the first call connects, which takes every rank
    return group
