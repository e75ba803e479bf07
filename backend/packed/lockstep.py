"""Calls of any transformer that meet layer by layer; nothing is known of the model.

Every call runs the model's own forward in a greenlet, with its own sizes, texts, timesteps and positions. Where a layer
treats each token alone (a linear, a norm of the last axis, a feed-forward), the call stops and waits for the others;
the layer then runs once for all tokens that wait at it. All else, attention above all, each call does by itself. So
the result is the model's own, to the rounding of the arithmetic, and the largest part of the work is shared.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import torch
from diffusers.models.attention import FeedForward
from diffusers.models.normalization import FP32LayerNorm, RMSNorm
from greenlet import getcurrent, greenlet

from backend.coroutine import DenoiserCall
from backend.kernels.graphs import Recorder
from backend.merge import Stacked, merge_key
from backend.packed.hooks import lora_scaled

Forward = Callable[..., Any]
BY_ITSELF = object()
"""What a call is given that is to run a layer, or what is in it, by itself."""


class Stop(NamedTuple):
    """A call waits at a layer, which it would have run with these arguments."""

    layer: torch.nn.Module
    forward: Forward
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    call: InStep


def treats_tokens_alone(layer: torch.nn.Module) -> bool:
    """Whether each token of the layer's output depends on the same token of its input and on no other.

    Tokens are all axes but the last. Only classes that are known to do so count, not what is derived from them.
    """
    if isinstance(layer, torch.nn.LayerNorm):
        return type(layer) in (torch.nn.LayerNorm, FP32LayerNorm) and len(layer.normalized_shape) == 1
    return type(layer) in (torch.nn.Linear, torch.nn.RMSNorm, RMSNorm, FeedForward)


class Lockstep:
    """Runs denoiser calls of any sizes together, layer by layer.

    Args:
        model: any model whose forward keeps nothing between calls. Between calls of `run` it is left as it is.
        recorder: may record the forwards of calls that are equal in every shape.

    Attributes:
        recorder: what it was given.
        shared: layers that ran once for several calls, so far; ``apart``: for one.
    """

    def __init__(self, model: torch.nn.Module, recorder: Recorder | None = None) -> None:
        self.model = model
        self.shared = self.apart = 0
        self._forward = model.forward
        self.recorder = recorder or Recorder()
        self._stacked = Stacked(self._forward, self.recorder)
        self._hooked: dict[torch.nn.Module, tuple[bool, Forward]] = {}

    def key(self, call: DenoiserCall) -> Hashable:
        """Calls of equal keys share a forward: all but those with another scale of LoRA weights, which they share."""
        return lora_scale(call.kwargs)

    @torch.no_grad()
    def run(self, calls: Sequence[DenoiserCall]) -> list[Any]:
        """The outputs of calls of one `key`, in order, each as the stock forward would give it to the call alone.

        Calls that happen to be equal in every shape are stacked, which costs less.
        """
        if len({merge_key(call) for call in calls}) == 1:
            return self._stacked.run(calls)
        return self.run_in_step(calls)

    def run_in_step(self, calls: Sequence[DenoiserCall]) -> list[Any]:
        """Like `run`, in step in any case."""
        with lora_scaled(self.model, lora_scale(calls[0].kwargs)), self._meeting():
            return _Walk(self, [InStep(self._forward, call) for call in calls]).outputs()

    @property
    def notes(self) -> list[str]:
        """What a reader of its figures must know, a line each."""
        return []

    def layers(self) -> Iterator[torch.nn.Module]:
        """Where calls may meet."""
        return (layer for layer in self.model.modules() if layer is not self.model and treats_tokens_alone(layer))

    def meets(self, layer: torch.nn.Module) -> bool:
        """Whether calls still meet there."""
        return True

    @contextmanager
    def _meeting(self) -> Iterator[None]:
        """The layers hand over what calls bring to them, instead of running it."""
        try:
            self.hook(self.layers())
            yield
        finally:
            for layer, (own, forward) in self._hooked.items():
                if own:
                    vars(layer)["forward"] = forward
                else:
                    del vars(layer)["forward"]
            self._hooked.clear()

    def hook(self, layers: Iterable[torch.nn.Module]) -> None:
        """Calls under way meet there, too."""
        for layer in layers:
            self.hook_by(layer, self._handing_over)

    def hook_by(self, layer: torch.nn.Module, way: Callable[[torch.nn.Module, Forward], Forward]) -> None:
        """While calls are under way, the layer does what ``way`` makes of its forward."""
        if layer not in self._hooked:
            forward = layer.forward
            self._hooked[layer] = "forward" in vars(layer), forward
            vars(layer)["forward"] = way(layer, forward)

    def stock(self, layer: torch.nn.Module) -> Forward:
        """The layer's own forward, while calls are under way."""
        return self._hooked[layer][1] if layer in self._hooked else layer.forward

    def _handing_over(self, layer: torch.nn.Module, forward: Forward) -> Forward:
        def hand_over(*args: Any, **kwargs: Any) -> Any:
            call = getcurrent()
            if isinstance(call, InStep):
                if call.ahead is not None:
                    given = call.ahead.passing(layer, args, kwargs)
                    if given is not BY_ITSELF:
                        call.passed += 1
                        return given
                if self.meets(layer):
                    given = call.hub.switch(Stop(layer, forward, args, kwargs, call))
                    if given is not BY_ITSELF:
                        return given
            return forward(*args, **kwargs)

        return hand_over

    def together(self, stops: Sequence[Stop]) -> list[Any]:
        """What one layer gives to each of the calls that wait at it, or `BY_ITSELF`."""
        tokens = [stop.args[0] if len(stop.args) == 1 and not stop.kwargs else None for stop in stops]
        forms = {(x.dtype, x.device, x.shape[-1]) if isinstance(x, torch.Tensor) and x.ndim else None for x in tokens}
        if len(stops) == 1 or None in forms or len(forms) > 1:
            self.apart += len(stops)
            return [BY_ITSELF] * len(stops)
        self.shared += 1
        flat = [x.reshape(-1, x.shape[-1]) for x in tokens if x is not None]
        done = stops[0].forward(torch.cat(flat)).split([len(part) for part in flat])
        return [y.view(*x.shape[:-1], y.shape[-1]) for x, y in zip(tokens, done, strict=True) if x is not None]


