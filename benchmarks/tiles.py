"""A request of four times a model's native area, refined by tiles against refined whole; and by several ranks.

``python -m benchmarks.tiles`` prints, for each stage and for one refinement step, CPU seconds (medians over interleaved
rounds) and the peak of the bytes that live tensors hold, weights not counted. Whole is the same request with one tile
that covers the canvas. Tiled also lets the autoencoder encode and decode by tiles of its own.

``python -m benchmarks.tiles --ranks`` compares the pictures of 1, 2, 3 and 4 ranks, bit by bit.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from diffusers import (
    AutoencoderKLWan,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    StableDiffusionXLPipeline,
    WanPipeline,
    WanTransformer3DModel,
)

from backend.executor import Executor
from backend.loading import geometry_of_pipeline, load_pipeline
from backend.tiled.execution import Tiling
from benchmarks.interleaved import interleaved
from benchmarks.memory import LiveBytes
from benchmarks.models import sdxl_unet, sdxl_vae
from policies.caching import RegionAware, Threshold
from policies.contract import Outcome
from policies.placement import CacheGuided, RoundRobinTiles
from policies.tiling.recipe import TilingRule
from traces.request import Request

PROMPT = "a red circle left of a blue square on white"


class Model(NamedTuple):
    """A model, its native size in pixels, and the request that is timed."""

    build: Callable[[], Any]
    native: tuple[int, int]
    request: Request


def sdxl_quarter() -> Any:
    """SDXL's UNet and autoencoder with a quarter of their channels, and embeddings in place of text encoders."""
    unet = sdxl_unet(4)
    config = unet.config
    pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
    pipeline = StableDiffusionXLPipeline(
        sdxl_vae(4, 512), None, None, None, None, unet, EulerDiscreteScheduler(), add_watermarker=False
    )
    text, word = torch.randn(1, 77, config.cross_attention_dim), torch.randn(1, pooled)
    pipeline.encode_prompt = lambda **_: (text, -text, word, -word)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def wan_narrow() -> Any:
    """Wan's blocks, 4 of 30, with 4 of 12 heads, a tiny autoencoder, and embeddings in place of its text encoder."""
    torch.manual_seed(0)
    transformer = WanTransformer3DModel(num_attention_heads=4, attention_head_dim=64, ffn_dim=1024, num_layers=4)
    vae = AutoencoderKLWan(base_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1)
    pipeline = WanPipeline(
        None, None, vae.eval().requires_grad_(False), FlowMatchEulerDiscreteScheduler(shift=3.0),
        transformer.eval().requires_grad_(False),
    )  # fmt: skip
    text = torch.randn(1, 512, 4096)
    pipeline.encode_prompt = lambda **_: (text, None)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


MODELS = {
    "tiny-image": Model(
        partial(load_pipeline, "tiny-image"), (128, 128), Request("a", 0.0, 256, 256, 10, prompt=PROMPT)
    ),
    "sdxl/4": Model(sdxl_quarter, (512, 512), Request("a", 0.0, 1024, 1024, 3, guidance_scale=1.0)),
    "wan/narrow": Model(wan_narrow, (192, 320), Request("a", 0.0, 384, 640, 3, 9, guidance_scale=1.0)),
}


def executor_of(model: Model, tile: tuple[int, int] | None, decode: str) -> Executor:
    """An executor that refines with this largest tile."""
    pipeline = model.build()
    geometry = replace(geometry_of_pipeline(pipeline, "benchmark"), native_size=model.native)
    return Executor(pipeline, decode=decode, tiling=Tiling(TilingRule(geometry, tile=tile, refine=1.0)))


