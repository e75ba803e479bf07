"""A profile: what was measured on one kind of hardware.

One row is one measurement of one batch. A profile is a Parquet file of numbers and names, never a pickle, so
it can be downloaded and opened without running anybody's code; predictors are fitted from it when it is
loaded. Rows are kept in a canonical order: two profiles with the same rows have the same
`Profile.content_hash` and give the same predictors to the last bit, in whatever order the rows were written.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from predictors.parallel import BANDS, TILES, Parallel
from traces.composition import format_composition, parse
from traces.errors import BadInput
from traces.files import read_table, row_at
from traces.geometry import GEOMETRIES
from traces.limits import SPAN
from traces.marks import OutputKind
from traces.notes import Note, Severity, grave
from traces.output import whole_file
from traces.stages import STAGES
from traces.table_columns import TableColumn, dtypes_of

SCHEMA_VERSION = 3
"""3: rows may be of several devices, and such files have this version; 2: guided rows are those with classifier-free
guidance; 1 called all rows so, also of models that have none."""
MEASURED_STAGES = STAGES.named(lambda stage: stage.measured)
"""What is measured; upscale and refine, of tiled requests, by the canvas: a step of refine on one device."""
EXECUTORS = ("whole", "patched", "packed")
"""How a batch was run: equal sizes stacked, cut into equal patches, or tokens packed one after another."""

WHOLE_REQUESTS = "whole requests were measured, not each of their stages"
"""How a note begins of seconds that were divided between stages."""

MEASUREMENTS: dict[str, TableColumn] = {
    "hardware": TableColumn("str", "What was measured: one kind of hardware a profile."),
    "software": TableColumn("str", "What ran the batch, with versions."),
    "model": TableColumn("str", "Which model ran."),
    "executor": TableColumn("str", "How the batch was put together: whole, patched or packed."),
    "stage": TableColumn("str", "What ran: encode, denoise, decode, and of tiled requests upscale and refine."),
    "composition": TableColumn("str", "How many pictures of each size ran together, like 2@1024x1024+1@512x512."),
    "guided": TableColumn("bool", "Whether classifier-free guidance was on, which doubles the rows of a step."),
    "computed": TableColumn(
        "float64", "Share of the patch cache's patches and blocks that were computed, above 0 and at most 1."
    ),
    "cached": TableColumn("bool", "Whether a patch cache looked after the patches."),
    "devices": TableColumn("int64", "How many devices shared the batch."),
    "parallel": TableColumn("str", "How they shared it, like ulysses4, cfg2 or tiles; empty on one device."),
    "steps": TableColumn("int64", "Denoising steps that the measurement covers; 1 for encode, upscale and decode."),
    "repeat": TableColumn("int64", "0, 1, 2, ... over the measurements of the same batch."),
    "seconds": TableColumn("float64", "What all of these steps took."),
}
COLUMNS = dtypes_of(MEASUREMENTS)
"""The columns with their types."""
DEFAULTS: dict[str, Any] = {"computed": 1.0, "cached": False, "devices": 1, "parallel": ""}
"""What a column holds in a file that lacks it: measured without a patch cache, on one device."""
SEVERAL = ("devices", "parallel")
"""The columns that only rows of several devices say something in."""
BATCH = [name for name in COLUMNS if name not in ("repeat", "seconds")]
"""The columns that say what was measured; rows that agree in them are repeats."""
SAME = ["software", "composition", "guided", "computed", "cached"]
"""What repeats agree in among the measurements of one model, executor and stage on one device."""

CONDITIONS = ("patch_floor", "cache_patch", "caching", "decode", "kernels")
"""Metadata that says under which settings of `backend.executor.Executor` mixed, cached and decoded batches ran."""
LOADS = "loads"
"""Metadata that says what loading weights took, see `predictors.loading.LoadRates`."""

PROFILE = OutputKind("profile")
_NOT_BY_SCALE = [name for name, geometry in GEOMETRIES.items() if geometry.guidance != "scale"]
_KINDS = {"str": "text", "bool": "true or false", "int64": "whole numbers", "float64": "numbers"}
_OTHER_FILES = {
    "a trace of requests": {"arrival_s", "height", "width"},
    "a run's table": {"request_id", "status"},
    "a table of a run's steps": {"stage", "start_s", "replica"},
}
"""Other files of Tilecast, and columns that only they have."""


@dataclass(frozen=True, eq=False)
class Profile:
    """Measurements of one kind of hardware.

    Attributes:
        frame: one row a measurement, with the columns of `COLUMNS`, in canonical order. Not to be written to.
        metadata: facts about the whole: ``hardware``, ``software``, and where known ``date``, ``source``,
            ``note``, ``divided`` (see `divided`).

    Raises:
        BadInput: a wrong column or value, no rows, or more than one kind of hardware.
    """

    frame: pd.DataFrame
    metadata: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        frame = _checked(self.frame)
        hardware, software = sorted(set(frame["hardware"])), sorted(set(frame["software"]))
        if len(hardware) > 1:
            raise BadInput(f"hardware is {' and '.join(map(repr, hardware))}, expected one kind a profile")
        facts = {**self.metadata, "hardware": hardware[0], "software": "; ".join(software)}
        object.__setattr__(self, "frame", frame.sort_values(list(COLUMNS), ignore_index=True))
        object.__setattr__(self, "metadata", facts)

    @property
    def repeats(self) -> pd.Series[int]:
        """How often each batch was measured: a number a batch, executor and stage."""
        return self.frame.groupby([name for name in BATCH if name != "steps"], sort=False, dropna=False).size()

    @classmethod
    def from_frame(cls, frame: pd.DataFrame, metadata: Mapping[str, str]) -> Profile:
        """A profile of rows in the order they were measured: ``repeat`` is counted from it, given or not.

        Raises:
            BadInput: as the constructor.
        """
        batch = [name for name in BATCH if name in frame]
        repeat = frame.groupby(batch, sort=False).cumcount() if batch else 0
        return cls(frame.assign(repeat=repeat), metadata)

    @classmethod
    def load(cls, path: Path) -> Profile:
        """Read a profile file. Columns of a later version are left out; metadata ``ignored`` names them.

        Raises:
            BadInput: the file is missing, empty, not a profile, or has a wrong row (named with its field).
        """
        path = Path(path)
        if not path.is_file():
            raise BadInput(f"{path}: no such profile; expected a Parquet file written by 'tilecast profile'")
        try:
            table = read_table(path)
        except (OSError, ValueError, pa.ArrowException) as error:
            raise BadInput(f"{path}: not a whole Parquet file ({str(error).splitlines()[0]})") from error
        try:
            metadata, version = _metadata_of(table.schema.metadata or {})
            table, ignored = _known_columns(table)
            frame = table.to_pandas(ignore_metadata=True)
            if version < 2:
                by_scale = ~frame["model"].isin(_NOT_BY_SCALE)
                frame["guided"] = frame["guided"].astype(object).where(by_scale, False)
            return cls(frame, {**metadata, **ignored})
        except BadInput as error:
            raise BadInput(f"{path}: {error}") from None

    def save(self, path: Path) -> None:
        """Write the profile as Parquet, whole or not at all.

        Raises:
            BadInput: the folder cannot be written to.
        """
        version = SCHEMA_VERSION if self._on_several.any() else SCHEMA_VERSION - 1
        facts = json.dumps({**self.metadata, "schema": str(version)}, sort_keys=True)
        table = pa.Table.from_pandas(self.frame[self._columns], preserve_index=False)
        table = table.replace_schema_metadata({PROFILE.key: facts.encode()})
        with whole_file(path, PROFILE) as temporary:
            pq.write_table(table, temporary)

    @classmethod
    def merge(cls, profiles: Iterable[Profile]) -> Profile:
        """All rows of several profiles of the same hardware.

        A row that occurs twice is kept once; repeats are numbered anew. Metadata that differs is joined by
        ``; ``, but for `CONDITIONS`, ``block_weights`` and ``loads``: there the first profile that has them counts.

        Raises:
            BadInput: no profiles, or different hardware.
        """
        parts = list(profiles)
        if not parts:
            raise BadInput("no profiles to merge")
        frame = pd.concat([p.frame for p in parts], ignore_index=True).drop_duplicates(ignore_index=True)
        facts: dict[str, list[str]] = {}
        for part in parts:
            for key, value in part.metadata.items():
                known = facts.setdefault(key, [])
                if value not in known and not (known and key in (*CONDITIONS, "block_weights", LOADS)):
                    known.append(value)
        return cls.from_frame(frame, {key: "; ".join(values) for key, values in facts.items()})

    def select(self, model: str | None = None, executor: str | None = None) -> Profile:
        """The rows of one device of one model, one executor, or both.

        Raises:
            BadInput: there are none; the message lists what was measured.
        """
        keep = ~self._on_several
        for column, value in (("model", model), ("executor", executor)):
            if value is not None:
                keep &= (self.frame[column] == value).to_numpy()
        if not keep.any():
            pairs = zip(self.frame["model"], self.frame["executor"], strict=True)
            known = sorted({f"{known_model} ({by})" for known_model, by in pairs})
            asked = model if executor is None else f"{model or 'any model'} ({executor})"
            raise BadInput(f"the profile of {self.hardware} has no {asked}; it has: {', '.join(known)}")
        return Profile(self.frame[keep], self.metadata)

    def on_several_devices(self, model: str, executor: str) -> pd.DataFrame:
        """The rows of several devices of one model and executor, as in `frame`; there may be none."""
        own = self.frame[(self.frame["model"] == model) & (self.frame["executor"] == executor)]
        return own[own["devices"] > 1].reset_index(drop=True)

    @property
    def hardware(self) -> str:
        """The kind of hardware measured."""
        return str(self.frame["hardware"].iat[0])

    @property
    def models(self) -> tuple[str, ...]:
        """The models measured, sorted."""
        return tuple(sorted(set(self.frame["model"])))

    def executors(self, model: str) -> tuple[str, ...]:
        """The executors ``model`` was measured with on one device, in the order of `EXECUTORS`."""
        measured = set(self.frame.loc[(self.frame["model"] == model) & ~self._on_several, "executor"])
        return tuple(e for e in EXECUTORS if e in measured)

    def stages(self, model: str) -> tuple[str, ...]:
        """The stages measured for ``model`` on one device, in the order they run."""
        measured = set(self.frame.loc[(self.frame["model"] == model) & ~self._on_several, "stage"])
        return tuple(s for s in MEASURED_STAGES if s in measured)

    @property
    def notes(self) -> tuple[Note, ...]:
        """What a reader of its figures must know: grave where they are not what they are called."""
        told = [(grave, "warning"), (Note, "note")]
        return tuple([note(said) for note, key in told if (said := self.metadata.get(key))])

    def divided(self, model: str) -> str:
        """How the seconds of whole requests of ``model`` were divided between their stages, such as ``by the roofline
        of h100-sxm``; empty: every stage was measured by itself."""
        if "divided" not in self.metadata and WHOLE_REQUESTS in self.metadata.get("note", ""):
            return "as its note says"
        parts = [part.partition(": ") for part in self.metadata.get("divided", "").split("; ")]
        return ", ".join(dict.fromkeys(way for name, _, way in parts if name == model))

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 of the rows, independent of their order and of the metadata."""
        rows = self.frame[self._columns].astype(object).to_numpy().tolist()
        return hashlib.sha256("\n".join(sorted(map(repr, rows))).encode()).hexdigest()

    @cached_property
    def _on_several(self) -> npt.NDArray[np.bool_]:
        """Whether each row is of several devices."""
        several: npt.NDArray[np.bool_] = (self.frame["devices"] > 1).to_numpy(dtype=bool)
        return several

    @property
    def _columns(self) -> list[str]:
        """Those that say something: files and hashes are as they were before there were rows of several devices."""
        several = bool(self._on_several.any())
        return [name for name in COLUMNS if several or name not in SEVERAL]


