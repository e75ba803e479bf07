"""Pipelines of replicas that serve some stages, and a request that goes from one to the next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from backend.executor import Executor
from backend.handover.absent import absent, at_once, without_weights
from backend.loading import denoiser_names
from traces.request import Request

APART = (("encode",), ("denoise",), ("decode",))


def for_stages(pipeline: Any, stages: Sequence[str]) -> Any:
    """The same pipeline without the weights that other stages need, as `backend.loading.load_pipeline` makes it."""
    denoisers = denoiser_names(pipeline)
    for name, part in list(pipeline.components.items()):
        if isinstance(part, torch.nn.Module) and not at_once(name, type(part), name in denoisers, stages):
            load = None if name in denoisers else lambda part=part: part
            setattr(pipeline, name, absent(without_weights(part), torch.device("cpu"), load))
    return pipeline


def passed_on(
    executors: Sequence[Executor], requests: Sequence[Request], deliver: Callable[[Request, Any], None]
) -> list[int]:
    """Requests go through all stages together, each on the executor that serves it; bytes handed over."""
    (request, *_), here, sizes = requests, None, []
    handed: dict[str, bytes] = {}
    for stage, steps in executors[0].recipe(request):
        there = next(each for each in executors if each.stages is None or stage in each.stages)
        if there is not here and here is not None:
            assert not here.resident
            for each in requests:
                there.take(each, handed[each.request_id])
                sizes.append(len(handed[each.request_id]))
        outcome = there.execute(stage, requests, steps, deliver=deliver)
        assert outcome.failed is None, outcome.failed
        handed, there.handed = there.handed, {}
        here = there
    return sizes


def pictures(executors: Sequence[Executor], requests: Sequence[Request]) -> dict[str, np.ndarray[Any, Any]]:
    """What requests come to."""
    made: dict[str, np.ndarray[Any, Any]] = {}
    passed_on(executors, requests, lambda request, pixels: made.update({request.request_id: pixels}))
    return made
