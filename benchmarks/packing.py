"""What packing does to half precision, and what it costs the host: mixed sizes against one by one, on one CPU core.

    python -m benchmarks.packing [--rounds 9] [--medium] [-o out/packing.json]

For each family a step of several sizes, with random weights of bfloat16. *Error* is the root mean square difference of
the output from the same network with the same weights in float64, over the output's standard deviation, the worst of
the images; *alone* is the stock network's own, a forward an image. *Kernels* are operations that compute something
(views do not). *Ratio* is CPU time packed over one by one in float32, the median over interleaved rounds, with the
least and the greatest of any round. `--medium` adds blocks of real shapes, fewer and narrower. A second table is of
the stages beside: a launch that encodes or decodes several requests against a launch for each.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from backend.coroutine import DenoiserCall
from backend.executor import Executor
from backend.loading import load_pipeline
from backend.packed import Blocks
from backend.shapes.denoisers import flux, sd3
from backend.shapes.models import Model
from backend.shapes.stages import Shape
from benchmarks.gpu_suite.models import NARROW, Random, build, denoiser_calls
from benchmarks.interleaved import interleaved
from benchmarks.outputs import BENCHMARK
from traces.files import write_json
from traces.request import Request
from traces.stages import ORDINARY

Row = dict[str, Any]
IMAGES: list[Shape] = [(1, 16, 16), (1, 24, 16), (1, 24, 24), (1, 16, 32), (1, 16, 16)]
CLIPS: list[Shape] = [(2, 8, 8), (2, 12, 8), (4, 8, 8), (2, 12, 12), (2, 8, 8)]
LARGER: list[Shape] = [(1, 32, 32), (1, 48, 48), (1, 64, 64)]
"""Latents that one step is of, (frames, height, width)."""
BESIDE = (("tiny-image", 64, 1, 4), ("tiny-image", 64, 1, 8), ("tiny-image", 128, 1, 4), ("tiny-video", 64, 9, 3))
"""Embedded model, side, frames, and requests of a launch that encodes or decodes."""
WARM = 3
"""Steps before anything is timed: the first checks blocks, the second learns how they feed each other."""
_VIEWS = frozenset(
    {"view", "transpose", "narrow", "slice", "select", "unsqueeze", "squeeze", "split", "split_with_sizes", "chunk",
     "expand", "permute", "t", "unbind", "as_strided", "detach", "_unsafe_view", "alias", "_reshape_alias",
     "view_as_real", "view_as_complex", "unflatten", "lift_fresh"}
)  # fmt: skip
MEDIUM: dict[str, Model] = {
    "sd3.5-medium": Model(
        "SD3-shaped, 6 layers and 8 heads instead of 24 and 24",
        {
            "denoise": sd3(
                text=77, num_layers=6, num_attention_heads=8, attention_head_dim=64, caption_projection_dim=512,
                joint_attention_dim=512, pooled_projection_dim=512, pos_embed_max_size=96, qk_norm="rms_norm",
            )
        },
    ),
    "flux": Model(
        "Flux-shaped, 2 + 4 layers and 4 heads instead of 19 + 38 and 24",
        {
            "denoise": flux(
                text=128, num_layers=2, num_single_layers=4, attention_head_dim=128, num_attention_heads=4,
                axes_dims_rope=(16, 56, 56), joint_attention_dim=512, pooled_projection_dim=512, guidance_embeds=True,
            )
        },
        guidance_rows=1,
    ),
}  # fmt: skip
"""By the names of the geometries that they have."""


class Kernels(TorchDispatchMode):
    """Counts the operations that compute something while it is on."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func._schema.name.removeprefix("aten::") not in _VIEWS
        return func(*args, **(kwargs or {}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, help="write the figures as JSON too")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--medium", action="store_true", help="blocks of real shapes too; takes minutes")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = [
        measured(name, model, CLIPS if model.video else IMAGES, arguments.rounds)
        for name, model in NARROW.items()
        if name != "sdxl"
    ]
    rows += [measured(name, model, LARGER, arguments.rounds) for name, model in MEDIUM.items() if arguments.medium]
    beside = [row for size in BESIDE for row in stages_beside(*size, arguments.rounds)]
    console = Console(width=120)
    console.print(table_of(rows))
    console.print(table_beside(beside))
    if arguments.output:
        write_json({"rows": rows, "beside": beside}, arguments.output, BENCHMARK)


