"""A prepared scenario on real devices: what `replay` does between a folder and its log."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from policies.livelog import LiveLog
from policies.watchdog import watched
from reports.console import say
from tilecast.recorded import interrupted_replay, keep_inputs
from tilecast.scenario import Scenario
from tilecast.setup import Prepared
from tilecast.signals import Interrupted, ignored, instead
from traces.errors import BadInput
from traces.output import Folder

if TYPE_CHECKING:
    from backend.executor import Executor


def check_replayable(scenario: Scenario) -> None:
    """Refuse what only a simulation can do.

    Raises:
        BadInput: the scenario asks for it.
    """
    if scenario.predictor.oracle:
        raise BadInput("predictor.oracle is true, but nobody knows how long a real run will take; set it to false")
    if scenario.faults is not None:
        raise BadInput("faults are simulated; a real run has its own: take [faults] out of the scenario")
    if scenario.weights is not None:
        raise BadInput("loading many checkpoints is simulated, not replayed: take [weights] out of the scenario")


def replay_into(
    prepared: Prepared,
    folder: Folder,
    speedup: float,
    save_images: bool,
    resume: bool,
    progress: Callable[[int], None],
) -> str:
    """Replay what is to do; in words, what that was.

    Args:
        prepared: what to run.
        folder: the folder of its log, claimed by this process.
        speedup: seconds of the trace in a real second, for the log.
        save_images: write the pictures, too.
        resume: go on with the interrupted replay in the folder, if there is one.
        progress: called with how many of the requests have ended.

    Raises:
        BadInput: the machine or the models will not do, or the folder holds another replay.
        Interrupted: a signal ended it; the log so far is written.
    """
    now = datetime.now(UTC).isoformat(timespec="seconds")
    requests = prepared.requests
    log = interrupted_replay(folder.path, prepared, resume)
    if log is not None and not log.left and not log.interrupted:
        return f"nothing to resume: all {len(requests)} requests have ended"
    info = prepared.info("replay", started=now, speedup=speedup)
    if log is not None:
        info |= {"started": log.info["started"], "resumed": [*log.resumed, {"at_s": log.now, "started": now}]}
    costs = prepared.costs
    live = LiveLog(
        folder=folder,
        requests=requests,
        replicas=prepared.scenario.cluster.replicas,
        standalone=costs.standalone_s,
        extrapolates=costs.extrapolates,
        info=info,
        inputs=lambda: keep_inputs(prepared, folder),
        before=() if log is None else log.events,
    )
    if log is not None and not log.left:
        live.info = log.info
        live.close(interrupted=False)
        return f"nothing to resume: all {len(requests)} requests had ended"
    executors = _executors(prepared)

    from backend.coroutine import unused_arguments

    for request in {(r.image, r.mask, r.adapters, r.size): r for r in requests}.values():
        executors[0].check(request)
    info["warnings"] = [*info["warnings"], *unused_arguments(executors[0].pipeline, requests)]

    from backend.kernels.graphs import TRIALS
    from backend.pictures import PictureFolder
    from backend.profiling import hardware_name
    from backend.replay import Replay, warm_up

    steps = TRIALS if any(executor.kernels.graphs for executor in executors) else 2
    left, start_s = (requests, 0.0) if log is None else (log.left, log.now)
    before = len(requests) - len(left)
    pictures = PictureFolder(folder.path / "images", requests) if save_images else None
    hardware = hardware_name(prepared.scenario.cluster.device)
    info["hardware"] = hardware
    if hardware != prepared.table.hardware:
        said = f"predictions are of {prepared.table.hardware}, the replay ran on {hardware}"
        info["warnings"] = [*info["warnings"], said]

    def warm(executor: Executor) -> None:
        warm_up([executor], left, steps)

    with watched(prepared.scenario.policies.call_limit_s), live:
        replay = Replay(
            prepared.controller(live.add),
            executors,
            pictures.save if pictures else None,
            lambda ended: progress(before + ended),
            warm,
            prepared.scenario.policies.call_limit_s,
        )
        with instead(replay.stop):
            interrupted = replay.run(left, start_s)
            caches = [executor.cache.kept.peak_bytes for executor in executors if executor.cache is not None]
            info["warnings"] = [*info["warnings"], *executors[0].notes]
            live.close(interrupted, cache_peak_bytes=caches, drift=prepared.drift(live.settle()))
    if interrupted:
        if not live.ended:
            raise Interrupted("interrupted before any request had ended; nothing is kept")
        raise Interrupted(
            f"interrupted: {live.ended} of {len(requests)} requests had ended, which are kept in {folder.path}; "
            "the same command with --resume goes on"
        )
    return "replayed" if log is None else f"resumed at {start_s:.1f} s, replayed the {len(left)} that were left"


def follows(prepared: Prepared) -> bool:
    """Under torchrun: whether this was one of the ranks that only help the first, which it has done by now."""
    from backend.tiled.environment import torchrun

    place, cluster = torchrun(), prepared.scenario.cluster
    if place is None:
        return False
    if prepared.tiling is None or cluster.devices == 1:
        if place.rank:
            say(
                f"rank {place.rank} of {place.size} has nothing to do: without [tiling] and cluster.devices = "
                f"{place.size} rank 0 replays alone"
            )
        return place.rank > 0
    if cluster.replicas > 1 or place.size != cluster.devices:
        raise BadInput(
            f"torchrun started {place.size} processes; expected cluster.replicas = 1 and cluster.devices = {place.size}"
        )
    if place.rank == 0:
        return False
    from backend.machine import use_threads
    from backend.tiled.execution import serve_torchrun

    ignored()  # torchrun sends them to every rank; the first ends the run in good order, and the others with it

    use_threads(cluster.threads)
    serve_torchrun(prepared.tiling.execution(prepared.table), cluster.device)
    return True


def _executors(prepared: Prepared) -> list[Any]:
    try:
        from backend.executor import Executor
        from backend.loading import load_pipeline
        from backend.lora import adapter_files
        from backend.machine import devices_of, use_threads
    except ImportError as error:
        raise BadInput(f"replay needs {error.name}; install tilecast[backend]") from error
    scenario, cluster = prepared.scenario, prepared.scenario.cluster
    caching = prepared.cache.policy if prepared.cache is not None else None
    adapters = adapter_files(scenario.adapters, prepared.requests)
    use_threads(cluster.threads)
    return [
        Executor(
            pipeline=load_pipeline(scenario.model_source, device, cluster.dtype),
            mode=cluster.executor,
            caching=caching,
            cache_bytes=cluster.cache_bytes,
            cache_patch=cluster.cache_patch,
            decode=cluster.decode,
            patch_floor=cluster.patch_floor,
            tiling=None if prepared.tiling is None else prepared.tiling.execution(prepared.table),
            images=scenario.images,
            kernels=cluster.kernels,
            adapters=adapters,
        )
        for device in devices_of(cluster.device, cluster.replicas, cluster.devices)
    ]
