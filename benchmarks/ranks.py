"""How soon a lost rank is reported, what it leaves behind, and what a message between ranks costs.

``python -m benchmarks.ranks`` on a machine with nothing else to do. Gloo on the loopback interface, one thread a rank.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from backend.ranks.group import Group, RankLost
from backend.ranks.launch import Ranks, start_ranks
from predictors.link import Link

BYTES = tuple(4**i for i in range(2, 14))  # 16 bytes to 64 MiB
ROUNDS = 15


def meet(group: Group) -> None:
    """Come to one barrier after the other."""
    while True:
        group.barrier()


def swap(group: Group) -> None:
    """Two ranks send each other each size, `ROUNDS` times."""
    times(group)


def times(group: Group) -> dict[int, float]:
    """Median seconds of an exchange in which both ranks send and receive so many bytes."""
    seconds = {}
    for size in BYTES:
        taken = []
        out, into = torch.zeros(size, dtype=torch.uint8), torch.zeros(size, dtype=torch.uint8)
        for _ in range(ROUNDS):
            group.barrier()
            start = time.perf_counter()
            group.exchange([(1 - group.rank, out)], [(1 - group.rank, into)])
            taken.append(time.perf_counter() - start)
        seconds[size] = statistics.median(taken)
    return seconds


def link(seconds: dict[int, float]) -> Link:
    """The link with the least squared relative misses; each exchange is one message sent and one received."""
    sizes, taken = np.array(list(seconds)), np.array(list(seconds.values()))
    design = 2 * np.stack([np.ones(len(sizes)), sizes], 1) / taken[:, None]
    (latency, a_byte), *_ = np.linalg.lstsq(design, np.ones(len(sizes)), rcond=None)
    return Link(float(latency), float(1 / a_byte))


def lose(rank: int, how: signal.Signals, timeout_s: float) -> tuple[float, float, str, int]:
    """Seconds until the error, seconds of the close after it, the error, and processes left."""
    ranks = start_ranks("benchmarks.ranks:meet", 4, timeout_s=timeout_s)
    try:
        ranks.group.barrier()
        os.kill(ranks.processes[rank], how)
        start = time.perf_counter()
        error = _loss(ranks)
        raised = time.perf_counter()
    finally:
        ranks.close()
    left = [process for process in ranks.processes.values() if Path(f"/proc/{process}").exists()]
    return raised - start, time.perf_counter() - raised, error, len(left)


def _loss(ranks: Ranks) -> str:
    try:
        while True:
            ranks.group.barrier()
    except RankLost as error:
        return str(error)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--timeout", type=float, default=5.0, help="seconds after which a silent rank is lost")
    timeout_s = parser.parse_args().timeout
    torch.set_num_threads(1)
    print(f"a lost rank of 4, timeout {timeout_s:g} s")
    print("| | seconds to the error | seconds to close | processes left | error |")
    print("|---|---|---|---|---|")
    for word, how in (("killed", signal.SIGKILL), ("hung", signal.SIGSTOP)):
        until, closing, error, left = lose(2, how, timeout_s)
        print(f"| {word} | {until:.2f} | {closing:.2f} | {left} | {error} |")
    with start_ranks("benchmarks.ranks:swap", 2) as ranks:
        seconds = times(ranks.group)
    print("\n2 ranks, each sends and receives at once")
    print("| bytes each way | ms | MB/s each way |")
    print("|---|---|---|")
    for size, taken in seconds.items():
        print(f"| {size} | {taken * 1e3:.3f} | {size / taken / 1e6:.1f} |")
    fitted = link(seconds)
    print(f"\nLink(latency_s={fitted.latency_s:.2e}, bytes_per_s={fitted.bytes_per_s:.2e})")


if __name__ == "__main__":
    main()
