"""How devices share a step: spelling, degrees that are offered, and what the busiest device has."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictors.parallel import Cut, Parallel, cut_of, degrees_of
from predictors.polynomial import Polynomial
from predictors.shapes import SequenceShape, shape_of
from traces.errors import BadInput
from traces.geometry import geometry_of

SEQUENCE = SequenceShape(layers=3, heads=12, bytes=Polynomial(tokens=1.0))


@pytest.mark.parametrize("text", ["", "ulysses4", "cfg2", "cfg2+ulysses2", "data3", "data2+cfg2+ulysses3"])
def test_a_kind_is_spelled_as_it_is_read(text: str) -> None:
    assert str(Parallel.parse(text)) == text


@pytest.mark.parametrize("text", ["ring2", "cfg3", "ulysses0", "ulysses2+ulysses2", "ulysses", "cfg2 ulysses2", "+"])
def test_what_is_no_kind_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match=r"parallel is .*expected something like"):
        Parallel.parse(text)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("ulysses4", Parallel(ulysses=4)),
        ("cfg2 ulysses2 ring1 pipefusion1", Parallel(cfg=2, ulysses=2)),
        ("cfg1 ulysses3 ring1", Parallel(ulysses=3)),
        ("ulysses2+cfg2", Parallel(cfg=2, ulysses=2)),
        ("ulysses2 x ring2", None),
        ("ulysses2 async", None),
        ("sp4", None),
        ("", Parallel()),
    ],
)
def test_benchmarks_spell_kinds_in_their_ways(text: str, kind: Parallel | None) -> None:
    assert Parallel.published(text) == kind


@given(st.integers(1, 16), st.integers(1, 6), st.booleans())
def test_requests_are_dealt_out_first_then_guidance_rows_then_tokens(devices: int, images: int, guided: bool) -> None:
    parallel = Parallel.of(devices, images, guided)
    assert parallel.devices == devices
    assert images % parallel.data == 0
    assert parallel.cfg == (2 if guided and (devices // parallel.data) % 2 == 0 else 1)


@pytest.mark.parametrize(
    ("model", "offered"),
    [
        ("flux", (1, 2, 3, 4, 6, 8)),  # 24 heads
        ("wan-1.3b", (1, 2, 3, 4, 6, 8)),  # 12 heads, and two rows for 8
        ("flux2-dev", (1, 2, 3, 4, 6, 8)),  # 48 heads
        ("z-image", (1, 2, 3, 4, 5, 6)),  # 30 heads
        ("sdxl", (1, 2)),  # a UNet has its two rows alone
        ("sana", (1, 2)),  # whose attention is none over all tokens
    ],
)
def test_degrees_that_heads_and_rows_do_not_allow_are_not_offered(model: str, offered: tuple[int, ...]) -> None:
    assert degrees_of(shape_of(model), geometry_of(model), 8) == offered


@given(st.integers(1, 5), st.booleans(), st.integers(1, 12), st.integers(1, 500))
def test_images_of_one_size_are_cut_as_packed_ones_are_where_cuts_meet(
    images: int, guided: bool, devices: int, tokens: int
) -> None:
    """An even cut is what cutting the rows one after another gives, wherever rows or devices divide each other."""
    rows = images * (1 + guided)
    even = cut_of([(images, tokens)], guided, devices, SEQUENCE)
    if rows % devices and devices % rows:
        return
    packed = Cut.packed([tokens] * rows, devices, SEQUENCE.heads)
    assert (even.tokens, even.attention) == pytest.approx((packed.tokens, packed.attention))
    assert (even.sent, even.divided) == (pytest.approx(packed.sent), packed.divided)


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 500)), min_size=1, max_size=4), st.integers(1, 8))
def test_the_busiest_device_has_at_least_its_part(images: list[tuple[int, int]], devices: int) -> None:
    for sequence in (SEQUENCE, None):
        cut = cut_of(images, True, devices, sequence)
        assert 1 / devices - 1e-9 <= cut.tokens <= 1 + 1e-9
        assert 1 / devices - 1e-9 <= cut.attention <= 1 + 1e-9
        assert cut.divided == (cut.sent > 0)


def test_rows_that_no_cut_divides_are_dealt_out_whole() -> None:
    cut = cut_of([(1, 100), (3, 50)], False, 2, None)
    assert (cut.tokens, cut.divided, cut.sent) == (0.6, False, 0.0)
    assert cut_of([(1, 100)], False, 4, None).tokens == 1.0  # three devices have nothing to do
