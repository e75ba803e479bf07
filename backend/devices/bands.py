"""A network of convolutions on several ranks, exactly: each has a band of rows of the picture, of its full width.

The network's own code runs on every rank with its rows alone. What works pixel by pixel does not notice that rows are
missing. What does is told by the functions that are called, whatever the family:

- a convolution, or padding for one, sees the rows of the bands above and below, and the edge of the picture only where
  it is;
- GroupNorm normalises by the moments of the whole picture, pooled over the bands;
- attention over the picture asks the keys of all bands; a mask between frames is made for their rows;
- what a band cannot know (rows of another number, random numbers) is refused.

Rows are exchanged at each convolution, rather than recomputed: a decoder's picture depends on tens of latent rows on
either side, so that bands of sixteen would compute several times as much, and the norms have ranks meet all the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any, Self

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own abbreviation
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_unflatten

from backend.packed.division import Exchanging
from backend.patched.around import around_of, no_longer_around
from backend.ranks.group import Pieces
from predictors.shards import even_parts

Function = Callable[..., Any]


class Undividable(RuntimeError):  # noqa: N818 - named for what it is
    """The network does something that a rank with some of the rows cannot; all ranks find so at the same place."""


def bands_of(rows: int, ranks: int) -> tuple[int, ...]:
    """How many of a picture's rows each rank has; where there are fewer rows than ranks, the last have none."""
    some = min(rows, ranks)
    return (*even_parts(rows, some), *[0] * (ranks - some))