class Ahead(Protocol):
    """What a call is given at layers that have run already."""

    def passing(self, layer: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What the layer gave, or `BY_ITSELF` where it is none of them."""
        ...


class InStep(greenlet):
    """A call under way. ``passed`` counts the layers behind it; ``ahead``: those before it that have run already;
    ``tables``: those of positions that it has asked for."""

    ahead: Ahead | None = None

    def __init__(self, forward: Forward, call: DenoiserCall) -> None:
        kwargs = without_lora_scale(call.kwargs)
        super().__init__(lambda: forward(*call.args, **kwargs))
        self.gr_context = contextvars.copy_context()
        self.asked = call
        self.tables = 0
        self.passed = -1
        self.hub: greenlet = getcurrent()

    def resume(self, *value: Any) -> Any:
        """Run on to the next layer, or to the end, with what the last layer gave."""
        self.passed += 1
        return self.switch(*value)


class _Walk:
    """Several calls on their way through one model. The one that is furthest behind says which layer is next."""

    def __init__(self, lockstep: Lockstep, calls: Sequence[InStep]) -> None:
        self._lockstep = lockstep
        self._calls = calls
        self._stops: dict[int, Stop] = {}
        self._outputs: list[Any] = [None] * len(calls)

    def outputs(self) -> list[Any]:
        """Walk to the end."""
        try:
            for index in range(len(self._calls)):
                self._go_on(index)
            while self._stops:
                last = min(self._stops, key=lambda index: self._calls[index].passed)
                layer = self._stops[last].layer
                waiting = [index for index, stop in self._stops.items() if stop.layer is layer]
                given = self._lockstep.together([self._stops[index] for index in waiting])
                for index, value in zip(waiting, given, strict=True):
                    self._go_on(index, value)
            return self._outputs
        finally:
            for call in self._calls:
                if call and not call.dead:
                    call.throw()

    def _go_on(self, index: int, *value: Any) -> None:
        stop = self._calls[index].resume(*value)
        if self._calls[index].dead:
            self._outputs[index] = stop
            self._stops.pop(index, None)
        else:
            self._stops[index] = stop


def lora_scale(kwargs: dict[str, Any]) -> float:
    """The scale of LoRA weights that a call of a diffusers model asks for."""
    return next((float(value["scale"]) for _, value in _scaled(kwargs)), 1.0)


def without_lora_scale(kwargs: dict[str, Any]) -> dict[str, Any]:
    """The call without it: forwards that set it on the shared weights one after another would multiply it."""
    plain = {name: {key: item for key, item in value.items() if key != "scale"} for name, value in _scaled(kwargs)}
    return {**kwargs, **plain}


def _scaled(kwargs: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, value in kwargs.items():
        if name.endswith("attention_kwargs") and isinstance(value, dict) and "scale" in value:
            yield name, value
