"""An optimizer for trainings of few steps: Muon for what multiplies, AdamW for everything else."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

MOMENTUM = 0.95
BETAS = (0.9, 0.98)
EPS = 1e-8
ITERATIONS = 4  # of Newton and Schulz
UPDATE_RMS = 0.4  # of a matrix, in learning rates: then one learning rate suits both kinds of weights
SMALLEST_MATRIX = 16  # rows and columns; thinner ones are no mixing of channels


class Muon(torch.optim.Optimizer):
    """Orthogonal steps for matrices and kernels of convolutions, AdamW's for embeddings, biases and norms.

    A step of a matrix is its momentum with all singular values brought near one (Jordan et al. 2024, "Muon"); a kernel
    `[out, in, ...]` is the matrix `[out, in * ...]`. `torch.optim.Muon` takes matrices only and computes in bfloat16,
    which is several times as slow on CPUs without instructions for it.

    Args:
        named: weights and their names; those of embeddings are never orthogonalised.
        lr: learning rate of all weights.
        weight_decay: of all weights, as in AdamW.
    """

    def __init__(self, named: Iterable[tuple[str, nn.Parameter]], lr: float, weight_decay: float) -> None:
        groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
        for name, weight in named:
            groups[is_matrix(name, weight)].append(weight)
        given = [{"params": weights, "matrices": matrices} for matrices, weights in groups.items() if weights]
        super().__init__(given, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Change all weights that have a gradient."""
        for group in self.param_groups:
            trained = [weight for weight in group["params"] if weight.grad is not None]
            updates = self._orthogonal(trained) if group["matrices"] else map(self._adam, trained)
            for weight, update in zip(trained, updates, strict=True):
                weight.mul_(1 - group["lr"] * group["weight_decay"]).sub_(update, alpha=group["lr"])

    def _orthogonal(self, weights: list[nn.Parameter]) -> list[Tensor]:
        by_shape: dict[torch.Size, list[int]] = {}
        directions = []
        for index, weight in enumerate(weights):
            momentum = self.state[weight].setdefault("momentum", torch.zeros_like(weight))
            gradient = gradient_of(weight)
            momentum.lerp_(gradient, 1 - MOMENTUM)
            directions.append(gradient.lerp(momentum, MOMENTUM).flatten(1))
            by_shape.setdefault(directions[-1].shape, []).append(index)
        for shape, some in by_shape.items():
            together = orthogonalised(torch.stack([directions[index] for index in some]))
            for index, direction in zip(some, together * UPDATE_RMS * max(shape) ** 0.5, strict=True):
                directions[index] = direction.reshape(weights[index].shape)
        return directions

    def _adam(self, weight: nn.Parameter) -> Tensor:
        state = self.state[weight]
        if not state:
            state.update(step=0, first=torch.zeros_like(weight), second=torch.zeros_like(weight))
        state["step"] += 1
        gradient = gradient_of(weight)
        state["first"].lerp_(gradient, 1 - BETAS[0])
        state["second"].lerp_(gradient.square(), 1 - BETAS[1])
        first, second = (
            state[name] / (1 - b ** state["step"]) for name, b in zip(("first", "second"), BETAS, strict=True)
        )
        return first / (second.sqrt() + EPS)


def gradient_of(weight: nn.Parameter) -> Tensor:
    """The gradient of a weight that has one."""
    assert weight.grad is not None
    return weight.grad


def is_matrix(name: str, weight: Tensor) -> bool:
    """Whether a weight mixes channels, rather than being a table, a bias or a scale."""
    if weight.ndim < 2 or "embed" in name or "shared" in name:
        return False
    return min(weight.flatten(1).shape) >= SMALLEST_MATRIX


def orthogonalised(matrices: Tensor) -> Tensor:
    """Matrices [N, rows, columns] with the same singular vectors and singular values of about one."""
    wide = matrices.mT if matrices.shape[1] > matrices.shape[2] else matrices
    x = wide / (wide.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(ITERATIONS):
        a = x @ x.mT
        x = 3.4445 * x + (2.0315 * a @ a - 4.7750 * a) @ x
    return x.mT if wide is not matrices else x
