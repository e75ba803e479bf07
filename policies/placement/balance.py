"""Balancing tiles over devices: the shortest makespan, and the fewest pixels moved within it.

Both problems are hard in general and small here: some 25 tiles of a few sizes. They are searched depth first with
bounds that end most searches at once; one that goes on is cut off after a fixed number of nodes, and not of seconds,
so that every rank of a replica comes to the same answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from policies.placement.contract import TileWork

Assignment = list[int]
"""A device for each tile."""

Score = TypeVar("Score", float, tuple[float, float])

NODES = 2000
"""A search that has come to so many partial assignments ends with the best it has found."""

ROUNDING = 1 + 1e-12


def loads(seconds: Sequence[float], assignment: Assignment, devices: int) -> list[float]:
    """Seconds of work of each device."""
    busy = [0.0] * devices
    for cost, device in zip(seconds, assignment, strict=True):
        busy[device] += cost
    return busy


def longest_first(seconds: Sequence[float], devices: int) -> Assignment:
    """Graham's LPT rule: the longest of what is left goes to the device that is free first."""
    answer, busy = [0] * len(seconds), [0.0] * devices
    for i in _by_cost(seconds):
        answer[i] = device = busy.index(min(busy))
        busy[device] += seconds[i]
    return answer


def shortest(seconds: Sequence[float], devices: int) -> Assignment:
    """The assignment with the least makespan."""
    best = longest_first(seconds, devices)
    least = max(loads(seconds, best, devices), default=0.0)
    order = _by_cost(seconds)
    floor = _floor([seconds[i] for i in order], devices) * ROUNDING
    busy, chosen, nodes = [0.0] * devices, list(best), 0

    def descend(depth: int) -> None:
        nonlocal best, least, nodes
        nodes += 1
        if depth == len(order):
            best, least = list(chosen), max(busy)
            return
        tile, tried = order[depth], set()
        for device in sorted(range(devices), key=busy.__getitem__):
            before = busy[device]
            if least <= floor or nodes > NODES or before + seconds[tile] >= least:
                return
            if before not in tried:  # devices with the same load are the same
                tried.add(before)
                chosen[tile], busy[device] = device, before + seconds[tile]
                descend(depth + 1)
                busy[device] = before

    descend(0)
    return best


def fewest_moved(work: Sequence[TileWork], devices: int, tolerance: float) -> Assignment:
    """Of the assignments whose makespan is the least, or longer by a share of at most ``tolerance``, the one that moves
    the fewest pixels."""
    seconds = [tile.seconds for tile in work]
    if max(seconds) <= min(seconds) * (1 + tolerance):
        return _into_slots(work, devices)
    start = shortest(seconds, devices)
    longest = max(loads(seconds, start, devices)) * (1 + tolerance) * ROUNDING
    missing = [[tile.missing(device) for device in range(devices)] for tile in work]

    def score(assignment: Assignment) -> tuple[float, float]:
        over = max(max(loads(seconds, assignment, devices)) - longest, 0.0)
        return over, float(sum(row[device] for row, device in zip(missing, assignment, strict=True)))

    best = improved(_renamed(start, missing), devices, score)
    fewest = score(best)[1]
    order = _by_cost(seconds)
    ahead = np.cumsum([0, *(min(missing[i]) for i in reversed(order))])[::-1].tolist()
    busy, chosen, nodes = [0.0] * devices, list(best), 0

    def descend(depth: int, moved: float) -> None:
        nonlocal best, fewest, nodes
        nodes += 1
        if depth == len(order):
            best, fewest = list(chosen), moved
            return
        tile = order[depth]
        for device in sorted(range(devices), key=missing[tile].__getitem__):
            before = busy[device]
            if nodes > NODES or moved + missing[tile][device] + ahead[depth + 1] >= fewest:
                return
            if before + seconds[tile] <= longest:
                chosen[tile], busy[device] = device, before + seconds[tile]
                descend(depth + 1, moved + missing[tile][device])
                busy[device] = before

    descend(0, 0.0)
    return best


def improved(start: Assignment, devices: int, score: Callable[[Assignment], Score]) -> Assignment:
    """``start`` after every move of one tile and every exchange of two that lowers its score, until none does."""
    best, least = list(start), score(start)
    better = True
    while better:
        better = False
        for i in range(len(best)):
            moves = [(device, i, best[i]) for device in range(devices)]
            exchanges = [(best[j], j, best[i]) for j in range(i + 1, len(best))]
            for device, j, swapped in moves + exchanges:
                if device != best[i]:
                    other = list(best)
                    other[j], other[i] = swapped, device
                    if (found := score(other)) < least:
                        best, least, better = other, found, True
                        break
    return best


def _by_cost(seconds: Sequence[float]) -> list[int]:
    return sorted(range(len(seconds)), key=lambda i: (-seconds[i], i))


def _floor(costs: Sequence[float], devices: int) -> float:
    """What no makespan is below; ``costs`` from the longest on."""
    crowded = costs[devices - 1] + costs[devices] if len(costs) > devices else 0.0
    return max(sum(costs) / devices, crowded, *costs[:1], 0.0)


def _into_slots(work: Sequence[TileWork], devices: int) -> Assignment:
    """Tiles that cost the same: at most so many a device, an assignment problem."""
    slots = -(-len(work) // devices)
    moved = np.array([[tile.missing(device) for device in range(devices) for _ in range(slots)] for tile in work])
    return [slot // slots for slot in _least(moved)]


def _renamed(assignment: Assignment, missing: Sequence[Sequence[int]]) -> Assignment:
    """The same sets of tiles, each given to the device that makes the fewest pixels move in all."""
    moved = np.zeros((len(missing[0]), len(missing[0])))
    for row, device in zip(missing, assignment, strict=True):
        moved[device] += row
    names = _least(moved)
    return [names[device] for device in assignment]


def _least(cost: npt.NDArray[Any]) -> list[int]:
    """The column of each row, each taken once, with the least sum."""
    from scipy.optimize import linear_sum_assignment  # takes a third of a second, and only tiles need it

    columns: list[int] = linear_sum_assignment(cost)[1].tolist()
    return columns
