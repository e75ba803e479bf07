"""A scenario: what to run, written in TOML or in Python. Every verb takes the same one.

In Python a policy, a trace or a profile may also be an object. The section that it belongs to then names it by what is
in it, so that two scenarios are the same if and only if they hold the same things, in this process and in any other.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PrivateAttr, ValidationError, model_validator

from policies.contract import Policy
from tilecast.sections import (
    INSTEAD_OF,
    ClusterSection,
    FaultsSection,
    PlanSection,
    PoliciesSection,
    PolicySection,
    PoolSection,
    PredictorSection,
    ScalingSection,
    Section,
    SloSection,
    TenantsSection,
    TilingSection,
    TraceSection,
    WeightsSection,
    WorldSection,
    by_name,
)
from traces.errors import BadInput, did_you_mean, first_problem
from traces.limits import (
    PathText,
    Seed,
)
from traces.output import reads
from traces.paths import files_in, with_home
from traces.text import MOST_LEVELS, parse_toml, read_toml
from traces.trace import Trace

_RESIDENCY = (
    "unknown key 'residency'; did you mean 'weights'? residency.dispatch is policies.routing, residency.keep is "
    "policies.weights, and the rest is [weights]"
)


class Scenario(Section):
    """What to run.

    In Python each section is a dictionary or a section, and what most scenarios name has a short way:
    ``Scenario(model="tiny-image", trace=Trace.load("t.csv"), profile="cpu-1core", scheduler=Mine(), replicas=2)``.

    Args:
        model: a known model, or a diffusers folder.
        trace: the requests: a `Trace`, a file, or the section.
        profile: measurements: a `Profile`, a file, or what ships under that name.
        hardware: a kind of ``tilecast hardware list``, whose data sheet says what things cost, or a profile with it.
        scheduler: a policy, or the name of one.
        replicas: replicas of the model.
        sections: all other keys, see ``tilecast scenario keys``.

    Raises:
        BadInput: an unknown key (the nearest known one is named), or a wrong value.
    """

    model: PathText = Field(description="A known model, or a diffusers folder beside the scenario.")
    seed: Seed = Field(0, description="Of all random draws; the same seed gives the same bytes.")
    trace: TraceSection = TraceSection()
    cluster: ClusterSection = ClusterSection()
    pool: Annotated[tuple[PoolSection, ...], Field(max_length=1000)] = ()  # none: what [cluster] says is all
    tiling: TilingSection | None = None  # None: no request is tiled
    predictor: PredictorSection = PredictorSection()
    world: WorldSection = WorldSection()
    faults: FaultsSection | None = None  # None: nothing goes wrong
    policies: PoliciesSection = PoliciesSection()
    scaling: ScalingSection | None = None  # None: all replicas are always there
    weights: WeightsSection | None = None  # None: all requests want the same weights, always there
    tenants: TenantsSection | None = None  # None: whose a request is decides nothing
    slo: SloSection = SloSection()
    plan: PlanSection = Field(PlanSection(), exclude=True)  # decides nothing of a run
    base: Path = Field(Path(), exclude=True)
    _source: str = PrivateAttr("scenario")

    def __init__(
        self,
        model: str = "",
        *,
        trace: Any = None,
        profile: Any = None,
        hardware: str | None = None,
        scheduler: Any = None,
        replicas: int | None = None,
        **sections: Any,
    ) -> None:
        given = dict(sections)
        source = str(given.pop("_source", "scenario"))
        if model != "":
            given["model"] = model
        if trace is not None:
            given["trace"] = {"path": trace} if isinstance(trace, Trace | str | Path) else trace
        short = {
            "predictor.profile": profile,
            "predictor.hardware": hardware,
            "policies.scheduling": scheduler,
            "cluster.replicas": replicas,
        }
        for key, value in short.items():
            if value is not None:
                given = _laid_over(given, key, value)
        if "residency" in given:
            raise BadInput(f"{source}: {_RESIDENCY}")
        try:
            super().__init__(**given)
        except ValidationError as error:
            raise BadInput(f"{source}: {first_problem(error, Scenario)}") from error
        if self.pool and self.cluster.replicas != type(self.cluster).model_fields["replicas"].default:
            names = ", ".join([f"pool.{pool.name}.replicas" for pool in self.pool])
            raise BadInput(f"{source}: cluster.replicas is of a cluster without pools; expected {names}")
        self._source = source

    @property
    def model_name(self) -> str:
        """What profiles and traces call the model: its name, or the last part of its folder's path."""
        return Path(self.model).name

    def replaced(self, given: Mapping[str, Any]) -> Scenario:
        """The same scenario with some dotted keys otherwise, like ``{"cluster.replicas": 4}``.

        None takes a key, or a section, out of the scenario: it is what it is by default.

        Raises:
            BadInput: an unknown key, or a wrong value.
        """
        return _made(_table(self), given, self.base, self._source)

    @model_validator(mode="after")
    def _consistent(self) -> Scenario:
        names = [pool.name for pool in self.pool]
        if len(set(names)) < len(names):
            raise ValueError("expected pools of different names")
        if len({pool.price_per_hour is None for pool in self.pool}) > 1:
            raise ValueError("expected a price_per_hour for every pool or for none")
        for pool in self.pool:
            for key, given in (("profile", pool.profile), ("executor", pool.executor)):
                served = pool.models or (self.model,)
                unknown = [model for model in given if model not in served] if isinstance(given, dict) else []
                if unknown:
                    raise ValueError(f"pool {pool.name!r}: {key} of {unknown[0]!r}, which is none of its models")
        return self

    @property
    def pools(self) -> tuple[PoolSection, ...]:
        """What it runs on; a scenario that names no pools has one, of all replicas."""
        return self.pool or (PoolSection(name="all", replicas=self.cluster.replicas),)

    @property
    def replicas(self) -> int:
        """Of all pools."""
        return sum([pool.replicas for pool in self.pools])

    @property
    def pool_of_replicas(self) -> list[PoolSection]:
        """The pool of each replica."""
        return [pool for pool in self.pools for _ in range(pool.replicas)]

    def serving(self, pool: PoolSection, model: str) -> Scenario:
        """The same scenario as if one pool were the cluster, and served one of its models alone."""
        if not self.pool:
            return self
        given: dict[str, Any] = {"model": model, "pool": (), "cluster.replicas": pool.replicas}
        if pool.profile is not None or pool.hardware is not None:
            given |= {"predictor.profile": _of_model(pool.profile, model), "predictor.hardware": pool.hardware}
        own = {
            "predictor.engine": pool.engine,
            "predictor.dtype": pool.precision,
            "cluster.executor": _of_model(pool.executor, model),
            "cluster.devices": pool.devices,
            "cluster.link_latency_s": pool.link_latency_s,
            "cluster.link_bytes_per_s": pool.link_bytes_per_s,
            "cluster.network_latency_s": pool.network_latency_s,
            "cluster.network_bytes_per_s": pool.network_bytes_per_s,
            "cluster.price_per_hour": pool.price_per_hour,
            "cluster.device": pool.device,
            "cluster.dtype": pool.dtype,
            "weights.memory_gb": pool.memory_gb,
            "scaling.least": pool.least,
            "scaling.initial": pool.initial,
        }
        sections = {"weights": self.weights, "scaling": self.scaling}
        return self.replaced(
            {
                **given,
                **{
                    key: value
                    for key, value in own.items()
                    if value is not None and sections.get(key.partition(".")[0], self) is not None
                },
            }
        )

    @property
    def images(self) -> Path | None:
        """The folder of the pictures that requests start from."""
        return None if self.trace.images is None else self.base / self.trace.images

    @property
    def adapters(self) -> Path | None:
        """The folder of the adapters that requests name."""
        return None if self.cluster.adapters is None else self.base / self.cluster.adapters

    @property
    def model_source(self) -> str:
        """What the backend loads: the folder beside the scenario if there is one, else the name as it stands."""
        beside = self.base / self.model
        return str(beside) if (beside / "model_index.json").is_file() else self.model


