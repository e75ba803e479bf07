"""The replicas of a scenario on real devices: what each is, how its executor is made, and what is to go wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from policies.faults import Faults, Happening
from tilecast.scenario import Scenario
from tilecast.setup import Prepared
from tilecast.weights import PreparedWeights
from traces.errors import BadInput
from traces.request import Request

if TYPE_CHECKING:
    from backend.executor import Executor
    from backend.replicas.host import Describe, Make
    from backend.replicas.messages import Report
    from backend.replicas.replica import ServingReplica
    from backend.swapping import SwappingExecutor
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

    scenario = prepared.scenario
    cluster, launcher = scenario.cluster, launcher_of(scenario)
    build = partial(
        _executor_of,
        scenario=scenario,
        caching=None if prepared.cache is None else prepared.cache.policy,
        tiling=None if prepared.tiling is None else prepared.tiling.execution(prepared.table),
        adapters=adapter_files(scenario.adapters, prepared.requests),
    )
    weights, loaded = checkpoints_of(prepared), prepared.loaded

    def make(index: int, device: str, bare: bool = False) -> Make:
        if weights is None:
            return partial(_executor, scenario, build, device)
        return partial(_swapping, scenario, build, weights, () if bare else loaded[index], device)

    prepare: Describe = partial(_warmed_up, requests=requests)
    if weights is not None:
        prepare = partial(_warmed_up_on_one, requests=requests)
    threads = cluster.threads
    replicas: list[ServingReplica]
    if launcher == "ray":
        stack.enter_context(RayCluster(cluster.replicas * (threads or 1)))
        gpus = cluster.devices if cluster.device.startswith("cuda") else 0
        devices = [cluster.device] * cluster.replicas
        replicas = [
            RayReplica(make(index, device), prepare, _described, threads, gpus, cluster.replica_timeout_s)
            for index, device in enumerate(devices)
        ]
    else:
        devices = devices_of(cluster.device, cluster.replicas, cluster.devices)
        if launcher == "thread":
            return [ThreadReplica(make(index, device), prepare, _described) for index, device in enumerate(devices)]
        cores = cores_of(cluster.device, cluster.replicas, threads)
        replicas = [
            ProcessReplica(make(index, device), prepare, _described, threads, own, cluster.replica_timeout_s)
            for index, (device, own) in enumerate(zip(devices, cores, strict=True))
        ]
    for index, (replica, device) in enumerate(zip(replicas, devices, strict=True)):
        replica.bare = make(index, device, bare=True)
    return replicas


def checkpoints_of(prepared: Prepared) -> PreparedWeights | None:
    """The weights of a scenario, with the folder of each checkpoint; None: it loads none.

    Raises:
        BadInput: a checkpoint has no folder, is not whole, or is of another architecture than the model.
    """
    from backend.checkpoints import check_alike, checkpoint_folders

    weights, scenario = prepared.weights, prepared.scenario
    if weights is None:
        return None
    folders = weights.folders or checkpoint_folders(None, scenario.model_source, prepared.trace.frame["checkpoint"])
    try:
        own = checkpoint_folders(None, scenario.model_source, [""])
    except BadInput:
        own = {}  # a model known by its name, of which the checkpoints alone are here
    check_alike({**own, **folders}, scenario.cluster.dtype)
    return weights._replace(folders=folders)


def _executor(scenario: Scenario, build: Callable[..., Executor], device: str) -> Executor:
    """An executor of a scenario, on the thread and in the process that it will serve from."""
    from backend.loading import load_pipeline
    from backend.machine import use_threads

    use_threads(scenario.cluster.threads)
    return build(load_pipeline(scenario.model_source, device, scenario.cluster.dtype))


def _swapping(
    scenario: Scenario, build: Callable[..., Executor], weights: PreparedWeights, loaded: Sequence[str], device: str
) -> SwappingExecutor:
    """The same where weights are loaded; caches share the memory that one would have."""
    from backend.machine import use_threads
    from backend.swapping import SwappingExecutor

    cluster = scenario.cluster
    use_threads(cluster.threads)
    return SwappingExecutor(
        folders=weights.folders,
        make=partial(build, cache_bytes=cluster.cache_bytes // weights.weights.most_fitting(weights.folders)),
        weights=weights.weights,
        device=device,
        dtype=cluster.dtype,
        loaded=loaded,
    )


def _executor_of(
    pipeline: Any,
    scenario: Scenario,
    caching: CachingPolicy | None,
    tiling: Tiling | None,
    adapters: Mapping[str, Path],
    cache_bytes: int | None = None,
) -> Executor:
    from backend.executor import Executor

    cluster = scenario.cluster
    return Executor(
        pipeline=pipeline,
        mode=cluster.executor,
        caching=caching,
        cache_bytes=cluster.cache_bytes if cache_bytes is None else cache_bytes,
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


def _warmed_up_on_one(executor: SwappingExecutor, requests: list[Request]) -> Report:
    """The same where weights are loaded, on those of one checkpoint: all are of one architecture."""
    ((wanted, _),) = Counter([request.checkpoint for request in requests]).most_common(1)
    with executor.lent(wanted) as one:
        return _warmed_up(one, requests)


def _described(executor: Executor | SwappingExecutor) -> Report:
    from backend.profiling import hardware_name
    from backend.replicas.messages import Report

    return Report(hardware_name(str(executor.device)), (), tuple(executor.notes), executor.cache_peak_bytes)
