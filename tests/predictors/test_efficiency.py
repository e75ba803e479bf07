"""The hierarchy of efficiencies: what must hold whatever was fitted."""

from __future__ import annotations

import math
from dataclasses import astuple

import pytest

from predictors.efficiency import (
    COMPUTING,
    ENGINES,
    Efficiencies,
    Setting,
    Spread,
    Work,
    error_class,
    forward_seconds,
    host_of,
    prior,
    share,
    shipped_efficiencies,
    terms,
)
from predictors.hardware import Hardware, find_hardware, shipped_hardware

L4, H100 = find_hardware("l4"), find_hardware("h100-sxm")
NOTHING = Efficiencies(terms={}, spreads={}, misfit=0.1)


@pytest.mark.parametrize("name", sorted(shipped_hardware()))
def test_every_device_has_rates_in_every_precision_and_engine(name: str) -> None:
    kind, known = shipped_hardware()[name], shipped_efficiencies()
    for precision in kind.precisions:
        for engine in ENGINES:
            for network in ("text", "denoiser", "vae"):
                setting = Setting.of_stage(kind, engine, precision, network, "sdxl", upcasts=True)
                rates = known.rates(setting)
                assert all(0 < rate < math.inf for rate in astuple(rates))
                for of in COMPUTING:
                    assert not setting.saturates(of) or getattr(rates, of) < setting.peak(of)
                assert 0.05 < known.log_sd(setting) < 1.5


def test_a_device_that_nobody_measured_is_what_its_generation_and_data_sheet_say() -> None:
    same = L4.model_copy(update={"name": "another L4"})
    alone = L4.model_copy(update={"name": "one of its own", "generation": "next"})
    known = Efficiencies(terms={"device NVIDIA L4 24GB": 0.2, "generation ada": 0.3}, spreads={}, misfit=0.1)
    measured, unmeasured, new = (known.rates(Setting(kind)) for kind in (L4, same, alone))
    assert measured.products > unmeasured.products > new.products
    assert new == NOTHING.rates(Setting(L4))
    assert measured.memory == unmeasured.memory == new.memory


def test_much_arithmetic_for_its_power_reaches_less_of_it() -> None:
    known = Efficiencies(terms={"flops a watt": -0.4}, spreads={}, misfit=0.1)
    hot = L4.model_copy(update={"watts": 400.0})
    assert known.rates(Setting(L4)).products < known.rates(Setting(hot)).products
    bare = Hardware(
        name="bare", float16_flops=1e14, dtype="float16", memory_bytes=1e9, memory_bytes_per_s=1e12,
        link_bytes_per_s=1e9, source="made up",
    )  # fmt: skip
    assert not {"flops a watt", "multiprocessors"} & set(terms(Setting(bare, precision="float16"))["products"])


def test_every_term_of_what_ships_has_a_prior_and_no_other_is_fitted() -> None:
    for name, value in shipped_efficiencies().terms.items():
        assert abs(value - prior(name).mean) < 6 * prior(name).sd
    with pytest.raises(KeyError):
        prior("weather today")


def test_only_float32_products_ignore_tensor_cores() -> None:
    def of(precision: str) -> set[str]:
        return set(terms(Setting(H100, precision=precision))["products"])

    assert "generation hopper" in of("bfloat16") & of("tf32") & of("fp8")
    assert of("float32") == {"products float32", f"device {H100.name}"}
    assert set(terms(Setting(H100, precision="float32"))["convolutions"]) >= {"convolutions", "convolutions tf32"}
    assert "eager fp8" in of("fp8")
    assert "eager fp8" not in set(terms(Setting(H100, "compile", "fp8"))["products"])


def test_a_share_is_bent_below_one() -> None:
    assert share(-3.0, saturates=True) == pytest.approx(math.exp(-3), rel=0.01)
    assert share(5.0, saturates=True) < 1 < share(0.5, saturates=False)
    assert share(0.0, saturates=True) == pytest.approx(math.sqrt(0.5))


def test_seconds_are_bounded_by_their_parts() -> None:
    rates = NOTHING.rates(Setting(L4))
    work = Work(1e12, 1e12, 1e12, 1e9, 1e9, 1e9, 1e10, 300)
    for alone in (Work(1e12, 0, 0, 0, 0, 0, 0, 0), Work(0, 0, 0, 0, 0, 0, 1e10, 0), Work(0, 0, 0, 0, 0, 0, 0, 300)):
        assert forward_seconds(alone, rates) < forward_seconds(work, rates)
    assert forward_seconds(Work(1e12, 0, 0, 0, 0, 0, 0, 0), rates) == pytest.approx(1e12 / rates.products)


def test_errors_are_told_apart_by_how_a_stage_is_run() -> None:
    assert error_class(Setting(L4)) == "eager"
    assert error_class(Setting(L4, "compile")) == "compiled"
    assert error_class(Setting(L4, "vendor", "float16")) == "vendor"
    assert error_class(Setting(L4, "eager", "tf32")) == "float32"
    assert error_class(Setting(L4, "eager", "int8")) == "quantised eager"
    assert error_class(Setting(L4, "vendor", "fp8")) == "quantised compiled"
    assert error_class(Setting(L4, "compile", network="vae")) == "decode"


def test_a_quantisation_that_nobody_measured_is_less_certain() -> None:
    card, known = find_hardware("rtx-5090"), shipped_efficiencies()
    fp8, fp4 = (known.log_sd(Setting(card, "compile", name, model="flux")) for name in ("fp8", "fp4"))
    assert "products fp4" not in known.terms
    assert fp4 == pytest.approx(math.hypot(fp8, prior("products fp4").sd / 2))


def test_the_less_was_measured_the_wider_the_interval() -> None:
    spread = Spread(
        seen=0.1, source=0.15, device=0.2, generation=0.3, model=0.25,
        sources=("theirs",), devices=(L4.name,), generations=("ada",), models=("sdxl",),
    )  # fmt: skip
    theirs = frozenset({host_of("theirs")})
    seen = spread.log_sd(Setting(L4, model="sdxl", details=theirs))
    device = spread.log_sd(Setting(find_hardware("l40"), model="sdxl", details=theirs))
    generation = spread.log_sd(Setting(find_hardware("b200"), model="sdxl"))
    neither = spread.log_sd(Setting(find_hardware("b200"), model="new"))
    assert (seen, device, generation) == (0.1, 0.2, 0.3)
    assert spread.log_sd(Setting(L4, model="sdxl")) == 0.15
    assert spread.log_sd(Setting(L4, model="new", details=theirs)) == pytest.approx(0.25)
    assert neither == pytest.approx(math.sqrt(0.3**2 + 0.25**2 - 0.1**2))


def test_tensor_cores_without_asynchronous_copies_have_what_is_known_of_each_other() -> None:
    known = Efficiencies(terms={"without asynchronous copies": -0.4}, spreads={}, misfit=0.1)
    for name, slower in (("t4", True), ("v100", True), ("l4", False)):
        setting = Setting(find_hardware(name), precision="float16")
        assert (known.rates(setting).products < NOTHING.rates(setting).products) == slower
        assert known.rates(setting).launch == NOTHING.rates(setting).launch


def test_kernels_start_as_fast_as_a_host_starts_them() -> None:
    known = Efficiencies(terms={host_of("theirs"): 0.5}, spreads={}, misfit=0.1)
    theirs = Setting(L4, details=frozenset({host_of("theirs")}))
    assert known.rates(theirs).launch == pytest.approx(math.exp(0.5) * known.rates(Setting(L4)).launch)
    assert known.rates(theirs).products == known.rates(Setting(L4)).products
