"""Which kernels run where."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from backend.kernels import choice  # noqa: E402
from backend.kernels.choice import REFERENCE, Kernels, kernels_for  # noqa: E402
from traces.errors import BadInput  # noqa: E402

CUDA = torch.device("cuda")


def test_a_cpu_has_the_plain_path_alone() -> None:
    assert kernels_for("auto", torch.device("cpu")) == REFERENCE == Kernels(fused=False, graphs=False)


def test_a_cuda_device_has_everything_unless_the_plain_path_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "find_spec", lambda name: object())
    assert kernels_for("auto", CUDA) == Kernels(fused=True, graphs=True)
    assert kernels_for("reference", CUDA) == REFERENCE


def test_without_triton_or_on_another_makers_device_nothing_is_fused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "find_spec", lambda name: None)
    assert kernels_for("auto", CUDA) == Kernels(fused=False, graphs=True)
    monkeypatch.setattr(choice, "find_spec", lambda name: object())
    monkeypatch.setattr(torch.version, "hip", "6.4")
    assert kernels_for("auto", CUDA) == Kernels(fused=False, graphs=True)


def test_an_unknown_choice_is_named() -> None:
    with pytest.raises(BadInput, match="kernels is 'fast', expected one of auto, reference"):
        kernels_for("fast", CUDA)
