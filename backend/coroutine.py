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
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from diffusers import ModelMixin
from greenlet import greenlet
from transformers import PreTrainedModel

from backend.handover.nests import checksum
from backend.handover.script import CALLED, HandoverRefused, Script
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
    """The pipeline waits for another of its networks; ``call.denoiser`` is that component's name.

    ``at_once``: no other request's call may come before its next one.
    """

    call: DenoiserCall
    at_once: bool = False


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
    reads_on = False
    script: Script | None = None
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


_READS_ON = "generate"
"""What makes a text token by token: models may keep in themselves where they are in it, so that no other's comes
between."""


def intercept_components(pipeline: Any, handed: bool = False) -> dict[str, Callable[..., Any]]:
    """Make the networks beside the denoisers hand calls over that come from a `RequestRun` in company.

    These are the encoders of texts and pictures, and what autoencoders decode with. Done once a pipeline, after all
    that exchanges a part of them. Returns their own functions by the name of the component, for the executor to run.

    Args:
        pipeline: which.
        handed: requests are handed to other replicas: all calls of its networks are known to the request's script.
    """
    functions: dict[str, Callable[..., Any]] = {}
    denoisers = denoiser_names(pipeline)
    for name, part in pipeline.components.items():
        if not isinstance(part, torch.nn.Module):
            continue
        decodes = hasattr(part, "decode")
        batched = "forward" if isinstance(part, PreTrainedModel) else "decode" if decodes else ""
        if batched and isinstance(part, PreTrainedModel | ModelMixin):
            functions[name] = getattr(part, batched)
        others = CALLED if handed and name not in denoisers else (_READS_ON,)
        for method in [batched, *others] if name in functions else others:
            function = getattr(part, method, None)
            if function is not None and not isinstance(function, _Asking):
                vars(part)[method] = _Asking(name, method, function, method == batched, decodes)
    return functions


class _Asking:
    """A function of a network: a request's call of it is answered by its script, handed over, or run at once.

    Args:
        name: the network's name in the pipeline.
        method: of the network.
        function: its own.
        batched: whether the executor runs it, when the request is in company.
        kept: whether its answers are handed on after the denoising.
    """

    def __init__(self, name: str, method: str, function: Callable[..., Any], batched: bool, kept: bool) -> None:
        functools.update_wrapper(self, function)  # pipelines look at what a decoder takes
        self._name, self._method, self._function = name, method, function
        self._batched, self._kept = batched, kept

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        current = greenlet.getcurrent()
        if not isinstance(current, _RequestGreenlet):
            return self._function(*args, **kwargs)

        def compute() -> Any:
            if self._batched and current.in_company:
                call = DenoiserCall(args, kwargs, denoiser=self._name)
                return current.hub.switch(ComponentCall(call, current.reads_on))
            outside, current.reads_on = current.reads_on, current.reads_on or self._method == _READS_ON
            try:
                return self._function(*args, **kwargs)
            finally:
                current.reads_on = outside

        if current.script is None:
            return compute()
        return current.script.answer(self._name, self._method, compute, (args, kwargs), self._kept)


class RequestRun:
    """One request on its way through one pipeline.

    Args:
        pipeline: shared by all requests of a replica, prepared by `intercept_denoisers`. Its modules and tokenizers are
            shared, all else of it is not, see `backend.isolation`.
        request: what to make.
        arguments: more arguments of the pipeline, such as the ``image`` of an image-to-video model.
        script: of a request that is handed from replica to replica; None: it stays on one.
    """

    def __init__(
        self,
        pipeline: Any,
        request: Request,
        arguments: Mapping[str, Any] | None = None,
        script: Script | None = None,
    ) -> None:
        self.request = request
        self.script = script
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
        self._greenlet.script = script

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
        if self.script is not None and self.pending is not None and not self.script.denoised:
            self.script.predicted(value)
        with nullcontext() if self.script is None else self.script.looking():
            stop: ComponentCall | DenoiserCall | StepDone | Finished = self._greenlet.switch(value)
        self.pending = None
        if isinstance(stop, ComponentCall):
            call = stop.call._replace(request_id=self.request.request_id, adapters=self._adapters)
            return stop._replace(call=call)
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
            self._greenlet.parent = greenlet.getcurrent()  # who gives it up goes on, not who last ran it
            self._greenlet.throw()
        self.pending = self.latents = None
        self.stay()
        for own in (self._own, self._sampler):  # both refer to this run: else only the collector would free them
            vars(own).clear()

    def embeddings(self, by: str) -> bytes:
        """What another replica begins the denoising with; the run is at its first denoiser call.

        Args:
            by: what has computed this: where the same computes, the same must come to its first denoiser call.
        """
        assert self.script is not None
        assert self.pending is not None
        self.script.choose()
        self.script.first = {by: checksum((self.pending.args, self.pending.kwargs))}
        return self.script.packed()

    def begin(self, by: str) -> None:
        """Come to the first denoiser call, by what another replica has encoded.

        Raises:
            HandoverRefused: it is not the same call there.
        """
        assert self.script is not None
        stop = self.resume()
        if not isinstance(stop, DenoiserCall):
            raise HandoverRefused("its pipeline does not come to its denoiser here")
        if self.script.first.get(by, own := checksum((stop.args, stop.kwargs))) != own:
            raise HandoverRefused("its pipeline asks its denoiser something else than where it was encoded")
        self.script.forget()

    def denoised(self) -> bytes:
        """What another replica decodes; the run is at the end of its sampler's last step."""
        assert self.script is not None
        self.script.forget()
        self.script.denoised, self.script.sampler_calls = True, self._sampler_calls
        return self.script.packed()

    def skip(self) -> None:
        """Come to the end of the sampler's last step, by what another replica has denoised.

        Raises:
            HandoverRefused: its pipeline takes another way.
        """
        assert self.script is not None
        stop = self.resume()
        while not (isinstance(stop, StepDone) and self._sampler_calls == self.script.sampler_calls):
            if isinstance(stop, Finished):
                raise HandoverRefused("its pipeline ends before the last step of its sampler here")
            stop = self.resume(self.script.prediction() if isinstance(stop, DenoiserCall) else None)
        self.steps_done = self.steps

    def stay(self) -> None:
        """It is not handed on any more."""
        self.script = self._greenlet.script = None

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
        script = self.script
        if script is not None and script.denoised:
            result = script.stepped(self._sampler_calls + 1)
        else:
            result = self._step(*args, **kwargs)
            if script is not None:
                script.result = result
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
