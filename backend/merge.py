"""Several denoiser calls as one: rows of equal-shaped arguments stacked, the outputs split again.

A call is a nest of tensors and plain values. A tensor whose first axis counts the call's rows is stacked, and a list of
one tensor a row grows; a scalar tensor (a timestep) becomes one entry a row; anything else (position ids, rotary
tables, flags) is shared and must be equal in all calls. So must positions that are given row by row: models take the
first row's for all. Calls that differ in a shape, a type or a shared value cannot be merged and say so by their key.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, Protocol

import torch
from torch.utils._pytree import tree_leaves

from backend.coroutine import DenoiserCall
from backend.identity import Itself
from backend.kernels.graphs import Recorder

_POSITIONS = re.compile(r"(img|image|txt|text|latent|position)_ids|.*(rotary|coords|freqs|img_size).*")
"""Names of arguments that say where tokens lie."""


@dataclass(frozen=True)
class Rows:
    """How many rows a call has, and whether its model takes and gives them as lists of tensors (Z-Image)."""

    count: int
    listed: bool = False

    def lists(self, value: Any) -> bool:
        """Whether it is a list of one tensor a row."""
        return (
            self.listed
            and isinstance(value, list)
            and len(value) == self.count
            and all(isinstance(row, torch.Tensor) for row in value)
        )


def rows_of(call: DenoiserCall) -> int:
    """Rows of a call: the first axis of its sample (2 with classifier-free guidance in one batch)."""
    return rows_in(call).count


def rows_in(call: DenoiserCall) -> Rows:
    """How many rows a call has, and in which form."""
    given = call.args or [call.kwargs[name] for name in ("hidden_states", "sample", "x") if name in call.kwargs]
    given = given or [value for value in call.kwargs.values() if isinstance(value, torch.Tensor)]
    sample: Any = given[0]
    if isinstance(sample, list | tuple):
        return Rows(len(sample), listed=True)
    return Rows(int(sample.shape[0]))


def merge_key(call: DenoiserCall) -> Hashable:
    """Equal keys: the calls can be stacked."""
    return _key((call.args, call.kwargs), rows_in(call))


def where_tokens_lie(arguments: Mapping[str, Any]) -> Hashable:
    """What a call's arguments say of positions, by the contents of those of that name; empty if nothing."""
    found = [(name, _where(name, arguments[name])) for name in sorted(arguments)]
    return tuple(said for said in found if said[1])


def merge(calls: Sequence[DenoiserCall]) -> DenoiserCall:
    """One call with the rows of all, in order."""
    if len(calls) == 1:
        return calls[0]
    args, kwargs = _merge([(call.args, call.kwargs) for call in calls], [rows_in(call) for call in calls])
    return DenoiserCall(args, kwargs)


def split(output: Any, calls: Sequence[DenoiserCall]) -> list[Any]:
    """The output of a merged call, divided among the calls it was made of."""
    if len(calls) == 1:
        return [output]
    rows = [rows_in(call) for call in calls]
    starts = list(accumulate((row.count for row in rows), initial=0))
    merged = Rows(starts[-1], rows[0].listed)
    return [_take(output, slice(start, end), merged) for start, end in pairwise(starts)]


def some_rows(call: DenoiserCall, part: slice) -> DenoiserCall:
    """The call for some of its rows, as `merge` would put calls together."""
    rows = rows_in(call)
    args, kwargs = _part((call.args, call.kwargs), part, rows)
    return call._replace(args=args, kwargs=kwargs)


