"""One replica of the suite's replay: what it serves, its model, SDXL's of random weights, and its executor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Any

import diffusers
from transformers import PreTrainedTokenizerFast

from backend.executor import Executor
from backend.folder import EMBEDDED
from backend.loading import load_pipeline
from backend.profiling import measure
from backend.warming import warm_up
from benchmarks.gpu_suite.bench import Bench
from benchmarks.gpu_suite.models import build, model_of
from policies.contract import Outcome
from predictors.profile import Profile
from traces.composition import Composition, composition_of
from traces.errors import BadInput
from traces.geometry import geometry_of
from traces.mix import Mix
from traces.request import Request, Size
from traces.sizes import parse_sizes

CLIP_TOKENS = 77
_ROUNDS = 6


@dataclass(frozen=True, slots=True)
class Trial:
    """What is served.

    Attributes:
        model: `traces.geometry` knows it.
        sizes: that are asked for, and how often.
        steps: denoising steps of a request.
        max_batch: images in the largest batch, profiled and run.
        profile_s: when measuring stops, though not before every batch was measured once.
        span_s: from the first arrival to the last, at most.
        requests: at most.
        slo_scale: deadlines, times the seconds of a request alone.
        patch_floor: see `Executor`.
        seeds: simulations.
    """

    model: str
    sizes: Mix[Size]
    steps: int
    max_batch: int
    profile_s: float
    span_s: float
    requests: int
    slo_scale: float
    patch_floor: int | None = None
    seeds: int = 20

    @property
    def batches(self) -> list[Composition]:
        """Every batch of at most so many images, small ones first."""
        return [
            composition_of((size, 1) for size in drawn)
            for images in range(1, self.max_batch + 1)
            for drawn in combinations_with_replacement(sorted(self.sizes.values), images)
        ]


TRIALS = {
    "sdxl": Trial(
        "sdxl", parse_sizes("512x512:1,768x768:1,1024x1024:1"), 10, 3,
        profile_s=25.0, span_s=28.0, requests=500, slo_scale=5.0,
    ),
    "tiny-image": Trial(
        "tiny-image", parse_sizes("64x64:1,96x96:1"), 3, 2,
        profile_s=1.0, span_s=100.0, requests=8, slo_scale=1e4, patch_floor=4, seeds=3,
    ),
}  # fmt: skip
"""By the model: the real one, and one for smoke runs."""


def sdxl_pipeline(clip_l: Any, clip_g: Any, unet: Any, vae: Any) -> Any:
    """The stock pipeline around these networks, with the words of `tiny-image` and prompts as long as CLIP's.

    Raises:
        BadInput: the text encoders know fewer words.
    """
    words = PreTrainedTokenizerFast.from_pretrained(
        str(EMBEDDED / "tiny-image" / "tokenizer_2"), model_max_length=CLIP_TOKENS, local_files_only=True
    )
    least = min(clip_l.config.vocab_size, clip_g.config.vocab_size)
    if len(words) > least:
        raise BadInput(f"a text encoder knows {least} tokens, expected at least {len(words)}")
    noise = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    pipeline = diffusers.StableDiffusionXLPipeline(
        vae=vae, text_encoder=clip_l, text_encoder_2=clip_g, tokenizer=words, tokenizer_2=words, unet=unet,
        scheduler=diffusers.EulerDiscreteScheduler(**noise, steps_offset=1, timestep_spacing="leading"),
        add_watermarker=False,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


class Served:
    """A replica of a trial's model: its executor, all of whose work is done on one thread; to `Replay`, the executor.

    PyTorch keeps what it has chosen for a convolution by thread. A thread that meets a batch for the first time spends
    longer on it, however often the thread that measured the profile has met it.

    Args:
        trial: what is served.
        mode: of the executor.
        bench: where.
    """

    def __init__(self, trial: Trial, mode: str, bench: Bench) -> None:
        self.handed: dict[str, bytes] = {}
        self.trial, self.mode, self.bench = trial, mode, bench
        self.dtype = str(bench.dtype).removeprefix("torch.")
        self._executor = Executor(self._pipeline(), mode, patch_floor=trial.patch_floor, kernels=bench.kernels)
        self._thread = ThreadPoolExecutor(1)
        self._ending = False

    def _pipeline(self) -> Any:
        model, bench = self.trial.model, self.bench
        if model == "tiny-image":
            return load_pipeline(model, str(bench.device), self.dtype)
        stages = model_of(model, narrow=False).stages
        encoders, unet, vae = (build(stages[s], bench.device, bench.dtype) for s in ("encode", "denoise", "decode"))
        return sdxl_pipeline(*encoders, *unet, *vae)

    def profile(self) -> Profile:
        """Every batch of the trial, measured."""
        minutes = self.trial.profile_s / 60
        geometry, plan = geometry_of(self.trial.model), self.trial.batches
        return self._on_thread(
            measure, self._executor, geometry, plan, self.dtype, _ROUNDS, minutes, progress=self._go_on
        )

    def warm_up(self, requests: Sequence[Request]) -> None:
        """See `backend.replay.warm_up`."""
        self._on_thread(warm_up, [self._executor], requests)

    hub = None
    """Launches run one after another."""

    def execute(self, *given: Any) -> Outcome:
        """See `Executor.execute`."""
        return self._on_thread(self._executor.execute, *given)

    def take(self, request: Request, handed: bytes) -> None:
        """See `backend.executor.Executor.take`."""
        self._on_thread(self._executor.take, request, handed)

    def keep_only(self, request_ids: set[str]) -> None:
        """See `Executor.keep_only`."""
        self._on_thread(self._executor.keep_only, request_ids)

    def close(self) -> None:
        """See `Executor.close`."""
        self._on_thread(self._executor.close)

    def end(self) -> None:
        """End the thread: after what it does, or early if that is a profile (Ctrl-C reaches only who waits for it)."""
        self._ending = True
        self._thread.shutdown()

    def _on_thread(self, function: Callable[..., Any], *given: Any, **named: Any) -> Any:
        return self._thread.submit(function, *given, **named).result()

    def _go_on(self, *_: int) -> None:
        if self._ending:
            raise InterruptedError
