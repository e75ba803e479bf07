"""What the trainings of the embedded models share: the stages of one, a clock that is its budget, and its command.

The learning rate follows the clock, not a step count, so a slower machine gives a worse model but never a later one.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from torch import Tensor, nn

CONSOLE = Console(stderr=True)

VAE_LEARNING_RATE = 2e-3
LEARNING_RATE = 1.5e-3
PROMPT_DROPOUT = 0.1  # trains the empty prompt, which guidance subtracts


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


class Encoded(NamedTuple):
    """Latents [samples, channels, ..., height, width] and token ids [samples, tokens] of one canvas size."""

    latents: Tensor
    ids: Tensor


class Bucket(Protocol):
    """One canvas size: how often it is trained early and late."""

    @property
    def early(self) -> float: ...

    @property
    def late(self) -> float: ...


class Training(ABC):
    """The state of one training; `checkpoint` is where it survives an interruption.

    The VAE is trained first, then text encoder and denoiser together on latents that are encoded once and kept in
    memory.

    Attributes:
        denoiser: name of the denoiser among the parts.
        buckets: canvas sizes.
        vae_share: of the budget, for the VAE.
        kl_weight: of the pull to a unit normal latent.
        prompt_tokens: in which every prompt fits.
        save_every_s: seconds between two checkpoints.
        leave_for_saving_s: seconds of the budget in which the model is written.
        average_decay: of the weights' moving average, which is what is saved.
        statistics: what the configuration of the VAE says of its latents, once it is trained.
    """

    denoiser: str
    buckets: Sequence[Bucket]
    vae_share: float
    kl_weight: float
    prompt_tokens: int
    save_every_s: float
    leave_for_saving_s: float
    average_decay: float = 0.999
    statistics: tuple[str, ...] = ()

    def __init__(self, minutes: float, seed: int, checkpoint: Path, untrained: Callable[[], Any]) -> None:
        torch.manual_seed(seed)
        self.rng = np.random.default_rng(seed)
        self.clock = Clock(60.0 * minutes)
        self.checkpoint = checkpoint
        self.parts = untrained()
        self.average = {name: weight.clone() for name, weight in self._denoiser_weights()}
        self.optimizer: torch.optim.Optimizer | None = None
        self.vae_is_done = False
        self.denoiser_start_s = 0.0
        self.steps = 0
        self._ids: dict[str, Tensor] = {}
        self.no_prompt = self.token_ids("")

    # ------------------------------------------------------------------ what a model fills in

    @abstractmethod
    def draw_scene(self, height: int, width: int) -> tuple[NDArray[np.uint8], str]:
        """A picture or clip `(..., height, width, 3)` of a scene that is drawn by lot, and its prompt."""

    @abstractmethod
    def vae_batch(self) -> Tensor:
        """Crops for a step of the VAE, in -1..1."""

    @abstractmethod
    def settle_vae(self) -> None:
        """Give the latents of the VAE, which is done, mean 0 and deviation 1."""

    @abstractmethod
    def encode(self) -> list[Encoded]:
        """Latents of each bucket as the denoiser sees them, and their prompts."""

    @abstractmethod
    def plain_attention(self) -> None:
        """Have the denoiser's attention done as matrix products: on CPU the backward pass of the fused one is slow."""

    @abstractmethod
    def denoiser_loss(self, bucket: Any, pool: Encoded) -> Tensor:
        """Mean squared error of one batch of one size."""

    def optimizer_of(
        self, named: Iterable[tuple[str, nn.Parameter]], learning_rate: float, weight_decay: float
    ) -> torch.optim.Optimizer:
        """What trains these weights; `named` as of `Module.named_parameters`."""
        weights = [weight for _, weight in named]
        return torch.optim.AdamW(weights, learning_rate, (0.9, 0.98), weight_decay=weight_decay, fused=True)

    # ------------------------------------------------------------------ samples and prompts

    def token_ids(self, prompt: str) -> Tensor:
        """Token ids of a prompt, padded, shape (tokens,)."""
        if prompt not in self._ids:
            given: dict[str, Any] = {"padding": "max_length", "max_length": self.prompt_tokens, "truncation": True}
            self._ids[prompt] = self.parts.tokenizer(prompt, return_tensors="pt", **given).input_ids[0]
        return self._ids[prompt]

    def drawn(self, count: int, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Samples `(count, 3, ..., height, width)` in -1..1 and their token ids `(count, tokens)`."""
        samples, prompts = zip(*[self.draw_scene(height, width) for _ in range(count)], strict=True)
        stacked = torch.from_numpy(np.stack(samples)).movedim(-1, 1)
        return stacked.float() / 127.5 - 1.0, torch.stack([self.token_ids(prompt) for prompt in prompts])

    def dropped(self, ids: Tensor) -> Tensor:
        """Token ids, some of them of the empty prompt instead."""
        return torch.where(torch.rand(len(ids), 1) < PROMPT_DROPOUT, self.no_prompt, ids)

    # ------------------------------------------------------------------ the stages

    def train_vae(self) -> None:
        """Learn to compress scenes: L1 and L2 reconstruction and a small pull to a unit normal latent."""
        vae = self.parts.vae.train()
        optimizer = self.optimizer_of(vae.named_parameters(), VAE_LEARNING_RATE, 1e-3)
        end_s = self.vae_share * self.clock.budget_s
        loss_seen = Meter("vae")
        for share in self.clock.progress("vae", self.clock.spent_s, end_s):
            set_learning_rate(optimizer, VAE_LEARNING_RATE, share)
            samples = self.vae_batch()
            with quicker_precision():
                posterior = vae.encode(samples).latent_dist
                decoded = vae.decode(posterior.sample()).sample
            error = decoded.float() - samples
            kl = posterior.kl().mean() / posterior.mean[0].numel()
            loss = error.abs().mean() + error.square().mean() + self.kl_weight * kl
            descend(optimizer, loss, vae)
            loss_seen.add(error.abs().mean().item())
        vae.eval().requires_grad_(False)
        self.settle_vae()
        self.vae_is_done = True

    def train_denoiser(self) -> None:
        """Learn to predict the velocity of noised latents from prompt and noise level."""
        pools = self.encode()
        both = nn.ModuleList([self.parts.text_encoder.train(), getattr(self.parts, self.denoiser).train()])
        self.plain_attention()
        if self.optimizer is None:
            self.optimizer = self._denoiser_optimizer()
            self.denoiser_start_s = self.clock.spent_s
        saved_s = self.clock.spent_s
        loss_seen = Meter(self.denoiser)
        end_s = self.clock.budget_s - self.leave_for_saving_s
        for share in self.clock.progress(self.denoiser, self.denoiser_start_s, end_s):
            set_learning_rate(self.optimizer, LEARNING_RATE, share)
            weights = np.array([b.early + (b.late - b.early) * min(1.0, 1.6 * share) for b in self.buckets])
            index = int(self.rng.choice(len(self.buckets), p=weights / weights.sum()))
            loss = self.denoiser_loss(self.buckets[index], pools[index])
            descend(self.optimizer, loss, both)
            self._update_average()
            loss_seen.add(loss.item())
            if self.clock.spent_s - saved_s > self.save_every_s:
                self.save_checkpoint()
                saved_s = self.clock.spent_s
        self._use_average()

    def _denoiser_optimizer(self) -> torch.optim.Optimizer:
        return self.optimizer_of(self._denoiser_weights(), LEARNING_RATE, 1e-2)

    def _denoiser_weights(self) -> list[tuple[str, nn.Parameter]]:
        trained = {name: getattr(self.parts, name) for name in ("text_encoder", self.denoiser)}
        return list(nn.ModuleDict(trained).named_parameters())

    @torch.no_grad()
    def _update_average(self) -> None:
        self.steps += 1
        decay = min(self.average_decay, (1 + self.steps) / (10 + self.steps))
        for name, weight in self._denoiser_weights():
            self.average[name].lerp_(weight, 1 - decay)

    @torch.no_grad()
    def _use_average(self) -> None:
        for name, weight in self._denoiser_weights():
            weight.copy_(self.average[name])

    # ------------------------------------------------------------------ interruption

    @property
    def _trained(self) -> tuple[str, ...]:
        return ("vae", "text_encoder", self.denoiser)

    def save_checkpoint(self) -> None:
        """Write everything needed to go on, replacing the last checkpoint at once."""
        state = {
            "spent_s": self.clock.spent_s,
            "vae_is_done": self.vae_is_done,
            "denoiser_start_s": self.denoiser_start_s,
            "steps": self.steps,
            **{name: getattr(self.parts, name).state_dict() for name in self._trained},
            "statistics": {name: list(self.parts.vae.config[name]) for name in self.statistics},
            "average": self.average,
            "optimizer": None if self.optimizer is None else self.optimizer.state_dict(),
        }
        partial = self.checkpoint.with_name(self.checkpoint.name + ".partial")
        torch.save(state, partial)
        partial.replace(self.checkpoint)

    def resume(self) -> None:
        """Go on from the checkpoint (random numbers start afresh)."""
        state = torch.load(self.checkpoint, weights_only=True)
        self.clock = Clock(self.clock.budget_s, state["spent_s"])
        self.vae_is_done, self.denoiser_start_s = state["vae_is_done"], state["denoiser_start_s"]
        self.steps, self.average = state["steps"], state["average"]
        for name in self._trained:
            getattr(self.parts, name).load_state_dict(state[name])
        if self.statistics:
            self.parts.vae.register_to_config(**state["statistics"])
        if self.vae_is_done:
            self.parts.vae.eval().requires_grad_(False)
        if state["optimizer"] is not None:
            self.optimizer = self._denoiser_optimizer()
            self.optimizer.load_state_dict(state["optimizer"])


@cache
def bfloat16_is_quicker() -> bool:
    """Whether this CPU multiplies matrices quicker in bfloat16 than in float32, by trying both.

    Where it has no instructions for bfloat16, that is ten times as slow.
    """
    took_s = {}
    for precision in (torch.float32, torch.bfloat16):
        matrix = torch.ones(256, 256, dtype=precision)
        times_s = []
        for _ in range(10):
            started_s = time.perf_counter()
            matrix @ matrix
            times_s.append(time.perf_counter() - started_s)
        took_s[precision] = min(times_s)
    return took_s[torch.bfloat16] < took_s[torch.float32]


def quicker_precision() -> torch.autocast:
    """Within it, forward passes run in bfloat16 on CPUs that gain by it, otherwise in float32."""
    return torch.autocast("cpu", torch.bfloat16, enabled=bfloat16_is_quicker())


@torch.no_grad()
def encoded(vae: Any, samples: Tensor, at_once: int) -> Tensor:
    """Latents (the posterior's mean) of samples `(N, 3, ..., H, W)` in -1..1, so many of them together."""
    with quicker_precision():
        return torch.cat([vae.encode(some).latent_dist.mean.float() for some in samples.split(at_once)])


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


def train(
    name: str,
    training: Callable[[float, int, Path], Training],
    save: Callable[[Any, Path], None],
    arguments: list[str] | None,
) -> int:
    """The command that trains a model; returns the exit code.

    Args:
        name: of the model.
        training: makes the training from minutes, seed and where its checkpoint goes.
        save: writes the model's parts to a folder.
        arguments: of the command line; None: the process's own.
    """
    parser = argparse.ArgumentParser(description=f"Train {name} from nothing, on CPU.")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder to create")
    parser.add_argument("--minutes", type=float, default=55.0, help="time budget of the whole training")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    options = parser.parse_args(arguments)
    output: Path = options.output
    if output.exists():
        parser.error(f"{output} exists; name a new folder")
    if not 0 < options.minutes <= 24 * 60:
        parser.error(f"--minutes must be above 0 and at most a day, got {options.minutes:g}")
    if options.threads < 1:
        parser.error(f"--threads must be at least 1, got {options.threads}")
    torch.set_num_threads(options.threads)
    output.parent.mkdir(parents=True, exist_ok=True)

    trainer = training(options.minutes, options.seed, output.with_name(output.name + ".checkpoint"))
    if trainer.checkpoint.exists():
        trainer.resume()
    try:
        if not trainer.vae_is_done:
            trainer.train_vae()
            trainer.save_checkpoint()
        trainer.train_denoiser()
    except KeyboardInterrupt:
        if trainer.vae_is_done:
            trainer.save_checkpoint()
        print(f"interrupted; the same command goes on from {trainer.checkpoint}", file=sys.stderr)
        return 130
    save(trainer.parts, output)
    trainer.checkpoint.unlink(missing_ok=True)
    print(f"{output}: {trainer.steps} denoiser steps in {trainer.clock.spent_s / 60:.1f} minutes")
    return 0
