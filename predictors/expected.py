"""A latency table for a policy that knows what its cache will save."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from predictors.standalone import recipe_of, standalone
from traces.composition import Composition
from traces.request import Request, Size
from traces.stages import STAGES, Recipe


class CachedCosts(Protocol):
    """What answers for steps of which a share is computed: a `predictors.table.LatencyTable`, or what wraps one."""

    def seconds(
        self, stage: str, composition: Composition, guided: float = 1.0, computed: float | None = None
    ) -> float:
        """Seconds of one step; see `LatencyTable.seconds`."""
        ...

    def scaled(self, factor: float) -> CachedCosts:
        """The same with every second multiplied."""
        ...


class ExpectedReuse:
    """A table whose denoising steps cost what they are expected to with a cache.

    Args:
        table: what computed work costs.
        shares: the share of its work that a request of each size is expected to compute, over its whole run; the mean
            of them is taken for other sizes.
    """

    def __init__(self, table: CachedCosts, shares: Mapping[Size, float]) -> None:
        self.table = table
        self.shares = dict(shares)
        self._otherwise = sum(self.shares.values()) / len(self.shares)
        self._seconds: dict[tuple[Composition, float], float] = {}

    def share(self, composition: Composition) -> float:
        """The share of a batch's work that is expected to be computed, weighted by pixels."""
        work = {size: n * size[0] * size[1] * size[2] for size, n in composition}
        known = self.shares
        return sum(pixels * known.get(size, self._otherwise) for size, pixels in work.items()) / sum(work.values())

    def seconds(self, stage: str, composition: Composition, guided: float = 1.0) -> float:
        """Seconds of one step; see `LatencyTable.seconds`."""
        if STAGES[stage].cache != "blocks":
            return self.table.seconds(stage, composition, guided)
        key = (composition, guided)
        value = self._seconds.get(key)
        if value is None:
            value = self._seconds[key] = self.table.seconds(stage, composition, guided, self.share(composition))
        return value

    def scaled(self, factor: float) -> ExpectedReuse:
        """The same with every second multiplied; see `LatencyTable.scaled`."""
        return ExpectedReuse(self.table.scaled(factor), self.shares)

    def standalone(self, request: Request) -> float:
        """Seconds of a request alone on an idle replica, its reuse included."""
        return standalone(self, request)

    def recipe(self, request: Request) -> Recipe:
        """(Stage, steps) of a request, as the table knows them."""
        return recipe_of(self.table, request)