class Refining:
    """One way to make a request."""

    def __init__(self, model: Model, tile: tuple[int, int] | None, decode: str = "whole") -> None:
        self.executor = executor_of(model, tile, decode)
        self.request = model.request
        self.recipe = self.executor.recipe(model.request)

    def run(self, stage: str, steps: int) -> Outcome:
        """Some steps of a stage."""
        outcome = self.executor.execute(stage, [self.request], steps)
        if outcome.failed:
            raise RuntimeError(outcome.failed)
        return outcome

    def upscaled(self) -> None:
        """All stages before refinement."""
        for stage, steps in self.recipe[:-2]:
            self.run(stage, steps)

    def peaks(self) -> dict[str, int]:
        """Most bytes of live tensors in each stage."""
        found = {}
        with LiveBytes() as live:
            for stage, steps in self.recipe:
                live.peak = live.live
                self.run(stage, steps)
                found[stage] = live.peak
        return found

    def seconds(self) -> dict[str, float]:
        """CPU seconds of each stage."""
        found = {}
        for stage, steps in self.recipe:
            started = time.process_time()
            self.run(stage, steps)
            found[stage] = time.process_time() - started
        return found


def step_ratio(model: Model, rounds: int) -> tuple[float, float, float]:
    """A refinement step by tiles over a whole one, CPU seconds: median, lowest and highest of rounds."""
    longer = model._replace(request=replace(model.request, steps=rounds + 1))  # the first warms up
    ways = {"whole": Refining(longer, model.request.size[:2]), "tiled": Refining(longer, None)}
    for way in ways.values():
        way.upscaled()
    timings = interleaved({name: partial(way.run, "refine", 1) for name, way in ways.items()}, rounds)
    return timings["tiled"].ratio, timings["tiled"].lowest, timings["tiled"].highest


def overhead(model: Model) -> float:
    """The share of refinement by tiles that is not the denoiser's."""
    way = Refining(model, None)
    way.upscaled()
    way.run("refine", 1)
    started = time.perf_counter()
    outcome = way.run("refine", model.request.steps - 1)
    return 1.0 - outcome.device_s[0] / (time.perf_counter() - started)


def compare(name: str, rounds: int) -> None:
    """Print one model's table."""
    model = MODELS[name]
    whole, tiled = Refining(model, model.request.size[:2]), Refining(model, None, "blended")
    peaks = whole.peaks(), tiled.peaks()
    seconds = whole.seconds(), tiled.seconds()
    height, width, frames = model.request.size
    print(f"\n{name}: {height}x{width}, {frames} frames; native {model.native[0]}x{model.native[1]}", flush=True)
    print("| stage | steps | peak MiB whole | tiled | ratio | CPU s whole | tiled | ratio |")
    print("|---|---|---|---|---|---|---|---|")
    for stage, steps in whole.recipe:
        bytes_ = [of[stage] / 2**20 for of in peaks]
        taken = [of[stage] for of in seconds]
        print(
            f"| {stage} | {steps} | {bytes_[0]:.1f} | {bytes_[1]:.1f} | {bytes_[1] / bytes_[0]:.2f} "
            f"| {taken[0]:.2f} | {taken[1]:.2f} | {taken[1] / taken[0]:.2f} |"
        )
    most = [max(of.values()) / 2**20 for of in peaks]
    total = [sum(of.values()) for of in seconds]
    print(
        f"| all | | {most[0]:.1f} | {most[1]:.1f} | {most[1] / most[0]:.2f} "
        f"| {total[0]:.2f} | {total[1]:.2f} | {total[1] / total[0]:.2f} |"
    )
    median, lowest, highest = step_ratio(model, rounds)
    print(f"a refinement step, tiled over whole: {median:.2f} ({lowest:.2f} to {highest:.2f}), {rounds} rounds")
    print(f"of refinement by tiles not the denoiser's: {overhead(model):.1%}", flush=True)


