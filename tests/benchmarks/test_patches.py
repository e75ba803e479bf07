"""The benchmark of patches runs, and what it compares is the same picture where it says so."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from benchmarks.interleaved import interleaved  # noqa: E402
from benchmarks.patches import floor_line, measure, table_of  # noqa: E402

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def tables() -> dict[str, dict[str, dict]]:
    rows: dict[str, dict[str, dict]] = {}
    for row in measure(rounds=1, quick=True):
        rows.setdefault(row["table"], {})[row["way"]] = row
    return rows


def test_every_exact_way_gives_the_whole_images(tables: dict[str, dict[str, dict]]) -> None:
    assert len(tables) == 9
    for rows in tables.values():
        base, *others = rows.values()
        assert (base["difference"], base["ratio"]) == (0, 1)
        for row in others:
            assert row["cpu_s"] > 0
            if row["way"] not in ("tiled", "blended"):
                assert 0 <= row["difference"] < 1e-4
        assert table_of(list(rows.values())).row_count == len(rows)


def test_decoding_by_patches_saves_memory_and_tiles_change_the_picture(tables: dict[str, dict[str, dict]]) -> None:
    decodes = [rows for title, rows in tables.items() if title.startswith("decode")]
    assert len(decodes) == 2
    for rows in decodes:
        assert rows["patched"]["peak_bytes"] < rows["whole"]["peak_bytes"] / 2
        assert rows["tiled"]["difference"] > rows["blended"]["difference"] > 0.01
        assert rows["tiled"]["psnr_db"] < rows["blended"]["psnr_db"] < rows["patched"]["psnr_db"]


def test_the_floor_is_the_smallest_patch_within_what_is_tolerated() -> None:
    line = floor_line([{"divisor": 16, "ratio": 1.05}, {"divisor": 8, "ratio": 1.09}, {"divisor": 4, "ratio": 1.4}])
    assert "8 is the least within 1.10x; on this core they never pay" in line
    assert "they pay from 16 on" in floor_line([{"divisor": 16, "ratio": 0.9}, {"divisor": 8, "ratio": 1.3}])


def test_ratios_are_of_one_round() -> None:
    calls: list[str] = []
    timings = interleaved({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=3)
    assert calls == ["a", "b"] * 4
    assert timings["a"][1:4] == (1, 1, 1)
    assert timings["b"].lowest <= timings["b"].ratio <= timings["b"].highest
