"""A scenario: one TOML file that says what to run. `simulate` and `replay` take the same one."""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from traces.errors import BadInput


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StepReductionSection(_Section):
    """A share of the requests skips its first denoising steps (NIRVANA); deadlines are those of all steps.

    A replay makes such a picture in fewer steps from noise: what it costs is real, what it would start from is not.
    """

    share: float = Field(0.0, ge=0, le=1)
    skip: str | None = None  # steps of 50, like 5:0.3,10:0.7 (steps:weight)

    @model_validator(mode="after")
    def _both(self) -> StepReductionSection:
        if self.share and self.skip is None:
            raise ValueError('expected skip beside share, like skip = "5:0.3,10:0.7" (steps of 50:weight)')
        return self


class TraceSection(_Section):
    """Which requests, and what is done to them first, in this order."""

    path: str | None = None
    start_s: float = Field(0.0, ge=0)
    end_s: float | None = None
    limit: int | None = Field(None, ge=1)
    rate_scale: float = Field(1.0, gt=0)
    images: str | None = None  # folder of the pictures that requests start from
    fit_sizes: bool = False  # scale the sizes to the model's native size
    steps_scale: float = Field(1.0, gt=0)
    step_reduction: StepReductionSection = StepReductionSection()
    spikes: tuple[str, ...] = ()  # like 600:120:3: from 600 s on, for 120 s, 3 times as many requests


class ClusterSection(_Section):
    """What it runs on."""

    replicas: int = Field(1, ge=1)
    devices: int = Field(1, ge=1)  # a replica; more than one share the tiles of large requests
    device: str = "cpu"
    dtype: Literal["float32", "float64", "bfloat16", "float16"] = "float32"
    threads: int | None = Field(None, ge=1)  # CPU threads of torch; None: its own choice
    executor: Literal["whole", "patched", "packed"] = "whole"  # how batches of several sizes run
    kernels: Literal["auto", "reference"] = "auto"  # fused and recorded where the device can, or plain PyTorch
    decode: Literal["whole", "patched", "tiled", "blended"] = "whole"  # see backend.decode
    patch_floor: int | None = Field(None, ge=1)  # least side of a patch, latent pixels; None: what was measured to pay
    cache_bytes: int = Field(2**30, ge=0)  # what a cache may keep on a replica; a simulated one keeps all
    cache_patch: int = Field(32, ge=0)  # largest side of a cached patch, latent pixels; 0: whole images
    link_latency_s: float = Field(1e-5, ge=0)  # of a message between two devices of a replica, simulated
    link_bytes_per_s: float = Field(5e10, gt=0)  # of one device, simulated
    rank_timeout_s: float = Field(60.0, gt=0)  # real: the longest wait for another device's process


class TilingSection(_Section):
    """Requests larger than the model are sketched at its native size, enlarged, and refined tile by tile."""

    above: float = Field(1.0, gt=0)  # those of more than so many times the native area
    refine: float = Field(0.9, gt=0, le=1)  # share of the denoising steps that refinement repeats
    tile: str = "native"  # largest tile: native, planned (the fastest grid on these devices), or like 512x768 pixels
    mode: Literal["wrap", "clamp"] = "wrap"  # what tiles do at the edges of the canvas, see policies.tiling.grid
    overlap: int = Field(0, ge=0)  # pixels that a tile sees beyond what it draws
    stride: float = Field(1 / 16, ge=0, le=1)  # share of a tile that the grid moves at once
    stand: int = Field(1, ge=1)  # steps for which it stands before it moves
    positions: Literal["local", "absolute", "ntk"] = "local"  # see backend.tiled.adapters
    reuse: Literal["output", "residual"] = "output"  # what a reused tile hands on, see backend.tiled.refine
    batch: int = Field(1, ge=1)  # tiles in one forward at most
    image: Literal["refine", "condition"] = "refine"  # or shown to an image-to-video model


class PredictorSection(_Section):
    """What the policy knows about cost: measurements, the roofline of a hardware kind, or that calibrated by them."""

    profile: str | None = None
    hardware: str | None = None  # a kind of 'tilecast hardware list', or of a file: mine.toml, mine.toml:kind
    dtype: Literal["bfloat16", "float16", "float32"] | None = None  # of a roofline; None: what is usual on the hardware
    latency_model: str = "boosted"  # fitted to the profile; a roofline takes its place where hardware is set
    reuse: str | None = None  # recorded cache signals: a file, or what ships under that name; None: the model's, if any
    tile_reuse: str | None = None  # the same of tiles
    online: bool = True  # corrected by what launches really took; simulate --per-step sets it false
    # simulate only: the policy knows the world's durations but for noise (with a cache: what is reused on average)
    oracle: bool = False
    error: float = Field(0.0, gt=-1)  # 0.2: the policy believes, and goes on believing, that all takes 20 % longer
    max_extrapolation: float = Field(4.0, ge=1)


