"""Measurements of a profile that was ended are kept, and gone on with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from backend.measured import KeptMeasurements
from traces.errors import BadInput

FACTS = {"model": "m", "sizes": [(64, 64, 1)]}


def kept(folder: Path, **facts: Any) -> KeptMeasurements:
    return KeptMeasurements(folder / "p.parquet", {**FACTS, **facts})


def measure(folder: Path, keys: str) -> list[str]:
    """Measure each of some keys, of which ``!`` is a kill; the keys that were measured anew."""
    anew = []

    def take(key: str) -> list[float]:
        if key == "!":
            raise KeyboardInterrupt
        anew.append(key)
        return [1 / 3, ord(key)]

    with kept(folder) as measurements:
        for at, key in enumerate(keys):
            assert measurements.once(key, 2.0 * at, lambda key=key: take(key)) == [1 / 3, ord(key)]
        measurements.done()
    return anew


def test_what_was_measured_is_not_measured_again_and_goes_with_the_end(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        measure(tmp_path, "abc!d")
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes() + b'{"key": "d", "elap')  # torn by a kill
    with kept(tmp_path) as measurements:
        assert measurements.elapsed_s == 4.0
        assert len(measurements) == 3
    assert measure(tmp_path, "abcd") == ["d"]
    assert not list(tmp_path.iterdir())


def test_nothing_is_left_where_nothing_was_measured(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        measure(tmp_path, "!")
    assert not list(tmp_path.iterdir())


def test_other_measurements_are_refused_and_stay(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        measure(tmp_path, "a!")
    with (
        pytest.raises(BadInput, match="holds measurements with model m, not other; remove it to start over"),
        kept(tmp_path, model="other"),
    ):
        pass
    with kept(tmp_path), pytest.raises(BadInput, match="in use by another process"), kept(tmp_path):
        pass


@pytest.mark.parametrize("text", ["mine", "mine\n", '{"key": 1}\n{"torn": ', "\n"])
def test_a_file_of_a_person_is_refused_and_stays(tmp_path: Path, text: str) -> None:
    file = tmp_path / "p.parquet.rows.jsonl"
    file.write_text(text)
    with pytest.raises(BadInput, match="not Tilecast's, so no measurements replaces it"):
        measure(tmp_path, "a")
    assert file.read_text() == text


def test_one_that_came_before_the_first_measurement_stays_too(tmp_path: Path) -> None:
    file = tmp_path / "p.parquet.rows.jsonl"
    with kept(tmp_path) as measurements:
        file.write_text("mine")
        with pytest.raises(BadInput, match="not Tilecast's"):
            measurements.once("a", 0.0, lambda: 1)
    assert file.read_text() == "mine"


def test_the_torn_beginning_of_a_first_line_is_begun_again(tmp_path: Path) -> None:
    (tmp_path / "p.parquet.rows.jsonl").write_text('{"generator": "tilecast meas')
    assert measure(tmp_path, "a") == ["a"]
    assert not list(tmp_path.iterdir())
