"""So many users wait so long: the question that operators ask first, as a closed loop simulated over several seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from policies.run_arrays import RunArrays
from predictors.efficiency import Z80
from predictors.profile import Profile
from reports.figures import value
from reports.formatting import format_interval, format_rate, format_value
from reports.output_analysis import Interval, interval
from reports.progress import Tell, silent
from tilecast.scenario import Scenario
from tilecast.setup import Prepared, prepare
from tilecast.simulation import run_simulation
from tilecast.studies.speeds import log_sd_alone
from traces.errors import BadInput
from traces.mix import Mix
from traces.notes import Note
from traces.request import Size
from traces.streams import stream
from traces.trace import Trace
from traces.workload import Workload

WARM_UP = 0.25
"""Share of the requests, the first, that are left out: users begin with a thought, and the cluster idle."""
ROUNDS = 12
"""Requests of a user that a simulation lasts, in the mean."""
LEAST, MOST = 400, 20_000
"""Requests of a simulation."""
SHARE = 0.95
"""Of the requests, which wait at most as long as is wanted."""
MOST_REPLICAS = 1024


class Waits(NamedTuple):
    """How long users wait for so many replicas, each the mean of several seeds with its interval (95 %).

    Attributes:
        replicas: how many serve them.
        p50_s, p95_s: from a request to its answer.
        rate_rps: answers a second.
        busy: the share of the time in which devices work.
    """

    replicas: int
    p50_s: Interval
    p95_s: Interval
    rate_rps: Interval
    busy: Interval


@dataclass(frozen=True)
class UsersAnswer:
    """What so many users can expect.

    Attributes:
        users: how many there are.
        think_s: mean seconds that each thinks between an answer and its next request.
        model: what they ask for.
        hardware: what serves them.
        waits: on as many replicas as were asked about.
        alone_s: how long a request takes alone, in the mean.
        limit_s: how long 95 % of them are to wait at most; None: nobody said.
        enough: the fewest replicas with which that is so, its interval included; None: not asked, or there are none.
        error: by how many times the seconds of a step may be wrong, in four of five cases; 1: they were measured.
        between: the fewest replicas where all takes so many times less, and more; None there: none are enough.
        notes: how far to trust it, the gravest first.
    """

    users: int
    think_s: float
    model: str
    hardware: str
    waits: Waits
    alone_s: float
    limit_s: float | None
    enough: Waits | None
    notes: tuple[Note, ...]
    error: float = 1.0
    between: tuple[int | None, int | None] | None = None

    def sentences(self) -> list[str]:
        """The answer in words."""
        waits = self.waits
        thinking = f", each thinking {format_value(self.think_s, 's')} between an answer and the next request"
        said = [
            f"{self.users:,} user{'s' * (self.users != 1)} of {self.model} on {_replicas(waits.replicas)} of "
            f"{self.hardware} wait {format_interval(waits.p50_s, 's')} (P50), 95 % of the time at most "
            f"{format_interval(waits.p95_s, 's')}{thinking if self.think_s else ''}.",
            f"Alone a request takes {format_value(self.alone_s, 's')}; together they are answered "
            f"{format_rate(waits.rate_rps.mean)} and keep the devices busy for {format_interval(waits.busy, '%')}.",
        ]
        return said if self.limit_s is None else [self._answer(self.limit_s), *said]

    def _answer(self, limit_s: float) -> str:
        """The fewest replicas, and how that would change were the seconds wrong."""
        limit = format_value(limit_s, "s")
        if self.enough is None:
            return f"No number of replicas makes 95 % of them wait less than {limit}: alone it takes as long."
        said = (
            f"For 95 % of the requests to be answered within {limit}: {_replicas(self.enough.replicas)} "
            f"(P95 {format_interval(self.enough.p95_s, 's')})"
        )
        if self.between is None:
            return f"{said}."
        fewest, most = [count or math.inf for count in self.between]
        wrong = f"if the times are wrong by x/÷ {self.error:.2f}"
        if math.isinf(most):
            return f"{said}; {wrong}, {fewest:.0f} at least, and perhaps no number is enough."
        return f"{said}; {wrong}, {f'{fewest:.0f} to {most:.0f}' if fewest < most else 'as many'}."


def ask(
    model: str,
    *,
    users: int,
    think_s: float = 30.0,
    hardware: str | None = None,
    profile: Profile | str | None = None,
    replicas: int = 1,
    sizes: Mix[Size] | None = None,
    steps: Mix[int] | None = None,
    executor: str = "whole",
    scheduler: str = "lookahead",
    limit_s: float | None = None,
    seeds: int = 5,
    seed: int = 0,
    progress: Tell = silent,
) -> UsersAnswer:
    """How long so many users wait for their pictures, and how many replicas it takes that they wait no longer than so.

    It is a closed loop: each user asks, waits for the answer, thinks, and asks again. ``seeds`` simulations are made of
    other requests, thoughts and noise; of each the first quarter is left out, and the end, when users begin to stop.

    Args:
        model: a known model.
        users: how many there are.
        think_s: mean seconds of a thought, exponentially distributed.
        hardware: a kind of ``tilecast hardware list``, estimated without a profile; by default ``h100-sxm``, unless
            there is a profile.
        profile: measurements: an object, a file, or what ships under that name.
        replicas: how many serve them.
        sizes: (height, width, frames) in pixels, with weights; by default the model's own.
        steps: denoising steps, with weights; by default the model's own.
        executor: ``whole``, or for batches of several sizes ``patched`` or ``packed``.
        scheduler: which requests run together; requests have no deadline.
        limit_s: seconds within which 95 % of the requests are to be answered; None: nothing is searched for.
        seeds: simulations.
        seed: of the first.
        progress: told how many simulations are done.

    Raises:
        BadInput: whatever is wrong, in one line.
    """
    if seeds < 2:
        raise BadInput(f"seeds is {seeds}, expected at least 2, whose scatter says how sure the answer is")
    if profile is None and hardware is None:
        hardware = "h100-sxm"
    mix = {"sizes": sizes, "steps": steps}
    workload = Workload.asking(model, 1.0, **{name: each for name, each in mix.items() if each is not None})
    count = max(LEAST, min(MOST, ROUNDS * users))
    traces = [_trace(workload, count, seed + number) for number in range(seeds)]
    scenario = Scenario(
        workload.model,
        trace={"path": traces[0], "users": users, "think_s": think_s},
        profile=profile,
        hardware=hardware,
        scheduler=scheduler,
        replicas=replicas,
        seed=seed,
        cluster={"executor": executor},
    )
    study = _Study(prepare(scenario), traces, progress)
    waits = study.waits(replicas)
    enough = None if limit_s is None else study.fewest(waits.replicas, limit_s)
    error = math.exp(Z80 * log_sd_alone(study.prepared.table, study.prepared.requests))
    between = None
    if limit_s is not None and enough is not None and error > 1:
        faster, slower = [study.at(by).fewest(enough.replicas, limit_s) for by in (1 / error, error)]
        between = (faster and faster.replicas, slower and slower.replicas)
    first = study.prepared
    alone = [first.table.standalone_s(request) for request in first.requests]
    return UsersAnswer(
        users=users,
        think_s=think_s,
        model=first.scenario.model_name,
        hardware=first.table.hardware,
        waits=waits,
        alone_s=sum(alone) / len(alone),
        limit_s=limit_s,
        enough=enough,
        notes=tuple(first.notes),
        error=error,
        between=between,
    )


class _Study:
    """The same users and replicas, over and over; what was simulated is kept."""

    def __init__(self, prepared: Prepared, traces: Sequence[Trace], progress: Tell, slowdown: float = 1.0) -> None:
        self.prepared = prepared
        self._slowdown = slowdown
        self._traces = traces
        self._progress = progress
        self._known: dict[int, Waits] = {}
        self._done = 0

    def at(self, slowdown: float) -> _Study:
        """The same where everything takes so many times as long."""
        return _Study(self.prepared, self._traces, self._progress, slowdown)

    def waits(self, replicas: int) -> Waits:
        """Of all seeds."""
        if replicas not in self._known:
            runs = [self._run(replicas, number) for number in range(len(self._traces))]
            figures = [_figures(run, users=self.prepared.scenario.trace.users or 0) for run in runs]
            self._known[replicas] = Waits(replicas, *[interval(column) for column in zip(*figures, strict=True)])
        return self._known[replicas]

    def fewest(self, guess: int, limit_s: float) -> Waits | None:
        """The fewest replicas with which 95 % surely wait at most so long, sought from a guess on; None: there are
        none."""

        def keeps(replicas: int) -> bool:
            return self.waits(replicas).p95_s.high <= limit_s

        most = min(MOST_REPLICAS, self.prepared.scenario.trace.users or 1)
        low, high, step = 0, guess, 1
        while not keeps(high):
            if high >= most:  # everybody has a replica: nobody waits for another
                return None
            low, high, step = high, min(most, high + step), 2 * step
        step = 1
        while high - low > 1:
            middle = max((low + high) // 2, high - step)
            if keeps(middle):
                high, step = middle, 2 * step
            else:
                low = middle
        return self.waits(high)

    def _run(self, replicas: int, number: int) -> RunArrays:
        scenario, trace = self.prepared.scenario, self._traces[number]
        given = {"cluster.replicas": replicas, "seed": scenario.seed + number, "trace.path": trace}
        given["world.slowdown"] = self._slowdown
        prepared = self.prepared.running(scenario.replaced(given), trace)
        arrays = prepared.arrays(run_simulation(prepared))
        self._done += 1
        self._progress(f"simulating {_replicas(replicas)}", 0, self._done)
        return arrays


def _trace(workload: Workload, count: int, seed: int) -> Trace:
    """So many requests of a workload, as they are served."""
    drawn = workload.generate(1.2 * count + 100.0, rng=stream(seed, "workload"))
    return drawn.head(count).with_model(workload.model)


def _figures(run: RunArrays, users: int) -> tuple[float, float, float, float]:
    """P50 and P95 of waits in seconds, answers a second and the busy share, from the warm-up to the last requests."""
    arrival_s = np.sort(run.requests.arrival_s)
    first = math.floor(WARM_UP * len(arrival_s))
    last = max(first + 1, len(arrival_s) - users - 1)
    steady = run.between(float(arrival_s[first]), float(arrival_s[last]))
    return (
        value("latency_p50_s", steady),
        value("latency_p95_s", steady),
        value("throughput_rps", steady),
        value("utilisation", steady),
    )


def _replicas(count: int) -> str:
    return f"{count:,} replica{'s' * (count != 1)}"
