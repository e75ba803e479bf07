"""The replicas of a scenario on real devices: what each is, how its executor is made, and what is to go wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from policies.faults import Faults, Happening
from tilecast.scenario import Scenario
from tilecast.sections import PoolSection
from tilecast.setup import Prepared
from tilecast.weights import PreparedWeights, checkpoints_in
from traces.errors import BadInput
from traces.request import Request

if TYPE_CHECKING:
    from backend.executor import Executor
    from backend.ranks.workers import Devices
    from backend.replicas.host import Describe, Make
    from backend.replicas.messages import Report
    from backend.replicas.replica import ServingReplica
    from backend.several import ModelsExecutor
    from backend.swapping import SwappingExecutor
    from backend.tiled.execution import Tiling
    from backend.warming import Serves, WarmUps
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
    return "process" if scenario.replicas > 1 or fails else "thread"


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
    faults, replicas = Faults(**given), scenario.replicas
    faults.check(replicas, requests[-1].arrival_s - requests[0].arrival_s)
    return faults.happenings(replicas, requests, scenario.seed)


def replicas_of(prepared: Prepared, requests: list[Request], stack: ExitStack) -> Sequence[ServingReplica]:
    """The replicas of a scenario, pool by pool, not started.

    Args:
        prepared: what to run.
        requests: that they will serve.
        stack: what they need as long as they live.
    """
    from backend.machine import cores_of, devices_of
    from backend.replicas.process import ProcessReplica
    from backend.replicas.rays import RayCluster, RayReplica
    from backend.replicas.replica import ThreadReplica

    scenario = prepared.scenario
    cluster, launcher = scenario.cluster, launcher_of(scenario)
    threads, silence_s = cluster.threads, cluster.replica_timeout_s
    weights, loaded = checkpoints_of(prepared), prepared.loaded
    by_pool = [_PoolReplicas.of(pool, prepared, weights) for pool in scenario.pools]
    of = [own for own in by_pool for _ in range(own.replicas)]
    asked = [own.device for own in of]
    if launcher == "ray":
        stack.enter_context(RayCluster(len(of) * (threads or 1)))
    devices = asked if launcher == "ray" else devices_of(asked, [own.devices for own in of])
    cores = cores_of(devices, threads)
    replicas: list[ServingReplica] = []
    for index, (own, device) in enumerate(zip(of, devices, strict=True)):
        make, prepare = own.make(device, loaded[index]), own.prepare(requests)
        replica: ServingReplica
        if launcher == "ray":
            gpus = own.devices if device.startswith("cuda") else 0
            replica = RayReplica(make, prepare, _described, threads, gpus, silence_s)
        elif launcher == "thread":
            replica = ThreadReplica(make, prepare, _described)
        else:
            replica = ProcessReplica(make, prepare, _described, threads, cores[index], silence_s)
        replica.bare = own.make(device, ())
        replicas.append(replica)
    return replicas


def warm_ups_of(prepared: Prepared, requests: list[Request]) -> WarmUps | None:
    """What warms replicas up that serve some stages each; None: all serve all, and do that themselves.

    Raises:
        BadInput: requests name adapters, which stay on one pool.
    """
    from backend.kernels.graphs import TRIALS
    from backend.warming import WarmUps

    pools = prepared.scenario.pools
    if not any(pool.stages for pool in pools):
        return None
    if with_adapters := next((request for request in requests if request.adapter_set), None):
        raise BadInput(
            f"request {with_adapters.request_id!r} names adapters, which are not put on where pools serve some stages; "
            "expected pools that serve all"
        )
    by_pool = [_PoolReplicas.of(pool, prepared, None) for pool in pools]
    steps = TRIALS if any(own.device.startswith("cuda") for own in by_pool) else 2
    return WarmUps(requests, [own.serves for own in by_pool for _ in range(own.replicas)], steps)


class _PoolReplicas(NamedTuple):
    """What the replicas of a pool are made of; plain values, that a process can be sent.

    Attributes:
        replicas: how many there are.
        device: that they ask for, as torch names it.
        devices: of each.
        scenario: of the first of its models.
        makes: makes the executor of a pipeline, by the name of its model.
        sources: what is loaded, by the name of the model.
        weights: those that it holds and brings; None: all that it serves always lies there.
        stages: of requests, that they serve; None: all.
    """

    replicas: int
    device: str
    devices: int
    scenario: Scenario
    makes: Mapping[str, Callable[..., Executor]]
    sources: Mapping[str, str]
    weights: PreparedWeights | None
    stages: tuple[str, ...] | None

    @property
    def serves(self) -> Serves:
        """What each of them is for."""
        from backend.warming import Serves

        return Serves(frozenset(self.makes), frozenset(self.stages or ()), self.devices)

    @classmethod
    def of(cls, pool: PoolSection, prepared: Prepared, weights: PreparedWeights | None) -> _PoolReplicas:
        """Those of a pool.

        Args:
            pool: which.
            prepared: what to run.
            weights: of all pools, with their folders.
        """
        members = [member for member in prepared.members if member.pool.name == pool.name]
        served = {member.model: member.scenario for member in members}
        first = members[0].scenario
        return cls(
            replicas=pool.replicas,
            device=first.cluster.device,
            devices=first.cluster.devices,
            scenario=first,
            makes={
                model: _making(prepared, model, scenario, pool.stages or None) for model, scenario in served.items()
            },
            sources={model: scenario.model_source for model, scenario in served.items()},
            weights=None if weights is None else weights._replace(weights=weights.by_pool[pool.name]),
            stages=pool.stages or None,
        )

    def make(self, device: str, loaded: Sequence[str]) -> Make:
        """Makes what carries out the launches of one of them.

        Args:
            device: its own.
            loaded: the checkpoints that lie there from the beginning, where weights are loaded.
        """
        how = _swapping if self.weights is not None else _executor if len(self.makes) == 1 else _executors
        return partial(how, self, device, loaded)

    def prepare(self, requests: Sequence[Request]) -> Describe:
        """Warms one of them up.

        Args:
            requests: that the cluster will serve.
        """
        own = [request for request in requests if request.model in self.makes]
        if self.weights is not None:
            return partial(_warmed_up_on_each, requests=own, models=self.weights.models)
        return partial(_warmed_up if len(self.makes) == 1 else _warmed_up_all, requests=own)


def _making(
    prepared: Prepared, model: str, scenario: Scenario, stages: tuple[str, ...] | None
) -> Callable[..., Executor]:
    """Makes the executor of a pipeline, of one model of a pool."""
    from backend.lora import adapter_files

    return partial(
        _executor_of,
        scenario=scenario,
        caching=None if prepared.cache is None else prepared.cache.policy,
        tiling=None if prepared.tiling is None else prepared.tiling.execution(prepared.table),
        adapters=adapter_files(scenario.adapters, [each for each in prepared.requests if each.model == model]),
        stages=stages,
    )


def checkpoints_of(prepared: Prepared) -> PreparedWeights | None:
    """The weights of a scenario, with the folder of each checkpoint; None: it loads none.

    Raises:
        BadInput: a checkpoint has no folder, is not whole, or is of another architecture than its model.
    """
    from backend.checkpoints import check_alike, checkpoint_folders

    weights, members = prepared.weights, prepared.members
    if weights is None:
        return None
    folders = weights.folders or checkpoints_in(None, members, weights.models)
    for member in {member.model: member for member in reversed(members)}.values():
        own = {name: folder for name, folder in folders.items() if weights.models[name] == member.model}
        try:
            of_model = checkpoint_folders(None, member.scenario.model_source, [""])
        except BadInput:
            of_model = {}  # a model known by its name, of which the checkpoints alone are here
        check_alike({**of_model, **own}, member.scenario.cluster.weights_dtype)
    return weights._replace(folders=folders)


def _executor(own: _PoolReplicas, device: str, _: Sequence[str] = ()) -> Executor:
    """The executor of a model alone, on the thread and in the process that it will serve from."""
    from backend.loading import load_pipeline
    from backend.machine import use_threads

    cluster = own.scenario.cluster
    use_threads(cluster.threads)
    ((model, make),) = own.makes.items()
    here = "cpu" if are_served(own.scenario) else device
    return make(load_pipeline(own.sources[model], here, cluster.weights_dtype, own.stages))


def _executors(own: _PoolReplicas, device: str, _: Sequence[str] = ()) -> ModelsExecutor:
    """The same of several models, all of them there."""
    from backend.loading import load_pipeline
    from backend.machine import use_threads
    from backend.several import ModelsExecutor

    cluster = own.scenario.cluster
    use_threads(cluster.threads)
    here = "cpu" if are_served(own.scenario) else device
    return ModelsExecutor(
        {
            model: make(load_pipeline(own.sources[model], here, cluster.weights_dtype, own.stages))
            for model, make in own.makes.items()
        }
    )


def _swapping(own: _PoolReplicas, device: str, loaded: Sequence[str]) -> SwappingExecutor:
    """The same where weights are loaded; caches share the memory that one would have."""
    from backend.machine import use_threads
    from backend.swapping import SwappingExecutor

    cluster, weights = own.scenario.cluster, own.weights
    assert weights is not None
    use_threads(cluster.threads)
    here = {name: folder for name, folder in weights.folders.items() if weights.models[name] in own.makes}
    cache_bytes = cluster.cache_bytes // weights.weights.most_fitting(here)
    return SwappingExecutor(
        folders=here,
        make=lambda checkpoint, pipeline: own.makes[weights.models[checkpoint]](pipeline, cache_bytes=cache_bytes),
        weights=weights.weights,
        device=device,
        dtype=cluster.weights_dtype,
        loaded=loaded,
    )


def are_served(scenario: Scenario) -> bool:
    """Whether the devices of a replica are processes beside its own, so that launches run side by side.

    Tiles, and what torchrun starts, have the replica's own process as one of the devices.
    """
    from backend.ranks.environment import torchrun

    return scenario.cluster.devices > 1 and scenario.tiling is None and torchrun() is None


def ranks_of(scenario: Scenario, stages: Sequence[str] | None = None) -> Devices:
    """The devices of a replica of a model."""
    from backend.ranks.workers import Devices

    cluster = scenario.cluster
    return Devices(
        cluster.devices, scenario.model_source, cluster.weights_dtype, cluster.rank_timeout_s, tuple(stages or ())
    )


def _executor_of(
    pipeline: Any,
    scenario: Scenario,
    caching: CachingPolicy | None,
    tiling: Tiling | None,
    adapters: Mapping[str, Path],
    cache_bytes: int | None = None,
    stages: tuple[str, ...] | None = None,
) -> Executor:
    from backend.devices.servers import DeviceServers
    from backend.executor import Executor
    from backend.ranks.workers import Workers

    cluster = scenario.cluster
    kind, devices = cluster.device.partition(":")[0], ranks_of(scenario, stages)
    served = are_served(scenario)
    return Executor(
        workers=None if served else Workers(devices, kind),
        servers=DeviceServers(devices, kind) if served else None,
        pipeline=pipeline,
        mode=cluster.executor,
        caching=caching,
        cache_bytes=cluster.cache_bytes if cache_bytes is None else cache_bytes,
        cache_patch=cluster.side_of_cached_patch,
        decode=cluster.decode,
        patch_floor=cluster.patch_floor,
        tiling=tiling,
        images=scenario.images,
        kernels=cluster.kernels,
        adapters=adapters,
        stages=stages,
    )


def _warmed_up(executor: Executor, requests: list[Request]) -> Report:
    """See that an executor can serve requests, and run one of every kind.

    Raises:
        BadInput: a request cannot start here.
    """
    from backend.coroutine import unused_arguments
    from backend.kernels.graphs import TRIALS
    from backend.warming import warm_up

    for request in {(r.image, r.mask, r.adapters, r.size): r for r in requests}.values():
        executor.check(request)
    if executor.stages is None:  # else the replay brings what they are warmed up with
        warm_up([executor], requests, TRIALS if executor.kernels.graphs else 2)
    return _described(executor)._replace(warnings=tuple(unused_arguments(executor.pipeline, requests)))


def _warmed_up_all(executor: ModelsExecutor, requests: list[Request]) -> Report:
    """The same of several models, each on its own requests."""
    return _joined([_warmed_up(executor.of[model], own) for model, own in _by_model(requests).items()], executor)


def _warmed_up_on_each(executor: SwappingExecutor, requests: list[Request], models: Mapping[str, str]) -> Report:
    """The same where weights are loaded, of each model on one of its checkpoints, as these are of one architecture.

    Args:
        executor: which.
        requests: that it will serve.
        models: of which model each checkpoint is.
    """
    here = {models[name]: name for name in reversed(executor.loaded)}
    reports = []
    by_model = _by_model(requests)
    for model in sorted(by_model, key=lambda model: model in here):  # what stays comes last
        own = by_model[model]
        ((wanted, _),) = Counter([request.checkpoint for request in own]).most_common(1)
        with executor.lent(here.get(model, wanted)) as one:
            reports.append(_warmed_up(one, own))
    return _joined(reports, executor)


def _by_model(requests: Sequence[Request]) -> dict[str, list[Request]]:
    found: dict[str, list[Request]] = {}
    for request in requests:
        found.setdefault(request.model, []).append(request)
    return found


def _joined(reports: Sequence[Report], executor: ModelsExecutor | SwappingExecutor) -> Report:
    """What a replica of several models says of itself."""
    warnings = dict.fromkeys([warning for report in reports for warning in report.warnings])
    return _described(executor)._replace(warnings=tuple(warnings))


def _described(executor: Executor | ModelsExecutor | SwappingExecutor) -> Report:
    from backend.machine import hardware_name
    from backend.replicas.messages import Report

    return Report(hardware_name(str(executor.computes_on)), (), tuple(executor.notes), executor.cache_peak_bytes)
