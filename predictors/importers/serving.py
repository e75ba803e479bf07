"""What benchmarks of diffusion servers write: vLLM-Omni's ``diffusion_benchmark_serving.py`` and SGLang's.

Both send requests to a server and write one JSON object (``--output-file``): ``latency_median`` and more of the
requests, in seconds from the client's side. vLLM-Omni's, of 2026, adds ``model``, ``task`` and the server's own
``stage_durations_p50`` (``Pipeline.diffuse``, ``.text_encoder.forward``, ``.vae.decode``, in seconds); its nightly runs
write a list of records with the object as ``result`` beside ``benchmark_params`` and ``server_params``. SGLang's
``bench_serving`` of sglang.multimodal_gen writes the object alone, with neither model nor stages.

A latency is the seconds of a batch only where nothing waits: one request at a time, or as many as the server batches.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

from predictors.importers.contents import FileContents
from predictors.importers.reported import (
    SECONDS,
    ImportOptions,
    ReportedFile,
    ReportedRow,
    ReportedTime,
    alike,
    is_size,
    number_in,
    object_in,
    shown,
    text_in,
)
from traces.errors import BadInput
from traces.limits import DEVICES, FRAMES, SIDE, STEPS
from traces.notes import Note
from traces.stages import STAGES

VLLM_OMNI, SGLANG = "vLLM-Omni", "SGLang-Diffusion"
STAGES_OF = {"encode": "text_encoder", "denoise": "diffuse", "decode": "vae.decode"}
"""Stage -> how the names of its methods begin in vLLM-Omni's durations, after the name of the pipeline."""

FACTS = {
    "test_name": "test",
    "Hardware": "system",
    "Framework": "framework",
    "Parallelism": "parallelism",
    "Quantization": "precision",
    "Cache": "cache",
    "compile": "compile",
    "offload": "offload",
    "Attn_backend": "attention",
}
"""What a record of a nightly run says of its circumstances. A test has a server of its own, with its arguments."""

DEGREES = {"ulysses-degree": "ulysses", "ring-degree": "ring", "cfg-parallel-size": "cfg", "tensor-parallel-size": "tp"}
"""Arguments of a server by which a request is split, each over so many devices of those that the others leave."""

_RESULT = {"latency_median", "latency_mean", "throughput_qps"}
_SAYS = {"backend", "endpoint", "task", "model"}
_USED = {"latency_median", "stage_durations_p50", "completed_requests", "failed_requests", "dataset", *_SAYS}
_STATISTICS = ("duration", "throughput_", "latency_", "peak_memory_", "stage_durations_", "slo_")
"""How the names of what else is said of the same requests begin; nobody expects an effect of it."""
_MIXED = "trace"
COVERED = 0.95
"""The share of a request's time below which its stages leave something out that is said."""


def recognises_vllm_omni(contents: FileContents) -> bool:
    """Whether it is of vLLM-Omni's benchmark."""
    first = _first(contents)
    return isinstance(first.get("result"), dict) or (set(first) >= _RESULT and bool(_SAYS & set(first)))


def recognises_sglang(contents: FileContents) -> bool:
    """Whether it is of SGLang's benchmark."""
    first = _first(contents)
    return set(first) >= _RESULT and not _SAYS & set(first)


def _first(contents: FileContents) -> Mapping[str, Any]:
    found = contents.documents[0][1] if contents.documents else None
    return found if isinstance(found, dict) else {}


def read(contents: FileContents, options: ImportOptions, engine: str = VLLM_OMNI) -> ReportedFile:
    """The results of a file.

    Raises:
        BadInput: no JSON objects, or a field of another kind.
    """
    rows, unused, asks = [], dict[str, None](), {"gpus", "guided"}
    for where, document in contents.objects():
        result = object_in(document, "result", where) if "result" in document else document
        run = _Run(where, document, result, options, engine)
        rows.append(run)
        unused |= dict.fromkeys(name for name in result if name not in _USED and not name.startswith(_STATISTICS))
        asks |= run.unknown()
    return ReportedFile(rows, f"{engine} benchmark", contents.path.name, frozenset(asks), tuple(unused))


