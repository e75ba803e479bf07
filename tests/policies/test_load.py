"""Policies by name."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from policies.caching import ComputeAll
from policies.contract import PolicyError
from policies.load import load_policy
from policies.placement import Contiguous, TileWork
from policies.scheduling import SCHEDULERS, LeastSlack
from traces.errors import BadInput


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_shipped_scheduler_loads_by_its_name(name: str) -> None:
    assert type(load_policy("scheduling", name)) is SCHEDULERS[name]


def test_parameters_reach_the_policy() -> None:
    policy = load_policy("scheduling", "least-slack", {"max_batch": 3, "drop_late": True})
    assert isinstance(policy, LeastSlack)
    assert (policy.max_batch, policy.drop_late) == (3, True)


def test_a_user_class_loads_from_its_file(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from policies.scheduling import FCFS\nclass Mine(FCFS):\n    def __init__(self, depth=1): self.depth = depth\n"
    )
    policy = load_policy("scheduling", "mine.py:Mine", {"depth": 4}, base=tmp_path)
    assert (type(policy).__name__, policy.depth) == ("Mine", 4)


def test_a_file_that_has_just_been_written_anew_is_read_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python keeps bytecode by the second and the length of a text."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    for depth in range(3):
        file = tmp_path / "mine.py"
        file.write_text(f"from policies.scheduling import FCFS\nclass Mine(FCFS):\n    depth = {depth}\n")
        os.utime(file, (1e9, 1e9))
        assert load_policy("scheduling", "mine.py:Mine", base=tmp_path).depth == depth
    assert [each.name for each in tmp_path.iterdir()] == ["mine.py"]


@pytest.mark.parametrize(
    ("name", "parameters", "complaint"),
    [
        ("least-slak", {}, "did you mean 'least-slack'"),
        ("fcfs", {"max_batch": 2}, "has no parameter 'max_batch'"),
        ("nowhere.py:Mine", {}, "there is no file"),
        ("broken.py:Mine", {}, "the file raised ZeroDivisionError at"),
        ("empty.py:Mine", {}, "has no class 'Mine'"),
    ],
)
def test_what_cannot_be_loaded_is_said_in_one_line(
    tmp_path: Path, name: str, parameters: dict[str, int], complaint: str
) -> None:
    (tmp_path / "broken.py").write_text("1 / 0\n")
    (tmp_path / "empty.py").write_text("")
    with pytest.raises((BadInput, PolicyError), match=complaint) as caught:
        load_policy("scheduling", name, parameters, base=tmp_path)
    assert "\n" not in str(caught.value)


def test_the_other_kinds_load_too() -> None:
    cache = load_policy("caching", "none")
    assert isinstance(cache, ComputeAll)
    placement = load_policy("placement", "contiguous")
    assert isinstance(placement, Contiguous)
    tiles = [TileWork(i, 1.0, -1) for i in range(9)]
    assert placement.assign(tiles, 4) == [0, 0, 0, 1, 1, 2, 2, 3, 3]
