"""Alibaba GenTD26: production Stable Diffusion requests (``lora_request_trace.csv``).

The published file has one row a request with its time in whole seconds, type, status, execution time, group,
steps, images, checkpoint and number of adapters, but no width or height: those are drawn from a size table, and
adapters are called ``lora1``, ``lora2``, ...: requests with as many are taken to want the same ones. Source:
cluster-trace-v2026-GenAI; "Understanding Diffusion Model Serving in Production", SoCC '25.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from traces.adapters import MOST
from traces.columns import Cells, numbers, texts
from traces.dates import seconds_since_1970
from traces.errors import BadInput
from traces.files import read_frame, require_columns
from traces.importers.imported import Imported, Sieve, spread_ties
from traces.limits import Range
from traces.mix import Mix
from traces.request import Size
from traces.streams import stream

STATUSES = ("SUCCEED", "FAILED")
"""Statuses imported by default: both were demand on the cluster."""

_TIME = "gmt_create"
_TEXT = ("predict_type", "predict_status", "groupId", "checkpoint_model_version_id")
_NUMBERS = {
    "steps": "num_inference_steps",
    "images": "num_images_per_prompt",
    "exec_s": "exec_time_seconds",
}
_ADAPTERS = "num_lora"
_COUNT = Range(0, MOST, "adapters", whole=True)


def import_gentd26(
    path: Path,
    sizes: Mix[Size],
    *,
    seed: int = 0,
    model: str = "sdxl",
    statuses: Sequence[str] = STATUSES,
    spread_seconds: bool = False,
    limit: int | None = None,
) -> Imported:
    """The trace in a GenTD26 request file, packed or not. Time 0 is the earliest request of the file.

    Extra columns: type_recorded, status_recorded, exec_s (recorded execution time). The group is the tenant. Rows of
    the same second keep their order in the file. Sizes come
    from the stream "gentd26 sizes", request seeds from "gentd26 seeds", ties from "gentd26 ties".

    Args:
        path: the file as published.
        sizes: what sizes to draw.
        seed: seed of the random streams.
        model: what the requests ask for.
        statuses: which recorded statuses to import.
        spread_seconds: move requests of the same second to random points within it.
        limit: only the first arrivals.

    Raises:
        BadInput: an unreadable file, a missing column, a bad cell, a status that the file does not have, or
            no row left.
    """
    source = str(path)
    used = (_TIME, *_TEXT, *_NUMBERS.values(), _ADAPTERS)
    table = read_frame(path, text=(_TIME, *_TEXT))
    require_columns(table, used, source)
    table = table.assign(**{name: texts(table[name], name, Cells(source)) for name in _TEXT})
    sieve = Sieve(table, source)
    recorded = table["predict_status"].fillna("(empty)")
    sieve.note("status, rows read", recorded)
    sieve.note("type, rows read", table["predict_type"])
    for status in statuses:
        if status not in STATUSES and status not in set(recorded):
            raise BadInput(f"{source}: no row has status {status!r}; the file has: {', '.join(sorted(set(recorded)))}")
    for status in sorted(set(recorded) - set(statuses)):
        sieve.leave_out(sieve.frame["predict_status"].fillna("(empty)") == status, f"status {status}")
    sieve.leave_out_empty({_TIME: "time", "num_inference_steps": "steps", "num_images_per_prompt": "images a request"})
    created = seconds_since_1970(table[_TIME], "arrival_s", Cells(source, columns={"arrival_s": _TIME}))
    order = created[sieve.frame.index].sort_values(kind="stable").index
    kept = sieve.frame = sieve.frame.loc[order]
    cells = Cells(source, sieve.rows, {**_NUMBERS, "adapters": _ADAPTERS})
    arrival = (created[order] - created.min()).to_numpy()
    _, together = np.unique(arrival, return_counts=True)
    sieve.notable["arrivals, rows kept"] = {"in the same second as another": int(together[together > 1].sum())}
    if spread_seconds:
        arrival = spread_ties(arrival, stream(seed, "gentd26 ties"))
    drawn = np.array(sizes.draw(len(kept), stream(seed, "gentd26 sizes")), dtype=np.int64).reshape(-1, 3)
    frame = pd.DataFrame(
        {
            "arrival_s": arrival,
            "height": drawn[:, 0],
            "width": drawn[:, 1],
            "frames": drawn[:, 2],
            "model": model,
            "seed": stream(seed, "gentd26 seeds").integers(2**31, size=len(kept)),
            "tenant": kept["groupId"].to_numpy(),
            "checkpoint": kept["checkpoint_model_version_id"].fillna("").to_numpy(),
            "adapters": _counts(kept[_ADAPTERS], cells).map(_named).to_numpy(),
            "type_recorded": kept["predict_type"].to_numpy(),
            "status_recorded": kept["predict_status"].to_numpy(),
            **{field: numbers(kept[column], field, cells).to_numpy() for field, column in _NUMBERS.items()},
        }
    )
    sieve.note("images a request, rows kept", frame["images"])
    sieve.note("adapters a request, rows kept", _counts(kept[_ADAPTERS], cells))
    sieve.note_unused([name for name in table.columns if name not in used])
    return sieve.imported(frame, {**_NUMBERS, "adapters": _ADAPTERS, "arrival_s": _TIME}, limit)


def _counts(values: pd.Series[Any], cells: Cells) -> pd.Series[Any]:
    """How many adapters each request has; an empty cell is none.

    Raises:
        BadInput: the first cell that is no such number.
    """
    counts = numbers(values, "adapters", cells)
    wrong = ~(counts.isna() | ((counts % 1 == 0) & _COUNT.mask(counts))).to_numpy(dtype=bool)
    if wrong.any():
        position = int(np.argmax(wrong))
        raise cells.bad(position, "adapters", counts.iloc[position], str(_COUNT))
    return counts


def _named(count: float) -> str:
    """Names for so many adapters, which the file only counts."""
    return "" if count != count else "+".join([f"lora{number}" for number in range(1, int(count) + 1)])
