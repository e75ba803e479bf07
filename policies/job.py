"""A job: the life of one request inside the controller.

Every request ends exactly once. The table below is the whole of what may happen to it; the controller walks it by the
functions at the end of this module, and nothing else does. Policies read jobs: writing to one raises `AttributeError`,
so that none can make a request look done that never ran.

    waiting   known, never started
    running   in a launch
    resident  started and not in a launch: its latents and cache lie on its replica
    finished | dropped | failed | cancelled   ended
    passed    ended because its stages here are done; the request goes on elsewhere as another job, its next leg
    lost      ended because its replica failed; the request begins again as another job
    rerouted  ended before it started because a replica has come; the request is routed again as another job
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from predictors.costs import Batch
from traces.adapters import same_adapters
from traces.composition import Composition
from traces.request import Request, Size
from traces.stages import STAGES, Recipe, ordinary

TRANSITIONS: dict[str, frozenset[str]] = {
    "waiting": frozenset({"running", "dropped", "cancelled", "rerouted"}),
    "running": frozenset({"resident", "finished", "passed", "failed", "cancelled"}),
    "resident": frozenset({"running", "dropped", "failed", "cancelled", "lost"}),
    "finished": frozenset(),
    "passed": frozenset(),
    "dropped": frozenset(),
    "failed": frozenset(),
    "cancelled": frozenset(),
    "lost": frozenset(),
    "rerouted": frozenset(),
}
ENDED = frozenset(state for state, following in TRANSITIONS.items() if not following)

BatchKey = tuple[str, Size, bool]


class ReadOnly:
    """What policies are shown and may not write to."""

    __slots__ = ()

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__}.{name} cannot be written to: policies read it")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__}.{name} cannot be deleted: policies read it")


class Leg(NamedTuple):
    """A request's stay on one pool, where pools serve some stages each: one of its jobs.

    Attributes:
        number: 0, 1, 2, ... of the legs of its request.
        later: the recipes of those after it.
        asked: what the client asked. The request of the job is this leg's part of it: it came when the leg before was
            done, and is due so much earlier that the legs after it have the time that they take alone.
    """

    number: int
    later: tuple[Recipe, ...]
    asked: Request


@dataclass(frozen=True, slots=True, eq=False)
class JobKind:
    """What jobs of one recipe, shape, guidance and set of adapters have in common: one object, found fast in a table.

    Attributes:
        steps: steps in all stages.
        counted: the stages whose steps count as denoising steps: those of a sampler; of a leg that has none its last
            stage, so that policies weigh any leg as they do a request of a few steps.
        main: the last of them: what a step of a batch of these is.
        denoise_steps: of the steps, those of the stages that are counted.
        finish_steps: of them, those after these.
        mixes, alone, batch_key: as of a `Job`.
        batch: one of them alone, what costs are asked for.
        adapters: their adapters, in one spelling (`traces.adapters.same_adapters`). The weights that run a batch are
            those of one set of adapters, so that jobs with others share no launch.
    """

    steps: int
    counted: frozenset[str]
    main: str
    denoise_steps: int
    finish_steps: int
    mixes: bool
    alone: Composition
    batch_key: BatchKey
    batch: Batch
    adapters: str


class Job(ReadOnly):
    """A request under way; policies read it.

    Attributes:
        request: what was asked.
        order: 0, 1, 2, ... in the order of submission; breaks every tie.
        state: see the table of `TRANSITIONS`.
        recipe: (stage, steps) of each of its stages, in order; putting on adapters is none of them. Where pools serve
            some stages each, those of its leg alone.
        leg: which of the legs of its request this is; None: it is all of the request.
        mixes: whether it can share launches with requests of other sizes: all of its stages do.
        stage: the stage it is in or waits for; the last one when it has ended.
        stage_left: steps left in that stage (1 for encode, upscale and decode).
        steps_left: steps left in all stages.
        denoise_steps: denoising steps in all: the steps of its stages that count, see `JobKind.counted`.
        steps_done: of them.
        replica: index of the replica it lives on, -1 before its first launch.
        first_start_s: start of its first launch, seconds; None before.
        finish_s: when it ended, seconds; None before.
        reason: why it was dropped, failed or cancelled.
        note: what else its client should know of what was made; several are parted by semicolons.
        cancelling: why it ends at the next step boundary; empty: it does not.
        batch_key: jobs with equal keys can share a batch of equal shapes.
        images: pictures it makes.
        kind: what it has in common with others of its recipe, shape, guidance and adapters.
        alone: its composition when nothing runs beside it.
        earlier: the same request on a replica that failed, or the leg before this one; None: this is its first job.
        adapters_left: adapters to put on before its first step; a launch of it does that by itself.
        devices: of its replica, on which its last launch ran, where replicas have several.
    """

    __slots__ = (
        "_stage_index",
        "adapters_left",
        "alone",
        "batch_key",
        "cancelling",
        "denoise_steps",
        "devices",
        "earlier",
        "finish_s",
        "first_start_s",
        "images",
        "kind",
        "leg",
        "mixes",
        "note",
        "order",
        "reason",
        "recipe",
        "replica",
        "request",
        "stage",
        "stage_left",
        "state",
        "steps_done",
        "steps_left",
    )

    def __init__(
        self,
        request: Request,
        order: int,
        recipe: Recipe | None = None,
        earlier: Job | None = None,
        adapters: int = 0,
        leg: Leg | None = None,
    ) -> None:
        _become(self, _Written)
        self.request = request
        self.leg = leg
        self.order = order
        self.earlier = earlier
        self.adapters_left = adapters
        self.recipe = recipe = ordinary(request) if recipe is None else recipe
        self.state = "waiting"
        self.replica = -1
        self.devices: tuple[int, ...] = ()
        self.first_start_s: float | None = None
        self.finish_s: float | None = None
        self.reason = ""
        self.note = ""
        self.steps_done = 0
        self.cancelling = ""
        self.images = images = request.images
        self._stage_index = 0
        self.stage, self.stage_left = recipe[0]
        adapters_of_kind = same_adapters(request.adapters) if request.adapters else ""
        self.kind = kind = _kind(recipe, request.model, request.shape, request.guided, images, adapters_of_kind)
        self.steps_left = kind.steps
        self.denoise_steps = kind.denoise_steps
        self.mixes = kind.mixes
        self.alone = kind.alone
        self.batch_key = kind.batch_key
        self.__class__ = Job

    @property
    def stages(self) -> tuple[str, ...]:
        """Its stages, in order."""
        return _stages(self.recipe)

    @property
    def launched_stages(self) -> tuple[str, ...]:
        """The stages of its launches: its own, and before them that in which its adapters are put on, if any are."""
        return ("adapt", *self.stages) if self.adapters_left else self.stages

    @property
    def guided(self) -> bool:
        """Whether classifier-free guidance doubles its denoising work."""
        return self.batch_key[2]

    @property
    def preparing(self) -> bool:
        """Whether it is in a stage before its first denoising step."""
        return STAGES[self.stage].prepares and self.stage not in self.kind.counted

    @property
    def finishing(self) -> bool:
        """Whether it is done but for the stages after its last denoising step."""
        return STAGES[self.stage].finishes and self.stage not in self.kind.counted

    @property
    def denoise_left(self) -> int:
        """Denoising steps still to do."""
        return self.denoise_steps - self.steps_done

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.state in ENDED

    @property
    def done(self) -> bool:
        """Whether all of its steps are done: it has finished, or its request goes on elsewhere."""
        return self.state in ("finished", "passed")

    @property
    def asked(self) -> Request:
        """What its client asked."""
        return self.request if self.leg is None else self.leg.asked

    @property
    def passes_on(self) -> bool:
        """Whether its request goes on elsewhere after its last step."""
        return self.leg is not None and bool(self.leg.later)

    @property
    def receives(self) -> bool:
        """Whether its first launch begins with what the leg before it has handed on."""
        return self.leg is not None and self.leg.number > 0

    @property
    def sampled(self) -> int:
        """Steps done of its stages that are a sampler's."""
        return self.steps_done if STAGES[self.kind.main].sampler else 0

    def segments(self, steps: int) -> Recipe:
        """(stage, steps) of the next ``steps`` steps."""
        if steps <= self.stage_left:
            return ((self.stage, steps),)
        ahead = [(self.stage, self.stage_left)]
        steps -= self.stage_left
        for stage, of_stage in self.recipe[self._stage_index + 1 :]:
            done = min(steps, of_stage)
            ahead.append((stage, done))
            steps -= done
            if not steps:
                break
        return tuple(ahead)

    def done_in(self, stage: str) -> int:
        """Steps done in one stage."""
        names = self.stages
        if stage not in names or (index := names.index(stage)) > self._stage_index:
            return 0
        return self.recipe[index][1] - (self.stage_left if index == self._stage_index else 0)

    def seconds_left(self, seconds: Mapping[str, float]) -> float:
        """Seconds it still needs, when a step of each stage takes as long as ``seconds`` says.

        Adapters that are not on yet count where ``seconds`` has the stage ``adapt``.
        """
        left = self.stage_left * seconds[self.stage]
        if self.adapters_left:
            left += self.adapters_left * seconds.get("adapt", 0.0)
        for stage, steps in self.recipe[self._stage_index + 1 :]:
            left += steps * seconds[stage]
        return left

    def __setstate__(self, state: tuple[None, dict[str, object]]) -> None:
        """A copy is made."""
        for name, value in state[1].items():
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        return f"Job({self.request.request_id!r}, {self.state}, {self.stage}, {self.stage_left} left)"


