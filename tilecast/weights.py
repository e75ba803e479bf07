"""The ``[weights]`` section of a scenario: many checkpoints and adapters on few replicas."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from policies.contract import SchedulingPolicy
from policies.weights import ModelSwapping
from predictors.costs import CostModel
from predictors.loading import AdapterCosts, Weights, with_adapters
from tilecast.scenario import Scenario
from tilecast.sections import WeightsSection
from traces.errors import BadInput
from traces.request import Request
from traces.stages import Recipe
from traces.trace import Trace


def weights_of(section: WeightsSection) -> Weights:
    """Sizes and rates of the checkpoints.

    Raises:
        BadInput: one that does not fit in the memory, or whose size is not spelled as it should be.
    """
    sizes: dict[str, float] = {}
    for text in section.checkpoints_gb:
        checkpoint, _, gb = text.rpartition(":")
        try:
            sizes[checkpoint] = float(gb)
        except ValueError as error:
            raise BadInput(f"weights.checkpoints_gb: {text!r}, expected checkpoint:GB, like M0001:2.1") from error
    return Weights(
        memory_gb=section.memory_gb,
        weights_gb=section.weights_gb,
        host_gb=section.host_gb,
        disk_gb_per_s=section.disk_gb_per_s,
        host_gb_per_s=section.host_gb_per_s,
        load_s=section.load_s,
        of=sizes,
    )


def unknown_checkpoints(scenario: Scenario, trace: Trace) -> list[str]:
    """What the section says that the trace does not bear out, in sentences."""
    section = scenario.weights
    if section is None:
        return ["policies.weights has no effect: no [weights] are loaded"] if scenario.policies.weights else []
    named = set(trace.frame["checkpoint"])
    if named <= {""}:
        return ["the trace names no checkpoints: [weights] has one to load, the model's own"]
    sized = [text.rpartition(":")[0] for text in section.checkpoints_gb]
    unknown = [checkpoint for checkpoint in sized if checkpoint not in named]
    return [f"weights.checkpoints_gb: the trace never asks for {', '.join(unknown)}"] if unknown else []


def serving_many(scenario: Scenario, policy: SchedulingPolicy, trace: Trace) -> SchedulingPolicy:
    """The scheduling policy of a scenario, serving many checkpoints if it has the section, and sets of adapters.

    Raises:
        BadInput: an unknown weights policy, or a parameter it does not take.
    """
    section = scenario.weights
    if section is None:
        return ModelSwapping(policy) if trace.frame["adapters"].nunique() > 1 else policy
    chosen = scenario.policies.weights
    evict = None if chosen is None else chosen.policy("weights", scenario.base)
    return ModelSwapping(policy, evict, section.soft_slo_scale, section.visit)


def adapting(scenario: Scenario, costs: CostModel) -> CostModel:
    """What the stages cost, and adapters if they cost anything."""
    section = scenario.weights
    return costs if section is None or not section.adapter_s else AdapterCosts(costs, section.adapter_s)


def adapting_first(scenario: Scenario, recipe: Callable[[Request], Recipe]) -> Callable[[Request], Recipe]:
    """What requests go through, their adapters first if they cost anything."""
    section = scenario.weights
    if section is None or not section.adapter_s:
        return recipe
    return lambda request: with_adapters(request, recipe(request))


def preloaded(scenario: Scenario, requests: Sequence[Request]) -> list[list[str]]:
    """The checkpoints that lie on each replica from the beginning.

    ``most-used`` deals those of the trace out, the most used first, round and round while there is room.

    Raises:
        BadInput: the section names more than fit.
    """
    loaded: list[list[str]] = [[] for _ in range(scenario.cluster.replicas)]
    section = scenario.weights
    if section is None or section.preload == "none":
        return loaded
    weights = weights_of(section)
    if not isinstance(section.preload, str):
        if not weights.fit(section.preload):
            raise BadInput(f"weights.preload: {', '.join(section.preload)} do not fit in {section.memory_gb} GB")
        return [list(section.preload) for _ in loaded]
    used = [checkpoint for checkpoint, _ in Counter([request.checkpoint for request in requests]).most_common()]
    dealt = True
    while dealt:
        dealt = False
        for checkpoint in used:
            open_to = [here for here in loaded if checkpoint not in here and weights.fit([*here, checkpoint])]
            if open_to:
                min(open_to, key=len).append(checkpoint)
                dealt = True
    return loaded
