"""The command that starts a cluster in the engine that an operator has.

Flags are those that the engines document: vLLM-Omni 0.26, SGLang Diffusion of September 2026, xDiT's launcher of 2026.
"""

from __future__ import annotations

from typing import NamedTuple

from predictors.parallel import Parallel
from reports.plan.formatting import cluster
from reports.plan.result import Plan

AS_ENGINES_DECIDE = "fcfs"
"""The policy that does what these engines do with requests: the first first, each on all devices of its replica."""


class EngineCommand(NamedTuple):
    """How one engine starts one replica.

    Attributes:
        engine: its name.
        command: for a shell; ``MODEL`` stands for the checkpoint.
    """

    engine: str
    command: str


def engine_commands(plan: Plan) -> tuple[EngineCommand, ...]:
    """How a replica of the answer's cluster is started, engine by engine; none where no promise is kept.

    Every request then runs on all devices of its replica. Tiles are shared by none of these engines.
    """
    best = plan.answer
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


def as_engines_decide(plan: Plan) -> str:
    """What the number of replicas takes for granted that these engines do not do, in a sentence; empty: nothing."""
    if plan.answer is None or not engine_commands(plan) or plan.answer.candidate.scheduler == AS_ENGINES_DECIDE:
        return ""
    sentence = (
        f"So many do with the decisions of {plan.answer.candidate.scheduler}; an engine as it is decides like "
        f"{AS_ENGINES_DECIDE}"
    )
    tried = [row for row in plan.policies if row.scheduler == AS_ENGINES_DECIDE]
    if not tried:
        return f"{sentence}: `--policies {AS_ENGINES_DECIDE}` says how many that takes."
    of = tried[0].evaluation
    if of is None or not of.keeps:
        return f"{sentence}, with which nothing that was considered keeps the promise."
    return f"{sentence}, which takes {cluster(of.candidate)}."
