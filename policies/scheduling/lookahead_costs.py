"""What one more request costs a batch: the few numbers a look-ahead rolls forward with.

A predictor answers for whole batches. Asking it for every batch that a plan might ever form would cost more than
the plan gains, so `MarginalCosts` asks for a few batches of every kind of request: alone, and beside some others, as it
usually runs (cut into patches, an image costs more beside other sizes than beside its own). It keeps what a step costs
for being a step, what more for holding this kind at all, and what for its images. Where sizes share nothing (whole
images of different sizes take turns) the first is 0, so mixing does not pay; where one image saturates the device the
last is a whole step's worth.

What this leaves out, and what the predictor gets wrong, shows as measured over predicted seconds; `learn` keeps the
running ratio and plans are made with it. A predictor may also correct itself; so that costs asked for early and late
can be compared, all are brought to the level of the first answer.
"""

from __future__ import annotations

from typing import NamedTuple

from policies.job import BatchKey, Job, JobKind
from policies.scheduling.mixing import around_s
from predictors.costs import Batch, CostModel
from traces.composition import composition_of

_ALONE = -1
_OTHERS = 5
_SEVERAL = 5
_TRUST_STEPS = 50.0
_FORGET_STEPS = 400.0


class JobCost(NamedTuple):
    """The cost of one kind of request, predicted seconds.

    Attributes:
        kind: 0, 1, 2, ..., one a size and guidance; -1 for all that mix with no other size.
        shared_s: seconds of a step, whatever else is in it.
        kind_s: seconds of a step that holds any of this kind.
        images_s: seconds of a step, for this request's images.
        step_s: seconds of a step with this request alone.
        encode_s: before denoising.
        decode_s: after it.
        of_stages: of a step of each stage alone.
    """

    kind: int
    shared_s: float
    kind_s: float
    images_s: float
    step_s: float
    encode_s: float
    decode_s: float
    of_stages: dict[str, float]


class MarginalCosts:
    """Costs of requests as parts of batches, and how far off they have been.

    Attributes:
        ratio: measured over predicted seconds, running.
    """

    def __init__(self, costs: CostModel) -> None:
        self.ratio = 1.0
        self._steps = 0.0
        self._step_s = costs.step_s
        self._costs: dict[JobKind, JobCost] = {}
        self._of_shapes: dict[tuple[BatchKey, int], JobCost] = {}
        self._remaining_s: dict[tuple[JobKind, int], float] = {}
        self._first_of: dict[BatchKey, Job] = {}
        self._level_s = 0.0  # of one step of the first kind, when it was first asked for

    def of(self, job: Job) -> JobCost:
        """The cost of a job's kind."""
        cost = self._costs.get(job.kind)
        if cost is None:
            cost = self._of_shape(job) if job.mixes else self._ask_alone(job)
            self._costs[job.kind] = cost
        return cost

    def _of_shape(self, job: Job) -> JobCost:
        """Of a job that mixes with other sizes: however many steps it has, they are alike."""
        shape = (job.batch_key, job.images)
        cost = self._of_shapes.get(shape)
        if cost is None:
            if job.batch_key not in self._first_of:
                self._first_of[job.batch_key] = job
                if len(self._first_of) <= 1 + _OTHERS:  # the kinds before it have one more to be mixed with
                    self._costs.clear()
                    self._of_shapes.clear()
                    self._remaining_s.clear()
            cost = self._of_shapes[shape] = self._ask(job)
        return cost

    def remaining_s(self, job: Job) -> float:
        """Predicted seconds a job still needs, alone on a replica."""
        at = (job.kind, job.steps_left)
        seconds = self._remaining_s.get(at)
        if seconds is None:
            of_stages = self.of(job).of_stages  # which may forget what is known
            seconds = self._remaining_s[at] = job.seconds_left(of_stages)
        return seconds

    def learn(self, predicted_s: float, measured_s: float, steps: int) -> None:
        """A batch was predicted to take ``predicted_s`` for some steps, and took ``measured_s``."""
        if predicted_s > 0:
            self._steps = min(self._steps + steps, _FORGET_STEPS)
            self.ratio += (measured_s / predicted_s - self.ratio) * min(1.0, steps / (_TRUST_STEPS + self._steps))

    def _ask(self, job: Job) -> JobCost:
        step_s, batch = self._step_s, job.kind.batch
        level = self._level()
        one_s = step_s("denoise", _one(job))
        others = [other for key, other in self._first_of.items() if key != job.batch_key][:_OTHERS]
        without_s, with_one_s, with_several_s = (self._beside_s(others, job, images) for images in (0, 1, _SEVERAL))
        image_s = min(one_s, max(0.0, (with_several_s - with_one_s) / (_SEVERAL - 1)))
        kind_s = min(one_s - image_s, max(0.0, with_one_s - without_s - image_s)) if others else 0.0
        of_stages = {stage: level * step_s(stage, batch) for stage in job.stages}
        encode_s, decode_s = around_s(job.recipe, of_stages)
        return JobCost(
            kind=list(self._first_of).index(job.batch_key),
            shared_s=level * (one_s - image_s - kind_s),
            kind_s=level * kind_s,
            images_s=level * image_s * job.images,
            step_s=level * step_s("denoise", batch),
            encode_s=encode_s,
            decode_s=decode_s,
            of_stages=of_stages,
        )

    def _ask_alone(self, job: Job) -> JobCost:
        """One that mixes with no other size shares no step.

        Its ``images_s`` and ``step_s`` are all there is between encode and decode.
        """
        level, batch = self._level(), job.kind.batch
        of_stages = {stage: level * self._step_s(stage, batch) for stage in job.stages}
        encode_s, decode_s = around_s(job.recipe, of_stages)
        between_s = sum([steps * of_stages[stage] for stage, steps in job.recipe]) - encode_s - decode_s
        return JobCost(
            kind=_ALONE,
            shared_s=0.0,
            kind_s=0.0,
            images_s=between_s,
            step_s=between_s,
            encode_s=encode_s,
            decode_s=decode_s,
            of_stages=of_stages,
        )

    def _level(self) -> float:
        """What brings an answer of now to the level of the first."""
        if not self._first_of:
            return 1.0
        level_s = self._step_s("denoise", _one(next(iter(self._first_of.values()))))
        self._level_s = self._level_s or level_s
        return self._level_s / level_s if level_s else 1.0

    def _beside_s(self, others: list[Job], job: Job, images: int) -> float:
        """Seconds of a step of an image of each of some other kinds and some of this kind."""
        batch = [(other, 1) for other in others] + ([(job, images)] if images else [])
        if not batch:
            return 0.0
        pixels = [(job.request.pixels * count, job.guided) for job, count in batch]
        guided = sum([of for of, is_guided in pixels if is_guided]) / sum([of for of, _ in pixels])
        composition = composition_of([(job.request.size, count) for job, count in batch])
        return self._step_s("denoise", Batch(job.request.model, composition, guided))


def _one(job: Job) -> Batch:
    """One image of a job's shape alone."""
    return job.kind.batch._replace(composition=((job.request.size, 1),))
