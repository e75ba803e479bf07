"""The step-level executor of one replica: runs launches on a diffusers pipeline.

A launch is one stage for a batch: encode (from the prompt to the first denoiser call), a number of denoising steps,
or decode (from the last latents to pixels). Requests larger than the model are sketched, upscaled and refined in
between (see `backend.tiled`). Requests are coroutines (see `backend.coroutine`); those whose
denoiser calls have equal shapes share one forward, at whatever timesteps they are. A request that fails, for bad
input, lack of memory or numbers that are not finite, fails alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import UNet2DConditionModel

from backend.cache import BlockCache
from backend.components import Company, Components
from backend.coroutine import (
    DenoiserCall,
    Finished,
    RequestRun,
    StepDone,
    intercept_components,
    intercept_denoisers,
)
from backend.decode import decode_by
from backend.devices.divided import Divided
from backend.devices.servers import DeviceServers, Served
from backend.handover.script import Script
from backend.inputs import Start, check_arguments, check_start, image_use, start_of, takes_mask
from backend.kernels.choice import REFERENCE, Kernels, kernels_for
from backend.kernels.cuda_graphs import recorder_on
from backend.kernels.graphs import Recorder
from backend.loading import denoiser_names
from backend.lora import Adapters, OneSet
from backend.machine import hardware_name
from backend.merge import Elsewhere, Mixer, Several, Stacked, run_merged
from backend.patched.unet import PATCH_FLOOR, PatchedUNet
from backend.ranks.group import RankLost
from backend.ranks.workers import Devices, Workers
from backend.replicas.hub import LaunchHub
from backend.tiled.execution import TiledExecution, Tiling
from backend.tiled.run import TiledRun
from backend.tiled.saved import load
from policies.caching import CachingPolicy, ComputeAll
from policies.contract import Outcome, PolicyError, joined
from policies.guard import copied_for_run
from traces.adapters import AdapterSet
from traces.errors import BadInput
from traces.request import Request
from traces.stages import STAGES, Recipe, ordinary
from traces.strength import IMAGE_TO_IMAGE

Deliver = Callable[[Request, np.ndarray[Any, Any]], None]
"""What is given the pixels of a request that finishes."""


class Executor:
    """Runs launches on one copy of a model. All calls must come from one thread.

    Args:
        pipeline: a diffusers pipeline, in evaluation mode, on its device. It is the executor's from now on.
        mode: how denoiser calls of several requests run together: ``whole`` (equal shapes stacked), ``patched`` (any
            sizes, cut into patches; UNets) or ``packed`` (any sizes, tokens packed; transformers).
        caching: decides which units of which blocks are computed; the executor makes its own copy. None: all.
        cache_bytes: what the cache may keep.
        cache_patch: largest side of a cached patch, latent pixels; 0: whole images.
        decode: how latents become pictures, see `backend.decode.decode_by`.
        patch_floor: least side of a patch of ``patched``, latent pixels; None: see `backend.patched.unet.PATCH_FLOOR`.
        tiling: which requests are refined by tiles, and how; None: none.
        images: the folder of the pictures that requests start from.
        adapters: the safetensors file of each adapter that requests may name; see `backend.lora`.
        workers: the other devices of the replica; None: those of the tiling.
        servers: what computes in the place of this process, whose pipeline is on the CPU; None: this process. Launches
            may then run side by side.
        kernels: one of `backend.kernels.choice.CHOICES`. ``whole`` runs the model's own kernels, perhaps recorded.
        stages: those that run here; requests are handed over before and after them, see `take` and ``handed``. None:
            all. The networks of other stages are not used, see `backend.handover.absent`.

    Attributes:
        computes_on: the device that computes, or of which kind those are that do.
        devices: how many there are.
        cache: the block cache, or None.
        tiles: what runs tiled requests, or None.
        workers: the other ranks of the replica.
        servers: what it was given.
        divided: what runs denoiser calls on several devices; None: they run on one.
        kernels: what runs in the place of plain PyTorch.
        handed: what requests that have done their last stage here are handed on with, by their ids; whoever hands them
            on takes it out.
        recorder: of forwards; it tells which were recorded, and why others were not.
        conditions: settings that its seconds depend on, by their names in a profile's metadata.

    Raises:
        BadInput: an unknown choice, or the mode or the way to decode does not fit the pipeline.
    """

    def __init__(
        self,
        pipeline: Any,
        mode: str = "whole",
        caching: CachingPolicy | None = None,
        cache_bytes: int = 2**30,
        cache_patch: int = 32,
        decode: str = "whole",
        patch_floor: int | None = None,
        tiling: Tiling | None = None,
        images: Path | None = None,
        kernels: str = "auto",
        adapters: Mapping[str, Path] | None = None,
        workers: Workers | None = None,
        servers: DeviceServers | None = None,
        stages: Sequence[str] | None = None,
    ) -> None:
        check_arguments(pipeline)
        if stages is not None and (tiling is not None or adapters):
            what = "tiled" if adapters is None else "adapters are put on"
            raise BadInput(f"{what}: a request that is handed from pool to pool goes through ordinary stages alone")
        if workers is None:
            workers = Workers(Devices() if tiling is None else tiling.ranks, torch.device(pipeline.device).type)
        if adapters and (workers.devices.count > 1 or servers is not None):
            raise BadInput("adapters are not put on by all ranks of a replica; expected cluster.devices = 1")
        self._adapters = Adapters(pipeline, adapters or {})
        use, name = image_use(pipeline), type(pipeline).__name__
        wanted = "condition" if use == "required" else "refine"
        if tiling is not None and tiling.rule.image != wanted:
            raise BadInput(f"tiling.image is {tiling.rule.image!r}; {name} needs {wanted!r}")
        if tiling is not None and name in IMAGE_TO_IMAGE:
            raise BadInput(f"{name} makes images from images of their size; expected no tiling")
        self._image_use = use
        self._shows_image = use == "required" or (use == "optional" and tiling is None)
        self.pipeline = pipeline
        self.mode = mode
        self.device = torch.device(pipeline.device)
        own = None if caching is None or isinstance(caching, ComputeAll) else copied_for_run(caching)
        if own is not None and servers is not None:
            raise BadInput("no caching policy is asked by several devices; expected cluster.devices = 1, or no caching")
        self.computes_on = self.device if servers is None else torch.device(servers.device)
        self.devices = (workers if servers is None else servers).devices.count
        self.kernels = kernels_of(mode, kernels, self.computes_on, cached=own is not None)
        graphs = self.kernels.graphs and servers is None
        self.recorder = recorder_on(self.device) if graphs else Recorder()
        names = denoiser_names(pipeline)
        if own is not None and len(names) > 1:
            raise BadInput(f"no caching policy knows two denoisers: {name} has {names[1]} too; expected no caching")
        ways = {"patch_floor": patch_floor, "kernels": self.kernels, "recorder": self.recorder}
        self.stages = None if stages is None else frozenset(stages)
        self.handed: dict[str, bytes] = {}
        denoises = self.stages is None or any(STAGES[stage].sampler for stage in self.stages)
        self._mixer: Mixer = Elsewhere()
        if denoises:
            self._mixer = mixers_of(
                pipeline, mode, caching=own, cache_bytes=cache_bytes, cache_patch=cache_patch, **ways
            )
        divides = workers.devices.count > 1 and own is None and denoises
        of_several = dividing_mixers(pipeline, mode, self._mixer, **ways) if divides else self._mixer
        self.cache: BlockCache | None = getattr(self._mixer, "cache", None)
        if adapters:
            self._mixer = OneSet(self._mixer, self._put_on)
        forwards = intercept_denoisers(pipeline)
        if self.stages is None or any(STAGES[stage].finishes for stage in self.stages):
            decode_by(pipeline, decode)
        functions = intercept_components(pipeline, handed=self.stages is not None)
        self.workers = workers
        workers.settings = rank_settings(mode, self.kernels, patch_floor, tiling, decode)
        self.servers = servers
        self.divided: Divided | Served | None = None
        if servers is not None:
            servers.settings = rank_settings(mode, self.kernels, patch_floor, None, decode)
            functions = servers.functions(functions, pipeline)
            self._mixer = self.divided = Served(self._mixer, servers, tokens=divides_tokens(pipeline, mode))
        elif divides:
            self._mixer = self.divided = Divided(self._mixer, of_several, self.workers)
            functions = self.divided.functions(functions, pipeline)
        self._components = Components(pipeline, functions)
        self.tiles = None if tiling is None else TiledExecution(pipeline, forwards, tiling, self.workers)
        self.images = images
        self.conditions = {"decode": decode}
        if mode == "patched":
            self.conditions["patch_floor"] = str(PATCH_FLOOR if patch_floor is None else patch_floor)
        if own is not None:
            self.conditions |= {"caching": type(own).__name__, "cache_patch": str(cache_patch)}
        if self.computes_on.type == "cuda":  # elsewhere there is no choice
            parts = [name for name in ("fused", "graphs") if getattr(self.kernels, name)]
            self.conditions["kernels"] = ", ".join(parts) or "reference"
        self._runs: dict[str, RequestRun | TiledRun] = {}
        self._step_before: torch.cuda.Event | None = None

    @property
    def notes(self) -> list[str]:
        """What a reader of its figures must know, a line each."""
        return list(getattr(self._mixer, "notes", []))

    @property
    def hub(self) -> LaunchHub | None:
        """Where launches run side by side; None: they run one after another."""
        return None if self.servers is None else self.servers.hub

    @property
    def cache_peak_bytes(self) -> int | None:
        """The most that the cache kept; None: there is none."""
        return None if self.cache is None else self.cache.kept.peak_bytes

    @property
    def resident(self) -> list[str]:
        """Ids of the requests whose state lies here."""
        return list(self._runs)

    @torch.no_grad()
    def execute(
        self,
        stage: str,
        requests: Sequence[Request],
        steps: int = 1,
        recalled: Callable[[], bool] = lambda: False,
        deliver: Deliver | None = None,
        devices: Sequence[int] = (0,),
    ) -> Outcome:
        """Run one launch and wait for its ``devices`` of the replica: denoising and decoding are divided over them, and
        what is not divided runs on the first.

        ``recalled`` is asked at every step boundary, True ends the launch there; a CUDA device has by then begun with
        the step that the host has just prepared, while it ran the one before. ``deliver`` is given the pixels of
        each request that finishes, [images, height, width, 3] (clips: [clips, frames, height, width, 3]) in 0..1.
        """
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)  # a thread begins with the first device
        if self.cache is not None:
            self.cache.start_count()
        handler = HANDLERS.get(stage)
        if handler is None:
            raise ValueError(f"no executor knows a stage {stage!r}; those that it knows: {', '.join(HANDLERS)}")
        with nullcontext() if self.divided is None else self.divided.on(devices):
            return handler(self, stage, requests, steps, recalled, deliver)

    def _adapt(self, stage: str, requests: Sequence[Request], steps: int, *_: Any) -> Outcome:
        """Put on the adapters of a batch, which are the same of all its requests; a step each."""
        self._put_on(requests[0].adapter_set)
        return self._done(stage, requests, steps, {}, {})

    def _denoise(
        self,
        stage: str,
        requests: Sequence[Request],
        steps: int,
        recalled: Callable[[], bool],
        deliver: Deliver | None,
    ) -> Outcome:
        """Steps of whole images, at their size or that of a sketch."""
        failed: dict[str, str] = {}
        done = 0
        while done < steps and (alive := [r for r in requests if r.request_id not in failed]):
            self._denoise_step(alive, failed)
            done += 1
            self._wait_for_the_step_before()
            if recalled():
                break
        self._check_finite([r for r in requests if r.request_id not in failed], failed)
        self._hand_on(stage, requests, failed)
        return self._done(stage, requests, done, failed, {})

    def _done(
        self, stage: str, requests: Sequence[Request], done: int, failed: dict[str, str], notes: dict[str, str]
    ) -> Outcome:
        self.wait()
        for name in failed:
            self.release(name)
        if self.cache is not None and STAGES[stage].cache == "blocks":
            return Outcome(done, failed or None, self.cache.computed, self.cache.reused)
        images = sum(r.images for r in requests if r.request_id not in failed)
        return Outcome(done, failed or None, computed=images * done, notes=notes or None)

    def check(self, request: Request) -> None:
        """See, without work, that a request can start here.

        Raises:
            BadInput: its image or mask is missing, cannot be opened, or is none that this pipeline could use; or it
                names an adapter that is not here.
        """
        self._adapters.check(request)
        check_start(request, self.images, self.pipeline)
        if request.image and not self._shows_image:
            self._refinable(request)

    def _start_of(self, request: Request) -> Start:
        required = self._image_use == "required"
        return start_of(request, self.images, self._shows_image, required, takes_mask(self.pipeline))

    def _refinable(self, request: Request) -> None:
        if self.tiles is None or not self.tiles.tiling.rule.applies(request.size):
            raise BadInput(
                f"request {request.request_id!r}: its image can be refined only by tiles: it is too small, or there is "
                "no tiling"
            )

    def recipe(self, request: Request) -> Recipe:
        """(Stage, steps) of a request here."""
        return ordinary(request) if self.tiles is None else self.tiles.tiling.rule.stages(request)

    def latents(self, request_id: str) -> torch.Tensor | None:
        """The latents of a resident request after its last denoising step; None before its first."""
        return self._active(request_id).latents

    def keep_only(self, request_ids: set[str]) -> None:
        """Free every request not named: it ended elsewhere (dropped or cancelled)."""
        for name in [name for name in self._runs if name not in request_ids]:
            self.release(name)

    @torch.no_grad()
    def save(self, request_id: str, folder: Path) -> None:
        """Write a resident tiled request to a folder: when its sketch is done, or between two refinement steps.

        It can go on all the same.

        Raises:
            BadInput: it is not tiled, it cannot be saved where it is, or the folder cannot be written.
        """
        run = self._runs.get(request_id)
        if not isinstance(run, TiledRun) or self.tiles is None:
            raise BadInput(f"request {request_id!r} is no tiled request that is under way")
        if run.sketch is None and not run.is_refining and run.active.sampler_calls == run.active.evaluations:
            run.sketched(self._finish(run.active))
        self.tiles.save(run, folder)

    @torch.no_grad()
    def resume(self, folder: Path) -> tuple[Request, Recipe]:
        """A saved request, resident from now on, and the stages and steps that it still has before it.

        Raises:
            BadInput: the folder holds none, it was made by another model or setting, or its id is in use here.
        """
        if self.tiles is None:
            raise BadInput(f"cannot resume from {folder}: nothing is tiled here")
        saved = load(folder)
        request = saved.request
        if request.request_id in self._runs:
            raise BadInput(f"cannot resume from {folder}: request {request.request_id!r} is under way")
        run = self.tiles.resume(saved, self._start_of(request))
        self._runs[request.request_id] = run
        left = run.shape.refine_steps - run.steps_done
        return request, (*(() if run.is_refining else (("upscale", 1),)), ("refine", left), ("decode", 1))

    def release(self, request_id: str) -> None:
        """Free what a request holds."""
        run = self._runs.pop(request_id, None)
        if run is not None:
            run.close()
            if self.cache is not None:
                self.cache.forget(request_id)
            if self.tiles is not None:
                self.tiles.release(request_id)

    def close(self) -> None:
        """Free everything, and end the other ranks of the replica."""
        self.keep_only(set())
        self.workers.close()
        if self.servers is not None:
            self.servers.close()

    def _put_on(self, adapters: AdapterSet) -> None:
        self.recorder.weights = adapters
        self._adapters.put_on(adapters)

    def leave_device(self) -> None:
        """The weights are about to leave the device: what was made of them, and what a cache keeps, leaves it, too."""
        self.recorder.clear()
        if self.cache is not None:
            for name in self._runs:
                self.cache.forget(name)

    def weights_changed(self) -> None:
        """To be called when the denoiser's weights were exchanged: recorded forwards have the old ones."""
        self.recorder.clear()

    def wait(self) -> None:
        """Wait for the device to finish its work."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _wait_for_the_step_before(self) -> None:
        """Let the host be one step ahead of the device, not more, so that a recall comes in time."""
        if self.device.type == "cuda":
            begun = torch.cuda.Event()
            begun.record()
            if self._step_before is not None:
                self._step_before.synchronize()
            self._step_before = begun

    def _encode(
        self,
        stage: str,
        requests: Sequence[Request],
        steps: int,
        recalled: Callable[[], bool],
        deliver: Deliver | None,
    ) -> Outcome:
        """From the prompt to the first denoiser call, with one forward of a text encoder for all where shapes agree."""
        failed: dict[str, str] = {}
        notes: dict[str, str] = {}
        runs: list[RequestRun] = []
        for request in requests:
            try:
                self._put_on(request.adapter_set)
                run = self._begun(request)
                if isinstance(run, TiledRun):
                    run.encode()
                    notes |= _named(request, run.active.note)
                else:
                    runs.append(run)
            except Exception as error:
                failed[request.request_id] = reason(error)
        for run, stop in self._side_by_side(runs, None, failed).items():
            if isinstance(stop, DenoiserCall):
                notes |= _named(run.request, run.note)
            else:
                early = RuntimeError("the pipeline ended before its first denoising step")
                failed[run.request.request_id] = reason(early)
        self._hand_on(stage, requests, failed)
        return self._done(stage, requests, 1, failed, notes)

    def _begun(self, request: Request) -> RequestRun | TiledRun:
        start = self._start_of(request)
        if self.tiles is not None and self.tiles.tiling.rule.applies(request.size):
            tiled = self._runs[request.request_id] = self.tiles.run_of(request, start)
            return tiled
        if start.pixels is not None:
            self._refinable(request)
        script = None if self.stages is None else Script(self.device)
        run = self._runs[request.request_id] = RequestRun(self.pipeline, request, start.arguments, script)
        return run

    @torch.no_grad()
    def take(self, request: Request, handed: bytes) -> None:
        """Take over a request that another replica has handed on; it is where it was there.

        Raises:
            ValueError: ``handed`` is not of such a request.
            HandoverRefused: its pipeline does not come to where it was.
        """
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
        script = Script.of(handed, self.device)
        run = RequestRun(self.pipeline, request, self._start_of(request).arguments, script)
        try:
            if script.denoised:
                run.skip()
            else:
                run.begin(self._by)
        except BaseException:
            run.close()
            raise
        self.release(request.request_id)
        self._runs[request.request_id] = run
        if script.denoised or self._stays(request):
            run.stay()

    @property
    def _by(self) -> str:
        """What computes the arguments of denoiser calls."""
        return hardware_name(str(self.device))

    def _stays(self, request: Request) -> bool:
        """Whether all that comes after the preparation of a request runs here."""
        stages = [stage for stage, _ in self.recipe(request) if not STAGES[stage].prepares]
        return self.stages is None or self.stages.issuperset(stages)

    def _hand_on(self, stage: str, requests: Sequence[Request], failed: dict[str, str]) -> None:
        """What requests that have finished a stage are handed on with, whose next one does not run here."""
        if self.stages is None:
            return
        sampler = STAGES[stage].sampler
        for request in requests:
            run = self._runs.get(request.request_id)
            if not isinstance(run, RequestRun) or request.request_id in failed or run.script is None:
                continue
            stages = [name for name, _ in self.recipe(request)]
            if sampler and run.steps_done < run.steps:
                continue
            try:
                if stages[stages.index(stage) + 1] not in self.stages:
                    self.handed[request.request_id] = run.denoised() if sampler else run.embeddings(self._by)
                    self.release(request.request_id)
                elif not sampler:
                    self._stay_or_forget(request, run, run.script)
            except Exception as error:
                self._failed(request.request_id, error, failed)

    def _stay_or_forget(self, request: Request, run: RequestRun, script: Script) -> None:
        """A request is encoded that is denoised here, too, and decoded here or elsewhere."""
        if self._stays(request):
            run.stay()
        else:
            script.forget()

    def _side_by_side(
        self, runs: Sequence[RequestRun], denoise: Callable[[DenoiserCall], Any] | None, failed: dict[str, str]
    ) -> dict[RequestRun, DenoiserCall | StepDone | Finished]:
        """Where requests come to, in order; see `backend.components.Company`."""
        company = Company(self._components, denoise, self._put_on, self.recorder.clear)
        stops, errors = company.walk(runs)
        failed |= {run.request.request_id: reason(error) for run, error in errors.items()}
        return {run: stops[run] for run in runs if run in stops}

    def _active(self, request_id: str) -> RequestRun:
        """The pipeline's run of the stage that a request is in."""
        run = self._runs[request_id]
        return run.active if isinstance(run, TiledRun) else run

    def _upscale(
        self,
        stage: str,
        requests: Sequence[Request],
        steps: int,
        recalled: Callable[[], bool],
        deliver: Deliver | None,
    ) -> Outcome:
        """From sketches to the latents that are refined, one after another: tiled requests are large."""
        assert self.tiles is not None
        failed: dict[str, str] = {}
        notes: dict[str, str] = {}
        for request in requests:
            try:
                self._put_on(request.adapter_set)
                run = self._tiled(request)
                if run.sketch is None:
                    sketch = self._finish(run.active)
                    notes |= _named(request, sketch.note)
                    run.sketched(sketch)
                self.tiles.upscale(run)
            except Exception as error:
                self._failed(request.request_id, error, failed)
        return self._done(stage, requests, 1, failed, notes)

    def _refine(
        self,
        stage: str,
        requests: Sequence[Request],
        steps: int,
        recalled: Callable[[], bool],
        deliver: Deliver | None,
    ) -> Outcome:
        """Refinement steps; computed and reused count tiles."""
        assert self.tiles is not None
        runs = [self._tiled(request) for request in requests]
        self._put_on(requests[0].adapter_set)
        before = sum(r.refinement.computed for r in runs), sum(r.refinement.reused for r in runs)
        failed: dict[str, str] = {}
        done = 0
        busy_s: tuple[float, ...] = ()
        try:
            while done < steps and (alive := [run for run in runs if run.request.request_id not in failed]):
                errors = self.tiles.step(alive)
                failed |= {name: reason(error) for name, error in errors.items()}
                done += 1
                self.wait()
                if recalled():
                    break
            alive = [run for run in runs if run.request.request_id not in failed]
            busy_s, bad = self.tiles.report(alive)
            failed |= {
                run.request.request_id: f"not a number in the latents after refinement step {run.steps_done}"
                for run in alive
                if run.request.request_id in bad
            }
        except Exception as error:  # with several ranks nobody can go on alone
            failed |= {run.request.request_id: reason(error) for run in runs if run.request.request_id not in failed}
            self.tiles.lost()
        after = sum(r.refinement.computed for r in runs), sum(r.refinement.reused for r in runs)
        for name in failed:
            self.release(name)
        return Outcome(done, failed or None, after[0] - before[0], after[1] - before[1], busy_s)

    def _tiled(self, request: Request) -> TiledRun:
        run = self._runs[request.request_id]
        if not isinstance(run, TiledRun):
            raise RuntimeError(f"request {request.request_id!r} is not tiled")
        return run

    def _denoise_step(self, requests: Sequence[Request], failed: dict[str, str]) -> None:
        """One step of each request: as many rounds of batched denoiser calls as its pipeline makes."""
        due: dict[RequestRun, int] = {}
        for request in requests:
            run = self._active(request.request_id)
            steps_done = run.steps_done + 1
            due[run] = run.sampler_calls_due(steps_done)
            run.steps_done = steps_done
        active = [run for run in due if run.sampler_calls < due[run]]
        while active:
            for run in active:
                if run.pending is None:
                    self._advance(run, None, failed)
            calling = [run for run in active if run.pending is not None]
            calls = [run.pending for run in calling if run.pending is not None]
            outputs, errors = run_merged(self._mixer, calls, free=self.recorder.clear)
            for index, run in enumerate(calling):
                if index in errors:
                    failed[run.request.request_id] = reason(errors[index])
                else:
                    self._advance(run, outputs[index], failed)
            active = [run for run in active if run.request.request_id not in failed and run.sampler_calls < due[run]]

    def _advance(self, run: RequestRun, value: Any, failed: dict[str, str]) -> None:
        try:
            stop = run.resume(value)
            if isinstance(stop, Finished):
                raise RuntimeError(f"the pipeline ended after {run.sampler_calls} sampler steps, before its last")
        except Exception as error:
            failed[run.request.request_id] = reason(error)

    def _decode(
        self,
        stage: str,
        requests: Sequence[Request],
        steps: int,
        recalled: Callable[[], bool],
        deliver: Deliver | None,
    ) -> Outcome:
        """From the last latents to pixels; pictures of one size are decoded at once, as many as there is room for."""
        failed: dict[str, str] = {}
        notes: dict[str, str] = {}
        runs: list[RequestRun] = []
        for request in requests:
            try:
                run = self._runs[request.request_id]
                if isinstance(run, TiledRun) and self.tiles is not None:
                    self.tiles.gather(run)
                runs.append(self._active(request.request_id))
            except Exception as error:
                self._failed(request.request_id, error, failed)
        by_run = self._side_by_side(runs, self._denoised, failed)
        for request in requests:
            if request.request_id not in failed:
                try:
                    note = self._delivered(request, by_run[self._active(request.request_id)], deliver)
                    notes |= _named(request, note)
                except Exception as error:
                    self._failed(request.request_id, error, failed)
            self.release(request.request_id)
        return self._done(stage, requests, 1, failed, notes)

    def _denoised(self, call: DenoiserCall) -> Any:
        return self._mixer.run([call])[0]

    def _delivered(self, request: Request, finished: Any, deliver: Deliver | None) -> str:
        """Hand the pixels over; a line on what is to be said of them."""
        pixels = np.asarray(finished.output)
        if not np.isfinite(pixels).all():
            raise FloatingPointError("not a number in the decoded picture")
        if deliver is not None:
            deliver(request, pixels)
        return joined(finished.note, _unlike(request, pixels))

    def _failed(self, request_id: str, error: Exception, failed: dict[str, str]) -> None:
        failed[request_id] = reason(error)
        if self.tiles is not None and isinstance(error, RankLost):
            self.tiles.lost()

    def _finish(self, run: RequestRun) -> Finished:
        """Run a pipeline from its last step to its end."""
        stop: DenoiserCall | StepDone | Finished = run.resume()
        while not isinstance(stop, Finished):
            value = self._mixer.run([stop])[0] if isinstance(stop, DenoiserCall) else None
            stop = run.resume(value)
        return stop

    def _check_finite(self, requests: Sequence[Request], failed: dict[str, str]) -> None:
        runs = [run for request in requests if (run := self._active(request.request_id)).latents is not None]
        if not runs:
            return
        finite = torch.stack([torch.isfinite(run.latents).all() for run in runs if run.latents is not None])
        for run, good in zip(runs, finite.tolist(), strict=True):  # one wait for the device
            if not good:
                failed[run.request.request_id] = f"not a number in the latents after step {run.steps_done}"


