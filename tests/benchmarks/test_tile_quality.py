"""What tiling does to pictures: the study's own figures, and what it says of the simplest variants."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from rich.console import Console  # noqa: E402

from backend.tiled.refiner import Refiner  # noqa: E402
from benchmarks.tile_quality import (  # noqa: E402
    Variant,
    acutance,
    last_borders,
    of_variant,
    parts,
    refine_all,
    requests,
    ring_db,
    sheet,
    table,
    work,
)
from policies.tiling.recipe import TilingRule  # noqa: E402
from traces.geometry import GEOMETRIES  # noqa: E402

torch.set_num_threads(1)

BASE = Variant(refine=0.25, overlap=32)


def edge(width: int, edges: int = 1, side: int = 96) -> np.ndarray:
    """A clip of one frame with slopes of so many pixels from dark to bright or back, one after another."""
    row = np.full(side, 0.2)
    for index in range(edges):
        start = side * (index + 1) // (edges + 1)
        rise = np.clip((np.arange(side) - start) / width, 0, 1) * 0.6
        row += rise if index % 2 == 0 else -rise
    return np.broadcast_to(row[None, None, :, None], (1, side, side, 3)).astype(np.float32)


def test_sharpness_is_the_steepness_of_edges_and_not_their_number() -> None:
    assert acutance(edge(2)) == pytest.approx(4 * acutance(edge(8)), rel=1e-4)
    assert acutance(edge(4, edges=3)) == pytest.approx(acutance(edge(4)), rel=1e-4)
    assert acutance(np.full((1, 8, 8, 3), 0.5, np.float32)) == 0


def test_the_ring_is_the_outermost_sixteenth() -> None:
    clean = np.full((1, 64, 32, 3), 0.5, np.float32)
    inside, outside = clean.copy(), clean.copy()
    inside[:, 4:60, 2:30] += 0.1
    outside[:, :4] += 0.1
    assert ring_db(inside, clean) == math.inf
    share = 4 * 32 / (64 * 32 - 56 * 28)
    assert ring_db(outside, clean) == pytest.approx(-10 * math.log10(0.01 * share), abs=1e-3)


def test_borders_are_those_of_the_last_step_and_work_counts_windows() -> None:
    rule = TilingRule(GEOMETRIES["tiny-image"], refine=0.25, mode="clamp", stride=0.0)
    standing = rule.shape((256, 256, 1), 20)
    assert last_borders(standing, 8) == ((128,), (128,))
    assert work(standing) == 1
    moving = replace(rule, stride=1 / 16).shape((256, 256, 1), 20)
    down, right = moving.shifts.at(4)
    assert down > 0
    assert last_borders(moving, 8) == ((8 * down, 128 + 8 * down), (8 * right, 128 + 8 * right))
    reaching = replace(rule, mode="wrap", overlap=32).shape((256, 256, 1), 20)
    assert work(reaching) == (24 / 16) ** 2


def test_a_part_varies_only_the_options_it_names() -> None:
    for part in parts(BASE, ("local", "absolute"), clips=False).values():
        own = {"grid", "overlap", "stride"} if "grid" in part.options else set(part.options)  # one window has neither
        others = set(Variant.__dataclass_fields__) - own
        assert all(getattr(variant, name) == getattr(BASE, name) for variant in part.variants for name in others)
        assert len(set(part.variants)) == len(part.variants) > 1


def test_prompts_are_held_out_and_canvases_four_times_native() -> None:
    (picture,) = requests("tiny-image", 1, 20)
    (clip,) = requests("tiny-video", 1, 20)
    assert picture.size == (256, 256, 1)
    assert clip.size == (128, 128, 9)


def test_more_refinement_leaves_less_of_the_sketch() -> None:
    trial = Refiner("tiny-image")
    rule = trial.rule
    asked = requests("tiny-image", 1, 8)
    little, much = replace(BASE, refine=0.125), replace(BASE, refine=0.875, overlap=0, mode="wrap", stride=0.0)
    runs, pictures = refine_all(trial, asked, [little, much], shown=1)
    assert trial.rule == rule == of_variant(trial, Variant(rule.refine, 0, rule.mode, rule.stride), asked[0]).rule
    rows = runs.set_index("variant")
    assert rows.loc[str(little), "psnr_db"] > rows.loc[str(much), "psnr_db"] + 3
    assert rows.loc[str(little), "ssim"] > rows.loc[str(much), "ssim"]
    assert list(rows.loc[[str(little), str(much)], "tiles"]) == [4, 28]
    assert rows.loc["sketch", "right"] == 1
    assert [len(row) for row in pictures.values()] == [1, 1, 1]
    picture = sheet(pictures, asked)
    assert picture.width >= 256
    assert picture.height >= 3 * 256
    part = parts(little, ("local",), clips=False)["Positions"]
    console = Console(width=160, record=True)
    console.print(table(runs, "one variant", part))
    assert f"{rows.loc[str(little), 'psnr_db']:.1f} (" in console.export_text()
