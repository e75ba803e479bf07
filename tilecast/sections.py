"""The sections of a scenario: every key with its type, limits, default and meaning.

``tilecast scenario keys`` prints what stands here.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Annotated, Any, Literal, get_origin

import joblib
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, StrictBool, model_validator

from policies.contract import Policy
from policies.guard import name_of
from policies.load import built, checked_policy, load_policy, made_with
from predictors.profile import Profile
from tilecast.in_memory import InMemory, contents_of, is_named, named
from traces.errors import BadInput
from traces.limits import (
    DEVICES,
    REPLICAS,
    REQUESTS,
    SLOWDOWN,
    STEPS,
    THREADS,
    Factor,
    Instant,
    Interval,
    Name,
    PathText,
    PositiveSpan,
    Range,
    Share,
    Span,
)
from traces.rates import RATES_RPS, parse_percent, parse_rate
from traces.trace import Trace


class Section(BaseModel):
    """What all sections have in common: nothing unknown, nothing infinite, nothing that changes."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def __hash__(self) -> int:
        """Of what it says; a table among that counts by its keys and values."""
        return hash((type(self), *[_unchanging(getattr(self, name)) for name in type(self).model_fields]))

    @model_validator(mode="before")
    @classmethod
    def _one_alone(cls, data: Any) -> Any:
        """One value where a list is expected is a list of it."""
        if not isinstance(data, dict):
            return data
        listed = {name for name, field in cls.model_fields.items() if get_origin(field.annotation) is tuple}
        return {
            name: (value,) if name in listed and isinstance(value, str | int | float) else value
            for name, value in data.items()
        }


def _unchanging(value: Any) -> Hashable:
    return frozenset((key, _unchanging(of)) for key, of in value.items()) if isinstance(value, dict) else value


Several = Annotated[tuple[PathText, ...], Field(max_length=10_000)]
Dtype = Literal["float32", "float64", "bfloat16", "float16"]
Precision = Literal[
    "bfloat16",
    "float16",
    "float32",
    "tf32",
    "int8",
    "fp8",
    "fp4",
    "int4",
    "int8-weights",
    "fp8-weights",
    "fp6-weights",
    "fp4-weights",
    "int4-weights",
]
Engine = Literal["eager", "compile", "vendor"]
Executor = Literal["whole", "patched", "packed"]
DeviceName = Annotated[str, Field(pattern=r"^(cpu|mps|(cuda|xpu)(:\d{1,4})?)$")]
Count = Annotated[int, Range(1, 65_536, whole=True)]
Pixels = Annotated[int, Range(0, 65_536, "pixels", whole=True)]
Bytes = Annotated[int, Range(0, 2**60, "bytes", whole=True)]
Gigabytes = Annotated[float, Range(1e-6, 1e6, "GB")]
GigabytesPerSecond = Annotated[float, Range(1e-6, 1e6, "GB/s")]
Slowdown = Annotated[float, SLOWDOWN]
Requests = Annotated[int, REQUESTS]
Replicas = Annotated[int, REPLICAS]
Devices = Annotated[int, DEVICES]
LinkLatency = Annotated[float, Range(0, 1000, "s")]
LinkRate = Annotated[float, Range(1, 1e15, "bytes/s")]
Samples = Annotated[int, Range(10, REQUESTS.most, "requests", whole=True)]
Seeds = Annotated[int, Range(2, 1000, "seeds", whole=True)]


USUAL_CACHE_PATCH = 32
"""Latent pixels: the largest side of a cached patch where nobody says it."""


def usual_dtype(device: str) -> Dtype:
    """The number format in which weights are held on a device where nobody says it."""
    return "bfloat16" if device.partition(":")[0] in ("cuda", "xpu") else "float32"


class StepReductionSection(Section):
    """A share of the requests skips its first denoising steps (NIRVANA); deadlines are those of all steps.

    A replay makes such a picture in fewer steps from noise: what it costs is real, what it would start from is not.
    """

    share: Share = Field(0.0, description="Share of the requests that skip steps.")
    skip: PathText | None = Field(None, description="Steps of 50 that they skip, like 5:0.3,10:0.7 (steps:weight).")

    @model_validator(mode="after")
    def _both(self) -> StepReductionSection:
        if self.share and self.skip is None:
            raise ValueError('expected skip beside share, like skip = "5:0.3,10:0.7" (steps of 50:weight)')
        return self


