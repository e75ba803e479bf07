"""Stages of one model: a denoising step, decoding, encoding."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from backend.decode import decode_by
from backend.kernels.choice import REFERENCE
from backend.merge import Mixer, Stacked
from benchmarks.gpu_suite.bench import Bench
from benchmarks.gpu_suite.models import Random, latent_shape, model_of, sizes_of
from benchmarks.gpu_suite.point import Point, Result
from benchmarks.gpu_suite.ways import (
    Denoiser,
    copy_of,
    relative_error,
    tflop_of,
    together,
    weighed,
    wrong,
)
from traces.errors import BadInput


@torch.no_grad()
def measure_step(point: Point, bench: Bench) -> Result:
    """One step of guided images: ``eager``, ``compiled``, ``graph`` (as the executor ``whole`` runs it), ``patched`` or
    ``packed``, or ``reference`` (the same with plain kernels).

    Raises:
        BadInput: no such way.
    """
    denoiser = Denoiser.of(point.name, bench)
    rounds = denoiser.rounds(point.composition)
    stock = together(denoiser.stock(), rounds)
    facts = {"rows": denoiser.rows(rounds), "tflop": denoiser.tflop(point.composition)}
    if point.way == "compiled":
        return _compiled(denoiser, rounds, bench) | facts
    if point.way == "eager":
        if not all(bool(output.isfinite().all()) for output in stock()):
            return {"failed": "the stock forward gives something that is not a number"}
        return denoiser.weighed(bench.timed(stock), None) | facts
    mixer = _mixer(denoiser, point.way)
    own = together(mixer, rounds)
    error = relative_error(denoiser.settled(own), stock())
    if (failed := wrong(point.way, error)) is not None:
        return failed
    return denoiser.weighed(bench.timed(own), mixer) | facts | {"error": error}


@torch.no_grad()
def measure_decode(point: Point, bench: Bench) -> Result:
    """Images or clips decoded one after another, as executors do: ``whole`` (in the decoder's own tiles where its
    pipeline needs them), ``patched``, ``tiled`` or ``blended``; see `backend.decode`.
    """
    stage = model_of(point.name, bench.smoke).stages["decode"]
    (vae,) = bench.networks(point.name, "decode")
    way = "blended" if point.way == "whole" and stage.tiles is not None else point.way
    pipeline = SimpleNamespace(vae=copy_of(vae, shares=True))
    decode_by(pipeline, way)
    given = Random(bench.device, bench.dtype)
    shapes = [latent_shape(point.name, size, "decode") for size in sizes_of(point.composition)]
    latents = [stage.call(0, vae, 1, shape, given).args[0] for shape in shapes]

    def decode() -> None:
        for latent in latents:
            pipeline.vae.decode(latent, return_dict=False)

    facts: Result = {"rows": len(latents), "tflop": None}
    if not bench.smoke:
        facts["tflop"] = tflop_of(point.name, "decode", point.composition)
    if way == "patched":
        ours, stock = (part.decode(latents[0], return_dict=False)[0] for part in (pipeline.vae, vae))
        facts["error"] = relative_error([ours], [stock])
        if (failed := wrong(way, facts["error"])) is not None:
            return failed
        del ours, stock
    return weighed(bench.timed(decode), [vae]) | facts


@torch.no_grad()
def measure_encode(point: Point, bench: Bench) -> Result:
    """The prompts of guided images, one after another, with and without the text, as pipelines encode them."""
    model = model_of(point.name, bench.smoke)
    stage, modules = model.stages["encode"], bench.networks(point.name, "encode")
    given = Random(bench.device, bench.dtype)
    prompts = model.guidance_rows * len(sizes_of(point.composition))
    calls = [
        (module, stage.call(index, module, 1, (1, 1, 1), given))
        for _ in range(prompts)
        for index, module in enumerate(modules)
    ]

    def encode() -> None:
        for module, call in calls:
            module(*call.args)

    facts: Result = {"rows": prompts, "tflop": None}
    if not bench.smoke:
        facts["tflop"] = tflop_of(point.name, "encode", point.composition)
    return weighed(bench.timed(encode), modules) | facts


def _mixer(denoiser: Denoiser, way: str) -> Mixer:
    mixing = "patched" if denoiser.is_unet else "packed"
    if way == "graph":
        return denoiser.whole()
    if way == mixing:
        return denoiser.mixed(denoiser.kernels)
    if way == "reference":
        return denoiser.mixed(REFERENCE)
    raise BadInput(
        f"the suite has no step of {denoiser.name} that is {way!r}; known: eager, compiled, graph, {mixing}, reference"
    )


def _compiled(denoiser: Denoiser, rounds: Any, bench: Bench) -> Result:
    """The blocks that repeat compiled, where the class names them; else the whole network."""
    module = copy_of(denoiser.module, shares=True)
    torch._dynamo.reset()
    how: dict[str, Any] = {"dynamic": False, "backend": "inductor" if bench.device.type == "cuda" else "eager"}
    blocks = getattr(module, "_repeated_blocks", None)
    if blocks:
        module.compile_repeated_blocks(**how)
    else:
        module.compile(**how)
    step = together(Stacked(module), rounds)
    result = denoiser.weighed(bench.timed(step), None)
    error = relative_error(step(), together(denoiser.stock(), rounds)())
    compiled = {"compiled": ", ".join(blocks) if blocks else "whole", "error": error}
    compiled["compile_s"] = result["first_s"] - result["seconds"]
    torch._dynamo.reset()
    return wrong("compiled", error) or result | compiled
