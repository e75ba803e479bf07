"""A predictor for tests."""

from __future__ import annotations

from traces.composition import Composition
from traces.request import Request


class FlatCosts:
    """A step costs 0.1 s and 0.1 s more for every 64x64 px in the batch; encode and decode are steps too."""

    def seconds(self, stage: str, composition: Composition, guided: float = 1.0) -> float:
        return 0.1 + 0.1 * sum(h * w * f * n for (h, w, f), n in composition) / 4096

    def standalone(self, request: Request) -> float:
        return (request.steps + 2) * self.seconds("denoise", ((request.size, request.images),))
