"""Single kernels at the sizes of real models, each beside its plain PyTorch reference and a copy on the same device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle
from math import prod
from typing import Any

import torch

from backend.kernels.attention import FLASH, attend, attend_at_once, attend_by_length, attention_flop, segments_of
from backend.kernels.modulate import gated, gated_bytes, modulate, modulate_bytes
from backend.kernels.stitch import Affine, affine, moments_bytes, stitch, stitch_bytes
from backend.patched.layout import PatchLayout, patch_of
from backend.patched.layout import layout_of as patches_of
from benchmarks.gpu_suite.bench import Bench
from benchmarks.gpu_suite.ceilings import copy_rate
from benchmarks.gpu_suite.models import latent_shape, sizes_of
from benchmarks.gpu_suite.point import Point, Result
from benchmarks.gpu_suite.ways import relative_error, wrong
from traces.errors import BadInput
from traces.geometry import geometry_of

CALLS = 10
"""Calls in a repeat on a device: one alone takes less than what a clock can tell."""


@dataclass(frozen=True)
class Widths:
    """Of a model's widest blocks: channels of a token (UNets: of the first level), attention heads and their channels,
    text tokens beside the image's in attention, rows of a guided image, latent pixels along an attention token's side.
    """

    channels: int
    heads: int
    head_channels: int
    text: int
    rows: int
    side: int


REAL = {
    "sdxl": Widths(320, 10, 64, 0, 2, 2),
    "sd3.5-medium": Widths(1536, 24, 64, 333, 2, 2),
    "flux": Widths(3072, 24, 128, 512, 1, 2),
}
NARROW = {
    "sdxl": Widths(32, 2, 16, 0, 2, 2),
    "sd3.5-medium": Widths(32, 2, 16, 24, 2, 2),
    "flux": Widths(32, 2, 16, 24, 1, 2),
}


@dataclass(frozen=True)
class Case:
    """A kernel on one batch.

    Attributes:
        make: inputs for one call, of random data.
        fused: runs the kernel on them, and ``reference`` plain PyTorch; each a list of results.
        bytes: fewest that it moves.
        tflop: of its arithmetic, where that is what bounds it.
        others: further ways to do it, by name.
    """

    make: Callable[[], tuple[Any, ...]]
    fused: Callable[..., Sequence[torch.Tensor]]
    reference: Callable[..., Sequence[torch.Tensor]]
    bytes: int
    tflop: float | None = None
    others: dict[str, Callable[..., Sequence[torch.Tensor]]] = field(default_factory=dict)


@torch.no_grad()
def measure_kernel(point: Point, bench: Bench) -> Result:
    """A kernel (the point's name) for a guided batch of the model that its detail names: ``stitch`` (normalise,
    activate and frame), ``moments``, ``modulate``, ``gated`` or ``attention``. Only the device's time counts.

    Raises:
        BadInput: no such kernel or model.
    """
    if point.name not in CASES:
        raise BadInput(f"the suite has no kernel {point.name!r}; known: {', '.join(CASES)}")
    widths = (NARROW if bench.smoke else REAL).get(point.detail)
    if widths is None:
        raise BadInput(f"the suite has no kernels of {point.detail!r}; known: {', '.join(REAL)}")
    case = CASES[point.name](point, bench, widths)
    sets = [case.make() for _ in range(bench.copies(case.bytes))]
    runs = {"fused": case.fused, "reference": case.reference, **case.others}
    expected = case.reference(*sets[0])
    ways: dict[str, Result] = {}
    for name, run in runs.items():
        error = relative_error(run(*sets[0]), expected)
        if (failed := wrong(name, error)) is not None:
            return failed
        turn = cycle(sets)
        timed = bench.timed(partial(_next, run, turn), queued=True, calls=1 if bench.smoke else CALLS)
        ways[name] = timed | {"error": error}
    known = {"bytes": case.bytes, "tflop": case.tflop, "copy_bytes_per_s": copy_rate(bench)}
    return ways["fused"] | known | {"ways": ways}


def _next(run: Callable[..., Any], turn: Any) -> None:
    run(*next(turn))


def _noise(bench: Bench, *shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=bench.dtype, device=bench.device, generator=bench.generator)


def _both(run: Callable[..., Sequence[torch.Tensor]], bench: Bench) -> tuple[Any, Any]:
    """With the bench's kernels, and in plain PyTorch."""
    return partial(run, fused=bench.chosen.fused), partial(run, fused=False)


def _patches(point: Point, bench: Bench, widths: Widths) -> tuple[PatchLayout, tuple[int, int, int, int]]:
    """The layout of the batch's patches at full latent size, and the shape of what is at them."""
    sides = tuple(
        latent_shape(point.detail, size)[1:] for size in sizes_of(point.composition) for _ in range(widths.rows)
    )
    layout = patches_of(sides, patch_of(sides), bench.device)
    return layout, (len(layout), widths.channels, *layout.patch)


