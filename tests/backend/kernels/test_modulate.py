"""Fused modulations equal PyTorch's bit by bit; `RowEntries` are the tensor they stand for, whatever is done to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from torch.nn.functional import silu  # noqa: E402

from backend.kernels import modulate_triton  # noqa: E402
from backend.kernels.modulate import gated, gated_bytes, modulate, modulate_bytes  # noqa: E402
from backend.kernels.modulate_triton import runs_on  # noqa: E402
from backend.packed.entries import RowEntries  # noqa: E402
from backend.packed.pack import Pack  # noqa: E402
from tests.backend.kernels.compiled import faults  # noqa: E402
from tests.examples_tried import examples  # noqa: E402

torch.set_num_threads(1)
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
EXACT = (torch.float16, torch.float32, torch.float64)


def random(*shape: int, dtype: Any = torch.float64) -> Any:
    return torch.randn(shape, dtype=torch.float64).to(DEVICE, dtype)


def rows_of(lengths: list[int]) -> Any:
    return torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths)).to(DEVICE)


@pytest.fixture(scope="module", autouse=True)
def _small_programs() -> Iterator[None]:
    """Several programs for little data, where Triton interprets."""
    with pytest.MonkeyPatch.context() as patch:
        if DEVICE.type == "cpu":
            patch.setattr(modulate_triton, "ELEMENTS", 128)
            patch.setattr(modulate_triton, "WIDEST", 32)
        yield


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=4).filter(any),
    st.sampled_from([1, 8, 24, 32, 72]),
    st.sampled_from(EXACT),
    st.sampled_from(EXACT),
)
@settings(deadline=None, max_examples=examples(12))
def test_fused_equals_the_reference_bit_by_bit(lengths: list[int], channels: int, dtype: Any, of_rows: Any) -> None:
    """In every type, also where the rows' entries have another; entries are chunks of a wider tensor."""
    assert runs_on(DEVICE)
    rows = rows_of(lengths)
    x, residual = random(2, len(rows), 1, channels, dtype=dtype)
    scale, _, shift = random(len(lengths), 3, channels, dtype=of_rows).chunk(3, dim=1)
    for fused, plain in (
        (modulate(x, scale, shift, rows, fused=True), modulate(x, scale, shift, rows)),
        (gated(residual, scale, x, rows, fused=True), gated(residual, scale, x, rows)),
    ):
        assert fused.dtype == plain.dtype
        assert torch.equal(fused, plain)


def test_bfloat16_is_rounded_after_the_product_and_after_the_sum() -> None:
    rows = rows_of([5, 3])
    x, residual = random(2, len(rows), 1, 24, dtype=torch.bfloat16)
    scale, shift = random(2, 2, 1, 24, dtype=torch.bfloat16)
    for fused, plain in (
        (modulate(x, scale, shift, rows, fused=True), modulate(x, scale, shift, rows)),
        (gated(residual, scale, x, rows, fused=True), gated(residual, scale, x, rows)),
    ):
        assert fused.dtype == torch.bfloat16
        if DEVICE.type == "cuda":
            assert torch.equal(fused, plain)
        else:  # Triton's interpreter cuts what the device rounds
            torch.testing.assert_close(fused, plain, rtol=2**-6, atol=2**-6)


def test_references_are_the_formulas() -> None:
    rows = rows_of([2, 0, 3])
    x, residual = random(2, 5, 4)
    scale, shift = random(2, 3, 4)
    for fused in (False, True):
        for token, row in enumerate(rows.tolist()):
            assert torch.equal(modulate(x, scale, shift, rows, fused)[token], x[token] * scale[row] + shift[row])
            assert torch.equal(gated(residual, scale, x, rows, fused)[token], residual[token] + scale[row] * x[token])


def test_shapes_the_kernel_does_not_take_are_right_too() -> None:
    rows = rows_of([3, 2])
    scale, shift = random(2, 2, 6)
    x = random(6, 5).T
    assert torch.equal(modulate(x, scale, shift, rows, True), x * scale[rows] + shift[rows])
    assert torch.equal(modulate(x, scale[:, :1], shift, rows, True), x * scale[rows, :1] + shift[rows])
    whole = torch.ones(5, 6, dtype=torch.int64, device=DEVICE)
    assert torch.equal(modulate(whole, scale, shift, rows, True), whole * scale[rows] + shift[rows])
    none = random(0, 6)
    assert modulate(none, scale, shift, rows[:0], True).shape == (0, 6)


