"""When a queue would be finished if nothing else came: the predictor rolled forward over lock-step batches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from heapq import heappop, heappush
from typing import NamedTuple

from policies.job import Job
from policies.scheduling.mixing import BatchCosts, BatchKind

Due = tuple[float, int, Job]
"""(due time in seconds, order, job); sorted, the most urgent first."""


ROUNDING_S = 1e-6
"""Nobody is late by less: the same seconds summed in another order differ in their last digits."""


class Forecast(NamedTuple):
    """What a queue would come to: who is late, and when the last has finished, in seconds."""

    late: list[Job]
    end_s: float


def forecast(costs: BatchCosts, queue: Sequence[Due], width: int, now: float, most_late: float = math.inf) -> Forecast:
    """Run a queue in the order given, at most ``width`` requests in a batch; the next joins when one leaves.

    Encoding and decoding are taken to run one after another, with the batch waiting. A tiled request runs by itself,
    when all before it are finished. Stops as soon as more than ``most_late`` are late, with those in `Forecast.late`.
    """
    batch, steps, position = costs.empty, 0, 0
    running: list[tuple[int, int, BatchKind]] = []
    late: list[Job] = []
    while True:
        while position < len(queue) and len(running) < width:
            job = queue[position][2]
            kind = costs.kind(job)
            if not kind.mixes:
                if running:
                    break
                now += costs.remaining_s(job)
                if now > queue[position][0] + ROUNDING_S:
                    late.append(job)
                position += 1
                continue
            if job.preparing:
                now += costs.alone(kind).encode_s
            heappush(running, (steps + job.denoise_left, position, kind))
            batch = costs.plus(batch, kind)
            position += 1
        if not running or len(late) > most_late:
            return Forecast(late, now)
        until = running[0][0]
        now += (until - steps) * costs.step_s(batch)
        steps = until
        leaving = []
        while running and running[0][0] == until:
            _, index, kind = heappop(running)
            batch = costs.minus(batch, kind)
            now += costs.alone(kind).decode_s
            leaving.append(queue[index])
        late += [job for due_s, _, job in leaving if now > due_s + ROUNDING_S]
        if len(late) > most_late:
            return Forecast(late, now)