HANDLERS: dict[str, Callable[..., Outcome]] = {
    "adapt": Executor._adapt,
    "encode": Executor._encode,
    "denoise": Executor._denoise,
    "sketch": Executor._denoise,
    "upscale": Executor._upscale,
    "refine": Executor._refine,
    "decode": Executor._decode,
}
"""What runs a launch of each stage of `traces.stages.STAGES`: called with the arguments of `Executor.execute`."""


def _unlike(request: Request, pixels: np.ndarray[Any, Any]) -> str:
    """One line on a size that the pipeline has rounded, as many do without a word."""
    if pixels.ndim not in (4, 5):
        return ""
    *clip, height, width, _ = pixels.shape[1:]
    made = (height, width, *clip)
    wanted = request.size[: len(made)]
    if made == wanted:
        return ""
    return f"the pipeline made {'x'.join(map(str, made))}, not {'x'.join(map(str, wanted))} as asked"


def _named(request: Request, note: str) -> dict[str, str]:
    return {request.request_id: note} if note else {}


def kernels_of(mode: str, kernels: str, device: torch.device, cached: bool = False) -> Kernels:
    """What an executor runs in the place of plain PyTorch. Arguments as for `Executor`; ``cached``: by a policy."""
    known = kernels_for(kernels, device)
    return Kernels(known.fused and mode != "whole", known.graphs and not cached)


