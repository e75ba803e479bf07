"""What tests of several folders share: a small pipeline on disk, and a cache folder that is not the user's."""

from __future__ import annotations

import functools
import gc
import importlib.util
import os
import sys
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import typer.main
from hypothesis import HealthCheck, settings

from tests.examples_tried import examples

if TYPE_CHECKING:
    from tests.nursery import Nursery

# how long an example takes says nothing on a noisy machine
_PROFILE: dict[str, Any] = {
    "max_examples": examples(20),
    "deadline": None,
    "suppress_health_check": [HealthCheck.too_slow],
}
settings.register_profile("noisy machine", **_PROFILE)
settings.load_profile("noisy machine")

if importlib.util.find_spec("torch"):
    import torch

    if not torch.cuda.is_available():
        os.environ.setdefault("TRITON_INTERPRET", "1")  # before any Triton kernel is defined: they run on the CPU then


_nurseries: list[Nursery] = []


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What tests and libraries leave in memory for good is not looked through for garbage: millions of objects."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()
        if "backend.executor" in sys.modules and sys.platform == "linux":
            from tests.nursery import Nursery

            _nurseries.append(Nursery())  # while no test has run, and there are no threads of libraries


@pytest.fixture(scope="session", autouse=True)
def _cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base  # a fit is made once for all workers
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(shared / "cache"))
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _children_forked() -> Iterator[None]:
    """Ranks and replicas need not import everything anew: see `tests.nursery`."""
    with ExitStack() as stack:
        for nursery in _nurseries:
            from tests.nursery import forked

            stack.callback(nursery.close)
            stack.enter_context(forked(nursery))
        yield


@pytest.fixture(scope="session")
def nursery() -> Nursery:
    """What forks commands that begin with everything imported."""
    if not _nurseries:
        pytest.skip("nothing is forked here")
    return _nurseries[0]


@pytest.fixture(scope="session", autouse=True)
def _commands_built_once() -> Iterator[None]:
    """typer builds all commands anew in every call, as if each had a process of its own: a third of a short test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typer.main, "get_command", functools.cache(typer.main.get_command))
        yield


@pytest.fixture
def loads_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A profile's seconds of loads are made up: to measure them takes longer than all the rest of a small model's."""
    from predictors.loading import LoadRate, LoadRates

    monkeypatch.setattr("backend.profiling.load_rates", lambda *_: LoadRates(LoadRate(1.0), LoadRate(1.0)))


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SDXL-class pipeline with random weights in diffusers' folder layout."""
    pytest.importorskip("torch")
    from tests.backend import tiny_pipelines

    folder = tmp_path_factory.mktemp("models") / "tiny-sdxl"
    tiny_pipelines.sdxl().save_pretrained(folder)
    return folder
