"""What a batch costs, in physical terms: the features that latency models see.

Work is counted in *rows*: images, doubled by classifier-free guidance where a stage runs it (never in
decode). The FLOPs of linear layers and convolutions are proportional to the tokens, those of attention to the
sum of tokens squared of the single images (an image attends only to itself), launching kernels costs the same
for any batch, and what a patch pays for its neighbours is proportional to the length of the cuts. So a
non-negative combination of these columns is a reasonable latency, also for sizes that nobody measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import gcd

import numpy as np
import numpy.typing as npt

from traces.composition import Composition
from traces.geometry import ModelGeometry
from traces.request import Size

FEATURES = (
    "intercept",  # 1
    "images",
    "rows",  # images, twice if guided
    "sizes",  # distinct sizes
    "pixels",  # over all rows
    "tokens",  # over all rows
    "tokens_squared",  # each row's tokens squared, summed
    "patches",  # over all rows; one a row when nothing is cut
    "halo",  # pixels along both sides of the cuts between patches, over all rows
)


@dataclass(frozen=True)
class FeatureMap:
    """Composition -> features, for one stage of one model.

    The columns are `FEATURES`, then the rows of each of ``sizes`` (the paper's features: requests per
    resolution).

    Attributes:
        geometry: gives tokens per image.
        stage: in ``decode`` guidance does not double the rows.
        executor: only ``patched`` cuts images, by the gcd of the sizes along each axis (PatchedServe).
        sizes: the sizes that get a column of their own, usually those measured.
    """

    geometry: ModelGeometry
    stage: str
    executor: str
    sizes: tuple[Size, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """A name for each column."""
        return FEATURES + tuple("x".join(map(str, size)) for size in self.sizes)

    def row(self, composition: Composition, guided: bool = True) -> list[float]:
        """The features of one composition as plain floats, one for each of `columns`."""
        rows_per_image = 2 if guided and self.stage != "decode" else 1
        patch_height = gcd(*(size[0] for size, _ in composition))
        patch_width = gcd(*(size[1] for size, _ in composition))
        images = pixels = tokens = tokens_squared = patches = halo = 0
        for size, n in composition:
            height, width, frames = size
            of_one = self.geometry.tokens(size)
            images += n
            pixels += n * height * width * frames
            tokens += n * of_one
            tokens_squared += n * of_one * of_one
            if self.executor == "patched":
                down, across = height // patch_height, width // patch_width
                patches += n * down * across
                halo += n * frames * 2 * ((down - 1) * width + (across - 1) * height)
            else:
                patches += n
        work = (images, pixels, tokens, tokens_squared, patches, halo)
        rows, pixels, tokens, tokens_squared, patches, halo = (rows_per_image * value for value in work)
        of_size = dict(composition)
        return [
            1.0,
            float(images),
            float(rows),
            float(len(composition)),
            float(pixels),
            float(tokens),
            float(tokens_squared),
            float(patches),
            float(halo),
            *(float(rows_per_image * of_size.get(size, 0)) for size in self.sizes),
        ]

    def matrix(self, compositions: Iterable[Composition], guided: Sequence[bool]) -> npt.NDArray[np.float64]:
        """The features of n compositions: an array of shape (n, columns)."""
        rows = [self.row(c, bool(g)) for c, g in zip(compositions, guided, strict=True)]
        return np.array(rows, dtype=np.float64).reshape(len(rows), len(self.columns))


def sizes_in(compositions: Iterable[Composition]) -> tuple[Size, ...]:
    """The distinct sizes of some compositions, sorted."""
    return tuple(sorted({size for composition in compositions for size, _ in composition}))