class WorldSection(_Section):
    """How the simulated world differs from the profile."""

    latency_model: str | None = None  # None: the predictor's
    noise: bool = True
    slowdown: float = Field(1.0, gt=0)


class FaultsSection(_Section):
    """What goes wrong in a simulation; see `sim.faults.Faults`."""

    mtbf_s: float | None = Field(None, gt=0)
    repair_s: float = Field(300.0, gt=0)
    cold_start_s: float = Field(0.0, ge=0)
    starts_cold: bool = False
    outages: tuple[str, ...] = ()
    straggler_every_s: float | None = Field(None, gt=0)
    straggler_for_s: float = Field(60.0, gt=0)
    straggler_slowdown: float = Field(2.0, gt=0)
    slow: tuple[str, ...] = ()
    patience_s: float | None = Field(None, gt=0)
    in_flight: Literal["restart", "resume", "fail"] = "restart"  # what becomes of requests on a replica that fails


class PolicySection(_Section):
    """A policy by name (or file.py:Class); every other key is a parameter of it."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str

    @property
    def parameters(self) -> dict[str, Any]:
        """The policy's own parameters."""
        return dict(self.__pydantic_extra__ or {})


def _by_name(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


class PoliciesSection(_Section):
    """One policy of each kind."""

    scheduling: PolicySection = PolicySection(name="fcfs")
    caching: PolicySection = PolicySection(name="none")
    tile_caching: PolicySection = PolicySection(name="none")  # of tiled requests; caching is of blocks
    placement: PolicySection = PolicySection(name="cache-guided")

    @model_validator(mode="before")
    @classmethod
    def _names_alone(cls, data: Any) -> Any:
        if isinstance(data, dict):
            return {kind: _by_name(value) for kind, value in data.items()}
        return data


class ResidencySection(_Section):
    """Requests want the checkpoints that the trace names, which have to be loaded; simulated. GB are 10^9 bytes."""

    memory_gb: float = Field(gt=0)  # of a device, for weights: what a batch leaves
    weights_gb: float = Field(gt=0)  # a checkpoint
    checkpoints_gb: tuple[str, ...] = ()  # those of another size, like M0001:2.1
    host_gb: float = Field(0.0, ge=0)  # host memory in which a replica keeps what it has loaded
    disk_gb_per_s: float = Field(2.0, gt=0)
    host_gb_per_s: float = Field(20.0, gt=0)
    load_s: float = Field(0.0, ge=0)  # of any load, beside its bytes
    adapter_s: float = Field(0.0, ge=0)  # an adapter, put on before a request begins
    dispatch: Annotated[PolicySection, BeforeValidator(_by_name)] = PolicySection(name="affinity")
    keep: Annotated[PolicySection, BeforeValidator(_by_name)] = PolicySection(name="cost")
    patience: float = Field(30.0, gt=0)  # see policies.residency.many
    visit: float = Field(4.0, ge=0)
    preload: tuple[str, ...] | Literal["none", "most-used"] = "none"  # what lies there from the beginning


class SloSection(_Section):
    """Deadlines for requests that have none: a multiple of the standalone latency, or seconds."""

    scale: float | None = Field(None, gt=0)
    absolute_s: float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _one_of_two(self) -> SloSection:
        if self.scale is not None and self.absolute_s is not None:
            raise ValueError("expected either scale or absolute_s, not both")
        return self


class HardwareSection(_Section):
    """A kind of hardware that a plan may use; what it does not say is as in the scenario."""

    name: str
    profile: str | None = None  # measured on it
    hardware: str | None = None  # of the catalogue: estimated without a profile, calibrated with one
    price_per_hour: float | None = Field(None, gt=0)  # of a device
    devices: tuple[int, ...] = Field((1,), min_length=1)  # a replica, each of them tried
    max_replicas: int = Field(64, ge=1)

    @model_validator(mode="after")
    def _some_devices(self) -> HardwareSection:
        if min(self.devices) < 1:
            raise ValueError("expected devices of at least 1")
        return self


class PlanSection(_Section):
    """What `tilecast plan` searches for, and among what."""

    attainment: float = Field(0.95, gt=0, lt=1)  # share of the requests that must finish in time
    confidence: float = Field(0.95, gt=0.5, lt=1)
    hardware: tuple[HardwareSection, ...] = ()  # none: the scenario's own alone
    schedulers: tuple[str, ...] = ()  # none: the scenario's own alone
    demand: Literal["bootstrap", "fitted"] = "bootstrap"  # see traces.bootstrap
    seeds: int = Field(5, ge=2, le=1000)
    max_seeds: int = Field(20, ge=2, le=1000)
    requests: int = Field(2000, ge=10)  # of a replication, at first; three days at least where days are drawn
    max_requests: int = Field(16000, ge=10)

    @model_validator(mode="after")
    def _consistent(self) -> PlanSection:
        names = [kind.name for kind in self.hardware]
        if len(set(names)) < len(names):
            raise ValueError("expected hardware of different names")
        if len({kind.price_per_hour is None for kind in self.hardware}) > 1:
            raise ValueError("expected a price_per_hour for every hardware or for none")
        return self


class Scenario(_Section):
    """What to run. ``base`` is the folder that relative paths start from."""

    model: str
    seed: int = Field(0, ge=0)
    trace: TraceSection = TraceSection()
    cluster: ClusterSection = ClusterSection()
    tiling: TilingSection | None = None  # None: no request is tiled
    predictor: PredictorSection = PredictorSection()
    world: WorldSection = WorldSection()
    faults: FaultsSection | None = None  # None: nothing goes wrong
    policies: PoliciesSection = PoliciesSection()
    residency: ResidencySection | None = None  # None: all requests want the same weights, always there
    slo: SloSection = SloSection()
    plan: PlanSection = Field(PlanSection(), exclude=True)  # decides nothing of a run
    base: Path = Field(Path(), exclude=True)

    @property
    def model_name(self) -> str:
        """What profiles and traces call the model: its name, or the last part of its folder's path."""
        return Path(self.model).name

    @property
    def images(self) -> Path | None:
        """The folder of the pictures that requests start from."""
        return None if self.trace.images is None else self.base / self.trace.images

    @property
    def model_source(self) -> str:
        """What the backend loads: the folder beside the scenario if there is one, else the name as it stands."""
        beside = self.base / self.model
        return str(beside) if (beside / "model_index.json").is_file() else self.model


def load_scenario(path: Path, overrides: dict[str, Any]) -> Scenario:
    """Read a scenario and lay ``overrides`` (dotted keys) over it.

    Raises:
        BadInput: no such file, no TOML, an unknown key (the nearest known one is named), or a wrong value.
    """
    path = Path(path)
    try:
        data = tomllib.loads(path.read_text())
    except OSError as error:
        raise BadInput(f"cannot read scenario {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} is not TOML: {error}") from error
    for key, value in overrides.items():
        _lay_over(data, key, value)
    data.pop("base", None)
    try:
        return Scenario(**data, base=path.parent)
    except ValidationError as error:
        raise BadInput(f"{path}: {_first_problem(error)}") from error


def parse_setting(text: str) -> tuple[str, Any]:
    """``key=value`` of ``--set``; the value is TOML, or else a plain string."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise BadInput(f"--set {text!r}: expected key=value, like cluster.replicas=4")
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value


def _lay_over(data: dict[str, Any], key: str, value: Any) -> None:
    *sections, last = key.split(".")
    for section in sections:
        inner = data.setdefault(section, {})
        if isinstance(inner, str) and sections[0] in ("policies", "residency"):
            inner = data[section] = {"name": inner}
        if not isinstance(inner, dict):
            raise BadInput(f"--set {key}: {section!r} is a value, not a section")
        data = inner
    data[last] = value


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    location = [str(part) for part in problem["loc"]]
    where = ".".join(location)
    if problem["type"] == "extra_forbidden":
        section: Any = Scenario
        for part in [part for part in location[:-1] if not part.isdigit()]:
            annotation = section.model_fields[part].annotation
            section = next((a for a in get_args(annotation) if a is not type(None)), annotation)
        known = [name for name in section.model_fields if name != "base"]
        close = difflib.get_close_matches(location[-1], known, 1, cutoff=0.5)
        hint = f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}"
        return f"unknown key {where!r}{hint}"
    if problem["type"] == "missing":
        return f"key {where!r} is missing"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{where} is {problem['input']!r}: {message[0].lower()}{message[1:]}"