def rank_settings(
    mode: str, kernels: Kernels, patch_floor: int | None, tiling: Tiling | None, decode: str
) -> dict[str, Any]:
    """What the other ranks of a replica are told: arguments of `backend.devices.rank.Rank`."""
    return {
        "mode": mode,
        "patch_floor": patch_floor,
        "fused": kernels.fused,
        "graphs": kernels.graphs,
        "tiled": None if tiling is None else tiling.rank_settings,
        "decode": decode,
    }


def mixers_of(pipeline: Any, mode: str, **more: Any) -> Mixer:
    """What runs the calls of all of a pipeline's denoisers; arguments as for `mixer_for`."""
    names = denoiser_names(pipeline)
    mixers = {name: mixer_for(pipeline, name, mode, **more) for name in names}
    return mixers[names[0]] if len(names) == 1 else Several(mixers)


def divides_tokens(pipeline: Any, mode: str) -> bool:
    """Whether several devices divide the tokens of a row; else they divide rows."""
    denoisers = [getattr(pipeline, name) for name in denoiser_names(pipeline)]
    return mode != "patched" and not any(isinstance(denoiser, UNet2DConditionModel) for denoiser in denoisers)


def dividing_mixers(pipeline: Any, mode: str, own: Mixer, **more: Any) -> Mixer:
    """What runs calls that are divided over devices: transformers have their tokens divided, whatever the mode is.

    Args:
        pipeline: before `intercept_denoisers`.
        mode: of the executor.
        own: what runs calls on one device.
        more: as for `mixer_for`.
    """
    if mode != "whole" or not divides_tokens(pipeline, mode):
        return own
    return mixers_of(pipeline, "packed", **more)


