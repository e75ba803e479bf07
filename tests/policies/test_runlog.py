"""A folder that others have written to is a run log, or what is wrong with it is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from policies.runlog import REQUEST_COLUMNS, STEP_COLUMNS, read_run
from traces.errors import BadInput

TABLES = {"requests.parquet": REQUEST_COLUMNS, "steps.parquet": STEP_COLUMNS}
CELLS = [(file, column) for file, columns in TABLES.items() for column in columns]
PLAIN: dict[str, Any] = {"str": "a", "object": ["a"], "bool": False, "int32": 1, "int64": 1, "float64": 1.0}


def written(folder: Path, **changed: dict[str, Any]) -> Path:
    """A run log of one row a table; ``changed``: by table's stem, columns instead."""
    for file, columns in TABLES.items():
        plain = {name: pa.array([PLAIN[kind]]) for name, kind in columns.items()}
        pq.write_table(pa.table(plain | changed.get(Path(file).stem, {})), folder / file)
    (folder / "run.json").write_text(json.dumps({}))
    return folder


@pytest.mark.parametrize(("file", "column"), CELLS)
def test_a_column_of_another_kind_is_named(file: str, column: str, tmp_path: Path) -> None:
    kind = TABLES[file][column]
    written(tmp_path)
    for wrong in ("x", {"a": 1}, [1], -1e300, b"a"):
        if type(wrong) is type(PLAIN[kind]) and kind == "str":
            continue
        plain = {name: pa.array([PLAIN[each]]) for name, each in TABLES[file].items()}
        pq.write_table(pa.table(plain | {column: pa.array([wrong])}), tmp_path / file)
        with pytest.raises(
            BadInput, match=rf"{file}: (column '{column}' holds .*|row 2.*: {column} is -1e\+300), expected"
        ):
            read_run(tmp_path)


@pytest.mark.parametrize(("file", "column"), CELLS)
def test_an_empty_cell_is_nothing_to_count_with(file: str, column: str, tmp_path: Path) -> None:
    cells = pa.array([PLAIN[TABLES[file][column]], None])
    written(tmp_path, **{Path(file).stem: {name: pa.array([PLAIN[kind]] * 2) for name, kind in TABLES[file].items()}})
    table = pq.read_table(tmp_path / file)
    pq.write_table(table.set_column(table.column_names.index(column), column, cells), tmp_path / file)
    if column in ("deadline_s", "standalone_s", "first_start_s", "finish_s", "predicted_s"):
        run = read_run(tmp_path)
        frame = run.requests if file == "requests.parquet" else run.steps
        assert frame[column].isna().tolist() == [False, True]
    else:
        with pytest.raises(BadInput, match=rf"{file}: row 3 .* has no {column}"):
            read_run(tmp_path)


@pytest.mark.parametrize("text", ["", "[" * 100_000, "{", '{"seed": 1, "seed": 2}'])
def test_a_description_that_is_none_is_named(text: str, tmp_path: Path) -> None:
    (written(tmp_path) / "run.json").write_text(text)
    with pytest.raises(BadInput, match=r"run\.json:? (is not JSON|the file is empty|gives 'seed' twice)"):
        read_run(tmp_path)
