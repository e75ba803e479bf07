"""``tilecast replay``: a scenario on real devices."""

from __future__ import annotations

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
    from cli.runs import Prepared


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
) -> None:
    """Run a scenario in real time on real devices and write its run log.

    Exit code 3: the log is written, but no request finished.
    """
    from backend.tiled.environment import torchrun
    from cli.runs import keep_inputs, prepare
    from cli.scenario import load_scenario
    from policies.runlog import REPLAY
    from traces.errors import BadInput
    from traces.output import COPIES, check_folder, claim_folder

    place = torchrun()
    if place is None or place.rank == 0:
        check_folder(output, REPLAY)
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
    executors = _executors(prepared)
    for request in {(r.image, r.size): r for r in prepared.requests}.values():
        executors[0].check(request)

    from datetime import UTC, datetime

    from backend.coroutine import unused_arguments
    from backend.executor import Executor
    from backend.kernels.graphs import TRIALS
    from backend.pictures import PictureFolder
    from backend.profiling import hardware_name
    from backend.replay import Replay, warm_up
    from cli.exits import NEGATIVE
    from cli.progress import bar
    from policies.events import EventRecord
    from policies.runlog import read_run
    from reports.comparison import Comparison
    from reports.notes import nothing_finished
    from reports.terminal import show

    with claim_folder(output, REPLAY) as claimed, claimed.renewed() as folder:
        prepared.warnings.extend(unused_arguments(executors[0].pipeline, prepared.requests))
        steps = TRIALS if any(executor.kernels.graphs for executor in executors) else 2
        pictures = PictureFolder(folder / "images", prepared.requests) if save_images else None
        record = EventRecord()
        controller = prepared.controller(record.add)
        started = datetime.now(UTC).isoformat(timespec="seconds")
        deliver = pictures.save if pictures else None

        def warm(executor: Executor) -> None:
            warm_up([executor], prepared.requests, steps)

        with bar("replaying", len(prepared.requests)) as progress:
            interrupted = Replay(controller, executors, deliver, progress, warm).run(prepared.requests)
        info = prepared.info(
            "replay",
            started=started,
            speedup=speedup,
            interrupted=interrupted,
            hardware=hardware_name(loaded.cluster.device),
            cache_peak_bytes=[executor.cache.kept.peak_bytes for executor in executors if executor.cache is not None],
        )
        info["drift"] = prepared.drift(controller)
        if info["hardware"] != prepared.table.hardware:
            info["warnings"] = [
                *info["warnings"],
                f"predictions are of {prepared.table.hardware}, the replay ran on {info['hardware']}",
            ]
        info["warnings"] = [*info["warnings"], *executors[0].notes]
        info[COPIES] = keep_inputs(prepared, folder)
        prepared.write(folder, controller, info, record.lines)
    log = read_run(output.resolve())
    show(Comparison.of([log]))
    say(f"{'interrupted; the log so far' if interrupted else 'replayed'} -> {output}")
    if interrupted:
        raise typer.Exit(130)
    if nothing_finished(log):
        raise typer.Exit(NEGATIVE)


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
