"""The replicas of a scenario on real devices: what each is, how its executor is made, and what is to go wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from policies.faults import Faults, Happening
from tilecast.scenario import Scenario
from tilecast.setup import Prepared
from traces.errors import BadInput
from traces.request import Request

if TYPE_CHECKING:
    from backend.executor import Executor
    from backend.replicas.messages import Report
    from backend.replicas.replica import ServingReplica
    from backend.tiled.execution import Tiling
    from policies.caching import CachingPolicy


def check_faults(scenario: Scenario) -> None:
    """Refuse what cannot be done to a real replica.

    Raises:
        BadInput: the scenario asks for it.
    """
    faults = scenario.faults
    if faults is None:
        return
    if faults.in_flight == "resume":
        raise BadInput(
            "faults.in_flight is 'resume', but a killed process takes its latents along: a replay can restart or fail"
        )
    if faults.straggler_every_s is not None or faults.slow:
        field = "slow" if faults.slow else "straggler_every_s"
        raise BadInput(f"faults.{field}: slow spells are simulated, a real replica is as fast as it is; take it out")
    if (faults.mtbf_s is not None or faults.outages) and launcher_of(scenario) == "thread":
        raise BadInput(
            "[faults] end replicas, which cluster.launcher 'thread' cannot: set it to 'process' (or leave it out)"
        )


def launcher_of(scenario: Scenario) -> str:
    """What its replicas are."""
    cluster, faults = scenario.cluster, scenario.faults
    if cluster.launcher is not None:
        return cluster.launcher
    fails = faults is not None and (faults.mtbf_s is not None or bool(faults.outages))
    return "process" if cluster.replicas > 1 or fails else "thread"


def check_backend() -> None:
    try:
        import backend.executor
        import backend.replicas.remote  # noqa: F401 - what a replay needs beside it
    except ImportError as error:
        raise BadInput(f"replay needs {error.name}; install tilecast[backend]") from error


def real_happenings(scenario: Scenario, requests: list[Request]) -> Iterator[Happening]:
    """What is to go wrong in a replay: a repaired replica takes as long to start as it does, not ``cold_start_s``."""
    section = scenario.faults
    if section is None:
        return iter(())
    given = section.model_dump(exclude={"in_flight", "cold_start_s", "starts_cold"})
    faults, replicas = Faults(**given), scenario.cluster.replicas
    faults.check(replicas, requests[-1].arrival_s - requests[0].arrival_s)
    return faults.happenings(replicas, requests, scenario.seed)


def replicas_of(prepared: Prepared, requests: list[Request], stack: ExitStack) -> Sequence[ServingReplica]:
    """The replicas of a scenario, not started.

    Args:
        prepared: what to run.
        requests: that they will serve.
        stack: what they need as long as they live.
    """
    from backend.lora import adapter_files
    from backend.machine import cores_of, devices_of
    from backend.replicas.process import ProcessReplica
    from backend.replicas.rays import RayCluster, RayReplica
    from backend.replicas.replica import ThreadReplica

    cluster, launcher = prepared.scenario.cluster, launcher_of(prepared.scenario)
    tiling = None if prepared.tiling is None else prepared.tiling.execution(prepared.table)
    caching = None if prepared.cache is None else prepared.cache.policy
    adapters = adapter_files(prepared.scenario.adapters, prepared.requests)
    make = partial(_executor, prepared.scenario, caching, tiling, adapters)
    prepare = partial(_warmed_up, requests=requests)
    threads = cluster.threads
    if launcher == "ray":
        stack.enter_context(RayCluster(cluster.replicas * (threads or 1)))
        gpus = cluster.devices if cluster.device.startswith("cuda") else 0
        ray_make = partial(make, cluster.device)
        return [
            RayReplica(ray_make, prepare, _described, threads, gpus, cluster.replica_timeout_s)
            for _ in range(cluster.replicas)
        ]
    devices = devices_of(cluster.device, cluster.replicas, cluster.devices)
    if launcher == "thread":
        return [ThreadReplica(partial(make, device), prepare, _described) for device in devices]
    return [
        ProcessReplica(partial(make, device), prepare, _described, threads, cores, cluster.replica_timeout_s)
        for device, cores in zip(devices, cores_of(cluster.device, cluster.replicas, threads), strict=True)
    ]


def _executor(
    scenario: Scenario, caching: CachingPolicy | None, tiling: Tiling | None, adapters: Mapping[str, Path], device: str
) -> Executor:
    """An executor of a scenario, on the thread and in the process that it will serve from."""
    from backend.executor import Executor
    from backend.loading import load_pipeline
    from backend.machine import use_threads

    cluster = scenario.cluster
    use_threads(cluster.threads)
    return Executor(
        pipeline=load_pipeline(scenario.model_source, device, cluster.dtype),
        mode=cluster.executor,
        caching=caching,
        cache_bytes=cluster.cache_bytes,
        cache_patch=cluster.cache_patch,
        decode=cluster.decode,
        patch_floor=cluster.patch_floor,
        tiling=tiling,
        images=scenario.images,
        kernels=cluster.kernels,
        adapters=adapters,
    )


def _warmed_up(executor: Executor, requests: list[Request]) -> Report:
    """See that an executor can serve requests, and run one of every kind.

    Raises:
        BadInput: a request cannot start here.
    """
    from backend.coroutine import unused_arguments
    from backend.kernels.graphs import TRIALS
    from backend.replay import warm_up

    for request in {(r.image, r.mask, r.adapters, r.size): r for r in requests}.values():
        executor.check(request)
    warm_up([executor], requests, TRIALS if executor.kernels.graphs else 2)
    return _described(executor)._replace(warnings=tuple(unused_arguments(executor.pipeline, requests)))


def _described(executor: Executor) -> Report:
    from backend.profiling import hardware_name
    from backend.replicas.messages import Report

    peak = None if executor.cache is None else executor.cache.kept.peak_bytes
    return Report(hardware_name(str(executor.device)), (), tuple(executor.notes), peak)
