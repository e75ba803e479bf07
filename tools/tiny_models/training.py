"""What the trainings of the embedded models share: a clock that is the budget, and one gradient step."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor, nn

CONSOLE = Console(stderr=True)


class Clock:
    """Seconds spent on this training, over all its sittings, and the budget they come from."""

    def __init__(self, budget_s: float, spent_s: float = 0.0) -> None:
        self.budget_s = budget_s
        self._started = time.monotonic() - spent_s

    @property
    def spent_s(self) -> float:
        return time.monotonic() - self._started

    def progress(self, name: str, start_s: float, end_s: float) -> Iterator[float]:
        """Yield the share of the window `start_s..end_s` that has passed, until it is over."""
        with Progress(console=CONSOLE) as bar:
            task = bar.add_task(name, total=end_s - start_s)
            while (passed_s := self.spent_s - start_s) < end_s - start_s:
                bar.update(task, completed=passed_s)
                yield max(passed_s / (end_s - start_s), 0.0)


class Meter:
    """Prints the mean of the last values every few hundred steps."""

    def __init__(self, name: str, every: int = 200) -> None:
        self.name, self.every = name, every
        self.seen = 0
        self.total = 0.0

    def add(self, value: float) -> None:
        self.seen += 1
        self.total += value
        if self.seen % self.every == 0:
            CONSOLE.print(f"{self.name} step {self.seen}: loss {self.total / self.every:.4f}")
            self.total = 0.0


def descend(optimizer: torch.optim.Optimizer, loss: Tensor, module: nn.Module) -> None:
    """One clipped gradient step."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(module.parameters(), 1.0)
    optimizer.step()


def set_learning_rate(optimizer: torch.optim.Optimizer, peak: float, share: float) -> None:
    """Short linear warm-up, then a cosine to almost nothing; `share` of the time is gone."""
    warm = min(1.0, 0.02 + share / 0.02)
    for group in optimizer.param_groups:
        group["lr"] = peak * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))