class TraceSection(Section):
    """Which requests, and what is done to them first, in this order."""

    _given: InMemory[Trace] | None = PrivateAttr(None)

    @model_validator(mode="wrap")
    @classmethod
    def _objects(cls, data: Any, handler: Callable[[Any], TraceSection]) -> TraceSection:
        given = data.get("path") if isinstance(data, dict) else None
        if not isinstance(given, Trace):
            return handler({**data, "path": str(given)} if isinstance(given, Path) else data)
        section = handler({**data, "path": named("trace", str(joblib.hash(given.frame)))})
        section._given = InMemory(given)
        return section

    @property
    def in_memory(self) -> Trace | None:
        """The trace, where it is an object and no file."""
        return None if self._given is None else self._given.value

    path: PathText | None = Field(None, description="The trace: .parquet, .csv[.gz] or .jsonl[.gz].")
    start_s: Instant = Field(0.0, description="Leave out arrivals before this time of the file, which becomes time 0.")
    end_s: Instant | None = Field(None, description="Leave out arrivals from this time on.")
    limit: Requests | None = Field(None, description="Keep the first requests.")
    rate_scale: Factor = Field(
        1.0, description="Multiply the arrival rate: the trace, and each peak of it, is as much shorter."
    )
    images: PathText | None = Field(None, description="Folder of the pictures that requests start from.")
    fit_sizes: StrictBool = Field(False, description="Scale the sizes to the model's native size.")
    steps_scale: Factor = Field(1.0, description="Multiply the denoising steps.")
    step_reduction: StepReductionSection = StepReductionSection()
    spikes: Several = Field(
        (), description="Like 600:120:3: from 600 s of the run, for 120 s, 3 times as many requests (below 1: fewer)."
    )
    users: Annotated[int, Range(1, 100_000, "users", whole=True)] | None = Field(
        None,
        description="So many users ask for the requests of the trace in its order, each when it has got its last one "
        "and thought (a closed loop, simulated); not set: requests come at the times of the trace.",
    )
    think_s: Span = Field(
        0.0,
        description="Mean seconds that a user thinks from an answer to its next request, exponentially distributed.",
    )

    @model_validator(mode="after")
    def _closed_or_open(self) -> TraceSection:
        if self.users is None and self.think_s:
            raise ValueError("expected users beside think_s, whose time to think it is")
        if self.users is not None and (self.rate_scale != 1.0 or self.spikes):
            raise ValueError("expected no rate_scale and no spikes beside users, who ask when they have been answered")
        return self


