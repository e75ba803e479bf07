"""The catalogue of hardware kinds, and a user's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from predictors.hardware import find_hardware, load_hardware, shipped_hardware
from traces.errors import BadInput

MINE = """
[mine]
name = "My GPU"
bfloat16_flops = 100e12
memory_bytes = 24e9
memory_bytes_per_s = 500e9
link_bytes_per_s = 32e9
source = "measured here"
"""


def test_what_ships_has_sources_and_sane_figures() -> None:
    kinds = shipped_hardware()
    assert {"h100-sxm", "h100-pcie", "h200-sxm", "b200", "a100-40gb", "a100-80gb", "l40s", "l4"} <= kinds.keys()
    assert {"a10g", "rtx-4090", "rtx-5090", "mi300x", "v100", "t4", "cpu-1core"} <= kinds.keys()
    for name, kind in kinds.items():
        assert kind.source
        assert kind.peak_flops(kind.dtype) >= kind.peak_flops("float32")
        if name != "cpu-1core":
            assert 1e13 < kind.peak_flops("float16") < 1e16
            assert 1e10 < kind.link_bytes_per_s < kind.memory_bytes_per_s < 1e13
            assert 8e9 <= kind.memory_bytes < 300e9
    assert len({kind.name for kind in kinds.values()}) == len(kinds)


@pytest.mark.parametrize("name", sorted(set(shipped_hardware()) - {"cpu-1core"}))
def test_a_data_sheet_agrees_with_itself(name: str) -> None:
    """Figures copied wrongly break a ratio: between precisions, or of rates to multiprocessors and clock."""
    kind = shipped_hardware()[name]
    assert None not in (kind.watts, kind.multiprocessors, kind.devices_per_node)
    assert kind.generation
    assert kind.float16_flops is not None
    assert kind.multiprocessors is not None
    half = kind.float16_flops
    assert kind.bfloat16_flops in (half, None)
    geforce = kind.float16_accumulate_flops is not None
    times = {"float16_accumulate": 2, "tf32": 0.5, "int8": 4 if geforce and name != "a10g" else 2, "fp8": 2}
    for dtype, ratio in times.items():
        rate = getattr(kind, f"{dtype}_flops")
        assert rate is None or rate / half == pytest.approx(ratio, rel=0.02), dtype
    if kind.fp4_flops is not None and kind.fp8_flops is not None:
        assert kind.fp4_flops / kind.fp8_flops == pytest.approx({"b300": 2.92}.get(name, 4 if geforce else 2), rel=0.02)
    assert kind.float32_flops is not None
    lanes = 64 if kind.generation in ("volta", "turing", "ampere") else 128
    hertz = kind.float32_flops / (2 * lanes * kind.multiprocessors)
    assert 0.7e9 < hertz < 2.7e9
    power_of_two = np.log2(half / (2 * hertz * kind.multiprocessors))
    if name not in ("h20", "b200", "b300", "gb200"):  # rates cut for export; clocks that are not stated
        assert power_of_two == pytest.approx(round(power_of_two), abs=0.21)


def test_precisions_are_what_a_device_computes_in() -> None:
    assert {"tf32", "int8", "int8-weights", "int4-weights"} <= set(find_hardware("a100-80gb").precisions)
    assert not {"fp8", "fp4"} & set(find_hardware("a100-80gb").precisions)
    assert "fp8" in find_hardware("h100-sxm").precisions
    assert "fp4" in find_hardware("b200").precisions
    assert "bfloat16" not in find_hardware("v100").precisions
    assert find_hardware("cpu-1core").precisions == ("float32",)
    with pytest.raises(BadInput, match=r"NVIDIA A100 SXM 80GB cannot run 'fp8', expected one of bfloat16, float16, "):
        find_hardware("a100-80gb").check("fp8")


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(MINE)
    (tmp_path / "two.toml").write_text(MINE + MINE.replace("[mine]", "[other]").replace("My GPU", "Other GPU"))
    assert find_hardware("mine.toml", tmp_path).name == "My GPU"
    assert find_hardware("two.toml:other", tmp_path).name == "Other GPU"
    with pytest.raises(BadInput, match=r"two.toml has 2 kinds; expected one of them, like two.toml:mine"):
        find_hardware("two.toml", tmp_path)
    with pytest.raises(BadInput, match=r"unknown hardware in two.toml: 'third'"):
        find_hardware("two.toml:third", tmp_path)


def test_an_unknown_kind_is_named_with_the_nearest() -> None:
    with pytest.raises(BadInput, match=r"unknown hardware 'h100sxm'; did you mean 'h100-sxm'\?"):
        find_hardware("h100sxm")
    with pytest.raises(BadInput, match="known: h100-sxm, "):
        find_hardware("abacus")


def test_a_type_without_a_rate_is_named() -> None:
    with pytest.raises(BadInput, match=r"AMD EPYC, 1 thread cannot run 'bfloat16', expected one of float32"):
        find_hardware("cpu-1core").peak_flops("bfloat16")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (("memory_bytes = 24e9", "memory_bytes = -1"), "mine.memory_bytes: input should be greater than 0"),
        (("memory_bytes = 24e9", ""), "mine.memory_bytes: field required"),
        (("name =", "flops = 3\nname ="), "mine.flops: extra inputs are not permitted"),
        (
            ("name =", 'dtype = "int9"\nname ='),
            "mine: dtype is 'int9', expected one of bfloat16, float16, float32, ",
        ),
        (("name =", 'dtype = "int8"\nname ='), "mine: expected int8_flops beside dtype = 'int8'"),
        (("name =", 'dtype = "float16"\nname ='), "mine: expected float16_flops beside dtype = 'float16'"),
        (("[mine]", "[mine"), "is not TOML"),
        ((MINE, ""), "the file is empty"),
    ],
)
def test_a_wrong_file_is_refused_with_its_field(tmp_path: Path, change: tuple[str, str], problem: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(MINE.replace(*change))
    with pytest.raises(BadInput) as refused:
        load_hardware(path)
    assert problem in str(refused.value)
    assert str(path) in str(refused.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"none\.toml: cannot be read"):
        load_hardware(tmp_path / "none.toml")
