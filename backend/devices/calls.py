"""Denoiser calls on their way from the first rank to others.

A tensor that a rank has been sent stays there as long as the pipeline here keeps it, and as it was: texts and positions
travel once a request, latents and timesteps once a step. That it is the same object again matters there as it does here
(`backend.packed.tables`).
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils._pytree import tree_flatten, tree_unflatten, treespec_dumps, treespec_loads
from torch.utils.weak import WeakIdKeyDictionary

from backend.coroutine import DenoiserCall


class NotSendable(Exception):  # noqa: N818 - named for what it is
    """A call has an argument that is neither a tensor nor a plain value."""


class SentCalls:
    """What the first rank has sent to the others."""

    def __init__(self) -> None:
        self._numbers = WeakIdKeyDictionary()  # of each tensor: its number, and its version when it was sent
        self._living: dict[int, weakref.ref[torch.Tensor]] = {}
        self._there: dict[int, set[int]] = {}  # the ranks that have it
        self._gone: list[int] = []  # numbers of tensors that they do not know of yet
        self._next = 0

    def order(self, calls: Sequence[DenoiserCall], ranks: Sequence[int]) -> tuple[dict[str, Any], dict[int, Any]]:
        """What is said of calls, fit for JSON, and the tensors to be sent to each rank, in order.

        Args:
            calls: that the ranks are to run.
            ranks: which, without the first.

        Raises:
            NotSendable: they cannot be told.
        """
        for number in [number for number, living in self._living.items() if living() is None]:
            self._let_go(number)
        said, numbers = [], {}
        for call in calls:
            leaves, spec = tree_flatten((call.args, call.kwargs))
            told: list[Any] = []
            for leaf in leaves:
                if isinstance(leaf, torch.Tensor):
                    number = self._number(leaf)
                    numbers[number] = leaf
                    told.append([number])
                elif leaf is None or isinstance(leaf, bool | int | float | str):
                    told.append(leaf)
                else:
                    raise NotSendable(
                        f"the denoiser is called with a {type(leaf).__name__}, which other devices cannot be sent; "
                        "expected cluster.devices = 1"
                    )
            try:
                form = treespec_dumps(spec)
            except NotImplementedError as error:
                raise NotSendable(str(error)) from error
            said.append({"form": form, "leaves": told, "step": call.step, "steps": call.steps, "part": call.part,
                         "denoiser": call.denoiser, "request": call.request_id})  # fmt: skip
        new: dict[int, list[int]] = {rank: [n for n in numbers if rank not in self._there[n]] for rank in ranks}
        for rank, mine in new.items():
            for number in mine:
                self._there[number].add(rank)
        forms = {n: _form(numbers[n]) for mine in new.values() for n in mine}
        gone, self._gone = self._gone, []
        order = {
            "calls": said,
            "new": {str(rank): [[n, *forms[n]] for n in mine] for rank, mine in new.items()},
            "forget": gone,
        }
        return order, {rank: [numbers[n].contiguous() for n in mine] for rank, mine in new.items()}

    def forget(self) -> None:
        """The others are gone, with all that they had."""
        self._numbers.clear()
        self._living.clear()
        self._there.clear()
        self._gone.clear()

    def _let_go(self, number: int) -> None:
        self._gone.append(number)
        del self._living[number], self._there[number]

    def _number(self, tensor: torch.Tensor) -> int:
        known: tuple[int, int] | None = self._numbers.get(tensor)
        if known is not None and known[1] == tensor._version:
            return known[0]
        if known is not None:  # somebody has written to it
            self._let_go(known[0])
        self._next += 1
        self._numbers[tensor] = (self._next, tensor._version)
        self._living[self._next] = weakref.ref(tensor)
        self._there[self._next] = set()
        return self._next


class ReceivedCalls:
    """What a rank has been sent.

    Args:
        device: where it computes.
        everything: all tensors belong there; else those that are on such a device where they come from.
    """

    def __init__(self, device: torch.device, everything: bool = False) -> None:
        self._device = device
        self._everything = everything
        self._tensors: dict[int, torch.Tensor] = {}

    def forget(self, numbers: Sequence[int]) -> None:
        """These tensors are not needed any more."""
        for number in numbers:
            self._tensors.pop(number, None)

    def new(self, order: Mapping[str, Any], rank: int) -> list[torch.Tensor]:
        """The tensors that this rank is about to be sent, empty."""
        tensors = []
        for number, dtype, shape, on_device in order["new"][str(rank)]:
            where = self._device if on_device or self._everything else torch.device("cpu")
            self._tensors[number] = torch.empty(shape, dtype=getattr(torch, dtype), device=where)
            tensors.append(self._tensors[number])
        return tensors

    def calls(self, order: Mapping[str, Any]) -> list[DenoiserCall]:
        """The calls of an order."""
        return [self._call(said) for said in order["calls"]]

    def _call(self, said: Mapping[str, Any]) -> DenoiserCall:
        leaves = [self._tensors[leaf[0]] if isinstance(leaf, list) else leaf for leaf in said["leaves"]]
        args, kwargs = tree_unflatten(leaves, treespec_loads(said["form"]))
        return DenoiserCall(
            args=args,
            kwargs=kwargs,
            request_id=said["request"],
            step=said["step"],
            steps=said["steps"],
            part=said["part"],
            denoiser=said["denoiser"],
        )


def _form(tensor: torch.Tensor) -> tuple[str, list[int], bool]:
    return str(tensor.dtype).removeprefix("torch."), list(tensor.shape), tensor.device.type != "cpu"
