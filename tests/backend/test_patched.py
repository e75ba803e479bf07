"""Patches: any mix of sizes in one forward equals the stock pipeline run alone, and every ingredient is needed."""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from diffusers import Transformer2DModel  # noqa: E402
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from backend.executor import Executor  # noqa: E402
from backend.kernels.choice import Kernels  # noqa: E402
from backend.loading import load_pipeline  # noqa: E402
from backend.patched import hooks  # noqa: E402
from backend.patched.context import PatchContext  # noqa: E402
from backend.patched.layout import PatchLayout, group_sizes, layout_of, patch_of  # noqa: E402
from backend.patched.unet import PatchedUNet  # noqa: E402
from tests.backend import tiny_pipelines, tiny_unets  # noqa: E402
from tests.backend.mixed import largest_difference, latents_alone, latents_together  # noqa: E402
from traces.errors import BadInput  # noqa: E402
from traces.request import Request  # noqa: E402

torch.set_num_threads(1)
CPU = torch.device("cpu")


def mixed_requests(unit: int) -> list[Request]:
    """Sizes, steps, guidance, prompts and image counts all differ; the common divisor is one ``unit`` of pixels."""
    return [
        Request("square", 0.0, 2 * unit, 2 * unit, steps=2, seed=1, prompt="a cat"),
        Request("tall", 0.0, 3 * unit, 2 * unit, steps=3, seed=2, prompt="two dogs", images=2, guidance_scale=3.0),
        Request("unguided", 0.0, 4 * unit, 3 * unit, steps=3, seed=3, prompt="a bird", guidance_scale=1.0),
        Request("strip", 0.0, unit, 5 * unit, steps=2, seed=4, prompt="a whale"),
        Request("again", 0.0, 2 * unit, 2 * unit, steps=3, seed=5, prompt="a cat"),
    ]


def equal_to_alone(build: Callable[[], Any], requests: list[Request], dtype: Any) -> float:
    stock = build().to(dtype)
    alone = {r.request_id: latents_alone(stock, r) for r in requests}
    executor = Executor(build().to(dtype), "patched", patch_floor=1)
    return largest_difference(alone, latents_together(executor, requests, pause="square"))


@pytest.mark.parametrize(
    ("build", "dtype", "tolerance"),
    [
        (tiny_pipelines.sdxl, torch.float64, 1e-12),
        (tiny_unets.sd15, torch.float64, 1e-12),
        (lambda: tiny_pipelines.sdxl(heun=True), torch.float64, 1e-12),
        (tiny_pipelines.sdxl, torch.float32, 1e-4),
    ],
    ids=["sdxl", "sd15", "sdxl-heun", "sdxl in single precision"],
)
def test_equals_the_stock_pipeline_run_alone(build: Callable[[], Any], dtype: Any, tolerance: float) -> None:
    assert equal_to_alone(build, mixed_requests(8), dtype) <= tolerance


def test_a_pipeline_from_a_folder_is_exact_too(model_folder: Path) -> None:
    requests = mixed_requests(8)[:2]
    stock, served = (load_pipeline(str(model_folder), dtype="float64") for _ in range(2))
    alone = {r.request_id: latents_alone(stock, r) for r in requests}
    assert largest_difference(alone, latents_together(Executor(served, "patched", patch_floor=1), requests)) <= 1e-12


def without_halo(x: Any, layout: PatchLayout, halo: int) -> Any:
    return torch.nn.functional.pad(x, (halo,) * 4)


def without_corners(x: Any, layout: PatchLayout, halo: int) -> Any:
    framed = hooks_with_halo(x, layout, halo)
    framed[:, :, :: framed.shape[2] - 1, :: framed.shape[3] - 1] = 0
    return framed


def without_variance_between(x: Any, norm: Any, context: PatchContext, name: str) -> Any:
    """PatchedServe's statistics: the variances averaged, what lies between the patches' means lost."""
    layout = context.layout
    assert layout is not None
    variance, mean = torch.var_mean(x.reshape(len(x), norm.num_groups, -1), dim=-1, correction=0)
    pooled = [
        torch.zeros(len(layout.sizes), norm.num_groups, dtype=x.dtype).index_add(0, layout.row_of, v)
        / layout.patches_of_row[:, None]
        for v in (mean, variance)
    ]
    inverse = (pooled[1] + norm.eps).rsqrt()
    each = norm.num_channels // norm.num_groups
    scale, offset = inverse.repeat_interleave(each, 1), (pooled[0] * inverse).repeat_interleave(each, 1)
    return scale * norm.weight, norm.bias - offset * norm.weight


