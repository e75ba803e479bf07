"""What has been measured, kept as it comes: an interrupted comparison goes on where it stopped."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.serving.contenders import CONTENDERS
from benchmarks.serving.point import Point, Source, profile_of
from policies.scheduling import SCHEDULERS

ROOT = Path(__file__).parents[2]


class Journal:
    """Measured points of an output folder, one JSON object a line, by what they are and what measured them.

    What measured a point is its scheduler, the simulator and the measurements. A changed scheduler leaves the points of
    the others as they are.
    """

    def __init__(self, path: Path, source: Source) -> None:
        self.path = path
        self._measured = profile_of(source).content_hash[:16]
        self._code: dict[str, str] = {}
        self._figures: dict[str, dict[str, Any]] = {}
        if path.is_file():
            entries = map(json.loads, path.read_text(encoding="utf-8").splitlines())
            self._figures = {entry["key"]: entry["figures"] for entry in entries}

    def __contains__(self, what: Point | tuple[Any, ...]) -> bool:
        return self._key(what) in self._figures

    def __getitem__(self, what: Point | tuple[Any, ...]) -> dict[str, Any]:
        return self._figures[self._key(what)]

    def add(self, what: Point | tuple[Any, ...], figures: dict[str, Any]) -> None:
        """Keep the figures of a point, or of a tuple that begins with a contender."""
        key = self._key(what)
        self._figures[key] = figures
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"key": key, "figures": figures}) + "\n")

    def frame(self, points: Sequence[Point]) -> pd.DataFrame:
        """One row a point: what it is, and its figures."""
        return pd.DataFrame([{**asdict(point), **self[point]} for point in points])

    def _key(self, what: Point | tuple[Any, ...]) -> str:
        contender = CONTENDERS[what.scheduler if isinstance(what, Point) else what[0]]
        scheduler = contender.scheduler
        if scheduler not in self._code:
            start = ROOT / "benchmarks/serving/measure.py", ROOT / _path_of(SCHEDULERS[scheduler].__module__)
            code = b"".join(file.read_bytes() for file in sorted(_with_imports(start)))
            self._code[scheduler] = hashlib.sha256(code).hexdigest()[:16]
        facts = asdict(what) if isinstance(what, Point) else what
        return json.dumps([self._code[scheduler], self._measured, contender.parameters, facts])


def _path_of(module: str) -> str:
    return module.replace(".", "/") + ".py"


def _with_imports(start: Iterable[Path]) -> set[Path]:
    """Source files and all that they import of this project; packages' own files only list what is in them."""
    found: set[Path] = set()
    ahead = list(start)
    while ahead:
        file = ahead.pop()
        if file in found or not file.is_file():
            continue
        found.add(file)
        ahead += [ROOT / _path_of(module) for module in _imported(file.read_text(encoding="utf-8"))]
    return found


@cache
def _imported(source: str) -> list[str]:
    """What may be a module among the names that a source file imports."""
    modules = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module:
            modules += [node.module, *[f"{node.module}.{alias.name}" for alias in node.names]]
        elif isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
    return modules