class _Written(Job):
    """A job while it is written to, as it were its class: reading one then costs no more than reading any attribute.

    Only a class that has both of these of ``object`` is written to as fast as one that never had its own.
    """

    __slots__ = ()
    __setattr__ = object.__setattr__  # type: ignore[assignment]
    __delattr__ = object.__delattr__


_become = object.__dict__["__class__"].__set__
"""``_become(job, _Written)``; ``job.__class__ = Job`` leads back, and faster: a job that is written to takes it."""
set_state = Job.__dict__["state"].__set__
"""``set_state(job, state)``, where nothing else of a job changes, as when one that is resident runs again."""


def start(job: Job, replica: int, now: float) -> None:
    """A launch of a job that waits or is resident begins on a replica."""
    if job.state != "waiting":
        set_state(job, "running")
        return
    _become(job, _Written)
    job.replica = replica
    job.first_start_s = now
    job.state = "running"
    job.__class__ = Job


def advance(job: Job, steps: int) -> bool:
    """Count ``steps`` done, on through the stages; True when that was the last of the last stage."""
    _become(job, _Written)
    _count(job, steps)
    job.__class__ = Job
    return not job.steps_left


def rest(job: Job, steps: int = 0) -> None:
    """A launch of a job has ended after so many of its steps, and the job has not."""
    _become(job, _Written)
    job.state = "resident"
    if steps < job.stage_left:
        job.stage_left -= steps
        job.steps_left -= steps
        if job.stage in job.kind.counted:
            job.steps_done += steps
    else:
        _count(job, steps)
    job.__class__ = Job


