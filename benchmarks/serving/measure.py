"""Measuring a point: one simulation at a rate, or the largest rate that meets a goal; and how long a decision takes."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from itertools import count
from typing import Any

import numpy as np

from benchmarks.serving.contenders import CONTENDERS
from benchmarks.serving.point import Point, Source, capacity, predictor_of, requests_of, truth, world_of
from policies.contract import Launch, Outcome
from policies.controller import Controller
from sim.driver import Simulation
from sim.world import World
from traces.request import Request
from traces.stages import ORDINARY
from traces.streams import stream

SLACK_S = 1e-9
Figures = dict[str, Any]


def simulate(source: Source, point: Point, rate: float) -> Figures:
    """The figures of one simulation at ``rate`` requests a second and replica.

    ``attainment`` is the share of all requests that finished within their deadline; dropped ones miss it;
    ``worst_size`` that of the size of which least do. Latencies are of finished requests, ``utilisation`` is a mean
    over replicas until the last end, ``prediction_error`` the absolute errors of all launches over their time.
    """
    table = truth(source, point.model, point.engine)
    stages = tuple(stage for stage in ORDINARY if stage in table.costs)
    requests = requests_of(source, point, rate)
    policy = CONTENDERS[point.scheduler].policy()
    controller = Controller(policy, predictor_of(source, point), point.replicas, stages)
    started = time.perf_counter()
    end_s = Simulation(controller, World(world_of(source, point), point.replicas, point.seed)).run(requests)
    wall_s = time.perf_counter() - started
    latencies, met = [], 0
    of_size: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
    for job in controller.jobs:
        counts = of_size[f"{job.request.height}x{job.request.width}"]
        counts[1] += 1
        if job.state == "finished" and job.finish_s is not None:
            latencies.append(job.finish_s - job.request.arrival_s)
            if job.finish_s <= job.request.deadline + SLACK_S:
                counts[0] += 1
                met += 1
    spans, errors, weighted = 0.0, 0.0, 0.0
    for launch, outcome, ended_s in controller.launched:
        span = ended_s - launch.start_s
        predicted = sum([segment.predicted_step_s * segment.steps for segment in launch.done(outcome.steps_done)])
        spans += span
        errors += abs(predicted - span)
        weighted += len(launch.jobs) * span
    percentiles = np.percentile(latencies, (50, 90, 95, 99)) if latencies else [math.nan] * 4
    by_size = {size: good / asked for size, (good, asked) in sorted(of_size.items())}
    return {
        "attainment": met / len(requests),
        "worst_size": min(by_size.values()),
        "dropped": sum(job.state == "dropped" for job in controller.jobs) / len(requests),
        "mean_s": float(np.mean(latencies)) if latencies else math.nan,
        **{f"p{q}_s": float(value) for q, value in zip((50, 90, 95, 99), percentiles, strict=True)},
        "by_size": by_size,
        "utilisation": spans / (end_s * point.replicas),
        "batch": weighted / spans,
        "prediction_error": errors / spans,
        "requests_per_s": len(requests) / wall_s,
    }


def measure(source: Source, point: Point) -> Figures:
    """The figures of a point at its rate, or of the search for the rates that meet its goals."""
    return goodput(source, point) if point.rate is None else simulate(source, point, point.rate)


def goodput(source: Source, point: Point, within: float = 0.03) -> Figures:
    """``goodput_90`` and so on: the largest rate (requests a second and replica) at which 90 % of the requests meet
    their deadline, by bisection to ``within``, then interpolated; 0 when no rate does.
    """
    start = 0.8 * capacity(source, point)
    seen: dict[float, float] = {}

    def attainment(rate: float) -> float:
        if rate not in seen:
            seen[rate] = simulate(source, point, rate)["attainment"]
        return seen[rate]

    found = {}
    for goal in point.goals:
        good = max((rate for rate, share in seen.items() if share >= goal), default=start)
        apart = 1.25
        while attainment(good) < goal and good > 0.03 * start:
            good, apart = good / apart, apart**1.5
        if attainment(good) < goal:
            found[f"goodput_{100 * goal:.0f}"] = 0.0
            continue
        bad = min((rate for rate, share in seen.items() if share < goal and rate > good), default=good * 1.25)
        while attainment(bad) >= goal:
            good, bad = bad, bad * 1.25
        while bad / good > 1 + within:
            middle = math.sqrt(good * bad)
            good, bad = (middle, bad) if attainment(middle) >= goal else (good, middle)
        share = (attainment(good) - goal) / (attainment(good) - attainment(bad))
        found[f"goodput_{100 * goal:.0f}"] = good + share * (bad - good)
    return {**found, "simulations": len(seen)}


def decision_times(source: Source, model: str, scheduler: str, waiting: int, decisions: int) -> Figures:
    """Milliseconds a launch that a scheduler thinks while ``waiting`` requests wait, on one replica.

    Everything the controller does for a launch of at most five steps is counted: telling the scheduler that the one
    before ended and who arrived meanwhile, recalls, planning. Each request that starts or is dropped is replaced by
    a new one. Deadlines lie as far ahead as serving the queue takes, times 0.5 to 2, so that not all is hopeless.
    """
    point = Point(model, scheduler, knowledge="fixed")
    table = truth(source, model, point.engine)
    rng = stream(0, "benchmark/decisions")
    kinds = sorted({request.size for request in requests_of(source, point, 1.0)})
    alone_s = {size: table.standalone_s(Request("alone", 0.0, size[0], size[1], 50)) for size in kinds}
    queue_s = 0.5 * waiting * sum(alone_s.values()) / len(kinds)
    stages = tuple(stage for stage in ORDINARY if stage in table.costs)
    controller = Controller(CONTENDERS[scheduler].policy(), predictor_of(source, point), 1, stages)
    queue = controller.policy.cluster.waiting
    now, names = 0.0, count()
    launches: list[Launch] = []
    spent: list[float] = []
    while len(spent) < decisions + _WARM_UP:
        came = []
        for _ in range(waiting - len(queue)):
            size = kinds[rng.integers(len(kinds))]
            slo_s = 3 * alone_s[size] + queue_s * float(rng.uniform(0.5, 2.0))
            came.append(Request(f"r{next(names)}", now, size[0], size[1], 50, slo_s=slo_s))
        started = time.perf_counter()
        for launch in launches:
            controller.complete(launch, Outcome(min(5, launch.steps)), now)
        for request in came:
            controller.submit(request, now)
        launches = controller.launches(now)
        controller.recalls(now)
        spent.append(1000 * (time.perf_counter() - started))
        for launch in launches:
            now += sum([part.predicted_step_s * part.steps for part in launch.done(min(5, launch.steps))])
        if not launches:
            now = max(now + 0.01, controller.wakeup(now) or 0.0)
    warm = np.array(spent[_WARM_UP:])
    return {"mean_ms": float(warm.mean()), "p99_ms": float(np.percentile(warm, 99))}


_WARM_UP = 3
