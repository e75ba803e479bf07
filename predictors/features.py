"""What a batch costs, in physical terms: the features that latency models see.

Work is counted in *rows*: images, doubled by classifier-free guidance where a stage runs it (never in
upscale and decode); in a batch of guided and unguided requests by the guided share. The FLOPs of linear layers and
convolutions are proportional to the tokens, those of attention to the sum of tokens squared of the single
images (an image attends only to itself), launching kernels costs the same for any batch, and what a patch pays
for its neighbours is proportional to the length of the cuts. So a non-negative combination of these columns is
a reasonable latency, also for sizes that nobody measured. Whether anything is cut counts by itself: then each layer
starts kernels that take images apart and put them together, and moves every token, however small the patches are.

Reference pictures of an edit count as pixels and tokens of their image where they are encoded and seen, and not where
it is decoded.

A patch cache takes work away: the share of the patches' blocks that were computed scales pixels, tokens, their squares
(a computed patch still attends to the whole image) and halo; and it costs bookkeeping, which is proportional to the
patches. It takes launches away only where no image computes a block.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import gcd

import numpy as np
import numpy.typing as npt

from traces.composition import Composition
from traces.geometry import ModelGeometry
from traces.request import Size
from traces.stages import STAGES

FEATURES = (
    "intercept",  # 1
    "images",
    "rows",  # images, and the guided ones once more
    "sizes",  # distinct sizes
    "pixels",  # computed, over all rows
    "tokens",  # computed, over all rows
    "tokens_squared",  # each row's tokens squared, summed, computed share
    "patches",  # over all rows; one a row when nothing is cut
    "halo",  # pixels along both sides of the cuts between patches, computed, over all rows
    "cached_patches",  # the patches when a patch cache looks after them, else 0
    "computed",  # the share that a patch cache computes, else 1
    "launched",  # the share of blocks that at least one image computes, when each skips as many, any of them; else 1
    "cuts",  # launched, where an image is cut into patches, else 0
    "cut_tokens",  # tokens, where an image is cut into patches, else 0
)


@dataclass(frozen=True)
class FeatureMap:
    """Composition -> features, for one stage of one model.

    The columns are `FEATURES`, then the rows of each of ``sizes`` (the paper's features: requests per
    resolution).

    Attributes:
        geometry: gives tokens per image.
        stage: in ``upscale`` and ``decode`` guidance does not double the rows; only ``denoise`` has a patch cache.
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

    def row(
        self, composition: Composition, guided: float = 1.0, computed: float = 1.0, cached: bool = False
    ) -> list[float]:
        """The features of one composition as plain floats, one for each of `columns`.

        Args:
            composition: what is in the batch.
            guided: the share of its pixels that run with classifier-free guidance, 0 to 1.
            computed: the share of the patch cache's patches and blocks that are computed, above 0 to 1.
            cached: whether a patch cache looks after the patches.
        """
        rows_per_image = 1.0 + guided if STAGES[self.stage].guided else 1.0
        if STAGES[self.stage].cache != "blocks":
            computed, cached = 1.0, False
        patch_height = gcd(*(size[0] for size, _ in composition))
        patch_width = gcd(*(size[1] for size, _ in composition))
        images = pixels = tokens = tokens_squared = patches = halo = 0
        for size, n in composition:
            height, width, frames = size[:3]
            seen = size[3:] if STAGES[self.stage].network != "vae" else ()
            of_one = self.geometry.tokens((height, width, frames, *seen))
            images += n
            pixels += n * (height * width * frames + sum(seen))
            tokens += n * of_one
            tokens_squared += n * of_one * of_one
            if self.executor == "patched":
                down, across = height // patch_height, width // patch_width
                patches += n * down * across
                halo += n * frames * 2 * ((down - 1) * width + (across - 1) * height)
            else:
                patches += n
        per_row = rows_per_image * computed
        of_size = dict(composition)
        launched = 1.0 - (1.0 - computed) ** images
        is_cut = float(patches > images)
        return [
            1.0,
            float(images),
            rows_per_image * images,
            float(len(composition)),
            per_row * pixels,
            per_row * tokens,
            per_row * tokens_squared,
            rows_per_image * patches,
            per_row * halo,
            rows_per_image * patches if cached else 0.0,
            computed,
            launched,
            is_cut * launched,
            is_cut * per_row * tokens,
            *(rows_per_image * of_size.get(size, 0) for size in self.sizes),
        ]

    def matrix(
        self,
        compositions: Iterable[Composition],
        guided: Sequence[float],
        computed: Sequence[float] | None = None,
        cached: Sequence[bool] | None = None,
    ) -> npt.NDArray[np.float64]:
        """The features of n batches, see `row`: an array of shape (n, columns)."""
        shares = itertools.repeat(1.0) if computed is None else computed
        kept = itertools.repeat(False) if cached is None else cached
        rows = [self.row(*batch) for batch in zip(compositions, guided, shares, kept, strict=False)]
        return np.array(rows, dtype=np.float64).reshape(len(rows), len(self.columns))


def sizes_in(compositions: Iterable[Composition]) -> tuple[Size, ...]:
    """The distinct sizes of some compositions, sorted."""
    return tuple(sorted({size for composition in compositions for size, _ in composition}))
