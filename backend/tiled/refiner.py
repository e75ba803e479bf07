"""One tiled request alone, refined as often as one likes: with different caches, or watched.

What a cache costs and saves is told by refining the same sketch with and without it.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from backend.coroutine import DenoiserCall, Finished, intercept_denoisers
from backend.loading import geometry_of_pipeline, load_pipeline
from backend.merge import stacked
from backend.tiled.adapter import Adapter
from backend.tiled.coordinator import Coordinator
from backend.tiled.evaluate import evaluate_windows
from backend.tiled.run import TiledRun
from policies.caching.contract import CachingPolicy, Flags, Signals
from policies.caching.step import needs_gain
from policies.contract import Policy
from policies.guard import ask
from policies.placement import Contiguous
from policies.tiling.recipe import TilingRule
from traces.errors import BadInput
from traces.request import Request

Pixels = npt.NDArray[np.float32]
Observe = Callable[[torch.Tensor, torch.Tensor], None]
"""Is given the canvas as the denoiser sees it and what it makes of it, [rows, channels, frames, H, W] each."""


class Refined(NamedTuple):
    """A refined request.

    Attributes:
        pixels: [images, height, width, 3], of clips [clips, frames, height, width, 3], in 0..1.
        seconds: CPU time of the refinement steps.
        computed: tiles computed.
        tiles: tiles there were.
    """

    pixels: Pixels
    seconds: float
    computed: int
    tiles: int


class Refiner:
    """A model and how its large requests are tiled, on one device.

    Args:
        model: an embedded model's name or a diffusers folder.
        device: ``cpu``, ``cuda``, ...
        dtype: as for `load_pipeline`.
        options: options of the `TilingRule`.

    Raises:
        BadInput: an unknown model or device, a model that cannot be tiled, or a wrong option.
    """

    def __init__(self, model: str, device: str = "cpu", dtype: str = "float32", **options: Any) -> None:
        self.pipeline = load_pipeline(model, device, dtype)
        self.rule = TilingRule(geometry_of_pipeline(self.pipeline, model), **options)
        self.adapter = Adapter(self.pipeline)
        self._mixer = stacked(intercept_denoisers(self.pipeline))

    def check(self, request: Request) -> None:
        """BadInput where the model cannot make the request's size, or would make it without tiles."""
        self.rule.geometry.check(request)
        if not self.rule.applies(request.size):
            height, width = self.rule.geometry.native_size
            raise BadInput(
                f"{request.height}x{request.width} is not tiled: it is not above the model's {height}x{width}"
            )

    @torch.no_grad()
    def sketch(self, request: Request) -> torch.Tensor:
        """The request's sketch, [images, 3, frames, height, width] in 0..1."""
        run = self._run(request, self.adapter)
        run.encode()
        stop: Any = run.pending
        while not isinstance(stop, Finished):
            value = self._mixer.run([stop])[0] if isinstance(stop, DenoiserCall) else None
            stop = run.active.resume(value)
        run.sketched(stop)
        sketch = run.sketch
        run.close()
        assert sketch is not None
        return sketch

    @torch.no_grad()
    def refine(
        self,
        request: Request,
        sketch: torch.Tensor,
        caching: CachingPolicy | None = None,
        reuse: str = "output",
        observe: Observe | None = None,
    ) -> Refined:
        """Refine a sketch.

        Args:
            request: whose sketch it is.
            sketch: from `sketch`.
            caching: decides which tiles are computed; begun anew. None: all.
            reuse: see `backend.tiled.refine.REUSE`.
            observe: called with input and output of every evaluation of the denoiser (of several in a step, the first).
        """
        if caching is not None:
            ask(caching, "reset")
        adapter = (
            self.adapter if observe is None else _observed(self.adapter, self.rule.grid(request.size).canvas, observe)
        )
        run = self._run(request, adapter, caching, reuse)
        try:
            run.encode()
            run.sketch = sketch
            run.upscale()
            started = time.process_time()
            for _ in range(run.shape.refine_steps):
                errors, _ = evaluate_windows([run], self._mixer, batch=1)
                if errors:
                    raise errors[request.request_id]
            seconds = time.process_time() - started
            run.gather()
            pixels = self._decoded(run)
            refinement = run.refinement
            return Refined(pixels, seconds, refinement.computed, refinement.computed + refinement.reused)
        finally:
            run.close()

    def _run(
        self, request: Request, adapter: Adapter, caching: CachingPolicy | None = None, reuse: str = "output"
    ) -> TiledRun:
        shape = self.rule.shape(request.size, request.steps)
        order = self.pipeline.scheduler.order
        _, frames, _, _ = self.rule.geometry.latent_shape(request.size)
        values = request.images * frames * self.adapter.channels
        evaluations = shape.refine_steps * order - (order - 1)
        coordinator = Coordinator(
            request_id=request.request_id,
            steps=evaluations,
            values=values,
            devices=1,
            placement=Contiguous(),
            seconds=lambda *window: 1.0,
            caching=caching,
        )
        gains = caching is not None and needs_gain(caching)
        return TiledRun(
            self.pipeline,
            request,
            shape,
            adapter,
            coordinator=coordinator,
            reuse=reuse,
            cached=caching is not None,
            gains=gains,
        )

    def _decoded(self, run: TiledRun) -> Pixels:
        stop: Any = run.active.resume()
        while not isinstance(stop, Finished):
            value = self._mixer.run([stop])[0] if isinstance(stop, DenoiserCall) else None
            stop = run.active.resume(value)
        return np.asarray(stop.output)


def _observed(adapter: Adapter, canvas: tuple[int, int], observe: Observe) -> Adapter:
    """A copy of an adapter that shows what it puts together."""
    watched, answer = copy.copy(adapter), adapter.answer

    def shown(prediction: torch.Tensor, call: DenoiserCall) -> Any:
        if call.part == 0:
            observe(adapter.sample(call, canvas), prediction)
        return answer(prediction, call)

    watched.answer = shown  # type: ignore[method-assign]
    return watched


class RecordingPolicy(CachingPolicy):
    """A policy, and all that it was asked and what was computed: ``log`` holds a pair a step."""

    def __init__(self, policy: CachingPolicy) -> None:
        self.policy = policy
        self.needs_gain = needs_gain(policy)
        self.log: list[tuple[Signals, Flags]] = []

    @property
    def blamed(self) -> Policy:
        """The policy that is watched."""
        return self.policy

    def reset(self) -> None:
        self.policy.reset()
        self.log = []

    def watches(self, block: int) -> bool:
        return self.policy.watches(block)

    def decide(self, signals: Signals) -> Flags:
        return self.policy.decide(signals)

    def commit(self, signals: Signals, computed: Flags) -> None:
        self.log.append((signals, computed.copy()))
        self.policy.commit(signals, computed)

    def forget(self, request_id: str) -> None:
        self.policy.forget(request_id)