class Band(TorchFunctionMode):
    """While it is entered, this rank computes its band of a picture, together with the others.

    Args:
        group: the ranks, all of which have a row at least, and which all do the same.
        rows: of the sample that each has.

    Attributes:
        exchanges: so far.
        sent: bytes in them, by what they were: rows at the ``edges`` of the band, ``moments``, ``keys`` and values, and
            the pixels ``given`` to the first rank.
    """

    def __init__(self, group: Exchanging, rows: Sequence[int]) -> None:
        super().__init__()
        self._group, self._rows = group, tuple(rows)
        self.exchanges = 0
        self.sent: Counter[str] = Counter()

    def __enter__(self) -> Self:
        self._token = around_of(self)
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        no_longer_around(self._token)

    def __torch_function__(
        self, func: Function, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        handle = _HANDLED.get(func)
        return func(*args, **(kwargs or {})) if handle is None else handle(self, func, *args, **(kwargs or {}))

    def own(self, x: torch.Tensor) -> torch.Tensor:
        """This rank's rows of a sample that has all."""
        starts = list(accumulate(self._rows, initial=0))
        begin, end = starts[self._group.rank], starts[self._group.rank + 1]
        return x[..., begin:end, :]

    def whole(self, output: Any) -> Any:
        """What the network gave, with the rows of all ranks, on the first; on the others, as it is."""
        leaves, spec = tree_flatten(output)
        rank = self._group.rank
        for index, leaf in enumerate(leaves):
            if isinstance(leaf, torch.Tensor):
                if rank:
                    self._exchange("given", [(0, leaf.contiguous())], [])
                else:
                    bands = {peer: self._empty(leaf, peer) for peer in range(1, self._group.size)}
                    self._exchange("given", [], list(bands.items()))
                    leaves[index] = torch.cat([leaf, *bands.values()], dim=-2)
        return tree_unflatten(leaves, spec)

    def neighbours(self, first: torch.Tensor, last: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """The last row of the band above and the first of the one below, for this rank's; None at the edge."""
        rank, size = self._group.rank, self._group.size
        above = torch.empty_like(first, memory_format=torch.contiguous_format) if rank else None
        below = torch.empty_like(last, memory_format=torch.contiguous_format) if rank + 1 < size else None
        sends, receives = [], []
        if above is not None:
            sends.append((rank - 1, first.contiguous()))
            receives.append((rank - 1, above))
        if below is not None:
            sends.append((rank + 1, last.contiguous()))
            receives.append((rank + 1, below))
        self._exchange("edges", sends, receives)
        return above, below

    def pooled(self, mean: torch.Tensor, variance: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Means and variances of the whole picture, from those of this rank's rows: the same on every rank."""
        own = torch.stack((mean, variance)).contiguous()
        moments = torch.stack(self._of_all("moments", own, [own.shape] * self._group.size))
        share = own.new_tensor(self._rows).div_(sum(self._rows)).view(-1, *[1] * mean.ndim)
        means, variances = moments[:, 0], moments[:, 1]
        mean = (share * means).sum(0)
        return mean, (share * (variances + (means - mean).square())).sum(0)

    def _of_all(self, what: str, own: torch.Tensor, shapes: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        """A tensor of each rank."""
        rank = self._group.rank
        every = [own if peer == rank else own.new_empty(tuple(shape)) for peer, shape in enumerate(shapes)]
        peers = [peer for peer in range(self._group.size) if peer != rank]
        self._exchange(what, [(peer, own) for peer in peers], [(peer, every[peer]) for peer in peers])
        return every

    def _exchange(self, what: str, sends: Pieces, receives: Pieces) -> None:
        self._group.exchange(sends, receives)
        self.exchanges += 1
        self.sent[what] += sum([tensor.nbytes for _, tensor in sends])

    def _empty(self, like: torch.Tensor, peer: int) -> torch.Tensor:
        """For what a peer has where this rank has ``like``."""
        *before, rows, width = like.shape
        return like.new_empty((*before, rows // self._rows[self._group.rank] * self._rows[peer], width))

    def _scale(self, rows: int) -> int:
        """Rows of a layer for each of the sample's."""
        scale, rest = divmod(rows, self._rows[self._group.rank])
        if rest:
            raise Undividable(f"a layer has {rows} rows for {self._rows[self._group.rank]} of the sample")
        return scale

    def _extended(self, x: torch.Tensor, up: int, down: int) -> tuple[torch.Tensor, int, int]:
        """Rows with so many above and below them, as far as there are so many, and how many are missing there."""
        rank, scale = self._group.rank, self._scale(x.shape[-2])
        starts = [scale * start for start in accumulate(self._rows, initial=0)]
        begin, end, last = starts[rank], starts[rank + 1], starts[-1]
        above: list[torch.Tensor] = []
        below: list[torch.Tensor] = []
        sends, receives = [], []
        for peer, (first, after) in enumerate(pairwise(starts)):
            if peer == rank:
                continue
            given = _shared(
                (begin, end), (max(0, first - up), first) if peer > rank else (after, min(last, after + down))
            )
            if given is not None:
                sends.append((peer, x[..., given[0] - begin : given[1] - begin, :].contiguous()))
            taken = _shared(
                (first, after), (max(0, begin - up), begin) if peer < rank else (end, min(last, end + down))
            )
            if taken is not None:
                rows = x.new_empty((*x.shape[:-2], taken[1] - taken[0], x.shape[-1]))
                receives.append((peer, rows))
                (above if peer < rank else below).append(rows)
        self._exchange("edges", sends, receives)
        extended = torch.cat([*above, x, *below], dim=-2) if above or below else x
        return extended, max(0, up - begin), max(0, end + down - last)

    def _convolved(
        self,
        func: Function,
        input: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> torch.Tensor:
        kernel = weight.shape[-2]
        if isinstance(padding, str):
            raise Undividable(f"a convolution pads by {padding!r}")
        dims = weight.ndim - 2
        strides, paddings, dilations = (_each(value, dims) for value in (stride, padding, dilation))
        if strides[-2] != 1:
            raise Undividable("a convolution leaves rows out")
        if paddings[-2]:
            if 2 * paddings[-2] != dilations[-2] * (kernel - 1):
                raise Undividable(f"a convolution of {kernel} rows pads {paddings[-2]}")
            input, top, bottom = self._extended(input, paddings[-2], paddings[-2])
            if top or bottom:
                input = F.pad(input, (0, 0, top, bottom))
            paddings = (*paddings[:-2], 0, paddings[-1])
        return func(input, weight, bias, strides, paddings, dilations, groups)

    def _padded(
        self,
        func: Function,
        input: torch.Tensor,
        pad: Sequence[int],
        mode: str = "constant",
        value: float | None = None,
    ) -> torch.Tensor:
        if len(pad) >= 4 and (pad[2] or pad[3]):
            input, top, bottom = self._extended(input, pad[2], pad[3])
            pad = (*pad[:2], top, bottom, *pad[4:])
        return func(input, tuple(pad), mode, value)

    def _normalised(
        self,
        func: Function,
        input: torch.Tensor,
        num_groups: int,
        weight: torch.Tensor | None = None,
        bias: torch.Tensor | None = None,
        eps: float = 1e-5,
    ) -> torch.Tensor:
        exact = (input if input.dtype in (torch.float32, torch.float64) else input.float()).contiguous()
        pixels = exact[0, 0].numel()
        _, mean, inverse = torch.native_group_norm(
            exact, None, None, len(input), input.shape[1], pixels, num_groups, eps
        )
        mean, variance = self.pooled(mean, inverse.pow(-2) - eps)
        channels = (len(input), input.shape[1])
        scale = (variance + eps).rsqrt().repeat_interleave(input.shape[1] // num_groups, dim=1).view(channels)
        shift = -mean.repeat_interleave(input.shape[1] // num_groups, dim=1).view(channels) * scale
        if weight is not None:
            scale, shift = scale * weight, shift * weight
        if bias is not None:
            shift = shift + bias
        each = (*channels, *[1] * (input.ndim - 2))
        return torch.addcmul(shift.view(each), input.to(scale.dtype), scale.view(each)).to(input.dtype)

    def _attended(
        self,
        func: Function,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        **more: Any,
    ) -> torch.Tensor:
        if is_causal:
            raise Undividable("an attention asks only what comes before")
        keys = key.shape[-2]
        counts = [keys * rows // self._rows[self._group.rank] for rows in self._rows]
        if keys % self._rows[self._group.rank] or query.shape[-2] != keys:
            raise Undividable(f"an attention over {keys} tokens of {self._rows[self._group.rank]} rows")
        both = self._keys(torch.cat((key, value), dim=-1), counts)
        key, value = both.split([key.shape[-1], value.shape[-1]], dim=-1)
        if attn_mask is not None:
            attn_mask = self._spread(attn_mask)
        return func(query, key, value, attn_mask=attn_mask, dropout_p=dropout_p, **more)

    def _spread(self, mask: torch.Tensor) -> torch.Tensor:
        """A mask between frames, from this rank's tokens of each to those of all ranks."""
        rows = self._rows[self._group.rank]
        blocks, tokens = _blocks(mask)
        if tokens % rows:
            raise Undividable("an attention has a mask within frames")
        of_queries = blocks.repeat_interleave(tokens, dim=-2)
        return torch.cat([of_queries.repeat_interleave(tokens * each // rows, dim=-1) for each in self._rows], dim=-1)

    def _keys(self, own: torch.Tensor, counts: Sequence[int]) -> torch.Tensor:
        """Keys and values of all ranks, which have so many tokens each."""
        shapes = [(*own.shape[:-2], count, own.shape[-1]) for count in counts]
        return torch.cat(self._of_all("keys", own.contiguous(), shapes), dim=-2)

    def _interpolated(
        self,
        func: Function,
        input: torch.Tensor,
        size: Any = None,
        scale_factor: Any = None,
        mode: str = "nearest",
        *args: Any,
        **more: Any,
    ) -> torch.Tensor:
        output = func(input, size, scale_factor, mode, *args, **more)
        before, after = input.shape[-2], output.shape[-2]
        if before != after and (not mode.startswith("nearest") or after % before):
            raise Undividable(f"it is resized by {mode!r} from {before} rows to {after}")
        return output

    def _refused(self, func: Function, *_: Any, **__: Any) -> Any:
        raise Undividable(f"it uses {getattr(func, '__name__', func)}")


def _shared(one: tuple[int, int], other: tuple[int, int]) -> tuple[int, int] | None:
    """What two ranges have in common; None: nothing."""
    begin, end = max(one[0], other[0]), min(one[1], other[1])
    return (begin, end) if begin < end else None


def _each(value: Any, dims: int) -> tuple[int, ...]:
    return (value,) * dims if isinstance(value, int) else tuple(value) * (dims if len(value) == 1 else 1)


def _blocks(mask: torch.Tensor) -> tuple[torch.Tensor, int]:
    """A mask between equal runs of tokens, such as those of a frame: one entry a pair of runs, and their length."""
    differs = (mask != mask[..., :1, :]).flatten(0, -3).any(-1).any(0).nonzero()
    tokens = int(differs[0]) if len(differs) else mask.shape[-2]
    blocks = mask[..., ::tokens, ::tokens]
    if mask.shape[-1] % tokens or mask.shape[-2] % tokens:
        raise Undividable("an attention has a mask that is not one between frames")
    if not torch.equal(blocks.repeat_interleave(tokens, dim=-2).repeat_interleave(tokens, dim=-1), mask):
        raise Undividable("an attention has a mask that is not one between frames")
    return blocks, tokens


_HANDLED: dict[Function, Function] = {
    F.conv2d: Band._convolved,
    F.conv3d: Band._convolved,
    F.pad: Band._padded,
    F.group_norm: Band._normalised,
    F.scaled_dot_product_attention: Band._attended,
    F.interpolate: Band._interpolated,
    **dict.fromkeys(
        [F.conv_transpose2d, F.conv_transpose3d, F.instance_norm, F.avg_pool2d, F.avg_pool3d, F.max_pool2d],
        Band._refused,
    ),
    **dict.fromkeys([torch.randn, torch.rand, torch.randn_like, torch.rand_like, torch.normal], Band._refused),
}
