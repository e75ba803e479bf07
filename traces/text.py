"""Text in files, whatever editor, shell or system wrote it: every text that Tilecast reads or writes passes here.

What is written is UTF-8 with plain line ends. What is read may begin with a byte order mark (Notepad), be UTF-16
(PowerShell's ``>``), end its lines with CRLF, and be packed with gzip. The system's locale never matters.
"""

from __future__ import annotations

import codecs
import gzip
import json
import tomllib
import zlib
from pathlib import Path
from typing import Any

from traces.errors import BadInput

GZIP_MAGIC = b"\x1f\x8b"
MOST_LEVELS = 100
"""Of tables and lists in each other, before what reads them calls itself too often."""
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_bytes(path: Path) -> bytes:
    """The file's bytes, unpacked if they are gzip.

    Raises:
        BadInput: no such file, not readable, damaged gzip, or nothing in it.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
        if data.startswith(GZIP_MAGIC):
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise BadInput(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not data.strip():
        raise BadInput(f"{path}: the file is empty")
    return data


def read_text(path: Path) -> str:
    """The file's text: UTF-8, or UTF-16 that begins with its byte order mark.

    Raises:
        BadInput: as `read_bytes`, or another encoding.
    """
    data = read_bytes(path)
    encoding = "utf-16" if data.startswith(_UTF16) else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        right = f"save it as UTF-8 (byte {error.start})"
        raise BadInput(f"{path}: not {encoding.removesuffix('-sig').upper()} text; {right}") from error


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file.

    Raises:
        BadInput: as `read_text`, or no TOML.
    """
    return parse_toml(read_text(path), str(path))


def parse_toml(text: str, source: str) -> dict[str, Any]:
    """The tables of TOML text, whose line ends may be of any kind; ``source`` names it in messages.

    Raises:
        BadInput: it is no TOML.
    """
    try:
        values = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{source} is not TOML: {error}") from error
    if not _is_flat(values):
        raise BadInput(f"{source}: tables and lists are nested more than {MOST_LEVELS} deep, which nothing needs")
    return values


def _is_flat(value: Any) -> bool:
    """Whether tables and lists are nested at most `MOST_LEVELS` deep; dotted keys nest without a bracket."""
    level = [value]
    for _ in range(MOST_LEVELS + 1):
        level = [inner for each in level for inner in (each.values() if isinstance(each, dict) else each)]
        level = [inner for inner in level if isinstance(inner, dict | list)]
        if not level:
            return True
    return False


def parse_json(text: str) -> Any:
    """What JSON text says.

    Raises:
        BadInput: it gives a key twice.
        ValueError: it is no JSON.
        RecursionError: it is nested too deeply.
    """
    return json.loads(text, object_pairs_hook=_object)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for at, key in enumerate(keys) if key in keys[:at])
        raise BadInput(f"gives {twice!r} twice, expected it once")
    return values


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        BadInput: as `read_text`, or no JSON.
    """
    text = read_text(path)
    try:
        return parse_json(text)
    except BadInput as error:
        raise BadInput(f"{path} {error}") from None
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path} is not JSON: {error}") from error


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text with plain line ends; what UTF-8 cannot hold (half a surrogate pair) becomes a question mark.

    Raises:
        OSError: it cannot be written; `traces.output` says so in a line.
    """
    Path(path).write_bytes(text.encode("utf-8", "replace"))
