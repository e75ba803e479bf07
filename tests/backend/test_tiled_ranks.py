"""Tiled requests on several ranks, which are real processes: the same bits on any number, and what a loss leaves."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from backend.executor import Executor  # noqa: E402
from backend.loading import load_pipeline  # noqa: E402
from policies.caching import RegionAware, Threshold  # noqa: E402
from policies.placement import CacheGuided, Contiguous, RoundRobinTiles  # noqa: E402
from tests.backend import tiny_pipelines  # noqa: E402
from tests.backend.tiled_runs import decoded, executor_of, refine, retile, rule_of, upscaled  # noqa: E402
from traces.request import Request  # noqa: E402

torch.set_num_threads(1)

IMAGE = [
    Request("a", 0.0, 160, 192, 4, prompt="a red circle left of a blue square on white", seed=1, guidance_scale=3.0),
    Request("b", 0.0, 128, 160, 4, prompt="a green triangle on black", seed=2, guidance_scale=1.0),
]
VIDEO = [
    Request("a", 0.0, 64, 80, 6, 5, prompt="a cat", seed=1),
    Request("b", 0.0, 48, 64, 6, 5, prompt="two dogs", seed=2, guidance_scale=1.0),
]
Way = tuple[dict[str, Any], dict[str, Any]]
GUIDED = {"placement": CacheGuided()}
OF_IMAGES: list[Way] = [
    ({"mode": "wrap"}, {"caching": RegionAware(3.0, warmup=1, refresh=2), **GUIDED}),
    ({"mode": "clamp", "overlap": 16}, {"caching": Threshold(0.3, warmup=1), **GUIDED}),
]
OF_VIDEO: list[Way] = [
    ({"mode": "wrap"}, {"placement": RoundRobinTiles()}),
    ({"mode": "wrap", "overlap": 16}, {"caching": Threshold(0.05, warmup=1, max_reuse=1), **GUIDED}),
    ({"mode": "clamp"}, {"caching": RegionAware(1.5, warmup=1), "reuse": "residual", **GUIDED}),
]


@contextmanager
def executor_on(ranks: int, model: str, native: tuple[int, int], timeout_s: float = 60.0) -> Iterator[Executor]:
    executor = executor_of(load_pipeline(model), native, devices=ranks, model=model, timeout_s=timeout_s)
    try:
        yield executor
    finally:
        executor.close()


def pictures(executor: Executor, requests: list[Request], way: Way, native: tuple[int, int]) -> dict[str, Any]:
    """Each request's pixels, and how many tiles were computed and reused, all requests side by side."""
    rule, tiling = way
    retile(executor, rule=rule_of(executor.pipeline, native, refine=0.9, **rule), **{**DEFAULTS, **tiling})
    upscaled(executor, *requests)
    outcome = executor.execute("refine", requests, executor.recipe(requests[0])[-2][1])
    assert outcome.failed is None, outcome.failed
    return {**decoded(executor, *requests), "tiles": (outcome.computed, outcome.reused)}


DEFAULTS = {"caching": None, "reuse": "output", "placement": Contiguous()}


def same(one: Executor, several: Executor, requests: list[Request], native: tuple[int, int], ways: list[Way]) -> None:
    for way in ways:
        expected, found = (pictures(executor, requests, way, native) for executor in (one, several))
        assert found["tiles"] == expected["tiles"]
        assert (found["tiles"][1] > 0) == ("caching" in way[1])
        for request in requests:
            np.testing.assert_array_equal(found[request.request_id], expected[request.request_id])
    group: Any = several.tiles._group  # type: ignore[union-attr]
    assert group.traffic.sent_bytes > 0


def test_an_image_model_makes_the_same_picture_on_three_ranks() -> None:
    native = (128, 128)
    with executor_on(1, "tiny-image", native) as one, executor_on(3, "tiny-image", native) as three:
        same(one, three, IMAGE, native, OF_IMAGES)
        assert three.tiles._group.size == 3  # type: ignore[union-attr]


