"""The cheapest replicas of several pools that keep a promise together: which clusters to look at, and which not.

Two bounds spare most looks. What the work alone takes, if nobody ever waited and every batch were the best one, is a
small mixed-integer program; a choice of pools whose bound is no cheaper than what was found is not looked at. And more
replicas are taken to be no worse: what has no more of any pool than a cluster that fails, fails too.

For each choice of pools, the one with the cheapest bound first, the search gallops along the bound's proportions to a
cluster that keeps the promise, takes replicas away from one pool after another as far as it goes, and then exchanges
some of one pool, 1, 2, 3, 4, 5, 7, 9, 12 and so on, for as many of another as are cheaper. The answer cannot be made
cheaper by taking away a replica, nor by such an exchange; a cheaper one may exist where these fail and one in between
does not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

Counts = tuple[int, ...]
"""Replicas of each pool, in order; 0: it is left out."""

_EVEN = 1e-9  # rounding of prices
_STRIDE = 1.15
"""Times the replicas from one look along the bound's proportions to the next."""
_FIRST = 2
"""The look that is taken first: waiting takes about a third more than work alone."""


@dataclass(frozen=True)
class PoolOption:
    """A pool of which so many replicas may be bought.

    Attributes:
        name: of the pool.
        price: of a replica; where no prices are known, its devices.
        most: replicas to consider.
        work_s: by model that it serves, or leg of its requests (`policies.legs`), replica seconds of a request at the
            very least.
        in_time: by model, the share of the requests that would be in time there if nobody else were.
    """

    name: str
    price: float
    most: int
    work_s: Mapping[str, float]
    in_time: Mapping[str, float]


@dataclass(frozen=True)
class Asked:
    """What is asked of the pools together.

    Attributes:
        rates_rps: by model, or leg of its requests, requests a second.
        attainment: the share of each model's requests that must be in time.
    """

    rates_rps: Mapping[str, float]
    attainment: float


def price_of(options: Sequence[PoolOption], counts: Counts) -> float:
    """Of all replicas."""
    return sum([option.price * count for option, count in zip(options, counts, strict=True)])


def least_by_work(options: Sequence[PoolOption], asked: Asked, least: Counts) -> Counts | None:
    """The cheapest replicas, at least ``least`` where that is not 0 and none elsewhere, below which no policy does the
    work in time; None: not even the most of them do."""
    from scipy.optimize import Bounds, LinearConstraint, milp  # scipy takes a while to import

    ways = [
        (at, model)
        for at, option in enumerate(options)
        for model in asked.rates_rps
        if least[at] and model in option.work_s
    ]
    pools, count = len(options), len(options) + 2 * len(ways)
    rows: list[tuple[dict[int, float], float, float]] = []
    for model, rate_rps in asked.rates_rps.items():
        own = [number for number, (_, each) in enumerate(ways) if each == model]
        rows.append(({pools + number: 1.0 for number in own}, rate_rps, math.inf))
        rows.append(({pools + len(ways) + number: 1.0 for number in own}, asked.attainment * rate_rps, math.inf))
    for number in range(len(ways)):  # what is in time there is done there
        rows.append(({pools + number: 1.0, pools + len(ways) + number: -1.0}, 0.0, math.inf))
    for at, option in enumerate(options):
        work = {pools + number: option.work_s[model] for number, (pool, model) in enumerate(ways) if pool == at}
        rows.append(({at: 1.0, **{column: -seconds for column, seconds in work.items()}}, 0.0, math.inf))
    matrix = [[of.get(column, 0.0) for column in range(count)] for of, _, _ in rows]
    in_time = [options[at].in_time[model] * asked.rates_rps[model] for at, model in ways]
    most = [option.most if low else 0 for option, low in zip(options, least, strict=True)]
    found = milp(
        c=[*[option.price for option in options], *[0.0] * (2 * len(ways))],
        integrality=[*[1] * pools, *[0] * (2 * len(ways))],
        bounds=Bounds([*least, *[0.0] * (2 * len(ways))], [*most, *[math.inf] * len(ways), *in_time]),
        constraints=LinearConstraint(matrix, [low for _, low, _ in rows], [high for _, _, high in rows]),
    )
    return None if found.x is None else tuple([round(value) for value in found.x[:pools]])


