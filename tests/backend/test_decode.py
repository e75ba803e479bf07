"""Decoding by patches equals decoding whole, in less memory; tiling does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from diffusers import AutoencoderKL  # noqa: E402

from backend.decode import decode_by  # noqa: E402
from backend.executor import Executor  # noqa: E402
from backend.loading import load_pipeline  # noqa: E402
from backend.patched import decoder as patched  # noqa: E402
from backend.patched.decoder import PatchedDecoder  # noqa: E402
from benchmarks.memory import LiveBytes  # noqa: E402
from tests.backend import tiny_pipelines, tiny_unets  # noqa: E402
from traces.errors import BadInput  # noqa: E402
from traces.request import Request  # noqa: E402

torch.set_num_threads(1)


def autoencoder(dtype: Any = torch.float64, attention: bool = True, channels: tuple[int, ...] = (8, 16, 32)) -> Any:
    """SDXL's kind: attention in the middle, a shortcut where a level changes its channels."""
    torch.manual_seed(0)
    vae = AutoencoderKL(
        block_out_channels=channels,
        layers_per_block=1,
        down_block_types=["DownEncoderBlock2D"] * len(channels),
        up_block_types=["UpDecoderBlock2D"] * len(channels),
        norm_num_groups=4,
        mid_block_add_attention=attention,
    )
    for parameter in vae.parameters():  # norms of 1 and 0 would hide an error
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return vae.to(dtype).eval().requires_grad_(False)


def latents(height: int, width: int, dtype: Any, pictures: int = 1) -> Any:
    """Unlike at the top and the bottom, so that bands differ."""
    noise = torch.randn(pictures, 4, height, width, generator=torch.Generator().manual_seed(height * width))
    return (noise * torch.linspace(0.5, 2.0, height)[:, None]).to(dtype)


def decoded(vae: Any, sample: Any) -> Any:
    with torch.no_grad():
        return vae.decode(sample, return_dict=False)[0]


def by_patches(vae: Any, lines: int) -> Any:
    vae.decoder.forward = PatchedDecoder(vae.decoder, lines)
    return vae


def test_half_precision_is_as_near_the_truth_as_the_stock_decoder() -> None:
    vae, sample = autoencoder(torch.bfloat16), latents(24, 16, torch.bfloat16)
    truth = decoded(autoencoder(torch.bfloat16).to(torch.float64), sample.to(torch.float64))

    def error(picture: Any) -> float:
        return float((picture - truth).norm() / truth.norm())

    stock = error(decoded(vae, sample))
    assert stock > 1e-4
    assert error(decoded(by_patches(vae, 4), sample)) < 1.1 * stock


@pytest.mark.parametrize("attention", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-4)], ids=str)
def test_patched_equals_whole_for_any_size(dtype: Any, tolerance: float, attention: bool) -> None:
    vae = autoencoder(dtype, attention)
    samples = [latents(8, 8, dtype), latents(13, 5, dtype, pictures=2), latents(4, 20, dtype), latents(1, 3, dtype)]
    whole = [decoded(vae, sample) for sample in samples]
    for lines in (1, 3, 4, 32):
        by_patches(vae, lines)
        for sample, expected in zip(samples, whole, strict=True):
            given = decoded(vae, sample)
            assert given.shape == expected.shape
            assert given.dtype == dtype
            assert float((given - expected).abs().max() / expected.std()) <= tolerance


def test_latents_are_left_as_they_were() -> None:
    sample = latents(9, 8, torch.float32)
    before = sample.clone()
    decoded(by_patches(autoencoder(torch.float32), 2), sample)
    assert torch.equal(sample, before)


def zeros_around(bands: Any, activate: Any) -> Any:
    for band in bands:
        yield torch.nn.functional.pad(activate(band.clone()), (0, 0, 1, 1))


def zeros_above(bands: Any, activate: Any) -> Any:
    for frame in list(framed(bands, activate)):
        frame[:, :, :1] = 0
        yield frame


def moments_of_each_patch(bands: Any, norm: Any) -> Any:
    return norm


def variances_averaged(bands: Any, norm: Any) -> Any:
    """The variance between the patches' means is lost."""
    means = [band.reshape(norm.num_groups, -1).mean(1) for band in bands]
    each = norm.num_channels // norm.num_groups
    common = torch.stack(means).mean(0)
    moved = [
        band + (common - mean).repeat_interleave(each)[:, None, None] for band, mean in zip(bands, means, strict=True)
    ]
    narrower = whole_norm(moved, norm)
    return narrower


def attention_within_patches(bands: Any, attention: Any) -> Any:
    return [attention(band) for band in bands]


framed, whole_norm = patched.framed, patched.whole_norm


