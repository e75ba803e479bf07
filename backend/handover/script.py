"""What a request's pipeline asked of its networks, and what they answered, so that it can run again elsewhere.

A pipeline that runs, a coroutine, cannot leave its process. But it is the same code everywhere: given the answers that
its text encoders gave, it comes to its first denoising step in another process just as it did in the first, with the
same noise; given the result of its sampler's last step, it comes to its decoder with the same latents. So a replica
needs only the networks of the stages that it serves, and what is handed over are the answers: embeddings before the
denoising, latents after it. That holds for any pipeline; none has a line here.

What could go wrong is seen: a pipeline that asks something else than it did before, or asks its denoiser something else
first, is refused; what is not handed over is NaN, which no picture may have.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from backend.handover.nests import Form, filled, mapped, packed, shapes, signature, unpacked, without_numbers

CALLED = (
    "forward",
    "encode",
    "decode",
    "generate",
    "get_text_features",
    "get_image_features",
    "get_image_tokens",
)
"""What pipelines call networks beside the denoiser by."""


class HandoverRefused(RuntimeError):  # noqa: N818 - named for what it is
    """A pipeline cannot be handed over: it does not ask again what it asked before."""


class Called(NamedTuple):
    """A call of a network, and its answer.

    Attributes:
        component: the network's name in the pipeline.
        method: of `CALLED`.
        asked: `backend.handover.nests.signature` of the arguments.
        answer: a nest; forms stand for tensors that are not handed over.
        random: the state of each generator among the arguments after the call; None: as before.
        kept: whether the answer is handed on after the denoising, too, as that of an autoencoder is.
    """

    component: str
    method: str
    asked: int
    answer: Any
    random: tuple[torch.Tensor | None, ...] = ()
    kept: bool = False


class _Reads(TorchFunctionMode):
    """Notes which tensors functions of torch are given."""

    def __init__(self) -> None:
        super().__init__()
        self.read: set[int] = set()
        self.paused = False

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not self.paused and getattr(function, "__name__", "") != "__get__":
            self.read.update([id(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)])
        return function(*args, **(kwargs or {}))


class Script:
    """The calls of one request's pipeline: those that are known are answered, the others computed and noted.

    Args:
        home: the device of the replica.
        calls: those that are known.
        first: checksum of the first denoiser call, by what computed it; empty: not known.
        outputs: forms of what the denoiser answered.
        order: which of them it answered, call by call.
        result: of the sampler's last step; None: the denoising is not done.
        sampler_calls: how many its sampler made.
    """

    def __init__(
        self,
        home: torch.device,
        calls: list[Called] | None = None,
        first: Mapping[str, int] | None = None,
        outputs: list[Any] | None = None,
        order: list[int] | None = None,
        result: Any = None,
        sampler_calls: int = 0,
    ) -> None:
        self.home = home
        self.calls = list(calls or [])
        self.first = dict(first or {})
        self.outputs = list(outputs or [])
        self.order = list(order or [])
        self.result = result
        self.sampler_calls = sampler_calls
        self.denoised = result is not None
        self._at = 0
        self._denoiser_calls = 0
        self._inside = False
        self._reads: _Reads | None = None if calls else _Reads()
        self._known_outputs: dict[str, int] = {}
        self._filled: dict[int, Any] = {}
        self._past: Any = None

    @classmethod
    def of(cls, data: bytes, home: torch.device) -> Script:
        """The script that another replica handed over.

        Raises:
            ValueError: the bytes are none.
        """
        fields = unpacked(data, home)
        fields["calls"] = [Called(**fields) for fields in fields["calls"]]
        return cls(home, **fields)

    def packed(self) -> bytes:
        """It, for another replica."""
        return packed(
            {
                "calls": [call._asdict() for call in self.calls],
                "first": self.first,
                "outputs": self.outputs,
                "order": self.order,
                "result": self.result if self.denoised else None,
                "sampler_calls": self.sampler_calls,
            },
            self.home,
        )

    @contextmanager
    def looking(self) -> Iterator[None]:
        """While the pipeline runs: see which answers it uses, as long as any is noted."""
        if self._reads is None:
            yield
        else:
            with self._reads:
                yield

    def answer(
        self,
        component: str,
        method: str,
        compute: Callable[[], Any],
        asked: tuple[tuple[Any, ...], dict[str, Any]],
        kept: bool,
    ) -> Any:
        """What a network answers, from what is known or computed; calls from within a network are its own affair.

        Raises:
            HandoverRefused: the pipeline asks something else than before.
        """
        if self._inside:
            return compute()
        generators = [leaf for leaf in tree_leaves(asked) if isinstance(leaf, torch.Generator)]
        if self._at < len(self.calls):
            call = self.calls[self._at]
            self._at += 1
            if (component, method, signature(asked)) != call[:3]:
                raise HandoverRefused(
                    f"its pipeline asks {component}.{method} now and asked {call.component}.{call.method} before, or "
                    "that with other arguments: it cannot go on in another replica"
                )
            for generator, state in zip(generators, call.random, strict=True):
                if state is not None:
                    generator.set_state(state)
            return filled(call.answer, self.home)
        before = [generator.get_state() for generator in generators]
        if self._reads is not None:
            self._reads.paused = True
        self._inside = True
        try:
            found = compute()
        finally:
            self._inside = False
            if self._reads is not None:
                self._reads.paused = False
        if not self.denoised:
            after = [generator.get_state() for generator in generators]
            random = tuple([None if torch.equal(a, b) else a for a, b in zip(after, before, strict=True)])
            self.calls.append(Called(component, method, signature(asked), found, random, kept))
            self._at += 1
        return found

    def choose(self) -> None:
        """At the first denoiser call: keep of the answers what the pipeline has used, or still holds."""
        if self._reads is None:
            return
        read, self._reads = self._reads.read, None
        held: dict[Form, weakref.ref[torch.Tensor]] = {}

        def loosened(leaf: Any) -> Any:
            if isinstance(leaf, Form) or id(leaf) in read or not leaf.is_floating_point():
                return leaf
            form = Form(leaf, self.home)
            held[form] = weakref.ref(leaf)
            return form

        def found_again(leaf: Any) -> Any:
            tensor = held[leaf]() if leaf in held else None
            return leaf if tensor is None else tensor

        self.calls = [call if call.kept else call._replace(answer=mapped(call.answer, loosened)) for call in self.calls]
        self.calls = [
            call if call.kept else call._replace(answer=mapped(call.answer, found_again)) for call in self.calls
        ]

    def forget(self) -> None:
        """From the first denoising step on, answers but for those of autoencoders are needed for their forms alone."""
        self._reads = None
        self.calls = [
            call if call.kept else call._replace(answer=without_numbers(call.answer, self.home)) for call in self.calls
        ]

    def predicted(self, output: Any) -> None:
        """Note what the denoiser answered."""
        key = repr(shapes(output))
        if key not in self._known_outputs:
            self._known_outputs[key] = len(self.outputs)
            self.outputs.append(without_numbers(output, self.home))
        self.order.append(self._known_outputs[key])

    def prediction(self) -> Any:
        """In the place of what the denoiser answers, where the denoising was done elsewhere.

        Raises:
            HandoverRefused: the pipeline asks its denoiser more often than before.
        """
        if self._denoiser_calls == len(self.order):
            raise HandoverRefused("its pipeline asks its denoiser more often than before: it cannot go on here")
        index = self.order[self._denoiser_calls]
        self._denoiser_calls += 1
        if index not in self._filled:
            self._filled[index] = filled(self.outputs[index], self.home)
        return self._filled[index]

    def stepped(self, number: int) -> Any:
        """In the place of what the sampler's step ``number`` gives, counted from 1: of the last one, what it gave."""
        if number == self.sampler_calls:
            return self.result
        if self._past is None:
            self._past = filled(without_numbers(self.result, self.home), self.home)
        return self._past
