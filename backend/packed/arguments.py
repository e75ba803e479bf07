"""The arguments of several calls of one block as the arguments of one call on a pack.

Nothing is known of the block but its signature. Arguments are told apart by their shapes: a *stream* has three axes and
is called like one; what has a stream's length on an axis goes with its tokens (positions, masks, modulations of single
tokens); what has the same shape in all calls, with an axis of one before, is an entry a row; the rest must be equal, or
the block must not look at it.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch.utils._pytree import tree_flatten, tree_unflatten

from backend.identity import Itself
from backend.packed.entries import RowEntries
from backend.packed.pack import Arrangement, NotPackable, Pack
from backend.packed.tables import LIMIT_BYTES, Tables
from backend.recent import Recent

Arguments = Mapping[str, Any]
TEXT = "encoder_hidden_states"
"""The stream that blocks of diffusers join with their first one."""
_PACKED = 64
"""Packed tables that are kept."""
_FEW = 16
"""Equal lengths of so few tokens could as well be a number of entries a row (six of a modulation)."""


class Differs:
    """A plain argument that is not the same in all calls: no harm unless the block looks at it."""

    def __init__(self, name: str) -> None:
        self._name = name

    def _used(self, *_: Any, **__: Any) -> Any:
        raise NotPackable(f"argument {self._name} differs")

    __bool__ = __index__ = __int__ = __float__ = __len__ = __iter__ = __getitem__ = __call__ = __getattr__ = _used
    __lt__ = __gt__ = __le__ = __ge__ = __add__ = __radd__ = __mul__ = __rmul__ = __sub__ = __rsub__ = __neg__ = _used
    __eq__ = __ne__ = __floordiv__ = __truediv__ = _used


class Streams(NamedTuple):
    """The streams of several calls: rows of each call, and tokens of each row by the stream's name."""

    main: str
    rows: tuple[int, ...]
    lengths: dict[str, tuple[int, ...]]


def streams_of(calls: Sequence[Arguments], any_lengths: bool = False) -> Streams:
    """The streams of calls of one block, the first argument first.

    Raises:
        NotPackable: the calls give different arguments, the first is no stream, or, if not ``any_lengths``, there are
            as many tokens as channels.
    """
    if any(call.keys() != calls[0].keys() for call in calls):
        raise NotPackable("the calls give different arguments")
    main = next(iter(calls[0]), "")
    names = [name for name in calls[0] if name == main or ("hidden_states" in name and "mask" not in name)]
    names = [name for name in names if all(is_stream(call[name]) for call in calls)]
    if main not in names:
        raise NotPackable(f"its first argument {main!r} is no [rows, tokens, channels]", always=True)
    rows = tuple(len(call[main]) for call in calls)
    lengths = {
        name: tuple(call[name].shape[1] for call, n in zip(calls, rows, strict=True) for _ in range(n))
        for name in names
    }
    channels = {call[name].shape[2] for call in calls for name in names}
    if not any_lengths and channels & {sum(of_rows) for of_rows in lengths.values()}:
        raise NotPackable("there are as many tokens as channels", ambiguous=True)
    return Streams(main, rows, lengths)


def is_stream(value: Any) -> bool:
    """Whether a value looks like [rows, tokens, channels]."""
    return isinstance(value, torch.Tensor) and value.ndim == 3 and value.is_floating_point()


class PackedTables:
    """Tables of positions as arguments of several calls at once, kept as long as the calls are the same.

    Args:
        tables: those of single calls.
    """

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._kept: Recent[Hashable, PackedLeaf] = Recent(_PACKED, LIMIT_BYTES)

    def key(self, streams: Streams, name: str, image_first: bool, values: Sequence[Any]) -> Hashable:
        """Of an argument ``name`` of calls with these streams; None: its values do not stay."""
        if not all(isinstance(value, torch.Tensor) and value in self._tables for value in values):
            return None
        lengths = tuple(streams.lengths.items())
        return name, image_first, streams.main, streams.rows, lengths, tuple([Itself(value) for value in values])

    def get(self, key: Hashable) -> PackedLeaf | None:
        """The argument as it was packed, if it is kept and nobody has written to it."""
        kept = self._kept.get(key)
        return kept if kept is not None and kept.is_unwritten() else None

    def keep(self, key: Hashable, packed: PackedLeaf) -> None:
        """Keep a packed argument."""
        self._kept.keep(key, packed, packed.tensor.nbytes)

    def clear(self) -> None:
        """Forget all."""
        self._kept.clear()


class PackedLeaf(NamedTuple):
    """An argument of all calls.

    Attributes:
        value: it.
        along: on which axis it has the tokens of which streams; None: it is not along tokens.
        over_joint: whether it lies over image and text.
        version: of its tensor when it was made.
    """

    value: torch.Tensor | RowEntries
    along: tuple[int, tuple[str, ...]] | None
    over_joint: bool
    version: int

    @property
    def tensor(self) -> torch.Tensor:
        """What it holds."""
        return self.value.values if isinstance(self.value, RowEntries) else self.value

    def is_unwritten(self) -> bool:
        """Whether it is as it was made."""
        return self.tensor._version == self.version