def within_patches_only(query: Any, key: Any, value: Any, attn: Any, context: PatchContext, tokens_of_rows: Any) -> Any:
    if tokens_of_rows is not None:
        return hooks_attend(query, key, value, attn, context, tokens_of_rows)
    heads = [x.unflatten(2, (attn.heads, -1)).transpose(1, 2) for x in (query, key, value)]
    return torch.nn.functional.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)


hooks_with_halo, hooks_attend = hooks.with_halo, hooks.attend


@functools.cache
def of_two_steps() -> list[tuple[Request, Any]]:
    """Requests, and the latents that the stock pipeline makes of each."""
    stock = tiny_pipelines.sdxl().to(torch.float64)
    requests = [dataclasses.replace(request, steps=2) for request in mixed_requests(8)[:3]]
    return [(request, latents_alone(stock, request)) for request in requests]


@pytest.mark.parametrize(
    ("ingredient", "replacement", "least"),
    [
        ("with_halo", without_halo, 1e-2),
        ("with_halo", without_corners, 1e-4),
        ("pooled_affine", without_variance_between, 1e-3),
        ("attend", within_patches_only, 1e-4),
    ],
    ids=["halo", "corners", "variance between patches", "whole-image attention"],
)
def test_every_ingredient_is_needed(
    ingredient: str, replacement: Any, least: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooks, ingredient, replacement)
    executor = Executor(tiny_pipelines.sdxl().to(torch.float64), "patched", patch_floor=1)
    together = latents_together(executor, [request for request, _ in of_two_steps()])
    assert largest_difference({request.request_id: alone for request, alone in of_two_steps()}, together) > least


def test_mixed_sizes_share_one_forward_and_sizes_that_do_not_fit_are_grouped() -> None:
    pipeline = tiny_pipelines.sdxl()
    rows: list[tuple[int, ...]] = []
    forward = pipeline.unet.forward

    def watched(sample: Any, *args: Any, **kwargs: Any) -> Any:
        rows.append(tuple(sample.shape))
        return forward(sample, *args, **kwargs)

    pipeline.unet.forward = watched
    executor = Executor(pipeline, "patched", patch_floor=1)
    requests = mixed_requests(8)
    executor.execute("encode", requests)
    rows.clear()
    executor.execute("denoise", requests, 1)
    assert len(rows) == 1
    assert rows[0][2:] == (4, 4)
    assert rows[0][0] == 2 * 4 + 4 * 6 + 12 + 2 * 5 + 2 * 4  # patches of 4x4 latent pixels, guided ones twice

    executor._mixer.floor = 8  # type: ignore[attr-defined]
    rows.clear()
    executor.execute("denoise", requests[:3], 1)
    assert sorted(shape[2:] for shape in rows) == [(8, 8), (12, 8), (16, 12)]


def test_a_size_that_the_levels_cannot_halve_runs_whole() -> None:
    odd = Request("odd", 0.0, 24, 40, steps=2, seed=1, prompt="x")
    even = Request("even", 0.0, 32, 48, steps=2, seed=2, prompt="y")
    # 12x20 latent pixels cannot be halved three times
    alone = {r.request_id: latents_alone(tiny_unets.sd15(levels=4), r) for r in (odd, even)}
    executor = Executor(tiny_unets.sd15(levels=4), "patched", patch_floor=1)
    assert largest_difference(alone, latents_together(executor, [odd, even])) <= 1e-5


def test_patched_needs_a_unet() -> None:
    with pytest.raises(BadInput, match="needs a UNet"):
        Executor(tiny_pipelines.flux(), "patched", patch_floor=1)


def test_outside_a_batch_the_model_is_as_before() -> None:
    request = dataclasses.replace(mixed_requests(8)[0], steps=2)
    hooked = tiny_pipelines.sdxl()
    PatchedUNet(hooked)
    assert torch.equal(latents_alone(hooked, request), latents_alone(tiny_pipelines.sdxl(), request))


SIZES = st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=5)


@given(SIZES, st.integers(1, 3), st.integers(1, 4))
@settings(deadline=None)
def test_split_and_join_are_inverse_and_halos_are_the_image_around(
    grids: list[tuple[int, int]], height: int, width: int
) -> None:
    sizes = tuple(sorted((lines * height, columns * width) for lines, columns in grids))
    layout = PatchLayout(sizes, (height, width), CPU)
    images = [torch.randn(1, 2, *size) for size in sizes]
    patches = layout.split(images)
    joined = [row for stack in layout.join(patches) for row in stack.split(1)]
    assert all(torch.equal(a, b) for a, b in zip(images, joined, strict=True))
    framed = hooks.with_halo(patches, layout, 1)
    for row, image in enumerate(images):
        around = torch.nn.functional.pad(image, (1, 1, 1, 1))
        windows = around.unfold(2, height + 2, height).unfold(3, width + 2, width)[0]
        expected = windows.permute(1, 2, 0, 3, 4).reshape(-1, 2, height + 2, width + 2)
        assert torch.equal(framed[layout.starts[row] : layout.starts[row + 1]], expected)


