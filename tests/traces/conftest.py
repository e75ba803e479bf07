"""Requests and traces that tests of traces are made of."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).parents[2] / "../shared/data"


@pytest.fixture
def shared_data() -> Path:
    """The folder of published data; the test is skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("published data not here")
    return SHARED
