"""What steps cost: the question that policies, worlds and reports ask, and the layers that change its answer.

A `CostModel` answers for one step of one stage of one `Batch`. Everything else follows from that: a whole request alone
is the sum over its recipe. A `CostLayer` wraps another model and says what it knows better, tiles, adapters, a cache,
what launches really took, in `step_s` alone; all that it says nothing about it passes on. So layers stack in any order,
and one to add is one class.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from traces.composition import Composition
from traces.request import Request
from traces.stages import STAGES, Recipe, ordinary


class Batch(NamedTuple):
    """What runs together: what a cost is asked for.

    Attributes:
        model: that all its requests are of.
        composition: how many images of each size, canonical (`traces.composition.composition_of`).
        guided_share: the share of its pixels that classifier-free guidance doubles, 0 to 1.
        devices: on which a stage runs that uses several, as what a launch computes says where replicas have several;
            None: all devices of a replica, as far as its steps can use them.
        computed: the share of the work that a cache computes, above 0 to 1; None: no cache looks after it.
    """

    model: str
    composition: Composition
    guided_share: float = 1.0
    devices: int | None = None
    computed: float | None = None


def alone(request: Request) -> Batch:
    """The batch of one request."""
    return Batch(request.model, ((request.shape, request.images),), float(request.guided))


@dataclass(frozen=True, slots=True)
class RepeatNoise:
    """The noise of one stage.

    Attributes:
        ratios: measured over predicted seconds, one for each measurement; ``(1.0,)`` when unknown. Their mean is above
            1 where slow outliers count less in the fitted model than they do in a run.
        steps: steps that one measurement spanned, so how long one drawn ratio holds.
    """

    ratios: tuple[float, ...] = (1.0,)
    steps: int = 1


class StepCost:
    """What a step of one stage costs for one batch, for whoever asks again and again: asking a model looks the batch
    up every time.

    Attributes:
        step_s: seconds of a step, by all that is known now.
    """

    __slots__ = ()

    @property
    def step_s(self) -> float:
        raise NotImplementedError

    def observe(self, predicted_step_s: float, measured_step_s: float, steps: int) -> None:
        """See `CostModel.observe`."""


class FixedCost(StepCost):
    """What a model says that does not learn."""

    __slots__ = ("step_s",)

    step_s: float

    def __init__(self, step_s: float) -> None:
        self.step_s = step_s


class AskedCost(StepCost):
    """What a model says that learns, asked for every time."""

    __slots__ = ("_batch", "_costs", "_stage")

    def __init__(self, costs: CostModel, stage: str, batch: Batch) -> None:
        self._costs, self._stage, self._batch = costs, stage, batch

    @property
    def step_s(self) -> float:
        return self._costs.step_s(self._stage, self._batch)

    def observe(self, predicted_step_s: float, measured_step_s: float, steps: int) -> None:
        self._costs.observe(self._stage, self._batch, predicted_step_s, measured_step_s, steps)


class CostModel:
    """Base of everything that says what steps cost. Only `step_s` must be written."""

    @property
    def learns(self) -> bool:
        """Whether `observe` is to be told what launches took: then no answer may be remembered."""
        return False

    @property
    def observed(self) -> int:
        """How often it was told what a launch took; 0: never, or it does not count."""
        return 0

    def step_s(self, stage: str, batch: Batch) -> float:
        """Seconds of one step of a stage for a batch; 0.0 for a stage that was not measured.

        Raises:
            BadInput: an unknown stage.
        """
        raise NotImplementedError

    def step_cost(self, stage: str, batch: Batch) -> StepCost:
        """What `step_s` answers, to be kept.

        Raises:
            BadInput: an unknown stage.
        """
        return AskedCost(self, stage, batch) if self.learns else FixedCost(self.step_s(stage, batch))

    def recipe(self, request: Request) -> Recipe:
        """(Stage, steps) of a request, in order."""
        return ordinary(request)

    def standalone_s(self, request: Request) -> float:
        """Seconds of a whole request alone on an idle replica."""
        batch = alone(request)
        whole_s = 0.0
        for stage, steps in self.recipe(request):
            whole_s += steps * self.step_s(stage, batch)
        return whole_s

    def observe(self, stage: str, batch: Batch, predicted_step_s: float, measured_step_s: float, steps: int) -> None:
        """Be told what ``steps`` steps of a launch took: seconds a step as `step_s` answered and as they were."""

    def moved_bytes(self, stage: str, batch: Batch) -> float:
        """Bytes that a step of a stage that moves what lies of requests brings from elsewhere; by default none."""
        return 0.0

    def of_model(self, model: str) -> CostModel:
        """The costs of one model's requests, where those of several models are known; else these."""
        return self

    def degrees(self, model: str) -> tuple[int, ...]:
        """On how many devices a denoising step of a model can run, ascending; by default on one."""
        return (1,)

    def degree(self, stage: str, batch: Batch) -> int:
        """On how many of a batch's devices a step of a stage runs: by default a sampler's on all, others on one."""
        row = STAGES[stage]
        return (batch.devices or 1) if row.sampler and (row.divides or row.devices) else 1

    def extrapolation(self, stage: str, composition: Composition) -> float:
        """1.0 inside the measured range, else by what factor the worst of what runs lies outside."""
        return 1.0

    def extrapolates(self, stage: str, composition: Composition) -> bool:
        """Whether something that runs lies outside the measured range."""
        return self.extrapolation(stage, composition) > 1.0

    def noise(self, stage: str) -> RepeatNoise:
        """How measurements of one batch differ; by default not at all."""
        return RepeatNoise()

    def scaled(self, factor: float) -> CostModel:
        """The same with every second multiplied."""
        return Scaled(self, factor)


