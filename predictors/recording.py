"""Recorded cache signals: what a reuse would have cost, measured while everything was computed.

One row is one unit (a patch of one row of a request) at one block and step. Its changes are mean squares, relative
to the mean square then, since ``age`` steps ago; ``output_change`` is the error a reuse of the output of that time
would have made. Forests (`predictors.forest`) and the simulator's reuse model (`predictors.reuse`) are fitted from it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import gcd
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from traces.errors import BadInput
from traces.files import read_table, row_at
from traces.marks import OutputKind
from traces.output import whole_file
from traces.streams import stream

COLUMNS: dict[str, str] = {
    "request_id": "str",
    "height": "int32",  # of the request, pixels
    "width": "int32",
    "steps": "int32",  # denoising steps of the request
    "unit": "int32",  # row * patches + patch
    "block": "int32",  # in the order they run
    "blocks": "int32",
    "step": "int32",  # from 0
    "age": "int32",  # steps since the output that would be reused
    "input_change": "float32",
    "skip_change": "float32",  # 0: nothing comes in by a skip
    "output_change": "float32",
    "block_s": "float32",  # seconds the block took for all units of the request
}
_LEAST = {"height": 1, "width": 1, "steps": 1, "unit": 0, "block": 0, "blocks": 1, "step": 1, "age": 1}
RECORDING = OutputKind("cache-recording")


@dataclass(frozen=True, slots=True)
class PatchGrid:
    """How the executor cuts an image when there is a cache: a size keeps its patch whoever joins the batch.

    Attributes:
        patch: the sides of a patch are the greatest common divisors of the image's with this, pixels; 0: images are
            not cut.
        floor: an axis along which that would be less is not cut.
    """

    patch: int
    floor: int

    def of(self, height: int, width: int) -> tuple[int, int]:
        """Patches (down, across) of an image."""
        parts = (gcd(height, self.patch), gcd(width, self.patch))  # gcd(n, 0) is n
        down, across = (s // part if part >= self.floor else 1 for s, part in zip((height, width), parts, strict=True))
        return down, across


@dataclass(frozen=True, eq=False)
class Recording:
    """Signals of some requests of one model.

    Attributes:
        frame: one row a unit, block and step, with the columns of `COLUMNS`, sorted. Not to be written to.
        metadata: ``model``, ``patch`` and ``floor`` (largest and least side of a unit, pixels) and, where known,
            ``hardware``, ``software`` and ``date``.

    Raises:
        BadInput: a wrong column, value or metadata, no rows, or more than one number of blocks or steps.
    """

    frame: pd.DataFrame
    metadata: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        frame = _checked(self.frame).sort_values(["request_id", "unit", "block", "step"], ignore_index=True)
        object.__setattr__(self, "frame", frame)
        for name in ("model", "patch", "floor"):
            if not self.metadata.get(name):
                raise BadInput(f"the recording's metadata names no {name}")
        for name in ("patch", "floor"):
            if not self.metadata[name].isdigit():
                raise BadInput(f"the recording's {name} is {self.metadata[name]!r}, expected a number of pixels")

    @classmethod
    def load(cls, path: Path) -> Recording:
        """Read a recording.

        Raises:
            BadInput: no such file, no recording, or a wrong row.
        """
        frame, facts = read_recording(path, RECORDING, "'tilecast cache record'")
        try:
            return cls(frame, facts)
        except BadInput as error:
            raise BadInput(f"{path}: {error}") from None

    def save(self, path: Path) -> None:
        """Write the recording as Parquet, whole or not at all."""
        write_recording(path, self.frame, self.metadata, RECORDING)

    @property
    def model(self) -> str:
        """What was run."""
        return self.metadata["model"]

    @property
    def grid(self) -> PatchGrid:
        """How its images were cut."""
        return PatchGrid(int(self.metadata["patch"]), int(self.metadata["floor"]))

    @property
    def blocks(self) -> int:
        """Blocks of the model."""
        return int(self.frame["blocks"].to_numpy()[0])

    @property
    def steps(self) -> int:
        """Denoising steps of every request."""
        return int(self.frame["steps"].to_numpy()[0])

    @property
    def requests(self) -> list[str]:
        """The ids of the requests, sorted."""
        return sorted(set(self.frame["request_id"]))

    @property
    def block_weights(self) -> tuple[float, ...]:
        """Share of a step's time that each block takes: the median over requests and steps, per pixel."""
        once = self.frame.drop_duplicates(["request_id", "block", "step"])
        per_pixel = once["block_s"] / (once["height"] * once["width"])
        median = per_pixel.groupby(once["block"]).median().to_numpy(np.float64)
        return tuple((median / median.sum()).tolist())

    def split(self, share: float = 0.25, seed: int = 0) -> tuple[Recording, Recording]:
        """Two recordings of different requests; the second holds ``share`` of them, at least one.

        Raises:
            BadInput: there is only one request.
        """
        names = np.array(self.requests)
        if len(names) < 2:
            raise BadInput("the recording has one request, expected at least 2 to hold some out")
        count = min(len(names) - 1, max(1, round(share * len(names))))
        held_out = stream(seed, "recording/split").choice(names, count, replace=False)
        chosen = self.frame["request_id"].isin(held_out)
        return Recording(self.frame[~chosen], self.metadata), Recording(self.frame[chosen], self.metadata)

    def thinned(self, units: int, seed: int = 0) -> Recording:
        """At most ``units`` units of each request, and all changes and times to within 0.2 %: a file to ship."""
        kept = []
        for name, rows in self.frame.groupby("request_id"):
            known = np.unique(rows["unit"])
            draws = stream(seed, f"recording/thin/{name}")
            chosen = known if len(known) <= units else draws.choice(known, units, replace=False)
            kept.append(rows[rows["unit"].isin(chosen)])
        frame = pd.concat(kept)
        numbers = [name for name, kind in COLUMNS.items() if kind == "float32"]
        return Recording(frame.assign(**{name: rounded(frame[name].to_numpy()) for name in numbers}), self.metadata)