@pytest.fixture(scope="module")
def wan(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("models") / "tiny-wan"
    tiny_pipelines.wan().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def one_and_two(wan: str) -> Iterator[tuple[Executor, Executor]]:
    """A video model on one rank and on two."""
    with executor_on(1, wan, (32, 32)) as one, executor_on(2, wan, (32, 32)) as two:
        yield one, two


def test_a_video_model_makes_the_same_clip_on_two_ranks(one_and_two: tuple[Executor, Executor]) -> None:
    one, two = one_and_two
    same(one, two, VIDEO, (32, 32), OF_VIDEO)
    assert two.tiles._group.size == 2  # type: ignore[union-attr]


def test_a_saved_request_goes_on_on_another_number_of_ranks(
    one_and_two: tuple[Executor, Executor], tmp_path: Path
) -> None:
    request, caching = VIDEO[0], RegionAware(1.5, warmup=1, refresh=2)
    one, two = one_and_two
    for executor in (one, two):
        rule = rule_of(executor.pipeline, (32, 32), mode="clamp")
        retile(executor, **{**DEFAULTS, "rule": rule, "caching": caching, "placement": CacheGuided()})
        upscaled(executor, request)
        refine(executor, request, steps=3)
        executor.save("a", tmp_path / str(executor is two))
    outcome = one.execute("refine", [request], 2)
    assert outcome.reused > 0
    expected = decoded(one, request)["a"]
    two.release("a")
    for executor in (one, two):
        executor.resume(tmp_path / str(executor is one))  # the other's
        refine(executor, request, steps=2)
        np.testing.assert_array_equal(decoded(executor, request)["a"], expected)


def lose(executor: Executor, how: signal.Signals) -> int:
    """Kill or stop the only other rank; its process id."""
    (child,) = executor.workers.processes.values()
    group: Any = executor.workers.group
    group.timeout_s = group._heartbeat.timeout_s = 1.0  # there is nothing to wait for any more
    os.kill(child, how)
    return int(child)


def alive(process: int) -> bool:
    return Path(f"/proc/{process}").exists()


def test_a_lost_rank_fails_what_it_held_and_nothing_else(one_and_two: tuple[Executor, Executor]) -> None:
    """The last test of these ranks."""
    refining, waiting = VIDEO
    sketching = Request("c", 0.0, 48, 64, 4, 5, prompt="a bird", seed=4)
    executor = one_and_two[1]
    retile(executor, **DEFAULTS, rule=rule_of(executor.pipeline, (32, 32)))
    upscaled(executor, refining, waiting)
    assert executor.execute("encode", [sketching]).failed is None
    refine(executor, refining, steps=1)
    killed = lose(executor, signal.SIGKILL)
    assert failure(executor, refining) == "RankLost: rank 1 died (killed by signal 9)"
    assert not alive(killed)
    assert failure(executor, waiting) == "RankLost: a part of request 'b' was lost with a rank of its replica"
    assert executor.resident == ["c"]
    for stage, steps in executor.recipe(sketching)[1:-2]:  # its sketch lies here: it needs not begin anew
        assert executor.execute(stage, [sketching], steps).failed is None
    refine(executor, sketching, steps=1)  # on a new rank
    stopped = lose(executor, signal.SIGSTOP)
    assert failure(executor, sketching).startswith("RankLost: rank 1 ")
    assert not alive(stopped)
    assert executor.resident == []
    upscaled(executor, waiting)
    refine(executor, waiting)
    assert decoded(executor, waiting)["b"].shape == (1, 5, 48, 64, 3)
    last = lose(executor, signal.SIGSTOP)  # nothing is under way
    executor.close()
    assert not alive(last)


def failure(executor: Executor, request: Request) -> str:
    """Why a request fails in its next refinement step."""
    outcome = executor.execute("refine", [request], 1)
    assert outcome.failed is not None
    return outcome.failed[request.request_id]
