"""What fits on a device."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictors.memory import CONTEXT_BYTES, footprint, largest_batch
from predictors.shapes import shape_of
from traces.geometry import geometry_of

SDXL, GEOMETRY = shape_of("sdxl"), geometry_of("sdxl")
NATIVE = (1024, 1024, 1)


def test_what_is_needed_adds_up() -> None:
    one = footprint(SDXL, GEOMETRY, NATIVE, 1, "bfloat16", cache_bytes=3e9)
    assert one.weights_bytes == 2 * SDXL.parameters
    assert one.needed_bytes == one.weights_bytes + one.activation_bytes + 3e9 + CONTEXT_BYTES
    assert one.stage == "decode"  # pictures, not latents
    four = footprint(SDXL, GEOMETRY, NATIVE, 4, "bfloat16")
    assert four.activation_bytes == pytest.approx(4 * one.activation_bytes)
    wide = footprint(SDXL, GEOMETRY, NATIVE, 1, "float32")
    assert (wide.weights_bytes, wide.activation_bytes) == (2 * one.weights_bytes, 2 * one.activation_bytes)


def test_a_quantised_denoiser_holds_its_products_in_fewer_bytes() -> None:
    products = SDXL.denoise.products.parameters
    half, fp8, four = (footprint(SDXL, GEOMETRY, NATIVE, 1, name) for name in ("bfloat16", "fp8", "int4-weights"))
    assert half.weights_bytes - fp8.weights_bytes == products
    assert half.weights_bytes - four.weights_bytes == 1.5 * products
    assert fp8.activation_bytes == half.activation_bytes


@given(st.floats(5e9, 200e9), st.booleans())
def test_the_largest_batch_fits_and_one_more_does_not(device_bytes: float, guided: bool) -> None:
    most = largest_batch(SDXL, GEOMETRY, NATIVE, device_bytes, "bfloat16", guided)
    if most:
        assert footprint(SDXL, GEOMETRY, NATIVE, most, "bfloat16", guided).needed_bytes <= device_bytes * (1 + 1e-9)
    more = footprint(SDXL, GEOMETRY, NATIVE, most + 1, "bfloat16", guided)
    assert more.needed_bytes > device_bytes * (1 - 1e-9)


def test_a_model_that_does_not_fit_at_all() -> None:
    wan = shape_of("wan-14b")
    assert largest_batch(wan, geometry_of("wan-14b"), (720, 1280, 81), 24e9, "bfloat16") == 0
