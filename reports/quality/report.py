"""The quality of many pictures: matched by name, in one table and one JSON file."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from reports.quality.measure import Quality, measure
from reports.quality.pictures import Picture, gather, in_step, read_picture
from reports.quality.seams import Borders
from traces.errors import BadInput
from traces.files import write_json
from traces.marks import OutputKind

Files = dict[str, tuple[Path, ...]]


QUALITY = OutputKind("quality")


@dataclass(frozen=True, slots=True)
class QualityFigure:
    """How a figure of `Quality` is headed and spelled, and which of several is the worst, if any."""

    label: str
    spelled: Callable[[float], str]
    worst: Callable[[list[float]], float] | None = max


FIGURES = {
    "psnr_db": QualityFigure("PSNR", lambda value: "equal" if math.isinf(value) else f"{value:.1f} dB", min),
    "ssim": QualityFigure("SSIM", lambda value: f"{value:.4f}", min),
    "largest_difference": QualityFigure("largest difference", lambda value: f"{value:.3f}"),
    "seam_energy": QualityFigure("seams (1: none)", lambda value: f"{value:.2f}"),
    "edge_leak": QualityFigure("edge leak", lambda value: f"{value:.2f}"),
    "flicker": QualityFigure("flicker", lambda value: f"{value:.3f}"),
    "objects": QualityFigure("objects", lambda value: f"{value:g}", None),
    "extra_objects": QualityFigure("extra objects", lambda value: f"{value:+g}"),
}


@dataclass(frozen=True, slots=True)
class QualityReport:
    """The quality of each picture by its name, and what a reader must know, in full sentences."""

    qualities: dict[str, Quality]
    notes: tuple[str, ...]

    @classmethod
    def of(
        cls,
        pictures: Path,
        reference: Path | None = None,
        borders: Borders | None = None,
        sketch: Path | None = None,
        expected_objects: float | None = None,
    ) -> QualityReport:
        """Measure the pictures at a path against those of the same names at other paths.

        Two single files belong together whatever their names. A picture without its counterpart is measured without.

        Raises:
            BadInput: a path without readable pictures, no name in common, sizes that differ, a border outside.
        """
        files = gather(pictures)
        notes: list[str] = []
        references = _matched(files, pictures, reference, notes)
        sketches = _matched(files, pictures, sketch, notes)
        qualities = {}
        for name, own in files.items():
            sources = {"pixels": own, "reference": references.get(name), "sketch": sketches.get(name)}
            read: dict[str, Picture] = {key: read_picture(found) for key, found in sources.items() if found}
            frames = dict(zip(read, in_step(list(read.values())), strict=True))
            try:
                qualities[name] = measure(borders=borders, expected_objects=expected_objects, **frames)
            except BadInput as error:
                raise BadInput(f"{own[0]}: {error}") from error
        return cls(qualities, tuple(notes))

    def summary(self) -> dict[str, Quality]:
        """The median and the worst picture of each figure; nothing for fewer than two pictures."""
        if len(self.qualities) < 2:
            return {}
        medians: dict[str, Any] = {}
        worst: dict[str, Any] = {}
        for name, figure in FIGURES.items():
            values = [value for quality in self.qualities.values() if not math.isnan(value := getattr(quality, name))]
            if values:
                medians[name] = float(np.sort(values)[(len(values) - 1) // 2])
                if figure.worst is not None:
                    worst[name] = figure.worst(values)
        return {"median": Quality(**medians), "worst": Quality(**worst)}

    def table(self) -> RenderableType:
        """One row a picture, one column a figure that at least one picture has."""
        shown = [name for name in FIGURES if any(_known(quality, name) for quality in self.qualities.values())]
        places = any(quality.seams_at for quality in self.qualities.values())
        table = Table()
        table.add_column("picture", overflow="fold")
        for name in shown:
            table.add_column(FIGURES[name].label, justify="right", overflow="fold")
        if places:
            table.add_column("likeliest seams", overflow="fold")
        for part in (self.qualities, self.summary()):
            for title, quality in part.items():
                cells = [_spelled(quality, name) for name in shown] + [quality.seams_at] * places
                table.add_row(Text(title), *map(Text, cells))
            table.add_section()
        return Group(table, *(Text(f"! {note}", style="yellow") for note in self.notes))

    def write(self, path: Path) -> None:
        """Write ``pictures`` and, for several, ``summary`` as JSON: figures by name, null where there is none.

        Raises:
            BadInput: the file cannot be written.
        """
        content: dict[str, Any] = {"pictures": {name: value.as_json() for name, value in self.qualities.items()}}
        if summary := self.summary():
            content["summary"] = {name: value.as_json() for name, value in summary.items()}
        content["notes"] = list(self.notes)
        write_json(content, path, QUALITY)


def _matched(files: Files, pictures: Path, other: Path | None, notes: list[str]) -> Files:
    if other is None:
        return {}
    found = gather(other)
    if pictures.is_file() and other.is_file():
        return {pictures.stem: found[other.stem]}
    common = files.keys() & found.keys()
    if not common:
        raise BadInput(f"{other}: no picture is named as one of {pictures}")
    for here, there, names in ((pictures, other, files.keys() - common), (other, pictures, found.keys() - common)):
        if names:
            notes.append(f"{len(names)} of {here} have no counterpart in {there}, the first is {min(names)}.")
    return found


def _known(quality: Quality, name: str) -> bool:
    return not math.isnan(getattr(quality, name))


def _spelled(quality: Quality, name: str) -> str:
    return FIGURES[name].spelled(getattr(quality, name)) if _known(quality, name) else "–"
