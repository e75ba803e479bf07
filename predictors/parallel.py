"""How several devices share a denoising step: by requests, by guidance rows, by the tokens of a row."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import gcd
from typing import Self

from predictors.shapes import ModelShape, SequenceShape
from traces.errors import BadInput
from traces.geometry import ModelGeometry

TILES = "tiles"
"""How steps that are tiled are shared; what else there is, `Parallel` spells."""
BANDS = "bands"
"""How decoding is shared: each device has some of a picture's rows."""

_WAYS = ("data", "cfg", "ulysses")
_PUBLISHED = re.compile(r"([a-z]+)([1-9]\d{0,3})")
_SPELLING = re.compile("(" + "|".join(_WAYS) + r")([1-9]\d{0,3})")


@dataclass(frozen=True, slots=True)
class Parallel:
    """How devices share a step, as profiles spell it: ``ulysses4``, ``cfg2+ulysses2``; one device is ``""``.

    Attributes:
        data: parts that whole requests are dealt to; nothing is exchanged.
        cfg: 2 where the rows with the prompt and those without it run apart, else 1; nothing is exchanged in a forward.
        ulysses: devices that share the tokens of a row, and exchange them for heads around attention.
    """

    data: int = 1
    cfg: int = 1
    ulysses: int = 1

    @classmethod
    def parse(cls, text: str) -> Self:
        """The kind that is spelled so.

        Raises:
            BadInput: none is.
        """
        found: dict[str, int] = {}
        for part in text.split("+") if text else ():
            match = _SPELLING.fullmatch(part)
            if match is None or match[1] in found or (match[1] == "cfg" and match[2] not in ("1", "2")):
                raise BadInput(f"parallel is {text!r}, expected something like ulysses4, cfg2+ulysses2 or data2")
            found[match[1]] = int(match[2])
        return cls(**found)

    @classmethod
    def of(cls, devices: int, images: int, guided: bool) -> Self:
        """How so many devices share so many images of one size: these are dealt out as far as that is even, then
        guidance rows, then tokens."""
        data = gcd(images, devices)
        left = devices // data
        cfg = 2 if guided and left % 2 == 0 else 1
        return cls(data, cfg, left // cfg)

    @classmethod
    def published(cls, text: str) -> Self | None:
        """The kind that benchmarks spell in their ways, such as ``cfg2 ulysses2 ring1``; None: another one."""
        degrees = dict.fromkeys(_WAYS, 1)
        for part in re.split(r"\s*[+x\s]\s*", text) if text else ():
            match = _PUBLISHED.fullmatch(part)
            if match is None or (match[1] not in degrees and match[2] != "1"):
                return None
            degrees |= {match[1]: int(match[2])} if match[1] in degrees else {}
        return cls(**degrees)

    @property
    def devices(self) -> int:
        """That share the step."""
        return self.data * self.cfg * self.ulysses

    def __str__(self) -> str:
        parts = zip(_WAYS, (self.data, self.cfg, self.ulysses), strict=True)
        return "+".join([f"{way}{devices}" for way, devices in parts if devices > 1])


def degrees_of(shape: ModelShape, geometry: ModelGeometry, most: int) -> tuple[int, ...]:
    """On how many devices, up to ``most``, one request of a model can be denoised: those that its guidance rows and its
    heads divide into."""
    sequence = shape.denoise.sequence
    heads = 1 if sequence is None else sequence.heads
    kinds = (False,) if geometry.guidance == "never" else (False, True)
    return tuple(
        [
            devices
            for devices in range(1, most + 1)
            if any(heads % Parallel.of(devices, 1, guided).ulysses == 0 for guided in kinds)
        ]
    )


@dataclass(frozen=True, slots=True)
class Cut:
    """What the busiest device of a forward has, as shares of all.

    Attributes:
        tokens: of all tokens.
        attention: of all that attends over rows.
        sent: bytes that it sends around attention, over `SequenceShape.bytes` of all rows.
        divided: some row's tokens are on several devices.
    """

    tokens: float = 1.0
    attention: float = 1.0
    sent: float = 0.0
    divided: bool = False

    @classmethod
    def even(cls, parallel: Parallel, heads: int) -> Self:
        """Of images of one size that are shared so."""
        whole, ranks = parallel.data * parallel.cfg, parallel.ulysses
        own_heads = -(-heads // ranks) / heads
        return cls(1 / (whole * ranks), own_heads / whole, (ranks - 1) / ranks**2 / whole, ranks > 1)

    @classmethod
    def dealt(cls, tokens: Sequence[int], devices: int) -> Self:
        """Of rows of so many tokens that no cut divides, the largest dealt out first to whoever has least."""
        linear, squared = [0.0] * devices, [0.0] * devices
        for row in sorted(tokens, reverse=True):
            least = min(range(devices), key=linear.__getitem__)
            linear[least] += row
            squared[least] += row * row
        return cls(max(linear) / sum(linear), max(squared) / sum(squared))

    @classmethod
    def packed(cls, tokens: Sequence[int], devices: int, heads: int) -> Self:
        """Of rows of so many tokens one after another, cut into equal chunks wherever these end."""
        ends = list(accumulate(tokens))
        chunk = ends[-1] / devices
        squared, sent, divided = [0.0] * devices, [0.0] * devices, False
        for row, end in zip(tokens, ends, strict=True):
            begin = end - row
            parts = [min(end, (rank + 1) * chunk) - max(begin, rank * chunk) for rank in range(devices)]
            ranks = [rank for rank, part in enumerate(parts) if part > 1e-9 * chunk]
            own_heads = -(-heads // len(ranks)) / heads
            divided |= len(ranks) > 1
            for rank in ranks:
                squared[rank] += row * row * own_heads
                away = (len(ranks) - 1) / len(ranks)
                sent[rank] += 0.75 * parts[rank] * away + 0.25 * (row - parts[rank]) / len(ranks)
        return cls(1 / devices, max(squared) / sum([row * row for row in tokens]), max(sent) / ends[-1], divided)


WHOLE = Cut()
"""Of one device."""


def cut_of(
    images: Sequence[tuple[int, int]],
    guided: bool,
    devices: int,
    sequence: SequenceShape | None,
    parallel: Parallel | None = None,
) -> Cut:
    """How devices share a forward.

    Args:
        images: how many of so many tokens each: (images, tokens).
        guided: each has a row with the prompt and one without it.
        devices: that share it.
        sequence: of the denoiser; None: only whole rows can be dealt out.
        parallel: how they share images of one size; None: as `Parallel.of`.
    """
    if len(images) == 1:
        parallel = parallel or Parallel.of(devices, images[0][0], guided)
        if sequence is not None:
            return Cut.even(parallel, sequence.heads)
        if parallel.ulysses == 1:
            return Cut.even(parallel, 1)
    rows = [tokens for number, tokens in images for _ in range(number * (1 + guided))]
    return Cut.dealt(rows, devices) if sequence is None else Cut.packed(rows, devices, sequence.heads)
