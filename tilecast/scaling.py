"""The ``[scaling]`` section of a scenario: replicas that come and go."""

from __future__ import annotations

from collections.abc import Sequence

from policies.scaling.elastic import Elastic
from predictors.loading import LoadRate, LoadRates, LoadTimes, Weights
from predictors.profile import LOADS, Profile
from tilecast.scenario import Scenario
from tilecast.sections import PolicySection, ScalingSection
from traces.errors import BadInput

_DISK = LoadRate(2.0)
"""How fast weights come where nobody says, as of ``[weights]``."""


def elastic_of(scenario: Scenario, start_s: float) -> Elastic | None:
    """How the replicas of a scenario come and go; None: all are always there.

    Args:
        scenario: which.
        start_s: predicted seconds from the order to start a replica until it takes requests.

    Raises:
        BadInput: an unknown policy, a parameter it does not take, or limits that are none.
        PolicyError: what a user's policy does wrong.
    """
    section = scaling_section(scenario)
    if section is None:
        return None
    most = scenario.cluster.replicas
    for field, value in (("least", section.least), ("initial", section.initial)):
        if value is not None and value > most:
            raise BadInput(f"scaling.{field} is {value}, but there are at most {most} (cluster.replicas)")
    if section.initial is not None and section.initial < section.least:
        raise BadInput(f"scaling.initial is {section.initial}, but there are at least {section.least} (scaling.least)")
    policy = scenario.policies.scaling or PolicySection(name="queue")
    return Elastic(policy.policy("scaling", scenario.base), section.least, section.initial, start_s)


def scaling_section(scenario: Scenario) -> ScalingSection | None:
    """The section, or what it says by default where the scenario only names a scaling policy; None: neither."""
    if scenario.scaling is None and scenario.policies.scaling is not None:
        return ScalingSection()
    return scenario.scaling


def start_seconds(
    scenario: Scenario, profile: Profile | None, weights: Weights | None, loaded: Sequence[Sequence[str]]
) -> tuple[list[float], str]:
    """What each replica takes from the order to start it until it takes requests, seconds; and in a sentence where the
    seconds of its load are from, "": the scenario states them.

    Args:
        scenario: one whose replicas come and go.
        profile: what was measured.
        weights: of checkpoints that are loaded; None: all requests want the model's own.
        loaded: checkpoints that lie on each replica when it takes requests.
    """
    section = scaling_section(scenario)
    assert section is not None
    around_s = section.provisioning_s + section.warm_up_s
    if section.load_s is not None:
        return [around_s + section.load_s for _ in loaded], ""
    if weights is not None:
        times = LoadTimes(weights, [()])
        return [around_s + sum([times.expected(0, each) for each in held]) for held in loaded], ""
    from backend.checkpoints import weights_bytes  # which needs no torch
    from backend.folder import model_folder

    try:
        folder = model_folder(scenario.model_source)
    except BadInput:
        return [around_s for _ in loaded], "a replica is taken to start without a load; scaling.load_s says otherwise"
    text = None if profile is None else profile.metadata.get(LOADS)
    rate = _DISK if text is None else LoadRates.of(text).disk
    gb = weights_bytes(folder, scenario.cluster.weights_dtype) / 1e9
    of_model_s = rate.s + gb / rate.gb_per_s
    basis = "scaling.load_s does not say" if text is None else "as the profile measured"
    note = f"a replica's start loads {gb:.3g} GB at {rate.gb_per_s:.3g} GB/s, in {of_model_s:.3g} s: {basis}"
    return [around_s + of_model_s for _ in loaded], note
