"""Shares of several devices: nothing is lost or doubled, cuts lie between rows where that is even."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from predictors.shards import (
    attention_bytes,
    cuts,
    divided_rows,
    even_parts,
    expected_bytes,
    expected_exchanges,
    row_cuts,
    share_of,
    shares,
)

ROWS = st.lists(st.integers(1, 5000), min_size=1, max_size=12)
DEVICES = st.integers(1, 8)


@settings(max_examples=60, deadline=None)
@given(ROWS, DEVICES)
def test_every_token_is_on_one_device(rows: list[int], devices: int) -> None:
    parts = shares(rows, devices)
    for row, tokens in enumerate(rows):
        held = [n for part in parts for n in range(*part[row])]
        assert held == list(range(tokens))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 200), st.integers(0, 200), DEVICES)
def test_every_token_of_a_stream_goes_with_a_share_of_its_row(image: int, text: int, devices: int) -> None:
    parts = [share_of(share, image + text, text) for (share,) in shares([image + text], devices)]
    assert [n for begin, end in parts for n in range(begin, end)] == list(range(text))


@settings(max_examples=60, deadline=None)
@given(ROWS, DEVICES)
def test_pieces_are_even(rows: list[int], devices: int) -> None:
    total = sum(rows)
    held = [sum(end - begin for begin, end in part) for part in shares(rows, devices)]
    assert sum(held) == total
    assert max(held) <= 1.1 * total / devices + 1


def test_cuts_lie_between_rows_where_that_is_even() -> None:
    assert cuts([100, 100], 2) == (100, 200)
    assert cuts([98, 102], 2) == (98, 200)
    assert cuts([50, 150], 2) == (100, 200)
    assert not any(divided_rows(shares([7, 7, 7, 7], 4)))
    assert divided_rows(shares([50, 150], 2)) == [False, True]


@settings(max_examples=60, deadline=None)
@given(ROWS, DEVICES)
def test_whole_rows_go_to_one_device_each_and_the_first_has_some(rows: list[int], devices: int) -> None:
    ends = row_cuts(rows, devices)
    assert len(ends) == devices
    assert list(ends) == sorted(ends)
    assert ends[0] >= 1
    assert ends[-1] == len(rows)


def test_heads_need_be_no_multiple() -> None:
    assert even_parts(5, 2) == (2, 3)
    assert even_parts(2, 3) == (0, 1, 1)


def test_bytes_of_an_attention_by_hand() -> None:
    """Two devices with 3 and 5 tokens, 2 heads of 4 channels, 2 bytes a number."""
    q_k_v = [3 * 3 * 1 * 4 * 2, 3 * 5 * 1 * 4 * 2]  # own tokens for the other head
    back = [5 * 1 * 4 * 2, 3 * 1 * 4 * 2]  # the other's tokens of the own head
    assert attention_bytes([3, 5], [3, 5], heads=2, channels=4, item_bytes=2) == (
        q_k_v[0] + back[0],
        q_k_v[1] + back[1],
    )


def test_even_rows_send_no_more_than_the_result() -> None:
    two = {"devices": 2, "layers": 10, "heads": 4, "channels": 8, "given_channels": 16, "item_bytes": 2}
    assert expected_bytes([(64, 16), (64, 16)], **two) == (64 * 16 * 2, 64 * 16 * 2)
    assert expected_exchanges([(64, 16), (64, 16)], 2, 10) == 1
    assert expected_exchanges([(64, 16)], 2, 10) == 21
    assert expected_bytes([(64, 16)], **{**two, "devices": 1}) == (0,)
