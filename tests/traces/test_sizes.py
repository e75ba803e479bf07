"""Size tables and mixes: what they read, what they draw, what they refuse."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from traces.errors import BadInput
from traces.mix import Mix, parse_counts
from traces.sizes import format_size, load_sizes, parse_size, parse_size_list, parse_sizes, parse_tile, sizes_from
from traces.streams import stream

SIZES = st.tuples(st.integers(1, 9999), st.integers(1, 9999), st.integers(1, 300))


@given(SIZES)
def test_a_size_is_read_back_as_spelled(size: tuple[int, int, int]) -> None:
    assert parse_size(format_size(size)) == size


def test_sizes_come_from_text_or_a_file(tmp_path: Path) -> None:
    table = tmp_path / "sizes.csv"
    table.write_text("height,width,weight\n512,768,2\n1024,1024,1\n")
    expected = Mix(((512, 768, 1), (1024, 1024, 1)), (2.0, 1.0))
    assert sizes_from(str(table)) == expected
    assert sizes_from("512x768:2, 1024x1024") == expected
    assert parse_sizes("480x832x81").values == ((480, 832, 81),)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("height,width\n1,1\n", "no column 'weight'; the file has: height, width"),
        ("height,width,weight\n8,8,1\n8,0,1\n", "row 3 counting the header: width is 0, expected a whole number"),
        ("height,width,weight\n8.5,8,1\n", "row 2 counting the header: height is 8.5, expected a whole number"),
        ("height,width,weight\n8,8,-1\n", "row 2 counting the header: weight is -1, expected a number of at least 0"),
        ("height,width,weight\n8,8,\n", "row 2 counting the header: weight is empty, expected a number of at least 0"),
        ("height,width,weight\n8,8,x\n", "row 2 counting the header: weight is 'x', expected a number"),
        ("height,width,weight\n8,8,0\n", "the weights of a mix sum to 0"),
        ("", "the file is empty"),
    ],
)
def test_a_bad_size_table_is_named(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "sizes.csv"
    path.write_text(content)
    with pytest.raises(BadInput) as caught:
        load_sizes(path)
    assert str(caught.value).startswith(f"{path}: {message}")


@pytest.mark.parametrize("text", ["512", "512x", "512x512:many", "0x512", "512x512:-1", "512x512,", "axb"])
def test_text_that_spells_no_sizes_is_refused(text: str) -> None:
    with pytest.raises(BadInput):
        parse_sizes(text)
    with pytest.raises(BadInput):
        sizes_from(text)


def test_a_list_of_sizes_is_read_in_its_order() -> None:
    assert parse_size_list("512x768, 480x832x81,512x768", "--sizes") == ((512, 768, 1), (480, 832, 81), (512, 768, 1))
    with pytest.raises(BadInput, match=r"--sizes: size '' is not like '512x768'"):
        parse_size_list("512x768,", "--sizes")


def test_a_tile_has_two_sides() -> None:
    assert parse_tile("512x768", "--tile") == (512, 768)
    for text in ("512", "512x768x9", "0x64", "512x512,64x64", "native"):
        with pytest.raises(BadInput, match=f"^--tile is '{text}', expected native or heightxwidth in pixels"):
            parse_tile(text, "--tile", "native or ")


def test_counts_are_spelled_with_weights() -> None:
    assert parse_counts("20:1, 30:3", "steps") == Mix((20, 30), (1.0, 3.0))
    assert parse_counts("30", "steps") == Mix((30,), (1.0,))


@pytest.mark.parametrize("text", ["", "0", "-1", "2.5", "30:x", "30:-1", "30:nan"])
def test_text_that_spells_no_counts_is_refused(text: str) -> None:
    with pytest.raises(BadInput):
        parse_counts(text, "steps")


def test_draws_follow_the_weights() -> None:
    mix = Mix(("a", "b", "never"), (1.0, 3.0, 0.0))
    counts = Counter(mix.draw(4000, stream(0, "draws")))
    assert counts["never"] == 0
    assert counts["b"] / 4000 == pytest.approx(0.75, abs=0.03)


def test_a_mix_of_counts_has_them_as_weights() -> None:
    assert Mix.of({"a": 2, "b": 1}) == Mix(("a", "b"), (2.0, 1.0))
