"""Costs for a policy that knows what its cache will save."""

from __future__ import annotations

from collections.abc import Mapping

from predictors.costs import Batch, CostLayer, CostModel
from traces.composition import Composition
from traces.request import Size
from traces.stages import STAGES


class ExpectedReuse(CostLayer):
    """Denoising steps cost what they are expected to with a cache.

    Args:
        table: what computed work costs.
        shares: the share of its work that a request of each size is expected to compute, over its whole run; the mean
            of them is taken for other sizes.
    """

    def __init__(self, table: CostModel, shares: Mapping[Size, float]) -> None:
        super().__init__(table)
        self.shares = dict(shares)
        self._otherwise = sum(self.shares.values()) / len(self.shares)
        self._seconds: dict[tuple[str, Batch], float] = {}

    def share(self, composition: Composition) -> float:
        """The share of a batch's work that is expected to be computed, weighted by pixels."""
        work = {size: n * size[0] * size[1] * size[2] for size, n in composition}
        known = self.shares
        return sum(pixels * known.get(size[:3], self._otherwise) for size, pixels in work.items()) / sum(work.values())

    def step_s(self, stage: str, batch: Batch) -> float:
        """Seconds of one step."""
        if STAGES[stage].cache != "blocks":
            return self.table.step_s(stage, batch)
        value = self._seconds.get((stage, batch))
        if value is None:
            computed = batch._replace(computed=self.share(batch.composition))
            value = self.table.step_s(stage, computed)
            if not self.learns:
                self._seconds[stage, batch] = value
        return value

    def scaled(self, factor: float) -> ExpectedReuse:
        """The same with every second multiplied."""
        return ExpectedReuse(self.table.scaled(factor), self.shares)
