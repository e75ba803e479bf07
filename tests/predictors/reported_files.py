"""Small files of every form of measurements that is imported, with figures of nobody's machine."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from predictors.importers.reported import ImportOptions


@dataclass(frozen=True)
class Example:
    """A file, what has to be said to import it, and what a request of it takes.

    Attributes:
        form: its format, one of `predictors.importers.formats.FORMATS`.
        name: the file's name.
        text: its text.
        model: the model that it measures.
        size: (height, width, frames) of its requests.
        steps: denoising steps of them.
        whole_s: seconds of one request alone, as measured.
        said: what has to be said beside it.
        command: the same, as options of the command.
    """

    form: str
    name: str
    text: str
    model: str
    size: tuple[int, int, int]
    steps: int
    whole_s: float
    said: ImportOptions
    command: tuple[str, ...] = ()

    def write(self, folder: Path) -> Path:
        """The file, in a folder."""
        path = folder / self.name
        path.write_text(self.text)
        return path


PUBLISHED_HEADER = (
    "source,system,gpus,parallelism,model,height,width,frames,steps,batch,precision,engine,quantity,value,notes\n"
)
PUBLISHED = PUBLISHED_HEADER + (
    "a page,Abacus 9,1,none,flux.1-dev,1024,1024,1,20,1,bf16,beads,latency_s,12.0,made up\n"
    "a page,Abacus 9,1,none,flux.1-dev,1024,1024,1,20,2,bf16,beads,latency_s,22.0,made up\n"
    "a page,Abacus 9,1,none,flux.1-dev,1024,1024,1,,1,bf16,beads,step_s,0.55,made up\n"
    "a page,Abacus 9,1,none,flux.1-dev,1024,1024,1,,2,bf16,beads,step_s,1.05,made up\n"
    "a page,Abacus 9,1,none,flux.1-dev,1024,1024,1,,1,bf16,beads,vae_decode_s,0.6,made up\n"
    "a page,Abacus 9,1,none,flux.1-dev,1024,1024,1,,2,bf16,beads,vae_decode_s,0.7,made up\n"
)

CATALOGUE = (
    "source,commit,date,licence,hardware,devices,parallelism,checkpoint,model,height,width,frames,steps,batch,guided,"
    "precision,engine,software,measures,seconds,remarks\n"
    "a page,abc,2026-01-01,MIT,h100-sxm,1,,Own/Model,flux,1024,1024,1,20,1,true,bfloat16,eager,,request,5.0,\n"
    "a page,abc,2026-01-01,MIT,h100-sxm,1,,Own/Model,flux,1024,1024,1,20,1,false,bfloat16,eager,,request,3.0,cached\n"
)

MIXFUSION_WHOLE = "sm util, unet time, post time\n10,3.0,0.07\n20,4.3,0.12\n30,5.7,0.18\n"
MIXFUSION_MIXED = "512 num, 768 num, 1024 num, avg unet time\n1,0,0,2.0\n1,0,0,2.2\n2,1,0,5.0\n0,0,3,9.0\n"


def mlperf_summary(scenario: str, metric: str, more: str = "", result: str = "VALID") -> str:
    """What the load generator writes of a run."""
    bar = "=" * 48
    return (
        f"{bar}\nMLPerf Results Summary\n{bar}\nSUT name : SUT\nScenario : {scenario}\nMode     : PerformanceOnly\n"
        f"{metric}\nResult is : {result}\n  Min duration satisfied : Yes\n\n{bar}\nAdditional Stats\n{bar}\n{more}\n"
        f"{bar}\nTest Parameters Used\n{bar}\nsamples_per_query : 1\n\nNo errors encountered during test.\n"
    )


OFFLINE = mlperf_summary("Offline", "Samples per second: 1.6", "Mean latency (ns)               : 90000000000")
SERVER = mlperf_summary("Server", "Scheduled samples per second : 1.5", "Completed samples per second    : 1.25")
SINGLE = mlperf_summary(
    "SingleStream", "90th percentile latency (ns) : 4400000000", "Mean latency (ns)               : 4000000000"
)

MLPERF_HEADER = (
    "Organization,Availability,Division,SystemType,SystemName,Platform,Model,MlperfModel,Scenario,Result,Accuracy,"
    "number_of_nodes,host_processor_model_name,host_processors_per_node,host_processor_core_count,"
    "accelerator_model_name,accelerators_per_node,Location,framework,operating_system,notes,compliance,errors,version,"
    "inferred,has_power,Units\n"
)


def mlperf_row(
    scenario: str, result: str, units: str, model: str = "stable-diffusion-xl", accelerators: str = "8"
) -> str:
    """A row of the table of submissions."""
    return (
        f'Nobody,available,closed,"datacenter","Abacus rack",abacus_x8,{model},{model},{scenario},{result},31.5,1,'
        f'"A CPU",2,56,"Abacus 9","{accelerators}",closed/Nobody/results,"Beads","An OS",,1,0,v9.9,0,False,{units}\n'
    )


MLPERF = MLPERF_HEADER + "".join(
    [
        mlperf_row("Offline", "16.0", "Samples/s"),
        mlperf_row("Offline", "16.4", "Samples/s"),
        mlperf_row("Server", "14.0", "Queries/s"),
        mlperf_row("Offline", "900.0", "Tokens/s", model="llama2-70b-99"),
    ]
)


def serving_result(**more: Any) -> dict[str, Any]:
    """What both serving benchmarks write of their requests."""
    return {
        "duration": 101.0,
        "completed_requests": 10,
        "failed_requests": 0,
        "throughput_qps": 0.099,
        "latency_mean": 10.1,
        "latency_median": 10.0,
        "latency_p99": 12.0,
        "latency_p50": 10.0,
        "peak_memory_mb_max": 30000.0,
        "peak_memory_mb_mean": 30000.0,
        "peak_memory_mb_median": 30000.0,
    } | more


DURATIONS = {
    "FluxPipeline.text_encoder.forward": 0.1,
    "FluxPipeline.text_encoder_2.forward": 0.2,
    "FluxPipeline.diffuse": 9.0,
    "FluxPipeline.vae.decode": 0.5,
}
VLLM = serving_result(
    endpoint="/v1/images/generations",
    model="black-forest-labs/FLUX.1-dev",
    dataset="random",
    task="t2i",
    stage_durations_mean=DURATIONS,
    stage_durations_p50=DURATIONS,
    stage_durations_p99=DURATIONS,
)
VLLM_OLD = serving_result(backend="vllm-omni", model="black-forest-labs/FLUX.1-dev", dataset="random", task="t2i")
VLLM_RECORD = {
    "test_name": "flux",
    "benchmark_params": {
        "task": "t2i",
        "dataset": "random",
        "height": 768,
        "width": 1024,
        "num-inference-steps": 24,
        "max-concurrency": 1,
    },
    "server_params": {"model": "black-forest-labs/FLUX.1-dev"},
    "result": serving_result(stage_durations_p50=DURATIONS),
}

SGLANG = {
    "timestamp": "2026-01-01T00:00:00+00:00",
    "request_id": "r",
    "commit_hash": "N/A",
    "tag": "benchmark_dump",
    "total_duration_ms": 5000.0,
    "steps": [
        {"name": "InputValidationStage", "duration_ms": 10.0},
        {"name": "TextEncodingStage", "duration_ms": 180.0},
        {"name": "LatentPreparationStage", "duration_ms": 10.0},
        {"name": "DenoisingStage", "duration_ms": 4400.0},
        {"name": "DecodingStage", "duration_ms": 400.0},
    ],
    "denoise_steps_ms": [{"step": at, "duration_ms": 550.0} for at in range(8)],
    "memory_checkpoints": {},
    "meta": {"prompt": "a cat", "model": "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"},
}
SGLANG_LOG = {
    "request_id": "r",
    "timestamp": "2026-01-01T00:00:00+00:00",
    "commit_hash": "N/A",
    "tag": "pipeline_stage_metrics",
    "stages": [
        {"name": "TextEncodingStage", "execution_time_ms": 200.0},
        {"name": "DenoisingStage", "execution_time_ms": 4400.0},
        {"name": "DecodingStage", "execution_time_ms": 400.0},
    ],
    "steps": [550.0] * 8,
    "total_duration_ms": 5000.0,
    "memory_snapshots": {},
}

SQUARE = (1024, 1024, 1)
CLIP = (480, 832, 81)
_OURS = ImportOptions(hardware="h100-sxm", size=SQUARE, steps=25, batch=1)
_COMMAND = ("--hardware", "h100-sxm", "--size", "1024x1024", "--steps", "25", "--batch", "1")

EXAMPLES = {
    "published": Example("published", "results.csv", PUBLISHED, "flux", SQUARE, 20, 12.0, ImportOptions()),
    "mixfusion": Example(
        "mixfusion", "sm_util_sd3_1024.csv", MIXFUSION_WHOLE, "sd3", SQUARE, 50, 3.07, ImportOptions()
    ),
    "mlperf": Example(
        "mlperf",
        "mlperf_log_summary.txt",
        SINGLE,
        "sdxl",
        SQUARE,
        20,
        4.0,
        ImportOptions(hardware="h100-sxm"),
        ("--hardware", "h100-sxm"),
    ),
    "vllm-omni": Example("vllm-omni", "vllm.json", json.dumps(VLLM), "flux", SQUARE, 25, 9.8, _OURS, _COMMAND),
    "sglang": Example(
        "sglang",
        "perf.json",
        json.dumps(SGLANG, indent=2),
        "wan-1.3b",
        CLIP,
        8,
        5.0,
        ImportOptions(hardware="h100-sxm", size=CLIP),
        ("--hardware", "h100-sxm", "--size", "480x832x81"),
    ),
}
"""One of each form, by its name in `predictors.importers.formats.FORMATS`."""
