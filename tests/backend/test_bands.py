"""A picture or clip decoded in bands of rows by several ranks is that of one, of whatever family; bytes as computed.

Two ranks and some families stand for all; TILECAST_MIXES=15 tries every family, on three and four ranks too. Ranks are
threads here, which compute and exchange as processes do (`test_divided.py`, `test_servers.py`).
"""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from backend.devices import bands as bands_module  # noqa: E402
from backend.devices.bands import Band, Undividable, bands_of  # noqa: E402
from backend.devices.decoding import (  # noqa: E402
    ComponentTask,
    DecodedAlone,
    Decoding,
    first_dtype,
    in_bands,
    in_dtype,
)
from backend.patched.decoder import PatchedDecoder  # noqa: E402
from predictors.shards import BandTraffic  # noqa: E402
from tests.backend.families import FAMILIES  # noqa: E402
from tests.backend.family_rank import pipeline_of  # noqa: E402
from tests.backend.test_decode import autoencoder, latents  # noqa: E402
from tests.backend.thread_ranks import ThreadRank, on_threads  # noqa: E402

torch.set_num_threads(1)
SWEEP = int(os.environ.get("TILECAST_MIXES", "2")) > 2
TRIED = ("wan", "cogvideox", "hunyuan_video") if not SWEEP else tuple(FAMILIES)
RANKS = (2,) if not SWEEP else (2, 3, 4)
IN_SINGLE = ("LTX", "LTX image to video")
"""Families that compute some of it in float32, whatever their weights are."""
ALONE = {"Sana": "AutoencoderDC cannot be divided", "Allegro": "by tiles"}
"""Families whose decoders are not divided, and why."""


def vae_of(family: str) -> Any:
    """Its autoencoder with weights that hide nothing."""
    vae = pipeline_of(family).vae.eval().requires_grad_(False)
    torch.manual_seed(1)
    for parameter in vae.parameters():
        parameter.add_(0.05 * torch.randn_like(parameter))
    return vae


def sample_for(vae: Any, height: int, width: int, frames: int) -> Any:
    """Latents, unlike at the top and the bottom."""
    channels = vae.config.get("z_dim") or vae.config.get("latent_channels")
    is_clip = any(isinstance(part, torch.nn.Conv3d) for part in vae.decoder.modules())
    shape = (1, channels, *((frames,) if is_clip else ()), height, width)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(height), dtype=torch.float64)
    return noise * torch.linspace(0.5, 2.0, height, dtype=torch.float64)[:, None]


@dataclass
class Threads:
    """What `Decoding` asks: ranks that are threads, each with a copy of the autoencoder."""

    vae: Any
    traffic: tuple[BandTraffic, ...] = ()

    def __call__(self, task: ComponentTask) -> Any:
        if len(task.ranks) == 1:
            with torch.no_grad():
                return copy.deepcopy(self.vae).to(task.dtype).decode(*task.args, **task.kwargs)

        def share(rank: ThreadRank) -> Any:
            return in_bands(copy.deepcopy(self.vae).to(task.dtype).decode, task, rank)

        try:
            return on_threads(len(task.ranks), share)[0]
        except Undividable as error:
            raise DecodedAlone(str(error)) from error


def decoded(vae: Any, sample: Any, ranks: int) -> tuple[Any, Decoding]:
    """What so many ranks make of latents, and what was divided."""
    decoding = Decoding(Threads(vae))
    args = (sample,)
    if vae.config.get("timestep_conditioning"):
        args = (sample, torch.tensor([0.05], dtype=sample.dtype))
    task = ComponentTask("vae", args, {"return_dict": False}, tuple(range(ranks)), first_dtype(vae))
    return decoding.run(vae, task)[0], decoding


def difference(one: Any, other: Any) -> float:
    assert one.shape == other.shape
    return float((one - other).abs().max() / max(float(one.std()), 1e-6))


@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("family", TRIED)
def test_ranks_with_bands_of_a_clip_make_what_one_makes(family: str, ranks: int) -> None:
    vae = vae_of(family).to(torch.float32) if family in IN_SINGLE else vae_of(family)
    sample = sample_for(vae, 2 * ranks + 1, 3, 3).to(first_dtype(vae))
    if family == "Allegro":  # which has no other way
        vae.enable_tiling()
        sample = sample_for(vae, 16, 16, 8)
    whole, _ = decoded(vae, sample, 1)
    found, decoding = decoded(vae, sample, ranks)
    assert difference(whole, found) <= (1e-12 if whole.dtype == torch.float64 else 1e-4)
    if family in ALONE:
        assert ALONE[family] in decoding.notes[0]
    else:
        assert (decoding.divided, decoding.notes) == (1, [])


@pytest.mark.parametrize("lines", [0, 1, 3])
def test_ranks_with_bands_of_pictures_make_what_one_makes(lines: int) -> None:
    """Odd heights, as many rows as ranks, one row; the decoder's own layers, or bands within each rank's (`lines`)."""
    vae = autoencoder()
    for height, width, pictures, ranks in ((9, 3, 1, 2), (9, 3, 1, 4), (7, 4, 2, 3), (2, 5, 1, 2), (1, 3, 1, 1)):
        sample = latents(height, width, torch.float64, pictures)
        whole = vae.decode(sample, return_dict=False)[0]
        assert difference(whole, bands_decoded(vae, sample, ranks, lines)) <= 1e-12


