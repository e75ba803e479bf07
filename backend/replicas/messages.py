"""What a replay and its replicas tell each other; plain values, that any channel can carry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from backend.replicas.hub import LaunchHub
from policies.contract import Launch, Load, Outcome
from traces.request import Request
from traces.stages import Recipe

NONE_HANDED: Mapping[str, bytes] = {}
"""Where requests stay on one replica."""


class LaunchOrder(NamedTuple):
    """A launch to carry out.

    Attributes:
        launch_id: of the controller.
        stages: (stage, steps), in order.
        requests: of the batch.
        resident: ids of all requests that live on the replica; it frees what others left there.
        load: weights to bring, instead of requests; None: none.
        devices: of the replica, that it has.
        degrees: on how many of them, the first, each of the stages runs; empty: on all.
        handed: what requests that begin here were handed on with elsewhere, by their ids.
    """

    launch_id: int
    stages: Recipe
    requests: tuple[Request, ...]
    resident: frozenset[str]
    load: Load | None = None
    devices: tuple[int, ...] = (0,)
    degrees: tuple[int, ...] = ()
    handed: Mapping[str, bytes] = NONE_HANDED


def order_of(launch: Launch, resident: frozenset[str], kept: Mapping[str, bytes] = NONE_HANDED) -> LaunchOrder:
    """A launch as its replica is told of it.

    Args:
        launch: which begins now.
        resident: ids of all requests that live on the replica.
        kept: what requests were handed on with, by their ids.
    """
    beginning = [job.request.request_id for job in launch.jobs if job.receives and job.first_start_s == launch.start_s]
    requests = tuple([job.request for job in launch.jobs])
    return LaunchOrder(
        launch_id=launch.launch_id,
        stages=launch.work.stages,
        requests=requests,
        resident=resident,
        load=launch.load,
        devices=launch.devices,
        degrees=launch.work.degrees,
        handed={name: kept[name] for name in beginning},
    )


class Recall(NamedTuple):
    """A launch is to end at its next step boundary."""

    launch_id: int


class End(NamedTuple):
    """No more orders come: free everything, and leave."""


class Report(NamedTuple):
    """What a replica says of itself.

    Attributes:
        hardware: what it computes on.
        warnings: what it cannot do that requests ask for, a line each.
        notes: what a reader of its figures must know, a line each.
        cache_peak_bytes: the most that its cache kept; None: it has none.
    """

    hardware: str = ""
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    cache_peak_bytes: int | None = None


class Ready(NamedTuple):
    """The model is loaded and warmed up."""

    report: Report


class Unready(NamedTuple):
    """It could not be."""

    error: Exception


class Delivered(NamedTuple):
    """The pixels of a request that finished, [images, height, width, 3] or of clips, in 0..1."""

    request: Request
    pixels: np.ndarray[Any, Any]


class Ended(NamedTuple):
    """An order was carried out, or a policy has done something wrong meanwhile, to the requests perhaps.

    The borders between the stages of the outcome are in seconds before its end: replicas have clocks of their own.
    ``handed`` is what those requests are handed on with, by their ids, whose last stage on the replica is done.
    """

    launch_id: int
    outcome: Outcome | Exception
    handed: Mapping[str, bytes] = NONE_HANDED


class Left(NamedTuple):
    """Everything is freed."""

    report: Report


class Alive(NamedTuple):
    """A sign of life, told whatever the replica is doing: a process that gives none for long has stopped or hangs."""


class Lost(NamedTuple):
    """The replica is gone, with all that lay there; ``why`` in a few words."""

    why: str


Told = Ready | Unready | Delivered | Ended | Left | Alive | Lost
"""What a replica tells."""
Asked = LaunchOrder | Recall | End
"""What it is told."""


class Runs(Protocol):
    """What carries out launches: a `backend.executor.Executor`, or what stands for one.

    Where weights are loaded, a `backend.swapping.SwappingExecutor`, to which loads are told.

    Attributes:
        hub: where launches run side by side; None: they run one after another.
        handed: what requests that have done their last stage here are handed on with, by their ids.
    """

    handed: dict[str, bytes]

    def take(self, request: Request, handed: bytes) -> None: ...

    @property
    def hub(self) -> LaunchHub | None: ...

    def execute(
        self, stage: str, requests: Any, steps: int, recalled: Any, deliver: Any, devices: Sequence[int] = (0,)
    ) -> Outcome: ...

    def keep_only(self, request_ids: set[str]) -> None: ...

    def close(self) -> None: ...
