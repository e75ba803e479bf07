"""The measured range: where a prediction is interpolation, and by how much it is not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from traces.composition import Composition
from traces.errors import BadInput
from traces.geometry import ModelGeometry
from traces.request import Size


@dataclass(frozen=True, slots=True)
class MeasuredRange:
    """The least and the most that was measured of one stage: tokens per image, tokens in all, images.

    ``largest`` is the size with the most tokens per image, ``most_sizes`` the most sizes in one batch.
    """

    geometry: ModelGeometry
    tokens_per_image: tuple[int, int]
    tokens: tuple[int, int]
    images: tuple[int, int]
    largest: Size
    most_sizes: int

    @classmethod
    def of(cls, compositions: Iterable[Composition], geometry: ModelGeometry) -> MeasuredRange:
        """The range of some compositions, at least one.

        Raises:
            BadInput: none of their sizes holds a single token.
        """
        measured = list(compositions)
        sizes = {size: geometry.tokens(size) for composition in measured for size, _ in composition}
        if max(sizes.values()) < 1:
            raise BadInput(f"the profile measured no size that {geometry.name!r} can make, like {min(sizes)}")
        tokens = [sum(n * sizes[size] for size, n in composition) for composition in measured]
        images = [sum(n for _, n in composition) for composition in measured]
        return cls(
            geometry,
            (min(sizes.values()), max(sizes.values())),
            (min(tokens), max(tokens)),
            (min(images), max(images)),
            max(sizes, key=sizes.__getitem__),
            max(len(composition) for composition in measured),
        )

    def factor(self, composition: Composition) -> float:
        """1.0 inside the range, else how many times the worst feature lies above or below it."""
        each = [self.geometry.tokens(size) for size, _ in composition]
        tokens = sum(n * of_one for (_, n), of_one in zip(composition, each, strict=True))
        images = sum(n for _, n in composition)
        return max(
            1.0,
            max(each) / self.tokens_per_image[1],
            self.tokens_per_image[0] / max(min(each), 1),
            *(value / most for value, (_, most) in ((tokens, self.tokens), (images, self.images))),
            *(least / max(value, 1) for value, (least, _) in ((tokens, self.tokens), (images, self.images))),
        )

    def above(self, size: Size) -> float:
        """The tokens of one image of ``size`` over the most measured; above 1.0 for larger images."""
        return self.geometry.tokens(size) / self.tokens_per_image[1]