@pytest.mark.parametrize(
    ("ingredient", "replacement"),
    [
        ("framed", zeros_around),
        ("framed", zeros_above),
        ("whole_norm", moments_of_each_patch),
        ("whole_norm", variances_averaged),
        ("_attended", attention_within_patches),
    ],
    ids=["halo", "halo above", "whole-picture moments", "variance between patches", "whole-picture attention"],
)
def test_every_ingredient_is_needed(ingredient: str, replacement: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    vae, sample = autoencoder(), latents(12, 8, torch.float64)
    whole = decoded(vae, sample)
    monkeypatch.setattr(patched, ingredient, replacement)
    monkeypatch.setitem(patched._PASSES, patched.Attention, patched._attended)
    given = decoded(by_patches(vae, 4), sample)
    assert float((given - whole).abs().max() / whole.std()) > 1e-3


def test_patched_needs_well_under_half_the_memory() -> None:
    vae, sample = autoencoder(torch.float32, channels=(16, 32, 64, 64)), latents(48, 40, torch.float32)

    def peak() -> int:
        with LiveBytes() as memory:
            decoded(vae, sample)
        return memory.peak

    whole = peak()
    assert whole > 4 * 3 * 32 * (48 * 8) * (40 * 8)  # input, normalised and activated copy of the widest layer
    by_patches(vae, 2)
    assert peak() < whole / 2.5
    by_patches(vae, 48)
    assert peak() > whole / 2  # the patches are what saves it


def picture(build: Callable[[], Any], way: str, dtype: Any = torch.float32, side: int = 32) -> np.ndarray:
    pipeline = build().to(dtype)
    pipeline.vae.tile_sample_min_size, pipeline.vae.tile_latent_min_size = 16, 8
    executor = Executor(pipeline, decode=way)
    request = Request("a", 0.0, side, 2 * side, steps=2, seed=1, prompt="a cat", images=2)
    pixels: dict[str, np.ndarray] = {}
    for stage in ("encode", "denoise", "decode"):
        outcome = executor.execute(stage, [request], 2, deliver=lambda r, image: pixels.update({r.request_id: image}))
        assert outcome.failed is None, outcome.failed
    return pixels["a"]


@pytest.mark.parametrize("build", [tiny_pipelines.sdxl, tiny_unets.sd15, tiny_pipelines.flux])
def test_the_executor_delivers_the_pipelines_own_picture_only_when_patched(build: Callable[[], Any]) -> None:
    whole = picture(build, "whole")
    assert np.abs(picture(build, "patched") - whole).max() <= 1e-4
    tiled, blended = (np.abs(picture(build, way) - whole).max() for way in ("tiled", "blended"))
    assert tiled > 1e-3
    assert 1e-3 < blended < 2 * tiled


def test_tiles_do_not_see_each_other() -> None:
    vae = autoencoder()
    vae.tile_sample_min_size, vae.tile_latent_min_size = 16, 4
    pipeline = type("Pipeline", (), {"vae": vae})()
    sample = latents(8, 12, torch.float64)
    corner = decoded(vae, sample[:, :, :4, :4].clone())
    decode_by(pipeline, "tiled")
    tiled = decoded(vae, sample)
    assert tiled.shape == (1, 3, 32, 48)
    assert torch.equal(tiled[:, :, :16, :16], corner)


def test_the_embedded_model_decodes_by_patches() -> None:
    vae = load_pipeline("tiny-image", dtype="float64").vae
    sample = latents(12, 16, torch.float64)
    whole = decoded(vae, sample)
    decode_by(type("Pipeline", (), {"vae": vae})(), "patched")
    assert float((decoded(vae, sample) - whole).abs().max() / whole.std()) <= 1e-12


def test_a_video_autoencoder_is_whole_or_blended() -> None:
    for way in ("patched", "tiled"):
        with pytest.raises(BadInput, match=rf"'{way}' needs an AutoencoderKL; WanPipeline .* 'whole' or 'blended'"):
            Executor(tiny_pipelines.wan(), decode=way)
    pipeline = tiny_pipelines.wan()
    Executor(pipeline, decode="blended")
    assert pipeline.vae.use_tiling


def test_an_unknown_way_or_decoder_is_refused() -> None:
    with pytest.raises(BadInput, match=r"cluster\.decode is 'cut'; known: whole, patched, tiled, blended"):
        decode_by(tiny_pipelines.sdxl(), "cut")
    pipeline = tiny_pipelines.sdxl()
    pipeline.vae = AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["AttnUpDecoderBlock2D"] * 2,
        norm_num_groups=4,
    )
    with pytest.raises(BadInput, match=r"'patched' cannot run StableDiffusionXLPipeline.*AttnUpDecoderBlock2D"):
        decode_by(pipeline, "patched")
    pipeline.vae = None
    with pytest.raises(BadInput, match="needs an AutoencoderKL"):
        decode_by(pipeline, "patched")
