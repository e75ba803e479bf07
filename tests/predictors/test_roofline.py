"""The roofline: what it must do whatever the figures are."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictors.features import FeatureMap
from predictors.hardware import find_hardware
from predictors.roofline import Roofline, default_efficiency
from predictors.shapes import shape_of
from traces.composition import Composition, composition_of, parse
from traces.geometry import geometry_of


def roofline(model: str = "sdxl", stage: str = "denoise", executor: str = "whole", kind: str = "l40s") -> Roofline:
    features = FeatureMap(geometry_of(model), stage, executor)
    hardware = find_hardware(kind)
    return Roofline(shape_of(model), features, hardware, hardware.dtype, default_efficiency(stage, hardware.dtype))


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
    seconds = packed.seconds(work) - work.rows * packed.efficiency.row_s
    assert max(host, compute + memory) <= seconds <= host + compute + memory


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
        assert r.work(batch, 1.0).rows == 2 * 2
        decode = roofline(model, "decode")
        assert decode.work(batch, 1.0) == decode.work(batch, 0.0)


def test_a_cache_spares_work_of_the_denoiser_not_launches() -> None:
    batch = parse("2@1024x1024")
    full, half = (roofline(executor="patched").work(batch, 1.0, share) for share in (1.0, 0.5))
    assert half.flops == full.flops / 2
    assert half.launches == full.launches
    assert half.bytes > full.bytes / 2  # the parameters are read all the same


def test_small_batches_are_bound_by_launches_and_large_ones_by_the_device() -> None:
    fast = roofline(kind="h100-sxm")
    assert fast.bound(fast.work(parse("1@256x256"))) == "launch"
    assert fast.bound(fast.work(parse("8@1024x1024"))) == "compute"
    narrow = replace(fast, hardware=fast.hardware.model_copy(update={"memory_bytes_per_s": 1e11}))
    assert narrow.bound(narrow.work(parse("8@1024x1024"))) == "memory"
    assert narrow.seconds(narrow.work(parse("8@1024x1024"))) > fast.seconds(fast.work(parse("8@1024x1024")))


def test_a_wider_type_moves_more() -> None:
    wide = replace(roofline(), dtype="float32")
    batch = parse("1@512x512")
    assert wide.work(batch).bytes == 2 * roofline().work(batch).bytes
    assert wide.seconds(wide.work(batch)) > roofline().seconds(roofline().work(batch))


def test_an_estimate_of_an_h100_is_near_what_was_published() -> None:
    sd3 = roofline("sd3", kind="h100-sxm")
    assert sd3.seconds(sd3.work(parse("4@1024x1024"))) == pytest.approx(11.84 / 50, rel=0.15)
