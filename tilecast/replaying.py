"""A prepared scenario on real devices: what `replay` does between a folder and its log."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from policies.legs import standalone_on
from policies.livelog import LiveLog
from policies.pool import extrapolates_on
from policies.watchdog import watched
from reports.console import say
from tilecast.real_replicas import (
    check_backend,
    check_faults,
    launcher_of,
    ranks_of,
    real_happenings,
    replicas_of,
    warm_ups_of,
)
from tilecast.recorded import interrupted_replay, keep_inputs
from tilecast.scenario import Scenario
from tilecast.setup import Prepared
from tilecast.signals import Interrupted, ignored, instead
from traces.errors import BadInput
from traces.notes import grave
from traces.output import Folder
from traces.request import Request

if TYPE_CHECKING:
    from backend.pictures import PictureFolder


def check_replayable(scenario: Scenario) -> None:
    """Refuse what only a simulation can do.

    Raises:
        BadInput: the scenario asks for it.
    """
    if scenario.predictor.oracle:
        raise BadInput("predictor.oracle is true, but nobody knows how long a real run will take; set it to false")
    if scenario.trace.users is not None:
        raise BadInput("trace.users is of simulations; a replay's requests come at the times of its trace")
    check_faults(scenario)
    sources: dict[str, str] = {}
    for pool in scenario.pools:
        of = f"pool {pool.name!r}: " if scenario.pool else ""
        for model in pool.models or (scenario.model,):
            own = scenario.serving(pool, model)
            if scenario.weights is not None and own.cluster.devices > 1:
                raise BadInput(
                    f"{of}the ranks of a replica do not load weights together; beside [weights] expected "
                    "cluster.devices = 1"
                )
            if len(pool.models) > 1 and own.cluster.devices > 1:
                raise BadInput(
                    f"{of}the devices of a replica hold one model in a replay; expected devices = 1, or a pool a model"
                )
            if own.policies.caching.name != "none" and own.tiling is None and own.cluster.devices > 1:
                raise BadInput(
                    f"{of}policies.caching is {own.policies.caching.name!r}, which several devices of a replica do not "
                    "ask; beside it expected cluster.devices = 1"
                )
            _check_served(own, of, sources)


def _check_served(scenario: Scenario, of: str, sources: dict[str, str]) -> None:
    """Refuse a model that is not here, or that shares its name with another.

    Args:
        scenario: as if its pool were the cluster.
        of: names the pool; "": there are none.
        sources: what the models before it are loaded from, by name; it is added.
    """
    from backend.folder import model_folder  # which needs no torch

    name, source = scenario.model_name, scenario.model_source
    other = sources.setdefault(name, source)
    if other != source:
        raise BadInput(f"{of}models {other} and {source} are both called {name!r}; expected folders of different names")
    if scenario.weights is None:
        try:
            model_folder(source)
        except BadInput as error:
            raise BadInput(f"{of}{error}") from error


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
    saved = _pictures(folder, requests) if save_images else None
    again = [] if log is None or saved is None else [job for job in log.finished if not saved.holds(job.request)]
    if log is not None and not log.left and not log.interrupted and not again:
        return f"nothing to resume: all {len(requests)} requests have ended"
    info = prepared.info("replay", started=now, speedup=speedup)
    if log is not None:
        resumed = [*log.resumed, {"at_s": log.now, "started": now}]
        info |= {**log.kept, "started": log.info["started"], "resumed": resumed}
    live = LiveLog(
        folder=folder,
        requests=requests,
        replicas=prepared.scenario.replicas,
        standalone=standalone_on(prepared.pools),
        extrapolates=extrapolates_on(prepared.pools),
        info=info,
        inputs=lambda: keep_inputs(prepared, folder),
        before=() if log is None else log.events,
    )
    if log is not None and not log.left and not again:
        live.info = log.info
        live.close(interrupted=False)
        return f"nothing to resume: all {len(requests)} requests had ended"
    check_backend()
    from backend.pictures import PictureWriter
    from backend.replay import Replay

    left, start_s = (requests, 0.0) if log is None else (log.left, log.now)
    before = len(requests) - len(left)
    scenario = prepared.scenario

    with ExitStack() as stack:
        replicas = replicas_of(prepared, [*left, *[job.request for job in again]], stack)
        stack.enter_context(watched(scenario.policies.call_limit_s))
        stack.enter_context(live)
        writer = PictureWriter(saved.save) if saved else None
        if writer is not None:
            stack.callback(writer.close)
        replay = Replay(
            controller=prepared.controller(live.add),
            replicas=replicas,
            deliver=writer.put if writer else None,
            progress=lambda ended: progress(before + ended),
            call_limit_s=scenario.policies.call_limit_s,
            happenings=real_happenings(scenario, requests),
            in_flight="restart" if scenario.faults is None else scenario.faults.in_flight,
            warm_ups=warm_ups_of(prepared, requests),
        )

        def ready() -> None:
            hardware = dict.fromkeys([report.hardware for report in replay.reports if report.hardware])
            info["hardware"] = ", ".join(hardware) or info["hardware"]
            said = dict.fromkeys([warning for report in replay.reports for warning in report.warnings])
            believed = {member.pool.name: member.table.hardware for member in reversed(prepared.members)}
            for pool, report in zip(prepared.scenario.pool_of_replicas, replay.reports, strict=True):
                if report.hardware and report.hardware != believed[pool.name]:
                    said[f"predictions are of {believed[pool.name]}, the replay ran on {report.hardware}"] = None
            info["warnings"] = [*info["warnings"], *said]

        with instead(replay.stop):
            interrupted = replay.run(left, start_s, ready, again)
            if writer is not None:
                writer.close()
            reports = replay.reports
            caches = [report.cache_peak_bytes for report in reports if report.cache_peak_bytes is not None]
            notes = dict.fromkeys([note for report in reports for note in report.notes])
            info["warnings"] = [*info["warnings"], *notes, *[grave(each).document() for each in replay.warnings]]
            ledger = live.settle()
            if log is not None and not left:  # nothing happened but for pictures
                live.info = log.info
                live.close(interrupted=False)
            else:
                live.close(
                    interrupted, cache_peak_bytes=caches, drift=prepared.drift(ledger), **prepared.happened(ledger)
                )
    lacking = replay.undelivered | (writer.failed if writer else {})
    if lacking:
        name, why = next(iter(lacking.items()))
        raise BadInput(
            f"the pictures of {len(lacking)} of {len(requests)} requests could not be written (first: {name!r}: "
            f"{why}); the log is complete in {folder.path}"
        )
    if interrupted:
        if not live.ended:
            raise Interrupted("interrupted before any request had ended; nothing is kept")
        raise Interrupted(
            f"interrupted: {live.ended} of {len(requests)} requests had ended, which are kept in {folder.path}; "
            "the same command with --resume goes on"
        )
    if log is None:
        return "replayed"
    made = f"; made the lost pictures of {len(again)} finished again" if again else ""
    return f"resumed at {start_s:.1f} s, replayed the {len(left)} that were left{made}"


def _pictures(folder: Folder, requests: list[Request]) -> PictureFolder:
    check_backend()
    from backend.pictures import PictureFolder

    return PictureFolder(folder.path / "images", requests)


def follows(prepared: Prepared) -> bool:
    """Under torchrun: whether this was one of the ranks that only help the first, which it has done by now."""
    from backend.ranks.environment import torchrun

    place, cluster = torchrun(), prepared.members[0].scenario.cluster
    if place is None:
        return False
    if cluster.devices == 1:
        if place.rank:
            say(
                f"rank {place.rank} of {place.size} has nothing to do: without cluster.devices = {place.size} rank 0 "
                "replays alone"
            )
        return place.rank > 0
    if prepared.scenario.replicas > 1 or place.size != cluster.devices:
        raise BadInput(
            f"torchrun started {place.size} processes; expected cluster.replicas = 1 and cluster.devices = {place.size}"
        )
    if prepared.elastic:
        raise BadInput(
            "torchrun has started the processes of the one replica, which can neither come nor go: [scaling]"
        )
    if launcher_of(prepared.scenario) != "thread":
        raise BadInput(
            f"cluster.launcher is {launcher_of(prepared.scenario)!r}, but torchrun has started the processes of the "
            "replica; expected 'thread', and no [faults] that end it"
        )
    if place.rank == 0:
        return False
    from backend.devices.rank import serve_torchrun
    from backend.machine import use_threads

    ignored()  # torchrun sends them to every rank; the first ends the run in good order, and the others with it

    use_threads(cluster.threads)
    serve_torchrun(
        devices=ranks_of(prepared.members[0].scenario),
        device=cluster.device,
        mode=cluster.executor,
        kernels=cluster.kernels,
        patch_floor=cluster.patch_floor,
        tiling=None if prepared.tiling is None else prepared.tiling.execution(prepared.table),
        decode=cluster.decode,
    )
    return True
