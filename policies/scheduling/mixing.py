"""What a batch of mixed sizes costs, asked for by adding and removing one request at a time.

A policy that weighs whom to admit asks for many batches that differ by one request. To spell out the composition of
each anew would cost more than the predictor's answer. Here batches are nodes that know their neighbours: one request
more is one dictionary lookup. Seconds are never remembered, since a predictor may correct itself while it runs.
"""

from __future__ import annotations

from collections.abc import Iterable

from policies.contract import Predictor
from policies.job import BatchKey, Job
from traces.composition import Composition, composition_of
from traces.request import Size

_MOST_BATCHES = 50_000


class Kind:
    """Requests that cost the same: one model, size, number of pictures, guidance and number of steps.

    Attributes:
        key: what `Job.batch_key` says.
        size: (height, width, frames) in pixels.
        images: pictures a request makes.
        steps: denoising steps.
        alone: the composition of a batch of one.
        guided: 1.0 or 0.0.
        pixels: of all its images.
        stages: the recipe.
        order: 0, 1, 2, ... in order of first appearance.
    """

    __slots__ = ("alone", "guided", "images", "key", "order", "pixels", "size", "stages", "steps")

    def __init__(self, job: Job, order: int) -> None:
        self.key: BatchKey = job.batch_key
        self.size: Size = job.request.size
        self.images = job.images
        self.steps = job.request.steps
        self.alone: Composition = job.alone
        self.guided = float(job.guided)
        self.pixels = job.images * job.request.pixels
        self.stages = job.stages
        self.order = order


class Batch:
    """A batch that was asked for: its composition and the share of its pixels that is guided."""

    __slots__ = ("composition", "guided", "guided_pixels", "less", "more", "pixels")

    def __init__(self, composition: Composition, pixels: int, guided_pixels: int) -> None:
        self.composition = composition
        self.pixels = pixels
        self.guided_pixels = guided_pixels
        self.guided = guided_pixels / pixels if pixels else 0.0
        self.more: dict[Kind, Batch] = {}
        self.less: dict[Kind, Batch] = {}


class BatchCosts:
    """Predicted seconds of batches and of what requests still need.

    Attributes:
        empty: the batch of nothing, where adding begins.
    """

    def __init__(self, predictor: Predictor) -> None:
        self._seconds = predictor.seconds
        self._kinds: dict[tuple[BatchKey, int, int], Kind] = {}
        self._kind_of: dict[Job, Kind] = {}
        self._forget_batches()

    def _forget_batches(self) -> None:
        self.empty = Batch((), 0, 0)
        self._batches: dict[tuple[Composition, int], Batch] = {}

    def kind(self, job: Job) -> Kind:
        """The kind of a job, remembered until `forget`."""
        kind = self._kind_of.get(job)
        if kind is None:
            key = (job.batch_key, job.images, job.request.steps)
            kind = self._kinds.get(key)
            if kind is None:
                kind = self._kinds[key] = Kind(job, len(self._kinds))
            self._kind_of[job] = kind
        return kind

    def forget(self, job: Job) -> None:
        """A job has ended."""
        self._kind_of.pop(job, None)

    def batch(self, jobs: Iterable[Job]) -> Batch:
        """The batch of these jobs."""
        batch = self.empty
        for job in jobs:
            batch = self.plus(batch, self.kind(job))
        return batch

    def plus(self, batch: Batch, kind: Kind) -> Batch:
        """The batch with one request of this kind more."""
        return batch.more.get(kind) or self._neighbour(batch, kind, 1)

    def minus(self, batch: Batch, kind: Kind) -> Batch:
        """The batch with one request of this kind less; it must hold one."""
        return batch.less.get(kind) or self._neighbour(batch, kind, -1)

    def _neighbour(self, batch: Batch, kind: Kind, sign: int) -> Batch:
        if len(self._batches) > _MOST_BATCHES:
            self._forget_batches()
        counted = composition_of([*batch.composition, (kind.size, sign * kind.images)])
        composition = tuple([item for item in counted if item[1]])
        guided_pixels = batch.guided_pixels + (sign * kind.pixels if kind.guided else 0)
        key = (composition, guided_pixels)
        found = self._batches.get(key)
        if found is None:
            found = self._batches[key] = Batch(composition, batch.pixels + sign * kind.pixels, guided_pixels)
        (batch.more if sign > 0 else batch.less)[kind] = found
        (found.less if sign > 0 else found.more)[kind] = batch
        return found

    def step_s(self, batch: Batch) -> float:
        """Seconds of one denoising step of a batch that is not empty."""
        return self._seconds("denoise", batch.composition, batch.guided)

    def stage_s(self, kind: Kind, stage: str) -> float:
        """Seconds of one step of a stage for a request alone; 0.0 for a stage its recipe lacks."""
        return self._seconds(stage, kind.alone, kind.guided) if stage in kind.stages else 0.0

    def whole_s(self, kind: Kind) -> float:
        """Seconds of a whole request alone."""
        return self.left_s(kind, "encode", kind.steps, self.stage_s(kind, "denoise"))

    def remaining_s(self, job: Job) -> float:
        """Seconds a job still needs alone."""
        kind = self.kind(job)
        return self.left_s(kind, job.stage, job.denoise_left, self.stage_s(kind, "denoise"))

    def left_s(self, kind: Kind, stage: str, steps: int, step_s: float) -> float:
        """Seconds a request in ``stage`` still needs if each of its ``steps`` denoising steps takes ``step_s``."""
        encode_s = self.stage_s(kind, "encode") if stage == "encode" else 0.0
        return encode_s + steps * step_s + self.stage_s(kind, "decode")
