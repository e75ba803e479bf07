"""How a batch is cut into a share for each of several devices, and the bytes that they then send each other.

The rows of a batch (images, clips, the two rows of a guided request) stand one after another, and the line of their
tokens is cut into a piece a device. A row on one device is attended there; a row that a cut divides is attended by
heads, with an all-to-all before and after (Ulysses, arXiv:2309.14509). So cuts between requests are data parallelism,
cuts between guidance rows CFG parallelism, and cuts anywhere else sequence parallelism. Numbers of tokens and heads
need not be multiples of anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

SNAP = 0.05
"""A cut this close to the end of a row, in even pieces, is made there: a divided row costs two exchanges a layer."""

Share = tuple[int, int]
"""Begin and end of the tokens of a row that a device has; equal: none."""


def even_parts(count: int, parts: int) -> tuple[int, ...]:
    """``count`` things in ``parts`` as even as that goes: heads of a layer, say."""
    return tuple([end - begin for begin, end in pairwise(count * part // parts for part in range(parts + 1))])


def cuts(rows: Sequence[int], devices: int) -> tuple[int, ...]:
    """Where the pieces of ``devices`` end in the line of all tokens: between rows where that is even, else anywhere.

    Args:
        rows: tokens of each row.
        devices: how many pieces.
    """
    ends = list(accumulate(rows, initial=0))
    tokens = ends[-1]
    made = []
    for device in range(1, devices):
        even = tokens * device // devices
        nearest = min(ends, key=lambda end: abs(end - even))
        made.append(nearest if abs(nearest - even) * devices <= SNAP * tokens else even)
    return (*made, tokens)


def row_cuts(weights: Sequence[float], devices: int) -> tuple[int, ...]:
    """Where the pieces end in a line of whole rows, counted in rows. The first device has one at least.

    Args:
        weights: of each row, what it costs.
        devices: how many pieces.
    """
    ends = list(accumulate(weights, initial=0.0))
    made: list[int] = []
    for device in range(1, devices):
        even, least = ends[-1] * device / devices, made[-1] if made else 1
        made.append(min(range(least, len(ends)), key=lambda row: (abs(ends[row] - even), -row)))
    return (*made, len(weights))


def shares(rows: Sequence[int], devices: int) -> tuple[tuple[Share, ...], ...]:
    """The tokens of each row on each device: [devices][rows]."""
    starts = list(accumulate(rows, initial=0))
    pieces = pairwise((0, *cuts(rows, devices)))
    return tuple(
        [
            tuple([_within(begin - start, end - start, tokens) for start, tokens in zip(starts, rows, strict=False)])
            for begin, end in pieces
        ]
    )


def share_of(share: Share, row: int, tokens: int) -> Share:
    """The part of one of a row's streams (its text, its image) that goes with a share of the whole row.

    Args:
        share: of the row, all streams together.
        row: tokens of the row.
        tokens: of the stream, in this row.
    """
    begin, end = share
    return (begin * tokens // row, end * tokens // row) if row else (0, 0)


def attention_bytes(
    queries: Sequence[int], keys: Sequence[int], heads: int, channels: int, item_bytes: int
) -> tuple[int, ...]:
    """What each device sends for one attention of divided rows.

    It gives its queries, keys and values to the devices of their heads, and the results for its heads to the devices of
    their tokens.

    Args:
        queries: tokens of divided rows that each device has; ``keys`` likewise.
        heads: of the layer.
        channels: of a head.
        item_bytes: bytes a number.
    """
    own = even_parts(heads, len(queries))
    return tuple(
        [
            item_bytes * channels * ((q + 2 * k) * (heads - mine) + (sum(queries) - q) * mine)
            for q, k, mine in zip(queries, keys, own, strict=True)
        ]
    )


def gather_bytes(tokens: Sequence[int], channels: int, item_bytes: int) -> tuple[int, ...]:
    """What each device sends so that all have the tokens of all. ``tokens``: that each has."""
    return tuple([own * channels * item_bytes * (len(tokens) - 1) for own in tokens])


def expected_bytes(
    rows: Sequence[tuple[int, int]],
    devices: int,
    layers: int,
    heads: int,
    channels: int,
    given_channels: int,
    item_bytes: int,
) -> tuple[int, ...]:
    """What each device sends in one forward of a transformer whose layers attend once to all tokens of a row.

    Args:
        rows: (image tokens, text tokens) of each row; no text tokens where text is only attended to (cross-attention),
            which sends nothing.
        devices: that share the forward.
        layers: with attention.
        heads: of a layer, of ``channels`` each.
        given_channels: of an image token that the last layer gives; the devices hand these to each other.
        item_bytes: bytes a number.
    """
    whole = [image + text for image, text in rows]
    parts = shares(whole, devices)
    divided = divided_rows(parts)
    tokens = [sum(_of_streams(part, rows, divided)) for part in parts]
    images = [_of_streams(part, rows, [True] * len(rows))[0] for part in parts]
    attended = attention_bytes(tokens, tokens, heads, channels, item_bytes)
    gathered = gather_bytes(images, given_channels, item_bytes)
    return tuple([layers * a + g for a, g in zip(attended, gathered, strict=True)])


def expected_exchanges(rows: Sequence[tuple[int, int]], devices: int, layers: int) -> int:
    """Exchanges of one such forward: two a layer if a row is divided, and one that hands out the result."""
    divided = divided_rows(shares([image + text for image, text in rows], devices))
    return 2 * layers * any(divided) + 1


class BandTraffic(NamedTuple):
    """What the ranks of a decode send each other, each of which has a band of rows of the picture.

    Attributes:
        edge_bytes: of the rows at one edge of a band, over all convolutions that see beyond it.
        moment_bytes: of the moments of a band, over all norms.
        key_bytes: of the keys and values of a row of the latents, over all attentions.
        given_bytes: of the pixels that come of a row of the latents; the first rank is given all.
        exchanges: in which they meet.
    """

    edge_bytes: float
    moment_bytes: float
    key_bytes: float
    given_bytes: float
    exchanges: int

    def moved_bytes(self, rows: Sequence[int]) -> float:
        """What the busiest rank sends and receives."""
        last, all_rows = len(rows) - 1, sum(rows)
        received = [
            self.edge_bytes * ((rank > 0) + (rank < last))
            + self.moment_bytes * last
            + (self.key_bytes + self.given_bytes * (rank == 0)) * (all_rows - own)
            for rank, own in enumerate(rows)
        ]
        return max([sent + taken for sent, taken in zip(self.sent_bytes(rows), received, strict=True)])

    def sent_bytes(self, rows: Sequence[int]) -> tuple[float, ...]:
        """What each rank sends. ``rows``: of the latents that it has, at least as many as an edge has."""
        last = len(rows) - 1
        return tuple(
            [
                self.edge_bytes * ((rank > 0) + (rank < last))
                + (self.moment_bytes + self.key_bytes * own) * last
                + self.given_bytes * own * (rank > 0)
                for rank, own in enumerate(rows)
            ]
        )


def divided_rows(parts: Sequence[Sequence[Share]]) -> list[bool]:
    """Which rows lie on several devices. ``parts``: as `shares` gives them."""
    return [sum(end > begin for begin, end in row) > 1 for row in zip(*parts, strict=True)]


def _of_streams(part: Sequence[Share], rows: Sequence[tuple[int, int]], counted: Sequence[bool]) -> tuple[int, int]:
    """(Image, text) tokens of the rows that count in a device's share."""
    image_tokens = text_tokens = 0
    for share, (image, text), counts in zip(part, rows, counted, strict=True):
        if counts:
            (begin, end), (text_begin, text_end) = (share_of(share, image + text, n) for n in (image, text))
            image_tokens, text_tokens = image_tokens + end - begin, text_tokens + text_end - text_begin
    return image_tokens, text_tokens


def _within(begin: int, end: int, tokens: int) -> Share:
    begin, end = max(0, min(begin, tokens)), max(0, min(end, tokens))
    return (begin, end) if end > begin else (0, 0)