def adapt(jobs: Sequence[Job], steps: int) -> int:
    """A launch that puts the adapters of jobs on first has done so many steps; how many are the jobs' own."""
    for job in jobs:
        on = min(steps, job.adapters_left)
        if on:
            _become(job, _Written)
            job.adapters_left -= on
            job.__class__ = Job
            steps -= on
    return steps


def finish(job: Job, now: float) -> None:
    """A launch of a job has ended with the last of its steps: the job ends, and its request goes on if it has more.

    Raises:
        RuntimeError: it is not running.
    """
    if job.state != "running":
        raise _no_way(job, "finished")
    _become(job, _Written)
    job.state = "finished" if job.leg is None or not job.leg.later else "passed"
    job.finish_s = now
    _count_all(job)
    job.__class__ = Job


def _count_all(job: Job) -> None:
    """Let all steps of a job that is written to be done."""
    recipe = job.recipe
    job._stage_index = len(recipe) - 1
    job.stage = recipe[-1][0]
    job.steps_done = job.denoise_steps
    job.stage_left = job.steps_left = 0


def _count(job: Job, steps: int) -> None:
    """Let ``steps`` of a job that is written to be done."""
    if steps == job.steps_left:
        _count_all(job)
        return
    while steps:
        done = min(steps, job.stage_left)
        if job.stage in job.kind.counted:
            job.steps_done += done
        steps -= done
        job.stage_left -= done
        job.steps_left -= done
        if not job.stage_left:
            job._stage_index += 1
            job.stage, job.stage_left = job.recipe[job._stage_index]


