"""A grid file: which keys of a scenario take which values, and so which points a sweep has.

    seeds = 3                                  # or a list; without it the scenario's own
    samples = 100                              # so many of the combinations, drawn at random; without it all

    [grid]                                     # every combination of
    cluster.replicas = [2, 4, 8]
    policies.scheduling = ["fcfs", {name = "edf", max_batch = 4}]

    [[cases]]                                  # each of them together with each of these
    name = "cached"
    cluster.executor = "patched"
    policies.caching = "first-block"

    [[cases]]
    name = "plain"

Keys and values are those of ``--set``. A case's tables are read as dotted keys; one that is to be taken whole, a policy
with its parameters say, has its key in quotes.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tilecast.scenario import Scenario
from traces.errors import BadInput, did_you_mean
from traces.streams import stream
from traces.text import read_toml

_KNOWN = ("seeds", "samples", "grid", "cases")

Settings = dict[str, Any]


@dataclass(frozen=True)
class SweepPoint:
    """One scenario of a sweep.

    Attributes:
        settings: what the grid file sets, by dotted key.
        scenario: all of it.
        case: its name; empty: the file has no cases.
    """

    settings: Settings
    scenario: Scenario
    case: str = ""

    def __str__(self) -> str:
        parts = [f"{key}={value}" for key, value in self.settings.items()]
        return ", ".join([*([self.case] if self.case else []), *parts])


@dataclass(frozen=True)
class Grid:
    """What a grid file says.

    Attributes:
        path: the grid file, for messages.
        values: the values of each key of ``[grid]``.
        cases: settings by name; one without a name and settings when the file has none.
        seeds: a number of them, the seeds themselves, or None: the scenario's.
        samples: combinations of values and cases to draw; None: all.
    """

    path: Path
    values: dict[str, list[Any]]
    cases: dict[str, Settings]
    seeds: int | list[int] | None = None
    samples: int | None = None

    @classmethod
    def load(cls, path: Path) -> Grid:
        """Read a grid file.

        Raises:
            BadInput: no such file, no TOML, an unknown key of its own, or a value of the wrong kind.
        """
        return cls.of(read_toml(path), Path(path))

    @classmethod
    def of(cls, data: Mapping[str, Any], path: Path = Path("grid")) -> Grid:
        """The grid of what a file says, or would say; ``path`` is for messages.

        Raises:
            BadInput: an unknown key of its own, or a value of the wrong kind.
        """
        for key in data:
            if key not in _KNOWN:
                hint = did_you_mean(key, _KNOWN)
                raise BadInput(f"{path}: unknown key {key!r}; {hint} (keys of the scenario go below [grid])")
        grid = cls(path, _values(path, data), _cases(path, data), data.get("seeds"), data.get("samples"))
        grid._check()
        return grid

    @property
    def keys(self) -> list[str]:
        """Every key that differs between points, in the order of the file; the seed last."""
        keys = [*self.values, *(key for case in self.cases.values() for key in case)]
        return list(dict.fromkeys([*keys, *(["seed"] if self.seeds is not None else [])]))

    def points(self, base: Scenario, given: Collection[str] = ()) -> list[SweepPoint]:
        """The points in order of the file, the last key changing fastest, checked one by one.

        Args:
            base: what all of them have in common.
            given: dotted keys that are set elsewhere, so that the grid must not.

        Raises:
            BadInput: a key is set elsewhere too, or a combination is no scenario.
        """
        for key in self.keys:
            if key in given:
                raise BadInput(f"{self.path}: {key} is set here and by the command line; expected one of the two")
        seeds = self.seeds
        if isinstance(seeds, int):
            seeds = list(range(base.seed, base.seed + seeds))
        combinations = list(self._combinations())
        if self.samples is not None:
            order = stream(base.seed, "sweep/samples").permutation(len(combinations))
            combinations = [combinations[at] for at in sorted(order[: self.samples])]
        return [
            self._point(base, case, settings if seed is None else {**settings, "seed": seed})
            for case, settings in combinations
            for seed in (seeds if seeds is not None else [None])
        ]

    def _combinations(self) -> Iterator[tuple[str, Settings]]:
        for case, settings in self.cases.items():
            for values in itertools.product(*self.values.values()):
                yield case, {**settings, **dict(zip(self.values, values, strict=True))}

    def _point(self, base: Scenario, case: str, settings: Settings) -> SweepPoint:
        outer_first = sorted(settings.items(), key=lambda item: item[0].count("."))
        try:
            return SweepPoint(settings, base.replaced(dict(outer_first)), case)
        except BadInput as error:
            raise BadInput(f"{self.path}: with {_spelled(settings)}: {error}") from error

    def _check(self) -> None:
        for key in (key for case in self.cases.values() for key in case):
            if key in self.values:
                raise BadInput(f"{self.path}: {key} is in [grid] and in [[cases]]; expected one of the two")
        seeds, samples = self.seeds, self.samples
        whole = [seeds] if not isinstance(seeds, list) else seeds
        if seeds is not None and not (whole and all(_is_count(seed) for seed in whole) and seeds != 0):
            raise BadInput(f"{self.path}: seeds is {seeds!r}, expected a number of seeds like 3, or a list like [1, 2]")
        if seeds is not None and any("seed" in keys for keys in (self.values, *self.cases.values())):
            raise BadInput(f"{self.path}: seed is set beside seeds; expected one of the two")
        if samples is not None and (not _is_count(samples) or samples == 0):
            raise BadInput(f"{self.path}: samples is {samples!r}, expected a whole number above 0")


def _values(path: Path, data: Mapping[str, Any]) -> dict[str, list[Any]]:
    values = dict(_flat(_table(path, "grid", data.get("grid", {}))))
    for key, choices in values.items():
        if not isinstance(choices, list) or not choices:
            raise BadInput(f"{path}: [grid] {key} is {choices!r}, expected a list of values")
    return values


def _cases(path: Path, data: Mapping[str, Any]) -> dict[str, Settings]:
    cases: dict[str, Settings] = {}
    listed = data.get("cases", [])
    for number, table in enumerate(listed if isinstance(listed, list) else [listed], 1):
        settings = dict(_flat(_table(path, "cases", table)))
        name = str(settings.pop("name", number))
        if name in cases:
            raise BadInput(f"{path}: two cases are called {name!r}")
        cases[name] = settings
    return cases or {"": {}}


def _table(path: Path, name: str, table: Any) -> Mapping[str, Any]:
    if not isinstance(table, dict):
        raise BadInput(f"{path}: {name} is {table!r}, expected a table of scenario keys")
    return table


def _flat(table: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """A table's values by dotted key; that of a key in quotes, which holds a dot itself, is taken whole."""
    for key, value in table.items():
        if isinstance(value, dict) and "." not in key:
            yield from _flat(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _spelled(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in settings.items()) or "nothing set"