class CostLayer(CostModel):
    """A model that knows better than another what some steps cost.

    Attributes:
        table: the model that is asked for everything else.
    """

    table: CostModel

    def __init__(self, table: CostModel) -> None:
        self.table = table

    @property
    def learns(self) -> bool:
        """Whether anything that it wraps does."""
        return self.table.learns

    @property
    def observed(self) -> int:
        return self.table.observed

    def step_s(self, stage: str, batch: Batch) -> float:
        return self.table.step_s(stage, batch)

    def recipe(self, request: Request) -> Recipe:
        return self.table.recipe(request)

    def observe(self, stage: str, batch: Batch, predicted_step_s: float, measured_step_s: float, steps: int) -> None:
        self.table.observe(stage, batch, predicted_step_s, measured_step_s, steps)

    def moved_bytes(self, stage: str, batch: Batch) -> float:
        return self.table.moved_bytes(stage, batch)

    def degrees(self, model: str) -> tuple[int, ...]:
        return self.table.degrees(model)

    def degree(self, stage: str, batch: Batch) -> int:
        return self.table.degree(stage, batch)

    def extrapolation(self, stage: str, composition: Composition) -> float:
        return self.table.extrapolation(stage, composition)

    def noise(self, stage: str) -> RepeatNoise:
        return self.table.noise(stage)


class OnDevices(CostLayer):
    """Another model's seconds on so many devices of a replica, whatever a batch says."""

    def __init__(self, table: CostModel, devices: int) -> None:
        super().__init__(table)
        self.devices = devices

    def step_s(self, stage: str, batch: Batch) -> float:
        return self.table.step_s(stage, batch._replace(devices=self.devices))

    def degree(self, stage: str, batch: Batch) -> int:
        return self.table.degree(stage, batch._replace(devices=self.devices))

    def step_cost(self, stage: str, batch: Batch) -> StepCost:
        return self.table.step_cost(stage, batch._replace(devices=self.devices))

    def observe(self, stage: str, batch: Batch, predicted_step_s: float, measured_step_s: float, steps: int) -> None:
        self.table.observe(stage, batch._replace(devices=self.devices), predicted_step_s, measured_step_s, steps)


class Scaled(CostLayer):
    """Another model's seconds, multiplied."""

    def __init__(self, table: CostModel, factor: float) -> None:
        super().__init__(table)
        self.factor = factor

    def step_s(self, stage: str, batch: Batch) -> float:
        return self.factor * self.table.step_s(stage, batch)
