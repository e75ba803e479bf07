"""The two runs of a tiled request's pipeline: small for the sketch, and again on the canvas to refine it.

Both are the stock pipeline's own ``__call__`` (see `backend.coroutine`). The second one begins in the middle of the
sampler's schedule, from given latents. Of the first it takes the text embeddings and the schedule: a sampler whose
schedule depends on the size would otherwise treat the canvas unlike the windows that the model sees.
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch

from backend.coroutine import DenoiserCall, Finished, RequestRun, StepDone
from backend.tiled.adapter import Adapter
from traces.errors import BadInput
from traces.request import Request, Size


class TiledInputs(NamedTuple):
    """What the second run takes from the first: text embeddings by call, and the arguments of ``set_timesteps``."""

    texts: tuple[Any, ...]
    schedule: tuple[tuple[Any, ...], Mapping[str, Any]]


class Resumed(NamedTuple):
    """Where a refinement goes on that was interrupted.

    ``steps`` and ``evaluations`` are done; ``history`` is what the sampler has kept, by the names of its attributes,
    ``noise`` the states of the request's generators.
    """

    steps: int
    evaluations: int
    history: Mapping[str, Any]
    noise: Sequence[torch.Tensor]


class SketchRun(RequestRun):
    """The request at another size, its pixels returned as a tensor.

    Args:
        pipeline: as for `RequestRun`.
        request: what to make.
        size: at which.
        arguments: more arguments of the pipeline, such as ``image``.
    """

    def __init__(self, pipeline: Any, request: Request, size: Size, arguments: Mapping[str, Any]) -> None:
        super().__init__(pipeline, request, arguments)
        self._size = size
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
    def prepared(self) -> TiledInputs:
        """Known from the first denoiser call on."""
        assert self._schedule is not None
        return TiledInputs(tuple(self._texts), self._schedule)

    def _arguments(self) -> dict[str, Any]:
        height, width, _ = self._size
        return {**super()._arguments(), "height": height, "width": width, "output_type": "pt"}


class RefineRun(RequestRun):
    """The request on its canvas, from given latents and the ``first_step``-th step of its schedule on.

    It stops once more than a `RequestRun`: at the latents it starts from, before its first denoiser call.

    Args:
        pipeline: as for `RequestRun`.
        request: what to make.
        prepared: from the sketch.
        first_step: first step of the sampler's schedule.
        start: makes the latents to start from, in the layout of those it is given.
        arguments: as for `SketchRun`.
        adapter: adapter of the pipeline.
        resumed: where it goes on if it was interrupted; ``start`` then makes the latents of that moment.
    """

    def __init__(
        self,
        pipeline: Any,
        request: Request,
        prepared: TiledInputs,
        first_step: int,
        start: Callable[[torch.Tensor], torch.Tensor],
        arguments: Mapping[str, Any],
        adapter: Adapter,
        resumed: Resumed | None = None,
    ) -> None:
        super().__init__(pipeline, request, arguments)
        self.steps = request.steps - first_step
        if resumed is not None:
            self.steps_done, self._sampler_calls = resumed.steps, resumed.evaluations
        self._more |= adapter.admit(self._own, request)
        self._full: torch.Tensor | None = None
        self._evaluations = 0
        self._generators: list[torch.Generator] = []
        texts = iter(prepared.texts)
        prepare, set_timesteps = self._own.prepare_latents, self._sampler.set_timesteps

        @functools.wraps(self._own.encode_prompt)
        def encode_prompt(*args: Any, **kwargs: Any) -> Any:
            return next(texts)

        @functools.wraps(prepare)
        def prepare_latents(*args: Any, **kwargs: Any) -> Any:
            if self._full is None:  # some pipelines make the latents first
                begun()
            made = prepare(*args, **kwargs)
            latents = start(made[0] if isinstance(made, tuple) else made)
            if resumed is not None:
                for generator, state in zip(self._generators, resumed.noise, strict=True):
                    generator.set_state(state)
            self.latents = latents
            self._pause(StepDone(latents, (latents,)))
            return (latents, *made[1:]) if isinstance(made, tuple) else latents

        @functools.wraps(set_timesteps)
        def begun(*args: Any, **kwargs: Any) -> None:
            set_timesteps(*prepared.schedule[0], **prepared.schedule[1])
            self._full = self._sampler.timesteps
            first = first_step * self._sampler.order
            begin_at(self._sampler, first + self._sampler_calls)
            self._evaluations = len(self._full) - first
            for name, value in ({} if resumed is None else resumed.history).items():
                setattr(self._sampler, name, value)

        self._own.encode_prompt = encode_prompt
        self._own.prepare_latents = prepare_latents
        self._sampler.set_timesteps = begun

    @property
    def evaluations(self) -> int:
        return self._evaluations

    def input_scale(self) -> float:
        """What the sampler multiplies the latents by before the next denoiser call."""
        assert self._full is not None
        if not hasattr(self._sampler, "scale_model_input"):  # flow matching
            return 1.0
        at = len(self._full) - self._evaluations + self._sampler_calls
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
        """What the sampler keeps from step to step, by the names of its attributes, to go on from later.

        Its tables (timesteps, sigmas) are not among it: they are made anew.

        Raises:
            BadInput: the sampler leaves a part of that to its pipeline.
        """
        assert self.latents is not None
        if "old_pred_original_sample" in inspect.signature(type(self._sampler).step).parameters:
            raise BadInput(f"{type(self._sampler).__name__} cannot be interrupted: its pipeline keeps what it needs")
        return {name: value for name, value in vars(self._sampler).items() if self._is_kept(value)}

    def _is_kept(self, value: Any) -> bool:
        if isinstance(value, list):
            return all(self._is_kept(item) for item in value)
        if isinstance(value, torch.Tensor):
            assert self.latents is not None
            return value.ndim == 0 or value.shape == self.latents.shape
        return value is None or isinstance(value, int | float)

    @property
    def noise(self) -> list[torch.Tensor]:
        """The states of the request's generators."""
        return [generator.get_state() for generator in self._generators]

    def _arguments(self) -> dict[str, Any]:
        arguments = super()._arguments()
        generators = arguments.get("generator", [])
        self._generators = generators if isinstance(generators, list) else [generators]
        return arguments

    def _sampled(self, *args: Any, **kwargs: Any) -> Any:
        if self._full is not None:
            self._sampler.timesteps = self._full  # the pipeline has read what is left of them
        return super()._sampled(*args, **kwargs)


