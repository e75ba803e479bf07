"""``tilecast replay``: a scenario on real devices."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.simulate import (
    OutputOption,
    ProfileOption,
    ScenarioFile,
    SchedulerOption,
    SeedOption,
    SetOption,
    TraceOption,
    overrides,
)
from reports.console import say
from traces.limits import FACTOR

if TYPE_CHECKING:
    from tilecast.setup import Prepared
    from traces.output import Folder


def replay(
    scenario: ScenarioFile,
    output: OutputOption,
    trace: TraceOption = None,
    profile: ProfileOption = None,
    scheduler: SchedulerOption = None,
    seed: SeedOption = None,
    settings: SetOption = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda, instead of the scenario's.")] = None,
    kernels: Annotated[str | None, typer.Option(help="auto or reference, instead of the scenario's.")] = None,
    speedup: Annotated[float, FACTOR, typer.Option(help="Trace seconds a real second.")] = 1.0,
    save_images: Annotated[bool, typer.Option("--save-images", help="Write the pictures too.")] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the interrupted replay in the folder, if there is one.")
    ] = False,
) -> None:
    """Run a scenario in real time on real devices and write its run log, as it goes.

    Whatever ends it, what had ended stays, and the same command with --resume runs the requests that had not: those
    under way begin anew. Its clock goes on from the last event of the log, so that the time between does not count; the
    policy and the caches begin anew there. Without a log, --resume begins; with a whole one, nothing is to do.

    Exit code 3: the log is written, but no request finished.
    """
    from backend.tiled.environment import torchrun
    from cli.failures import NEGATIVE
    from policies.runlog import REPLAY, read_run
    from reports.comparison import Comparison
    from reports.notes import nothing_finished
    from reports.terminal import show
    from tilecast.scenario import load_scenario
    from tilecast.setup import prepare
    from traces.errors import BadInput
    from traces.output import check_folder, claim_folder

    place = torchrun()
    if place is None or place.rank == 0:
        check_folder(output, REPLAY, goes_on=resume)
    given = overrides(trace, profile, scheduler, seed, settings)
    if device is not None:
        given["cluster.device"] = device
    if kernels is not None:
        given["cluster.kernels"] = kernels
    loaded = load_scenario(scenario, given)
    if loaded.predictor.oracle:
        raise BadInput("predictor.oracle is true, but nobody knows how long a real run will take; set it to false")
    if speedup != 1.0:
        scaled = {**given, "trace.rate_scale": loaded.trace.rate_scale * speedup}
        loaded = load_scenario(scenario, scaled)
    if loaded.faults is not None:
        raise BadInput("faults are simulated; a real run has its own: take [faults] out of the scenario")
    if loaded.residency is not None:
        raise BadInput("loading many checkpoints is simulated, not replayed: take [residency] out of the scenario")
    prepared = prepare(loaded)
    if _follows(prepared):
        return
    with claim_folder(output, REPLAY, goes_on=resume) as folder:
        done = _run(prepared, folder, output, speedup, save_images, resume)
    log = read_run(output.resolve())
    show(Comparison.of([log]))
    say(f"{done} -> {output}")
    if nothing_finished(log):
        raise typer.Exit(NEGATIVE)


def _run(prepared: Prepared, folder: Folder, output: Path, speedup: float, save_images: bool, resume: bool) -> str:
    """Replay what is to do; in words, what that was.

    Raises:
        Interrupted: a signal ended it; the log so far is written.
    """
    from datetime import UTC, datetime

    from policies.livelog import LiveLog
    from tilecast.resuming import begun
    from tilecast.setup import keep_inputs
    from tilecast.signals import Interrupted, instead

    now = datetime.now(UTC).isoformat(timespec="seconds")
    requests = prepared.requests
    log = begun(folder.path, prepared, resume)
    if log is not None and not log.left and not log.interrupted:
        return f"nothing to resume: all {len(requests)} requests have ended"
    info = prepared.info("replay", started=now, speedup=speedup)
    if log is not None:
        info |= {"started": log.info["started"], "resumed": [*log.resumed, {"at_s": log.now, "started": now}]}
    costs = prepared.costs
    live = LiveLog(
        folder,
        requests,
        prepared.scenario.cluster.replicas,
        costs.standalone,
        costs.extrapolates,
        info,
        lambda: keep_inputs(prepared, folder),
        () if log is None else log.events,
    )
    if log is not None and not log.left:
        live.info = log.info
        live.close(interrupted=False)
        return f"nothing to resume: all {len(requests)} requests had ended"
    executors = _executors(prepared)

    from backend.coroutine import unused_arguments

    for request in {(r.image, r.size): r for r in requests}.values():
        executors[0].check(request)
    info["warnings"] = [*info["warnings"], *unused_arguments(executors[0].pipeline, requests)]

    from backend.executor import Executor
    from backend.kernels.graphs import TRIALS
    from backend.pictures import PictureFolder
    from backend.profiling import hardware_name
    from backend.replay import Replay, warm_up
    from policies.watchdog import watched
    from reports.progress import bar

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

    with watched(prepared.scenario.policies.patience_s), live, bar("replaying", len(requests)) as progress:
        replay = Replay(
            prepared.controller(live.add),
            executors,
            pictures.save if pictures else None,
            lambda ended: progress(before + ended),
            warm,
            prepared.scenario.policies.patience_s,
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
            f"interrupted: {live.ended} of {len(requests)} requests had ended, which are kept in {output}; "
            "the same command with --resume goes on"
        )
    return "replayed" if log is None else f"resumed at {start_s:.1f} s, replayed the {len(left)} that were left"


def _follows(prepared: Prepared) -> bool:
    """Under torchrun: whether this was one of the ranks that only help the first, which it has done by now."""
    from backend.tiled.environment import torchrun
    from traces.errors import BadInput

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
    import torch

    from backend.tiled.execution import follow_torchrun
    from tilecast.signals import ignored

    ignored()  # torchrun sends them to every rank; the first ends the run in good order, and the others with it

    if cluster.threads is not None:
        torch.set_num_threads(cluster.threads)
    follow_torchrun(prepared.tiling.execution(prepared.table), cluster.device)
    return True


def _executors(prepared: Prepared) -> list[Any]:
    from traces.errors import BadInput

    try:
        import torch

        from backend.executor import Executor
        from backend.loading import load_pipeline
    except ImportError as error:
        raise BadInput(f"replay needs {error.name}; install tilecast[backend]") from error
    scenario, cluster = prepared.scenario, prepared.scenario.cluster
    caching = prepared.cache.policy if prepared.cache is not None else None
    if cluster.threads is not None:
        torch.set_num_threads(cluster.threads)
    devices = [cluster.device] * cluster.replicas
    if cluster.device == "cuda":
        found = torch.cuda.device_count()
        if 0 < found < cluster.replicas:
            raise BadInput(f"cluster.replicas is {cluster.replicas}, but this machine has {found} CUDA devices")
        if cluster.replicas > 1 and cluster.devices > 1:
            raise BadInput("on CUDA a replay has several replicas or several devices a replica, not both")
        devices = [f"cuda:{index}" for index in range(cluster.replicas)]
    return [
        Executor(
            load_pipeline(scenario.model_source, device, cluster.dtype),
            cluster.executor,
            caching,
            cluster.cache_bytes,
            cluster.cache_patch,
            cluster.decode,
            cluster.patch_floor,
            None if prepared.tiling is None else prepared.tiling.execution(prepared.table),
            scenario.images,
            cluster.kernels,
        )
        for device in devices
    ]
