"""The ways to run one step of a denoiser: the stock forward, and what Tilecast runs in its place.

Before a way of ours is timed its output is compared with the stock forward's on the same inputs.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Hashable, Sequence
from types import SimpleNamespace
from typing import Any

import diffusers
import torch

from backend.coroutine import DenoiserCall
from backend.kernels.choice import Kernels
from backend.kernels.cuda_graphs import recorder_on
from backend.kernels.graphs import TRIALS, Recorder
from backend.merge import Mixer, Stacked
from backend.packed import Blocks
from backend.packed.cached_blocks import CachedBlocks
from backend.patched.unet import PatchedUNet
from benchmarks.gpu_suite.bench import Bench
from benchmarks.gpu_suite.models import Random, denoiser_calls, latent_shape, model_of, sizes_of
from benchmarks.gpu_suite.point import Result
from policies.caching import CachingPolicy
from predictors.shapes import shape_of
from traces.composition import Composition
from traces.geometry import geometry_of
from traces.stages import STAGES

Rounds = Sequence[Sequence[DenoiserCall]]
"""The calls of a step, one an image; the second round waits for the first."""
Step = Callable[[], list[torch.Tensor]]
"""Runs a step; the outputs of all calls."""

LONG_S = 0.3
"""A step that takes so long is not bound by starting its kernels: it is not waited for to be recorded."""
TOLERANCE = 6e-2
"""Of the root mean square of what the stock forward gives. In bfloat16, networks as deep as the real ones are 1 to 3 %
off float32, and two ways to run them up to 1.4 times that off each other; a wrong neighbour or row is far more."""


class Denoiser:
    """One model's denoiser on the bench's device.

    Attributes:
        name: of the model, and ``model`` what it is.
        module: its network, as diffusers made it. Nothing may change it.
        kernels: what the bench's choice means on its device.
        is_unet: images are mixed as patches; else as packed tokens.
    """

    def __init__(self, name: str, bench: Bench) -> None:
        self.name = name
        self.model = model_of(name, bench.smoke)
        (self.module,) = bench.networks(name, "denoise")
        self.kernels = bench.chosen
        self.is_unet = isinstance(self.module, diffusers.UNet2DConditionModel)
        self._bench = bench
        self._mixers: dict[Hashable, Any] = {}

    @staticmethod
    def of(name: str, bench: Bench) -> Denoiser:
        """The one that is kept on the bench, with the mixers that it has made, until another model's is asked for."""
        return bench.kept("denoiser", name, lambda: Denoiser(name, bench))

    def rounds(self, composition: Composition, seed: int = 0) -> Rounds:
        """Calls for guided images of these sizes, as the model's pipeline makes them, of random data."""
        shapes = [latent_shape(self.name, size, frame_patch=self.model.frame_patch) for size in sizes_of(composition)]
        return self.rounds_of(shapes, seed)

    def rounds_of(self, shapes: Sequence[tuple[int, int, int]], seed: int = 0) -> Rounds:
        """Calls for images of these latent shapes (frames, height, width)."""
        given = Random(self._bench.device, self._bench.dtype, seed)
        return denoiser_calls(self.name, self.model, self.module, shapes, given)

    def rows(self, rounds: Rounds) -> int:
        """Rows of a step: images, twice where they are guided by a second row."""
        return self.model.guidance_rows * len(rounds[0])

    def tflop(self, composition: Composition) -> float | None:
        """Of a step, by the counts in ``profiles/shapes.toml``; None for a narrow model."""
        return None if self._bench.smoke else tflop_of(self.name, "denoise", composition)

    def stock(self) -> Stacked:
        """The network's own forward; equal shapes can be stacked."""
        return Stacked(self.module.forward)

    def whole(self) -> Stacked:
        """What the executor ``whole`` runs: the same, recorded where the kernels say so. Nothing is recorded yet."""
        whole = self._once("whole", lambda: Stacked(self.module.forward, self._recorder(self.kernels)))
        whole.recorder.clear()
        return whole

    def mixed(self, kernels: Kernels) -> Blocks | PatchedUNet:
        """What the executor ``patched`` or ``packed`` runs. Nothing is recorded yet."""
        mixer = self._once(kernels, lambda: self._mixer(kernels, recorder=self._recorder(kernels)))
        mixer.recorder.clear()
        return mixer

    def cached(self, policy: CachingPolicy, cache_bytes: int) -> Blocks | PatchedUNet:
        """The same with a cache; a new one each time, and to be given up when it has been measured."""
        if not self.is_unet:
            return CachedBlocks(self.module, policy, cache_bytes, kernels=self.kernels)
        return self._mixer(self.kernels, caching=policy, cache_bytes=cache_bytes)

    def channels_last(self) -> Stacked:
        """The stock UNet with weights and images in the order that convolutions on tensor cores want."""
        return self._once("channels-last", self._channels_last)

    def settled(self, step: Step) -> list[torch.Tensor]:
        """The outputs of a step, which has run as often as it takes to be recorded, if it ever is."""
        outputs = step()
        for _ in range(TRIALS if self.kernels.graphs else 0):
            started = time.perf_counter()
            outputs = step()
            torch.cuda.synchronize(self._bench.device)
            if time.perf_counter() - started > LONG_S:
                break
        return outputs

    def weighed(self, result: Result, mixer: Mixer | None) -> Result:
        """With this network's weights and the mixer's recordings in ``peak_bytes`` instead of all that lies on the
        device; ``recorded`` says how many recordings there are, and why there are no others."""
        recorder: Recorder | None = getattr(mixer, "recorder", None)
        held = 0 if recorder is None else recorder.held_bytes
        result = weighed(result, [self.module], held)
        if recorder is None or not (recorder.recorded or recorder.eager):
            return result
        return result | {"recorded": recorder.recorded, "not_recorded": dict(recorder.eager)}

    def _once(self, key: Hashable, make: Callable[[], Any]) -> Any:
        if key not in self._mixers:
            self._mixers[key] = make()
        return self._mixers[key]

    def _mixer(self, kernels: Kernels, **more: Any) -> Blocks | PatchedUNet:
        if not self.is_unet:
            return Blocks(self.module, kernels=kernels, **more)
        reorders = kernels.fused and "caching" not in more  # fused kernels put the weights into another order
        pipeline = SimpleNamespace(unet=copy_of(self.module, shares=not reorders))
        return PatchedUNet(pipeline, floor=1, kernels=kernels, **more)

    def _channels_last(self) -> Stacked:
        module = copy_of(self.module, shares=False).to(memory_format=torch.channels_last)

        def forward(sample: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            return module(sample.contiguous(memory_format=torch.channels_last), *args, **kwargs)

        return Stacked(forward)

    def _recorder(self, kernels: Kernels) -> Recorder:
        return recorder_on(self._bench.device) if kernels.graphs else Recorder()


def together(mixer: Mixer, rounds: Rounds) -> Step:
    """A step in as few forwards as the mixer's keys allow. What fails, fails: nothing is tried again in smaller parts,
    as serving does."""

    def run() -> list[torch.Tensor]:
        outputs = []
        for calls in rounds:
            groups: dict[Hashable, list[int]] = {}
            for index, call in enumerate(calls):
                groups.setdefault(mixer.key(call), []).append(index)
            of_round: list[Any] = [None] * len(calls)
            for indices in groups.values():
                for index, (output,) in zip(indices, mixer.run([calls[i] for i in indices]), strict=True):
                    of_round[index] = output
            outputs += of_round
        return outputs

    return run


def one_by_one(mixer: Mixer, rounds: Rounds) -> Step:
    """A step in one forward a call."""
    return lambda: [mixer.run([call])[0][0] for calls in rounds for call in calls]


def relative_error(given: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> float:
    """The largest root mean square difference of any output, relative to that of what is expected; NaN counts."""
    errors = []
    for ours, stock in zip(given, expected, strict=True):
        scale = stock.float().square().mean().sqrt()
        errors.append(float((ours.float() - stock.float()).square().mean().sqrt() / scale))
    return max(errors, key=lambda error: (error != error, error))


def wrong(way: str, error: float) -> Result | None:
    """The result of a point whose way is not what the stock forward gives; None: it is."""
    if error <= TOLERANCE:
        return None
    return {"failed": f"{way} differs from the stock path by {error:.2g} of its level, expected {TOLERANCE:g}"}


def copy_of(module: Any, shares: bool) -> Any:
    """Another network of the same weights; ``shares``: of the same memory."""
    memo = {}
    if shares:
        memo = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    return copy.deepcopy(module, memo)


def weighed(result: Result, modules: Sequence[Any], held_bytes: int = 0) -> Result:
    """With the weights of these networks in ``peak_bytes`` instead of all that lies on the device."""
    if result["activation_bytes"] is None:
        return result
    weights = sum(tensor.nbytes for module in modules for tensor in module.parameters())
    return result | {"peak_bytes": result["activation_bytes"] + weights + held_bytes}


def tflop_of(name: str, stage: str, composition: Composition) -> float:
    """Of one forward (denoise: a guided step) of a real model, by the counts in ``profiles/shapes.toml``."""
    shape, geometry = shape_of(name), geometry_of(name)
    rows = shape.guidance_rows if STAGES[stage].guided else 1
    flops = 0.0
    for size, images in composition:
        flops += images * rows * shape.stage(stage).flops.at(*shape.tokens(stage, geometry, size))
    return flops / 1e12
