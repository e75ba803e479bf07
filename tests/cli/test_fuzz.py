"""Hostile values of every scenario key, request field and option end with 0, 2 or 3, one line and nothing half-written.

One round tries each of them once. ``TILECAST_FUZZ=10000`` tries as many values, which takes about ten minutes;
``TILECAST_FUZZ_SEED`` others.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path

import pytest

from tests.cli.fuzzing import BASES, COMMANDS, ROUND, Case, cases, tried

CASES = int(os.environ.get("TILECAST_FUZZ", ROUND))
SEED = os.environ.get("TILECAST_FUZZ_SEED", "0")
PARTS = 16  # for as many processes


@functools.cache
def drawn() -> list[Case]:
    """All of them: what one is depends on those before it."""
    return list(cases(CASES, SEED))


@pytest.mark.parametrize("part", range(PARTS))
def test_whatever_is_given_a_command_ends_as_it_should(part: int, tmp_path: Path) -> None:
    assert list(tried(drawn()[part::PARTS], tmp_path)) == []


def test_every_command_is_tried() -> None:
    assert set(BASES) == set(COMMANDS)