class ClusterSection(Section):
    """What it runs on."""

    replicas: Replicas = Field(1, description="How many replicas of the model serve requests, at most with [scaling].")
    devices: Devices = Field(
        1, description="Of a replica; they share denoising steps, or with [tiling] the tiles of large requests."
    )
    price_per_hour: Annotated[float, Range(1e-6, 1e6)] | None = Field(
        None, description="Of a device, in any currency; not set: reports say nothing of money."
    )
    device: DeviceName = Field("cpu", description="What a replay runs on: cpu, cuda, cuda:1, xpu or mps.")
    dtype: Dtype | None = Field(
        None,
        description="Number format of the weights in a replay; not set: bfloat16 on cuda and xpu, else float32.",
    )
    threads: Annotated[int, THREADS] | None = Field(None, description="CPU threads of torch; not set: its own choice.")
    launcher: Literal["thread", "process", "ray"] | None = Field(
        None,
        description="What a replica is in a replay: a process of this machine, a Ray actor (on the cluster at "
        "RAY_ADDRESS, if set), or a thread of the replay; not set: a thread for one replica, else processes.",
    )
    executor: Executor = Field(
        "whole",
        description="How batches of several sizes run: not at all, cut into patches (UNets), packed (transformers).",
    )
    adapters: PathText | None = Field(
        None, description="Folder of the adapters (LoRAs) that requests name, NAME.safetensors, for a replay."
    )
    kernels: Literal["auto", "reference"] = Field(
        "auto", description="Fused and recorded where the device can, or plain PyTorch."
    )
    decode: Literal["whole", "patched", "tiled", "blended"] = Field(
        "whole", description="How latents become pixels: whole, in exact patches, or in tiles; see backend.decode."
    )
    patch_floor: Count | None = Field(
        None, description="Least side of a patch, latent pixels; not set: what was measured to pay."
    )
    cache_bytes: Bytes = Field(2**30, description="What a cache may keep on a replica; a simulated one keeps all.")
    cache_patch: Annotated[int, Range(0, 65_536, "latent pixels", whole=True)] | None = Field(
        None, description="Largest side of a cached patch; 0: whole images; not set: as the profile measured, or 32."
    )
    link_latency_s: LinkLatency | None = Field(
        None, description="Of a message between two devices of a replica, simulated; not set: 1e-5."
    )
    link_bytes_per_s: LinkRate | None = Field(
        None,
        description="Of one device to and from the others of its replica, simulated; not set: of predictor.hardware, "
        "else 5e10.",
    )
    network_latency_s: LinkLatency = Field(
        1e-4, description="Of what one replica hands on to another, where pools serve some stages, simulated."
    )
    network_bytes_per_s: LinkRate | None = Field(
        None,
        description="Into a replica from others, simulated; not set: of predictor.hardware, else 1.25e9 (10 Gb/s).",
    )
    replica_timeout_s: Annotated[float, Range(1, 1e6, "s")] = Field(
        60.0,
        description="Replay: a replica's process that gives no sign of life for so long is lost, and started anew.",
    )
    rank_timeout_s: Annotated[float, Range(0.01, 1e6, "s")] = Field(
        60.0, description="Replay: the longest wait for another device's process."
    )

    @property
    def weights_dtype(self) -> Dtype:
        """The number format of the weights, said or usual."""
        return usual_dtype(self.device) if self.dtype is None else self.dtype

    @property
    def side_of_cached_patch(self) -> int:
        """The largest side of a cached patch, said or usual, latent pixels."""
        return USUAL_CACHE_PATCH if self.cache_patch is None else self.cache_patch


