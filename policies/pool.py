"""A pool: replicas of one kind."""

from __future__ import annotations

from dataclasses import dataclass

from predictors.costs import CostModel


@dataclass(frozen=True, eq=False)
class Pool:
    """Replicas that are alike: the same hardware, serving the same models.

    Attributes:
        costs: what steps cost on each of them, as far as policies know.
        replicas: how many there are.
        name: what people call it; empty where it is the only one.
        models: that it serves; empty: all.
    """

    costs: CostModel
    replicas: int = 1
    name: str = ""
    models: frozenset[str] = frozenset()

    def serves(self, model: str) -> bool:
        """Whether requests of a model may run there."""
        return not self.models or model in self.models