class Packer:
    """Packs the arguments of one launch after another, and keeps what calls give to every block alike.

    Args:
        streams: of the calls.
        device: where their tensors are.
        arrangements: of the streams, those that are made already; more are added.
        fused: see `backend.packed.pack.Pack`.
        tables: those that stay from one forward to the next.

    Attributes:
        along: by id of what is kept here, the axis on which a packed argument has the tokens of which streams.
    """

    def __init__(
        self,
        streams: Streams,
        device: torch.device,
        arrangements: dict[tuple[str, ...], Arrangement],
        fused: bool,
        tables: PackedTables,
    ) -> None:
        self.streams = streams
        self.device = device
        self._arrangements = arrangements
        self._fused = fused
        self._tables = tables
        self._kept: dict[Any, tuple[PackedLeaf, list[Any]]] = {}
        self.along: dict[int, tuple[int, tuple[str, ...]]] = {}

    def pack(self, any_lengths: bool = False) -> Pack:
        """The rows of one more launch. See `Pack` for ``any_lengths``."""
        return Pack(self.streams.lengths, self.device, self._arrangements, self._fused, any_lengths)

    def packed(self, calls: Sequence[Arguments], pack: Pack, image_first: bool) -> dict[str, Any]:
        """One call's arguments for all.

        Args:
            calls: of the streams of this.
            pack: theirs; told whether an argument lies over image and text together.
            image_first: how the block joins these.

        Raises:
            NotPackable: an argument is none of what this module knows.
        """
        return {name: self.argument(name, [call[name] for call in calls], pack, image_first) for name in calls[0]}

    def argument(self, name: str, values: Sequence[Any], pack: Pack, image_first: bool) -> Any:
        """One argument for all calls, of those that `packed` gives."""
        if name in self.streams.lengths:
            return _end_to_end(self._by_row(values))
        flat, specs = zip(*[tree_flatten(value) for value in values], strict=True)
        if any(spec != specs[0] for spec in specs):
            raise NotPackable(f"argument {name} has different forms")
        leaves = [self._leaf(name, list(leaf), pack, image_first) for leaf in zip(*flat, strict=True)]
        return tree_unflatten(leaves, specs[0])

    def _leaf(self, name: str, values: list[Any], pack: Pack, image_first: bool) -> Any:
        if not any(isinstance(value, torch.Tensor) for value in values):
            first = values[0]
            same = all(type(value) is type(first) and value == first for value in values)
            return first if same else Differs(name)
        key = (name, image_first, *map(id, values))
        if key not in self._kept:
            self._kept[key] = self._packed(name, values, pack, image_first), values  # so that their ids stay theirs
        leaf = self._kept[key][0]
        if leaf.along is not None:
            self.along[id(leaf.value)] = leaf.along
        pack.over_joint |= leaf.over_joint
        if isinstance(leaf.value, RowEntries):
            return RowEntries(leaf.value.values, pack, leaf.value.fold)
        return leaf.value

    def _packed(self, name: str, values: list[Any], pack: Pack, image_first: bool) -> PackedLeaf:
        key = self._tables.key(self.streams, name, image_first, values)
        kept = None if key is None else self._tables.get(key)
        if kept is not None:
            return kept
        given = values if all(isinstance(value, torch.Tensor) for value in values) else self._masks(name, values)
        packed, along, over_joint = self._tensor(name, given, pack, image_first)
        tensor = packed.values if isinstance(packed, RowEntries) else packed
        leaf = PackedLeaf(packed, along, over_joint, tensor._version)
        if key is not None and isinstance(packed, torch.Tensor):
            self._tables.keep(key, leaf)
        return leaf

    def _masks(self, name: str, values: Sequence[Any]) -> list[torch.Tensor]:
        """A mask that only some calls have: the others keep all of their tokens."""
        given = next(value for value in values if value is not None)
        lengths = self.streams.lengths
        if "mask" not in name or given.ndim != 2:
            raise NotPackable(f"only some calls give {name}")
        named = max((stream for stream in lengths if stream in name), key=len, default=None)
        stream = named or (TEXT if "encoder" in name and TEXT in lengths else None)
        if stream is None:
            raise NotPackable(f"{name} of which stream?")
        rows = self.streams.rows
        firsts = [sum(rows[:index]) for index in range(len(rows))]
        return [
            torch.ones(n, lengths[stream][first], dtype=given.dtype, device=given.device) if value is None else value
            for value, n, first in zip(values, rows, firsts, strict=True)
        ]

    def _tensor(
        self, name: str, values: Sequence[torch.Tensor], pack: Pack, image_first: bool
    ) -> tuple[torch.Tensor | RowEntries, tuple[int, tuple[str, ...]] | None, bool]:
        """The packed argument, its axis of tokens and their streams, and whether it lies over image and text."""
        by_row = self._by_row(values)
        found = self._along_tokens(name, by_row, image_first)
        if found is not None:
            axis, names = found
            if len(names) == 1:
                return torch.cat(by_row, axis), found, False
            cut = self.streams.lengths[names[0]]
            begins = [v.narrow(axis, 0, n) for v, n in zip(by_row, cut, strict=True)]
            ends = [v.narrow(axis, n, v.shape[axis] - n) for v, n in zip(by_row, cut, strict=True)]
            return torch.cat(begins + ends, axis), found, True
        first = values[0]
        if first.ndim > 1 and all(v.shape == by_row[0].shape for v in by_row) and by_row[0].shape[0] == 1:
            return RowEntries(torch.cat(by_row), pack), None, False
        if all(v is first for v in values):
            return first, None, False
        fold, rows = (len(first) // self.streams.rows[0] if first.ndim > 1 else 0), self.streams.rows
        if fold > 1 and all(v.shape == (fold * n, *first.shape[1:]) for v, n in zip(values, rows, strict=True)):
            folded = [v.unflatten(0, (fold, n)) for v, n in zip(values, rows, strict=True)]
            return RowEntries(torch.cat(folded, 1).flatten(0, 1), pack, fold), None, False
        raise NotPackable(f"argument {name} of the shapes {[tuple(v.shape) for v in values]}")

    def _by_row(self, values: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """One tensor a row: [1, ...], or all that the call gives where it is none of rows."""
        lengths, parts, at = self.streams.lengths, [], 0
        for value, rows in zip(values, self.streams.rows, strict=True):
            table = value.ndim == 2 and rows > 1 and any(of_rows[at] == len(value) for of_rows in lengths.values())
            of_rows_ = value.ndim > 1 and len(value) == rows and not table
            parts += [value[row : row + 1] if of_rows_ else value for row in range(rows)]
            at += rows
        return parts

    def _along_tokens(
        self, name: str, by_row: Sequence[torch.Tensor], image_first: bool
    ) -> tuple[int, tuple[str, ...]] | None:
        """The axis on which an argument has the length of a stream, or of image and text together, and of which."""
        streams: dict[tuple[str, ...], Sequence[int]] = {(stream,): n for stream, n in self.streams.lengths.items()}
        main, mask, first = self.streams.main, "mask" in name, by_row[0]
        if TEXT in self.streams.lengths and main != TEXT:
            both = zip(self.streams.lengths[main], self.streams.lengths[TEXT], strict=True)
            streams[(main, TEXT) if image_first else (TEXT, main)] = [a + b for a, b in both]
        last = mask or not (first.is_floating_point() or first.is_complex())
        for axis in range(first.ndim - 1 + last):
            for names, lengths in streams.items():
                if not all(v.ndim == first.ndim and v.shape[axis] == n for v, n in zip(by_row, lengths, strict=True)):
                    continue
                alike = len(set(lengths)) == 1
                if alike and not mask and axis == 0 and first.ndim != 2:
                    continue
                if alike and not mask and axis == 1 and len(first) == 1 and lengths[0] <= _FEW:
                    raise NotPackable(f"argument {name}: {lengths[0]} tokens, or entries a row?")
                if mask and axis < first.ndim - 1 and first.ndim > 2:
                    raise NotPackable(f"{name} of every pair of tokens")
                return axis, names
        return None


def stacked(calls: Sequence[Arguments]) -> tuple[dict[str, Any], list[int]]:
    """One call's arguments for all of a layer that has no tokens, and how many rows each call has.

    Raises:
        NotPackable: they differ in more than their rows.
    """
    flat, specs = zip(*[tree_flatten(dict(call)) for call in calls], strict=True)
    if any(spec != specs[0] for spec in specs):
        raise NotPackable("the calls give different arguments")
    rows = [next((len(x) for x in leaves if isinstance(x, torch.Tensor) and x.ndim), 0) for leaves in flat]
    given = []
    for leaf in zip(*flat, strict=True):
        first = leaf[0]
        if not isinstance(first, torch.Tensor):
            if not all(type(value) is type(first) and value == first for value in leaf):
                raise NotPackable("the calls give different values")
            given.append(first)
            continue
        alike = all(
            isinstance(x, torch.Tensor) and x.shape == (n, *first.shape[1:]) for x, n in zip(leaf, rows, strict=True)
        )
        if not first.ndim or not alike:
            raise NotPackable("the calls give different shapes")
        given.append(torch.cat(leaf))
    return tree_unflatten(given, specs[0]), rows


def _end_to_end(by_row: Sequence[torch.Tensor]) -> torch.Tensor:
    """The rows of a stream as [1, tokens, channels], which they often are views of already."""
    base = by_row[0]._base
    if base is not None and base.ndim == 3 and len(base) == 1 and base.is_contiguous():
        at = 0
        for row in by_row:
            apart = row._base is not base or row.storage_offset() - base.storage_offset() != at
            if apart or row.shape[2] != base.shape[2] or row.stride()[1:] != base.stride()[1:]:
                break
            at += row.shape[1] * base.stride(1)
        else:
            if at == base.numel():
                return base
    return torch.cat(list(by_row), 1)