@given(st.lists(st.tuples(st.integers(1, 24), st.integers(1, 24)), min_size=1, max_size=8), st.integers(1, 8))
def test_groups_hold_every_size_once_and_keep_the_floor(grids: list[tuple[int, int]], floor: int) -> None:
    sizes = [(4 * h, 4 * w) for h, w in grids]
    groups = group_sizes(sizes, 4 * floor)
    assert sorted(size for group in groups for size in group) == sorted(set(sizes))
    for group in groups:
        assert len(group) == 1 or min(patch_of(group)) >= 4 * floor


def test_layouts_are_kept_by_composition() -> None:
    sizes = ((8, 8), (8, 16))
    assert layout_of(sizes, (8, 8), CPU) is layout_of(sizes, (8, 8), CPU)


interpreted = pytest.mark.skipif(torch.cuda.is_available(), reason="fused kernels are compiled here: no CPU tensors")


@interpreted
@torch.no_grad()
def test_fused_kernels_are_exact_too_and_keep_the_memory_format(monkeypatch: pytest.MonkeyPatch) -> None:
    stitch_triton = pytest.importorskip("backend.kernels.stitch_triton")
    passes: list[tuple[bool, bool, int]] = []
    stitch = stitch_triton.stitch

    def watched(x: Any, affine: Any, silu: bool, halo: int, layout: Any) -> Any:
        passes.append((affine is not None, silu, halo))
        return stitch(x, affine, silu, halo, layout)

    monkeypatch.setattr(stitch_triton, "stitch", watched)
    unet = tiny_unets.sd15().unet.double()
    stock, context = copy.deepcopy(unet), PatchContext(Kernels(fused=True))
    hooks.hook(unet.to(memory_format=torch.channels_last), context)
    layout = PatchLayout(((2, 2), (2, 4)), (2, 2), CPU)
    images = [torch.randn(1, 4, *size, dtype=torch.float64) for size in layout.sizes]
    text, timesteps = torch.randn(2, 5, 16, dtype=torch.float64), torch.tensor([10, 500])
    with context.batch(layout):
        patches = layout.split(images).contiguous(memory_format=torch.channels_last)
        out = unet(patches, timesteps[layout.row_of], text, return_dict=False)[0]
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert passes.count((True, True, 1)) == 2 * 8 + 1  # two of a residual block, one before the last convolution
    assert passes.count((False, False, 1)) == 3  # the first convolution, and those that halve and double
    for row, image in enumerate(images):
        expected = stock(image, timesteps[row : row + 1], text[row : row + 1], return_dict=False)[0]
        assert float((layout.join(out)[row] - expected).abs().max() / expected.abs().max()) <= 1e-12


@interpreted
@torch.no_grad()
def test_fused_kernels_are_exact_on_images_that_are_not_cut() -> None:
    pytest.importorskip("triton")
    unet = tiny_unets.sd15(levels=1).unet.double()
    arguments = (torch.randn(1, 4, 3, 5, dtype=torch.float64), 10, torch.randn(1, 5, 16, dtype=torch.float64))
    expected = unet(*arguments, return_dict=False)[0]
    hooks.hook(unet, PatchContext(Kernels(fused=True)))
    found = unet(*arguments, return_dict=False)[0]
    assert float((found - expected).abs().max() / expected.abs().max()) <= 1e-12


@interpreted
@pytest.mark.parametrize("linear", [False, True])
@torch.no_grad()
def test_transformers_keep_channels_last_where_they_get_it(linear: bool) -> None:
    pytest.importorskip("triton")
    shape: dict[str, int] = {"num_attention_heads": 2, "attention_head_dim": 4, "in_channels": 8, "norm_num_groups": 2}
    model = Transformer2DModel(**shape, use_linear_projection=linear).eval().double()
    x = torch.randn(2, 8, 3, 4, dtype=torch.float64)
    expected = model(x).sample
    hooks.hook(model.to(memory_format=torch.channels_last), PatchContext(Kernels(fused=True)))
    orders = []
    if not linear:
        model.proj_out.register_forward_pre_hook(lambda _, given: orders.append(given[0].stride()))
    for order in (torch.channels_last, torch.contiguous_format):
        found = model(x.contiguous(memory_format=order)).sample
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
        assert order != torch.channels_last or found.is_contiguous(memory_format=order)
    assert linear or orders[0] == x.contiguous(memory_format=torch.channels_last).stride()
