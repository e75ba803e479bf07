"""What each caching policy saves, and what it costs the picture: tiny-image on one CPU core.

    python -m benchmarks.caches [--prompts 12] [-o out/caches]

Every policy runs the same prompts and seeds as the uncached executor, policy after policy within one prompt, so that a
slow spell of the machine meets all of them. Speed is the uncached denoising time over the policy's, the median over
prompts of CPU time; PSNR and SSIM compare the pictures with the uncached ones. The table is printed and written, with
one plot, into the output folder.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.express as px
import torch
from rich.console import Console
from rich.table import Table
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from backend.executor import Executor
from backend.loading import load_pipeline
from benchmarks.outputs import BENCHMARK, write_csv
from tilecast.caching import parse_caching_policy
from traces.files import write_document
from traces.prompts import load_prompts
from traces.request import Request
from traces.sizes import parse_sizes

PROMPTS = Path(__file__).parents[1] / "examples" / "prompts.txt"
POLICIES = (
    *(f"interval:every={every}" for every in (2, 3, 4)),
    *(f"threshold:threshold={threshold}" for threshold in (0.01, 0.03, 0.1)),
    *(f"forest:threshold={threshold}" for threshold in (0.03, 0.1, 0.3)),
    *(f"first-block:threshold={threshold}" for threshold in (0.02, 0.05, 0.1, 0.2)),
)
LARGEST_PSNR = 60.0
"""dB; equal pictures count as this."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("out/caches"))
    parser.add_argument("--model", default="tiny-image")
    parser.add_argument("--prompts", type=int, default=12)
    parser.add_argument("--sizes", default="128x128:1,128x192:1,192x192:1", help="taken in turn")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--patches", type=int, nargs="+", default=[0, 8], help="latent pixels; 0: whole images")
    parser.add_argument("policies", nargs="*", default=list(POLICIES))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    runs = compare(
        arguments.model, arguments.policies, arguments.patches, arguments.prompts, arguments.sizes, arguments.steps
    )
    summary = summarise(runs)
    arguments.output.mkdir(parents=True, exist_ok=True)
    write_csv(summary, arguments.output / "caches.csv")
    page = plot(summary).to_html(include_plotlyjs=True)
    write_document(BENCHMARK.comment(page, ".html"), arguments.output / "caches.html", BENCHMARK)
    show(summary)
    print(f"wrote {arguments.output / 'caches.csv'} and {arguments.output / 'caches.html'}")


def compare(model: str, policies: list[str], patches: list[int], prompts: int, sizes: str, steps: int) -> pd.DataFrame:
    """One row a prompt and policy: ``speed`` of denoising, ``psnr_db``, ``ssim``, ``reuse`` (share of unit-blocks)."""
    plain = Executor(load_pipeline(model), "patched")
    cached = {
        (policy, patch): Executor(load_pipeline(model), "patched", parse_caching_policy(policy), cache_patch=patch)
        for policy in policies
        for patch in patches
    }
    texts, shapes = load_prompts(PROMPTS), parse_sizes(sizes).values
    rows = []
    for index in range(prompts):
        height, width, _ = shapes[index % len(shapes)]
        text = texts[index * 7 % len(texts)]
        request = Request("r", 0.0, height, width, steps, prompt=text, seed=index, guidance_scale=3.0)
        if index == 0:
            for executor in (plain, *cached.values()):
                _run(executor, request)  # warm-up
        truth, base_s, _ = _run(plain, request)
        for (policy, patch), executor in cached.items():
            picture, seconds, reuse = _run(executor, request)
            psnr = peak_signal_noise_ratio(truth, picture, data_range=1) if (truth != picture).any() else LARGEST_PSNR
            ssim = structural_similarity(truth, picture, channel_axis=2, data_range=1)
            rows.append((policy, patch, index, base_s / seconds, min(psnr, LARGEST_PSNR), ssim, reuse))
    return pd.DataFrame(rows, columns=["policy", "patch", "prompt", "speed", "psnr_db", "ssim", "reuse"])


def _run(executor: Executor, request: Request) -> tuple[np.ndarray[Any, Any], float, float]:
    """(picture, seconds of denoising, reused share) of one request alone."""
    pictures: list[np.ndarray[Any, Any]] = []
    executor.execute("encode", [request])
    started = time.process_time()
    outcome = executor.execute("denoise", [request], request.steps)
    seconds = time.process_time() - started
    executor.execute("decode", [request], deliver=lambda _, pixels: pictures.append(pixels[0]))
    return pictures[0], seconds, outcome.reused / max(1, outcome.computed + outcome.reused)


def summarise(runs: pd.DataFrame) -> pd.DataFrame:
    """One row a policy and patch: medians of speed, means and the least of the rest."""
    grouped = runs.groupby(["policy", "patch"], sort=False)
    return grouped.agg(
        speed=("speed", "median"),
        reuse=("reuse", "mean"),
        psnr_db=("psnr_db", "mean"),
        least_psnr_db=("psnr_db", "min"),
        ssim=("ssim", "mean"),
    ).reset_index()


def plot(summary: pd.DataFrame) -> Any:
    """Speed against PSNR, a line a policy and patch."""
    kind = summary["policy"].str.partition(":")[0]
    unit = np.where(summary["patch"] == 0, "whole images", summary["patch"].astype(str) + " latent px")
    frame = summary.assign(kind=kind, unit=unit, parameter=summary["policy"].str.partition(":")[2])
    figure = px.line(
        frame, x="psnr_db", y="speed", color="kind", line_dash="unit", symbol="kind", text="parameter", markers=True,
        labels={"psnr_db": "PSNR to the uncached picture, dB", "speed": "denoising speed, x uncached"},
        color_discrete_sequence=px.colors.qualitative.Safe, title="Patch cache: speed against fidelity",
    )  # fmt: skip
    figure.update_traces(textposition="top center")
    figure.add_vline(30, line_dash="dot")
    figure.add_hline(1.3, line_dash="dot")
    return figure


def show(summary: pd.DataFrame) -> None:
    table = Table(title="Caching policies against the uncached run")
    for name in ("policy", "unit", "speed", "reused", "PSNR", "least", "SSIM"):
        table.add_column(name, justify="left" if name in ("policy", "unit") else "right")
    for row in summary.itertuples():
        unit = "image" if row.patch == 0 else f"{row.patch} px"
        table.add_row(row.policy, unit, f"{row.speed:.2f}x", f"{100 * row.reuse:.0f} %", f"{row.psnr_db:.1f} dB",
                      f"{row.least_psnr_db:.1f} dB", f"{row.ssim:.3f}")  # fmt: skip
    Console().print(table)


if __name__ == "__main__":
    main()
