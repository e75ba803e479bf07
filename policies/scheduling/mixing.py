"""What a batch of mixed sizes costs, asked for by adding and removing one request at a time.

A policy that weighs whom to admit asks for many batches that differ by one request. To spell out the composition of
each anew would cost more than the answer. Here batches are nodes that know their neighbours: one request
more is one dictionary lookup. What a step costs is kept with each (`predictors.costs.StepCost`), and what follows from
that for a request alone, as long as no step costs anything else: where costs learn from launches, it may at any time.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import NamedTuple, TypeVar

from policies.job import BatchKey, Job, JobKind
from predictors.costs import Batch, CostModel, StepCost
from traces.composition import Composition, composition_of
from traces.request import Size
from traces.stages import STAGES, Recipe

_MOST_BATCHES = 50_000
_Asked = TypeVar("_Asked", bound=Hashable)
_Answer = TypeVar("_Answer")


class Alone(NamedTuple):
    """Predicted seconds of a request alone: encode, one denoising step, decode; 0.0 for a stage its recipe lacks.

    The denoising step of a request that mixes with no other size is the mean of all between its encode and its decode.
    """

    encode_s: float
    step_s: float
    decode_s: float


class BatchKind:
    """Requests that cost the same: one recipe, model, size, number of pictures and guidance.

    Attributes:
        size: (height, width, frames) in pixels.
        images: pictures a request makes.
        steps: denoising steps, of sketch and refinement both; see `policies.job.JobKind.counted`.
        main: the stage of such a step.
        counted: the stages of such steps.
        batch: one alone.
        pixels: pixels of all its images.
        recipe: (stage, steps) in order.
        mixes: whether it can share a batch with other sizes.
        step_costs: of each stage, in order.
        steps_s: seconds of a step of each stage, when these were added up:
        seconds: of the whole request.
    """

    __slots__ = (
        "batch",
        "counted",
        "images",
        "main",
        "mixes",
        "pixels",
        "recipe",
        "seconds",
        "size",
        "step_costs",
        "steps",
        "steps_s",
    )

    def __init__(self, job: Job) -> None:
        self.size: Size = job.request.shape
        self.images = job.images
        self.steps = job.denoise_steps
        self.main, self.counted = job.kind.main, job.kind.counted
        self.batch = job.kind.batch
        self.pixels = job.images * job.request.pixels
        self.recipe = job.recipe
        self.mixes = job.mixes
        self.seconds: Alone | None = None
        self.step_costs: list[StepCost] | None = None
        self.steps_s: list[float] = []


class MixedBatch:
    """A batch that was asked for: model, composition, guided share, and the batches of one request more or less.

    ``kind`` is the one that is alone in it, because it mixes with no other; ``stage`` is that of a step of it.
    """

    __slots__ = (
        "composition",
        "guided",
        "guided_pixels",
        "kind",
        "less",
        "model",
        "more",
        "pixels",
        "stage",
        "step_cost",
    )

    def __init__(
        self,
        model: str,
        stage: str,
        composition: Composition,
        pixels: int,
        guided_pixels: int,
        kind: BatchKind | None = None,
    ) -> None:
        self.model = model
        self.stage = stage
        self.composition = composition
        self.pixels = pixels
        self.guided_pixels = guided_pixels
        self.guided = guided_pixels / pixels if pixels else 0.0
        self.kind = kind
        self.step_cost: StepCost | None = None
        self.more: dict[BatchKind, MixedBatch] = {}
        self.less: dict[BatchKind, MixedBatch] = {}


def around_s(kind: BatchKind, of_stages: Mapping[str, float]) -> tuple[float, float]:
    """Seconds before the first denoising step and after the last, by the seconds of a step of each stage."""
    around = [(stage, steps) for stage, steps in kind.recipe if stage not in kind.counted]
    before_s = sum([steps * of_stages[stage] for stage, steps in around if STAGES[stage].prepares], 0.0)
    return before_s, sum([steps * of_stages[stage] for stage, steps in around if STAGES[stage].finishes], 0.0)


class BatchCosts:
    """Predicted seconds of batches and of what requests still need.

    Attributes:
        empty: the batch of nothing, where adding begins.
    """

    def __init__(self, costs: CostModel) -> None:
        self._step_cost = costs.step_cost
        self._remember = not costs.learns
        self._kinds: dict[tuple[Recipe, BatchKey, int], BatchKind] = {}
        self._kind_of: dict[JobKind, BatchKind] = {}
        self._forget_batches()

    def _forget_batches(self) -> None:
        self.empty = MixedBatch("", "", (), 0, 0)
        self._batches: dict[tuple[str, Composition, int, BatchKind | None], MixedBatch] = {}

    def kind(self, job: Job) -> BatchKind:
        """The kind of a job."""
        kind = self._kind_of.get(job.kind)
        if kind is None:
            key = (job.recipe, job.batch_key, job.images)
            kind = self._kinds.get(key)
            if kind is None:
                kind = self._kinds[key] = BatchKind(job)
            self._kind_of[job.kind] = kind
        return kind

    def batch(self, jobs: Iterable[Job]) -> MixedBatch:
        """The batch of these jobs."""
        batch = self.empty
        for job in jobs:
            batch = self.plus(batch, self.kind(job))
        return batch

    def plus(self, batch: MixedBatch, kind: BatchKind) -> MixedBatch:
        """The batch with one request of this kind more."""
        return batch.more.get(kind) or self._neighbour(batch, kind, 1)

    def fits(self, batch: MixedBatch, kind: BatchKind) -> bool:
        """Whether a request of this kind can join a batch of kinds that mix: any can be the first."""
        return kind.mixes or not batch.pixels

    def minus(self, batch: MixedBatch, kind: BatchKind) -> MixedBatch:
        """The batch with one request of this kind less; it must hold one."""
        return batch.less.get(kind) or self._neighbour(batch, kind, -1)

    def _neighbour(self, batch: MixedBatch, kind: BatchKind, sign: int) -> MixedBatch:
        if len(self._batches) > _MOST_BATCHES:
            self._forget_batches()
        counted = composition_of([*batch.composition, (kind.size, sign * kind.images)])
        composition = tuple([item for item in counted if item[1]])
        guided_pixels = batch.guided_pixels + (sign * kind.pixels if kind.batch.guided_share else 0)
        alone = None if kind.mixes or batch.pixels else kind
        stage = batch.stage if batch.pixels else kind.main
        key = (stage, composition, guided_pixels, alone)
        found = self._batches.get(key)
        if found is None:
            found = self._batches[key] = MixedBatch(
                kind.batch.model, stage, composition, batch.pixels + sign * kind.pixels, guided_pixels, alone
            )
        (batch.more if sign > 0 else batch.less)[kind] = found
        (found.less if sign > 0 else found.more)[kind] = batch
        return found

    def step_s(self, batch: MixedBatch) -> float:
        """Seconds of one denoising step of a batch that is not empty."""
        if batch.kind is not None:
            return self.alone(batch.kind).step_s
        cost = batch.step_cost
        if cost is None:
            cost = self._step_cost(batch.stage, Batch(batch.model, batch.composition, batch.guided))
            batch.step_cost = cost
        return cost.step_s

    def alone(self, kind: BatchKind) -> Alone:
        """Seconds of each stage of a request alone."""
        seconds = kind.seconds
        if seconds is not None and self._remember:
            return seconds
        steps_s = self._steps_s(kind)
        if seconds is None or steps_s != kind.steps_s:
            of_stages = self.of_stages(kind)
            encode_s, decode_s = around_s(kind, of_stages)
            if kind.mixes:
                seconds = Alone(encode_s, of_stages[kind.main], decode_s)
            else:
                whole_s = sum([steps * of_stages[stage] for stage, steps in kind.recipe])
                seconds = Alone(encode_s, (whole_s - encode_s - decode_s) / kind.steps, decode_s)
            kind.seconds, kind.steps_s = seconds, steps_s
        return seconds

    def of_stages(self, kind: BatchKind) -> dict[str, float]:
        """Seconds of a step of each stage of a request alone."""
        return {stage: step_s for (stage, _), step_s in zip(kind.recipe, self._steps_s(kind), strict=True)}

    def _steps_s(self, kind: BatchKind) -> list[float]:
        step_costs = kind.step_costs
        if step_costs is None:
            step_costs = kind.step_costs = [self._step_cost(stage, kind.batch) for stage, _ in kind.recipe]
        return [cost.step_s for cost in step_costs]

    def now(self) -> CostsNow:
        """What batches cost until something is learned."""
        return CostsNow(self)

    def whole_s(self, kind: BatchKind) -> float:
        """Seconds of a whole request alone."""
        alone = self.alone(kind)
        return alone.encode_s + kind.steps * alone.step_s + alone.decode_s

    def remaining_s(self, job: Job, step_s: float | None = None) -> float:
        """Seconds a job still needs if each of its denoising steps takes ``step_s``; by default as long as alone.

        One that mixes with no other size runs alone.
        """
        kind = self.kind(job)
        if not kind.mixes:
            return job.seconds_left(self.of_stages(kind))
        alone = self.alone(kind)
        if step_s is None:
            step_s = alone.step_s
        encode_s = alone.encode_s if job.preparing else 0.0
        return encode_s + job.denoise_left * step_s + alone.decode_s


class CostsNow:
    """What batches cost at one instant: nothing is learned meanwhile, so each is looked up once.

    Attributes:
        empty, kind, plus, remaining_s: as of `BatchCosts`.
        alone: as there, of a kind.
        step_s: as there, of a batch.
    """

    __slots__ = ("alone", "empty", "kind", "plus", "remaining_s", "step_s")

    def __init__(self, costs: BatchCosts) -> None:
        self.empty, self.kind, self.plus, self.remaining_s = costs.empty, costs.kind, costs.plus, costs.remaining_s
        self.alone = _Known(costs.alone).__getitem__
        self.step_s = _Known(costs.step_s).__getitem__


class _Known(dict[_Asked, _Answer]):
    """Answers that are asked for when they are first wanted."""

    __slots__ = ("_ask",)

    def __init__(self, ask: Callable[[_Asked], _Answer]) -> None:
        self._ask = ask

    def __missing__(self, asked: _Asked) -> _Answer:
        answer = self[asked] = self._ask(asked)
        return answer
