"""The optimizer of short trainings: what it orthogonalises, that it learns, and that it goes on from its state."""

from __future__ import annotations

import copy

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from tools.tiny_models.muon import Muon, is_matrix, orthogonalised  # noqa: E402


@pytest.mark.parametrize("shape", [(3, 16, 40), (2, 40, 16), (1, 24, 24)])
def test_singular_values_come_near_one_and_vectors_stay(shape: tuple[int, int, int]) -> None:
    left, _, right = torch.linalg.svd(torch.randn(shape, generator=torch.Generator().manual_seed(0)), False)
    values = torch.linspace(0.3, 1.0, left.shape[-1])
    result = orthogonalised(left * values @ right)
    found = left.mT @ result @ right.mT
    assert result.shape == shape
    assert torch.allclose(found, torch.diag_embed(found.diagonal(dim1=1, dim2=2)), atol=1e-4)
    assert 0.5 < found.diagonal(dim1=1, dim2=2).min() <= found.diagonal(dim1=1, dim2=2).max() < 1.3


def test_only_what_mixes_channels_is_a_matrix() -> None:
    assert is_matrix("to_q.weight", torch.zeros(16, 32))
    assert is_matrix("conv.weight", torch.zeros(32, 4, 3, 3))
    for name, shape in (
        ("bias", (64,)),
        ("table", (1, 6, 64)),
        ("shared.weight", (30, 64)),
        ("embedder.weight", (64, 64)),
    ):
        assert not is_matrix(name, torch.zeros(shape))


def test_it_learns_and_goes_on_from_its_state() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(8, 16, 3, padding=1), nn.GELU(), nn.Conv2d(16, 8, 1))
    optimizer = Muon(module.named_parameters(), 1e-2, 0.0)
    x = torch.randn(4, 8, 8, 8)

    @torch.enable_grad()
    def descend(module: nn.Module, optimizer: Muon, steps: int) -> float:
        for _ in range(steps):
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(module(x), x)
            loss.backward()
            optimizer.step()
        return loss.item()

    first = descend(module, optimizer, 1)
    assert descend(module, optimizer, 60) < first / 4
    other = copy.deepcopy(module)
    resumed = Muon(other.named_parameters(), 1e-2, 0.0)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert descend(other, resumed, 3) == descend(module, optimizer, 3)
