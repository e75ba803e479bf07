"""The table of counted model shapes."""

from __future__ import annotations

import pytest

from predictors.shapes import KINDS, shape_of, shipped_shapes
from traces.errors import BadInput
from traces.geometry import GEOMETRIES, geometry_of

DENOISER_PARAMETERS = {  # billions, as published with the models
    "sd15": 0.860,
    "sdxl": 2.57,
    "sd3": 2.03,
    "sd3.5-medium": 2.24,
    "flux": 11.9,
    "wan-1.3b": 1.42,
    "wan-14b": 14.29,
    "cogvideox-1.5": 5.57,
    "hunyuanvideo": 12.82,
}


def test_every_known_model_but_tiny_video_was_counted() -> None:
    assert set(shipped_shapes()) == set(GEOMETRIES) - {"tiny-video"}


@pytest.mark.parametrize(("model", "billions"), DENOISER_PARAMETERS.items())
def test_parameters_are_those_published(model: str, billions: float) -> None:
    assert shape_of(model).denoise.parameters / 1e9 == pytest.approx(billions, rel=0.005)


@pytest.mark.parametrize("model", shipped_shapes())
def test_counts_grow_with_the_size(model: str) -> None:
    shape, geometry = shape_of(model), geometry_of(model)
    clip = geometry.frame_factor > 1
    height, width = geometry.native_size
    small, large = (height, width, 33 if clip else 1), (2 * height, 2 * width, 81 if clip else 1)
    for stage in ("encode", "denoise", "decode"):
        of = shape.stage(stage)
        for quantity in ("flops", "bytes", "launches", "peak_bytes"):
            polynomial = getattr(of, quantity)
            at_small, at_large = (polynomial.at(*shape.tokens(stage, geometry, size)) for size in (small, large))
            assert 0 < at_small <= at_large
            if stage != "encode" and quantity in ("flops", "bytes"):
                assert at_large > 3 * at_small


@pytest.mark.parametrize("model", shipped_shapes())
def test_kinds_add_up_to_their_stage(model: str) -> None:
    shape = shape_of(model)
    for stage in ("encode", "denoise", "decode"):
        of = shape.stage(stage)
        assert tuple(of.kinds) == KINDS
        for quantity in ("flops", "bytes"):
            added = sum(getattr(kind, quantity).at(1000, 7) for kind in of.kinds.values())
            assert getattr(of, quantity).at(1000, 7) == pytest.approx(added, rel=1e-12)
        assert sum(kind.parameters for kind in of.kinds.values()) <= of.parameters
        assert of.elementwise.flops.at(1000, 7) == 0
        assert of.attention.parameters == 0
    assert shape.denoise.attention.flops.at(1000, 7) > 0
    assert shape.denoise.products.parameters > 0.3 * shape.denoise.parameters
    assert shape.decode.convolutions.parameters > 0.25 * shape.decode.parameters  # the decoder is half an autoencoder


def test_what_is_known_of_sdxl() -> None:
    shape, geometry = shape_of("sdxl"), geometry_of("sdxl")
    at = shape.tokens("denoise", geometry, (1024, 1024, 1))
    assert at == (128 * 128, 1)
    assert shape.denoise.flops.at(*at) == 6761236398080  # counted at this size
    assert shape.guidance_rows == 2
    assert shape_of("flux").guidance_rows == 1


def test_a_token_may_span_latent_frames() -> None:
    shape, geometry = shape_of("cogvideox-1.5"), geometry_of("cogvideox-1.5")
    assert shape.tokens("denoise", geometry, (768, 1360, 81)) == (48 * 85, 11)  # 21 latent frames, padded to 22
    assert shape.tokens("decode", geometry, (768, 1360, 81)) == (48 * 85, 21)


def test_an_unknown_model_is_named() -> None:
    with pytest.raises(BadInput, match=r"unknown model shape 'sdxxl'; did you mean 'sdxl'\?"):
        shape_of("sdxxl")
