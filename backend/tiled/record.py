"""Recording what a tile cache would see: how the input and the output of every tile move, while all are computed.

The last inputs and outputs of the whole canvas are kept, so every age up to ``max_age`` is seen at every step, over the
window that a tile has at that step. The trajectories are exact.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import pandas as pd
import torch

from backend.tiled.refiner import Refiner
from policies.tiling.grid import Box
from policies.tiling.recipe import TiledShape
from traces.request import Request, Size


def record_tiles(
    refiner: Refiner,
    sizes: Sequence[Size],
    requests: int,
    steps: int,
    max_age: int = 4,
    seed: int = 0,
    prompts: Sequence[str] = ("",),
    guidance_scale: float = 5.0,
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Sketch and refine requests one after another and record the signals of their tiles.

    Args:
        refiner: the model and its tiling.
        sizes: (height, width, frames), taken in turn.
        requests: number of requests.
        steps: denoising steps of each sketch; refinement repeats the rule's share of them.
        max_age: oldest reference, steps.
        seed: seed of the requests' noise.
        progress: called with (requests done, requests).

    Returns:
        One row a tile, step and age (from the second step on) with `predictors.tile_recording.COLUMNS`.

    Raises:
        BadInput: a size that the model cannot make or does not tile.
    """
    frames = []
    for index in range(requests):
        height, width, count = sizes[index % len(sizes)]
        request = Request(
            f"r{index}", 0.0, height, width, steps, count,
            prompt=prompts[index % len(prompts)], seed=seed + index, guidance_scale=guidance_scale,
        )  # fmt: skip
        refiner.check(request)
        notes = Notes(request, refiner.rule.shape(request.size, steps), max_age)
        refiner.refine(request, refiner.sketch(request), observe=notes.take)
        frames.append(notes.frame())
        if progress is not None:
            progress(index + 1, requests)
    return pd.concat(frames, ignore_index=True)


class Notes:
    """What the tiles of one request show.

    Args:
        request: whose.
        shape: what it becomes.
        max_age: oldest reference, steps.
    """

    def __init__(self, request: Request, shape: TiledShape, max_age: int) -> None:
        self._request = request
        self._shape = shape
        self._past: deque[tuple[torch.Tensor, torch.Tensor]] = deque(maxlen=max_age)
        self._evaluations = 0
        self._rows: list[dict[str, float]] = []

    def frame(self) -> pd.DataFrame:
        """One row a tile, step and age, see `record_tiles`."""
        request = self._request
        height, width, frames = request.size
        return pd.DataFrame(self._rows).assign(
            request_id=request.request_id, height=height, width=width, frames=frames, steps=self._evaluations
        )

    def take(self, sample: torch.Tensor, prediction: torch.Tensor) -> None:
        """One evaluation of the denoiser, [rows, channels, frames, H, W] each; of guided ones the guided rows count."""
        now, output = (whole[-self._request.images :].float().cpu() for whole in (sample, prediction))
        tiles = self._shape.grid.tiles(self._shape.shifts.at(self._evaluations))
        for age, (then, before) in enumerate(reversed(self._past), start=1):
            moved, changed = now - then, output - before
            maps = torch.stack(
                [of.double().mean((0, 1, 2)) for of in
                 (moved.abs(), moved.square(), then.square(), before.abs(), changed.abs(), (changed - moved).abs())]
            )  # fmt: skip
            for tile in tiles:
                known = {"tile": tile.index, "step": self._evaluations, "age": age, **self._place(tile.window)}
                self._rows.append({**known, **_magnitudes(maps, tile.window)})
        self._past.append((now.clone(), output.clone()))
        self._evaluations += 1

    def _place(self, window: Box) -> dict[str, float]:
        height, width = self._shape.grid.canvas
        return {
            "down": (window.top + window.height / 2) / height % 1,
            "across": (window.left + window.width / 2) / width % 1,
        }


def _magnitudes(maps: torch.Tensor, window: Box) -> dict[str, float]:
    rows, columns = (torch.from_numpy(of) for of in (window.rows(maps.shape[1]), window.columns(maps.shape[2])))
    shift, squares, then, level, changed, residual = maps[:, rows[:, None], columns].mean((1, 2)).tolist()
    return {
        "input_change": squares / max(then, 1e-30),
        "input_shift": shift,
        "output_level": level,
        "output_shift": changed,
        "residual_shift": residual,
    }
