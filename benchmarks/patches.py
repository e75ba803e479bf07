"""What exactness costs: patches, packed tokens and ways to decode, against whole images, on one CPU core.

    python -m benchmarks.patches [--rounds 7] [-o out/patches.json] [--quick]

Every figure is CPU time of one thread, the median over interleaved rounds, as a ratio to the first way of its table;
`low` and `high` are the least and the greatest ratio of any round. `difference` is the largest absolute difference to
whole images, over their standard deviation. Real block structures with random weights are narrowed (see the titles)
until a step takes about a second.
"""

from __future__ import annotations

import argparse
import copy
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from backend.coroutine import DenoiserCall
from backend.decode import WAYS, decode_by
from backend.loading import load_pipeline
from backend.merge import Stacked
from backend.packed import Blocks
from backend.packed.lockstep import Lockstep
from backend.patched.unet import PatchedUNet
from benchmarks.interleaved import Timing, interleaved
from benchmarks.memory import LiveBytes
from benchmarks.models import Side, sd3_call, sd3_transformer, sdxl_unet, sdxl_vae, unet_call
from benchmarks.outputs import BENCHMARK
from tools.tiny_models.scenes import all_scenes, draw
from traces.files import write_json

Row = dict[str, Any]
PATCHES = (32, 16, 8, 4)
TOLERATED = 1.10
"""A patch is small enough to be avoided when it makes a step this much slower than a forward for each size."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, help="write the figures as JSON too")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="tiny shapes, to see that it runs")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    console = Console()
    rows = measure(arguments.rounds, arguments.quick, lambda found: console.print(table_of(found)))
    console.print(floor_line(rows))
    if arguments.output:
        write_json({"rows": rows}, arguments.output, BENCHMARK)


@torch.no_grad()
def measure(rounds: int, quick: bool, show: Callable[[list[Row]], None] = lambda rows: None) -> list[Row]:
    """All tables, each shown when it is done; the rows of all of them."""
    tiny = load_pipeline("tiny-image")
    divisor, unit = (20, 8) if quick else (4, 16)
    three = [(2 * unit, 2 * unit), (3 * unit, 3 * unit), (4 * unit, 4 * unit)]
    shaped, side = sdxl_unet(divisor), 4 * unit
    sdxl = f"SDXL-shaped, 1/{divisor} of the channels, 1 and 2 transformer layers instead of 2 and 10"
    parts: list[Callable[[], list[Row]]] = [
        lambda: by_patch_size("tiny-image", tiny.unet, [(2 * unit, 2 * unit), (side, 2 * unit)], rounds),
        lambda: by_patch_size(sdxl, shaped, [(side, side)], rounds),
        lambda: mixed("tiny-image", tiny.unet, [(8, 8), (12, 12), (16, 16)], rounds),
        lambda: mixed(sdxl, shaped, three, rounds),
        lambda: by_common_divisor("tiny-image", tiny.unet, 2 * unit, rounds),
        lambda: packed(2 if quick else 6, 2 if quick else 8, three, rounds),
        lambda: packed(2 if quick else 6, 2, [(4, 4), (8, 4), (8, 8)], rounds),
        lambda: decoded("tiny-image, a drawn picture", tiny.vae, drawn_latents(tiny.vae, 256), rounds),
        lambda: decoded(f"SDXL-shaped, 1/{divisor} of the channels", sdxl_vae(divisor, 16 * unit),
                        random_latents((side, side)), rounds),
    ]  # fmt: skip
    rows: list[Row] = []
    for part in parts:
        found = part()
        show(found)
        rows += found
    return rows


def by_patch_size(model: str, unet: Any, sides: Sequence[Side], rounds: int) -> list[Row]:
    """The same images whole, one by one, and in one forward cut into ever smaller patches."""
    mixer = patched(unet)
    calls = [unet_call(unet, side, index) for index, side in enumerate(sides)]
    ways: dict[str, Callable[[], list[Any]]] = {"one by one": lambda: one_by_one(unet.forward, calls)}
    for patch in PATCHES:
        if all(length % patch == 0 for side in sides for length in side):
            ways[f"patches of {patch}"] = lambda patch=patch: mixer.run_patched(calls, (patch, patch))
    return compared(f"patch size: {model}, latents {spell(sides)}", ways, rounds)


def mixed(model: str, unet: Any, sides: Sequence[Side], rounds: int) -> list[Row]:
    """Two images of each size: one by one, equal sizes stacked, and all in one forward of patches."""
    mixer = patched(unet)
    calls = [unet_call(unet, side, index) for index, side in enumerate([*sides, *sides])]
    ways = {
        "one by one": lambda: one_by_one(unet.forward, calls),
        "same size together": lambda: by_size(unet.forward, calls, len(sides)),
        "all together, patches": lambda: mixer.run_patched(calls),
    }
    return compared(f"mixed batch: {model}, two of each of {spell(sides)}", ways, rounds)


def by_common_divisor(model: str, unet: Any, side: int, rounds: int) -> list[Row]:
    """Two sizes in one forward against a forward for each, by their greatest common divisor."""
    mixer, rows = patched(unet), []
    for divisor in (16, 8, 4):
        if divisor == side:
            continue
        sides = [(side, side), (side - divisor, side - divisor)]
        calls = [unet_call(unet, side, index) for index, side in enumerate(sides)]
        ways = {
            f"{spell(sides)}: a forward each": lambda calls=calls: one_by_one(unet.forward, calls),
            f"patches of {divisor}": lambda calls=calls: mixer.run_patched(calls),
        }
        found = compared(f"common divisor: {model}", ways, rounds)
        found[1]["divisor"] = divisor
        rows += found
    return rows


def packed(layers: int, heads: int, sides: Sequence[Side], rounds: int) -> list[Row]:
    """Like `mixed`, tokens of a transformer."""
    transformer = sd3_transformer(layers, heads)
    calls = [sd3_call(transformer, side, index) for index, side in enumerate([*sides, *sides])]
    blocks, layer_by_layer = Blocks(transformer), Lockstep(transformer)
    ways = {
        "one by one": lambda: one_by_one(transformer.forward, calls),
        "same size together": lambda: by_size(transformer.forward, calls, len(sides)),
        "all together, block by block": lambda: blocks.run(calls),
        "all together, layer by layer": lambda: layer_by_layer.run(calls),
    }
    title = f"mixed batch: SD3-shaped, {layers} layers and {heads} heads instead of 24 and 24"
    return compared(f"{title}, two of each of {spell(sides)}", ways, rounds)


def decoded(title: str, vae: Any, latents: torch.Tensor, rounds: int) -> list[Row]:
    """One picture decoded in every way: time, live bytes, and how far from the whole decoder's picture."""

    def by(way: str) -> Callable[[], Any]:
        pipeline = SimpleNamespace(vae=copy.deepcopy(vae))
        decode_by(pipeline, way)
        return lambda: pipeline.vae.decode(latents, return_dict=False)[0]

    ways = {way: by(way) for way in WAYS}
    timings, rows = interleaved(ways, rounds), []
    whole = timings["whole"].result
    for way, decode in ways.items():
        with LiveBytes() as memory:
            decode()
        error = timings[way].result - whole
        square = float(error.square().mean())
        psnr = 10 * math.log10(float(whole.max() - whole.min()) ** 2 / square) if square else math.inf
        rows.append(
            {
                **row_of(
                    f"decode: {title}, {8 * latents.shape[2]} px, tiles of {vae.tile_sample_min_size} px",
                    way,
                    timings[way],
                    float(error.abs().max() / whole.std()),
                ),
                "psnr_db": psnr,
                "peak_bytes": memory.peak,
            }
        )
    return rows


