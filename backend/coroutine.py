"""A stock diffusers pipeline as a coroutine: any pipeline, unmodified, one denoising step at a time.

A request runs its own pipeline's ``__call__`` in a greenlet. Where the pipeline calls its denoiser, the greenlet hands
the call to the executor and sleeps; the executor gathers such calls from many requests, runs them as one batch and
wakes each with its rows. Where its sampler finishes a step the greenlet sleeps again, so that requests can join,
leave and pause between steps. What a request computes is therefore, by construction, what its pipeline computes
alone: prompts, guidance, timesteps, sampler and decoding are the pipeline's own code.

The alternative, one hand-written loop a model family, is a copy of the pipeline that drifts from it.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import torch
from diffusers import ModelMixin
from greenlet import greenlet
from transformers import PreTrainedModel

from backend.isolation import Changes, check_stateless, intercepted, own_pipeline
from backend.loading import denoiser_names
from backend.prompts import CutPrompts
from traces.adapters import AdapterSet
from traces.request import Request


class DenoiserCall(NamedTuple):
    """The pipeline waits for its denoiser.

    ``request_id`` and ``steps`` are the request's, ``step`` counts its sampler's steps from 0, ``part`` the calls of
    one step: some pipelines call once with and once without the text. ``denoiser`` is the component that is called,
    ``adapters`` are those that it is to run with.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    request_id: str = ""
    step: int = 0
    steps: int = 1
    part: int = 0
    denoiser: str = ""
    adapters: AdapterSet = ()


class ComponentCall(NamedTuple):
    """The pipeline waits for another of its networks; ``call.denoiser`` is that component's name."""

    call: DenoiserCall


class StepDone(NamedTuple):
    """The sampler has finished a step; ``latents`` is its result, ``result`` all that it returned."""

    latents: torch.Tensor
    result: tuple[Any, ...] = ()


class Finished(NamedTuple):
    """The pipeline has returned.

    ``output`` is [images, height, width, 3] or [clips, frames, height, width, 3]; ``note`` is one line on what a safety
    checker did to it, empty if nothing.
    """

    output: Any
    note: str = ""


class _RequestGreenlet(greenlet):
    hub: greenlet
    in_company = False
    begun: frozenset[str] = frozenset()  # denoisers that it has called


def intercept_denoisers(pipeline: Any) -> dict[str, Callable[..., Any]]:
    """Make the pipeline's denoisers hand calls that come from a `RequestRun` to its executor. Done once a pipeline.

    Returns the denoisers' own forwards by name, the first denoiser first, for the executor to run. Hooks of the modules
    run in the request's own call.

    Raises:
        BadInput: a denoiser would remember one request while it runs another.
    """
    return {name: _intercepted(pipeline, name) for name in denoiser_names(pipeline)}


def _intercepted(pipeline: Any, name: str) -> Callable[..., Any]:
    denoiser = getattr(pipeline, name)
    check_stateless(pipeline, denoiser)
    forward: Callable[..., Any] = denoiser.forward

    def hand_over(*args: Any, **kwargs: Any) -> Any:
        current = greenlet.getcurrent()
        if isinstance(current, _RequestGreenlet):
            if name not in current.begun:
                changes.check()
                current.begun |= {name}
            return current.hub.switch(DenoiserCall(args, kwargs, denoiser=name))
        return forward(*args, **kwargs)

    denoiser.forward = hand_over
    changes = Changes(denoiser)
    return forward


def intercept_components(pipeline: Any) -> dict[str, Callable[..., Any]]:
    """Make the networks beside the denoisers hand calls over that come from a `RequestRun` in company.

    These are the encoders of texts and pictures, and what autoencoders decode with. Done once a pipeline, after all
    that exchanges a part of them. Returns their own functions by the name of the component, for the executor to run.
    """
    functions: dict[str, Callable[..., Any]] = {}
    for name, part in pipeline.components.items():
        if isinstance(part, PreTrainedModel):
            functions[name] = part.forward
            part.forward = _in_company(name, part.forward)
        elif isinstance(part, ModelMixin) and hasattr(part, "decode"):
            functions[name] = part.decode
            vars(part)["decode"] = _in_company(name, part.decode)
    return functions


