"""Recording what a patch cache would see: the changes of every patch before every block, and what reuse would cost.

Everything is computed, so the trajectories are exact. For every unit a reference that is 1 to ``max_age`` steps old is
kept beside, as a cache would keep it: the changes are measured against it, and so is the change of the block's output,
which is the error that reusing it would have made. Ages are drawn, so all of them are seen.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from backend.coroutine import DenoiserCall, RequestRun, intercept_denoisers
from backend.loading import geometry_of_pipeline, load_pipeline
from backend.patched.cache import top_blocks
from backend.patched.layout import Side
from backend.patched.unet import PatchBatch, PatchedUNet
from traces.request import Request, Size
from traces.streams import stream

COLUMNS = (
    "request_id",
    "height",
    "width",
    "steps",
    "unit",
    "block",
    "blocks",
    "step",
    "age",
    "input_change",
    "skip_change",
    "output_change",
    "block_s",
)


def record_signals(
    model: str,
    sizes: Sequence[Size],
    requests: int,
    steps: int,
    patch: int = 8,
    max_age: int = 4,
    seed: int = 0,
    prompts: Sequence[str] = ("",),
    guidance_scale: float = 5.0,
    device: str = "cpu",
    dtype: str = "float32",
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Run requests one after another and record their signals.

    Args:
        model: an embedded model's name or a diffusers folder with a UNet.
        sizes: (height, width, frames), taken in turn.
        requests: number of requests.
        patch: largest side of a patch, latent pixels; see `PatchedUNet`.
        max_age: oldest reference, steps.
        seed: seed of the named random streams of ages and of the requests' noise.
        progress: called with (requests done, requests).

    Returns:
        One row a unit, block and step (from the second on) with `COLUMNS`: changes are relative mean squares as in
        `policies.caching.Signals`, ``output_change`` likewise of the block's outputs (the largest of them),
        ``block_s`` the seconds the whole block took. ``attrs`` hold the largest and the least side of a patch in
        pixels, ``patch_px`` and ``floor_px``.

    Raises:
        BadInput: unknown model or device, a size the model cannot make, or no UNet.
    """
    pipeline = load_pipeline(model, device, dtype)
    geometry = geometry_of_pipeline(pipeline, model)
    mixer = PatchedUNet(pipeline, cache_patch=patch)
    recorder = _Recorder(pipeline.unet, max_age, stream(seed, "record/ages"))
    intercept_denoisers(pipeline)
    frames = []
    for index in range(requests):
        height, width, count = sizes[index % len(sizes)]
        request = Request(
            f"r{index}",
            0.0,
            height,
            width,
            steps,
            count,
            prompt=prompts[index % len(prompts)],
            seed=seed + index,
            guidance_scale=guidance_scale,
        )
        geometry.check(request)
        frames.append(_record(pipeline, mixer, recorder, request))
        if progress is not None:
            progress(index + 1, requests)
    recorded = pd.concat(frames, ignore_index=True)
    recorded.attrs = {"patch_px": patch * geometry.latent_factor, "floor_px": mixer.multiple * geometry.latent_factor}
    return recorded


@torch.no_grad()
def _record(pipeline: Any, mixer: PatchedUNet, recorder: _Recorder, request: Request) -> pd.DataFrame:
    run = RequestRun(pipeline, request)
    recorder.start()
    stop = run.resume()
    while not isinstance(stop, DenoiserCall) or stop.step < request.steps:
        if isinstance(stop, DenoiserCall):
            recorder.step = stop.step
            batch = PatchBatch([stop], mixer.patch_with_cache(_side(stop)))
            with mixer.context.batch(batch.layout):
                output = batch.outputs(batch.forward(mixer.forward))[0]
            stop = run.resume(output)
        elif run.sampler_calls == run.sampler_calls_due(request.steps):
            break
        else:
            stop = run.resume()
    run.close()
    frame = recorder.frame().assign(
        request_id=request.request_id, height=request.height, width=request.width, steps=request.steps
    )
    return frame[list(COLUMNS)]


def _side(call: DenoiserCall) -> Side:
    height, width = call.args[0].shape[-2:]
    return int(height), int(width)


class _Recorder:
    """Wraps a UNet's blocks; one request at a time."""

    def __init__(self, unet: Any, max_age: int, rng: np.random.Generator) -> None:
        self.step = 0
        self._max_age = max_age
        self._rng = rng
        self._blocks = top_blocks(unet)
        self._rows: list[pd.DataFrame] = []
        self._references: dict[int, tuple[list[torch.Tensor], list[torch.Tensor], Any, Any]] = {}
        for index, block in enumerate(self._blocks):
            block.forward = self._wrapped(index, block.forward, gives_skips=index < len(unet.down_blocks))

    def start(self) -> None:
        """Begin a request."""
        self._rows, self._references = [], {}

    def frame(self) -> pd.DataFrame:
        """What was recorded of the request."""
        return pd.concat(self._rows, ignore_index=True)

    def _wrapped(self, index: int, forward: Callable[..., Any], gives_skips: bool) -> Callable[..., Any]:
        def recorded(hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            out = forward(hidden_states, *args, **kwargs)
            if hidden_states.is_cuda:
                torch.cuda.synchronize()
            seconds = time.perf_counter() - started
            inputs = [hidden_states, *kwargs.get("res_hidden_states_tuple", ())]
            self._note(index, inputs, list(out[1]) if gives_skips else [out], seconds)
            return out

        return recorded

    def _note(self, index: int, inputs: list[torch.Tensor], outputs: list[torch.Tensor], seconds: float) -> None:
        units = len(inputs[0])
        if index not in self._references:
            limit = self._rng.integers(1, self._max_age + 1, units)
            copies = [tensor.clone() for tensor in inputs], [tensor.clone() for tensor in outputs]
            self._references[index] = (*copies, np.full(units, self.step), limit)
            return
        old_inputs, old_outputs, since, limit = self._references[index]
        changes = [relative_change(new, old) for new, old in zip(inputs, old_inputs, strict=True)]
        output_change = np.max([relative_change(n, o) for n, o in zip(outputs, old_outputs, strict=True)], axis=0)
        age = self.step - since
        self._rows.append(
            pd.DataFrame(
                {
                    "unit": np.arange(units),
                    "block": index,
                    "blocks": len(self._blocks),
                    "step": self.step,
                    "age": age,
                    "input_change": changes[0],
                    "skip_change": np.max(changes[1:], axis=0) if len(changes) > 1 else np.zeros(units),
                    "output_change": output_change,
                    "block_s": seconds,
                }
            )
        )
        renewed = age >= limit
        chosen = torch.from_numpy(np.flatnonzero(renewed)).to(inputs[0].device)
        for new, old in zip((*inputs, *outputs), (*old_inputs, *old_outputs), strict=True):
            old.index_copy_(0, chosen, new.index_select(0, chosen))
        since[renewed] = self.step
        limit[renewed] = self._rng.integers(1, self._max_age + 1, int(renewed.sum()))


def relative_change(new: torch.Tensor, old: torch.Tensor) -> Any:
    """Mean squared change of each unit over the mean square of the old values, [units] as an array."""
    exact = torch.float64 if old.dtype == torch.float64 else torch.float32
    power = old.flatten(1).square().mean(1, dtype=exact)
    return ((new - old).flatten(1).square().mean(1, dtype=exact) / power.clamp_min(1e-30)).double().cpu().numpy()
