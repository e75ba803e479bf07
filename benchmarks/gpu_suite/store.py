"""What was measured, kept in a folder as it ends: ``suite.json`` says on what, ``points.sqlite`` has a row a point."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from benchmarks.gpu_suite.point import Point, Result
from benchmarks.outputs import BENCHMARK
from tilecast.studies.result_store import FILE, ResultStore, read_points
from traces.errors import BadInput
from traces.files import write_json

FACTS = "suite.json"
FAILURES = "failures.txt"
"""Where and why points failed, in full."""

_NOT_COMPARED = ("date",)


@dataclass(frozen=True)
class Suite:
    """What a folder holds.

    Attributes:
        facts: the device, software and settings, as text.
        results: by point, in the order in which they were first measured.
    """

    facts: dict[str, str]
    results: dict[Point, Result]

    @property
    def measured(self) -> dict[Point, Result]:
        """Those that did not fail."""
        return {point: result for point, result in self.results.items() if "failed" not in result}


class Store:
    """A folder that a run adds points to, while the ``with`` block lasts.

    Args:
        folder: new, or that of a run with the same facts, which goes on.
        facts: of this run.

    Raises:
        BadInput: on entering: the folder is in use, holds other things, or what another device or software measured.
    """

    def __init__(self, folder: Path, facts: Mapping[str, str]) -> None:
        self.folder, self._facts = Path(folder), dict(facts)
        self._kept = ResultStore(self.folder)

    def __enter__(self) -> Store:
        self._kept.__enter__()
        try:
            self._same_facts()
        except BaseException:
            self._kept.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._kept.__exit__(kind, error, trace)

    def __contains__(self, point: Point) -> bool:
        return point.key in self._kept

    def __getitem__(self, point: Point) -> Result:
        return self._kept[point.key]

    def failed(self, point: Point) -> bool:
        """Whether it was tried in vain."""
        return point in self and "failed" in self[point]

    def add(self, point: Point, result: Result) -> None:
        """Keep a result for good, in the place of a former one of the point."""
        self._kept.add(point.key, point.key, result)

    def explain(self, point: Point, trace: str) -> None:
        """Keep where a point failed."""
        with (self.folder / FAILURES).open("a", encoding="utf-8") as file:
            file.write(f"{point.key}\n{trace}\n")

    def _same_facts(self) -> None:
        path = self.folder / FACTS
        if not path.is_file():
            write_json(self._facts, path, BENCHMARK, indent=1)
            return
        known = _facts(self.folder)
        for name in sorted(known.keys() | self._facts.keys()):
            there, here = known.get(name, "none"), self._facts.get(name, "none")
            if name not in _NOT_COMPARED and there != here:
                raise BadInput(f"{self.folder} was measured with {name} {there}, this is {here}; choose another -o")


def read_suite(folder: Path) -> Suite:
    """What a folder holds, also while a run adds to it.

    Raises:
        BadInput: it is no folder of a run, or damaged.
    """
    facts, found = _facts(Path(folder)), read_points(folder)
    try:
        return Suite(facts, {Point.of_key(key): result for key, result in found.items()})
    except BadInput as error:
        raise BadInput(f"{Path(folder) / FILE}: {error}") from None


def _facts(folder: Path) -> dict[str, str]:
    path = folder / FACTS
    try:
        facts = dict(json.loads(path.read_text(encoding="utf-8")))
        return {name: fact for name, fact in facts.items() if name != "generator"}
    except OSError as error:
        raise BadInput(f"{folder} is no folder of the suite: cannot read {FACTS} ({error.strerror})") from error
    except ValueError as error:
        raise BadInput(f"{path} is damaged; remove {folder}, or choose another -o") from error
