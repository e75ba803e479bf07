"""The measurements published with MixFusion (PPoPP '26; arXiv 2501.09253): SDXL and SD3 on one H100-80GB.

Two kinds of CSV file, told apart by name:

- ``unet_time_{model}.csv``: mixed batches run in patches; images at 512, 768 and 1024 px, and seconds for 50
  denoising steps. Batches recur, which shows the noise of the measurement.
- ``sm_util_{model}_{size}.csv``: row i is a batch of i images of one size run whole; seconds for 50 denoising
  steps (``unet time``) and for the VAE decode (``post time``). The ``sm util`` column is not usable.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from predictors.profile import Profile
from traces.columns import Cells, numbers
from traces.composition import composition_of, format_composition
from traces.errors import BadInput
from traces.files import read_frame, require_columns
from traces.limits import SPAN
from traces.request import Size

HARDWARE = "NVIDIA H100 80GB"
SOFTWARE = "MixFusion artifact (PPoPP '26)"
STEPS = 50
ADDRESS = "PPoPP '26, https://ppopp26.sigplan.org/details/PPoPP-2026-papers/10"
"""Where the artifact is had: the paper it belongs to."""

NOTES = {
    ("sdxl", "patched"): (
        "the SDXL mixed table was most likely taken with the patch cache on: "
        "do not compare its seconds with those of whole batches"
    ),
}

_MIXED = re.compile(r"unet_time_(sdxl|sd3)\.csv")
_WHOLE = re.compile(r"sm_util_(sdxl|sd3)_(512|768|1024)\.csv")
_KNOWN = "unet_time_{sdxl,sd3}.csv and sm_util_{sdxl,sd3}_{512,768,1024}.csv"

Row = dict[str, Any]


def import_mixfusion(files: Iterable[Path]) -> Profile:
    """The profile that the published CSV files hold, whichever of them are given.

    Raises:
        BadInput: no files, a file of another name, or one that cannot be read (named with its row).
    """
    paths = [Path(f) for f in files]
    if not paths:
        raise BadInput(f"no files; expected {_KNOWN}")
    rows: list[Row] = []
    for path in paths:
        if match := _MIXED.fullmatch(path.name):
            rows += _mixed_rows(path, match[1])
        elif match := _WHOLE.fullmatch(path.name):
            rows += _whole_rows(path, match[1], int(match[2]))
        else:
            raise BadInput(f"{path}: unknown file name {path.name!r}; known names: {_KNOWN}")
    frame = pd.DataFrame(rows).assign(hardware=HARDWARE, software=SOFTWARE, guided=True)
    taken = set(zip(frame["model"], frame["executor"], strict=True))
    facts = {"source": "MixFusion artifact, Apache-2.0: " + ", ".join(sorted({p.name for p in paths}))}
    if notes := [note for key, note in NOTES.items() if key in taken]:
        facts["note"] = "; ".join(notes)
    return Profile.from_frame(frame, facts)


def _mixed_rows(path: Path, model: str) -> list[Row]:
    sides = (512, 768, 1024)
    counts = [f"{side} num" for side in sides]
    rows = []
    for number, values in enumerate(_read(path, [*counts, "avg unet time"]), start=1):
        images = values[:-1]
        if any(n < 0 or n % 1 for n in images) or not sum(images):
            raise BadInput(f"{path}: row {number}: images are {images}, expected whole numbers, one above 0")
        items: list[tuple[Size, int]] = [((s, s, 1), int(n)) for s, n in zip(sides, images, strict=True) if n]
        rows.append(_row(model, "patched", "denoise", items, STEPS, values[-1]))
    return rows


def _whole_rows(path: Path, model: str, side: int) -> list[Row]:
    rows = []
    for images, (denoise, decode) in enumerate(_read(path, ["unet time", "post time"]), start=1):
        items: list[tuple[Size, int]] = [((side, side, 1), images)]
        rows.append(_row(model, "whole", "denoise", items, STEPS, denoise))
        rows.append(_row(model, "whole", "decode", items, 1, decode))
    return rows


def _row(model: str, executor: str, stage: str, items: list[tuple[Size, int]], steps: int, seconds: float) -> Row:
    composition = format_composition(composition_of(items))
    return {
        "model": model,
        "executor": executor,
        "stage": stage,
        "composition": composition,
        "steps": steps,
        "seconds": seconds,
    }


def _read(path: Path, columns: list[str]) -> list[list[float]]:
    """The named columns of a CSV file as numbers, row by row."""
    if not path.is_file():
        raise BadInput(f"{path}: no such file")
    frame, cells = read_frame(path), Cells(str(path))
    require_columns(frame, columns, str(path))
    read = {}
    for name in columns:
        number = numbers(frame[name], name, cells).astype("float64")
        wrong = ~((number >= 0) & (number <= SPAN.most)).to_numpy()
        if wrong.any():
            row = int(wrong.argmax())
            raise cells.bad(row, name, frame[name].iat[row], f"a number of 0 to {SPAN.most:,}")
        read[name] = number
    values: list[list[float]] = pd.DataFrame(read).to_numpy().tolist()
    return values
