"""The ``[weights]`` section of a scenario: many checkpoints and adapters on few replicas."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

from policies.contract import SchedulingPolicy
from policies.weights import ModelSwapping
from predictors.costs import CostModel
from predictors.loading import AdapterCosts, LoadRate, LoadRates, Weights, with_adapters
from predictors.profile import LOADS, Profile
from tilecast.scenario import Scenario
from tilecast.sections import PoolSection, WeightsSection
from tilecast.served import ServedModel
from tilecast.stages import come_twice
from traces.errors import BadInput
from traces.request import Request
from traces.stages import Recipe
from traces.trace import Trace

_ASSUMED = LoadRates(LoadRate(2.0), LoadRate(20.0))
"""What loads take where nobody says."""


class PreparedWeights(NamedTuple):
    """The weights of a scenario.

    Attributes:
        weights: sizes, memory and rates.
        models: the model of each checkpoint that the trace or the section names.
        folders: of each of them; empty where the scenario names no folder.
        by_pool: the same with the memory of each pool, and the checkpoints of the models that it serves, by its name.
        note: where the seconds of loads are taken from, in a sentence; "": the scenario states them.
    """

    weights: Weights
    models: dict[str, str]
    folders: dict[str, Path]
    by_pool: dict[str, Weights]
    note: str = ""

    @property
    def facts(self) -> dict[str, Any]:
        """For ``run.json``: what was loaded at which rates."""
        return {**asdict(self.weights), "loading": self.note or "as [weights] states"}


def prepare_weights(scenario: Scenario, trace: Trace, members: Sequence[ServedModel]) -> PreparedWeights | None:
    """Sizes and rates of the checkpoints; None: the scenario loads none.

    Raises:
        BadInput: one that does not fit in the memory, whose size is not spelled as it should be, that has no folder, or
            that requests of two models want.
    """
    section = scenario.weights
    if section is None:
        return None
    sizes: dict[str, float] = {}
    for text in section.checkpoints_gb:
        checkpoint, _, gb = text.rpartition(":")
        try:
            sizes[checkpoint] = float(gb)
        except ValueError as error:
            raise BadInput(f"weights.checkpoints_gb: {text!r}, expected checkpoint:GB, like M0001:2.1") from error
    models = _models(trace, members, () if isinstance(section.preload, str) else section.preload)
    folders: dict[str, Path] = {}
    if section.folder is not None:
        from backend.checkpoints import weights_bytes  # which needs no torch

        folders = checkpoints_in(scenario.base / section.folder, members, models)
        if section.weights_gb is None:
            dtype, *others = dict.fromkeys([member.scenario.cluster.weights_dtype for member in members])
            if others:
                raise BadInput(
                    f"weights.weights_gb: pools load weights as {dtype} and as {others[0]}, which are of other sizes; "
                    "expected weights_gb, or one dtype"
                )
            read = {name: weights_bytes(path, dtype) / 1e9 for name, path in folders.items() if name not in sizes}
            sizes = read | sizes
    rates, note = _rates(section, members[0].profile)
    weights = Weights(
        memory_gb=section.memory_gb,
        weights_gb=max(sizes.values()) if section.weights_gb is None else section.weights_gb,
        host_gb=section.host_gb,
        disk_gb_per_s=rates.disk.gb_per_s,
        host_gb_per_s=rates.host.gb_per_s,
        load_s=rates.disk.s,
        host_load_s=rates.host.s,
        of=sizes,
    )
    return PreparedWeights(weights, models, folders, _by_pool(weights, models, members), note)


def checkpoints_in(folder: Path | None, members: Sequence[ServedModel], models: Mapping[str, str]) -> dict[str, Path]:
    """The diffusers folder of each checkpoint. Of several models, a checkpoint with the name of one is its own.

    Args:
        folder: where checkpoints lie; None: nowhere.
        members: what is served.
        models: of each checkpoint.

    Raises:
        BadInput: one has no folder.
    """
    from backend.checkpoints import checkpoint_folders  # which needs no torch

    sources = {member.model: member.scenario.model_source for member in reversed(members)}
    found: dict[str, Path] = {}
    for name, model in models.items():
        if len(sources) > 1 and name == model:
            found[name] = checkpoint_folders(None, sources[model], [""])[""]
        else:
            found |= checkpoint_folders(folder, sources[model], [name])
    return found


def _models(trace: Trace, members: Sequence[ServedModel], preloaded: Sequence[str]) -> dict[str, str]:
    """The model of each checkpoint that the trace or the section names."""
    wanted = trace.frame[["checkpoint", "model"]].drop_duplicates()
    if (twice := wanted["checkpoint"].duplicated()).any():
        name = wanted["checkpoint"][twice].iloc[0]
        models = ", ".join(sorted(wanted["model"][wanted["checkpoint"] == name]))
        raise BadInput(f"{trace.source}: checkpoint {name!r} is asked for of several models: {models}; expected one")
    found = dict(zip(wanted["checkpoint"], wanted["model"], strict=True))
    served = sorted({member.model for member in members})
    for name in preloaded:
        if name in found:
            continue
        if len(served) > 1 and name not in served:
            raise BadInput(f"weights.preload: no request asks for {name!r}, so which of {', '.join(served)} is it of?")
        found[name] = name if len(served) > 1 else served[0]
    return found


def _by_pool(weights: Weights, models: Mapping[str, str], members: Sequence[ServedModel]) -> dict[str, Weights]:
    """The weights of each pool: its memory, and what its models' requests want."""
    found = {}
    for name in dict.fromkeys([member.pool.name for member in members]):
        own = [member for member in members if member.pool.name == name]
        served = {member.model for member in own}
        section = own[0].scenario.weights
        assert section is not None
        others = {checkpoint for checkpoint, model in models.items() if model not in served}
        of = {checkpoint: gb for checkpoint, gb in weights.of.items() if checkpoint not in others}
        try:
            found[name] = replace(weights, memory_gb=section.memory_gb, of=of)
        except BadInput as error:
            raise BadInput(f"pool {name!r}: {error}") from error
    return found