class _Run(ReportedRow):
    """One run of a benchmark: what it says of its requests, and how long they took."""

    def __init__(
        self, where: str, document: Mapping[str, Any], result: Mapping[str, Any], options: ImportOptions, engine: str
    ) -> None:
        self.where = where
        self.result = result
        self.params = object_in(document, "benchmark_params", where)
        self.options = options
        server = object_in(document, "server_params", where)
        arguments = object_in(server, "serve_args", where)
        model = text_in(result, "model", where) or text_in(server, "model", where) or text_in(document, "Model", where)
        said = {fact: text_in(document, name, where) for name, fact in FACTS.items()}
        degrees = {name: int(number_in(arguments, name, where, DEVICES)) for name in DEGREES if name in arguments}
        split = " ".join(f"{DEGREES[name]}{degree}" for name, degree in degrees.items() if degree > 1)
        framework = f"{said['framework']} {text_in(document, 'backend', where)}".lower()
        self.facts = said | {
            "model": "" if model == "default" else model,
            "system": options.hardware or said["system"],
            "engine": SGLANG if "sglang" in framework else engine,
            "gpus": str(options.gpus or prod(degrees.values())),
            "parallelism": said["parallelism"] or split,
            "task": text_in(result, "task", where) or text_in(self.params, "task", where),
        }
        self.guided = True if self.params.get("enable-negative-prompt") is True else None

    def needs(self) -> dict[str, Any]:
        said = {"model": self.options.model or self.facts["model"], "hardware": self.facts["system"]}
        return said | self.known()

    def unknown(self) -> set[str]:
        """Of size, steps and batch what no record says."""
        alone = True if self.params.get("max-concurrency") == 1 else None
        said = {"size": self.params.get("height"), "steps": self.params.get("num-inference-steps"), "batch": alone}
        return {name for name, value in said.items() if value is None}

    def said(self) -> dict[str, Any]:
        """The size, steps and batch that a record says."""
        params, where = self.params, self.where
        requests = params.get("random-request-config")
        if isinstance(requests, list) and len(requests) == 1 and isinstance(requests[0], dict):
            one = requests[0]
            params = {**params, **one, "num-inference-steps": one.get("num_inference_steps")}
            params |= {"num-frames": one["num_frames"]} if "num_frames" in one else {}
        elif requests:
            raise BadInput(f"{where}: random-request-config mixes requests, whose mean latency is that of no batch")
        found: dict[str, Any] = {}
        if params.get("height") is not None and params.get("width") is not None:
            frames = 1 if params.get("num-frames") is None else int(number_in(params, "num-frames", where, FRAMES))
            found["size"] = (
                int(number_in(params, "height", where, SIDE)),
                int(number_in(params, "width", where, SIDE)),
                frames,
            )
        if params.get("num-inference-steps") is not None:
            found["steps"] = int(number_in(params, "num-inference-steps", where, STEPS))
        if params.get("max-concurrency") == 1:
            found["batch"] = 1
        return found

    def known(self) -> dict[str, Any]:
        """The size, steps and batch, as the record or the person who imports says."""
        options = self.options
        return {"size": options.size, "steps": options.steps, "batch": options.batch} | self.said()

    def notes(self) -> list[Note | str]:
        notes: list[Note | str] = []
        if "batch" not in self.said():
            together = self.options.batch
            notes.append(f"{self.facts['engine']}: {together} images are taken to run together, as --batch says")
        if failed := self.result.get("failed_requests"):
            notes.append(f"{self.facts['engine']}: {shown(failed)} requests of the benchmark failed")
        stages = self.stages()
        if len(stages) == len(STAGES_OF) and (covered := sum(stages.values())) < COVERED * (whole := self.latency()):
            notes.append(
                f"{self.facts['engine']}: {1 - covered / whole:.0%} of a request's time is in none of its stages"
            )
        return notes

    def times(self) -> list[ReportedTime]:
        if text_in(self.result, "dataset", self.where) == _MIXED:
            raise BadInput(
                f"{self.where}: dataset is 'trace', whose requests differ: their median latency is that of no batch"
            )
        known = self.known()
        if not is_size(known["size"]):
            raise BadInput(f"{self.where}: size is {known['size']}, expected sides of {SIDE} and {FRAMES}")
        batch, steps = alike(known["size"], known["batch"]), known["steps"]
        stages = self.stages()
        times = [
            ReportedTime(seconds, batch, stage, steps if STAGES[stage].sampler else 1)
            for stage, seconds in stages.items()
        ]
        if len(stages) < len(STAGES_OF):
            times.append(ReportedTime(self.latency(), batch, steps=steps))
        return times

    def latency(self) -> float:
        """Seconds of the median request, as the client sees them."""
        return number_in(self.result, "latency_median", self.where, SECONDS)

    def stages(self) -> dict[str, float]:
        """The server's median seconds of the stages that it says."""
        where = f"{self.where}: stage_durations_p50"
        durations = object_in(self.result, "stage_durations_p50", self.where)
        found: dict[str, float] = {}
        for name in durations:
            method = name.partition(".")[2]
            for stage, beginning in STAGES_OF.items():
                if method.startswith(beginning):
                    found[stage] = found.get(stage, 0.0) + number_in(durations, name, where, SECONDS)
        return found