class JointSearch:
    """Looks at clusters, each once.

    Args:
        options: the pools.
        asked: what is asked of them.
        assess: simulates a cluster and says whether it keeps the promise; asked again it answers the same.

    Attributes:
        refused: choices of pools that were not looked at, and why, in sentences.
        least_price: of the work alone; infinite: nothing that is considered does it.
    """

    def __init__(self, options: Sequence[PoolOption], asked: Asked, assess: Callable[[Counts], bool]) -> None:
        self._options = options
        self._asked = asked
        self._assess = assess
        self._kept: dict[Counts, bool] = {}
        self.refused: list[str] = []
        self.least_price = math.inf

    def cheapest(self) -> Counts | None:
        """The cheapest cluster that keeps the promise; None: none was found."""
        options = self._options
        best: Counts | None = None
        choices: list[tuple[float, Counts, Counts]] = []
        self.refused = []
        for size in range(1, len(options) + 1):
            for chosen in combinations(range(len(options)), size):
                least = tuple([int(at in chosen) for at in range(len(options))])
                bound = self._bound(least)
                if bound is not None:
                    choices.append((self.price(bound), bound, least))
        self.least_price = min([price for price, _, _ in choices], default=math.inf)
        for price, bound, least in sorted(choices):
            if best is not None and price >= self.price(best):
                self.refused.append(f"{self._named(least)}: no cheaper, the work alone takes {self._spell(bound)}")
                continue
            best = self._cheaper(bound, best)
        return best

    def price(self, counts: Counts) -> float:
        """Of all replicas."""
        return price_of(self._options, counts)

    def reject(self, counts: Counts) -> None:
        """Take a cluster to fail, whatever was said of it."""
        self._kept[counts] = False

    def _bound(self, least: Counts) -> Counts | None:
        """What the work takes of some pools, each of them used; None, and said why: they cannot do it."""
        chosen = [option for option, low in zip(self._options, least, strict=True) if low]
        for model in self._asked.rates_rps:
            serving = [option for option in chosen if model in option.work_s]
            if not serving:
                return None
            if sum([option.in_time[model] for option in serving]) < self._asked.attainment:
                shares = " and ".join([f"{option.in_time[model]:.0%} on {option.name}" for option in serving])
                self.refused.append(f"{self._named(least)}: even alone only {shares} of {model} would be in time")
                return None
        bound = least_by_work(self._options, self._asked, least)
        if bound is None:
            most = tuple([option.most if low else 0 for option, low in zip(self._options, least, strict=True)])
            self.refused.append(f"{self._named(least)}: the work takes more than {self._spell(most)}")
        return bound

    def _cheaper(self, bound: Counts, best: Counts | None) -> Counts | None:
        """The cheapest cluster that is found from some pools' bound, if it is cheaper than the best that is known."""
        found = self._along(bound, best)
        while found is not None:
            best = self._taken_away(found)
            found = self._exchanged(best)
        return best

    def _along(self, bound: Counts, best: Counts | None) -> Counts | None:
        """The first cluster, in the proportions of the bound, that keeps the promise and is cheaper than the best."""
        steps: list[Counts] = [bound]
        scale = 1.0
        while True:
            scale *= _STRIDE
            pairs = zip(bound, self._options, strict=True)
            step = tuple([min(option.most, math.ceil(scale * count - _EVEN)) for count, option in pairs])
            if best is not None and self.price(step) >= self.price(best):
                break
            if step != steps[-1]:
                steps.append(step)
            elif all(count in (0, option.most) for count, option in zip(step, self._options, strict=True)):
                break
        fails, keeps, at, stride = -1, len(steps), min(_FIRST, len(steps) - 1), 1
        while keeps - fails > 1:
            if self._keeps(steps[at]):
                keeps = at
            else:
                fails = at
            at = min(len(steps) - 1, fails + stride) if keeps == len(steps) else (fails + keeps) // 2
            stride *= 2
        return steps[keeps] if keeps < len(steps) else None

    def _taken_away(self, found: Counts) -> Counts:
        """With as few of each pool as keep the promise, the dearest pool first."""
        for at in sorted(range(len(found)), key=lambda at: -self._options[at].price):
            failed, fails, keeps, stride = False, -1, found[at], 1
            while keeps - fails > 1:
                fewer = (fails + keeps) // 2 if failed else max(0, keeps - stride)
                if self._keeps(_with(found, {at: fewer})):
                    keeps = fewer
                else:
                    failed, fails = True, fewer
                stride *= 2
            found = _with(found, {at: keeps})
        return found

    def _exchanged(self, found: Counts) -> Counts | None:
        """A cheaper one that has fewer of one pool and more of another; None: there is none."""
        options = self._options
        for dear, gives in enumerate(options):
            for cheap, takes in enumerate(options):
                away = 1
                while cheap != dear and away <= found[dear]:
                    more = math.ceil(away * gives.price / takes.price - _EVEN) - 1
                    fewest = min(away, math.floor(more * takes.price / gives.price + _EVEN) + 1)
                    other = {dear: found[dear] - fewest, cheap: min(takes.most, found[cheap] + more)}
                    if more > 0 and self._keeps(_with(found, other)):
                        return _with(found, other)
                    away = math.ceil(1.25 * away)
        return None

    def _keeps(self, counts: Counts) -> bool:
        there = [option for option, count in zip(self._options, counts, strict=True) if count]
        if not all(any(model in option.work_s for option in there) for model in self._asked.rates_rps):
            return False
        if counts not in self._kept:
            if any(not kept and _no_more(counts, other) for other, kept in self._kept.items()):
                return False
            self._kept[counts] = self._assess(counts)
        return self._kept[counts]

    def _named(self, least: Counts) -> str:
        return " and ".join([option.name for option, low in zip(self._options, least, strict=True) if low])

    def _spell(self, counts: Counts) -> str:
        pairs = zip(counts, self._options, strict=True)
        return " and ".join([f"{count} of {option.name}" for count, option in pairs if count])


def _with(counts: Counts, other: Mapping[int, int]) -> Counts:
    return tuple([other.get(at, count) for at, count in enumerate(counts)])


def _no_more(counts: Counts, other: Counts) -> bool:
    return all(count <= limit for count, limit in zip(counts, other, strict=True))