def _in_both_orders(bench: Bench, *shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    """One tensor as fused kernels meet it, channels last, and as the plain path does."""
    plain = _noise(bench, *shape)
    return plain.contiguous(memory_format=torch.channels_last), plain


def _norm(bench: Bench, widths: Widths) -> torch.nn.GroupNorm:
    with bench.device:
        norm = torch.nn.GroupNorm(min(32, widths.channels // 4), widths.channels, dtype=bench.dtype)
    norm.weight.copy_(1 + 0.1 * _noise(bench, widths.channels))
    norm.bias.copy_(0.1 * _noise(bench, widths.channels))
    return norm


def _stitch(point: Point, bench: Bench, widths: Widths) -> Case:
    layout, shape = _patches(point, bench, widths)
    norm = _norm(bench, widths)

    def inputs() -> tuple[Any, ...]:
        last, plain = _in_both_orders(bench, *shape)
        return last, plain, affine(plain, norm, layout, fused=False)

    def run(last: torch.Tensor, plain: torch.Tensor, by: Affine, fused: bool) -> list[torch.Tensor]:
        return [stitch(last if fused else plain, layout, by, silu=True, halo=1, fused=fused)]

    return Case(inputs, *_both(run, bench), stitch_bytes(*shape, halo=1, itemsize=bench.dtype.itemsize))


def _moments(point: Point, bench: Bench, widths: Widths) -> Case:
    layout, shape = _patches(point, bench, widths)
    norm = _norm(bench, widths)

    def run(last: torch.Tensor, plain: torch.Tensor, fused: bool) -> list[torch.Tensor]:
        return list(affine(last if fused else plain, norm, layout, fused=fused))

    made = partial(_in_both_orders, bench, *shape)
    return Case(made, *_both(run, bench), moments_bytes(*shape, itemsize=bench.dtype.itemsize))


def _modulate(point: Point, bench: Bench, widths: Widths) -> Case:
    lengths = _image_tokens(point, widths, geometry_of(point.detail).patch)
    of_token = _rows_of(lengths, bench)
    entry = (len(lengths), 1, widths.channels)

    def inputs() -> tuple[Any, ...]:
        return _noise(bench, sum(lengths), 1, widths.channels), _noise(bench, *entry), _noise(bench, *entry)

    def run(x: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor, fused: bool) -> list[torch.Tensor]:
        return [modulate(x, scale, shift, of_token, fused)]

    return Case(inputs, *_both(run, bench), modulate_bytes(sum(lengths), widths.channels, bench.dtype.itemsize))


def _gated(point: Point, bench: Bench, widths: Widths) -> Case:
    lengths = _image_tokens(point, widths, geometry_of(point.detail).patch)
    of_token = _rows_of(lengths, bench)

    def inputs() -> tuple[Any, ...]:
        tokens = (sum(lengths), 1, widths.channels)
        return _noise(bench, *tokens), _noise(bench, len(lengths), 1, widths.channels), _noise(bench, *tokens)

    def run(residual: torch.Tensor, gate: torch.Tensor, y: torch.Tensor, fused: bool) -> list[torch.Tensor]:
        return [gated(residual, gate, y, of_token, fused)]

    return Case(inputs, *_both(run, bench), gated_bytes(sum(lengths), widths.channels, bench.dtype.itemsize))


def _attention(point: Point, bench: Bench, widths: Widths) -> Case:
    """As the device is served; by a call a length; and in any case in one call (``at-once``) where that is possible."""
    lengths = tuple(n + widths.text for n in _image_tokens(point, widths, widths.side))
    rows = segments_of(lengths, bench.device)
    shape = (sum(lengths), widths.heads, widths.head_channels)
    half = bench.dtype in (torch.bfloat16, torch.float16)
    return Case(
        lambda: tuple(_noise(bench, *shape) for _ in range(3)),
        lambda q, k, v: [attend(q, k, v, rows, rows)],
        lambda q, k, v: [attend_by_length(q, k, v, rows, rows)],
        4 * prod(shape) * bench.dtype.itemsize,
        attention_flop(rows, rows, *shape[1:]) / 1e12,
        {"at-once": lambda q, k, v: [attend_at_once(q, k, v, rows, rows)]}
        if FLASH and half and bench.device.type == "cuda"
        else {},
    )


def _image_tokens(point: Point, widths: Widths, side: int) -> list[int]:
    """Image tokens of each row of the batch; a token is ``side`` latent pixels wide."""
    shapes = [latent_shape(point.detail, size) for size in sizes_of(point.composition)]
    return [f * (h // side) * (w // side) for f, h, w in shapes for _ in range(widths.rows)]


def _rows_of(lengths: Sequence[int], bench: Bench) -> torch.Tensor:
    return torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths)).to(bench.device)


CASES: dict[str, Callable[[Point, Bench, Widths], Case]] = {
    "stitch": _stitch,
    "moments": _moments,
    "modulate": _modulate,
    "gated": _gated,
    "attention": _attention,
}