class WindowRun(RefineRun):
    """The refined request as a picture of a window's size, of which only the denoiser's calls are made, not run.

    They say how the stock pipeline calls its denoiser for a picture of this size, step by step with the canvas.

    Args:
        pipeline: as for `RequestRun`.
        request: what is made on the canvas.
        size: (height, width) of the window in latent pixels.
        prepared: as for the canvas, with ``first_step`` and ``arguments``.
        first_step: see ``prepared``.
        arguments: see ``prepared``.
        adapter: adapter of the pipeline.
    """

    def __init__(
        self,
        pipeline: Any,
        request: Request,
        size: tuple[int, int],
        prepared: TiledInputs,
        first_step: int,
        arguments: Mapping[str, Any],
        adapter: Adapter,
    ) -> None:
        height, width = (side * adapter.factor for side in size)
        small = replace(request, height=height, width=width)
        super().__init__(
            pipeline=pipeline,
            request=small,
            prepared=prepared,
            first_step=first_step,
            start=lambda latents: latents,
            arguments=arguments,
            adapter=adapter,
        )
        self._adapter, self._extent = adapter, size

    def call_at(self, evaluation: int, part: int) -> DenoiserCall:
        """The call of the ``evaluation``-th evaluation of the schedule, of its calls the ``part``-th."""
        while (call := self.pending) is None or (self.sampler_calls, call.part) != (evaluation, part):
            if self.sampler_calls > evaluation:
                raise RuntimeError(f"the pipeline makes no call {part} of a window in evaluation {evaluation}")
            answer = None
            if call is not None:
                answer = self._adapter.nothing(call, self._extent)
            if isinstance(self.resume(answer), Finished):
                raise RuntimeError(f"the pipeline makes no evaluation {evaluation} of a window")
        return call


def begin_at(sampler: Any, first: int) -> None:
    """Make a sampler whose timesteps are set start at a later one of them, as image-to-image pipelines do."""
    sampler.timesteps = sampler.timesteps[first:]
    if hasattr(sampler, "set_begin_index"):
        set_begin_index = type(sampler).set_begin_index
        set_begin_index(sampler, first)
        sampler.set_begin_index = lambda index=0: set_begin_index(sampler, first + index)