def metadata_of(notes: Iterable[Note | str]) -> dict[str, str]:
    """Metadata of which `Profile.notes` makes these notes again: one for the grave ones, one for the others."""
    said: dict[str, list[str]] = {}
    for note in dict.fromkeys(map(Note.of, notes)):
        said.setdefault("warning" if note.severity is Severity.GRAVE else "note", []).append(note.text)
    return {key: "; ".join(texts) for key, texts in said.items()}


def _known_columns(table: pa.Table) -> tuple[pa.Table, dict[str, str]]:
    """The columns of a profile, and what to say of others.

    Raises:
        BadInput: a column is missing or twice there, holds something of another kind, or the file is of another sort.
    """
    names = table.column_names
    missing = [name for name in COLUMNS if name not in names and name not in DEFAULTS]
    if missing:
        kind = next((kind for kind, own in _OTHER_FILES.items() if own <= set(names)), None)
        what = f"it is {kind}, no profile" if kind else f"it has {', '.join(names[:8]) or 'no columns'}"
        raise BadInput(f"column {missing[0]!r} is missing; {what}; expected {', '.join(COLUMNS)}")
    if not table.num_rows:
        raise BadInput("no rows; expected one row a measurement")
    for name in COLUMNS:
        if names.count(name) > 1:
            raise BadInput(f"column {name!r} is there {names.count(name)} times, expected it once")
        if name in names and not _holds(table.schema.field(name).type, COLUMNS[name]):
            raise BadInput(f"column {name!r} holds {table.schema.field(name).type}, expected {_KINDS[COLUMNS[name]]}")
    others = [name for name in dict.fromkeys(names) if name not in COLUMNS]
    known = table.select([name for name in names if name in COLUMNS])
    return known, ({"ignored": ", ".join(others)} if others else {})


