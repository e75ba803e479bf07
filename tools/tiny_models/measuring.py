"""What the measurements of the embedded models share: held-out scenes, stock pipelines, times, their command."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from diffusers import DiffusionPipeline

from traces.marks import OutputKind

MEASUREMENT = OutputKind("measurement")

Scene = TypeVar("Scene")


def spread(scenes: Sequence[Scene], count: int) -> list[Scene]:
    """`count` of the scenes, evenly spread over their order."""
    if not 1 <= count <= len(scenes):
        raise ValueError(f"there are {len(scenes)} held-out prompts, cannot take {count}")
    return [scenes[int(index)] for index in np.linspace(0, len(scenes) - 1, count)]


def load(folder: Path) -> Any:
    """The stock pipeline in `folder`, without a progress bar."""
    pipeline = DiffusionPipeline.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@contextmanager
def one_core() -> Iterator[None]:
    """One thread of torch while the block lasts."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def step_ends(pipeline: Any, **given: Any) -> list[float]:
    """Make one request; when each denoising step ended, on the clock of `time.perf_counter`."""
    ends: list[float] = []

    def note(_pipeline: Any, _step: int, _timestep: Any, inputs: dict) -> dict:
        ends.append(time.perf_counter())
        return inputs

    pipeline(generator=torch.Generator().manual_seed(0), callback_on_step_end=note, **given)
    return ends


def weights_bytes(folder: Path) -> int:
    """Size of all weights in a model folder."""
    return sum(path.stat().st_size for path in folder.rglob("*.safetensors"))


def wrong_of(verdict: Any, names: Sequence[str]) -> list[str]:
    """What of these a verdict finds wrong."""
    return [name for name in names if not getattr(verdict, name)]


def caption(scene: Any, verdict: Any, names: Sequence[str]) -> str:
    """The prompt, and what the picture or clip has wrong."""
    wrong = wrong_of(verdict, names)
    return f"WRONG {' and '.join(wrong).upper()}: {scene.prompt}" if wrong else scene.prompt


def not_right(scenes: Sequence[Any], verdicts: Sequence[Any], names: Sequence[str]) -> dict[str, dict[str, bool]]:
    """By prompt, the verdicts that find something wrong."""
    return {
        scene.prompt: {name: getattr(verdict, name) for name in names}
        for scene, verdict in zip(scenes, verdicts, strict=True)
        if wrong_of(verdict, names)
    }


def measured(
    measure: Callable[..., dict],
    arguments: list[str] | None,
    *,
    model: Path,
    prompts: int,
    most: int,
    steps: int,
    guidance: float,
    files: str,
) -> dict:
    """The figures of a command line that measures a model; it ends the process where an option is wrong.

    Args:
        measure: takes the model's folder, how many prompts, steps, a guidance scale and the folder to write or None.
        arguments: of the command line; None: the process's own.
        model: folder that is measured where none is named.
        prompts: how many, where the command line does not say.
        most: prompts that there are.
        steps: by default.
        guidance: scale, by default.
        files: what is written.
    """
    parser = argparse.ArgumentParser(description=f"Measure {model.name} on held-out prompts.")
    parser.add_argument("--model", type=Path, default=model, help="a folder saved by a training")
    parser.add_argument("--prompts", type=int, default=prompts)
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--guidance", type=float, default=guidance, help="guidance scale")
    parser.add_argument("-o", "--output", type=Path, help=f"folder for {files}")
    options = parser.parse_args(arguments)
    if not (options.model / "model_index.json").is_file():
        parser.error(f"{options.model} is no model folder: it has no model_index.json")
    if not 1 <= options.prompts <= most:
        parser.error(f"--prompts must be 1 to {most}, got {options.prompts}")
    if options.steps < 1:
        parser.error(f"--steps must be at least 1, got {options.steps}")
    if options.output is not None and options.output.is_file():
        parser.error(f"{options.output} is a file; name a folder")
    return measure(options.model, options.prompts, options.steps, options.guidance, options.output)
