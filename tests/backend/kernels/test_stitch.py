"""GroupNorm, SiLU and halo in one pass: equal to the references, whatever the sizes, formats and types."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from hypothesis import example, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from backend.kernels import stitch_triton  # noqa: E402
from backend.kernels.stitch import affine, moments_bytes, pool, stitch, stitch_bytes, with_halo  # noqa: E402
from backend.patched.layout import PatchLayout  # noqa: E402
from tests.backend.kernels.compiled import faults, tool  # noqa: E402
from tests.examples_tried import examples  # noqa: E402

torch.set_num_threads(1)
CPU = torch.device("cpu")
FORMATS = (torch.contiguous_format, torch.channels_last)
interpreted = pytest.mark.skipif(torch.cuda.is_available(), reason="the kernels are compiled here: no CPU tensors")
on_device = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device: runs the compiled kernels")


def layout_of_grids(grids: list[tuple[int, int]], patch: tuple[int, int], device: Any = CPU) -> PatchLayout:
    sizes = sorted((lines * patch[0], columns * patch[1]) for lines, columns in grids)
    return PatchLayout(sizes, patch, device)


def random_norm(groups: int, channels: int, dtype: Any = torch.float64, affine: bool = True) -> Any:
    norm = torch.nn.GroupNorm(groups, channels, affine=affine, dtype=dtype).requires_grad_(False)
    if affine:
        norm.weight.normal_()
        norm.bias.normal_()
    return norm


def largest_error(found: Any, true: Any) -> float:
    return float((found.double().cpu() - true).abs().max() / true.abs().max())


@interpreted
@given(
    st.lists(st.tuples(st.integers(1, 2), st.integers(1, 2)), min_size=1, max_size=2),
    st.tuples(st.integers(2, 5), st.integers(2, 5)),
    st.sampled_from([(1, 1), (3, 2), (2, 10)]),
    st.integers(0, 2),
    st.booleans(),
    st.sampled_from(FORMATS),
)
@example([(1, 1), (1, 2)], (2, 3), (2, 10), 2, True, torch.channels_last)
@settings(deadline=None, max_examples=examples(4))
def test_equals_the_reference_in_float64(
    grids: list[tuple[int, int]], patch: tuple[int, int], groups: tuple[int, int], halo: int, silu: bool, order: Any
) -> None:
    layout = layout_of_grids(grids, patch)
    channels = groups[0] * groups[1]
    x = (3 + torch.randn(len(layout), channels, *patch, dtype=torch.float64)).contiguous(memory_format=order)
    norm = random_norm(groups[0], channels)
    fused, plain = affine(x, norm, layout), affine(x, norm, layout, fused=False)
    torch.testing.assert_close(fused, plain, rtol=1e-12, atol=1e-12)
    out, expected = stitch(x, layout, plain, silu, halo), stitch(x, layout, plain, silu, halo, fused=False)
    torch.testing.assert_close(out, expected, rtol=1e-13, atol=1e-13)
    assert out.is_contiguous(memory_format=order)


@interpreted
@pytest.mark.parametrize("order", FORMATS, ids=str)
@pytest.mark.parametrize("halo", [1, 2])
def test_a_halo_alone_copies_bit_for_bit(halo: int, order: Any) -> None:
    layout = layout_of_grids([(2, 2), (1, 1)], (2, 3))
    x = torch.randn(len(layout), 3, 2, 3).bfloat16().contiguous(memory_format=order)
    assert torch.equal(stitch(x, layout, halo=halo), with_halo(x, layout, halo))


@interpreted
@pytest.mark.parametrize("order", FORMATS, ids=str)
@pytest.mark.parametrize("cut", [False, True], ids=["whole", "cut"])
def test_what_is_added_to_a_channel_need_not_be_added_to_its_pixels(cut: bool, order: Any) -> None:
    layout = layout_of_grids([(1, 2), (1, 1)] if cut else [(1, 1)] * 3, (3, 4))
    norm = random_norm(2, 6)
    x = torch.randn(3, 6, 3, 4, dtype=torch.float64).contiguous(memory_format=order)
    of_rows = 5 * torch.randn(len(layout.sizes), 6, dtype=torch.float64)
    added = of_rows[layout.row_of]
    expected = stitch(x + added[:, :, None, None], layout, affine(x + added[:, :, None, None], norm, layout), halo=0)
    for fused in (True, False):
        out = stitch(x, layout, affine(x, norm, layout, added, fused))
        torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
    once = affine(x, norm, layout, of_rows[:1])
    torch.testing.assert_close(once, affine(x, norm, layout, of_rows[:1], fused=False), rtol=1e-12, atol=1e-12)


@interpreted
def test_images_that_are_not_cut_are_groupnorm_and_silu() -> None:
    x, norm = torch.randn(2, 6, 5, 3, dtype=torch.float64), random_norm(3, 6)
    for layout in (None, layout_of_grids([(1, 1)] * 2, (5, 3))):
        out = stitch(x, layout, affine(x, norm, layout), silu=True, halo=1)
        true = torch.nn.functional.pad(torch.nn.functional.silu(norm(x)), (1,) * 4)
        torch.testing.assert_close(out, true, rtol=1e-12, atol=1e-12)


@interpreted
def test_a_norm_without_weights_and_many_tiles_of_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stitch_triton, "MOMENTS_TILE", 64)
    layout = layout_of_grids([(1, 2)], (4, 5))
    x, norm = torch.randn(2, 6, 4, 5, dtype=torch.float64), random_norm(2, 6, affine=False)
    torch.testing.assert_close(affine(x, norm, layout), affine(x, norm, layout, fused=False), rtol=1e-12, atol=1e-12)


@interpreted
@pytest.mark.parametrize("order", FORMATS, ids=str)
def test_bfloat16_is_rounded_once(order: Any) -> None:
    layout = layout_of_grids([(1, 2)], (4, 4))
    x = (2 + torch.randn(2, 8, 4, 4)).bfloat16().contiguous(memory_format=order)
    norm = random_norm(2, 8, torch.bfloat16)
    out = stitch(x, layout, affine(x, norm, layout), silu=True, halo=1)
    true = exactly(x, norm, layout, 1)
    assert out.dtype == torch.bfloat16
    cut_off = 2**-7  # the interpreter does not round to nearest as the chip does
    assert bool(((out.double() - true).abs() <= cut_off * true.abs() + 1e-5).all())


@interpreted
@pytest.mark.parametrize("order", FORMATS, ids=str)
def test_a_large_mean_does_not_cancel_a_small_variance(order: Any) -> None:
    layout = layout_of_grids([(1, 2)], (4, 4))
    x = (1000 + torch.randn(2, 4, 4, 4)).contiguous(memory_format=order)
    scale, _ = affine(x, random_norm(2, 4, torch.float32, affine=False), layout)
    true, _ = affine(x.double(), random_norm(2, 4, affine=False), layout, fused=False)
    assert largest_error(scale, true) < 1e-4  # the mean square less the square of the mean: about 0.1


@interpreted
def test_what_the_kernels_do_not_know_takes_the_reference() -> None:
    layout, norm = layout_of_grids([(1, 2)], (2, 2)), random_norm(1, 2)
    strided = torch.randn(2, 2, 2, 4, dtype=torch.float64)[..., ::2]
    assert not stitch_triton.knows(strided)
    expected = stitch(strided.contiguous(), layout, affine(strided.contiguous(), norm, layout), halo=1)
    torch.testing.assert_close(stitch(strided, layout, affine(strided, norm, layout), halo=1), expected)
    assert stitch(strided[:, :0], layout).numel() == 0


def test_fewest_bytes_are_one_read_and_one_write() -> None:
    assert moments_bytes(2, 3, 4, 5, 2) == 2 * 3 * 4 * 5 * 2
    assert stitch_bytes(2, 3, 4, 5, 1, 2) == 2 * 3 * (4 * 5 + 6 * 7) * 2


def exactly(x: Any, norm: Any, layout: PatchLayout, halo: int) -> Any:
    """The references in float64 on a CPU, with GroupNorm and SiLU."""
    at_home = PatchLayout(layout.sizes, layout.patch, CPU)
    norm64 = random_norm(norm.num_groups, norm.num_channels)
    norm64.weight.copy_(norm.weight)
    norm64.bias.copy_(norm.bias)
    x = x.double().cpu()
    return stitch(x, at_home, affine(x, norm64, at_home, fused=False), silu=True, halo=halo, fused=False)


def test_compiles_for_a_hopper_gpu_with_wide_loads_and_without_spills() -> None:
    if not tool("cuobjdump").exists():
        pytest.skip("Triton's package carries no cuobjdump here")
    assert faults()["stitch"] == ""


@on_device
@pytest.mark.parametrize("order", FORMATS, ids=str)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 1.01 * 2**-8)], ids=str
)
@pytest.mark.parametrize(("channels", "halo"), [(320, 1), (640, 0), (960, 1), (36, 2)])
def test_on_a_device(channels: int, halo: int, dtype: Any, tolerance: float, order: Any) -> None:
    device = torch.device("cuda")
    layout = layout_of_grids([(2, 2), (3, 3), (1, 2)], (16, 12), device)
    x = (1 + torch.randn(len(layout), channels, 16, 12)).to(device, dtype).contiguous(memory_format=order)
    norm = random_norm(channels // 10 if channels % 10 == 0 else 4, channels, dtype).to(device)
    true = exactly(x, norm, layout, halo)
    out = poisoned(lambda: stitch(x, layout, affine(x, norm, layout), silu=True, halo=halo), true.numel(), dtype)
    assert bool(torch.isfinite(out).all())
    assert largest_error(out, true) <= tolerance
    assert out.is_contiguous(memory_format=order)
    assert torch.equal(out, stitch(x, layout, affine(x, norm, layout), silu=True, halo=halo))


def poisoned(run: Any, elements: int, dtype: Any) -> Any:
    """What ``run`` returns, its memory full of NaN before: the allocator hands out what was freed last."""
    run()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    poison = [torch.full((elements,), float("nan"), device="cuda", dtype=dtype) for _ in range(8)]
    del poison
    return run()


@on_device
def test_pooling_agrees_with_moments_of_each_patch_on_a_device() -> None:
    from backend.kernels.stitch import moments

    layout = layout_of_grids([(2, 2), (3, 3)], (16, 16), torch.device("cuda"))
    x, norm = torch.randn(len(layout), 64, 16, 16, device="cuda"), random_norm(8, 64, torch.float32).cuda()
    torch.testing.assert_close(affine(x, norm, layout), pool(moments(x, norm), norm, layout), rtol=1e-4, atol=1e-4)