@torch.no_grad()
def measured(name: str, model: Model, shapes: Sequence[Shape], rounds: int) -> Row:
    """The row of one model: a step of images or clips of these latent shapes."""
    device, half = torch.device("cpu"), torch.bfloat16
    torch.manual_seed(0)
    (module,) = build(model.stages["denoise"], device, half)
    calls = denoiser_calls(name, model, module, shapes, Random(device, half))[0]
    exact = one_by_one(copy.deepcopy(module).double(), [in_type(call, torch.float64) for call in calls])
    errors = {
        "alone": error_of(one_by_one(module, calls), exact),
        "packed": error_of(settled(Blocks(module), calls)(), exact),
    }
    plain, given = copy.deepcopy(module).float(), [in_type(call, torch.float32) for call in calls]
    blocks = Blocks(plain)
    ways: dict[str, Callable[[], list[Any]]] = {
        "one by one": lambda: one_by_one(plain, given),
        "packed": settled(blocks, given),
    }
    counts = {}
    for way, run in ways.items():
        with Kernels() as kernels:
            run()
        counts[way] = kernels.count
    timing = interleaved(ways, rounds)
    packed = timing["packed"]
    return {
        "model": model.source,
        "error_alone": errors["alone"],
        "error_packed": errors["packed"],
        "kernels_alone": counts["one by one"],
        "kernels_packed": counts["packed"],
        "alone_cpu_s": timing["one by one"].cpu_s,
        "ratio": packed.ratio,
        "lowest": packed.lowest,
        "highest": packed.highest,
        "notes": blocks.notes,
    }


def stages_beside(name: str, side: int, frames: int, count: int, rounds: int) -> list[Row]:
    """What a launch of the stages beside denoising takes at once and one by one, CPU seconds."""
    executor = Executor(load_pipeline(name))
    requests = [
        Request(f"r{index}", 0.0, side, side, 1, seed=index, frames=frames, prompt="a red circle left of a blue square")
        for index in range(count)
    ]
    taken: dict[str, list[tuple[float, float]]] = {stage: [] for stage in ORDINARY}

    def launched(stage: str, launches: Sequence[list[Request]]) -> float:
        started = time.process_time()
        for launch in launches:
            executor.execute(stage, launch)
        return time.process_time() - started

    for _ in range(WARM + rounds):
        apart = {stage: launched(stage, [[request] for request in requests]) for stage in ORDINARY}
        for stage in ORDINARY:
            taken[stage].append((apart[stage], launched(stage, [requests])))
    rows = []
    for stage in ORDINARY:
        ratios = [at_once / apart for apart, at_once in taken[stage][WARM:]]
        rows.append(
            {
                "model": name,
                "side": side,
                "stage": stage,
                "requests": count,
                "apart_cpu_s": statistics.median(apart for apart, _ in taken[stage][WARM:]),
                "ratio": statistics.median(ratios),
                "lowest": min(ratios),
                "highest": max(ratios),
            }
        )
    return rows


def settled(blocks: Blocks, calls: Sequence[DenoiserCall]) -> Callable[[], list[Any]]:
    """The calls packed, when blocks are trusted and known to feed each other."""
    for step in range(WARM):
        blocks.run_in_step([call._replace(step=step) for call in calls])
    return lambda: blocks.run_in_step(calls)


def one_by_one(module: Any, calls: Sequence[DenoiserCall]) -> list[Any]:
    """The stock network, a forward a call."""
    return [module(*call.args, **call.kwargs) for call in calls]


def in_type(call: DenoiserCall, dtype: torch.dtype) -> DenoiserCall:
    """The call with its numbers in another type; position ids and masks of whole numbers stay."""

    def converted(leaf: Any) -> Any:
        return leaf.to(dtype) if isinstance(leaf, torch.Tensor) and leaf.is_floating_point() else leaf

    return call._replace(args=tree_map(converted, call.args), kwargs=tree_map(converted, call.kwargs))


def error_of(given: Sequence[Any], exact: Sequence[Any]) -> float:
    """The worst root mean square error of an image, over its standard deviation."""
    pairs = [(tree_leaves(one)[0].double(), tree_leaves(other)[0]) for one, other in zip(given, exact, strict=True)]
    return max(float((one - other).square().mean().sqrt() / other.std()) for one, other in pairs)


def table_of(rows: Sequence[Row]) -> Table:
    """The rows, for people."""
    table = Table(title="packed against one by one", title_justify="left")
    table.add_column("model")
    for name in ("error alone, %", "packed, %", "kernels alone", "packed", "CPU ms alone", "ratio", "low", "high"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            row["model"],
            f"{100 * row['error_alone']:.3f}",
            f"{100 * row['error_packed']:.3f}",
            str(row["kernels_alone"]),
            str(row["kernels_packed"]),
            f"{1000 * row['alone_cpu_s']:.1f}",
            *(f"{row[which]:.2f}" for which in ("ratio", "lowest", "highest")),
        )
    return table


def table_beside(rows: Sequence[Row]) -> Table:
    """The rows of `stages_beside`, for people."""
    table = Table(title="a launch of several requests against one each", title_justify="left")
    for name in ("model", "px", "stage", "requests", "CPU ms apart", "ratio", "low", "high"):
        table.add_column(name, justify="left" if name in ("model", "stage") else "right")
    for row in rows:
        figures = [f"{row[which]:.2f}" for which in ("ratio", "lowest", "highest")]
        milliseconds = f"{1000 * row['apart_cpu_s']:.1f}"
        table.add_row(row["model"], str(row["side"]), row["stage"], str(row["requests"]), milliseconds, *figures)
    return table


if __name__ == "__main__":
    main()
