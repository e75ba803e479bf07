"""Attention stays within rows, whichever way it is computed."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from backend.kernels import attention  # noqa: E402
from backend.kernels.attention import Segments, attend, attend_by_length, attention_flop, segments_of  # noqa: E402

torch.set_num_threads(1)
CPU = torch.device("cpu")
CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device: the flash kernel")

LENGTHS = st.lists(st.tuples(st.integers(0, 4), st.integers(1, 5)), min_size=1, max_size=6).map(
    lambda rows: [(4, 1), *rows]
)


def masked(q: Any, k: Any, v: Any, queries: Segments, keys: Segments) -> Any:
    """Plain attention over everything, with what is not in the same row masked."""
    scores = torch.einsum("qhc,khc->hqk", q, k) / q.shape[-1] ** 0.5
    scores = scores.masked_fill(queries.rows[:, None] != keys.rows[None], -torch.inf)
    return torch.einsum("hqk,khc->qhc", scores.softmax(-1), v)


@given(LENGTHS)
@settings(deadline=None)
def test_equals_masked_attention(lengths: list[tuple[int, int]]) -> None:
    queries, keys = Segments([n for n, _ in lengths], CPU), Segments([n for _, n in lengths], CPU)
    q = torch.randn(sum(queries.lengths), 2, 8, dtype=torch.float64)
    k, v = torch.randn(2, sum(keys.lengths), 2, 8, dtype=torch.float64)
    torch.testing.assert_close(attend(q, k, v, queries, keys), masked(q, k, v, queries, keys), rtol=1e-12, atol=1e-12)


def test_the_reference_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "_takes_any_lengths", lambda q, v: True)
    monkeypatch.setattr(attention, "_capability", lambda device: (8, 0))
    monkeypatch.setattr(attention, "attend_at_once", lambda q, k, v, queries, keys: torch.zeros_like(q))
    rows = Segments((2, 3), CPU)
    q, k, v = torch.randn(3, 5, 2, 8)
    assert not attend(q, k, v, rows, rows).any()
    torch.testing.assert_close(attend(q, k, v, rows, rows, fused=False), masked(q, k, v, rows, rows))


@given(LENGTHS)
def test_segments_say_where_rows_are(lengths: list[tuple[int, int]]) -> None:
    segments = Segments([n for n, _ in lengths], CPU)
    starts = segments.starts.tolist()
    assert starts[-1] == len(segments.rows)
    assert segments.starts.dtype == torch.int32
    for row, length in enumerate(segments.lengths):
        assert segments.rows[starts[row] : starts[row + 1]].tolist() == [row] * length
    assert segments.longest == max(segments.lengths)


def test_segments_are_kept_by_composition() -> None:
    assert segments_of((4, 8), CPU) is segments_of((4, 8), CPU)


def test_operations_count_both_products() -> None:
    assert attention_flop(Segments((3, 5), CPU), Segments((7, 11), CPU), 2, 8) == 4 * (3 * 7 + 5 * 11) * 2 * 8


@pytest.mark.parametrize(
    ("lengths", "capability", "apart"),
    [
        ((64, 64, 64), (8, 0), True),
        ((64, 0, 64), (8, 0), False),
        ((0, 64, 0), (8, 0), True),
        ((64, 65), (9, 0), False),
        ((4096, 8192), (8, 0), False),
        ((4096, 8192), (9, 0), True),
        ((64, 4096, 8192), (9, 0), False),
    ],
)
def test_rows_of_several_lengths_go_apart_only_where_every_call_is_large(
    lengths: tuple[int, ...], capability: tuple[int, int], apart: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "_capability", lambda _device: capability)
    rows, q = Segments(lengths, CPU), torch.empty(sum(lengths), 24, 128, device="meta")
    assert attention._better_apart(q, rows, rows) is apart


@CUDA
@pytest.mark.parametrize("channels", [64, 72, 128, 256, 320])
def test_on_a_device_every_way_stays_within_rows(channels: int) -> None:
    """Also with heads that the flash kernel does not take."""
    device = torch.device("cuda")
    queries, keys = Segments((64, 0, 17, 128), device), Segments((77, 5, 1, 16), device)
    q = torch.randn(64 + 17 + 128, 2, channels, device=device, dtype=torch.bfloat16)
    k, v = torch.randn(2, 77 + 5 + 1 + 16, 2, channels, device=device, dtype=torch.bfloat16)
    exact = masked(q.double(), k.double(), v.double(), queries, keys)
    ways = [attend, attend_by_length] + ([attention.attend_at_once] if channels <= 256 and attention.FLASH else [])
    for way in ways:
        assert (way(q, k, v, queries, keys) - exact).abs().max() < 0.02
