"""Calls of any transformer that meet at whole blocks, of which nothing is known but that they repeat.

Like `backend.packed.lockstep`, but what the calls share is the model's blocks: their streams of tokens are put
together, the stock block runs once, and attention is kept within rows. A block is trusted once it was seen to give what
it gives alone (`backend.packed.trust`). One that does not pass runs layer by layer, so the result is the model's own in
any case. Blocks that are seen to feed each other run one after another (`backend.packed.learned`). What stands beside
the blocks (what embeds the timestep, the last norm) is packed like one, or its rows are stacked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from greenlet import getcurrent

from backend.coroutine import DenoiserCall
from backend.kernels.choice import REFERENCE, Kernels
from backend.kernels.graphs import Recorder
from backend.loading import first_line
from backend.packed.arguments import is_stream, streams_of
from backend.packed.cache import NoRoom
from backend.packed.chain import Chain, NotChained
from backend.packed.division import Division
from backend.packed.learned import Chains, Fed
from backend.packed.lockstep import BY_ITSELF, Forward, InStep, Lockstep, Stop, lora_scale, treats_tokens_alone
from backend.packed.pack import NotPackable
from backend.packed.tables import NO_TABLE, Tables
from backend.packed.trust import Launched, PackedCalls, Trust
from policies.contract import PolicyError


class Blocks(Lockstep):
    """Runs denoiser calls of any sizes together, block by block, and layer by layer where a block cannot be packed.

    Args:
        model: a transformer of diffusers: its blocks are the lists among its children.
        kernels: kernels of the packed blocks.
        recorder: may record the forwards of calls that are equal in every shape, and chains of blocks.

    Attributes:
        packed: how often blocks ran once for several calls, by their class.
        unpacked: how often they did not, by their class and the reason.
    """

    def __init__(self, model: torch.nn.Module, kernels: Kernels = REFERENCE, recorder: Recorder | None = None) -> None:
        recorder = recorder or Recorder()
        super().__init__(model, recorder)
        lists = {name: child for name, child in model.named_children() if isinstance(child, torch.nn.ModuleList)}
        self.blocks = {
            block: name for name, listed in lists.items() for block in listed if any(True for _ in block.children())
        }
        """The model's blocks, and the list that each is in."""
        self._names = {layer: name for name, layer in model.named_modules()}
        self.tables = Tables(model)
        self.trust = Trust(kernels.fused, self.tables)
        self._chains = Chains(self.trust, self.recorder)
        self._refused: set[Any] = set()
        self._calls = 0
        self._scale = 1.0
        self.packed: Counter[str] = Counter()
        self.unpacked: Counter[tuple[str, str]] = Counter()
        recorder.clear_beside(self._forget_tables)

    def _forget_tables(self) -> None:
        self.tables.clear()
        self.trust.packed_tables.clear()

    @property
    def notes(self) -> list[str]:
        """Which blocks run layer by layer, and why, a line each."""
        always = {kind.__name__ for kind in self._refused if isinstance(kind, type)}
        return [
            f"{name} {'is' if name in always else f'was {count} times'} packed layer by layer, not as a block: {reason}"
            for (name, reason), count in sorted(self.unpacked.items())
        ]

    def run(self, calls: Sequence[DenoiserCall]) -> list[Any]:
        return super().run(calls) if self.trust.division is None else self.run_in_step(calls)

    def run_divided(self, calls: Sequence[DenoiserCall], division: Division) -> list[Any]:
        """Like `run`, with the tokens divided over the ranks of ``division``, all of which call it with the same."""
        self.trust.division = division
        try:
            with division.forward(lambda: any(self._is_whole(block) for block in self.blocks)):
                return self.run(calls)
        finally:
            self.trust.division = None

    def run_in_step(self, calls: Sequence[DenoiserCall]) -> list[Any]:
        """See `Lockstep.run_in_step`. Calls alike stand together, which their attention shares then."""
        order = alike_together(calls)
        outputs = self.in_order([calls[index] for index in order])
        return [outputs[order.index(index)] for index in range(len(calls))]

    def in_order(self, calls: Sequence[DenoiserCall]) -> list[Any]:
        """`run_in_step` of calls in the order in which they are to stand."""
        self._calls, self._scale = len(calls), lora_scale(calls[0].kwargs)
        while True:
            try:
                return super().run_in_step(calls)
            except NotChained as error:
                error.chain.cut(error.links)
            finally:
                self.trust.forget_calls()
                self._chains.end()

    def layers(self) -> Iterator[torch.nn.Module]:
        for layer in self.tables.layers:
            self.hook_by(layer, self._keeping)
        for child in self.model.children():
            for part in child if isinstance(child, torch.nn.ModuleList) else (child,):
                if self._is_whole(part):
                    yield part
                else:
                    yield from self._inner(part)

    def _keeping(self, layer: torch.nn.Module, forward: Forward) -> Forward:
        meeting = self._handing_over(layer, forward)

        def kept(*args: Any, **kwargs: Any) -> Any:
            call = getcurrent()
            if not isinstance(call, InStep):
                return forward(*args, **kwargs)
            call.tables += 1
            given = self.tables.of(layer, forward, args, kwargs, call.asked, call.tables)
            return meeting(*args, **kwargs) if given is NO_TABLE else given

        return kept

    def _inner(self, part: torch.nn.Module) -> Iterator[torch.nn.Module]:
        return (layer for layer in part.modules() if treats_tokens_alone(layer))

    def _is_whole(self, layer: torch.nn.Module) -> bool:
        """Whether calls meet there and not at what is in it."""
        return self._kind(layer) not in self._refused and not treats_tokens_alone(layer)

    def _kind(self, layer: torch.nn.Module) -> Any:
        """What is refused if it is: all blocks of a class, or the one layer beside them."""
        return type(layer) if layer in self.blocks else layer

    def together(self, stops: Sequence[Stop]) -> list[Any]:
        layer = stops[0].layer
        if treats_tokens_alone(layer):
            given = super().together(stops)
            self._go_on(layer, stops, given)
            return given
        if self.packs(layer, stops) and self._is_whole(layer):
            try:
                return self.at_once(layer, stops)
            except (torch.OutOfMemoryError, NotChained, NoRoom, PolicyError):
                raise
            except Exception as error:  # whoever is to blame: by themselves, calls fail alone
                known = isinstance(error, NotPackable)
                if isinstance(error, NotPackable) and (error.always or layer not in self.blocks):
                    self._refused.add(self._kind(layer))
                if layer in self.blocks:
                    reason = str(error) if known else f"{type(error).__name__}: {first_line(error)}"
                    self.unpacked[type(layer).__name__, reason] += 1
        self._chains.end()
        self.hook(self._inner(layer))
        return [BY_ITSELF] * len(stops)

    def packs(self, layer: torch.nn.Module, stops: Sequence[Stop]) -> bool:
        """Whether the layer is to run for these calls at once."""
        return len(stops) > 1 or self.trust.division is not None

    def at_once(self, layer: torch.nn.Module, stops: Sequence[Stop]) -> list[Any]:
        """What the layer gives to each call. Packed tensors are told by their number of tokens: if two have the same,
        a call runs twice.

        Raises:
            NotPackable: it cannot be packed.
        """
        for more in range(3):
            try:
                return self._at_once(layer, [*stops, *[stops[0]] * more])[: len(stops)]
            except NotPackable as error:
                if not error.ambiguous or more == 2:
                    raise
        raise AssertionError

    def all_came(self, stops: Sequence[Stop]) -> bool:
        """Whether all calls under way have come."""
        return len({stop.call for stop in stops}) == self._calls

    def _at_once(self, layer: torch.nn.Module, stops: Sequence[Stop]) -> list[Any]:
        calls = [self.trust.named(layer, stop) for stop in stops]
        if not is_stream(next(iter(calls[0].values()), None)):
            if layer in self.blocks:
                streams_of(calls)  # says what it is not
            return self.trust.rows_at_once(layer, stops, calls)
        launch = self.trust.launch(layer, calls)
        chain = self._chains.of(launch)
        if chain is not None and self.all_came(stops):
            given = self._through(chain, stops, launch)
            if given is not None:
                return given
        launched = self.trust.run(layer, stops, calls, launch, self._names[layer] if layer in self.blocks else "")
        if layer in self.blocks:
            self.packed[type(layer).__name__] += 1
        self.ran(layer, stops, launched)
        return launched.given

    def _through(self, chain: Chain, stops: Sequence[Stop], launch: PackedCalls) -> list[Any] | None:
        forwards = [self.stock(link.layer) for link in chain.links]
        names = [self._names[link.layer] for link in chain.links] if self.trust.division is not None else []
        given = self._chains.run(chain, stops, launch, forwards, self._scale, names=names)
        if given is not None:
            self.packed.update(type(link.layer).__name__ for link in chain.links if link.layer in self.blocks)
        return given

    def ran(self, layer: torch.nn.Module, stops: Sequence[Stop], launched: Launched) -> None:
        """A layer has run for calls at once: it may be part of a chain."""
        self._learn(layer, stops, launched.calls, launched.given)

    def _go_on(self, layer: torch.nn.Module, stops: Sequence[Stop], given: Sequence[Any]) -> None:
        """A layer that treats tokens alone may be part of a chain as it is."""
        if not self._chains.learning:
            return
        try:
            launch = self.trust.launch(layer, [self.trust.named(layer, stop) for stop in stops])
        except NotPackable:
            self._chains.end()
        else:
            self.trust.take(launch.form)
            self._learn(layer, stops, launch, given)

    def _learn(self, layer: torch.nn.Module, stops: Sequence[Stop], launch: PackedCalls, given: Sequence[Any]) -> None:
        if not self.all_came(stops) or launch.form not in self.trust:
            self._chains.end()
            return
        fed = Fed(layer, self.trust.signature(layer), stops, launch, self.trust.habits(launch.form), given)
        self._chains.learn(fed, begins=layer in self.blocks)


def alike_together(calls: Sequence[DenoiserCall]) -> list[int]:
    """An order of calls in which those with tensors of equal shapes are neighbours."""
    return sorted(range(len(calls)), key=lambda index: _sizes(calls[index]))


def _sizes(call: DenoiserCall) -> list[tuple[int, ...]]:
    """The shapes of a call's tensors."""
    leaves = [*call.args, *call.kwargs.values()]
    return [tuple(leaf.shape) for leaf in leaves if isinstance(leaf, torch.Tensor)]
