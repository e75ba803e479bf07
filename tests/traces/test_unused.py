"""A column that no run looks at is named, with the field that may have been meant."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from traces.importers.table import import_table
from traces.unused import without_effect

REQUEST = {"arrival_s": [0.0, 1.0], "height": 96, "width": 96, "steps": 2}


def sentence(**columns: object) -> str:
    return without_effect(pd.DataFrame(REQUEST | columns))


def test_unknown_columns_are_named_once_in_one_sentence() -> None:
    assert sentence(sampler="DPM++ 2M Karras", clip_skip=[2, None]) == "columns that have no effect: sampler, clip_skip"


@pytest.mark.parametrize(
    ("name", "field"),
    [("CFG Scale", "guidance_scale"), ("lora", "adapters"), ("negative", "negative_prompt"), ("promt", "prompt"),
     ("num_inference_steps", "steps"), ("guidance-scale", "guidance_scale"), ("True_CFG", "true_cfg_scale")],
)  # fmt: skip
def test_what_other_programs_call_a_field_is_known(name: str, field: str) -> None:
    assert sentence(**{name: 1}) == f"columns that have no effect: {name} (did you mean {field!r}?)"


def test_fields_empty_columns_and_what_was_recorded_are_not_named() -> None:
    assert sentence(negative_prompt="blue", strength=0.5, sampler=None, exec_s=1.0) == ""


def test_a_column_that_is_only_somewhat_like_a_field_gets_no_hint() -> None:
    assert sentence(request_time=1.0, request="POST") == "columns that have no effect: request_time, request"


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
def test_imports_say_it_too(suffix: str, tmp_path: Path) -> None:
    frame, path = pd.DataFrame(REQUEST | {"sampler": "euler"}), tmp_path / f"t{suffix}"
    if suffix == ".csv":
        frame.to_csv(path, index=False)
    elif suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_json(path, orient="records", lines=True)
    assert import_table(path, {}).report.notes == ("columns that have no effect: sampler",)