def mixer_for(
    pipeline: Any,
    denoiser: str,
    mode: str,
    caching: CachingPolicy | None = None,
    cache_bytes: int = 2**30,
    cache_patch: int = 32,
    patch_floor: int | None = None,
    kernels: Kernels = REFERENCE,
    recorder: Recorder | None = None,
) -> Mixer:
    """What runs the calls of one of a pipeline's denoisers in this mode. To be made before `intercept_denoisers`.

    Raises:
        BadInput: the mode does not fit the pipeline.
    """
    if mode == "patched":
        floor = PATCH_FLOOR if patch_floor is None else patch_floor
        return PatchedUNet(
            pipeline=pipeline,
            floor=floor,
            caching=caching,
            cache_bytes=cache_bytes,
            cache_patch=cache_patch,
            kernels=kernels,
            recorder=recorder,
        )
    if mode == "packed":
        from backend.packed import packer_of

        return packer_of(getattr(pipeline, denoiser), caching, cache_bytes, cache_patch, kernels, recorder)
    if caching is not None:
        raise BadInput(f"a caching policy needs cluster.executor 'patched' or 'packed', not {mode!r}")
    return Stacked(getattr(pipeline, denoiser).forward, recorder)


def reason(error: BaseException) -> str:
    """One line on why a request failed.

    Raises:
        PolicyError: it is one; what a policy does wrong is no request's fault, and ends the run.
    """
    if isinstance(error, PolicyError):
        raise error
    if isinstance(error, torch.OutOfMemoryError):
        return f"out of device memory: {str(error).splitlines()[0]}"
    lines = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"
