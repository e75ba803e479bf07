"""The two runs of a tiled request's pipeline: small for the sketch, and again on the canvas to refine it.

Both are the stock pipeline's own ``__call__`` (see `backend.coroutine`). The second one begins in the middle of the
sampler's schedule, from given latents. Of the first it takes the text embeddings and the schedule: a sampler whose
schedule depends on the size would otherwise treat the canvas unlike the windows that the model sees.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch

from backend.coroutine import RequestRun, StepDone
from backend.tiled.adapters import Adapter
from traces.request import Request, Size


class Prepared(NamedTuple):
    """What the second run takes from the first: text embeddings by call, and the arguments of ``set_timesteps``."""

    texts: tuple[Any, ...]
    schedule: tuple[tuple[Any, ...], Mapping[str, Any]]


class SketchRun(RequestRun):
    """The request at another size, its pixels returned as a tensor.

    Args:
        pipeline: as for `RequestRun`.
        request: what to make.
        size: at which.
        arguments: more arguments of the pipeline, such as ``image``.
    """

    def __init__(self, pipeline: Any, request: Request, size: Size, arguments: Mapping[str, Any]) -> None:
        super().__init__(pipeline, request)
        self._size = size
        self._more = arguments
        self._texts: list[Any] = []
        self._schedule: tuple[tuple[Any, ...], Mapping[str, Any]] | None = None
        encode, set_timesteps = self._own.encode_prompt, self._sampler.set_timesteps

        @functools.wraps(encode)
        def encode_prompt(*args: Any, **kwargs: Any) -> Any:
            self._texts.append(encode(*args, **kwargs))
            return self._texts[-1]

        @functools.wraps(set_timesteps)
        def noted(*args: Any, **kwargs: Any) -> Any:
            self._schedule = args, kwargs
            return set_timesteps(*args, **kwargs)

        self._own.encode_prompt = encode_prompt
        self._sampler.set_timesteps = noted

    @property
    def prepared(self) -> Prepared:
        """Known from the first denoiser call on."""
        assert self._schedule is not None
        return Prepared(tuple(self._texts), self._schedule)

    def _arguments(self) -> dict[str, Any]:
        height, width, _ = self._size
        return {**super()._arguments(), "height": height, "width": width, "output_type": "pt", **self._more}


class RefineRun(RequestRun):
    """The request on its canvas, from given latents and the ``first_step``-th step of its schedule on.

    It stops once more than a `RequestRun`: at the latents it starts from, before its first denoiser call.

    Args:
        pipeline: as for `RequestRun`.
        request: what to make.
        prepared: from the sketch.
        first_step: of the sampler's schedule.
        start: makes the latents to start from, in the layout of those it is given.
        arguments: as for `SketchRun`.
        adapter: of the pipeline.
        history: what a sampler that is resumed has kept, by the names of its attributes.
        noise_state: of the request's generators, when it is resumed.
    """

    def __init__(
        self,
        pipeline: Any,
        request: Request,
        prepared: Prepared,
        first_step: int,
        start: Callable[[torch.Tensor], torch.Tensor],
        arguments: Mapping[str, Any],
        adapter: Adapter,
        history: Mapping[str, Any] | None = None,
        noise_state: tuple[torch.Tensor, ...] | None = None,
    ) -> None:
        super().__init__(pipeline, request)
        self.steps = request.steps - first_step
        self._more = {**arguments, **adapter.admit(self._own)}
        self._full: torch.Tensor | None = None
        self._left = 0
        self._generators: list[torch.Generator] = []
        texts = iter(prepared.texts)
        prepare, set_timesteps = self._own.prepare_latents, self._sampler.set_timesteps

        @functools.wraps(self._own.encode_prompt)
        def encode_prompt(*args: Any, **kwargs: Any) -> Any:
            return next(texts)

        @functools.wraps(prepare)
        def prepare_latents(*args: Any, **kwargs: Any) -> Any:
            made = prepare(*args, **kwargs)
            latents = start(made[0] if isinstance(made, tuple) else made)
            for generator, state in zip(self._generators, noise_state or (), strict=False):
                generator.set_state(state)
            self.latents = latents
            self._pause(StepDone(latents, (latents,)))
            return (latents, *made[1:]) if isinstance(made, tuple) else latents

        @functools.wraps(set_timesteps)
        def begun(*args: Any, **kwargs: Any) -> None:
            set_timesteps(*prepared.schedule[0], **prepared.schedule[1])
            self._full = self._sampler.timesteps
            begin_at(self._sampler, first_step)
            self._left = len(self._sampler.timesteps)
            for name, value in (history or {}).items():
                setattr(self._sampler, name, value)

        self._own.encode_prompt = encode_prompt
        self._own.prepare_latents = prepare_latents
        self._sampler.set_timesteps = begun

    @property
    def evaluations(self) -> int:
        return self._left

    def input_scale(self) -> float:
        """What the sampler multiplies the latents by before the next denoiser call."""
        assert self._full is not None
        at = len(self._full) - self._left + self._sampler_calls
        probe = copy.copy(self._sampler)
        return float(probe.scale_model_input(torch.ones(1, dtype=torch.float64), self._full[at]))

    def tensors(self, result: tuple[Any, ...]) -> list[torch.Tensor]:
        """What the sampler keeps of every pixel beside the latents, ``result[0]``: all of their shape."""
        latents = result[0]
        found: dict[int, torch.Tensor] = {}
        kept = [value for value in vars(self._sampler).values() if isinstance(value, torch.Tensor | list | tuple)]
        for value in (*result[1:], *kept):
            for item in value if isinstance(value, list | tuple) else (value,):
                if isinstance(item, torch.Tensor) and item.shape == latents.shape:
                    found[item.data_ptr()] = item
        found.pop(latents.data_ptr(), None)
        return list(found.values())

    def history(self) -> dict[str, Any]:
        """What the sampler keeps from step to step, by the names of its attributes, to go on from later."""
        assert self.latents is not None
        kept: dict[str, Any] = {}
        for name, value in vars(self._sampler).items():
            of_pixels = [value] if isinstance(value, torch.Tensor) else value if isinstance(value, list) else []
            if any(isinstance(item, torch.Tensor) and item.shape == self.latents.shape for item in of_pixels) or (
                isinstance(value, int) and name in ("lower_order_nums", "this_order")
            ):
                kept[name] = value
        return kept

    @property
    def noise_state(self) -> tuple[torch.Tensor, ...]:
        """The state of the request's generators."""
        return tuple(generator.get_state() for generator in self._generators)

    def _arguments(self) -> dict[str, Any]:
        arguments = {**super()._arguments(), **self._more}
        generators = arguments.get("generator", [])
        self._generators = generators if isinstance(generators, list) else [generators]
        return arguments

    def _sampled(self, *args: Any, **kwargs: Any) -> Any:
        if self._full is not None:
            self._sampler.timesteps = self._full  # the pipeline has read what is left of them
        return super()._sampled(*args, **kwargs)


def begin_at(sampler: Any, first_step: int) -> None:
    """Make a sampler whose timesteps are set start at a later step, as image-to-image pipelines do."""
    first = first_step * sampler.order
    sampler.timesteps = sampler.timesteps[first:]
    if hasattr(sampler, "set_begin_index"):
        set_begin_index = type(sampler).set_begin_index
        set_begin_index(sampler, first)
        sampler.set_begin_index = lambda index=0: set_begin_index(sampler, first + index)