def test_bytes_count_each_token_once_in_and_once_out() -> None:
    assert modulate_bytes(10, 4, 2) == 160
    assert gated_bytes(10, 4, 2) == 240


USES: dict[str, Callable[[Any, Any, Any], Any]] = {
    "adaptive norm": lambda p, x, _: x * (1 + p.chunk(3, dim=1)[0][:, None]) + p.chunk(3, dim=1)[1][:, None],
    "scale first": lambda p, x, _: x * (1 + torch.chunk(p, 3, dim=1)[0])[:, None, :] + p.chunk(3, 1)[2].unsqueeze(1),
    "gate, then tokens": lambda p, x, _: p[:, None, :8] * x + x,
    "tokens, then gate": lambda p, x, _: x + x * p[:, None, :8],
    "table": lambda p, x, t: x * (t[None] + p.reshape(1, 3, -1)).chunk(3, dim=1)[1] + x,
    "in place": lambda p, x, _: x.clone().add_(p[:, None, :8] * x),
    "in float32": lambda p, x, _: (x.float() * (1 + p.float()[:, None, :8])).type_as(x),
    "fused by torch": lambda p, x, _: torch.addcmul(x, p[:, None, :8], x),
    "product alone": lambda p, x, _: silu(x * p[:, None, :8]),
    "product of product": lambda p, x, _: (x * p[:, None, :8]) * p[:, None, :8] - p[:, None, 8:16],
    "sum of products": lambda p, x, _: x * p[:, None, :8] + x * p[:, None, 8:16],
    "of a layer": lambda p, x, _: (
        x * torch.nn.functional.silu(p)[:, None, :8] + torch.nn.functional.silu(p)[:, None, 8:16]
    ),
    "numbers": lambda p, x, _: x * ((2 * p - 1) / 3 + (-p) ** 2)[:, None, :8],
}


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("lengths", [[3, 4], [1, 2, 2], [7]], ids=str)
@pytest.mark.parametrize("use", USES)
def test_stands_for_the_tensor_with_an_entry_a_token(use: str, lengths: list[int], fused: bool) -> None:
    """What stock code does with a batch of each row alone, bit by bit."""
    torch.manual_seed(0)
    values, x, table = random(len(lengths), 24), random(1, sum(lengths), 8), random(3, 8)
    pack = Pack({"x": tuple(lengths)}, DEVICE, fused=fused)
    result = USES[use](RowEntries(values, pack), x, table)
    result = result.tensor() if not isinstance(result, torch.Tensor) else result
    alone = [USES[use](values[row : row + 1], own, table) for row, own in enumerate(x.split(lengths, dim=1))]
    assert torch.equal(result, torch.cat(alone, 1))


def test_compiles_for_an_h200_without_spills_and_in_wide_accesses() -> None:
    """In half precision and as Wan does it, in PTX for sm_90; no device is needed."""
    assert faults()["modulate"] == ""


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device: large batches, results overwritten")
def test_on_a_device_every_element_of_a_large_batch_is_written() -> None:
    rows = rows_of([4096, 9216, 16384])
    for channels, dtype in ((1152, torch.bfloat16), (3072, torch.bfloat16), (5120, torch.float32)):
        x, residual = torch.randn(2, len(rows), 1, channels, device=DEVICE, dtype=dtype)
        scale, shift, gate = torch.randn(3, 3, 1, channels, device=DEVICE, dtype=dtype)
        expected = modulate(x, scale, shift, rows), gated(residual, gate, x, rows)
        poison = [torch.full_like(x, torch.nan) for _ in range(2)]
        del poison  # the results take its memory
        assert torch.equal(modulate(x, scale, shift, rows, fused=True), expected[0])
        assert torch.equal(gated(residual, gate, x, rows, fused=True), expected[1])
