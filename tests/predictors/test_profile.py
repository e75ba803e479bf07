"""Profiles: what is accepted, what is refused and how, and what identifies the data."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from predictors.profile import COLUMNS, DEFAULTS, Profile
from traces.errors import BadInput
from traces.request import Request
from traces.trace import Trace


def test_saved_and_loaded_is_the_same(made_up: Profile, tmp_path: Path) -> None:
    made_up.save(tmp_path / "p.parquet")
    again = Profile.load(tmp_path / "p.parquet")
    pd.testing.assert_frame_equal(again.frame, made_up.frame)
    assert again.metadata == made_up.metadata
    assert again.content_hash == made_up.content_hash
    assert [p.name for p in tmp_path.iterdir()] == ["p.parquet"]


def test_content_hash_ignores_order_and_metadata_but_no_value(made_up: Profile) -> None:
    shuffled = Profile(made_up.frame.sample(frac=1, random_state=3), {"date": "today"})
    assert shuffled.content_hash == made_up.content_hash
    pd.testing.assert_frame_equal(shuffled.frame, made_up.frame)
    for column, value in (
        ("seconds", 1.0000001),
        ("steps", 7),
        ("guided", False),
        ("computed", 0.5),
        ("cached", True),
        ("composition", "9@512x512"),
    ):
        frame = made_up.frame.copy()
        frame.loc[5, column] = value
        assert Profile(frame).content_hash != made_up.content_hash


def test_rows_of_one_device_have_the_hash_that_they_had_before_there_were_others() -> None:
    shipped = Profile.load(Path(str(files("profiles"))) / "cpu-1core.parquet")
    assert shipped.content_hash == "d134cc4bac89653f02bbc5610a021751666c86854bb09cd4c15d594fd33a51f5"


def test_rows_of_several_devices_are_kept_apart(made_up: Profile, tmp_path: Path) -> None:
    model = made_up.models[0]
    several = made_up.select(model, "whole").frame.assign(devices=4, parallel="cfg2+ulysses2")
    both = Profile.from_frame(pd.concat([made_up.frame, several, several.assign(devices=2, parallel="tiles")]), {})
    assert both.select(model, "whole").content_hash == made_up.select(model, "whole").content_hash
    assert both.content_hash != made_up.content_hash
    assert both.executors(model) == made_up.executors(model)
    rows = both.on_several_devices(model, "whole")
    assert rows.groupby("devices")["parallel"].unique().map(list).to_dict() == {2: ["tiles"], 4: ["cfg2+ulysses2"]}
    assert len(rows) == 2 * len(several)
    both.save(tmp_path / "p.parquet")
    pd.testing.assert_frame_equal(Profile.load(tmp_path / "p.parquet").frame, both.frame)


def test_only_files_with_rows_of_several_devices_need_a_reader_that_knows_them(
    made_up: Profile, tmp_path: Path
) -> None:
    versions = []
    for profile in (made_up, Profile(made_up.frame.assign(devices=2, parallel="ulysses2"))):
        profile.save(tmp_path / "p.parquet")
        metadata = pq.read_schema(tmp_path / "p.parquet").metadata
        versions.append(json.loads(metadata[b"tilecast.profile"])["schema"])
    assert versions == ["2", "3"]


@pytest.mark.parametrize(
    ("devices", "parallel", "words"),
    [
        (0, "", "row 4 counting the header: devices is 0, expected a whole number of at least 1"),
        (2, "", "row 4 counting the header: parallel is '' on 2 devices, expected what so many share, like ulysses2"),
        (1, "ulysses2", "row 4 counting the header: parallel is 'ulysses2' on 1 devices"),
        (2, "ring2", "row 4 counting the header: parallel is 'ring2', expected something like ulysses4"),
        (1, "tiles", "row 4 counting the header: parallel is 'tiles', expected something like ulysses4"),
    ],
)
def test_how_devices_share_a_batch_is_checked(made_up: Profile, devices: int, parallel: str, words: str) -> None:
    frame = made_up.frame.assign(devices=1, parallel="")
    frame.loc[2, "devices"], frame.loc[2, "parallel"] = devices, parallel
    with pytest.raises(BadInput, match=re.escape(words)):
        Profile(frame)


def test_compositions_get_their_one_spelling(made_up: Profile) -> None:
    frame = made_up.frame.iloc[:1].assign(composition="1@1024x1024+2@512x512x1")
    assert Profile(frame).frame["composition"].tolist() == ["2@512x512+1@1024x1024"]


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("seconds", -1.0, "row 4 counting the header: seconds is -1.0, expected a time above 0 s"),
        ("seconds", float("nan"), "row 4 counting the header: seconds is nan"),
        ("seconds", float("inf"), "row 4 counting the header: seconds is inf"),
        ("stage", "sketch", "row 4 counting the header: stage is sketch, expected one of encode, denoise"),
        ("executor", "fast", "row 4 counting the header: executor is fast"),
        ("composition", "2x512", "row 4 counting the header: composition '2x512'"),
        ("composition", "0@512x512", "row 4 counting the header: composition"),
        ("steps", 0, "row 4 counting the header: steps is 0, expected a whole number of at least 1"),
        ("repeat", -1, "row 4 counting the header: repeat is -1"),
        ("computed", 0.0, "row 4 counting the header: computed is 0.0, expected a share above 0, at most 1"),
        ("computed", 1.2, "row 4 counting the header: computed is 1.2"),
        ("model", "", "row 4 counting the header: model is "),
        ("hardware", "another", "one kind a profile"),
    ],
)
def test_a_wrong_value_is_named_with_file_row_and_field(
    made_up: Profile, tmp_path: Path, column: str, value: object, words: str
) -> None:
    frame = made_up.frame.astype({column: object})
    frame.loc[2, column] = value
    frame = frame.infer_objects()
    frame.to_parquet(tmp_path / "wrong.parquet")
    with pytest.raises(BadInput) as caught:
        Profile.load(tmp_path / "wrong.parquet")
    message = str(caught.value)
    assert "wrong.parquet: " in message
    assert words in message
    assert "\n" not in message


def test_wrong_columns_and_files_are_refused(made_up: Profile, tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    with pytest.raises(BadInput, match=r"p\.parquet: no such profile"):
        Profile.load(path)
    path.write_bytes(b"")
    with pytest.raises(BadInput, match=r"p\.parquet: not a whole Parquet file"):
        Profile.load(path)
    for column in set(COLUMNS) - set(DEFAULTS):
        made_up.frame.drop(columns=column).to_parquet(path)
        with pytest.raises(BadInput, match=f"column '{column}' is missing"):
            Profile.load(path)
    with pytest.raises(BadInput, match="column 'second' is unknown"):
        Profile(made_up.frame.assign(second=1.0))
    made_up.frame.iloc[:0].to_parquet(path)
    with pytest.raises(BadInput, match="no rows"):
        Profile.load(path)


def test_what_a_later_version_measures_too_is_left_out_and_named(made_up: Profile, tmp_path: Path) -> None:
    path = tmp_path / "later.parquet"
    made_up.frame.assign(watts=700.0, notes=[["a"]] * len(made_up.frame)).to_parquet(path)
    loaded = Profile.load(path)
    assert loaded.metadata["ignored"] == "watts, notes"
    assert loaded.content_hash == made_up.content_hash
    assert "ignored" not in made_up.metadata


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seconds": pd.Timestamp("2026-01-01")}, r"column 'seconds' holds timestamp.*, expected numbers"),
        ({"seconds": "fast"}, "column 'seconds' holds large_string, expected numbers"),
        ({"seconds": float("nan")}, "row 2 counting the header: seconds is nan, expected a time above 0"),
        ({"seconds": float("inf")}, "row 2 counting the header: seconds is inf"),
        ({"seconds": 1e300}, "row 2 counting the header: seconds is 1e.300, expected at most 1e.09 s"),
        ({"seconds": 0.0}, "row 2 counting the header: seconds is 0.0"),
        ({"seconds": -1.0}, "row 2 counting the header: seconds is -1.0"),
        ({"steps": 1e300}, "row 2 counting the header: steps is 1e.300, expected a whole number"),
        ({"steps": 1.5}, "row 2 counting the header: steps is 1.5, expected a whole number"),
        ({"composition": 7}, "column 'composition' holds int64, expected text"),
        ({"guided": "yes"}, "column 'guided' holds large_string, expected true or false"),
        ({"stage": None}, "column 'stage' holds null, expected text"),
    ],
)
def test_cells_of_another_kind_are_refused(
    made_up: Profile, tmp_path: Path, change: dict[str, object], words: str
) -> None:
    made_up.frame.assign(**change).to_parquet(tmp_path / "p.parquet")
    with pytest.raises(BadInput, match=words) as caught:
        Profile.load(tmp_path / "p.parquet")
    assert "\n" not in str(caught.value)


def test_a_file_cut_off_or_of_another_sort_is_said(made_up: Profile, tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    made_up.save(path)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(BadInput, match="not a whole Parquet file"):
        Profile.load(path)
    other = tmp_path / "t.parquet"
    Trace.from_requests([Request("a", 0.0, 64, 64, 4)]).save(other)
    with pytest.raises(BadInput, match="'hardware' is missing; it is a trace of requests, no profile"):
        Profile.load(other)


def test_a_file_from_before_the_cache_was_measured_without_one(made_up: Profile, tmp_path: Path) -> None:
    path = tmp_path / "old.parquet"
    made_up.frame.drop(columns=list(DEFAULTS)).to_parquet(path)
    old = Profile.load(path)
    assert (old.frame["computed"] == 1.0).all()
    assert not old.frame["cached"].any()
    assert old.content_hash == made_up.content_hash


def test_merge_numbers_repeats_anew_and_keeps_equal_rows_once(made_up: Profile) -> None:
    slower = Profile(made_up.frame.assign(seconds=made_up.frame["seconds"] * 1.1), {"source": "again"})
    both = Profile.merge([made_up, slower, made_up])
    assert len(both.frame) == 2 * len(made_up.frame)
    assert set(both.frame["repeat"]) == {0, 1, 2, 3}
    assert both.metadata["source"] == "made up; again"
    with pytest.raises(BadInput, match="one kind a profile"):
        Profile.merge([made_up, Profile(made_up.frame.assign(hardware="another"))])
    with pytest.raises(BadInput, match="no profiles"):
        Profile.merge([])


def test_select_says_what_there_is(made_up: Profile) -> None:
    assert made_up.models == ("sd3",)
    assert made_up.executors("sd3") == ("whole", "patched")
    assert made_up.stages("sd3") == ("encode", "denoise", "decode")
    assert made_up.select("sd3", "patched").stages("sd3") == ("denoise",)
    with pytest.raises(BadInput, match=r"no sdxl \(whole\); it has: sd3 \(patched\), sd3 \(whole\)"):
        made_up.select("sdxl", "whole")
