"""Tables in files: Parquet, CSV and JSON, chosen by the file's suffix, or of .log and .txt by what they hold.

Reading keeps what the file says: no text is taken for a missing value except the empty field, floats come
back bit for bit and whole numbers to the last digit (see `traces.exact`), and every failure is one line that names
the file. Writing is atomic.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from traces.errors import BadInput, nearest
from traces.exact import WHOLE_TYPES, column_of, column_of_text, is_missing, unmasked
from traces.limits import is_control
from traces.marks import OutputKind
from traces.output import whole_file
from traces.text import MOST_LEVELS, parse_json, read_bytes, read_json, read_text, write_text

_LARGEST_FIELD = 2**31 - 1
SEPARATED_BY = "separated by"
"""Of the attributes of a table that was read: what its fields are separated by, where that is no comma."""
_SEPARATORS = ",;\t|"
_BY_CONTENT = (".log", ".txt")
_UNSEEN = "\ufeff\u200b\u2060"
"""Byte order marks and joiners, which tell apart columns that look the same."""


def read_frame(path: Path, text: Iterable[str] = ()) -> pd.DataFrame:
    """The table in ``path``; the columns named in ``text`` stay text even where they look like numbers.

    Args:
        path: .parquet, .csv (separated by commas, or by the semicolons, tabs or bars of its header), .jsonl or .json (a
            list of objects, or lines), or .log or .txt, which hold one of the latter three; all but the first may be
            packed as .gz.
        text: names of columns that hold text.

    Raises:
        BadInput: as `read_bytes`, an unknown suffix, a damaged file, or no rows.
    """
    path = Path(path)
    kind = suffix_of(path, reading=True)
    if kind in _BY_CONTENT:
        kind = _kind_of_text(path)
    if kind == ".parquet":
        frame = _read_parquet(path)
    elif kind == ".csv":
        frame = _read_csv(path, text)
    else:
        frame = frame_of(_read_json_list(path) if kind == ".json" else _read_jsonl(path))
    if frame.empty:
        raise BadInput(f"{path}: the file has no rows")
    for name in map(str, frame.columns):
        if any(character in _UNSEEN or (is_control(character) and character not in "\t\n\r") for character in name):
            raise BadInput(
                f"{path}: column {name!r} has a character in its name that cannot be seen; expected it without"
            )
    return frame


def read_table(path: Path) -> pa.Table:
    """The Parquet table in ``path``, opened once: of a file that is replaced meanwhile, all of the one or the other.

    Raises:
        OSError, ValueError, pyarrow.ArrowException: it cannot be read, or is no such table.
    """
    with Path(path).open("rb") as file:
        return pq.ParquetFile(file).read()


def write_frame(frame: pd.DataFrame, path: Path, kind: OutputKind) -> None:
    """Write the table to ``path`` by its suffix (.parquet, .csv or .jsonl), whole or not at all.

    Raises:
        BadInput: an unknown suffix, a column the format cannot hold, or a path that must not be written (see
            `traces.output`).
    """
    suffix = suffix_of(path)
    with whole_file(path, kind) as temporary:
        try:
            if suffix == ".parquet":
                pq.write_table(kind.table(frame), temporary)
            else:
                text = _csv(frame) if suffix == ".csv" else _jsonl(frame)
                temporary.write_bytes(text.encode())
        except (pa.ArrowException, UnicodeEncodeError) as error:
            raise BadInput(f"cannot write {path}: {str(error).splitlines()[0]}") from error


def write_document(text: str, path: Path, kind: OutputKind) -> None:
    """Write text that bears the mark of its kind, whole or not at all; see `traces.text.write_text`.

    Raises:
        BadInput: a path that must not be written, see `traces.output`.
    """
    with whole_file(path, kind) as temporary:
        write_text(temporary, text)


def write_json(document: Mapping[str, Any], path: Path, kind: OutputKind, indent: int = 2) -> None:
    """Write ``document`` as JSON with the mark of its kind; see `write_document`."""
    write_document(kind.json(json.dumps(document, indent=indent, allow_nan=False)) + "\n", path, kind)


def frame_of(records: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """The table of some records; a column that a record lacks is empty there."""
    names = dict.fromkeys(name for record in records for name in record)
    return pd.DataFrame({name: column_of(record.get(name) for record in records) for name in names})


def flattened(frame: pd.DataFrame) -> pd.DataFrame:
    """The table with nested objects as columns of their own: ``body.height`` of ``{"body": {"height": 512}}``.

    A column that holds anything but objects, or whose parts would have the name of another column, stays as it is.
    """
    columns = {name: frame[name] for name in frame}
    waiting = list(columns)
    while waiting:
        name = waiting.pop()
        cells = columns[name].tolist()
        given = [cell for cell in cells if not is_missing(cell)] if columns[name].dtype == object else []
        if not given or not all(isinstance(cell, dict) for cell in given) or str(name).count(".") > MOST_LEVELS:
            continue
        parts = dict.fromkeys(part for cell in given for part in cell)
        inner = {
            f"{name}.{part}": column_of(None if is_missing(cell) else cell.get(part) for cell in cells)
            for part in parts
        }
        if inner and not inner.keys() & columns.keys():
            columns = {
                key: value for old in columns for key, value in (inner if old == name else {old: columns[old]}).items()
            }
            waiting += inner
    return pd.DataFrame(columns)


def require_columns(frame: pd.DataFrame, columns: Sequence[str], source: str) -> None:
    """Raise BadInput naming every one of ``columns`` that ``frame`` lacks, what may be meant, and what it has."""
    have = [str(name) for name in frame.columns]
    lacks = [column for column in dict.fromkeys(columns) if column not in frame.columns]
    if not lacks:
        return
    like = {column: nearest(column, [name for name in have if name not in columns]) for column in lacks}
    named = [f"{column!r}" + (f" (did you mean {meant!r}?)" if meant else "") for column, meant in like.items()]
    raise BadInput(f"{source}: no column {', '.join(named)}; the file has: {', '.join(have)}")


def row_at(position: int, source: str = "") -> str:
    """Where a row of a table stands, for messages: by the number that a spreadsheet shows; the header has 1.

    Args:
        position: 0, 1, 2, ... of the rows of data.
        source: the file; one that is neither CSV nor Parquet has no header, and its records are counted from 1.
    """
    of_table = Path(source.lower().removesuffix(".gz")).suffix in ("", ".csv", ".parquet")
    return f"row {position + 2} counting the header" if of_table else f"record {position + 1}"


def suffix_of(path: Path, reading: bool = False) -> str:
    """What a table's file is by its name: .parquet, .csv or .jsonl; ``reading``: or .json, .log or .txt, and all but
    Parquet also as .gz.

    Raises:
        BadInput: it is none.
    """
    path = Path(path)
    suffixes = [suffix.lower() for suffix in path.suffixes]
    packed = reading and suffixes[-1:] == [".gz"]
    known = [".csv", ".jsonl", *([".json", *_BY_CONTENT] if reading else []), *([] if packed else [".parquet"])]
    last = suffixes[-2:-1] if packed else suffixes[-1:]
    if last and last[0] in known:
        return last[0]
    expected = (
        ".parquet, .csv, .jsonl, .json, .log or .txt (all but the first also as .gz)"
        if reading
        else ".parquet, .csv or .jsonl"
    )
    raise BadInput(f"{path}: unknown file type {''.join(path.suffixes) or path.name!r}, expected {expected}")


def _kind_of_text(path: Path) -> str:
    """What a .log or .txt holds: .json (a list, or lines) or .csv.

    Raises:
        BadInput: it seems to be neither.
    """
    content = read_text(path)
    if content.lstrip().startswith(("{", "[{")):
        return ".json"
    if content.strip() and len(next(csv.reader(io.StringIO(content, newline=""), delimiter=_separator(content)))) < 2:
        raise BadInput(f"{path}: neither JSON lines nor a table; have the server write its log as JSON, or make it CSV")
    return ".csv"


def _separator(content: str) -> str:
    """What separates the fields of a table, by its header: a comma, or where there is none what parts it most."""
    csv.field_size_limit(_LARGEST_FIELD)
    fields = {}
    for mark in _SEPARATORS:
        rows = csv.reader(io.StringIO(content, newline=""), delimiter=mark)
        fields[mark] = len(next((row for row in rows if row), []))
        if mark == "," and fields[mark] > 1:
            break
    return max(fields, key=lambda mark: fields[mark])


def _read_parquet(path: Path) -> pd.DataFrame:
    read_bytes(path)
    try:
        frame = _plain_columns(read_table(path)).to_pandas(types_mapper=WHOLE_TYPES.get)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise BadInput(f"{path}: not a Parquet file: {str(error).splitlines()[0]}") from error
    if any(name is not None for name in frame.index.names):  # which pandas writes as a column of the file
        frame = frame.reset_index()
    _once(frame.columns.tolist(), path)
    filled = [name for name in frame if frame[name].dtype in WHOLE_TYPES.values() and not frame[name].isna().any()]
    return frame.astype({name: unmasked(frame[name]).dtype for name in filled})


def _plain_columns(table: pa.Table) -> pa.Table:
    """The table with dictionary-encoded columns (pandas' categories) as the values that they stand for."""
    for at, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            table = table.set_column(at, field.name, table.column(at).cast(field.type.value_type))
    return table


def _read_csv(path: Path, text: Iterable[str]) -> pd.DataFrame:
    content = read_text(path)
    try:
        mark = _separator(content)
        header = _csv_header(content, path, mark)
        frame: pd.DataFrame = pd.read_csv(
            io.StringIO(content), sep=mark, dtype=str, keep_default_na=False, na_values=[""]
        )
    except BadInput:
        raise
    except (pd.errors.ParserError, ValueError, csv.Error) as error:
        raise BadInput(f"{path}: not a CSV table: {str(error).strip().splitlines()[0]}") from error
    if len(header) != len(frame.columns):
        raise BadInput(f"{path}: not a CSV table: its first line is no header")
    frame.columns = pd.Index([name.strip() or str(read) for name, read in zip(header, frame.columns, strict=True)])
    _once([name.strip() for name in header], path)
    kept = set(text)
    read = pd.DataFrame({name: frame[name] if name in kept else column_of_text(frame[name]) for name in frame})
    if mark != ",":
        read.attrs[SEPARATED_BY] = mark
    return read


def _csv_header(content: str, path: Path, mark: str) -> list[str]:
    """The first row of a CSV table.

    Raises:
        BadInput: another row has fewer or more fields.
    """
    read = csv.reader(io.StringIO(content, newline=""), delimiter=mark)
    rows = (row for row in read if len(row) > 1 or (row and row[0].strip(" \t")))  # blank lines are no rows
    header = next(rows, [])
    for position, row in enumerate(rows):
        if len(row) != len(header):
            raise BadInput(
                f"{path}: {row_at(position)} has {len(row)} fields, expected {len(header)}, as the header has columns"
            )
    return header


def _once(names: Sequence[str], path: Path) -> None:
    """Raise BadInput for the first name that two columns have."""
    for number, name in enumerate(names):
        if name in names[:number]:
            raise BadInput(f"{path}: column {name!r} is there twice")


def _read_json_list(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON list; a file that is none is read as JSON lines."""
    if not read_text(path).lstrip().startswith("["):
        return _read_jsonl(path)
    records = read_json(path)
    if not _is_text(records):
        raise BadInput(f"{path} holds half of a character (\\ud800 to \\udfff), which is no text")
    wrong = next((at for at, record in enumerate(records, start=1) if not isinstance(record, dict)), None)
    if wrong is not None:
        raise BadInput(f"{path}: item {wrong} is {type(records[wrong - 1]).__name__}, expected a JSON object")
    return list(records)


def _read_jsonl(path: Path) -> list[dict[str, Any]]:
    records = []
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = parse_json(line)
        except BadInput as error:
            raise BadInput(f"{path}: line {number} {error}") from None
        except (ValueError, RecursionError) as error:
            raise BadInput(f"{path}: line {number} is not JSON: {error}") from error
        if r"\ud" in line.lower() and not _is_text(record):
            raise BadInput(f"{path}: line {number} holds half of a character (\\ud800 to \\udfff), which is no text")
        if not isinstance(record, dict):
            raise BadInput(f"{path}: line {number} is {type(record).__name__}, expected a JSON object")
        records.append(record)
    return records


def _is_text(record: Any) -> bool:
    try:
        return bool(json.dumps(record, ensure_ascii=False).encode())
    except UnicodeEncodeError:
        return False


def _csv(frame: pd.DataFrame) -> str:
    text = frame.to_csv(index=False, lineterminator="\n")
    if "\r" in text:  # which a field may hold, and which only quotes keep from ending a row
        text = frame.to_csv(index=False, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    return text


def _jsonl(frame: pd.DataFrame) -> str:
    return "".join(_json_line(record) for record in frame.to_dict(orient="records"))


def _json_line(record: dict[Any, Any]) -> str:
    plain = {key: None if is_missing(value) else value for key, value in record.items()}
    return json.dumps(plain, ensure_ascii=False, default=_plain) + "\n"


def _plain(value: Any) -> Any:
    """What JSON has no word for: numpy scalars and arrays as Python values, anything else (dates) as text."""
    return value.tolist() if hasattr(value, "tolist") else str(value)
