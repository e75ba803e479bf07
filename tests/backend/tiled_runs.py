"""Tiled requests on small random pipelines, walked through their stages."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from backend.executor import Executor
from backend.loading import geometry_of_pipeline
from backend.tiled.execution import Tiling
from policies.tiling.recipe import TilingRule
from traces.request import Request

Rule = dict[str, Any]


def rule_of(pipeline: Any, native: tuple[int, int], **options: Any) -> TilingRule:
    """A rule for a pipeline as if it had been trained at ``native`` pixels."""
    geometry = geometry_of_pipeline(pipeline, "tiny")
    multiple = max(8, geometry.size_multiple)  # all stock pipelines want that
    return TilingRule(replace(geometry, native_size=native, size_multiple=multiple), **options)


def executor_of(pipeline: Any, native: tuple[int, int], rule: Rule | None = None, **tiling: Any) -> Executor:
    """An executor that tiles what is larger than ``native``."""
    return Executor(pipeline, tiling=Tiling(rule_of(pipeline, native, **(rule or {})), **tiling))


def upscaled(executor: Executor, *requests: Request) -> None:
    """Walk requests to their first refinement step."""
    for request in requests:
        for stage, steps in executor.recipe(request)[:-2]:
            outcome = executor.execute(stage, [request], steps)
            assert outcome.failed is None, outcome.failed


def refine(executor: Executor, *requests: Request, steps: int | None = None) -> dict[str, torch.Tensor]:
    """Refine requests together to their end, or so many steps; their latents, all gathered here."""
    left = executor.recipe(requests[0])[-2][1] if steps is None else steps
    outcome = executor.execute("refine", list(requests), left)
    assert outcome.failed is None, outcome.failed
    assert outcome.steps_done == left
    return {request.request_id: latents_of(executor, request.request_id) for request in requests}


def latents_of(executor: Executor, request_id: str) -> torch.Tensor:
    """The latents of a request in refinement, all of them."""
    assert executor.tiles is not None
    run: Any = executor._runs[request_id]
    if run.group.size > 1:
        executor.tiles.gather(run)
    found = executor.latents(request_id)
    assert found is not None
    return found.clone()


def decoded(executor: Executor, *requests: Request) -> dict[str, np.ndarray[Any, Any]]:
    """Decode requests; their pixels."""
    pixels: dict[str, np.ndarray[Any, Any]] = {}
    outcome = executor.execute("decode", list(requests), deliver=lambda r, p: pixels.update({r.request_id: p}))
    assert outcome.failed is None, outcome.failed
    return pixels


def made(executor: Executor, *requests: Request) -> dict[str, np.ndarray[Any, Any]]:
    """The pixels of requests, one after another from the first stage to the last."""
    pixels: dict[str, np.ndarray[Any, Any]] = {}
    for request in requests:
        upscaled(executor, request)
        refine(executor, request)
        pixels |= decoded(executor, request)
    return pixels


def retile(executor: Executor, **changes: Any) -> None:
    """Tile otherwise from now on, with the ranks that run already. No tiled request may be under way."""
    assert executor.tiles is not None
    executor.tiles = executor.tiles.otherwise(replace(executor.tiles.tiling, **changes))