class PoolSection(Section):
    """Replicas of one kind, of several kinds; what it does not say is as in [cluster] and [predictor]."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")] = Field(
        description="What reports and --set pool.NAME.KEY call it: letters, digits, - and _."
    )
    models: Several = Field(
        (), description="That its replicas serve: known models or diffusers folders; none: the scenario's own."
    )
    stages: Annotated[tuple[Literal["encode", "denoise", "decode"], ...], Field(max_length=3)] = Field(
        (),
        description="That its replicas serve: encode, denoise, decode; none: all. A request goes on from pool to pool "
        "with its embeddings or latents.",
    )
    replicas: Replicas = Field(1, description="How many, at most with [scaling].")
    least: Annotated[int, Range(0, REPLICAS.most, "replicas", whole=True)] | None = Field(
        None, description="See scaling.least."
    )
    initial: Annotated[int, Range(0, REPLICAS.most, "replicas", whole=True)] | None = Field(
        None, description="See scaling.initial."
    )
    devices: Devices | None = Field(None, description="Of a replica, see cluster.devices.")
    link_latency_s: LinkLatency | None = Field(None, description="See cluster.link_latency_s.")
    link_bytes_per_s: LinkRate | None = Field(None, description="See cluster.link_bytes_per_s.")
    network_latency_s: LinkLatency | None = Field(None, description="See cluster.network_latency_s.")
    network_bytes_per_s: LinkRate | None = Field(None, description="See cluster.network_bytes_per_s.")
    profile: PathText | dict[PathText, PathText] | None = Field(
        None, description="Measured on it: a file, what ships under that name, or a table of one for each model."
    )
    hardware: PathText | None = Field(
        None, description="Of the catalogue: estimated without a profile, calibrated with one."
    )
    engine: Engine | None = Field(None, description="See predictor.engine.")
    precision: Precision | None = Field(None, description="See predictor.dtype.")
    executor: Executor | dict[PathText, Executor] | None = Field(
        None, description="See cluster.executor; or a table of one for each model."
    )
    memory_gb: Gigabytes | None = Field(None, description="See weights.memory_gb.")
    price_per_hour: Annotated[float, Range(1e-6, 1e6)] | None = Field(
        None, description="Of a device, in any currency; for all pools or for none."
    )
    device: DeviceName | None = Field(None, description="See cluster.device.")
    dtype: Dtype | None = Field(None, description="See cluster.dtype.")


class TilingSection(Section):
    """Requests larger than the model are sketched at its native size, enlarged, and refined tile by tile."""

    above: Factor = Field(1.0, description="Tiled are requests of more than so many times the native area.")
    refine: Annotated[float, Range(0, 1, above=True)] = Field(
        0.9, description="Share of the denoising steps that refinement repeats."
    )
    tile: PathText = Field(
        "native",
        description="Largest tile: native, planned (the fastest grid on these devices), or like 512x768 pixels.",
    )
    mode: Literal["wrap", "clamp"] = Field(
        "wrap", description="What tiles do at the edges of the canvas, see policies.tiling.grid."
    )
    overlap: Pixels = Field(0, description="What a tile sees beyond what it draws.")
    stride: Share = Field(1 / 16, description="Share of a tile that the grid moves at once.")
    stand: Annotated[int, STEPS] = Field(1, description="For how long the grid stands before it moves.")
    positions: Literal["local", "absolute", "ntk"] = Field(
        "local", description="Where a tile tells the model that it lies, see backend.tiled.adapter."
    )
    reuse: Literal["output", "residual"] = Field(
        "output", description="What a reused tile hands on, see backend.tiled.refine."
    )
    batch: Count = Field(1, description="Tiles in one forward at most.")
    decode_together: bool = Field(
        False,
        description="The devices of a replica decode together where that is faster, each a band of rows: the picture "
        "is then that of one device but for rounding, not to the last bit.",
    )
    image: Literal["refine", "condition"] = Field(
        "refine", description="A request's picture is refined, or shown to an image-to-video model."
    )


class PredictorSection(Section):
    """What the policy knows about cost: measurements, the roofline of a hardware kind, or that calibrated by them."""

    _given: InMemory[Profile] | None = PrivateAttr(None)

    @model_validator(mode="wrap")
    @classmethod
    def _objects(cls, data: Any, handler: Callable[[Any], PredictorSection]) -> PredictorSection:
        given = data.get("profile") if isinstance(data, dict) else None
        if not isinstance(given, Profile):
            return handler({**data, "profile": str(given)} if isinstance(given, Path) else data)
        section = handler({**data, "profile": named("profile", given.content_hash)})
        section._given = InMemory(given)
        return section

    @property
    def in_memory(self) -> Profile | None:
        """The profile, where it is an object and no file."""
        return None if self._given is None else self._given.value

    profile: PathText | None = Field(None, description="Measurements: a file, or what ships under that name.")
    hardware: PathText | None = Field(
        None, description="A kind of 'tilecast hardware list', or of a file: mine.toml, mine.toml:kind."
    )
    dtype: Precision | None = Field(
        None, description="The denoiser's precision, of a roofline; not set: what is usual on the hardware."
    )
    engine: Engine = Field(
        "eager", description="What runs the model, of a roofline: PyTorch, torch.compile, or an engine of its own."
    )
    latency_model: Name = Field(
        "auto",
        description="What is fitted to the profile: auto chooses, a stage, what predicts its rows best that it did not "
        "see. A roofline takes its place where hardware is set.",
    )
    reuse: PathText | None = Field(
        None, description="Recorded cache signals: a file, or what ships under that name; not set: the model's, if any."
    )
    tile_reuse: PathText | None = Field(None, description="The same of tiles.")
    online: StrictBool = Field(True, description="Corrected by what launches took; simulate --per-step sets it false.")
    oracle: StrictBool = Field(
        False,
        description="Simulation: the policy knows the world's durations but for noise (with a cache: what is reused "
        "on average).",
    )
    error: Annotated[float, Range(-0.999, 1000)] = Field(
        0.0, description="0.2: the policy believes, and goes on believing, that all takes 20 % longer."
    )
    max_extrapolation: Annotated[float, Range(1, 1e6, "times")] = Field(
        4.0, description="The largest request, beside the largest measured, that is still predicted."
    )


class WorldSection(Section):
    """How the simulated world differs from the profile."""

    latency_model: Name | None = Field(None, description="What the world's durations come from; not set: predictor's.")
    noise: StrictBool = Field(True, description="Durations scatter as the measurements did.")
    slowdown: Factor = Field(1.0, description="All takes so many times as long as the profile says.")


class FaultsSection(Section):
    """What goes wrong, in seconds from the first request on; see `policies.faults.Faults`."""

    mtbf_s: Interval | None = Field(
        None, description="Mean time between failures of a replica that works; not set: none fails by chance."
    )
    repair_s: PositiveSpan = Field(300.0, description="From a failure to the end of its repair.")
    cold_start_s: Span = Field(0.0, description="What a replica needs from its repair until it takes work.")
    starts_cold: StrictBool = Field(False, description="Whether all replicas need that at the beginning, too.")
    outages: Several = Field((), description="Failures at given times, like 600:0:300: start, replica, seconds.")
    straggler_every_s: Interval | None = Field(
        None, description="Mean time between the slow spells of a replica; not set: none is slow by chance."
    )
    straggler_for_s: PositiveSpan = Field(60.0, description="Mean length of a slow spell.")
    straggler_slowdown: Slowdown = Field(2.0, description="Every step takes so many times as long in a spell.")
    slow: Several = Field((), description="Spells at given times, like 600:0:300:2: start, replica, seconds, slowdown.")
    patience_s: PositiveSpan | None = Field(
        None, description="Mean time after which a client leaves who has not got its pictures; not set: all wait."
    )
    in_flight: Literal["restart", "resume", "fail"] = Field(
        "restart", description="What becomes of requests on a replica that fails."
    )


class ScalingSection(Section):
    """Replicas come and go, as many as policies.scaling wants, up to cluster.replicas."""

    least: Annotated[int, Range(0, REPLICAS.most, "replicas", whole=True)] = Field(
        1, description="Replicas that there are at least; 0: none while there is nothing to do."
    )
    initial: Annotated[int, Range(0, REPLICAS.most, "replicas", whole=True)] | None = Field(
        None, description="Replicas that are there in the beginning; not set: what the policy wants of an idle pool."
    )
    provisioning_s: Span = Field(
        30.0,
        description="From the order of a replica until its machine is there, simulated; a real one takes its time.",
    )
    load_s: Span | None = Field(
        None,
        description="Loading the weights after that, simulated; not set: what [weights] preloads, or the model's bytes "
        "at the rate of the profile.",
    )
    warm_up_s: Span = Field(0.0, description="From there until it takes requests, simulated.")


class PolicySection(Section):
    """A policy by name (or file.py:Class); every other key is a parameter of it."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: PathText = Field(description="A policy that ships, or file.py:Class; every other key is a parameter of it.")
    _given: InMemory[Policy] | None = PrivateAttr(None)

    @property
    def in_memory(self) -> Policy | None:
        """The policy, where it is an object and no name."""
        return None if self._given is None else self._given.value

    @classmethod
    def of(cls, policy: Policy) -> PolicySection:
        """The section of a policy that is an object; what it was made with is told, too, where it is a plain value.

        Raises:
            PolicyError: it is not made as policies are.
        """
        told = {name: value for name, value in made_with(policy).items() if isinstance(value, bool | int | float | str)}
        section = cls(**{**told, "name": named(name_of(policy), contents_of(policy))})
        section._given = InMemory(policy)
        return section

    @property
    def parameters(self) -> dict[str, Any]:
        """The policy's own parameters."""
        return dict(self.__pydantic_extra__ or {})

    def with_parameters(self, **more: Any) -> PolicySection:
        """The same policy with some parameters otherwise."""
        if self._given is not None:
            policy = self._given.value
            return PolicySection.of(built(type(policy), {**made_with(policy), **more}, self.name))
        return PolicySection(**{**self.parameters, **more, "name": self.name})

    def policy(self, kind: str, base: Path) -> Any:
        """The policy, of one of the kinds of `policies.load`.

        Raises:
            BadInput: unknown name, no such file or class, or a wrong parameter.
            PolicyError: what a user's policy does wrong.
        """
        if self._given is not None:
            return checked_policy(kind, self._given.value)
        if is_named(self.name):
            raise BadInput(f"{kind} policy {self.name!r}: it was an object of another process, and is in no file")
        return load_policy(kind, self.name, self.parameters, base)


