"""From a scenario to its caching policy and to what that is expected to save."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from policies.caching import CachingPolicy, ComputeAll
from policies.caching.plan import CachePlans
from policies.load import load_policy
from predictors.profile import Profile
from predictors.recording import Recording
from predictors.reuse import ReuseModel
from predictors.shipped import find
from tilecast.scenario import Scenario, parse_setting
from traces.errors import BadInput
from traces.geometry import ModelGeometry
from traces.request import Request, Size
from traces.sizes import format_size, parse_size
from traces.trace import Trace

_DRAWS = 8  # draws of the reuse model that an expected share is averaged over


@dataclass(frozen=True)
class PreparedCache:
    """A scenario's cache.

    Attributes:
        policy: what decides.
        plans: what it will compute of each simulated request; None: no signals were recorded, so nobody knows.
        shares: the share of its work that a request of each size is expected to compute.
    """

    policy: CachingPolicy
    plans: CachePlans | None
    shares: dict[Size, float]


def caching_policy(scenario: Scenario) -> CachingPolicy:
    """The caching policy that a scenario names.

    Raises:
        BadInput: an unknown policy or parameter, or a missing file.
        PolicyError: what a user's policy does wrong.
    """
    section = scenario.policies.caching
    if section.name == "forest":
        forest = find(section.parameters.get("forest", scenario.model_name), "forest", scenario.base)
        section = section.with_parameters(forest=str(forest))
    policy: CachingPolicy = section.policy("caching", scenario.base)
    return policy


def prepare_cache(
    scenario: Scenario, profile: Profile | None, geometry: ModelGeometry, trace: Trace
) -> PreparedCache | None:
    """The cache of a scenario; None when everything is computed.

    Raises:
        BadInput: an unknown policy or parameter, or a missing or wrong file.
    """
    section, policy = scenario.policies.caching, caching_policy(scenario)
    if isinstance(policy, ComputeAll):
        return None
    if scenario.cluster.executor == "whole":
        raise BadInput(f"caching policy {section.name!r} needs cluster.executor = 'patched' or 'packed', not 'whole'")
    path = find(scenario.predictor.reuse or scenario.model_name, "reuse", scenario.base)
    if scenario.predictor.reuse is None and not path.is_file():
        return PreparedCache(policy, None, {})
    reuse = ReuseModel.fit(Recording.load(path), scenario.cluster.side_of_cached_patch * geometry.latent_factor)
    plans = CachePlans(policy, reuse, _block_weights(profile), scenario.seed)
    usual = _usual(trace.requests())
    return PreparedCache(policy, plans, {size: plans.expected_share(one, _DRAWS) for size, one in usual.items()})


def _usual(requests: Iterable[Request]) -> dict[Size, Request]:
    """For each size a request with its most frequent steps, images and guidance."""
    counts: dict[Size, Counter[tuple[int, int, bool]]] = {}
    examples: dict[tuple[Size, tuple[int, int, bool]], Request] = {}
    for request in requests:
        kind = (request.steps, request.images, request.guided)
        counts.setdefault(request.size, Counter())[kind] += 1
        examples.setdefault((request.size, kind), request)
    return {size: examples[size, count.most_common(1)[0][0]] for size, count in sorted(counts.items())}


def _block_weights(profile: Profile | None) -> list[float] | None:
    text = profile.metadata.get("block_weights") if profile is not None else None
    if text is None:
        return None
    try:
        return [float(weight) for weight in json.loads(text)]
    except (ValueError, TypeError) as error:
        raise BadInput(f"the profile's block_weights are {text[:80]!r}, expected a JSON list of numbers") from error


def parse_caching_policy(text: str) -> CachingPolicy:
    """``first-block``, or with parameters ``first-block:threshold=0.1,warmup=2``.

    Raises:
        BadInput: an unknown policy or parameter.
    """
    file, py, rest = text.partition(".py:")
    name, _, parameters = (rest if py else text).partition(":")
    try:
        given = {
            name: value for name, value in map(parse_setting, filter(None, parameters.split(","))) if value is not None
        }
    except BadInput as error:
        raise BadInput(f"--caching {text!r}: {str(error).removeprefix('--set ')}") from None
    policy: CachingPolicy = load_policy("caching", f"{file}{py}{name}" if py else name, given)
    return policy


def format_shares(shares: dict[Size, float]) -> dict[str, float]:
    """For ``run.json``."""
    return {format_size(size): share for size, share in shares.items()}


def read_shares(spelled: dict[str, float]) -> dict[Size, float]:
    """Back from ``run.json``.

    Raises:
        BadInput: a key spells no size.
    """
    return {parse_size(text): share for text, share in spelled.items()}
