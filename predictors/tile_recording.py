"""Recorded signals of tiles: how refinement's input and output move, measured while everything was computed.

One row is one tile at one step of refinement and what it would reuse if that were ``age`` steps old. All magnitudes
are means over the tile's window as it lies at that step, so they are what a tile cache in canvas coordinates sees
although the grid moves. The simulator's signals (`predictors.tile_reuse`) are drawn from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from predictors.recording import read_recording, require, rounded, write_recording
from traces.errors import BadInput
from traces.marks import OutputKind

COLUMNS: dict[str, str] = {
    "request_id": "str",
    "height": "int32",  # of the request, pixels
    "width": "int32",
    "frames": "int32",
    "steps": "int32",  # of refinement
    "tile": "int32",  # index in the grid, the same from step to step
    "down": "float32",  # centre of the window, share of the canvas
    "across": "float32",
    "step": "int32",  # of refinement, from 0
    "age": "int32",  # steps since what would be reused
    "input_change": "float32",  # mean square of input now - input then, over that of input then
    "input_shift": "float32",  # mean |input now - input then|
    "output_level": "float32",  # mean |output| then
    "output_shift": "float32",  # mean |output now - output then|: the error of reusing it
    "residual_shift": "float32",  # the same of output - input
}
MAGNITUDES = ("input_change", "input_shift", "output_level", "output_shift", "residual_shift")
_LEAST = {"height": 1, "width": 1, "frames": 1, "steps": 2, "tile": 0, "step": 1, "age": 1}
TILE_RECORDING = OutputKind("tile-recording")


@dataclass(frozen=True, eq=False)
class TileRecording:
    """Signals of the tiles of some requests of one model.

    Attributes:
        frame: one row a tile, step and age, with the columns of `COLUMNS`, sorted. Not to be written to.
        metadata: ``model``, ``latent_factor`` (pixels a latent pixel) and, where known, ``hardware``, ``software`` and
            ``date``.

    Raises:
        BadInput: a wrong column, value or metadata, no rows, or more than one number of steps.
    """

    frame: pd.DataFrame
    metadata: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        frame = _checked(self.frame).sort_values(["request_id", "step", "tile", "age"], ignore_index=True)
        object.__setattr__(self, "frame", frame)
        if not self.metadata.get("model"):
            raise BadInput("the recording's metadata names no model")
        factor = self.metadata.get("latent_factor", "")
        if not (factor.isdigit() and int(factor)):
            raise BadInput(f"the recording's latent_factor is {factor!r}, expected pixels a latent pixel")

    @classmethod
    def load(cls, path: Path) -> TileRecording:
        """Read a recording.

        Raises:
            BadInput: no such file, no recording of tiles, or a wrong row.
        """
        frame, facts = read_recording(path, TILE_RECORDING, "'tilecast cache record-tiles'")
        try:
            return cls(frame, facts)
        except BadInput as error:
            raise BadInput(f"{path}: {error}") from None

    def save(self, path: Path) -> None:
        """Write the recording as Parquet, whole or not at all; magnitudes to within 0.2 %."""
        kept = {name: rounded(self.frame[name].to_numpy()) for name in MAGNITUDES}
        write_recording(path, self.frame.assign(**kept), self.metadata, TILE_RECORDING)

    @property
    def model(self) -> str:
        """What was run."""
        return self.metadata["model"]

    @property
    def latent_factor(self) -> int:
        """Pixels a latent pixel, along one axis."""
        return int(self.metadata["latent_factor"])

    @property
    def steps(self) -> int:
        """Refinement steps of every request."""
        return int(self.frame["steps"].to_numpy()[0])

    @property
    def requests(self) -> list[str]:
        """The ids of the requests, sorted."""
        return sorted(set(self.frame["request_id"]))


def _checked(frame: pd.DataFrame) -> pd.DataFrame:
    for name in COLUMNS:
        if name not in frame:
            raise BadInput(f"column {name!r} is missing; expected {', '.join(COLUMNS)}")
    if frame.empty:
        raise BadInput("no rows; expected one a tile, step and age")
    frame = frame[list(COLUMNS)].reset_index(drop=True)
    for name, least in _LEAST.items():
        number = pd.to_numeric(frame[name], errors="coerce")
        require(frame, name, (number >= least) & (number % 1 == 0), f"a whole number of at least {least}")
    require(frame, "step", frame["step"] < frame["steps"], "a step below steps")
    require(frame, "age", frame["age"] <= frame["step"], "an age of at most the step")
    for name in ("down", "across"):
        require(frame, name, pd.to_numeric(frame[name], errors="coerce").between(0, 1), "a share from 0 to 1")
    for name in MAGNITUDES:
        number = pd.to_numeric(frame[name], errors="coerce")
        require(frame, name, (number >= 0) & np.isfinite(number), "a number of at least 0")
    if frame["steps"].nunique() > 1:
        raise BadInput(f"steps is {sorted(set(frame['steps']))}, expected one value a recording")
    return frame.astype(COLUMNS)
