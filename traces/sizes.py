"""Sizes that are asked for: size tables in files or as text, and sizes carried from one model to another."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from traces.columns import Cells, numbers
from traces.errors import BadInput
from traces.files import read_frame, require_columns
from traces.geometry import ModelGeometry
from traces.mix import Mix, split_weight
from traces.request import Size

_SIZE = re.compile(r"(\d{1,18})x(\d{1,18})(?:x(\d{1,18}))?")


def format_size(size: Size) -> str:
    """``512x768`` (height x width), with ``x81`` behind it for a clip of 81 frames.

    Where reference pictures are seen beside it, their pixels follow: ``512x768r1048576``.
    """
    height, width, frames, *seen = size
    return f"{height}x{width}" + (f"x{frames}" if frames > 1 else "") + "".join([f"r{pixels}" for pixels in seen])


def parse_size(text: str) -> Size:
    """The size that ``text`` spells.

    Raises:
        BadInput: it spells none.
    """
    match = _SIZE.fullmatch(text.strip())
    size = tuple(int(side or 1) for side in match.groups()) if match else ()
    if len(size) != 3 or min(size) < 1:
        raise BadInput(f"size {text.strip()!r} is not like '512x768' (height x width[x frames], px)")
    return (size[0], size[1], size[2])


def parse_sizes(text: str) -> Mix[Size]:
    """The sizes that ``text`` spells: ``512x512:2,768x512:1`` (height x width:weight).

    Raises:
        BadInput: it spells none.
    """
    values, weights = [], []
    for part in text.split(","):
        value, weight = split_weight(part, text, "sizes")
        values.append(parse_size(value))
        weights.append(weight)
    return Mix(tuple(values), tuple(weights))


def parse_size_list(text: str, option: str) -> tuple[Size, ...]:
    """The sizes that ``text`` spells one by one: ``512x512,480x832x81``.

    Args:
        text: the spelling.
        option: where it stands, for messages.

    Raises:
        BadInput: it spells none.
    """
    try:
        return tuple([parse_size(item) for item in text.split(",")])
    except BadInput as error:
        raise BadInput(f"{option}: {error}") from None


def parse_tile(text: str, where: str, otherwise: str = "") -> tuple[int, int]:
    """The height and width of a tile that ``text`` spells, px.

    Args:
        text: the spelling.
        where: it stands, for messages.
        otherwise: what else may stand there, for messages.

    Raises:
        BadInput: it spells none; a tile has no frames of its own.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None or match[3] is not None or min(sides := (int(match[1]), int(match[2]))) < 1:
        raise BadInput(f"{where} is {text!r}, expected {otherwise}heightxwidth in pixels like 512x768")
    return sides


def load_sizes(path: Path) -> Mix[Size]:
    """The size table in a file (CSV, Parquet, JSON lines): ``height,width,weight``, optionally ``frames``.

    Raises:
        BadInput: an unreadable file, a missing column, or a bad cell (file, row and column are named).
    """
    source = str(path)
    frame = read_frame(path)
    require_columns(frame, ("height", "width", "weight"), source)
    if "frames" not in frame:
        frame = frame.assign(frames=1)
    cells = Cells(source)
    columns = {name: numbers(frame[name], name, cells) for name in ("height", "width", "frames", "weight")}
    table = list(zip(*(values.tolist() for values in columns.values()), strict=True))
    for position, row in enumerate(table):
        for field, value in zip(("height", "width", "frames"), row[:3], strict=True):
            if not (1 <= value < 2**31 and value % 1 == 0):
                raise cells.bad(position, field, value, "a whole number of at least 1")
        if not 0 <= row[3] < np.inf:
            raise cells.bad(position, "weight", row[3], "a number of at least 0")
    try:
        return Mix(tuple((int(h), int(w), int(f)) for h, w, f, _ in table), tuple(float(row[3]) for row in table))
    except BadInput as error:
        raise BadInput(f"{source}: {error}") from None


def sizes_from(text: str) -> Mix[Size]:
    """The sizes of ``text``, which is either a spelling like ``512x512:2,768x512:1`` or a file's name.

    Raises:
        BadInput: as `parse_sizes` and `load_sizes`.
    """
    return parse_sizes(text) if _SIZE.match(text) and not Path(text).is_file() else load_sizes(Path(text))


def scaled_sides(
    sides: npt.NDArray[Any],
    factor: npt.NDArray[Any] | float,
    to: ModelGeometry,
    minimum: int | None = None,
    maximum: int | None = None,
) -> npt.NDArray[Any]:
    """Heights and widths carried to the model ``to``, of shape (n, 2), in pixels.

    Both sides are scaled by one factor, which is reduced (or raised) where the longer side would pass
    ``maximum`` (or the shorter fall below ``minimum``), so the aspect ratio stays as near as rounding to the
    model's size_multiple allows. No side is less than one multiple.

    Args:
        sides: (n, 2) heights and widths, px.
        factor: one for all rows, or (n,).
        to: the model that must be able to make the result.
        minimum: no side below this, px.
        maximum: no side above this, px; wins over ``minimum`` for the factor, not for the limits.

    Raises:
        BadInput: a factor that is not above 0, or limits that leave no multiple of size_multiple.
    """
    factors = np.broadcast_to(np.asarray(factor, dtype=float), len(sides))
    if not (np.isfinite(factors).all() and (factors > 0).all()):
        raise BadInput(f"size factor is {factor}, expected a number above 0")
    multiple = to.size_multiple
    low = multiple if minimum is None else max(multiple, -(-minimum // multiple) * multiple)
    high = None if maximum is None else maximum // multiple * multiple
    if high is not None and high < low:
        raise BadInput(
            f"sizes between {minimum or multiple} and {maximum} px hold no multiple of {multiple} px, which "
            f"model {to.name!r} needs"
        )
    scaled = np.asarray(sides, dtype=float) * factors[:, None]
    scaled *= np.maximum(1.0, low / scaled.min(axis=1, initial=np.inf))[:, None] if minimum is not None else 1.0
    if high is not None:
        scaled *= np.minimum(1.0, high / scaled.max(axis=1, initial=0.0))[:, None]
    rounded = np.floor(scaled / multiple + 0.5) * multiple
    limited: npt.NDArray[Any] = np.clip(
        rounded, low, high if high is not None else np.iinfo("int32").max // multiple * multiple
    )
    return limited.astype("int32")
