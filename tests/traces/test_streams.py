"""Streams are the same everywhere, and apart from each other."""

from __future__ import annotations

import numpy as np
import pytest

from traces.errors import BadInput
from traces.streams import stream


def test_a_stream_is_fixed_by_seed_and_name() -> None:
    assert stream(7, "sizes").integers(1000, size=4).tolist() == stream(7, "sizes").integers(1000, size=4).tolist()
    assert stream(0, "sizes").bit_generator.random_raw() == 5810751622373129529


def test_seeds_and_names_part_streams() -> None:
    drawn = {stream(seed, name).bit_generator.random_raw() for seed in range(5) for name in ("a", "b", "")}
    assert len(drawn) == 15


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(BadInput, match="seed is -1"):
        stream(-1, "a")


def test_streams_do_not_correlate() -> None:
    a, b = stream(0, "a").random(4000), stream(0, "b").random(4000)
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.06
