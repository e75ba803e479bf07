"""Where the tokens of each row lie when the rows of several calls stand one after another on the axis of tokens.

A block has one or more *streams* of tokens (image, text, sound), [rows, tokens, channels] each. Packed, a stream is
[1, tokens of all rows, channels]. A block may join streams end to end; then the tokens of a row lie in several spans. A
packed tensor is told by its number of tokens, so two different arrangements of one length cannot be packed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import accumulate, pairwise

import torch

from backend.kernels.attention import Segments

Span = tuple[int, int]
"""Begin and end of neighbouring tokens."""


class NotPackable(Exception):  # noqa: N818
    """A block cannot run for these calls at once; the message says why.

    Attributes:
        always: for no others either.
        ambiguous: for what their numbers of tokens happen to be.
    """

    def __init__(self, reason: str, always: bool = False, ambiguous: bool = False) -> None:
        super().__init__(reason)
        self.always = always
        self.ambiguous = ambiguous


class Arrangement:
    """Streams end to end.

    Args:
        names: the streams, in order.
        lengths: tokens of each row, for each of them.
        device: where its tables are.

    Attributes:
        spans: where each row's tokens lie.
    """

    def __init__(self, names: tuple[str, ...], lengths: Sequence[Sequence[int]], device: torch.device) -> None:
        self.names = names
        ends = list(accumulate((n for stream in lengths for n in stream), initial=0))
        pieces = list(pairwise(ends))
        rows = len(lengths[0])
        self.spans: tuple[tuple[Span, ...], ...] = tuple(tuple(pieces[row::rows]) for row in range(rows))
        self.tokens = ends[-1]
        self._lengths = [sum(end - begin for begin, end in spans) for spans in self.spans]
        self._device = device

    @cached_property
    def rows(self) -> torch.Tensor:
        """[tokens] int64, the row of each token."""
        pieces = sorted((begin, end, row) for row, spans in enumerate(self.spans) for begin, end in spans)
        counts = torch.tensor([end - begin for begin, end, _ in pieces])
        return torch.tensor([row for _, _, row in pieces]).repeat_interleave(counts).to(self._device)

    @cached_property
    def segments(self) -> Segments:
        """The rows one after another, each whole."""
        return Segments(self._lengths, self._device)

    @cached_property
    def order(self) -> torch.Tensor | None:
        """[tokens] int64: the token that comes next when rows stand one after another; None: they do already."""
        if len(self.names) == 1:
            return None
        pieces = [torch.arange(begin, end) for spans in self.spans for begin, end in spans]
        return torch.cat(pieces).to(self._device)

    def length(self, row: int) -> int:
        """Tokens of a row."""
        return self._lengths[row]

    def row_by_row(self, x: torch.Tensor) -> torch.Tensor:
        """[tokens, ...] with the rows one after another."""
        return x if self.order is None else x.index_select(0, self.order)

    def arranged(self, x: torch.Tensor) -> torch.Tensor:
        """The inverse of `row_by_row`."""
        return x if self.order is None else torch.empty_like(x).index_copy_(0, self.order, x)

    def of_row(self, x: torch.Tensor, row: int, axis: int) -> torch.Tensor:
        """The tokens of one row."""
        parts = [x.narrow(axis, begin, end - begin) for begin, end in self.spans[row] if end > begin]
        if not parts:
            return x.narrow(axis, 0, 0)
        return parts[0] if len(parts) == 1 else torch.cat(parts, axis)

    def by_call(self, x: torch.Tensor, rows: Sequence[int]) -> list[torch.Tensor]:
        """[1, tokens, ...] as a tensor [rows, tokens, ...] for each call, of so many rows."""
        parts = [self.of_row(x, row, 1) for row in range(sum(rows))]
        ends = list(accumulate(rows, initial=0))
        return [torch.cat(parts[at:end]) if end > at + 1 else parts[at] for at, end in pairwise(ends)]


class Pack:
    """The streams of one launch of a block, and what the block joins of them.

    Args:
        streams: tokens of each row, by the name of the stream.
        device: where its tables are.
        arrangements: those of these streams that are made already, by the names; more are added.
        fused: attention in whichever way suits the device, and modulations in one kernel.
        any_lengths: do not raise; nothing can be run on such a pack, but parts of it.

    Attributes:
        last: names of the streams that the block joined last; empty: none yet.
        over_joint: whether an argument lay over image and text together.
        ambiguous: whether two arrangements have as many tokens.
        attended: attentions so far: the streams of the queries, those of the keys, and what mask they have (`mask_of`);
            None: nobody wants to know.

    Raises:
        NotPackable: two arrangements have as many tokens.
    """

    def __init__(
        self,
        streams: Mapping[str, tuple[int, ...]],
        device: torch.device,
        arrangements: dict[tuple[str, ...], Arrangement] | None = None,
        fused: bool = False,
        any_lengths: bool = False,
    ) -> None:
        self.streams = streams
        self.fused = fused
        self.device = device
        self._made = {} if arrangements is None else arrangements
        self.last: tuple[str, ...] = ()
        self.over_joint = False
        self.ambiguous = False
        self.attended: set[tuple[tuple[str, ...], tuple[str, ...], str]] | None = None
        self._any_lengths = any_lengths
        self._known: dict[int, Arrangement] = {}
        for name in self.streams:
            self._add((name,))

    def arrangement(self, tokens: int) -> Arrangement | None:
        """Which one has so many tokens."""
        return self._known.get(tokens)

    def named(self, tokens: int) -> tuple[str, ...]:
        """The streams that so many tokens are of.

        Raises:
            NotPackable: none has so many.
        """
        found = self._known.get(tokens)
        if found is None:
            raise NotPackable(f"a result of {tokens} tokens")
        return found.names

    def of_names(self, names: tuple[str, ...]) -> Arrangement | None:
        """How these streams lie end to end; None: the block does not join them."""
        return self._made.get(names)

    def joined(self, tokens: Sequence[int]) -> None:
        """The block puts packed tensors of so many tokens end to end."""
        known = [self._known.get(count) for count in tokens]
        if len(known) > 1 and None not in known:
            names = tuple(name for one in known if one is not None for name in one.names)
            self.last = names
            self.join(names)

    def join(self, names: tuple[str, ...]) -> None:
        """Know these streams end to end."""
        if len(set(names)) == len(names):
            self._add(names)

    @property
    def joins(self) -> frozenset[tuple[str, ...]]:
        """What was joined so far."""
        return frozenset(one.names for one in self._known.values() if len(one.names) > 1)

    def _add(self, names: tuple[str, ...]) -> None:
        new = self._made.get(names)
        if new is None:
            new = self._made[names] = Arrangement(names, [self.streams[name] for name in names], self.device)
        known = self._known.setdefault(new.tokens, new)
        if known is not new and known.spans != new.spans:
            self.ambiguous = True
            if self._any_lengths:
                return
            reason = f"{' and '.join(known.names)} has as many tokens as {' and '.join(names)}"
            raise NotPackable(reason, ambiguous=True)
