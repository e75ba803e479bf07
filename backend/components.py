"""Networks beside the denoiser, each run once for all requests that wait for it: text encoders and decoders.

The requests of a launch go through their pipelines' own code side by side. Where several wait for the same network,
with arguments of equal shapes, their rows are stacked (`backend.merge`). The first time that a network meets calls of
a new form, two of them run apart too, and the form is trusted only if that comes to the same but for rounding.

A decode takes far more memory than what it decodes, and on a CPU a large batch leaves the caches: 2 to 8 pictures of
64 px of tiny-image take 0.73 to 0.86 of the time that they take one by one, 4 to 8 of 256 px take 1.2 to 1.7 of it. So
no more is decoded at once than `AT_ONCE` says.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from diffusers import AsymmetricAutoencoderKL, AutoencoderKL, AutoencoderTiny
from torch.utils._pytree import tree_leaves

from backend.alike import alike
from backend.coroutine import ComponentCall, DenoiserCall, Finished, RequestRun, StepDone
from backend.identity import Itself
from backend.merge import merge, merge_key, rows_of, run_merged, split
from backend.recent import Recent
from traces.adapters import AdapterSet

AT_ONCE = {"cpu": 3 * 2**17, "cuda": 3 * 2**20}
"""Numbers that a decoder gives at once, by the kind of device: 8 pictures of 128 px, or 4 of 512 px, which need
no more memory than one of 1024 px. A request alone may be larger."""
_FORMS = 256
"""Forms of calls that are kept in mind, those that were met last."""
_LEAVE_GENERATORS = (AutoencoderKL, AsymmetricAutoencoderKL, AutoencoderTiny)
"""Autoencoders that draw nothing, though they take a generator."""

Stop = DenoiserCall | StepDone | Finished


class Component(NamedTuple):
    """A network.

    Attributes:
        module: it, or what its function belongs to.
        function: what calls of it run.
        limit: numbers that it may give at once; None: any.
        keeps_keys: whether it keeps the keys of a text unless it is told not to.
        formats: of its weights, when nothing runs.
    """

    module: torch.nn.Module
    function: Callable[..., Any]
    limit: int | None
    keeps_keys: bool
    formats: set[tuple[torch.dtype, torch.device]]


class _Form(NamedTuple):
    """What is known of calls of one form: whether they run at once, and how many numbers they give a row."""

    trusted: bool
    numbers: int


class Components:
    """The networks of a pipeline beside its denoisers: a `backend.merge.Mixer` of their calls.

    Args:
        pipeline: theirs.
        functions: of `backend.coroutine.intercept_components`.
        at_once: numbers that a decoder may give at once; None: what `AT_ONCE` says of the device.
    """

    def __init__(self, pipeline: Any, functions: Mapping[str, Callable[..., Any]], at_once: int | None = None) -> None:
        self._device = torch.device(pipeline.device).type
        limit = at_once or AT_ONCE.get(self._device, AT_ONCE["cpu"])
        self._components: dict[str, Component] = {}
        for name, function in functions.items():
            module = getattr(pipeline, name)
            self._components[name] = Component(
                module,
                function,
                limit if hasattr(module, "decode") else None,
                "use_cache" in inspect.signature(function).parameters,
                _formats(module),
            )
        self._forms: Recent[Hashable, _Form] = Recent(_FORMS)

    def key(self, call: DenoiserCall) -> Hashable:
        """See `Mixer.key`. A call without a tensor has a forward to itself."""
        if not any(isinstance(leaf, torch.Tensor) for leaf in tree_leaves((call.args, call.kwargs))):
            return Itself(call)
        return call.denoiser, call.adapters, merge_key(self._plain(call))

    def run(self, calls: Sequence[DenoiserCall]) -> list[Any]:
        """See `Mixer.run`."""
        if len(calls) == 1:
            return [self._alone(calls[0])]
        key, calls = self.key(calls[0]), [self._plain(call) for call in calls]
        form = self._forms.get(key)
        if form is None:
            outputs = [self._alone(call) for call in calls]
            form = self._form(calls[:2], outputs[:2])
            if form is not None:
                self._forms.keep(key, form)
            return outputs
        if not form.trusted:
            return [self._alone(call) for call in calls]
        return [output for some in self._parts(calls, form) for output in self._together(some)]

    def is_as_ever(self, name: str) -> bool:
        """Whether a network is as it was when nothing ran: some pipelines change its format for a request's call."""
        component = self._components[name]
        return not torch.is_autocast_enabled(self._device) and _formats(component.module) == component.formats

    def _form(self, calls: Sequence[DenoiserCall], alone: Sequence[Any]) -> _Form | None:
        """What two calls are found to be, by what they give alone; None: they are too large to run at once."""
        numbers = max(sum(leaf.numel() for leaf in tree_leaves(one) if isinstance(leaf, torch.Tensor)) for one in alone)
        form = _Form(True, -(-numbers // rows_of(calls[0])))
        if len(list(self._parts(calls, form))) > 1:
            return None
        try:
            together = self._together(calls)
        except torch.OutOfMemoryError:
            return form._replace(trusted=False)
        return form._replace(trusted=alike(list(alone), together))

    def _parts(self, calls: Sequence[DenoiserCall], form: _Form) -> Iterator[Sequence[DenoiserCall]]:
        """Calls that may run at once, of equal rows or not."""
        limit = self._components[calls[0].denoiser].limit
        part: list[DenoiserCall] = []
        numbers = 0
        for call in calls:
            own = rows_of(call) * form.numbers
            if part and limit is not None and numbers + own > limit:
                yield part
                part, numbers = [], 0
            part.append(call)
            numbers += own
        yield part

    def _together(self, calls: Sequence[DenoiserCall]) -> list[Any]:
        if len(calls) == 1:
            return [self._alone(calls[0])]
        merged = merge(calls)
        return split(self._components[calls[0].denoiser].function(*merged.args, **merged.kwargs), calls)

    def _alone(self, call: DenoiserCall) -> Any:
        return self._components[call.denoiser].function(*call.args, **call.kwargs)

    def _plain(self, call: DenoiserCall) -> DenoiserCall:
        """A call without what makes no difference to its result, but would keep it from others."""
        component, kwargs = self._components[call.denoiser], call.kwargs
        if "generator" in kwargs and type(component.module) in _LEAVE_GENERATORS:
            kwargs = {name: value for name, value in kwargs.items() if name != "generator"}
        if component.keeps_keys and not kwargs.keys() & {"use_cache", "past_key_values"}:
            kwargs = {**kwargs, "use_cache": False}  # the text is read once
        return call._replace(kwargs=kwargs)


class Company:
    """Takes requests to the next stop of their pipelines side by side.

    Args:
        components: runs what they ask of networks beside the denoiser.
        denoise: runs a denoiser call, and requests go on to their end; None: they stop where they are to denoise.
        put_on: puts the adapters of a request on.
        free: frees memory when there is none left.
    """

    def __init__(
        self,
        components: Components,
        denoise: Callable[[DenoiserCall], Any] | None,
        put_on: Callable[[AdapterSet], None],
        free: Callable[[], None],
    ) -> None:
        self._components = components
        self._denoise = denoise
        self._put_on = put_on
        self._free = free
        self._waiting: dict[RequestRun, DenoiserCall] = {}
        self._stops: dict[RequestRun, Stop] = {}
        self._errors: dict[RequestRun, BaseException] = {}

    def walk(self, runs: Sequence[RequestRun]) -> tuple[dict[RequestRun, Stop], dict[RequestRun, BaseException]]:
        """Where each of them stops, at its denoiser or its end, and what went wrong with the others."""
        for run in runs:
            self._go_on(run, None)
        while self._waiting:
            waiting, self._waiting = self._waiting, {}
            of_sets: dict[AdapterSet, list[RequestRun]] = {}
            for run, call in waiting.items():
                of_sets.setdefault(call.adapters, []).append(run)
            for adapters, some in of_sets.items():
                self._put_on(adapters)
                outputs, errors = run_merged(self._components, [waiting[run] for run in some], self._free)
                for index, run in enumerate(some):
                    if index in errors:
                        self._errors[run] = errors[index]
                    else:
                        self._go_on(run, outputs[index])
        return self._stops, self._errors

    def _go_on(self, run: RequestRun, value: Any) -> None:
        try:
            self._put_on(run.request.adapter_set)
            stop = run.resume_in_company(value)
            while not isinstance(stop, Finished):
                if isinstance(stop, ComponentCall) and stop.at_once:
                    (output,) = self._components.run([stop.call])
                    stop = run.resume_in_company(output)
                elif isinstance(stop, ComponentCall):
                    if self._components.is_as_ever(stop.call.denoiser):
                        self._waiting[run] = stop.call
                        return
                    (output,) = self._components.run([stop.call])
                    stop = run.resume(output)
                elif self._denoise is None:
                    break
                else:
                    value = self._denoise(stop) if isinstance(stop, DenoiserCall) else None
                    stop = run.resume_in_company(value)
            self._stops[run] = stop
        except Exception as error:
            self._errors[run] = error


def _formats(module: torch.nn.Module) -> set[tuple[torch.dtype, torch.device]]:
    return {(parameter.dtype, parameter.device) for parameter in module.parameters()}