GUIDED = {"placement": CacheGuided()}
WAYS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "wrap": ({}, {}),
    "clamp": ({"mode": "clamp"}, {"placement": RoundRobinTiles()}),
    "wrap, overlap": ({"overlap": 16}, {}),
    "clamp, overlap": ({"mode": "clamp", "overlap": 16}, {"placement": RoundRobinTiles()}),
    "wrap, threshold": ({}, {"caching": Threshold(0.3, warmup=1), **GUIDED}),
    "clamp, threshold": ({"mode": "clamp"}, {"caching": Threshold(0.3, warmup=1), **GUIDED}),
    "wrap, region-aware": ({}, {"caching": RegionAware(1.0, warmup=1), **GUIDED}),
    "wrap, overlap, region-aware": ({"overlap": 16}, {"caching": RegionAware(1.0, warmup=1), **GUIDED}),
    "clamp, region-aware, residual": (
        {"mode": "clamp"}, {"caching": RegionAware(1.0, warmup=1), "reuse": "residual", **GUIDED},
    ),
}  # fmt: skip
UNEVEN = {"tiny-image": (288, 352, 1), "tiny-video": (160, 224, 17)}


class Made(NamedTuple):
    """The picture of one way on some ranks, tiles computed and reused, and bytes that the first rank sent a step."""

    pixels: Any
    tiles: tuple[int, int]
    sent: float


def on_ranks(model: str, ranks: int, steps: int) -> dict[str, Made]:
    """Each way on so many ranks, which are started once."""
    pipeline = load_pipeline(model)
    geometry = geometry_of_pipeline(pipeline, model)
    height, width, frames = UNEVEN[model]
    request = Request("a", 0.0, height, width, steps, frames, prompt=PROMPT, guidance_scale=3.0)
    tiling = Tiling(TilingRule(geometry), devices=ranks, model=model)
    executor = Executor(pipeline, tiling=tiling)
    found = {}
    try:
        for name, (rule, more) in WAYS.items():
            assert executor.tiles is not None
            executor.tiles = executor.tiles.otherwise(replace(tiling, rule=TilingRule(geometry, **rule), **more))
            for stage, count in executor.recipe(request)[:-2]:
                executor.execute(stage, [request], count)
            refine = executor.recipe(request)[-2][1]
            traffic = executor.tiles.traffic
            traffic.reset()
            outcome = executor.execute("refine", [request], refine)
            sent, pixels = traffic.sent_bytes / refine, []
            last = executor.execute(
                "decode", [request], deliver=lambda _, picture, pixels=pixels: pixels.append(picture)
            )
            if outcome.failed or last.failed:
                raise RuntimeError(outcome.failed or last.failed)
            found[name] = Made(pixels[0], (outcome.computed, outcome.reused), sent)
    finally:
        executor.close()
    return found


def compare_ranks(model: str, steps: int, most: int) -> None:
    """Print which numbers of ranks make the picture of one rank."""
    alone = on_ranks(model, 1, steps)
    several = {ranks: on_ranks(model, ranks, steps) for ranks in range(2, most + 1)}
    print(f"\n{model}, {UNEVEN[model]}, {steps} steps")
    print("| way | computed | reused |" + "".join(f" {n} ranks | KiB sent a step |" for n in several))
    print("|---|---|---|" + "---|---|" * len(several))
    for name, (pixels, tiles, _) in alone.items():
        cells = ""
        for made in several.values():
            same = made[name].tiles == tiles and np.array_equal(made[name].pixels, pixels)
            cells += f" {'bit-equal' if same else 'DIFFERS'} | {made[name].sent / 1024:.1f} |"
        print(f"| {name} | {tiles[0]} | {tiles[1]} |{cells}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", nargs="?", type=int, const=4, help="compare so many ranks instead (default 4)")
    parser.add_argument("--models", nargs="+", help="all by default; with --ranks embedded ones")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10, help="with --ranks")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for name in args.models or (UNEVEN if args.ranks else MODELS):
        if args.ranks:
            compare_ranks(name, args.steps, args.ranks)
        else:
            compare(name, args.rounds)


if __name__ == "__main__":
    main()
