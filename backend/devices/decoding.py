"""Decoding on several devices of a replica: each computes a band of rows, see `backend.devices.bands`.

A kind of calls is divided once a small sample of one, decoded by the same ranks, comes to what one device makes of it.
Else they run on one device, and the notes say why.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import torch
from torch.utils._pytree import tree_leaves, tree_map

from backend.alike import alike
from backend.devices.bands import Band, Undividable, bands_of
from backend.packed.division import Exchanging
from backend.ranks.heartbeat import RankLost

_FRAMES, _WIDTH = 4, 8
"""Latent frames and columns of a sample, at most."""
_SAMPLED = torch.float32
"""What is computed in half precision is tried in single: what is not alike then is wrong, not rounded."""


class ComponentTask(NamedTuple):
    """A call of a network beside the denoisers, for some devices.

    Attributes:
        name: of the component.
        args, kwargs: of the call.
        ranks: that share it, the one that answers first.
        dtype: of the network's weights meanwhile.
    """

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    ranks: tuple[int, ...]
    dtype: torch.dtype


class DecodedAlone(Exception):  # noqa: N818 - named for what it is
    """The devices cannot share a call; the message says why."""


class Asks(Protocol):
    """Has devices carry out a task: gives what its first one answers.

    Raises:
        DecodedAlone: they cannot share it.
        RankLost: one is lost.
    """

    def __call__(self, task: ComponentTask) -> Any: ...


class Decoding:
    """Which calls of decoders are divided over the devices of a launch.

    Args:
        ask: has devices carry out what they are told.

    Attributes:
        alone: calls that were to be divided and were not, by why.
        divided: calls that were.
    """

    def __init__(self, ask: Asks) -> None:
        self.alone: Counter[str] = Counter()
        self.divided = 0
        self._ask = ask
        self._refused: dict[Hashable, str] = {}

    @property
    def notes(self) -> list[str]:
        """What a reader of its figures must know, a line each."""
        return [f"{count} pictures or clips were decoded on one device: {why}" for why, count in self.alone.items()]

    def run(self, module: torch.nn.Module, task: ComponentTask) -> Any:
        """What the network gives.

        Args:
            module: the network as this process has it, on whatever device.
            task: with all devices that the launch has.
        """
        one = task._replace(ranks=task.ranks[:1])
        sample = sample_of(task.args, task.kwargs) if hasattr(module, "decode") else None
        if sample is None or len(task.ranks) == 1:
            return self._ask(one)
        rows = bands_of(sample.shape[-2], len(task.ranks))
        divided = without_generators(task._replace(ranks=task.ranks[: sum([own > 0 for own in rows])]))
        why = self._why_not(module, divided, sample)
        if not why and len(divided.ranks) > 1:
            try:
                output = self._ask(divided)
                self.divided += 1
                return output
            except (RankLost, DecodedAlone) as error:
                why = str(error)
        if why:
            self.alone[why] += 1
        return self._ask(one)

    def function(
        self,
        name: str,
        module: torch.nn.Module,
        function: Callable[..., Any],
        ranks: Callable[[], tuple[int, ...]],
    ) -> Callable[..., Any]:
        """What stands for a function of a network.

        Args:
            name: of the component.
            module: it, as this process has it.
            function: its own.
            ranks: the devices of the launch that calls it.
        """

        @functools.wraps(function)  # what it takes is looked at
        def asking(*args: Any, **kwargs: Any) -> Any:
            return self.run(module, ComponentTask(name, args, kwargs, ranks(), first_dtype(module)))

        return asking

    def _why_not(self, module: torch.nn.Module, task: ComponentTask, sample: torch.Tensor) -> str:
        """Why calls of this kind are not divided; empty: they are."""
        name = type(module).__name__
        if getattr(module, "use_tiling", False):
            return f"{name} decodes by tiles of its own"
        frames = sample.ndim == 5 and sample.shape[2] > 1
        key = (task.name, sample.ndim, frames, sample.dtype, task.dtype, tuple(sorted(task.kwargs)))
        why = self._refused.get(key)
        if why is None and len(task.ranks) > 1:
            why = self._refused[key] = self._tried(name, task, sample)
        return why or ""

    def _tried(self, name: str, task: ComponentTask, sample: torch.Tensor) -> str:
        """Why a sample of a call cannot be divided; empty: it can."""
        shape = (1, sample.shape[1], *sample.shape[2:-2], 2 * len(task.ranks) + 1, _WIDTH)
        if sample.ndim == 5:
            shape = (*shape[:2], _FRAMES, *shape[3:])
        half = task.dtype in (torch.float16, torch.bfloat16)

        def small(leaf: Any) -> Any:
            if not isinstance(leaf, torch.Tensor):
                return leaf
            if leaf.shape == sample.shape:
                leaf = leaf[tuple([slice(0, least) for least in shape])]
            elif leaf.ndim and len(leaf) == len(sample):
                leaf = leaf[:1]
            return leaf.to(_SAMPLED) if half and leaf.is_floating_point() else leaf

        args, kwargs = tree_map(small, (task.args, task.kwargs))
        trial = task._replace(args=args, kwargs=kwargs, dtype=_SAMPLED if half else task.dtype)
        try:
            if alike(self._ask(trial._replace(ranks=task.ranks[:1])), self._ask(trial)):
                return ""
        except (RankLost, DecodedAlone) as error:
            return f"{name} cannot be divided ({error})"
        return f"{name} cannot be divided (a part of it sees more of the picture than its neighbours)"


def sample_of(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> torch.Tensor | None:
    """What is decoded: pictures [rows, channels, height, width] or clips, with a frame axis before the height."""
    found = [leaf for leaf in tree_leaves((args, dict(kwargs))) if isinstance(leaf, torch.Tensor)]
    return found[0] if found and found[0].ndim in (4, 5) else None


def without_generators(task: ComponentTask) -> ComponentTask:
    """A task that draws nothing: a decoder that would is not divided."""

    def kept(leaf: Any) -> Any:
        return None if isinstance(leaf, torch.Generator) else leaf

    args, kwargs = tree_map(kept, (task.args, task.kwargs))
    return task._replace(args=args, kwargs=kwargs)


def in_bands(function: Callable[..., Any], task: ComponentTask, group: Exchanging) -> Any:
    """This rank's part of a task that several share; the output on the first of them.

    Args:
        function: the network's own.
        task: what all of them are told.
        group: these ranks.

    Raises:
        Undividable: on all ranks.
        RankLost: one is lost.
    """
    sample = sample_of(task.args, task.kwargs)
    if sample is None:
        raise Undividable("there is nothing to cut")
    rows = bands_of(sample.shape[-2], group.size)
    with Band(group, rows) as band:

        def own(leaf: Any) -> Any:
            return band.own(leaf) if isinstance(leaf, torch.Tensor) and leaf.shape == sample.shape else leaf

        args, kwargs = tree_map(own, (task.args, task.kwargs))
        return band.whole(function(*args, **kwargs))


def first_dtype(module: torch.nn.Module) -> torch.dtype:
    """Of a network's weights; some pipelines change it for a call."""
    return next((each.dtype for each in module.parameters() if each.is_floating_point()), torch.float32)


@contextmanager
def in_dtype(module: torch.nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Meanwhile, a network's weights are of this dtype."""
    usual = first_dtype(module)
    if usual == dtype:
        yield
        return
    module.to(dtype)
    try:
        yield
    finally:
        module.to(usual)
