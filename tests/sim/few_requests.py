"""The check of policies, in runs of fewer requests: what ships is checked by many tests."""

from __future__ import annotations

import pytest

from sim.check_worlds import CheckedWorld


def fewer_requests(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """Have no world of `sim.check` more requests than ``most``."""
    requests = CheckedWorld.requests
    monkeypatch.setattr(CheckedWorld, "requests", lambda world, seed, count: requests(world, seed, min(count, most)))
