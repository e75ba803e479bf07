"""What happens when a kernel fails, or the memory is gone."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from backend.coroutine import DenoiserCall  # noqa: E402
from backend.kernels import fallback  # noqa: E402
from backend.kernels.fallback import kernel_or  # noqa: E402
from backend.merge import Stacked, run_merged  # noqa: E402


def test_a_kernel_that_fails_gives_way_once_with_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fallback, "given_up", {})
    tried: list[int] = []

    def kernel() -> str:
        tried.append(0)
        raise RuntimeError("PTX was compiled with an unsupported toolchain\nand more")

    with pytest.warns(
        UserWarning, match="kernel mine gave way to plain PyTorch: RuntimeError: PTX was compiled .*chain$"
    ):
        assert kernel_or("mine", kernel, lambda: "plain") == "plain"
    assert kernel_or("mine", kernel, lambda: "plain") == "plain"
    assert len(tried) == 1
    assert kernel_or("other", lambda: "kernel", lambda: "plain") == "kernel"


def test_what_the_reference_cannot_do_either_is_the_call_s_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fallback, "given_up", {})

    def fails() -> str:
        raise ValueError("shapes")

    with pytest.raises(ValueError, match="shapes"):
        kernel_or("mine", fails, fails)

    def no_room() -> str:
        raise torch.OutOfMemoryError("no room")

    with pytest.raises(torch.OutOfMemoryError):
        kernel_or("mine", no_room, lambda: "plain")
    assert not fallback.given_up


def test_recordings_are_freed_when_the_memory_is_gone() -> None:
    room: list[int] = []

    def forward(hidden_states: torch.Tensor) -> tuple[torch.Tensor]:
        if not room:
            raise torch.OutOfMemoryError("no room")
        return (hidden_states + 1,)

    calls = [DenoiserCall((torch.zeros(1, 2),), {}) for _ in range(2)]
    outputs, failed = run_merged(Stacked(forward), calls, free=lambda: room.append(0))
    assert not failed
    assert [float(output[0].sum()) for output in outputs] == [2.0, 2.0]
    assert len(room) == 1