def _rates(section: WeightsSection, profile: Profile | None) -> tuple[LoadRates, str]:
    """What loads take, and in a sentence where that is from, unless the section states it."""
    text = None if profile is None else profile.metadata.get(LOADS)
    usual = _ASSUMED if text is None else LoadRates.of(text)
    stated = (section.disk_gb_per_s, section.host_gb_per_s)
    disk, host = (
        LoadRate(
            rate.gb_per_s if gb_per_s is None else gb_per_s,
            section.load_s if section.load_s is not None else rate.s if gb_per_s is None else 0.0,
        )
        for rate, gb_per_s in zip(usual, stated, strict=True)
    )
    needed = [(disk, "disk", stated[0])]
    if section.host_gb:
        needed.append((host, "host memory", stated[1]))
    open_to = [f"{rate.gb_per_s:.3g} GB/s from {source}" for rate, source, gb_per_s in needed if gb_per_s is None]
    basis = "neither [weights] nor the profile says" if text is None else "as the profile measured"
    note = f"loads are predicted at {' and '.join(open_to)}: {basis}" if open_to else ""
    return LoadRates(disk, host), note


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
    """The scheduling policy of a scenario, serving many checkpoints if it has the section, sets of adapters, and
    requests that come to a pool twice.

    Raises:
        BadInput: an unknown weights policy, or a parameter it does not take.
    """
    section = scenario.weights
    if section is None:
        several = len({(request.model, request.adapters) for request in trace.requests()}) > 1 or come_twice(scenario)
        return ModelSwapping(policy) if several else policy
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


def preloaded(scenario: Scenario, weights: PreparedWeights | None, requests: Sequence[Request]) -> list[list[str]]:
    """The checkpoints that lie on each replica from the beginning.

    ``most-used`` deals those of the trace out, the most used first, round and round while there is room. A list lies on
    every replica, but for what its pool does not serve.

    Raises:
        BadInput: the section names more than fit.
    """
    pools = scenario.pool_of_replicas
    loaded: list[list[str]] = [[] for _ in pools]
    section = scenario.weights
    if section is None or weights is None or section.preload == "none":
        return loaded

    def serves(pool: PoolSection, checkpoint: str) -> bool:
        served = [Path(model).name for model in pool.models or (scenario.model,)]
        return not scenario.pool or weights.models[checkpoint] in served

    if not isinstance(section.preload, str):
        loaded = [[checkpoint for checkpoint in section.preload if serves(pool, checkpoint)] for pool in pools]
        for pool, here in zip(pools, loaded, strict=True):
            if not weights.by_pool[pool.name].fit(here):
                memory_gb = weights.by_pool[pool.name].memory_gb
                raise BadInput(f"weights.preload: {', '.join(here)} do not fit in {memory_gb} GB")
        return loaded
    used = [checkpoint for checkpoint, _ in Counter([request.checkpoint for request in requests]).most_common()]

    def takes(pool: PoolSection, here: list[str], checkpoint: str) -> bool:
        return (
            serves(pool, checkpoint) and checkpoint not in here and weights.by_pool[pool.name].fit([*here, checkpoint])
        )

    dealt = True
    while dealt:
        dealt = False
        for checkpoint in used:
            open_to = [here for pool, here in zip(pools, loaded, strict=True) if takes(pool, here, checkpoint)]
            if open_to:
                min(open_to, key=len).append(checkpoint)
                dealt = True
    return loaded
