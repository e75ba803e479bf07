"""What is asked of a cluster: the requests of a scenario's trace, as the models that it serves take them."""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Sequence
from pathlib import Path

from predictors.profile import Profile
from tilecast.file_memo import memoised_by_file
from tilecast.scenario import Scenario
from tilecast.sections import SloSection
from tilecast.served import ServedModel
from traces.clock import format_start, on_run_clock
from traces.errors import BadInput
from traces.geometry import known_model
from traces.notes import Note
from traces.references import REFERENCES, sides_in
from traces.request import Request
from traces.spikes import parse_spike, with_spikes
from traces.streams import stream
from traces.strength import IMAGE_TO_IMAGE
from traces.trace import Trace
from traces.unused import without_effect

_read_trace = memoised_by_file(Trace.load)


def read_trace(scenario: Scenario) -> Trace:
    """The trace that a scenario names, as it is.

    Raises:
        BadInput: there is none, or it is wrong.
    """
    section = scenario.trace
    if section.path is None:
        raise BadInput("the scenario names no trace; set trace.path, or pass --trace")
    return _read_trace(scenario.base / section.path) if section.in_memory is None else section.in_memory


def check_open(scenario: Scenario) -> None:
    """Refuse users, who ask when they have been answered, where a rate of requests is planned for.

    Raises:
        BadInput: the scenario has some.
    """
    if scenario.trace.users is not None:
        raise BadInput(
            "trace.users is no rate to plan for: users ask when they have been answered; 'tilecast ask' says how long "
            "they wait, and how many replicas they need"
        )


def load_demand(scenario: Scenario, members: Sequence[ServedModel], warnings: list[str | Note]) -> tuple[Trace, float]:
    """The trace of a run on its clock, and where that starts on the file's, in seconds.

    Args:
        scenario: names it.
        members: what serves it.
        warnings: what a reader must know is added to them.

    Raises:
        BadInput: there is no trace, or it is wrong; a request that nothing serves, or a pool that serves none.
    """
    section, whole = scenario.trace, read_trace(scenario)
    trace = whole
    if section.start_s or section.end_s is not None:
        trace = trace.slice(section.start_s, section.end_s if section.end_s is not None else float("inf"))
    if section.limit is not None:
        trace = trace.head(section.limit)
    if not len(trace):
        first_s, last_s = whole.span
        raise BadInput(
            f"{section.path}: no requests left after trace.start_s, trace.end_s and trace.limit; "
            f"its arrivals are at {first_s:.15g} to {last_s:.15g} s"
        )
    trace, clock_start_s = on_run_clock(trace)
    if clock_start_s:
        warnings.append(format_start(clock_start_s))
    if unused := without_effect(trace.frame):
        warnings.append(unused)
    if scenario.weights is None and (trace.frame["adapters"] != "").any():
        warnings.append(
            "adapters are taken to cost nothing, neither to put on nor in a step; weights.adapter_s says otherwise"
        )
    clock_start_s += section.start_s
    if section.rate_scale != 1.0:
        trace = trace.scale_rate(section.rate_scale)
    if section.spikes:
        spikes = [parse_spike(text) for text in section.spikes]
        arrival, last_s = trace.frame["arrival_s"], trace.span[1]
        for text, spike in zip(section.spikes, spikes, strict=True):
            if not arrival.between(spike.start_s, spike.start_s + spike.seconds, inclusive="left").any():
                warnings.append(
                    f"spike {text} changes nothing: no request arrives then; the last one does at {last_s:.6g} s"
                )
        trace = with_spikes(trace, spikes, stream(scenario.seed, "trace/spikes"))
    if section.steps_scale != 1.0:
        trace = trace.with_steps(section.steps_scale)
    return _as_served(scenario, members, trace, warnings), clock_start_s


def _as_served(scenario: Scenario, members: Sequence[ServedModel], trace: Trace, warnings: list[str | Note]) -> Trace:
    """The same requests, of each model as that takes them."""
    if not scenario.pool:
        others = sorted(set(trace.frame["model"]) - {"", scenario.model_name})
        if others:
            scaled = ", sizes scaled to it" if scenario.trace.fit_sizes else ""
            warnings.append(f"requests for {', '.join(others)} run as {scenario.model_name}{scaled}")
        return _of_member(members[0], trace, warnings)
    first = {member.model: member for member in reversed(members)}
    named = trace.frame["model"]
    called = {name: served_as(name or scenario.model_name, first) for name in named.unique()}
    if unknown := [name for name, meant in called.items() if not meant]:
        at = named[named == unknown[0]].index[0]
        raise BadInput(
            f"{trace.source}: request {trace.frame['request_id'][at]!r}: model {unknown[0] or scenario.model_name!r} "
            f"is served by no pool; expected one of: {', '.join(sorted(first))}"
        )
    asked = set(called.values())
    for pool in scenario.pools:
        own = [member.model for member in members if member.pool.name == pool.name]
        if not asked.intersection(own):
            raise BadInput(
                f"pool {pool.name!r} serves {', '.join(own)}, which no request of {trace.source} asks for; take it "
                "out, or give it other models"
            )

    def taken(model: str, part: Trace) -> Trace:
        part = _of_member(first[model], part, warnings)
        return part if scenario.weights is None or len(first) == 1 else part.with_checkpoint(model)

    return trace.by_part(named.map(called).tolist(), taken)


def served_as(name: str, served: Container[str]) -> str:
    """The served model that a request's model means; empty: none."""
    if name in served:
        return name
    meant = known_model(name)
    return meant if meant in served else ""


def _of_member(member: ServedModel, trace: Trace, warnings: list[str | Note]) -> Trace:
    """The same requests, all of one model."""
    scenario, geometry = member.scenario, member.geometry
    if scenario.trace.fit_sizes:
        trace = trace.scale_sizes(geometry)
    pipeline = _pipeline_of(scenario, member.profile)
    image_to_image = IMAGE_TO_IMAGE.get(pipeline)
    if image_to_image is not None:
        trace = trace.with_schedules(image_to_image)
    elif count := int(trace.frame["strength"].notna().sum()):
        warnings.append(f"strength of {count} requests has no effect: {member.model} is not known to be image to image")
    if (reference := REFERENCES.get(pipeline)) is not None:
        trace = trace.with_references(reference, geometry.size_multiple, sides_in(scenario.images))
    trace, notes = trace.guided_as(geometry)
    warnings += notes
    trace = trace.with_model(member.model)
    trace.check(geometry)
    return trace


def _pipeline_of(scenario: Scenario, profile: Profile | None) -> str:
    """The class of the scenario's pipeline, as its folder says, or else its profile; "": neither does."""
    try:
        index = json.loads((Path(scenario.model_source) / "model_index.json").read_bytes())
        return str(index["_class_name"])
    except (OSError, ValueError, LookupError, TypeError):
        return "" if profile is None else profile.metadata.get("pipeline", "")


def with_deadlines(slo: SloSection, trace: Trace, standalone: Callable[[Request], float]) -> Trace:
    """A trace whose requests have the deadlines that a scenario gives those that have none.

    Args:
        slo: what it says of them.
        trace: the requests.
        standalone: predicted seconds of a request alone on an idle replica.

    Raises:
        BadInput: a priority that leaves a request no time, or without end.
    """
    if slo.scale is not None:
        return trace.with_slo(scale=slo.scale, standalone=standalone, priority_factor=slo.priority_factor)
    return trace if slo.absolute_s is None else trace.with_slo(slo.absolute_s, priority_factor=slo.priority_factor)
