"""The table of counted model shapes."""

from __future__ import annotations

import pytest

from predictors.shapes import KINDS, shape_of, shipped_shapes
from traces.errors import BadInput
from traces.geometry import KNOWN_MODELS, geometry_of

DENOISER_PARAMETERS = {  # billions that run in a step, and where they are published
    "sd15": (0.860, "model card: 860M UNet"),
    "sd21-base": (0.866, "model card: 865M UNet"),
    "sdxl": (2.57, "arXiv 2307.01952, table 1: 2.6B UNet"),
    "sd3": (2.03, "model card: 2B MMDiT"),
    "sd3.5-medium": (2.24, "model card: 2.5B with the autoencoder; safetensors 2.24B"),
    "sd3.5-large": (8.06, "model card: 8.1B"),
    "flux": (11.9, "model card: 12B; safetensors 11.9B"),
    "flux-schnell": (11.9, "model card: 12B; safetensors 11.9B"),
    "chroma": (8.9, "model card: 8.9B"),
    "flux2-dev": (32.2, "model card: 32B"),
    "flux2-klein-4b": (3.88, "model card: 4B; safetensors 3.88B"),
    "flux2-klein-9b": (9.08, "model card: 9B; safetensors 9.08B"),
    "qwen-image": (20.43, "arXiv 2508.02324: 20B; safetensors 20.4B"),
    "z-image": (6.15, "arXiv 2511.22699: 6.15B"),
    "pixart-alpha": (0.61, "arXiv 2310.00426: 0.6B"),
    "pixart-sigma": (0.61, "arXiv 2403.04692: 0.6B"),
    "sana": (1.6, "arXiv 2410.10629: 1.6B"),
    "wan-1.3b": (1.42, "safetensors 1.42B"),
    "wan-14b": (14.29, "safetensors 14.3B"),
    "wan-i2v-14b": (16.4, "safetensors 16.4B"),
    "wan-2.2-ti2v-5b": (5.0, "model card: 5B"),
    "wan-2.2-a14b": (14.29, "model card: 27B, of which 14B run"),
    "wan-2.2-i2v-a14b": (14.29, "model card: 27B, of which 14B run"),
    "ltx-13b": (13.04, "model card: 13B"),
    "ltx-2": (18.9, "arXiv 2601.03233: 14B of video and 5B of audio"),
    "cogvideox-2b": (1.69, "safetensors 1.69B"),
    "cogvideox-5b": (5.57, "safetensors 5.57B"),
    "cogvideox-1.5": (5.57, "safetensors 5.57B"),
    "hunyuanvideo": (12.82, "model card: 13B; safetensors 12.8B"),
    "hunyuanvideo-1.5": (8.33, "model card: 8.3B"),
    "mochi": (10.03, "model card: 10B"),
    "latte": (1.06, "safetensors 1.06B"),
}
HELD_PARAMETERS = {  # billions of a whole stage, and where they are published
    ("flux2-dev", "encode"): (24.0, "Mistral-Small-3.2-24B: 24.0B"),
    ("qwen-image", "encode"): (8.29, "Qwen2.5-VL-7B: 8.29B"),
    ("z-image", "encode"): (4.02, "Qwen3-4B: 4.02B"),
    ("flux2-klein-9b", "encode"): (8.19, "Qwen3-8B: 8.19B"),
    ("sana", "encode"): (2.61, "gemma-2-2b-it: 2.61B"),
    ("sana", "decode"): (0.312, "arXiv 2410.10629: 312M autoencoder"),
    ("wan-2.2-ti2v-5b", "decode"): (0.705, "Wan2.2-VAE: 705M"),
    ("wan-2.2-a14b", "denoise"): (28.6, "model card: two experts of 14.3B"),
    ("hunyuanvideo-1.5", "decode"): (1.26, "model card: 1.26B autoencoder"),
    ("mochi", "decode"): (0.46, "model card: 460M autoencoder"),
}


def test_every_known_model_but_tiny_video_was_counted() -> None:
    assert set(shipped_shapes()) == {known.shape for known in KNOWN_MODELS.values()} - {"tiny-video"}
    assert set(DENOISER_PARAMETERS) == set(shipped_shapes()) - {"tiny-image", "flux2-dev-edit"}


@pytest.mark.parametrize(("model", "published"), DENOISER_PARAMETERS.items())
def test_parameters_are_those_published(model: str, published: tuple[float, str]) -> None:
    denoise = shape_of(model).denoise
    running = sum(kind.parameters for kind in denoise.kinds.values())
    assert running / 1e9 == pytest.approx(published[0], rel=0.01)
    assert running <= 1.001 * denoise.parameters


@pytest.mark.parametrize(("model", "stage"), HELD_PARAMETERS)
def test_what_a_device_holds_is_what_is_published(model: str, stage: str) -> None:
    billions, _ = HELD_PARAMETERS[model, stage]
    assert shape_of(model).stage(stage).parameters / 1e9 == pytest.approx(billions, rel=0.015)


def test_of_two_experts_both_are_held_and_one_is_read() -> None:
    both, one = shape_of("wan-2.2-a14b").denoise, shape_of("wan-14b").denoise
    assert both.parameters == 2 * one.parameters
    assert both.kinds == one.kinds


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
        assert of.elementwise.flops.at(1000, 7) == 0
        assert of.attention.parameters == 0
    assert shape.denoise.attention.flops.at(1000, 7) > 0
    assert shape.denoise.products.parameters > 0.3 * shape.denoise.parameters
    assert 0 < shape.decode.convolutions.parameters < shape.decode.parameters


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
    with pytest.raises(BadInput, match=r"unknown model 'sdxxl'; did you mean 'sdxl'\?"):
        shape_of("sdxxl")


@pytest.mark.parametrize("model", [name for name, shape in shipped_shapes().items() if shape.denoise.sequence])
def test_what_devices_exchange_is_what_attention_over_all_tokens_reads_and_writes(model: str) -> None:
    """Queries, keys, values and outputs are four tensors of two bytes; scores and sums over values take four operations
    a number and a key. An edit sees a reference of as many tokens again."""
    denoise = shape_of(model).denoise
    assert denoise.sequence is not None
    seen = 2 if model.endswith("-edit") else 1
    assert denoise.sequence.bytes.tokens * seen == pytest.approx(2 * denoise.attention.flops.tokens_squared, rel=0.01)
    width = denoise.attention.flops.tokens_squared / seen**2 / 4 / denoise.sequence.layers / denoise.sequence.heads
    assert width == pytest.approx(round(width / 8) * 8, rel=0.01)


def test_only_transformers_that_attend_over_all_tokens_can_share_a_row() -> None:
    none = {name for name, shape in shipped_shapes().items() if shape.denoise.sequence is None}
    assert none == {"tiny-image", "sd15", "sd21-base", "sdxl", "sana", "latte"}