def by_name(value: Any) -> Any:
    """What a policy's key may hold, as its section takes it: an object, a name, or a table."""
    if isinstance(value, Policy):
        return PolicySection.of(value)
    return {"name": value} if isinstance(value, str) else value


class PoliciesSection(Section):
    """One policy of each kind."""

    scheduling: PolicySection = Field(PolicySection(name="fcfs"), description="Which requests run next, together.")
    routing: PolicySection | None = Field(
        None,
        description="Which replica a request waits for; not set: what the scheduler is used with, mostly shared, or "
        "affinity where weights are loaded.",
    )
    scaling: PolicySection | None = Field(
        None,
        description="How many replicas there are; not set: all, always, or where [scaling] stands as queue wants.",
    )
    weights: PolicySection | None = Field(None, description="Which weights leave a full replica; not set: cost.")
    caching: PolicySection = Field(PolicySection(name="none"), description="Which blocks of a model are not computed.")
    tile_caching: PolicySection = Field(PolicySection(name="none"), description="The same of tiles of tiled requests.")
    placement: PolicySection = Field(PolicySection(name="cache-guided"), description="Which device computes a tile.")
    call_limit_s: PositiveSpan = Field(
        6.0,
        description="Longest call of a policy; in a replay also how long nothing may run while one asks to be woken.",
    )

    @model_validator(mode="before")
    @classmethod
    def _names_alone(cls, data: Any) -> Any:
        if isinstance(data, dict):
            return {kind: by_name(value) for kind, value in data.items()}
        return data


