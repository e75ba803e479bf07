"""The command that starts a cluster in the engine that an operator has.

Flags are those that the engines document: vLLM-Omni 0.26, SGLang Diffusion of September 2026, xDiT's launcher of 2026.
"""

from __future__ import annotations

from typing import NamedTuple

from predictors.parallel import Parallel
from reports.plan.formatting import subject
from reports.plan.result import Plan


class EngineCommand(NamedTuple):
    """How one engine starts one replica.

    Attributes:
        engine: its name.
        command: for a shell; ``MODEL`` stands for the checkpoint.
    """

    engine: str
    command: str


def engine_commands(plan: Plan) -> tuple[EngineCommand, ...]:
    """How a replica of the answer's cluster is started, engine by engine; none where there is no answer.

    Every request then runs on all devices of its replica. Tiles are shared by none of these engines.
    """
    best = subject(plan)
    if best is None or plan.demand.tiled:
        return ()
    kind = Parallel.of(best.candidate.devices, 1, plan.demand.guided)
    vllm = ["vllm serve MODEL --omni"]
    sglang = [f"sglang serve --model-path MODEL --num-gpus {kind.devices}"]
    xdit = ["xdit --model MODEL"]
    if kind.ulysses > 1:
        vllm.append(f"--usp {kind.ulysses}")
        sglang.append(f"--ulysses-degree {kind.ulysses}")
        xdit.append(f"--ulysses_degree {kind.ulysses}")
    if kind.cfg > 1:
        vllm.append("--cfg-parallel-size 2")
        sglang.append("--cfg-parallel-size 2")
        xdit.append("--use_cfg_parallel")
    return (
        EngineCommand("vLLM-Omni", " ".join(vllm)),
        EngineCommand("SGLang", " ".join(sglang)),
        EngineCommand("xDiT", " ".join(xdit)),
    )
