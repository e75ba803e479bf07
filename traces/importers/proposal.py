"""Which column of a table is which field of a request, by the names that services give them and by what they hold."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from traces.clock import unit_since_1970
from traces.columns import DTYPES, REQUIRED
from traces.dates import is_date
from traces.errors import spelled_like
from traces.exact import is_missing, number_of
from traces.importers.source import DATE, SIDES, TIMES, UNITS, Source
from traces.unused import ALIASES

TIME_ALIASES = {
    **dict.fromkeys(
        ("arrival", "arrival_time", "arrived", "arrived_at", "created", "created_at", "date", "datetime", "received"),
        "arrival_s",
    ),
    **dict.fromkeys(
        ("received_at", "request_time", "requested_at", "start", "start_time", "submit_time", "submitted_at"),
        "arrival_s",
    ),
    **dict.fromkeys(
        ("time", "timestamp", "ts", "when", "event_time", "submitted", "time_iso8601", "time_local"), "arrival_s"
    ),
    **dict.fromkeys(("deadline", "due", "due_at"), "deadline_s"),
    **dict.fromkeys(("slo", "latency_slo", "timeout"), "slo_s"),
}
SIZE_ALIASES = {
    **dict.fromkeys(("h", "image_height", "img_height", "output_height", "pixel_height"), "height"),
    **dict.fromkeys(("w", "image_width", "img_width", "output_width", "pixel_width"), "width"),
    **dict.fromkeys(
        ("inference_steps", "num_steps", "sampling_steps", "denoising_steps", "n_steps", "iterations"), "steps"
    ),
}
OTHER_ALIASES = {
    **dict.fromkeys(("id", "request", "req_id", "uuid", "job_id", "task_id"), "request_id"),
    **dict.fromkeys(("model_name", "model_id", "pipeline", "base_model"), "model"),
    **dict.fromkeys(
        ("user_id", "client", "client_id", "customer", "customer_id", "account", "api_key", "org"), "tenant"
    ),
    **dict.fromkeys(("ckpt", "checkpoint_name"), "checkpoint"),
    **dict.fromkeys(("positive_prompt", "caption"), "prompt"),
    **dict.fromkeys(("batch", "n_images", "count"), "images"),
    **dict.fromkeys(("length", "n_frames"), "frames"),
}
_SIZES = ("size", "image_size", "resolution", "dimensions")
_ALIASES = {**ALIASES, **OTHER_ALIASES, **SIZE_ALIASES, **TIME_ALIASES}
_SUFFIXES = {
    "nanoseconds": "ns", "nanos": "ns", "microseconds": "us", "micros": "us", "milliseconds": "ms", "millis": "ms",
    "msec": "ms", "seconds": "s", "secs": "s", "sec": "s", "minutes": "min", "mins": "min", "hours": "h",
    **{unit: unit for unit in UNITS},
}  # fmt: skip
"""What the last word of a column of times may say of its unit."""
_LIKE = 0.8
"""How like a name must be to that of a field, of 1."""
_DURATIONS = re.compile(
    r"(^|_)(duration|elapsed|latency|response|runtime|took|exec|execution|processing)(_|$)|^request_time"
)
"""What is in the names of columns that say how long something took, and not when it came."""
TWO_SIDES = re.compile(r" *(\d{1,9}) *[xX×*] *(\d{1,9}) *")
"""The size of a picture in one cell, which most services write width first."""
_LOOKED_AT = 1000  # cells of a column


def proposed(table: pd.DataFrame, known: Iterable[str] = ()) -> dict[str, Source]:
    """The column that each field probably is by its name and by what it holds; the first of several.

    Args:
        table: its columns are looked at, and the first cells of each.
        known: fields that need none.
    """
    taken: set[str] = set(known)
    found: dict[str, Source] = {}
    for column in map(str, table.columns):
        if column in DTYPES:
            taken.add(column)
    for column in map(str, table.columns):
        plain = _plain(column.rpartition(".")[2])
        head, _, last = plain.rpartition("_")
        cells = [cell for cell in table[column].head(_LOOKED_AT).tolist() if not is_missing(cell)]
        if plain in _SIZES and not taken & set(SIDES) and cells and all(map(_is_size, cells)):
            taken |= set(SIDES)
            found |= {"width": Source(column, "1"), "height": Source(column, "2")}
            continue
        field, unit = _called(plain), ""
        if not field and head and last in _SUFFIXES:
            field, unit = _called(head) or _like(head), _SUFFIXES[last]
        field = field or _like(plain)
        if not field or field in taken or column in DTYPES:
            continue
        source = Source(column, unit or _unit(cells)) if field in TIMES else Source(column)
        if _may_be(field, source, plain, table[column], cells):
            taken.add(field)
            found[field] = source
    return found


def _may_be(field: str, source: Source, plain: str, column: pd.Series[Any], cells: list[Any]) -> bool:
    """Whether what a column holds is what its name promises, by the first of its cells that are filled."""
    if field == "request_id":
        return len(column) == 1 or not (column.isna().any() or column.astype(str).duplicated().any())
    if DTYPES[field] == "str":
        return True
    if source.unit == DATE:
        return all(map(is_date, cells)) and field != "slo_s"
    read = [number_of(cell) if isinstance(cell, str | int | float) else math.nan for cell in cells]
    given = [float(number) for number in read if isinstance(number, int | float) and number == number]
    if len(given) < len(cells):
        return False
    if field != "arrival_s" or all(map(unit_since_1970, given)):
        return True
    return not _DURATIONS.search(plain) and given == sorted(given)


def _is_size(cell: object) -> bool:
    return isinstance(cell, str) and TWO_SIDES.fullmatch(cell) is not None


def spelled(mapping: Mapping[str, Source]) -> list[str]:
    """Options of ``trace import table`` that say it."""
    words = []
    for field, source in mapping.items():
        text = f"{field}={source.column}" + (f":{source.unit}" if source.unit != "s" else "")
        words.append(f"--map {text}" if re.fullmatch(r"[\w.:=/-]+", text) else f'--map "{text}"')
    return words


def hint(table: pd.DataFrame, missing: Iterable[str], known: Iterable[str]) -> str:
    """What to add to the command where columns of required fields are missing; empty: nothing is like them."""
    missing, found = list(missing), proposed(table, known)
    unlike = [
        "--map arrival_s=COLUMN" if field == "arrival_s" else f"--set {field}=VALUE"
        for field in missing
        if field not in found
    ]
    words = [*spelled(found), *unlike]
    return f"perhaps {' '.join(words)}" if found else ""


def _called(plain: str) -> str:
    """The field that is called so, here or elsewhere; empty: none."""
    if plain in DTYPES:
        return plain
    return _ALIASES.get(plain) or (f"{plain}_s" if f"{plain}_s" in DTYPES else "")


def _like(plain: str) -> str:
    """The field that is called nearly so; empty: none."""
    like = spelled_like(plain, [*REQUIRED, *_ALIASES], _LIKE)
    return "" if like is None else _ALIASES.get(like, like)


def _plain(column: str) -> str:
    """``createdAt``, ``Created At (ms)`` as ``created_at``, ``created_at_ms``."""
    parted = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", column.strip())
    return re.sub(r"[^a-z0-9]+", "_", parted.lower()).strip("_")


def _unit(cells: list[Any]) -> str:
    """What a column of times is probably in, by its first cell that holds something."""
    first = next(iter(cells), None)
    number = number_of(first) if isinstance(first, str | int | float) else None
    if isinstance(number, int | float) and number == number:
        return unit_since_1970(float(number)) or "s"
    return DATE if first is not None else "s"