def load_scenario(path: Path, overrides: Mapping[str, Any]) -> Scenario:
    """Read a scenario and lay ``overrides`` (dotted keys) over it; None takes a key out of it.

    Raises:
        BadInput: no such file, no TOML, an unknown key (the nearest known one is named), or a wrong value.
    """
    path = Path(path)
    data = read_toml(path)
    reads([path])
    return _made(data, overrides, path.parent, str(path))


def parse_setting(text: str) -> tuple[str, Any]:
    """``key=value`` of ``--set``; the value is TOML, or else a plain string; None where there is none (``key=``)."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise BadInput(f"--set {text!r}: expected key=value, like cluster.replicas=4")
    if not value.strip():
        return key.strip(), None
    try:
        tomllib.loads(f"value = {value}")
    except tomllib.TOMLDecodeError:
        return key.strip(), value
    except (ValueError, RecursionError):
        pass  # of which `parse_toml` says what is wrong
    return key.strip(), parse_toml(f"value = {value}", f"--set {key}")["value"]


def _made(data: Mapping[str, Any], overrides: Mapping[str, Any], base: Path, source: str) -> Scenario:
    for key, value in overrides.items():
        if key.count(".") > MOST_LEVELS:
            raise BadInput(f"--set {key[:40]!r}...: expected a key of at most {MOST_LEVELS} sections")
        if value is None:
            _check_known(key)
        elif (other := INSTEAD_OF.get(key)) and overrides.get(other) is None:
            data = _laid_over(data, other, None)
        data = _laid_over(data, key, value)
    data = with_home({name: value for name, value in data.items() if name != "base"})
    reads(files_in(data, base))
    return Scenario(**data, base=base, _source=source)


def _laid_over(data: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    """``data`` with the value of a dotted key, or without it where that is None; what it holds is left as it is."""
    first, dot, rest = key.partition(".")
    if value is None and (not dot or first not in data):
        return {name: each for name, each in data.items() if name != key}
    if not dot:
        return {**data, first: value}
    inner = data.get(first)
    if isinstance(inner, PolicySection) and inner.in_memory is not None:
        return {**data, first: inner.with_parameters(**{rest: value})}
    if isinstance(inner, str | Policy) and first in _POLICIES:
        inner = by_name(inner)
    if isinstance(inner, Section):
        inner = _table(inner)
    if isinstance(inner, list | tuple):
        return {**data, first: _laid_over_named(inner, key, rest, value)}
    if inner is not None and not isinstance(inner, Mapping):
        raise BadInput(f"--set {key}: {first!r} is a value, not a section")
    return {**data, first: _laid_over(inner or {}, rest, value)}


def _check_known(key: str) -> None:
    """Refuse to take out what is no key, whose name may be a mistake.

    Raises:
        BadInput: it is none.
    """
    from tilecast.keys import section_in

    section: Any = Scenario
    parts = iter(key.split("."))
    for part in parts:
        if section is None or section is PolicySection:
            return  # of which any name may be a key
        if part not in section.model_fields:
            raise BadInput(f"--set {key}=: unknown key {part!r}; {did_you_mean(part, section.model_fields)}")
        if part == "pool":
            next(parts, None)  # its name
        section = section_in(section.model_fields[part].annotation)


def _laid_over_named(sections: Sequence[Any], key: str, rest: str, value: Any) -> list[Any]:
    """A list of sections of which the one with the name at the head of ``rest`` has a value laid over."""
    name, dot, inner = rest.partition(".")
    found = [_table(section) if isinstance(section, Section) else section for section in sections]
    names = [section.get("name") if isinstance(section, Mapping) else None for section in found]
    if not dot or name not in names:
        known = ", ".join([str(each) for each in names])
        raise BadInput(f"--set {key}: expected {key.partition('.')[0]}.NAME.KEY, with the name of one of: {known}")
    return [_laid_over(each, inner, value) if each.get("name") == name else each for each in found]


def _of_model(given: Any, model: str) -> Any:
    """What a pool says of one model, where it may say it of all or of each."""
    return given.get(model) if isinstance(given, Mapping) else given


def _table(section: Section) -> dict[str, Any]:
    """What a section sets, as `Scenario` takes it."""
    table = {name: getattr(section, name) for name in section.model_fields_set if name in type(section).model_fields}
    if isinstance(section, PolicySection):
        return {**section.parameters, **table}
    if isinstance(section, TraceSection | PredictorSection) and section.in_memory is not None:
        table["path" if isinstance(section, TraceSection) else "profile"] = section.in_memory
    return table


_POLICIES = ("scheduling", "routing", "scaling", "weights", "caching", "tile_caching", "placement")
