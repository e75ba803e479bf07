"""Counting what a forward does, and the polynomials that give it back."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from backend.shapes.__main__ import build, count_bands, count_stage  # noqa: E402
from backend.shapes.counting import count  # noqa: E402
from backend.shapes.denoisers import hunyuan_video_15, mochi, wan  # noqa: E402
from backend.shapes.fitting import fit  # noqa: E402
from backend.shapes.models import MODELS  # noqa: E402
from backend.shapes.stages import Nothing, StageWork  # noqa: E402
from benchmarks.memory import LiveBytes  # noqa: E402
from predictors.memory import SLACK, footprint  # noqa: E402
from predictors.shapes import KINDS, shape_of  # noqa: E402
from traces.geometry import geometry_of  # noqa: E402


def test_a_product_is_counted_once_with_what_it_moves() -> None:
    layer = torch.nn.Linear(16, 32, bias=False)
    given = torch.zeros(4, 16)
    counts = count(lambda: layer(given))
    assert counts.flops == 2 * 4 * 16 * 32
    assert counts.bytes == 4 * (4 * 16 + 16 * 32 + 4 * 32)
    assert counts.launches == 1
    assert counts.peak_bytes == 4 * 4 * 32


def test_views_are_free_and_writing_in_place_is_not() -> None:
    given = torch.zeros(4, 16)
    views = count(lambda: given.reshape(8, 8).transpose(0, 1)[:2].expand(2, 8))
    assert (views.flops, views.bytes, views.launches, views.peak_bytes) == (0, 0, 0, 0)
    written = count(lambda: given.add_(1.0))
    assert (written.bytes, written.launches, written.peak_bytes) == (4 * 64, 1, 0)


def test_attention_counts_as_a_fused_kernel() -> None:
    query, key = torch.zeros(2, 3, 10, 8), torch.zeros(2, 3, 20, 8)
    counts = count(lambda: torch.nn.functional.scaled_dot_product_attention(query, key, value=key))
    assert counts.flops == 2 * (2 * 3 * 10 * 20 * 8) * 2
    assert counts.bytes == 4 * 2 * 3 * 8 * (10 + 20 + 20 + 10)
    assert counts.launches == 1


def test_every_operator_is_of_one_kind() -> None:
    wide, point = torch.nn.Conv2d(4, 8, 3, padding=1), torch.nn.Conv2d(8, 8, 1)
    linear, table = torch.nn.Linear(8, 16, bias=False), torch.nn.Embedding(100, 8)

    def run() -> None:
        pixels = point(wide(torch.zeros(2, 4, 6, 5)))
        tokens = pixels.flatten(2).transpose(1, 2) + table(torch.zeros(2, 30, dtype=torch.int64))
        torch.nn.functional.scaled_dot_product_attention(linear(tokens), linear(tokens), linear(tokens))

    kinds = count(run, (wide, point, linear, table)).kinds
    pixels = 2 * 6 * 5
    assert kinds["convolutions"].flops == 2 * pixels * 8 * 4 * 9
    assert kinds["products"].flops == 2 * pixels * 8 * 8 + 3 * 2 * pixels * 8 * 16
    assert kinds["attention"].flops == 2 * 2 * (2 * 30 * 30 * 16)
    assert kinds["attention"].padding == kinds["attention"].flops  # heads of 16 are computed as if they had 32
    assert kinds["attention"].bytes == 4 * 4 * pixels * 16
    assert kinds["elementwise"].flops == 0
    parameters = {name: kind.parameters for name, kind in kinds.items()}
    read = {"convolutions": 8 * 4 * 9 + 8, "products": 8 * 8 + 8 + 8 * 16}
    assert parameters == {"attention": 0, "elementwise": 0, **read}  # each once, and no table that is looked up


def test_what_is_freed_no_longer_counts() -> None:
    def chain() -> None:
        x = torch.zeros(1000)
        for _ in range(5):
            x = x + 1

    assert count(chain).peak_bytes == 2 * 4000


def small_transformer() -> object:
    return diffusers.SD3Transformer2DModel(
        sample_size=16, num_layers=2, attention_head_dim=8, num_attention_heads=2, joint_attention_dim=32,
        caption_projection_dim=16, pooled_projection_dim=16, in_channels=4, out_channels=4, pos_embed_max_size=64,
    )  # fmt: skip


def test_polynomials_give_back_a_size_that_was_not_counted() -> None:
    with torch.device("meta"):
        model = small_transformer()

    def counted(height: int, width: int) -> object:
        def run() -> None:
            with torch.device("meta"):
                model(torch.empty(1, 4, height, width), torch.empty(1, 7, 32), torch.empty(1, 16), torch.empty(1))

        return count(run)

    sides = [(16, 16), (16, 32), (32, 32), (48, 32), (64, 64)]
    areas = [height * width // 4 for height, width in sides]
    for quantity in ("flops", "bytes", "launches"):
        polynomial, error = fit(areas, [1] * len(areas), [getattr(counted(*side), quantity) for side in sides])
        assert error < 1e-9
        assert polynomial.at(40 * 56 / 4, 1) == pytest.approx(getattr(counted(40, 56), quantity), rel=1e-9)


def test_attention_is_counted_by_the_tokens_that_see_each_other() -> None:
    with torch.device("meta"):
        model = small_transformer()

    def run() -> None:
        with torch.device("meta"):
            model(torch.empty(1, 4, 16, 32), torch.empty(1, 7, 32), torch.empty(1, 16), torch.empty(1))

    tokens = 16 * 32 // 4 + 7
    assert count(run).attended == {(tokens, tokens, 2, 4 * tokens * 16 * 4): 2}  # two layers, four bytes a number


@pytest.mark.parametrize("stage", ["encode", "denoise", "decode"])
def test_the_table_agrees_with_a_fresh_count(stage: str) -> None:
    shape, geometry = shape_of("tiny-image").stage(stage), geometry_of("tiny-image")
    modules = build(MODELS["tiny-image"].stages[stage])
    assert sum(p.numel() for module in modules for p in module.parameters()) == shape.parameters
    one, two = (count_stage(MODELS["tiny-image"].stages[stage], modules, rows, (1, 24, 40)) for rows in (1, 2))
    area = geometry.tokens((192, 320, 1))
    for kind in KINDS:
        single, pair, of = one.kinds[kind], two.kinds[kind], shape.kinds[kind]
        assert of.flops.at(area, 1) == pytest.approx(pair.flops / 2, rel=1e-9)
        assert of.padding.at(area, 1) == pytest.approx(pair.padding / 2, rel=1e-9)
        assert of.bytes.at(area, 1) == pytest.approx(pair.bytes - single.bytes, rel=1e-9)
        assert of.parameters == pair.parameters
    assert shape.flops.at(area, 1) == pytest.approx(two.flops / 2, rel=1e-9)
    assert shape.bytes.at(area, 1) == pytest.approx(two.bytes - one.bytes, rel=1e-9)
    assert shape.launches.at(area, 1) == two.launches
    assert shape.peak_bytes.at(area, 1) == pytest.approx(two.peak_bytes - one.peak_bytes, rel=1e-3)


@pytest.mark.parametrize(
    ("model", "stage", "size"),
    [("pixart-sigma", "denoise", (1216, 832, 1)), ("sd15", "denoise", (640, 768, 1)), ("sd3", "encode", (640, 640, 1))],
)
def test_a_size_that_was_not_counted_is_what_the_table_says(model: str, stage: str, size: tuple[int, int, int]) -> None:
    shape, geometry, work = shape_of(model), geometry_of(model), MODELS[model].stages[stage]
    of, modules = shape.stage(stage), build(work)
    one, two = (count_stage(work, modules, rows, geometry.latent_shape(size)[1:]) for rows in (1, 2))
    at = shape.tokens(stage, geometry, size)
    for kind in KINDS:
        single, pair = one.kinds[kind], two.kinds[kind]
        assert of.kinds[kind].flops.at(*at) == pytest.approx(pair.flops / 2, rel=1e-9)
        assert of.kinds[kind].padding.at(*at) == pytest.approx(pair.padding / 2, rel=1e-9)
        assert of.kinds[kind].bytes.at(*at) == pytest.approx(pair.bytes - single.bytes, rel=1e-9)


def narrow_hunyuan_video() -> StageWork:
    return hunyuan_video_15(
        text=12, glyphs=6, image=5, num_attention_heads=2, attention_head_dim=16, num_layers=2, num_refiner_layers=1,
        text_embed_dim=32, text_embed_2_dim=24, image_embed_dim=20, rope_axes_dim=(4, 6, 6),
    )  # fmt: skip


def narrow_mochi() -> StageWork:
    return mochi(
        text=12, num_attention_heads=2, attention_head_dim=8, num_layers=2, pooled_projection_dim=16, text_embed_dim=32,
        time_embed_dim=16,
    )  # fmt: skip


class Ordinary(Nothing):
    """Numbers on the processor: ones, so that every token counts."""

    def noise(self, *shape: int, dtype: torch.dtype | None = None) -> torch.Tensor:
        return torch.ones(shape, dtype=dtype or torch.bfloat16)


@pytest.mark.parametrize("work", [narrow_hunyuan_video(), narrow_mochi()])
def test_masks_that_say_nothing_count_as_full_ones(work: StageWork) -> None:
    """Networks that sort their tokens by a mask do the same on the meta device as with numbers."""
    torch.set_default_dtype(torch.bfloat16)
    try:
        ordinary = [module.eval() for module in work.modules()]
    finally:
        torch.set_default_dtype(torch.float32)
    real = count(lambda: work.run(ordinary, 2, (3, 4, 6), Ordinary()), ordinary)
    modules = build(work)
    counted = count_stage(work, modules, 2, (3, 4, 6))
    assert counted.kinds["attention"].flops > 0
    for kind in ("products", "convolutions", "attention"):
        assert counted.kinds[kind].flops == real.kinds[kind].flops
        assert counted.kinds[kind].parameters == real.kinds[kind].parameters


def test_kept_outcomes_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    work = MODELS["tiny-image"].stages["denoise"]
    kept = count_stage(work, build(work), 2, (1, 16, 16))
    monkeypatch.setattr("backend.shapes.counting._Outcomes.of", lambda _, func, args, kwargs, __: func(*args, **kwargs))
    again = count_stage(work, build(work), 2, (1, 16, 16))
    assert (kept.flops, kept.bytes, kept.launches, kept.peak_bytes) == (
        again.flops, again.bytes, again.launches, again.peak_bytes,
    )  # fmt: skip


def test_what_is_held_is_not_read() -> None:
    work = wan(experts=2, num_attention_heads=2, attention_head_dim=12, num_layers=1, ffn_dim=32)
    assert len(work.held()) == 1
    assert len(wan(num_attention_heads=2, attention_head_dim=12, num_layers=1, ffn_dim=32).held()) == 0


def test_memory_is_what_a_real_run_holds() -> None:
    """Every stage of a guided batch of three on real tensors of float32, against the footprint without its slack."""
    images, size, model = 3, (192, 128, 1), MODELS["tiny-image"]
    peaks = []
    for name, stage in model.stages.items():
        modules = [module.eval() for module in stage.modules()]
        rows = images if name == "decode" else 2 * images
        watch = LiveBytes()
        with torch.no_grad(), watch:
            latent, text = torch.zeros(rows, 4, 24, 16), torch.zeros(rows, 16, 64)
            if name == "encode":
                modules[0](torch.zeros(rows, 16, dtype=torch.int64))
            elif name == "decode":
                modules[0].decode(latent)
            else:
                added = {"text_embeds": torch.zeros(rows, 64), "time_ids": torch.zeros(rows, 6)}
                modules[0](latent, torch.zeros(rows), text, added_cond_kwargs=added)
        peaks.append(watch.peak)
    needed = footprint(shape_of("tiny-image"), geometry_of("tiny-image"), size, images, "float32")
    assert needed.activation_bytes / (1 + SLACK) == pytest.approx(max(peaks), rel=0.1)


@pytest.mark.parametrize(("model", "shape"), [("tiny-image", (1, 22, 40)), ("qwen-image", (1, 46, 50))])
def test_what_bands_exchange_is_what_the_table_says(model: str, shape: tuple[int, int, int]) -> None:
    """Of a size that the table was not made of, whose rows are not even."""
    stage, known = MODELS[model].stages["decode"], shape_of(model).decode.bands
    assert known is not None
    found = count_bands(stage, build(stage), shape)
    frames, height, width = shape
    patch = geometry_of(model).patch
    tokens = height * width / patch**2, frames
    assert found.exchanges == known.exchanges.at(*tokens)
    assert found.edge_bytes == pytest.approx(known.edge_bytes.at(width, frames))
    assert found.moment_bytes == pytest.approx(known.moment_bytes.at(*tokens))
    assert found.key_bytes == pytest.approx(known.key_bytes.at(*tokens))