class WeightsSection(Section):
    """Requests want the checkpoints that the trace names, which have to be loaded. GB are 10^9 bytes."""

    folder: PathText | None = Field(
        None, description="Folder of the checkpoints, each a diffusers folder NAME/; a replay needs it."
    )
    memory_gb: Gigabytes = Field(description="Memory of a device for weights: what a batch leaves.")
    weights_gb: Gigabytes | None = Field(
        None, description="Weights of a checkpoint; not set: what the headers of its files in folder say."
    )
    checkpoints_gb: Several = Field((), description="Checkpoints of another size, like M0001:2.1.")
    host_gb: Annotated[float, Range(0, 1e9, "GB")] = Field(
        0.0, description="Host memory in which a replica keeps what it has loaded."
    )
    disk_gb_per_s: GigabytesPerSecond | None = Field(
        None, description="How fast weights come from the disk; not set: as the profile measured, or else 2."
    )
    host_gb_per_s: GigabytesPerSecond | None = Field(
        None, description="How fast weights come from host memory; not set: as the profile measured, or else 20."
    )
    load_s: Annotated[float, Range(0, 1e6, "s")] | None = Field(
        None, description="Of any load, beside its bytes; not set: as the profile measured, or 0 beside a stated rate."
    )
    adapter_s: Annotated[float, Range(0, 1e6, "s")] = Field(
        0.0, description="Of an adapter (LoRA), put on before a request begins."
    )
    soft_slo_scale: Annotated[float, Range(1e-3, 1e6, "times")] = Field(
        30.0, description="A request without a deadline is due so many times its standalone seconds after it came."
    )
    visit: Annotated[float, Range(0, 1e6, "times")] = Field(
        4.0, description="Seconds of use, and of waiting, that a second of loading is worth."
    )
    preload: Several | Literal["none", "most-used"] = Field(
        "none", description="What lies on each replica from the beginning: none, most-used, or a list of checkpoints."
    )

    @model_validator(mode="after")
    def _sized(self) -> WeightsSection:
        if self.weights_gb is None and self.folder is None:
            raise ValueError("expected weights_gb, the size of a checkpoint, or folder, where their files lie")
        return self


class TenantsSection(Section):
    """The tenants of the trace share the devices, whatever policies.scheduling is; see `policies.fair_share`."""

    shares: Annotated[dict[PathText, Annotated[float, Range(1e-6, 1e6)]], Field(max_length=100_000)] = Field(
        {}, description="Of tenants, beside each other, like {alice = 2, bob = 1}; of those not named 1."
    )
    depth: Annotated[int, Range(1, 10_000, "requests", whole=True)] = Field(
        8,
        description="Under way for every device, among which the scheduler chooses: at least the largest batch "
        "wanted; the fewer, the sooner all have their shares.",
    )