def _holds(found: pa.DataType, wanted: str) -> bool:
    """Whether a column of Parquet can be one of `COLUMNS`; all its cells are checked later."""
    types = pa.types
    if types.is_dictionary(found):
        found = found.value_type
    if wanted == "str":
        return bool(types.is_string(found) or types.is_large_string(found))
    if wanted == "bool":
        return bool(types.is_boolean(found) or types.is_integer(found))
    return bool(types.is_integer(found) or types.is_floating(found))


def _metadata_of(schema_metadata: Mapping[bytes, bytes]) -> tuple[dict[str, str], int]:
    """What a file says of itself, and in which version of the schema it is."""
    try:
        facts = json.loads(schema_metadata.get(PROFILE.key, b"{}"))
        version = int(facts.pop("schema", 1))
    except (ValueError, AttributeError, TypeError):
        raise BadInput("the metadata cannot be read; expected a file written by 'tilecast profile'") from None
    if version > SCHEMA_VERSION:
        raise BadInput(f"schema version {version} is newer than this Tilecast reads ({SCHEMA_VERSION})")
    return {str(key): str(value) for key, value in facts.items()}, version


def _checked(frame: pd.DataFrame) -> pd.DataFrame:
    """``frame`` with the right columns, types and spelling; BadInput names the first wrong row and field."""
    frame = frame.assign(**{name: value for name, value in DEFAULTS.items() if name not in frame})
    for name in COLUMNS:
        if name not in frame:
            raise BadInput(f"column {name!r} is missing; expected {', '.join(COLUMNS)}")
    if unknown := [column for column in frame if column not in COLUMNS]:
        raise BadInput(f"column {unknown[0]!r} is unknown; expected {', '.join(COLUMNS)}")
    if frame.empty:
        raise BadInput("no rows; expected one row a measurement")
    frame = frame[list(COLUMNS)].reset_index(drop=True)
    for name in ("hardware", "software", "model", "composition"):
        _require(frame, name, frame[name].map(lambda v: isinstance(v, str) and bool(v.strip())), "a text")
    _require(frame, "executor", frame["executor"].isin(EXECUTORS), f"one of {', '.join(EXECUTORS)}")
    _require(frame, "stage", frame["stage"].isin(MEASURED_STAGES), f"one of {', '.join(MEASURED_STAGES)}")
    for name in ("guided", "cached"):
        _require(frame, name, frame[name].isin([True, False]), "true or false")
    computed = pd.to_numeric(frame["computed"], errors="coerce")
    _require(frame, "computed", (computed > 0) & (computed <= 1), "a share above 0, at most 1")
    for name, least in (("steps", 1), ("devices", 1), ("repeat", 0)):
        number = pd.to_numeric(frame[name], errors="coerce")
        whole = (number >= least) & (number < 2**31) & (number % 1 == 0)
        _require(frame, name, whole, f"a whole number of at least {least}")
    seconds = pd.to_numeric(frame["seconds"], errors="coerce")
    _require(frame, "seconds", (seconds > 0) & np.isfinite(seconds), "a time above 0 s")
    _require(frame, "seconds", seconds <= SPAN.most, f"at most {SPAN.most:g} s")
    spelling = {}
    for text in frame["composition"].unique():
        try:
            spelling[text] = format_composition(parse(text))
        except BadInput as error:
            row = int((frame["composition"] == text).to_numpy().argmax())
            raise BadInput(f"{row_at(row)}: {error}") from None
    for text, devices in dict.fromkeys(zip(frame["parallel"], frame["devices"].astype(int), strict=True)):
        if problem := _unlike(text, devices):
            row = int(((frame["parallel"] == text) & (frame["devices"] == devices)).to_numpy().argmax())
            raise BadInput(f"{row_at(row)}: {problem}")
    return frame.assign(composition=frame["composition"].map(spelling)).astype(COLUMNS)


def _unlike(parallel: object, devices: int) -> str:
    """What is wrong with how so many devices share a batch; empty: nothing."""
    if parallel in (TILES, BANDS) and devices > 1:
        return ""
    try:
        found = Parallel.parse(parallel) if isinstance(parallel, str) else None
    except BadInput as error:
        return str(error)
    if found is None or found.devices != devices:
        return f"parallel is {parallel!r} on {devices} devices, expected what so many share, like ulysses{devices}"
    return ""


def _require(frame: pd.DataFrame, name: str, good: Any, right: str) -> None:
    wrong = ~good.to_numpy(dtype=bool)
    if wrong.any():
        row = int(wrong.argmax())
        raise BadInput(f"{row_at(row)}: {name} is {frame[name].iat[row]}, expected {right}")