def compared(title: str, ways: dict[str, Callable[[], list[Any]]], rounds: int) -> list[Row]:
    """A row a way, the first one the base of the ratios and of the differences."""
    timings, rows = interleaved(ways, rounds), []
    whole = next(iter(timings.values())).result
    for way, timing in timings.items():
        pairs = zip(whole, timing.result, strict=True)
        difference = max(float((a[0] - b[0]).abs().max() / a[0].std()) for a, b in pairs)
        rows.append(row_of(title, way, timing, difference))
    return rows


def row_of(title: str, way: str, timing: Timing, difference: float) -> Row:
    """What every table says of a way."""
    figures = {name: value for name, value in timing._asdict().items() if name != "result"}
    return {"table": title, "way": way, "difference": difference, **figures}


def one_by_one(forward: Callable[..., Any], calls: Sequence[DenoiserCall]) -> list[Any]:
    """The stock model, a forward a call."""
    return [forward(*call.args, **call.kwargs) for call in calls]


def by_size(forward: Callable[..., Any], calls: Sequence[DenoiserCall], sizes: int) -> list[Any]:
    """The stock model, a forward a size; sizes follow each other in ``calls`` and then again."""
    outputs: list[Any] = [None] * len(calls)
    for first in range(sizes):
        outputs[first::sizes] = Stacked(forward).run(calls[first::sizes])
    return outputs


