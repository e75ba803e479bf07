"""The catalogue of hardware kinds, and a user's own."""

from __future__ import annotations

from pathlib import Path

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
    assert {"a10g", "rtx-4090", "rtx-5090", "mi300x", "cpu-1core"} <= kinds.keys()
    for name, kind in kinds.items():
        assert kind.source
        assert kind.peak_flops(kind.dtype) >= kind.peak_flops("float32")
        if name != "cpu-1core":
            assert 1e13 < kind.peak_flops("bfloat16") < 1e16
            assert 1e10 < kind.link_bytes_per_s < kind.memory_bytes_per_s < 1e13
            assert 20e9 < kind.memory_bytes < 300e9
    assert len({kind.name for kind in kinds.values()}) == len(kinds)


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
    with pytest.raises(BadInput, match=r"AMD EPYC, 1 thread in bfloat16; known: float32"):
        find_hardware("cpu-1core").peak_flops("bfloat16")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (("memory_bytes = 24e9", "memory_bytes = -1"), "mine.memory_bytes: input should be greater than 0"),
        (("memory_bytes = 24e9", ""), "mine.memory_bytes: field required"),
        (("name =", "flops = 3\nname ="), "mine.flops: extra inputs are not permitted"),
        (("name =", 'dtype = "int8"\nname ='), "mine: dtype is 'int8', expected one of bfloat16, float16, float32"),
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