class Stacked:
    """The executor ``whole``: calls whose arguments have equal shapes are stacked.

    Args:
        forward: the denoiser's own.
        recorder: may record it.
    """

    def __init__(self, forward: Callable[..., Any], recorder: Recorder | None = None) -> None:
        self.forward = forward
        self.recorder = recorder or Recorder()

    def key(self, call: DenoiserCall) -> Hashable:
        """Calls of equal keys share a forward."""
        return merge_key(call)

    def run(self, calls: Sequence[DenoiserCall]) -> list[Any]:
        """The outputs of calls of one `key`, in order."""
        merged = merge(calls)
        return split(self.recorder.run("stacked", self._called, merged.args, merged.kwargs), calls)

    def _called(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return self.forward(*args, **kwargs)


class Mixer(Protocol):
    """Runs several denoiser calls in one forward: `Stacked`, or one that takes any mix of sizes."""

    def key(self, call: DenoiserCall) -> Hashable:
        """Calls of equal keys share a forward."""
        ...

    def run(self, calls: Sequence[DenoiserCall]) -> list[Any]:
        """The outputs of calls of one `key`, in order, as the model's own forward would give them to each alone."""
        ...


class Elsewhere:
    """The `Mixer` of a replica that does not denoise."""

    def key(self, call: DenoiserCall) -> Hashable:
        return None

    def run(self, calls: Sequence[DenoiserCall]) -> list[Any]:
        """Never to be asked.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError(f"a pipeline calls its {calls[0].denoiser} in a replica that does not denoise")


class Several:
    """A `Mixer` for each of a pipeline's denoisers: calls of different ones never share a forward.

    Args:
        mixers: by the name of the denoiser.
    """

    def __init__(self, mixers: Mapping[str, Mixer]) -> None:
        self.mixers = mixers

    @property
    def notes(self) -> list[str]:
        """What a reader of its figures must know, a line each."""
        return [f"{name}: {note}" for name, mixer in self.mixers.items() for note in getattr(mixer, "notes", [])]

    def key(self, call: DenoiserCall) -> Hashable:
        return call.denoiser, self.mixers[call.denoiser].key(call)

    def run(self, calls: Sequence[DenoiserCall]) -> list[Any]:
        return self.mixers[calls[0].denoiser].run(calls)


def stacked(forwards: Mapping[str, Callable[..., Any]]) -> Mixer:
    """What stacks the calls of a pipeline's denoisers, whose own forwards these are by their names."""
    mixers = {name: Stacked(forward) for name, forward in forwards.items()}
    return next(iter(mixers.values())) if len(mixers) == 1 else Several(mixers)


def run_merged(
    mixer: Mixer, calls: Sequence[DenoiserCall], free: Callable[[], None] = lambda: None
) -> tuple[list[Any], dict[int, BaseException]]:
    """Run calls in as few forwards as their keys allow; ``free`` is called when there is no memory left.

    Returns the outputs in order, and by index what went wrong. A forward that fails for a batch is tried again call by
    call, so that one bad request, or a batch too large for the memory, does not take the others with it.
    """
    outputs: list[Any] = [None] * len(calls)
    errors: dict[int, BaseException] = {}
    groups: dict[Hashable, list[int]] = {}
    for index, call in enumerate(calls):
        groups.setdefault(mixer.key(call) if len(calls) > 1 else None, []).append(index)
    waiting = list(groups.values())
    while waiting:
        indices = waiting.pop()
        try:
            parts = mixer.run([calls[i] for i in indices])
        except Exception as error:
            if isinstance(error, torch.OutOfMemoryError):
                free()
                torch.cuda.empty_cache()
            if len(indices) == 1:
                errors[indices[0]] = error
            else:
                waiting.extend([i] for i in indices)
            continue
        for index, part in zip(indices, parts, strict=True):
            outputs[index] = part
    return outputs, errors


def _key(value: Any, rows: Rows) -> Hashable:
    if isinstance(value, torch.Tensor):
        if value.ndim == 0:
            return ("scalar", value.dtype)
        if value.shape[0] == rows.count:
            return ("rows", value.dtype, tuple(value.shape[1:]))
        return ("shared", _fingerprint(value))
    if isinstance(value, dict):
        return tuple((name, _key(value[name], rows), _where(name, value[name])) for name in sorted(value))
    if rows.lists(value):
        return ("list of rows", frozenset((row.dtype, _shape(row)) for row in value))
    if isinstance(value, list | tuple):
        return (type(value).__name__, tuple(_key(item, rows) for item in value))
    try:
        hash(value)
    except TypeError:
        return Itself(value)
    return value


def _where(name: str, value: Any) -> Hashable:
    """What of an argument must be equal in all calls because it says where tokens lie."""
    if not _POSITIONS.fullmatch(name):
        return None
    return tuple(_fingerprint(leaf) for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor))


def _shape(row: torch.Tensor) -> tuple[int, ...]:
    """What must be equal in all rows of a list: all of a picture, the channels of a text, which the model pads."""
    return tuple(row.shape[1:] if row.ndim == 2 else row.shape)


def _fingerprint(value: torch.Tensor) -> bytes:
    """Content of a shared tensor. Kept on the tensor: pipelines pass the same object at every step."""
    known: bytes | None = getattr(value, "_tilecast_fingerprint", None)
    if known is None:
        plain = value.detach().to("cpu").contiguous()
        plain = plain.to(torch.float32) if plain.dtype == torch.bfloat16 else plain
        content = f"{plain.dtype} {tuple(plain.shape)} ".encode() + plain.numpy().tobytes()
        known = hashlib.sha256(content).digest()
        value._tilecast_fingerprint = known  # type: ignore[attr-defined]
    return known


def _merge(values: Sequence[Any], rows: Sequence[Rows]) -> Any:
    first = values[0]
    if isinstance(first, torch.Tensor):
        if first.ndim == 0:
            return torch.cat([v.expand(row.count) for v, row in zip(values, rows, strict=True)])
        return torch.cat(list(values)) if first.shape[0] == rows[0].count else first
    if isinstance(first, dict):
        return {name: _merge([v[name] for v in values], rows) for name in first}
    if rows[0].lists(first):
        return [row for value in values for row in value]
    if isinstance(first, list | tuple):
        return type(first)(_merge([v[i] for v in values], rows) for i in range(len(first)))
    return first


def _part(value: Any, part: slice, rows: Rows) -> Any:
    if isinstance(value, torch.Tensor):
        return value[part] if value.ndim and value.shape[0] == rows.count else value
    if isinstance(value, dict):
        return {name: _part(item, part, rows) for name, item in value.items()}
    if rows.lists(value):
        return value[part]
    if isinstance(value, list | tuple):
        return type(value)(_part(item, part, rows) for item in value)
    return value


def _take(output: Any, part: slice, rows: Rows) -> Any:
    if isinstance(output, torch.Tensor) or rows.lists(output):
        return output[part]
    if isinstance(output, dict):  # diffusers' output classes are dictionaries
        return type(output)(**{name: _take(value, part, rows) for name, value in output.items()})
    if isinstance(output, list | tuple):
        return type(output)(_take(item, part, rows) for item in output)
    return output