class SloSection(Section):
    """Deadlines for requests that have none: a multiple of the standalone latency, or seconds."""

    scale: Annotated[float, Range(1e-3, 1e6, "times")] | None = Field(
        None, description="Deadline as a multiple of the latency of the request alone."
    )
    absolute_s: PositiveSpan | None = Field(None, description="Deadline after the arrival.")
    priority_factor: Annotated[float, Range(1, 1000, "times")] = Field(
        1.0, description="2: a request of priority p has 2 to the power of p times less time than one of priority 0."
    )

    @model_validator(mode="after")
    def _one_of_two(self) -> SloSection:
        if self.scale is not None and self.absolute_s is not None:
            raise ValueError("expected either scale or absolute_s, not both")
        if self.priority_factor != 1.0 and self.scale is None and self.absolute_s is None:
            raise ValueError("expected scale or absolute_s beside priority_factor, which divides what they make")
        return self


INSTEAD_OF = {"slo.scale": "slo.absolute_s", "slo.absolute_s": "slo.scale"}
"""Keys of which a scenario has one: whoever sets one means the file's other one no more."""


class HardwareSection(Section):
    """A kind of hardware that a plan may use; what it does not say is as in the scenario."""

    name: Name = Field(description="What the plan calls it.")
    profile: PathText | None = Field(None, description="Measured on it.")
    hardware: PathText | None = Field(
        None, description="Of the catalogue: estimated without a profile, calibrated with one."
    )
    price_per_hour: Annotated[float, Range(1e-6, 1e6)] | None = Field(
        None, description="Of a device, in any currency; for all kinds or for none."
    )
    devices: Annotated[tuple[Devices, ...], Field(min_length=1, max_length=100)] = Field(
        (1,), description="Of a replica, each of them tried."
    )
    max_replicas: Replicas = Field(64, description="As many as there are at most.")


def _rate(value: Any) -> Any:
    """Requests a second, of a rate as people write it."""
    return parse_rate(value, "a rate") if isinstance(value, str) else value


def _percent(value: Any) -> Any:
    """A share, of a percentage as people write it."""
    return parse_percent(value, "a share") if isinstance(value, str) else value


class PlanSection(Section):
    """What `tilecast plan` searches for, and among what."""

    attainment: Annotated[float, Range(1e-6, 1 - 1e-6)] = Field(
        0.95, description="Share of the requests that must finish in time."
    )
    throughput: Annotated[float, RATES_RPS, BeforeValidator(_rate)] | None = Field(
        None, description="Requests that must be completed, too, like 480/h, of those asked for; not set: no promise."
    )
    headroom: Annotated[float, Range(0, 10), BeforeValidator(_percent)] = Field(
        0.0, description="The promise must be kept at so much more than the demand, too, like 20%."
    )
    confidence: Annotated[float, Range(0.5, 1 - 1e-9, above=True)] = Field(
        0.95, description="How sure the answer is to be."
    )
    hardware: Annotated[tuple[HardwareSection, ...], Field(max_length=100)] = Field(
        (), description="The kinds that may be bought; none: the scenario's own alone."
    )
    policies: Several = Field(
        (), description="Schedulers to compare, of which the best is the answer; none: the scenario's own."
    )
    scaling: Annotated[tuple[PolicySection, ...], Field(max_length=100)] = Field(
        (),
        description="Scaling policies to compare beside fixed sizes up to cluster.replicas; a list as a parameter "
        "stands for each of its values.",
    )
    demand: Literal["bootstrap", "fitted"] = Field(
        "bootstrap", description="Whether demand is drawn from the trace or from a workload fitted to it."
    )
    seeds: Seeds = Field(5, description="Replications of a candidate, at first.")
    max_seeds: Seeds = Field(20, description="Replications of a candidate at most.")
    requests: Samples = Field(2000, description="Of a replication, at first; three days at least where days are drawn.")
    max_requests: Samples = Field(16000, description="Of a replication at most.")

    @model_validator(mode="before")
    @classmethod
    def _names_alone(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(scaling := data.get("scaling"), str | list | tuple):
            return {**data, "scaling": [by_name(each) for each in ([scaling] if isinstance(scaling, str) else scaling)]}
        return data

    @model_validator(mode="after")
    def _consistent(self) -> PlanSection:
        names = [kind.name for kind in self.hardware]
        if len(set(names)) < len(names):
            raise ValueError("expected hardware of different names")
        if len({kind.price_per_hour is None for kind in self.hardware}) > 1:
            raise ValueError("expected a price_per_hour for every hardware or for none")
        return self
