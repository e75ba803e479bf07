"""Features: worked examples, and laws that hold for any batch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictors.features import FEATURES, FeatureMap
from traces.composition import Composition, composition_of
from traces.geometry import geometry_of

SD3 = geometry_of("sd3")
SIDES = st.integers(1, 12).map(lambda n: 64 * n)
SIZES = st.tuples(SIDES, SIDES, st.just(1))
BATCHES = st.lists(st.tuples(SIZES, st.integers(1, 5)), min_size=1, max_size=5).map(composition_of)


def named(features: FeatureMap, composition: Composition, *how: float) -> dict[str, float]:
    return dict(zip(features.columns, features.row(composition, *how), strict=True))


def test_a_worked_example() -> None:
    batch = composition_of([((512, 768, 1), 2), ((512, 512, 1), 1)])
    features = FeatureMap(SD3, "denoise", "patched", ((512, 512, 1), (512, 768, 1), (64, 64, 1)))
    assert named(features, batch) == {
        "intercept": 1,
        "images": 3,
        "rows": 6,
        "sizes": 2,
        "pixels": 2 * (2 * 512 * 768 + 512 * 512),
        "tokens": 2 * (2 * 32 * 48 + 32 * 32),
        "tokens_squared": 2 * (2 * (32 * 48) ** 2 + (32 * 32) ** 2),
        "patches": 2 * (2 * 3 + 2),  # 512x256 px patches
        "halo": 2 * (2 * 2 * 2 * 512 + 2 * 512),  # two cuts of 512 px with two sides, and one
        "cached_patches": 0,
        "computed": 1,
        "launched": 1,
        "cuts": 1,
        "cut_tokens": 2 * (2 * 32 * 48 + 32 * 32),
        "512x512x1": 2,
        "512x768x1": 4,
        "64x64x1": 0,
    }


@given(BATCHES)
def test_without_guidance_there_is_half_the_work(batch: Composition) -> None:
    features = FeatureMap(SD3, "denoise", "patched")
    guided, unguided = named(features, batch), named(features, batch, 0.0)
    for name in FEATURES:
        share = 1 if name in ("intercept", "images", "sizes", "computed", "launched", "cuts") else 2
        assert guided[name] == share * unguided[name]


@given(BATCHES)
def test_decode_knows_no_guidance_and_only_patched_cuts(batch: Composition) -> None:
    decode = FeatureMap(SD3, "decode", "whole")
    assert decode.row(batch, True) == decode.row(batch, False)
    for executor in ("whole", "packed"):
        values = named(FeatureMap(SD3, "denoise", executor), batch)
        assert values["patches"] == values["rows"]
        assert values["halo"] == 0


@given(BATCHES, st.floats(0, 1))
def test_a_guided_share_lies_between_its_ends(batch: Composition, share: float) -> None:
    features = FeatureMap(SD3, "denoise", "patched")
    none, part, whole = (np.array(features.row(batch, guided)) for guided in (0.0, share, 1.0))
    assert part == pytest.approx(none + share * (whole - none))


@given(BATCHES, st.floats(0.01, 1), st.booleans())
def test_a_cache_takes_away_work_and_launches_that_no_image_needs(
    batch: Composition, computed: float, cached: bool
) -> None:
    features = FeatureMap(SD3, "denoise", "patched")
    all_of_it, part = named(features, batch), named(features, batch, 1.0, computed, cached)
    for name in FEATURES[: FEATURES.index("cached_patches")]:
        share = computed if name in ("pixels", "tokens", "tokens_squared", "halo") else 1
        assert part[name] == pytest.approx(share * all_of_it[name])
    assert computed == part["computed"] <= part["launched"] + 1e-12
    assert part["launched"] == pytest.approx(1 - (1 - computed) ** part["images"])
    assert part["cached_patches"] == (part["patches"] if cached else 0)
    decode = FeatureMap(SD3, "decode", "patched")
    assert decode.row(batch, 1.0, computed, cached) == decode.row(batch)


@given(st.lists(st.tuples(BATCHES, st.booleans()), max_size=4))
def test_the_matrix_stacks_the_rows(asked: list[tuple[Composition, bool]]) -> None:
    features = FeatureMap(SD3, "denoise", "patched", ((64, 64, 1),))
    matrix = features.matrix([batch for batch, _ in asked], [guided for _, guided in asked])
    assert matrix.shape == (len(asked), len(features.columns))
    assert matrix.tolist() == [features.row(*one) for one in asked]
    batches, guided = [batch for batch, _ in asked], [guided for _, guided in asked]
    cached = features.matrix(batches, guided, [0.5] * len(asked), [True] * len(asked))
    assert cached.tolist() == [features.row(*one, 0.5, True) for one in asked]
    assert np.isfinite(matrix).all()
