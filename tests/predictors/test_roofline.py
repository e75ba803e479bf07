"""The roofline: what it must do whatever the figures are."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictors.efficiency import Setting, shipped_efficiencies
from predictors.features import FeatureMap
from predictors.hardware import find_hardware
from predictors.roofline import Roofline
from predictors.shapes import shape_of
from traces.composition import Composition, composition_of, parse
from traces.geometry import geometry_of
from traces.stages import STAGES


def roofline(
    model: str = "sdxl",
    stage: str = "denoise",
    executor: str = "whole",
    kind: str = "l40s",
    precision: str = "bfloat16",
    engine: str = "eager",
) -> Roofline:
    shape, features = shape_of(model), FeatureMap(geometry_of(model), stage, executor)
    setting = Setting.of_stage(find_hardware(kind), engine, precision, STAGES[stage].network, model, shape.upcasts)
    return Roofline(shape, features, setting, shipped_efficiencies().rates(setting))


def seconds(of: Roofline, batch: str) -> float:
    return of.seconds(of.work(parse(batch)))


sizes = st.sampled_from([(512, 512, 1), (768, 768, 1), (512, 1024, 1), (1024, 1024, 1)])
batches = st.lists(st.tuples(sizes, st.integers(1, 4)), min_size=1, max_size=4).map(composition_of)


@given(batches, sizes)
def test_one_image_more_takes_longer_but_no_longer_than_alone(batch: Composition, size: tuple[int, int, int]) -> None:
    packed = roofline(executor="packed")
    more = composition_of([*batch, (size, 1)])
    before, after, alone = (packed.seconds(packed.work(c)) for c in (batch, more, ((size, 1),)))
    assert before < after < before + alone


@given(batches)
def test_the_parts_bound_the_sum(batch: Composition) -> None:
    packed = roofline(executor="packed")
    work = packed.work(batch)
    host, compute, memory = packed.parts(work)
    assert max(host, compute, memory) <= packed.seconds(work) <= host + compute + memory


@given(batches)
def test_patches_cost_their_borders(batch: Composition) -> None:
    patched, packed = roofline(executor="patched"), roofline(executor="packed")
    cut = len(batch) > 1
    assert (patched.work(batch).flops > packed.work(batch).flops) == cut
    assert patched.work(batch).flops <= 1.2 * packed.work(batch).flops


def test_guidance_doubles_rows() -> None:
    batch = parse("2@1024x1024")
    for model in ("sdxl", "sd3", "flux"):  # flux by true CFG, see `Trace.guided_as`
        r = roofline(model)
        assert r.work(batch, 1.0).flops == 2 * r.work(batch, 0.0).flops
        assert r.work(batch, 1.0).attention_flops == 2 * r.work(batch, 0.0).attention_flops
        decode = roofline(model, "decode")
        assert decode.work(batch, 1.0) == decode.work(batch, 0.0)


def test_a_cache_spares_work_of_the_denoiser_not_launches() -> None:
    batch = parse("2@1024x1024")
    full, half = (roofline(executor="patched").work(batch, 1.0, share) for share in (1.0, 0.5))
    assert half.flops == full.flops / 2
    assert half.launches == full.launches
    assert half.bytes > full.bytes / 2  # the parameters are read all the same


def test_the_work_is_that_of_the_shape() -> None:
    batch, stage = parse("3@1024x1024"), shape_of("sdxl").denoise
    work = roofline().work(batch, 0.0)
    assert work.flops == pytest.approx(3 * stage.flops.at(64 * 64 * 4, 1))
    read = sum(kind.parameters for kind in stage.kinds.values())
    assert work.bytes == pytest.approx(3 * stage.bytes.at(64 * 64 * 4, 1) + 2 * read)


def test_small_batches_are_bound_by_launches_and_large_ones_by_the_device() -> None:
    fast = roofline(kind="h100-sxm")
    assert fast.bound(fast.work(parse("1@256x256"))) == "launch"
    assert fast.bound(fast.work(parse("8@1024x1024"))) == "compute"
    narrow = fast.with_rates(replace(fast.rates, memory=1e11))
    assert narrow.bound(narrow.work(parse("8@1024x1024"))) == "memory"
    assert seconds(narrow, "8@1024x1024") > seconds(fast, "8@1024x1024")


def test_a_wider_type_moves_more_and_a_quantised_one_fewer_parameters() -> None:
    batch = parse("1@512x512")
    half, full, quantised = (roofline(precision=name).work(batch) for name in ("float16", "float32", "fp8"))
    assert full.bytes == 2 * half.bytes
    products = shape_of("sdxl").denoise.products.parameters
    assert half.products_bytes - quantised.products_bytes == pytest.approx(products)
    assert quantised.convolutions_bytes == half.convolutions_bytes
    assert seconds(roofline(precision="float32"), "1@512x512") > seconds(roofline(precision="tf32"), "1@512x512")


def test_engines_and_precisions_are_ordered_as_everybody_found_them() -> None:
    batch = "1@1024x1024"
    eager, compiled, vendor = (
        seconds(roofline(engine=name, precision="float16"), batch) for name in ("eager", "compile", "vendor")
    )
    assert vendor < compiled < eager
    tf32 = seconds(roofline(precision="tf32"), batch)
    fp8 = seconds(roofline("flux", precision="fp8", engine="compile"), batch)
    assert eager < tf32
    assert fp8 < seconds(roofline("flux", engine="compile"), batch)


def test_only_denoisers_are_quantised_and_sdxl_decodes_in_float32_where_it_runs_in_float16() -> None:
    assert roofline(stage="decode", precision="fp8").setting.precision == "bfloat16"
    assert roofline(stage="encode", precision="int8-weights", kind="t4").setting.precision == "float16"
    upcast = roofline(stage="decode", precision="float16").setting
    assert (upcast.precision, upcast.upcast) == ("float32", True)
    assert not roofline("sd15", "decode", precision="float16").setting.upcast
    assert not roofline(stage="decode", precision="bfloat16").setting.upcast


def test_geforce_cards_sum_float16_in_engines_only() -> None:
    card = find_hardware("rtx-4090")
    assert Setting(card, "vendor", "float16").peak("products") == card.float16_accumulate_flops
    assert Setting(card, "vendor", "bfloat16").peak("products") == card.bfloat16_flops
    assert Setting(card, "compile", "float16").peak("products") == card.float16_flops


def test_an_estimate_of_an_h100_is_near_what_was_published() -> None:
    """By MixFusion, whose tables the efficiencies were not fitted to."""
    assert seconds(roofline("sd3", kind="h100-sxm", precision="float16"), "4@1024x1024") == pytest.approx(
        11.84 / 50, rel=0.25
    )
