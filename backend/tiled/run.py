"""A tiled request on its way: encode, sketch, upscale, refine, decode (SuperGen, arXiv 2508.17756).

The executor walks it through its stages (`backend.executor`); on further ranks `backend.tiled.rank` walks it through
refinement alone. At the end of a stage and between refinement steps it can be saved to a folder and resumed from there,
on any number of ranks.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from backend.coroutine import DenoiserCall, Finished, RequestRun, StepDone
from backend.ranks.group import Group, OneRank
from backend.tiled.adapter import Adapter
from backend.tiled.coordinator import Coordinator
from backend.tiled.coroutines import RefineRun, Resumed, SketchRun, WindowRun, begin_at
from backend.tiled.pixels import as_pixels, drawn_noise, enlarged, noisy
from backend.tiled.refine import Refinement
from policies.tiling.recipe import TiledShape
from traces.request import Request


@dataclass
class TiledRun:
    """One tiled request on one rank.

    Attributes:
        pipeline: shared by all requests of a replica, prepared by `backend.coroutine.intercept_denoisers`.
        request: what to make.
        shape: what it becomes.
        adapter: adapter of the pipeline.
        group: this rank's view of its replica; settled when refinement begins.
        coordinator: on the first rank; None on the others.
        reuse: what a reused tile hands on, see `backend.tiled.refine.REUSE`.
        cached: whether a policy may reuse tiles.
        gains: whether it looks at gains.
        arguments: more arguments of the pipeline, such as the ``image`` of an image-to-video model.
        sketch: pixels of the finished sketch, or of what is refined instead of one: [images, 3, frames, h, w] in 0..1.
    """

    pipeline: Any
    request: Request
    shape: TiledShape
    adapter: Adapter
    group: Group = field(default_factory=OneRank)
    coordinator: Coordinator | None = None
    reuse: str = "output"
    cached: bool = False
    gains: bool = False
    arguments: Mapping[str, Any] = field(default_factory=dict)
    sketch: torch.Tensor | None = None

    def __post_init__(self) -> None:
        self._sketching = SketchRun(self.pipeline, self.request, self.shape.sketch, self.arguments)
        self._refining: RefineRun | None = None
        self._refinement: Refinement | None = None
        self._stop: StepDone | None = None
        self._canvas: torch.Tensor | None = None
        self._windows: dict[tuple[int, int], WindowRun] = {}  # by size in latent pixels

    @property
    def active(self) -> RequestRun:
        """The pipeline's run of the stage under way."""
        return self._sketching if self._refining is None else self._refining

    @property
    def pending(self) -> DenoiserCall | None:
        """The canvas-size call that the pipeline waits for, between `step` and its end."""
        return self.active.pending

    def encode(self) -> None:
        """To the sketch's first denoiser call."""
        if not isinstance(self._sketching.resume(), DenoiserCall):
            raise RuntimeError("the pipeline ended before its first denoising step")

    def sketched(self, finished: Finished) -> None:
        """The sketch's pipeline has returned."""
        self.sketch = as_pixels(finished.output)

    def upscale(self) -> None:
        """From the sketch's pixels to the latents that refinement starts from."""
        if self.sketch is None:
            raise RuntimeError("there is no sketch to enlarge")
        latents = self.adapter.encoded(enlarged(self.sketch, self.shape.size))
        sampler = copy.deepcopy(self.pipeline.scheduler)
        args, kwargs = self._sketching.prepared.schedule
        sampler.set_timesteps(*args, **kwargs)
        begin_at(sampler, self.shape.first_step * sampler.order)
        self._canvas = noisy(sampler, latents, drawn_noise(self.request, tuple(latents.shape[1:]), latents))
        self.begin()

    def begin(self, state: Mapping[str, Any] | None = None) -> None:
        """Start the pipeline on the canvas, or go on from a `state`.

        A rank without latents starts from nothing and fetches what it needs.
        """
        resumed = None
        if state is not None:
            state = _on(self.pipeline.device, state)
            resumed = Resumed(
                state["steps_done"], state["evaluations"], state["history"], [s.cpu() for s in state["noise"]]
            )
        self._refinement = Refinement(
            shape=self.shape,
            adapter=self.adapter,
            group=self.group,
            coordinator=self.coordinator,
            cached=self.cached,
            gains=self.gains,
            reuse=self.reuse,
        )
        self._prepared = self._sketching.prepared
        self._refining = RefineRun(
            pipeline=self.pipeline,
            request=self.request,
            prepared=self._prepared,
            first_step=self.shape.first_step,
            start=self._start if state is None else lambda like: self._packed(state["latents"], like),
            arguments=self.arguments,
            adapter=self.adapter,
            resumed=resumed,
        )
        self._sketching.close()
        if state is not None:
            self._refinement.restore(state["cache"])
            if self.coordinator is not None:
                self.coordinator.restore(state["coordinator"], self.shape)
        stop = self._refining.resume()
        if not isinstance(stop, StepDone):
            raise RuntimeError("the pipeline asked for no latents")
        self._stop, self._canvas, self.sketch = stop, None, None

    def state(self) -> dict[str, Any]:
        """All that `begin` needs to go on from between two steps, once `gather` has brought it here.

        A nest of dictionaries, lists, tensors and plain values.
        """
        run, stop = self._run, self._stop
        assert stop is not None
        return {
            "latents": stop.latents,
            "steps_done": run.steps_done,
            "evaluations": run.sampler_calls,
            "history": run.history(),
            "noise": run.noise,
            "cache": self.refinement.state(),
            "coordinator": {} if self.coordinator is None else self.coordinator.state(),
        }

    @property
    def refinement(self) -> Refinement:
        """The tiles' side of it, from the first refinement step on."""
        if self._refinement is None:
            raise RuntimeError("refinement has not begun")
        return self._refinement

    @property
    def is_refining(self) -> bool:
        """Whether it is on its canvas."""
        return self._refining is not None

    @property
    def steps_done(self) -> int:
        """Refinement steps done."""
        return 0 if self._refining is None else self._refining.steps_done

    @property
    def evaluations_due(self) -> int:
        """How often the denoiser is evaluated in the next step (second-order samplers: twice)."""
        run = self._run
        return run.sampler_calls_due(run.steps_done + 1) - run.sampler_calls

    def step(self) -> None:
        """Decide the next evaluation, fetch what it needs and run on to its first denoiser call.

        Then, while `pending` is a call, answer it.
        """
        run, stop = self._run, self._stop
        assert stop is not None
        self.refinement.begin(run.sampler_calls, stop.latents, run.tensors(stop.result), run.input_scale())
        self._advance(None)

    def calls(self) -> list[DenoiserCall]:
        """The pending call, cut for the tiles of this rank."""
        assert self.pending is not None
        return self.refinement.calls(self.pending, self._like)

    def answer(self, parts: Sequence[DenoiserCall], outputs: Sequence[Any]) -> None:
        """Answer the pending call with the ``outputs`` of its `calls`, and run on."""
        assert self.pending is not None
        self._advance(self.refinement.answer(self.pending, parts, outputs))

    def step_done(self) -> None:
        """All evaluations of a step are done."""
        self._run.steps_done += 1

    def gather(self) -> None:
        """Bring everything to the first rank, after the last step or to save it."""
        stop = self._stop
        assert stop is not None
        self.refinement.gather([stop.latents, *self._run.tensors(stop.result)])

    @property
    def finite(self) -> bool:
        """Whether all latents that this rank owns are numbers."""
        latents = self._run.latents
        if latents is None:
            return True
        self.refinement.settle()
        canvas = self.adapter.unpack(latents, self.shape.grid.canvas)
        owned = torch.from_numpy(self.refinement.owners == self.group.rank).to(canvas.device)
        return bool(torch.isfinite(canvas)[..., owned].all())

    def close(self) -> None:
        """Give the request up and free what it holds."""
        self._sketching.close()
        if self._refining is not None:
            self._refining.close()
        for window in self._windows.values():
            window.close()
        self._windows.clear()
        if self.coordinator is not None:
            self.coordinator.forget()
        self._refinement = self._stop = self._canvas = self.sketch = None

    def _like(self, size: tuple[int, int]) -> DenoiserCall:
        """The pending call as the stock pipeline makes it for a picture of a window's size."""
        assert self.pending is not None
        if size not in self._windows:
            self._windows[size] = WindowRun(
                pipeline=self.pipeline,
                request=self.request,
                size=size,
                prepared=self._prepared,
                first_step=self.shape.first_step,
                arguments=self.arguments,
                adapter=self.adapter,
            )
        return self._windows[size].call_at(self._run.sampler_calls, self.pending.part)

    @property
    def _run(self) -> RefineRun:
        if self._refining is None:
            raise RuntimeError("refinement has not begun")
        return self._refining

    def _advance(self, value: Any) -> None:
        stop = self._run.resume(value)
        if isinstance(stop, Finished):
            raise RuntimeError("the pipeline ended before its last step")
        if isinstance(stop, StepDone):
            self._stop = stop

    def _start(self, like: torch.Tensor) -> torch.Tensor:
        if self._canvas is None:
            return torch.zeros_like(like)
        return self.adapter.pack(self._canvas.to(like), like).contiguous()

    def _packed(self, latents: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """Latents that the sampler made, as the pipeline begins with them."""
        if latents.shape == like.shape:
            return latents
        return self.adapter.pack(self.adapter.unpack(latents, self.shape.grid.canvas), like).contiguous()


def _on(device: torch.device, value: Any) -> Any:
    """A nest with its tensors on a device, but for single numbers, which stay where samplers keep them."""
    if isinstance(value, torch.Tensor):
        return value.to(device) if value.ndim else value
    if isinstance(value, Mapping):
        return {name: _on(device, item) for name, item in value.items()}
    return [_on(device, item) for item in value] if isinstance(value, list) else value
