"""The simulated world: how long things really take.

Durations come from a fitted latency table and the repeat noise of its measurements. The clock counts picoseconds
in whole numbers: a step's base duration is a whole number of nanoseconds, its noise a whole number of thousandths,
so a quantum of n steps takes exactly as long as n quanta of one step.

One noise draw holds for as many steps as one measurement spanned: noise seen on 50-step totals would average out if
every step drew its own. Draws belong to a replica and a stage, in order of the steps it runs, so they do not depend
on how steps are grouped into launches.

With a cache a denoising step takes as long as what is computed of it. How much that is differs from step to step, but
depends on nothing that happens meanwhile (`policies.caching.plan`), so a quantum is still one event: its boundaries are
known when it starts. The same holds for refinement: a step takes as long as the busiest device of the replica, with the
tiles of all requests of the launch, and their exchange (`policies.tiling.plan`). All other stages run on the first
device.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import numpy as np

from policies.caching.plan import CachePlans
from policies.contract import Launch, LaunchWork
from policies.tiling.plan import TilePlans
from policies.tiling.timing import Timing
from predictors.costs import Batch, CostModel
from predictors.loading import LoadTimes
from sim.durations import Durations
from sim.timeline import Part, Timeline
from traces.stages import STAGES
from traces.streams import stream

_FIRST_DRAWN, _MOST_DRAWN = 256, 16384
"""Steps whose noise is drawn at a time: few at first, as a large cluster has many streams, and twice as many every
time."""
_MOST_KNOWN = 100_000
_Key = TypeVar("_Key")
_Value = TypeVar("_Value")

_Known = tuple[LaunchWork, int, list[tuple[str, int, int]], tuple[int, ...]]
"""Of launches of the same work: this, the images of a step, of each stage (its name, steps, nanoseconds of a step
without noise, at least 1; 0: its steps are not alike), and the bytes that each of its first steps moves."""


class NoiseStream:
    """Noise of the successive steps of one stage on one replica, as running sums in thousandths.

    Attributes:
        sums: those drawn; never changed, but replaced.
        next: the place in them of the sum before the next step.
    """

    __slots__ = ("_chunk", "_hold_steps", "_rng", "_thousandths", "next", "sums")

    def __init__(self, ratios: tuple[float, ...], hold_steps: int, rng: np.random.Generator | None) -> None:
        self._thousandths = np.maximum(1, np.rint(1000 * np.asarray(ratios))).astype(np.int64)
        self._hold_steps = hold_steps
        self._chunk = _FIRST_DRAWN
        self._rng = rng
        self.sums = array("q", [0])
        self.next = 0

    def draw(self, steps: int) -> None:
        """Let ``steps`` more steps at least be in the sums, and the next one first."""
        sums = self.sums[self.next :]
        while len(sums) <= steps:
            draws = -(-self._chunk // self._hold_steps)
            if self._rng is None:
                factors = np.full(draws, 1000)
            else:  # what `Generator.choice` does
                factors = self._thousandths[self._rng.integers(0, len(self._thousandths), draws)]
            if self._hold_steps > 1:
                factors = factors.repeat(self._hold_steps)
            factors[0] += sums[-1]
            sums.frombytes(factors.cumsum().tobytes())
            self._chunk = min(2 * self._chunk, _MOST_DRAWN)
        self.sums, self.next = sums, 0


class World(Durations):
    """Durations of launches of one model on replicas of one kind.

    Args:
        costs: what the truth is taken from.
        replicas: number of replicas; each has its own noise, and so has each of its devices.
        seed: seed of the named random streams ``world/<replica>/<stage>``; of launches that begin on a later device of
            their replica, ``world/<replica>.<device>/<stage>``.
        noise: whether to draw repeat noise.
        slowdown: every step takes this many times as long as the table says.
        plans: what a cache computes of each request; None: there is no cache.
        tiles: what refinement takes; None: no request is tiled.
        loads: what loading takes; None: all requests want the same weights, always there.
        model: of several that are served, whose streams this world has: ``world/<replica>/<model>/<stage>``.
    """

    def __init__(
        self,
        costs: CostModel,
        replicas: int,
        seed: int = 0,
        noise: bool = True,
        slowdown: float = 1.0,
        plans: CachePlans | None = None,
        tiles: TilePlans | None = None,
        loads: LoadTimes | None = None,
        model: str = "",
    ) -> None:
        self.replicas = replicas
        self._model = f"{model}/" if model else ""
        self._loads = loads
        self._costs = costs
        self._slowdown = slowdown
        self._plans = plans
        self._tiles = tiles
        self._base: dict[Batch, _Asked[str, int]] = {}
        self._known: dict[int, _Known] = {}  # by the identity of the work
        self._cached: dict[tuple[str, Batch, int], int] = {}
        self._uneven = frozenset(  # stages whose steps are not alike
            STAGES.named(lambda stage: {"blocks": plans, "tiles": tiles}.get(stage.cache) is not None)
        )
        self._account = None if plans is None and tiles is None else self._work
        self.clocks = [_Asked(partial(self._clock, str(replica), seed, noise)) for replica in range(replicas)]
        self._clocks_beside: _Asked[tuple[int, int], _Asked[str, NoiseStream]] = _Asked(
            lambda of: _Asked(partial(self._clock, "{}.{}".format(*of), seed, noise))
        )

    def _clocks(self, launch: Launch) -> _Asked[str, NoiseStream]:
        """The noise of a launch's stages: that of the first of its devices, which no other has meanwhile."""
        first = launch.devices[0]
        return self._clocks_beside[launch.replica, first] if first else self.clocks[launch.replica]

    def _clock(self, replica: str, seed: int, noise: bool, stage: str) -> NoiseStream:
        if STAGES[stage].weights or STAGES[stage].moves:
            return NoiseStream((1.0,), 1, None)
        measured = self._costs.noise(stage)
        rng = stream(seed, f"world/{replica}/{self._model}{stage}") if noise and len(measured.ratios) > 1 else None
        return NoiseStream(measured.ratios, measured.steps, rng)

    def timeline(self, launch: Launch, start: int, slowdown: int = 1000, steps: int | None = None) -> Timeline:
        work, planned = launch.work, launch.steps
        known = self._known.get(id(work))
        if known is None or known[0] is not work or launch.load is not None:
            known = self._even_steps(launch)
        _, images, even, moved = known
        if steps is not None:
            planned, even = steps, even[:1]
        clocks = self.clocks[launch.replica] if launch.devices[0] == 0 else self._clocks(launch)
        end = start
        parts: list[Part] = []
        for stage, count, unit in even:
            if count > planned:
                count = planned
            clock = clocks[stage]
            first = clock.next
            last = first + count
            if last >= len(clock.sums):
                clock.draw(count)
                first, last = 0, count
            clock.next = last
            sums: Sequence[int] = clock.sums
            if not unit:
                ends = self._ends(launch, stage, [total - sums[first] for total in sums[first + 1 : last + 1]])
                slowed = ends if slowdown == 1000 else [at * slowdown // 1000 for at in ends]
                sums, first, last = [0, *slowed], 0, count
                unit = 1
            elif slowdown != 1000:
                unit = max(1, unit * slowdown // 1000)
            end += unit * (sums[last] - sums[first])
            parts.append((stage, count, end, unit, sums, first))
        if moved:
            return Timeline(launch, start, parts, planned, images, self._account, moved=moved)
        return Timeline(launch, start, parts, planned, images, self._account)

    def put_back(self, timeline: Timeline, time: int) -> None:
        clocks = self._clocks(timeline.launch)
        for stage, steps in timeline.left(time):
            clocks[stage].next -= steps

    def came(self, replica: int) -> None:
        if self._loads is not None:
            self._loads.came(replica)

    def lost(self, replica: int) -> None:
        if self._loads is not None:
            self._loads.lost(replica)

    def _even_steps(self, launch: Launch) -> _Known:
        """What is the same for all launches that share their work, unless that is loading weights."""
        work, load = launch.work, launch.load
        if load is not None:
            assert self._loads is not None
            nanoseconds = max(1, round(1e9 * self._loads.seconds(launch.replica, load.checkpoint)))
            return work, 0, [("load", 1, nanoseconds)], ()
        batch = work.batch
        base = self._base.get(batch)
        if base is None:
            base = self._base[batch] = _Asked(lambda stage: self._ns(stage, batch))
        even = [(stage, steps, 0 if stage in self._uneven else base[stage]) for stage, steps in work.stages]
        moved: tuple[int, ...] = ()
        if STAGES[work.stages[0][0]].moves:
            moving = [(stage, work.batch_of(stage)) for stage, _ in work.stages if STAGES[stage].moves]
            even[: len(moving)] = [(stage, 1, self._ns(stage, of)) for stage, of in moving]
            moved = tuple([round(self._costs.moved_bytes(stage, of)) for stage, of in moving])
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        known = self._known[id(work)] = work, sum([count for _, count in batch.composition]), even, moved
        return known

    def _ends(self, launch: Launch, stage: str, factors: Sequence[int]) -> list[int]:
        """Picoseconds from a launch's first step of a stage of steps that vary to the end of each, with noise.

        ``factors`` are the sums of its first 1, 2, ... steps' factors, in thousandths.
        """
        if STAGES[stage].cache == "tiles":
            return self._refined(launch, stage, factors)
        assert self._plans is not None
        batch, steps = launch.batch, len(factors)
        of_jobs = [self._plans.of(job.request).shares[job.steps_done : job.steps_done + steps] for job in launch.jobs]
        work = [job.images * job.request.pixels * (2 if job.guided else 1) for job in launch.jobs]
        total = sum(work)
        ends, at, before = [], 0, 0
        for factor, shares in zip(factors, zip(*of_jobs, strict=True), strict=True):
            share = sum([w * of_job for w, of_job in zip(work, shares, strict=True)]) / total
            hundredths = max(1, round(100 * share))
            key = (stage, batch, hundredths)
            ns = self._cached.get(key)
            if ns is None:
                ns = self._cached[key] = self._ns(stage, batch._replace(computed=hundredths / 100))
            at += ns * (factor - before)
            before = factor
            ends.append(at)
        return ends

    def _refined(self, launch: Launch, stage: str, factors: Sequence[int]) -> list[int]:
        timings = self._timings(launch, stage)
        ends, at, before = [], 0, 0
        for step, factor in enumerate(factors):
            devices_s = zip(*[timing.device_s[start + step] for timing, start in timings], strict=True)
            links_s = [timing.link_s[start + step] for timing, start in timings]
            seconds = max([sum(of_jobs) for of_jobs in devices_s]) + sum(links_s)
            at += self._whole_ns(seconds) * (factor - before)
            before = factor
            ends.append(at)
        return ends

    def _timings(self, launch: Launch, stage: str) -> list[tuple[Timing, int]]:
        """What each job of a launch takes in a stage of tiles, and the steps of it done before."""
        assert self._tiles is not None
        return [(self._tiles.of(job.request), job.done_in(stage)) for job in launch.jobs]

    def _work(
        self, launch: Launch, steps: int, refined: int, refine_s: float, others_s: float
    ) -> tuple[int, int, tuple[float, ...]]:
        """What a launch computed, what it reused, and the busy seconds of each device of the replica, as in `Outcome`.

        Args:
            launch: which.
            steps: steps done in it.
            refined: steps of refinement done or under way.
            refine_s: what those took.
            others_s: what its other steps took.
        """
        computed, reused = self._units(launch, steps)
        return (
            computed,
            reused,
            (others_s,) if self._tiles is None else self._busy_s(launch, refined, refine_s, others_s),
        )

    def _busy_s(self, launch: Launch, refined: int, refine_s: float, others_s: float) -> tuple[float, ...]:
        assert self._tiles is not None
        busy = [0.0] * self._tiles.costs.devices.count
        if refined:
            planned_s = 0.0
            (stage,) = [stage for stage, _ in launch.work.stages if STAGES[stage].devices]
            timings = self._timings(launch, stage)
            for step in range(refined):
                of_step = [timing.device_s[start + step] for timing, start in timings]
                of_devices = [sum(of_jobs) for of_jobs in zip(*of_step, strict=True)]
                planned_s += max(of_devices) + sum([timing.link_s[start + step] for timing, start in timings])
                busy = [total + seconds for total, seconds in zip(busy, of_devices, strict=True)]
            stretch = refine_s / planned_s if planned_s else 0.0
            busy = [stretch * seconds for seconds in busy]
        busy[0] += others_s
        return tuple(busy)

    def _units(self, launch: Launch, steps: int) -> tuple[int, int]:
        if launch.load is not None:
            return 0, 0
        images = sum([count for _, count in launch.composition])
        if self._plans is None and launch.jobs[0].mixes:
            return images * steps, 0
        computed = reused = 0
        for segment in launch.done(steps):
            if segment.stage not in self._uneven:
                computed += images * segment.steps
                continue
            if STAGES[segment.stage].cache == "tiles":
                for timing, first in self._timings(launch, segment.stage):
                    fresh = timing.computed[first + segment.steps] - timing.computed[first]
                    computed += fresh
                    reused += timing.tiles[first + segment.steps] - timing.tiles[first] - fresh
                continue
            assert self._plans is not None
            for job in launch.jobs:
                plan = self._plans.of(job.request)
                fresh = plan.computed[job.steps_done + segment.steps] - plan.computed[job.steps_done]
                computed += fresh
                reused += plan.units * segment.steps - fresh
        return computed, reused

    def _ns(self, stage: str, batch: Batch) -> int:
        return self._whole_ns(self._costs.step_s(stage, batch))

    def _whole_ns(self, seconds: float) -> int:
        return max(1, round(seconds * self._slowdown * 1e9))


class _Asked(dict[_Key, _Value]):
    """Something by stage or another key, asked for when it is first wanted."""

    def __init__(self, ask: Callable[[_Key], _Value]) -> None:
        super().__init__()
        self._ask = ask

    def __missing__(self, key: _Key) -> _Value:
        value = self[key] = self._ask(key)
        return value