def patched(unet: Any) -> PatchedUNet:
    """Patches on a copy of a UNet, so that the UNet itself is the stock one."""
    return PatchedUNet(SimpleNamespace(unet=copy.deepcopy(unet)))


def random_latents(side: Side) -> torch.Tensor:
    """[1, 4, height, width]."""
    return torch.randn(1, 4, *side, generator=torch.Generator().manual_seed(0))


def drawn_latents(vae: Any, side: int) -> torch.Tensor:
    """Latents of a picture of the kind that tiny-image was trained on."""
    picture = draw(all_scenes()[100], side, side, np.random.default_rng(0))
    pixels = torch.tensor(picture).permute(2, 0, 1)[None] / 127.5 - 1
    latents: torch.Tensor = vae.encode(pixels).latent_dist.mode()
    return latents


def floor_line(rows: Sequence[Row]) -> str:
    """What the measurements say about `PatchedUNet.floor`."""
    ratios = {row["divisor"]: row["ratio"] for row in rows if "divisor" in row}
    tolerated = [divisor for divisor, ratio in ratios.items() if ratio <= TOLERATED]
    paying = [divisor for divisor, ratio in ratios.items() if ratio <= 1]
    figures = ", ".join(f"{ratio:.2f}x at {divisor}" for divisor, ratio in ratios.items())
    least = f"{min(tolerated)} is the least" if tolerated else "none stays"
    pays = f"they pay from {min(paying)} on" if paying else "they never pay"
    return (
        f"floor of PatchedUNet: patches against a forward a size cost {figures}: {least} within {TOLERATED:.2f}x; "
        f"on this core {pays}"
    )


def spell(sides: Sequence[Side]) -> str:
    """``32x32 + 64x32``."""
    return " + ".join(f"{height}x{width}" for height, width in sides)


def table_of(rows: Sequence[Row]) -> Table:
    """One table of `measure`."""
    decode = "peak_bytes" in rows[0]
    table = Table(title=rows[0]["table"], title_justify="left")
    table.add_column("way")
    for name in ("CPU ms", "ratio", "low", "high", "difference", *(("PSNR dB", "peak MiB") if decode else ())):
        table.add_column(name, justify="right")
    for row in rows:
        cells = [f"{1000 * row['cpu_s']:.1f}", f"{row['ratio']:.2f}", f"{row['lowest']:.2f}", f"{row['highest']:.2f}"]
        cells.append(f"{row['difference']:.1e}")
        if decode:
            cells += [f"{row['psnr_db']:.1f}", f"{row['peak_bytes'] / 2**20:.1f}"]
        table.add_row(row["way"], *cells)
    return table


if __name__ == "__main__":
    main()