def _in_company(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)  # pipelines look at what a decoder takes
    def hand_over(*args: Any, **kwargs: Any) -> Any:
        current = greenlet.getcurrent()
        if isinstance(current, _RequestGreenlet) and current.in_company:
            return current.hub.switch(ComponentCall(DenoiserCall(args, kwargs, denoiser=name)))
        return function(*args, **kwargs)

    return hand_over


class RequestRun:
    """One request on its way through one pipeline.

    Args:
        pipeline: shared by all requests of a replica, prepared by `intercept_denoisers`. Its modules and tokenizers are
            shared, all else of it is not, see `backend.isolation`.
        request: what to make.
        arguments: more arguments of the pipeline, such as the ``image`` of an image-to-video model.
    """

    def __init__(self, pipeline: Any, request: Request, arguments: Mapping[str, Any] | None = None) -> None:
        self.request = request
        self._more = dict(arguments or {})
        self.pending: DenoiserCall | None = None
        self.latents: torch.Tensor | None = None
        self.steps = request.steps
        self.steps_done = 0
        self._adapters = request.adapter_set
        self._sampler_calls = 0
        self._part = 0
        self._cut = CutPrompts(pipeline)
        self._own = own_pipeline(pipeline, self._cut.watch)
        vars(self._own).pop("_num_timesteps", None)  # of whoever called the pipeline before
        self._sampler = self._own.scheduler
        self._step = self._sampler.step

        @functools.wraps(self._step)  # pipelines pass a generator only to samplers whose signature has one
        def sampled(*args: Any, **kwargs: Any) -> Any:
            return self._sampled(*args, **kwargs)

        intercepted(self._sampler, sampled)
        self._greenlet = _RequestGreenlet(self._body)

    @property
    def note(self) -> str:
        """One line on what of its prompt has not been read; empty if all has."""
        return self._cut.note

    def resume(self, value: Any = None) -> DenoiserCall | StepDone | Finished:
        """Run the pipeline to its next stop. Whatever it raises comes out here."""
        stop = self._switched(value, in_company=False)
        assert not isinstance(stop, ComponentCall)
        return stop

    def resume_in_company(self, value: Any = None) -> ComponentCall | DenoiserCall | StepDone | Finished:
        """Like `resume`, but stop at networks other than the denoiser too, of which others may have calls."""
        return self._switched(value, in_company=True)

    def _switched(self, value: Any, in_company: bool) -> ComponentCall | DenoiserCall | StepDone | Finished:
        self._greenlet.hub, self._greenlet.in_company = greenlet.getcurrent(), in_company
        self._greenlet.parent = self._greenlet.hub  # who is given what it returns or raises at its end
        stop: ComponentCall | DenoiserCall | StepDone | Finished = self._greenlet.switch(value)
        self.pending = None
        if isinstance(stop, ComponentCall):
            return ComponentCall(stop.call._replace(request_id=self.request.request_id, adapters=self._adapters))
        if isinstance(stop, DenoiserCall):
            step = self._sampler_calls * self.steps // max(1, self.evaluations)
            self.pending = stop = stop._replace(
                request_id=self.request.request_id,
                step=step,
                steps=self.steps,
                part=self._part,
                adapters=self._adapters,
            )
            self._part += 1
        return stop

    def close(self) -> None:
        """Give the request up and free what it holds."""
        if self._greenlet and not self._greenlet.dead:
            self._greenlet.throw()
        self.pending = self.latents = None
        for own in (self._own, self._sampler):  # both refer to this run: else only the collector would free them
            vars(own).clear()

    def sampler_calls_due(self, steps_done: int) -> int:
        """Sampler calls that make ``steps_done`` of the request's steps (second-order: two, one in the last)."""
        return -(-self.evaluations * steps_done // self.steps)

    @property
    def evaluations(self) -> int:
        """Sampler calls of all its steps; image to image makes the last of its sampler's alone."""
        told = vars(self._own).get("_num_timesteps")
        begin = getattr(self._sampler, "begin_index", None) or 0
        return int(told or len(self._sampler.timesteps) - begin)

    @property
    def sampler_calls(self) -> int:
        """Sampler calls made so far."""
        return self._sampler_calls

    def _sampled(self, *args: Any, **kwargs: Any) -> Any:
        result = self._step(*args, **kwargs)
        self._sampler_calls += 1
        self._part = 0
        self.latents = result[0] if isinstance(result, tuple) else result.prev_sample
        self._pause(StepDone(self.latents, tuple(result) if isinstance(result, tuple) else (self.latents,)))
        return result

    def _pause(self, stop: StepDone) -> None:
        """Hand control back to whoever resumed the request, until it does again."""
        self._greenlet.hub.switch(stop)

    def _arguments(self) -> dict[str, Any]:
        """What the pipeline is called with."""
        return {**pipeline_arguments(self._own, self.request), **self._more}

    def _body(self, _: Any) -> Finished:
        output = self._own(**self._arguments())
        made = [found for name in ("images", "frames", "image") if (found := getattr(output, name, None)) is not None]
        return Finished(made[0], _blacked_out(output))


def _blacked_out(output: Any) -> str:
    """One line on the pictures that a safety checker has replaced."""
    fields = (getattr(output, name, None) for name in ("nsfw_content_detected", "nsfw_detected"))
    found = [bool(picture) for pictures in fields for picture in pictures or ()]
    if not any(found):
        return ""
    which = "the picture was" if len(found) == 1 else f"{sum(found)} of {len(found)} pictures were"
    return f"{which} blacked out by the safety checker"


def unused_arguments(pipeline: Any, requests: Iterable[Request]) -> list[str]:
    """What of the requests the pipeline has no argument for, in sentences."""
    known, asked = inspect.signature(type(pipeline).__call__).parameters, list(requests)
    counts = {
        field: sum(getattr(request, field) != "" for request in asked)
        for field, argument in (("negative_prompt", "negative_prompt"), ("mask", "mask_image"))
        if argument not in known
    }
    name = type(pipeline).__name__
    return [f"{field} of {count} requests has no effect: {name} takes none" for field, count in counts.items() if count]


_NO_NEGATIVE = {"EasyAnimatePipeline": ""}
"""Pipelines that fail where they are given no negative prompt, and what is none to them."""


def pipeline_arguments(pipeline: Any, request: Request) -> dict[str, Any]:
    """The arguments of ``pipeline.__call__`` that make what ``request`` asks for."""
    known = inspect.signature(type(pipeline).__call__).parameters
    generators = [torch.Generator("cpu").manual_seed((request.seed + i) % 2**64) for i in range(request.images)]
    arguments: dict[str, Any] = {
        "prompt": request.prompt,
        "height": request.height,
        "width": request.width,
        "num_inference_steps": request.schedule_steps or request.steps,
        "guidance_scale": request.guidance_scale,
        "generator": generators if request.images > 1 else generators[0],
        "output_type": "np",
        "num_images_per_prompt": request.images,
        "num_videos_per_prompt": request.images,
        "num_frames": request.frames,
        "video_length": request.frames,
        "negative_prompt": request.negative_prompt or _NO_NEGATIVE.get(type(pipeline).__name__),
        "true_cfg_scale": request.true_cfg_scale,
        "strength": request.strength,
        "max_area": request.height * request.width,  # Kontext makes its pictures of this area, whatever was asked
    }
    return {name: value for name, value in arguments.items() if name in known and value is not None}