def cancel_soon(job: Job, reason: str) -> None:
    """A running job is to end at its next step boundary."""
    _become(job, _Written)
    job.cancelling = reason
    job.__class__ = Job


def come_after(job: Job, earlier: Job | None) -> None:
    """Let a job be the same request as an earlier one, as of an interrupted run."""
    _become(job, _Written)
    job.earlier = earlier
    job.__class__ = Job


def place(job: Job, devices: tuple[int, ...]) -> None:
    """A job runs on these devices of its replica."""
    _become(job, _Written)
    job.devices = devices
    job.__class__ = Job


def remark(job: Job, note: str) -> None:
    """Note what else the client of a job should know."""
    _become(job, _Written)
    job.note = note
    job.__class__ = Job


def end(job: Job, state: str, reason: str, now: float) -> None:
    """A job ends.

    Raises:
        RuntimeError: `TRANSITIONS` does not lead there.
    """
    if state not in TRANSITIONS[job.state]:
        raise _no_way(job, state)
    _become(job, _Written)
    job.state, job.reason, job.finish_s = state, reason, now
    job.__class__ = Job


def _no_way(job: Job, state: str) -> RuntimeError:
    return RuntimeError(f"request {job.request.request_id!r} cannot go from {job.state} to {state}")


@lru_cache(maxsize=4096)
def _kind(recipe: Recipe, model: str, size: Size, guided: bool, images: int, adapters: str) -> JobKind:
    steps = sum([steps for _, steps in recipe])
    samplers = [stage for stage, _ in recipe if STAGES[stage].sampler]
    counted = frozenset(samplers or [recipe[-1][0]])
    denoise_steps = sum([steps for stage, steps in recipe if stage in counted])
    finish_steps = sum([steps for stage, steps in recipe if STAGES[stage].finishes and stage not in counted])
    mixes = all(STAGES[stage].mixes for stage, _ in recipe)
    alone, key = _shape(model, size, guided, images)
    batch = Batch(model, alone, float(guided))
    return JobKind(
        steps=steps,
        counted=counted,
        main=samplers[-1] if samplers else recipe[-1][0],
        denoise_steps=denoise_steps,
        finish_steps=finish_steps,
        mixes=mixes,
        alone=alone,
        batch_key=key,
        batch=batch,
        adapters=adapters,
    )


@lru_cache(maxsize=4096)
def _shape(model: str, size: Size, guided: bool, images: int) -> tuple[Composition, BatchKey]:
    """`Job.alone` and `Job.batch_key`: the same objects whatever the recipe, so that they are found fast."""
    return ((size, images),), (model, size, guided)


@lru_cache(maxsize=4096)
def _stages(recipe: Recipe) -> tuple[str, ...]:
    return tuple([stage for stage, _ in recipe])


def through(stages: tuple[str, ...]) -> Callable[[Request], Recipe]:
    """The recipes of ordinary requests, with those of the stages alone that are named."""
    of_steps = lru_cache(maxsize=4096)(
        lambda steps: tuple([(stage, steps if STAGES[stage].sampler else 1) for stage in stages])
    )
    return lambda request: of_steps(request.steps)
