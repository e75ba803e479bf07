"""Mixed batches against the stock pipeline run alone: what every exact executor is tested with."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch

from backend.coroutine import pipeline_arguments
from backend.executor import Executor
from traces.request import Request


def latents_alone(pipeline: Any, request: Request) -> torch.Tensor:
    """Final latents of the stock pipeline, which knows nothing of us."""
    with torch.no_grad():
        output = pipeline(**{**pipeline_arguments(pipeline, request), "output_type": "latent"})
    latents = getattr(output, "images", None)
    return latents if latents is not None else output.frames


def sampled_alone(pipeline: Any, request: Request, **more: Any) -> torch.Tensor:
    """What the sampler of the stock pipeline makes last, before the pipeline gives it another form."""
    sampler, made = pipeline.scheduler, []
    stock = type(sampler).step

    @functools.wraps(stock)
    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = stock(self, *args, **kwargs)
        if self is sampler:
            made.append(result[0] if isinstance(result, tuple) else result.prev_sample)
        return result

    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(type(sampler), "step", step)
        pipeline(**{**pipeline_arguments(pipeline, request), "output_type": "latent", **more})
    return made[-1]


def latents_together(executor: Executor, requests: list[Request], pause: str = "") -> dict[str, torch.Tensor]:
    """Final latents of requests that join one by one, leave when they are done, and of which one pauses on the way.

    One denoising step a launch. The request called ``pause`` rests from its second to its fourth opportunity.
    """
    left = {r.request_id: r.steps for r in requests}
    arriving, joined = list(requests), []
    final: dict[str, torch.Tensor] = {}
    opportunities = 0
    while any(left.values()):
        if arriving:
            joined.append(arriving.pop(0))
            assert executor.execute("encode", [joined[-1]]).failed is None
        active = [r for r in joined if left[r.request_id]]
        if any(r.request_id == pause for r in active):
            opportunities += 1
            if 2 <= opportunities <= 4 and len(active) > 1:
                active = [r for r in active if r.request_id != pause]
        outcome = executor.execute("denoise", active, 1)
        assert outcome.failed is None, outcome.failed
        for request in active:
            left[request.request_id] -= 1
            if not left[request.request_id]:
                latents = executor.latents(request.request_id)
                assert latents is not None
                final[request.request_id] = latents.clone()
    for request in requests:
        executor.release(request.request_id)
    return final


def largest_difference(alone: dict[str, torch.Tensor], together: dict[str, torch.Tensor]) -> float:
    """Largest absolute difference of any latent, over the standard deviation of the latents."""
    assert alone.keys() == together.keys()
    worst = 0.0
    for name, expected in alone.items():
        assert together[name].dtype == expected.dtype
        assert together[name].shape == expected.shape
        difference = (together[name] - expected).abs().max() / expected.std()
        worst = max(worst, float(difference))
    return worst