def bands_decoded(vae: Any, sample: Any, ranks: int, lines: int = 0) -> Any:
    """What ranks that have a row each at least make of latents."""

    def share(rank: ThreadRank) -> Any:
        own = copy.deepcopy(vae)
        if lines:
            own.decoder.forward = PatchedDecoder(own.decoder, lines)
        return in_bands(own.decode, ComponentTask("vae", (sample,), {}, tuple(range(ranks)), sample.dtype), rank)

    return on_threads(ranks, share)[0].sample


def test_bytes_and_exchanges_are_those_of_the_formula() -> None:
    vae, height, width, pictures, item = autoencoder(), 11, 6, 2, 8
    sample = latents(height, width, torch.float64, pictures)
    edges, norms, attentions = 0, 0, 0
    convolutions = 0
    for name, part in vae.decoder.named_modules():
        level = 2 if name == "conv_out" else 0
        if name.startswith("up_blocks."):
            level = int(name.split(".")[1]) + ("upsamplers" in name)
        if isinstance(part, torch.nn.Conv2d) and part.kernel_size == (3, 3):
            convolutions += 1
            edges += part.in_channels * (width << level)
        norms += isinstance(part, torch.nn.GroupNorm)
        attentions += 2 * part.to_k.out_features * width if hasattr(part, "to_k") else 0
    for ranks in (2, 3, 4):
        traffic = BandTraffic(
            edge_bytes=item * pictures * edges,
            moment_bytes=item * pictures * norms * 2 * 4,
            key_bytes=item * pictures * attentions,
            given_bytes=item * pictures * 3 * 4 * 4 * width,
            exchanges=convolutions + norms + 1 + 1,
        )
        rows = bands_of(height, ranks)

        def share(rank: ThreadRank, rows: tuple[int, ...] = rows) -> tuple[int, int]:
            with Band(rank, rows) as band:
                band.whole(copy.deepcopy(vae).decode(band.own(sample), return_dict=False))
            return sum(band.sent.values()), band.exchanges

        found = on_threads(ranks, share)
        assert tuple(sent for sent, _ in found) == traffic.sent_bytes(rows)
        assert {exchanges for _, exchanges in found} == {traffic.exchanges}


def _no_rows(band: Any, x: Any, up: int, down: int) -> Any:
    return x, up, down


def _own_moments(band: Any, mean: Any, variance: Any) -> Any:
    return mean, variance


def _own_keys(band: Any, own: Any, counts: Any) -> Any:
    return own


@pytest.mark.parametrize(
    ("method", "without"), [("_extended", _no_rows), ("pooled", _own_moments), ("_keys", _own_keys)]
)
def test_every_exchange_is_needed(method: str, without: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    vae, sample = autoencoder(), latents(9, 6, torch.float64)
    whole = vae.decode(sample, return_dict=False)[0]
    monkeypatch.setattr(Band, method, without)
    assert difference(whole, bands_decoded(vae, sample, 2)) > 1e-4
    assert Decoding(Threads(vae))._tried("vae", ComponentTask("vae", (sample,), {}, (0, 1), sample.dtype), sample)


def test_what_a_band_cannot_know_is_refused() -> None:
    x, weight = torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 3, 3)
    attended = torch.zeros(1, 1, 8, 2)
    wanted = {
        "leaves rows out": lambda: torch.nn.functional.conv2d(x, weight, stride=2, padding=1),
        "pads 2": lambda: torch.nn.functional.conv2d(x, weight, padding=2),
        "pads by 'same'": lambda: torch.nn.functional.conv2d(x, weight, padding="same"),
        "resized by 'bilinear'": lambda: torch.nn.functional.interpolate(x, scale_factor=2, mode="bilinear"),
        "uses randn": lambda: torch.randn(2),
        "only what comes before": lambda: torch.nn.functional.scaled_dot_product_attention(
            attended, attended, attended, is_causal=True
        ),
    }
    for why, call in wanted.items():
        with pytest.raises(Undividable, match=why), Band(ThreadRank(0, 1, {}), (4,)):
            call()
    assert bands_of(2, 4) == (1, 1, 0, 0)


def test_half_precision_is_tried_in_single_and_decoded_in_half() -> None:
    vae = autoencoder(torch.bfloat16)
    sample = latents(8, 6, torch.bfloat16)
    found, decoding = decoded(vae, sample, 2)
    assert (found.dtype, decoding.divided, decoding.notes) == (torch.bfloat16, 1, [])
    truth = decoded(autoencoder(torch.bfloat16).to(torch.float64), sample.to(torch.float64), 1)[0]
    stock = decoded(vae, sample, 1)[0]
    assert difference(truth, found.double()) < 1.5 * difference(truth, stock.double())


def test_a_mask_between_frames_is_made_for_all_rows() -> None:
    frames = torch.tensor([[0.0, -1.0], [0.0, 0.0]])
    mask = frames.repeat_interleave(3, 0).repeat_interleave(3, 1)
    blocks, tokens = bands_module._blocks(mask[None])
    assert tokens == 3
    assert torch.equal(blocks[0], frames)
    mask[5, 5] = 5.0
    with pytest.raises(Undividable, match="not one between frames"):
        bands_module._blocks(mask[None])


def test_weights_are_meanwhile_of_the_format_that_the_asking_pipeline_has() -> None:
    """SDXL's decoder is float32 for as long as it decodes, and half precision else."""
    vae, sample = autoencoder(torch.bfloat16), latents(4, 4, torch.float32)
    expected = autoencoder(torch.bfloat16).to(torch.float32).decode(sample, return_dict=False)[0]
    with in_dtype(vae, torch.float32):
        assert torch.equal(vae.decode(sample, return_dict=False)[0], expected)
    assert first_dtype(vae) == torch.bfloat16
    with in_dtype(vae, torch.bfloat16):
        assert first_dtype(vae) == torch.bfloat16