def read_recording(path: Path, kind: OutputKind, command: str) -> tuple[pd.DataFrame, dict[str, str]]:
    """The rows and the metadata of a recording, of this kind.

    Raises:
        BadInput: no such file, or not of this kind; ``command`` writes one.
    """
    path = Path(path)
    if not path.is_file():
        raise BadInput(f"{path}: no such recording; expected a Parquet file written by {command}")
    try:
        table = read_table(path)
        facts = kind.facts(table.schema.metadata)
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise BadInput(f"{path}: not a recording of cache signals; {command} writes one") from error
    return table.to_pandas(ignore_metadata=True), facts


def write_recording(path: Path, frame: pd.DataFrame, metadata: Mapping[str, str], kind: OutputKind) -> None:
    """Write a recording as Parquet, whole or not at all."""
    table = pa.Table.from_pandas(frame, preserve_index=False)
    table = table.replace_schema_metadata({kind.key: json.dumps(dict(metadata), sort_keys=True)})
    with whole_file(path, kind) as temporary:
        pq.write_table(table, temporary, compression="zstd", compression_level=19)


def rounded(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """With a mantissa of 9 bits; the zeros after it compress to nothing."""
    mantissa, exponent = np.frexp(values)
    return np.ldexp(np.round(mantissa * 512) / 512, exponent).astype(np.float32)


def _checked(frame: pd.DataFrame) -> pd.DataFrame:
    for name in COLUMNS:
        if name not in frame:
            raise BadInput(f"column {name!r} is missing; expected {', '.join(COLUMNS)}")
    if frame.empty:
        raise BadInput("no rows; expected one a unit, block and step")
    frame = frame[list(COLUMNS)].reset_index(drop=True)
    for name, least in _LEAST.items():
        number = pd.to_numeric(frame[name], errors="coerce")
        require(frame, name, (number >= least) & (number % 1 == 0), f"a whole number of at least {least}")
    require(frame, "step", frame["step"] < frame["steps"], "a step below steps")
    require(frame, "block", frame["block"] < frame["blocks"], "a block below blocks")
    require(frame, "age", frame["age"] <= frame["step"], "an age of at most the step")
    for name in ("input_change", "skip_change", "output_change", "block_s"):
        number = pd.to_numeric(frame[name], errors="coerce")
        require(frame, name, (number >= 0) & np.isfinite(number), "a number of at least 0")
    for name in ("blocks", "steps"):
        if frame[name].nunique() > 1:
            raise BadInput(f"{name} is {sorted(set(frame[name]))}, expected one value a recording")
    return frame.astype(COLUMNS)


def require(frame: pd.DataFrame, name: str, good: pd.Series, right: str) -> None:
    """BadInput for the first row of column ``name`` that is not ``good``, with what would be ``right``."""
    wrong = ~good.to_numpy(dtype=bool)
    if wrong.any():
        row = int(wrong.argmax())
        raise BadInput(f"{row_at(row)}: {name} is {frame[name].iat[row]}, expected {right}")
