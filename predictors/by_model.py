"""Costs of several models: each model's own are asked."""

from __future__ import annotations

from collections.abc import Mapping

from predictors.costs import Batch, CostModel, RepeatNoise, StepCost
from traces.composition import Composition
from traces.request import Request
from traces.stages import Recipe


class ByModel(CostModel):
    """What steps of several models cost on one kind of replica; a batch holds one model.

    What is asked without a batch or a request (noise, extrapolation) is asked of one model's costs, see `of_model`.

    Args:
        of: costs of each model by its name.
    """

    def __init__(self, of: Mapping[str, CostModel]) -> None:
        self._of = dict(of)

    @property
    def learns(self) -> bool:
        """Whether any of them does."""
        return any(costs.learns for costs in self._of.values())

    def of_model(self, model: str) -> CostModel:
        """The costs of one model.

        Raises:
            KeyError: they are not known.
        """
        return self._of[model]

    def step_s(self, stage: str, batch: Batch) -> float:
        return self._of[batch.model].step_s(stage, batch)

    def step_cost(self, stage: str, batch: Batch) -> StepCost:
        return self._of[batch.model].step_cost(stage, batch)

    def recipe(self, request: Request) -> Recipe:
        return self._of[request.model].recipe(request)

    def standalone_s(self, request: Request) -> float:
        return self._of[request.model].standalone_s(request)

    def observe(self, stage: str, batch: Batch, predicted_step_s: float, measured_step_s: float, steps: int) -> None:
        self._of[batch.model].observe(stage, batch, predicted_step_s, measured_step_s, steps)

    def moved_bytes(self, stage: str, batch: Batch) -> float:
        return self._of[batch.model].moved_bytes(stage, batch)

    def degrees(self, model: str) -> tuple[int, ...]:
        return self._of[model].degrees(model)

    def degree(self, stage: str, batch: Batch) -> int:
        return self._of[batch.model].degree(stage, batch)

    def extrapolation(self, stage: str, composition: Composition) -> float:
        raise TypeError("sizes without a model: ask of_model(model).extrapolation")

    def noise(self, stage: str) -> RepeatNoise:
        raise TypeError("a stage without a model: ask of_model(model).noise")

    def scaled(self, factor: float) -> ByModel:
        return ByModel({model: costs.scaled(factor) for model, costs in self._of.items()})
