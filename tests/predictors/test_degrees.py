"""Seconds on several devices: what one device's follow exactly, what bounds them, and what moves between degrees."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictors.by_model import ByModel
from predictors.costs import Batch, CostLayer, CostModel, Scaled
from predictors.degrees import (
    DegreeRates,
    MeasuredDegree,
    ParallelCosts,
    Sharing,
    latent_bytes,
    link_at,
    shipped_degree_rates,
)
from predictors.estimate import RooflineCost, estimated_table
from predictors.hardware import find_hardware
from predictors.latency_model import LatencyModel
from predictors.link import Link
from predictors.parallel import Parallel
from predictors.shapes import shape_of
from traces.geometry import geometry_of
from traces.stages import ORDINARY

NOTHING = Link(0.0, float("inf"))
IDEAL = DegreeRates(unshared=0.0, exchange_starts=0.0, link_share={"direct": 1.0, "host": 1.0}, log_sd=0.1)
PICTURE = (1024, 1024, 1)


def table_of(model: str) -> LatencyModel:
    return estimated_table(model, find_hardware("h100-sxm"), engine="compile")


def costs_of(
    model: str, *, link: Link = NOTHING, rates: DegreeRates = IDEAL, executor: str = "packed"
) -> ParallelCosts:
    table = table_of(model)
    cost = table.costs["denoise"]
    assert isinstance(cost, RooflineCost)
    sharing = Sharing(shape_of(model), geometry_of(model), executor, cost.roofline)
    return ParallelCosts(table, sharing, 8, link=link, rates=rates)


FLUX, SDXL = costs_of("flux"), costs_of("sdxl")


@pytest.mark.parametrize("costs", [FLUX, SDXL, costs_of("wan-1.3b", rates=shipped_degree_rates())])
def test_one_device_takes_exactly_what_the_table_says(costs: ParallelCosts) -> None:
    for images in (1, 3):
        for guided in (0.0, 0.4, 1.0):
            batch = Batch("", ((PICTURE, images),), guided)
            for stage in ORDINARY:
                exactly = costs.table.step_s(stage, batch)
                assert costs.step_s(stage, batch._replace(devices=1)) == exactly


def test_without_a_degree_a_batch_runs_on_all_devices_that_its_model_can_use() -> None:
    for costs, most in ((FLUX, 8), (SDXL, 2)):
        batch = Batch("", ((PICTURE, 1),), 1.0)
        assert costs.step_s("denoise", batch) == costs.step_s("denoise", batch._replace(devices=most))


def test_encoding_runs_on_one_device() -> None:
    batch = Batch("flux", ((PICTURE, 2),), 1.0)
    assert FLUX.step_s("encode", batch._replace(devices=4)) == FLUX.step_s("encode", batch._replace(devices=1))
    assert FLUX.degree("encode", batch._replace(devices=4)) == 1


def test_decoding_is_divided_by_rows_where_that_is_faster() -> None:
    batch = Batch("flux", ((PICTURE, 2),), 1.0)
    one_s = FLUX.step_s("decode", batch._replace(devices=1))
    for devices, rows in ((2, 64), (3, 43), (4, 32)):  # of 128
        on = batch._replace(devices=devices)
        assert FLUX.step_s("decode", on) == pytest.approx(one_s * rows / 128, rel=0.02)
        assert FLUX.degree("decode", on) == devices
    slow = costs_of("flux", link=Link(one_s / 80, 1e12))  # which is waited for in 65 exchanges
    assert slow.degree("decode", batch._replace(devices=2)) == 1
    assert slow.step_s("decode", batch._replace(devices=2)) == one_s
    assert slow.degree("decode", batch._replace(devices=4)) == 1
    assert slow.degree("denoise", batch._replace(devices=4)) == 4


def test_what_is_not_known_to_be_divided_is_decoded_on_one_device() -> None:
    sana = costs_of("sana")
    batch = Batch("sana", ((PICTURE, 1),), 1.0, 2)
    assert sana.degree("decode", batch) == 1
    assert sana.step_s("decode", batch) == sana.table.step_s("decode", batch)
    rates = IDEAL.model_copy(update={"measured": {2: MeasuredDegree(factor=1.1, log_sd=0.02)}})
    measured = ParallelCosts(sana.table, sana.sharing, 8, link=NOTHING, rates=IDEAL, decoding=(NOTHING, rates))
    assert measured.degree("decode", batch) == 2
    assert measured.step_s("decode", batch) == pytest.approx(1.1 * sana.step_s("decode", batch) / 2)


def test_bytes_of_bands_are_those_of_edges_keys_and_pixels() -> None:
    """Flux, 1024 px: the second of three devices has two edges, and hands on its rows."""
    step = FLUX.sharing.decoded(Batch("flux", ((PICTURE, 1),)), 3)
    edge, moments = 63520 * 128, 7680
    keys, pixels = 8192 * 64 * 64 / 128, 2 * 3 * 1024 * 8  # of a row of latents; tokens are of 2x2
    busiest = 2 * 2 * edge + 2 * 2 * moments + keys * (2 * 43 + 85) + pixels * 43
    first = 2 * edge + 2 * 2 * moments + keys * (2 * 42 + 86) + pixels * 86
    assert step.moved_bytes == max(busiest, first)
    assert step.exchanges == 65
    assert step.share == pytest.approx(43 / 128, rel=0.02)


def test_without_hosts_and_links_seconds_are_shared_but_for_parameters() -> None:
    """Sixteen clips of many tokens: parameters count for nothing, and all is dealt out evenly."""
    costs = costs_of("wan-1.3b")
    batch = Batch("wan-1.3b", (((480, 832, 81), 8),), 1.0)
    one_s = costs.step_s("denoise", batch._replace(devices=1))
    for devices in (2, 4, 8):
        assert costs.step_s("denoise", batch._replace(devices=devices)) == pytest.approx(one_s / devices, rel=0.01)


@given(st.sampled_from([2, 3, 4, 6, 8]), st.integers(1, 4), st.sampled_from([0.0, 0.5, 1.0]))
def test_a_slower_link_never_helps_and_idle_ones_lower_nothing(devices: int, images: int, guided: float) -> None:
    batch = Batch("flux", ((PICTURE, images),), guided, devices)
    of_links = [costs_of_link(link).step_s("denoise", batch) for link in (NOTHING, Link(1e-5, 1e11), Link(1e-4, 1e9))]
    assert of_links == sorted(of_links)
    assert of_links[0] >= FLUX.step_s("denoise", batch._replace(devices=1)) / devices


_LINKED: dict[Link, ParallelCosts] = {}


def costs_of_link(link: Link) -> ParallelCosts:
    if link not in _LINKED:
        _LINKED[link] = costs_of("flux", link=link)
    return _LINKED[link]


def test_whole_requests_and_guidance_rows_exchange_nothing() -> None:
    slow = costs_of("flux", link=Link(0.0, 1.0))  # a byte a second
    for images, guided, devices in ((4, 0.0, 4), (2, 1.0, 4), (1, 1.0, 2)):
        batch = Batch("flux", ((PICTURE, images),), guided, devices)
        assert slow.step_s("denoise", batch) == FLUX.step_s("denoise", batch)
    assert slow.step_s("denoise", Batch("flux", ((PICTURE, 1),), 0.0, 2)) > 1e6


def test_bytes_are_those_of_queries_keys_values_and_outputs() -> None:
    """Flux: 57 layers of 3072 numbers of two bytes, 512 text tokens and 4096 of the picture; a device of four sends
    three quarters of its quarter of four tensors, and receives as much."""
    step = FLUX.sharing.shared(Batch("flux", ((PICTURE, 1),)), 4, guided=False)
    assert step.moved_bytes == 2 * 4 * 57 * 3072 * 2 * (4096 + 512) * 3 / 16
    assert step.exchanges == 2 * 57


def test_true_cfg_calls_the_denoiser_twice_unless_its_rows_run_apart() -> None:
    batch = Batch("flux", ((PICTURE, 1),), 1.0)
    once, twice, apart = (
        FLUX.sharing.shared(batch, 2, guided=guided, parallel=parallel)
        for guided, parallel in ((False, None), (True, Parallel(ulysses=2)), (True, None))
    )
    assert (twice.exchanges, twice.kernels) == (2 * once.exchanges, 2 * once.kernels)
    assert twice.moved_bytes == 2 * once.moved_bytes
    assert (apart.exchanges, apart.kernels, apart.moved_bytes) == (0, once.kernels, 0.0)


def test_hosts_bound_what_devices_could_do() -> None:
    rates = IDEAL.model_copy(update={"exchange_starts": 10.0})
    bound = costs_of("flux", rates=rates)
    step = bound.sharing.shared(Batch("flux", ((PICTURE, 1),)), 8, guided=False)
    floor_s = step.start_s * (step.kernels + 10 * step.exchanges)
    assert bound.step_s("denoise", Batch("flux", ((PICTURE, 1),), 0.0, 8)) == pytest.approx(floor_s)


def test_a_unet_has_only_rows_to_deal_out() -> None:
    one_s = SDXL.step_s("denoise", Batch("sdxl", ((PICTURE, 1),), 1.0, 1))
    two_s, eight_s = (SDXL.step_s("denoise", Batch("sdxl", ((PICTURE, 1),), 1.0, devices)) for devices in (2, 8))
    assert two_s == eight_s < one_s
    unguided = Batch("sdxl", ((PICTURE, 1),), 0.0, 1)
    assert SDXL.step_s("denoise", unguided._replace(devices=2)) == SDXL.step_s("denoise", unguided)


def test_sizes_that_take_turns_are_shared_one_after_another() -> None:
    small = (512, 512, 1)
    apart = costs_of("flux", executor="whole")
    mixed, packed = (
        costs.sharing.shared(Batch("flux", ((small, 2), (PICTURE, 2))), 2, guided=False) for costs in (apart, FLUX)
    )
    assert mixed.exchanges == 0  # two of each size
    assert packed.exchanges == 2 * 57  # the second large one is cut
    assert mixed.kernels == 2 * packed.kernels


def test_a_degree_that_was_measured_departs_from_the_rates() -> None:
    batch = Batch("flux", ((PICTURE, 1),), 0.0)
    rates = IDEAL.model_copy(update={"measured": {4: MeasuredDegree(factor=1.25, log_sd=0.02)}})
    measured = costs_of("flux", rates=rates)
    for devices, factor, log_sd in ((2, 1.0, 0.1), (4, 1.25, 0.02)):
        on = batch._replace(devices=devices)
        assert measured.step_s("denoise", on) == factor * FLUX.step_s("denoise", on)
        assert rates.log_sd_of(devices) == log_sd


def test_what_bounds_a_step_is_named() -> None:
    batch = Batch("flux", ((PICTURE, 1),), 0.0, 8)
    assert costs_of("flux", rates=IDEAL.model_copy(update={"exchange_starts": 100.0})).bound(batch) == "host"
    assert costs_of("flux", link=Link(0.0, 1e6)).bound(batch) == "link"
    assert FLUX.bound(batch._replace(devices=2)) == "devices"


def test_degrees_are_passed_on_by_every_layer() -> None:
    assert CostModel().degrees("flux") == (1,)
    assert FLUX.degrees("flux") == (1, 2, 3, 4, 6, 8)
    layers: list[CostModel] = [CostLayer(FLUX), Scaled(FLUX, 2.0), ByModel({"flux": FLUX})]
    for layer in layers:
        assert layer.degrees("flux") == FLUX.degrees("flux")


def test_links_reach_what_was_found_of_their_data_sheet() -> None:
    rates = IDEAL.model_copy(update={"link_share": {"direct": 0.5, "host": 0.25}})
    assert link_at(450e9, rates).bytes_per_s == 450e9
    assert link_at(32e9, rates).bytes_per_s == 16e9


def test_what_moves_a_batch_takes_as_long_as_its_latents() -> None:
    costs = costs_of("flux", link=Link(0.25, 1e6))
    batch = Batch("flux", (((512, 512, 1), 1), (PICTURE, 2)), 0.0, 4)
    numbers = 16 * (64 * 64 + 2 * 128 * 128)
    assert latent_bytes(geometry_of("flux"), batch.composition) == 4 * numbers
    assert costs.step_s("reshard", batch) == 0.25 + 4 * numbers / 1e6
    assert not costs.extrapolates("reshard", batch.composition)
