"""The least hardware that keeps a promise: which clusters to look at, and which need no look.

For each thing that may be bought the search gallops from a guess to the least number of replicas that keeps the promise
and looks at the one below it, too, so that the answer does not rest on a bound. The cheapest first: what comes after is
looked at only where it could be cheaper than what was found (branch and bound), and given up at once if the largest
cluster that would be cheaper does not keep the promise. A promise not decided counts as not kept.

The search takes a cluster with more replicas to be no worse. Where that is not so, `surprises` says it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from reports.formatting import percent
from reports.plan.formatting import rejection
from reports.plan.result import Candidate, Evaluation, Memory, Refused


@dataclass(frozen=True)
class Option:
    """A replica that may be bought in numbers.

    Attributes:
        hardware: the name of a kind.
        devices: a replica.
        scheduler: that the cluster runs.
        price_per_hour: of a replica; NaN: unknown, then all options have none and fewer devices are cheaper.
        max_replicas: to consider.
        label: how far to trust its times, see `reports.plan.result`.
        capacity_rps: requests a second that a replica carries at the very most; infinity: nobody knows.
        max_batch: largest batch of the scheduler on this hardware; None: it has no such cap.
        memory: None where the hardware's memory is not known.
        log_sd: standard deviation of the logarithm of true over predicted seconds; 0.0: they were measured.
        measured_error_ratio: what ten measurements would leave of it.
        late_alone: share of the requests that miss their deadline although nothing else runs.
    """

    hardware: str
    devices: int
    scheduler: str
    price_per_hour: float
    max_replicas: int
    label: str
    capacity_rps: float = math.inf
    max_batch: int | None = None
    memory: Memory | None = None
    log_sd: float = 0.0
    measured_error_ratio: float = 1.0
    late_alone: float = 0.0

    def cluster(self, replicas: int) -> Candidate:
        """So many of it."""
        return Candidate(self.hardware, self.devices, replicas, self.scheduler)

    def rank(self, replicas: int) -> tuple[float, int, Candidate]:
        """What makes a cluster the better buy: the price, then fewer devices, then the name."""
        devices = self.devices * replicas
        price = devices if math.isnan(self.price_per_hour) else self.price_per_hour * replicas
        return price, devices, self.cluster(replicas)

    def at_least(self, rate_rps: float) -> int:
        """Replicas below which no policy carries ``rate_rps``."""
        return max(1, math.ceil(rate_rps / self.capacity_rps))

    def spell(self, replicas: int) -> str:
        """The cluster for people."""
        each = f" of {self.devices} devices" if self.devices > 1 else ""
        return f"{replicas} x {self.hardware}{each} with {self.scheduler}"


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        answer: the cheapest cluster that keeps the promise; None: none does.
        refused: what was not looked at, and why.
    """

    answer: Evaluation | None
    refused: tuple[Refused, ...]


def search(
    options: Iterable[Option],
    rate_rps: float,
    assess: Callable[[Candidate], Evaluation],
    guess: Callable[[Option], int],
    promised: float,
) -> Found:
    """The cheapest cluster of ``options`` that keeps the promise.

    Args:
        rate_rps: requests a second that are asked for.
        assess: simulates a cluster; asked again it answers the same.
        guess: about how many replicas of an option it takes.
        promised: the share of requests that must finish in time, of which refusals speak.
    """
    best: tuple[Option, Evaluation] | None = None
    refused: list[Refused] = []

    def refuse(option: Option, why: str) -> None:
        refused.append(Refused(option.hardware, option.devices, option.scheduler, why))

    for option in sorted(options, key=lambda option: option.rank(option.at_least(rate_rps))):
        low, high = option.at_least(rate_rps), option.max_replicas
        if option.memory is not None and option.memory.max_batch == 0:
            needed, there = option.memory.needed_bytes / 1e9, option.memory.device_bytes / 1e9
            refuse(option, f"memory: the model does not fit, it takes {needed:.1f} GB of a device's {there:.1f}")
            continue
        if option.late_alone > 1 - promised:
            refuse(option, f"alone on an idle replica {percent(round(option.late_alone, 3))} of the requests are late")
            continue
        if low > high:
            refuse(option, f"the demand takes {low} replicas or more, at most {high} are considered")
            continue
        if best is not None:
            other, found = best
            than = other.spell(found.candidate.replicas)
            high = _most_below(option, other.rank(found.candidate.replicas), high)
            if high < low:
                refuse(option, f"the demand takes {low} or more, which is no cheaper than {than}")
                continue
            if not (largest := assess(option.cluster(high))).keeps:
                why = rejection(largest, promised)
                spelled = "1 replica" if high == 1 else f"{high} replicas"
                refuse(option, f"of what is cheaper than {than} the largest, {spelled}, does not do: {why}")
                continue
        least = least_cluster(option, low, high, assess, guess(option))
        if least is not None:
            best = option, least
    return Found(None if best is None else best[1], tuple(refused))


def _most_below(option: Option, rank: tuple[float, int, Candidate], most: int) -> int:
    """The most replicas, up to ``most``, that are a better buy than ``rank``."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if option.rank(middle) < rank else (low, middle - 1)
    return low


def least_cluster(
    option: Option, low: int, high: int, assess: Callable[[Candidate], Evaluation], guess: int
) -> Evaluation | None:
    """The least cluster of ``low`` to ``high`` replicas that keeps the promise; None: none. With fewer than ``low``
    none is taken to."""
    fails, keeps, kept = low - 1, high + 1, None
    at, stride = min(max(guess, low), high), 1
    while keeps - fails > 1:
        evaluation = assess(option.cluster(at))
        if evaluation.keeps:
            keeps, kept = at, evaluation
        else:
            fails = at
        if kept is None:
            at = min(high, fails + stride)
        elif fails < low:
            at = max(low, keeps - stride)
        else:
            at = (fails + keeps) // 2
        stride *= 2
    return kept


def surprises(
    option: Option, answer: Evaluation, assess: Callable[[Candidate], Evaluation], promised: float
) -> Iterable[str]:
    """Where more replicas than the answer's did worse, in sentences."""
    replicas = answer.candidate.replicas
    if replicas < option.max_replicas:
        more = assess(option.cluster(replicas + 1))
        if more.keeps is False:
            yield f"{option.spell(replicas)} keep the promise, {replicas + 1} do not: {rejection(more, promised)}."
