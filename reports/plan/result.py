"""What a plan says: plain values, from which a report is made and which a file holds.

Shares are fractions, times seconds, money in the currency of the prices.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field

from pydantic import ConfigDict, TypeAdapter
from pydantic.dataclasses import dataclass as checked

from reports.output_analysis import Interval
from traces.notes import Note

STABLE, NEAR_KNEE, UNSTABLE = "STABLE", "NEAR KNEE", "UNSTABLE"
"""Whether a cluster keeps up: with room to spare; so close to its limit that a little more load breaks it; not."""

UNKNOWN = Interval(math.nan, math.nan, 0)
"""A figure that is not defined."""

_STRICT = ConfigDict(extra="forbid", ser_json_inf_nan="constants")


@dataclass(frozen=True, order=True)
class Candidate:
    """What may be bought and how it may be run.

    Attributes:
        hardware: the name of a kind.
        devices: a replica.
        replicas: replicas of the cluster.
        scheduler: the policy's name.
    """

    hardware: str
    devices: int
    replicas: int
    scheduler: str

    @property
    def all_devices(self) -> int:
        """Devices of the cluster."""
        return self.devices * self.replicas


@dataclass(frozen=True)
class Figures:
    """What a cluster does under a load: means over replications, warm-up removed.

    Attributes:
        rate_scale: the load, as a multiple of the demand planned for.
        rate_rps: requests a second of it.
        attainment: share of the requests that finished in time.
        latency_p50_s, latency_p95_s, latency_p99_s: of all requests; one that did not finish counts as infinite, and
            all of them are where the queue grows, because they then depend on how long one looks.
        throughput_rps: requests a second that were completed, in time or not.
        goodput_rps: requests a second that finished in time.
        images_per_s: pictures a second of requests that finished.
        utilisation: busy share of the devices.
        batch: requests in a denoising launch, weighted by time.
        dropped: share of the requests that the policy dropped.
        requests: requests of one replication, after the warm-up.
        warm_up_s: cut off, in the mean.
        drawn_rps: requests a second that the replications had, which scatters around ``rate_rps``.
    """

    rate_scale: float
    rate_rps: float
    attainment: Interval
    latency_p50_s: Interval
    latency_p95_s: Interval
    latency_p99_s: Interval
    goodput_rps: Interval
    images_per_s: Interval
    utilisation: Interval
    batch: Interval
    dropped: Interval
    requests: int
    warm_up_s: float
    drawn_rps: Interval = UNKNOWN
    throughput_rps: Interval = UNKNOWN


@dataclass(frozen=True)
class Memory:
    """Whether a model with its batch and cache fits on a device.

    Attributes:
        needed_bytes: bytes of a device, at the largest batch.
        device_bytes: what it has.
        max_batch: pictures of the largest size in a batch that still fit; 0: the model does not fit.
        label: of `predictors.basis`.
    """

    needed_bytes: float
    device_bytes: float
    max_batch: int
    label: str


@dataclass(frozen=True)
class Evaluation:
    """A candidate that was simulated.

    Attributes:
        candidate: which.
        label: how far to trust its times, of `predictors.basis`.
        state: `STABLE`, `NEAR_KNEE` or `UNSTABLE`.
        reason: what limits it: compute, memory, batch cap, placement, weights, policy; empty when nothing does.
        detail: the same in a sentence, with its figures.
        keeps: whether it keeps the promise; None: not decided by so many replications.
        figures: under the demand planned for.
        load: demand over what it can carry at most; above 1 it cannot keep up.
        price_per_hour: price per hour of the cluster; NaN where no price is known.
        cost_per_1000_images: of pictures of requests that finished; NaN likewise.
        extrapolated: share of the simulated time outside the measured range.
        memory: None where the hardware's memory is not known.
        broken_by: what breaks the promise beside late requests, or may: half a sentence like "the queue grows"; empty:
            nothing does.
    """

    candidate: Candidate
    label: str
    state: str
    reason: str
    detail: str
    keeps: bool | None
    figures: Figures
    load: float
    price_per_hour: float = math.nan
    cost_per_1000_images: float = math.nan
    extrapolated: float = 0.0
    memory: Memory | None = None
    broken_by: str = ""


@dataclass(frozen=True)
class Refused:
    """What was not simulated, and why: (hardware, devices, scheduler), and a sentence."""

    hardware: str
    devices: int
    scheduler: str
    why: str


@dataclass(frozen=True)
class WhatIf:
    """The answer's cluster when something is otherwise: ``what`` says so, like "20 % more load"; ``broken_by`` is as in
    `Evaluation`."""

    what: str
    figures: Figures
    keeps: bool | None
    broken_by: str = ""


@dataclass(frozen=True)
class Month:
    """A month of a growing demand and the least cluster for it; ``evaluation`` None: none of those considered."""

    month: int
    rate_scale: float
    evaluation: Evaluation | None


@dataclass(frozen=True)
class PolicyCost:
    """What one scheduling policy takes.

    Attributes:
        scheduler: the policy's name.
        evaluation: the least cluster that keeps the promise with it, or what came nearest; None: nothing was simulated.
    """

    scheduler: str
    evaluation: Evaluation | None


@dataclass(frozen=True)
class PossibleSpeed:
    """How fast the answer's hardware may truly be, and the least number of its replicas that then keeps the promise.

    Attributes:
        quantile: share of what is possible that is faster.
        slowdown: times the seconds of the best guess.
        evaluation: the least cluster of the answer's hardware, devices a replica and scheduler; None: none of those
            considered.
    """

    quantile: float
    slowdown: float
    evaluation: Evaluation | None


@dataclass(frozen=True)
class CarriedRange:
    """What the answer's cluster carries in four of five cases, by the error of its seconds alone: as its capacity goes
    with its speed.

    Attributes:
        error_factor: by which the seconds are wrong at most, up or down.
        least_rps, most_rps: requests a second with the promise kept, were they so wrong.
    """

    error_factor: float
    least_rps: float
    most_rps: float


@dataclass(frozen=True)
class SizeFigures:
    """Requests of one size (``512x768``) on the answer's cluster, over all replications.

    Attributes:
        latency_s: quantiles at 5, 25, 50, 75, 95 and 99 %; a request that did not finish counts as infinite.
    """

    size: str
    requests: int
    attainment: float
    latency_s: tuple[float, ...]


@dataclass(frozen=True)
class Window:
    """A slice of time of one replication of the answer's cluster.

    Attributes:
        start_s, end_s: on the demand's clock.
        arrived: requests.
        waiting, running: requests, mean over the slice.
        utilisation: busy share of the devices.
    """

    start_s: float
    end_s: float
    arrived: int
    waiting: float
    running: float
    utilisation: float


@dataclass(frozen=True)
class DegreeFigures:
    """A batch of one size (``512x768``) on some devices of a replica.

    Attributes:
        devices: that share a denoising step.
        parallel: how, as profiles spell it; empty: one device.
        images: of the batch.
        step_s: seconds of a denoising step.
        whole_s: seconds of the whole batch alone.
        images_per_s_device: pictures a second and device, with all devices busy.
        images_per_s_replica: pictures a second of the replica.
        best_for: of all degrees and batches of the size: latency, throughput, both or nothing.
    """

    size: str
    devices: int
    parallel: str
    images: int
    step_s: float
    whole_s: float
    images_per_s_device: float
    images_per_s_replica: float
    best_for: str = ""


@dataclass(frozen=True)
class Demand:
    """What is asked of the cluster.

    Attributes:
        source: the trace's name.
        model: what makes the pictures.
        rate_rps: requests a second.
        images_per_request: in the mean.
        sizes: (size, share of the requests), most frequent first.
        how: how replications were drawn from the trace, in a sentence.
        guided: whether classifier-free guidance doubles most of its requests.
        tiled: whether large requests are tiled.
    """

    source: str
    model: str
    rate_rps: float
    images_per_request: float
    sizes: tuple[tuple[str, float], ...]
    how: str
    guided: bool = False
    tiled: bool = False


@checked(frozen=True, config=_STRICT)
class Plan:
    """The whole answer.

    Attributes:
        attainment: the promise: the share of requests that must finish in time.
        throughput_rps: the promise, too: requests a second that must be completed; 0: none was made.
        least_headroom: the promise must be kept at so much more than the demand, as a share of it.
        slo: the deadline in words.
        confidence: confidence of all intervals.
        demand: what is asked.
        answer: the least hardware that keeps the promise; None: none of those considered.
        considered: everything that was simulated under the demand planned for, cheapest first.
        refused: what was not simulated.
        load_curve: the answer's cluster under less and more load, ascending.
        headroom: the largest load it carries with the promise kept in the mean, times the demand; NaN: no answer.
        carried: what that is if the seconds are wrong; None: they were measured, or no answer.
        lost_replica: the answer's cluster with a replica less; None: it has only one, or no answer.
        sensitivity: the answer's cluster when something is otherwise.
        growth: month by month; empty: not asked.
        policies: what each policy takes, in the order in which they were named; empty: there is only one.
        speeds: what the answer would be at the speeds that the error of its seconds leaves open, the fastest first;
            empty: its seconds were measured.
        speeds_if_measured: how many of them on either side of the best guess ten measurements would leave possible,
            were the guess right.
        by_size: on the answer's cluster.
        over_time: one replication of it.
        by_degree: when parallelism pays, and when batching does, on a replica of the answer; empty: it has one device.
        notes: what a reader must know, in full sentences.
        asked_about: the cluster of which it was asked what it carries, with the policy that does best; None: the least
            one was searched for.
        noted: hardware whose profile carries a note of its own, so that its label of trust is not the whole truth.
        scenario: TOML, to run it again.
        command: likewise.
        tilecast: version.
        seconds: that planning took; 0 where bytes must be the same.
        points: simulations run.
    """

    attainment: float
    slo: str
    confidence: float
    demand: Demand
    answer: Evaluation | None
    considered: tuple[Evaluation, ...]
    refused: tuple[Refused, ...] = ()
    load_curve: tuple[WhatIf, ...] = ()
    headroom: Interval = UNKNOWN
    carried: CarriedRange | None = None
    lost_replica: WhatIf | None = None
    sensitivity: tuple[WhatIf, ...] = ()
    growth: tuple[Month, ...] = ()
    policies: tuple[PolicyCost, ...] = ()
    speeds: tuple[PossibleSpeed, ...] = ()
    speeds_if_measured: int = 0
    by_size: tuple[SizeFigures, ...] = ()
    over_time: tuple[Window, ...] = ()
    by_degree: tuple[DegreeFigures, ...] = ()
    notes: tuple[Note, ...] = field(default_factory=tuple)
    throughput_rps: float = 0.0
    least_headroom: float = 0.0
    asked_about: Candidate | None = None
    noted: tuple[str, ...] = ()
    scenario: str = ""
    command: str = ""
    tilecast: str = ""
    seconds: float = 0.0
    points: int = 0

    def to_json(self) -> str:
        """The plan as JSON text, NaN and infinity included."""
        return PLAN.dump_json(self, indent=2).decode() + "\n"

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """The plan in JSON text that `to_json` wrote, or that of a ``plan.json``, which also names who wrote it.

        Raises:
            pydantic.ValidationError: it is not one.
        """
        values = json.loads(text)
        values.pop("generator", None)
        return PLAN.validate_python(values)


PLAN = TypeAdapter(Plan)
