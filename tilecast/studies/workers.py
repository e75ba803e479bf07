"""Independent calls on several processes of this machine, or on a Ray cluster: the results as they come."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Mapping
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from tilecast.signals import came
from traces.errors import BadInput, did_you_mean

EXECUTORS = ("joblib", "ray")
Call = Callable[[str, Any], tuple[str, Any]]
Results = Generator[tuple[str, Any], None, None]

_RAY_STORE_BYTES = 100 * 2**20  # points and their results are small


def results(
    call: Call, arguments: Mapping[str, Any], workers: int, executor: str, ray_address: str | None = None
) -> Results:
    """What ``call(key, argument)`` returns for each of ``arguments``, in any order.

    Args:
        workers: calls at a time. One, without Ray, runs in this process.
        executor: ``joblib``: processes of this machine. ``ray``: a Ray cluster.
        ray_address: of the cluster; None: that of ``RAY_ADDRESS``, or else a cluster on this machine that ends with
            the last result.

    Raises:
        BadInput: an unknown executor, fewer than one worker, no Ray, no cluster there, or a worker that was killed.
    """
    check_workers(workers, executor, ray_address)
    if not arguments:
        return
    if executor == "ray":
        yield from _on_ray(call, arguments, workers, ray_address)
    elif workers == 1:
        for key, argument in arguments.items():
            yield call(key, argument)
    else:
        yield from _in_processes(call, arguments, workers)


def check_workers(workers: int, executor: str, ray_address: str | None) -> None:
    """Refuse what `results` cannot run on."""
    if executor not in EXECUTORS:
        raise BadInput(f"unknown executor {executor!r}; {did_you_mean(executor, EXECUTORS)}")
    if workers < 1:
        raise BadInput(f"workers is {workers}, expected at least 1")
    if ray_address is not None and executor != "ray":
        raise BadInput(f"a Ray address needs executor 'ray', not {executor!r}")


def _in_processes(call: Call, arguments: Mapping[str, Any], workers: int) -> Results:
    from joblib import Parallel, delayed, parallel_config
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    with parallel_config("loky", inner_max_num_threads=1):
        parallel = Parallel(workers, return_as="generator_unordered", batch_size=1)
        try:
            yield from parallel(delayed(_following)(os.getpid(), Path.cwd(), call, *pair) for pair in arguments.items())
        except TerminatedWorkerError as error:
            if came():  # a signal to the whole group, of which the workers heard first
                raise KeyboardInterrupt from error
            raise BadInput("a worker process was killed, perhaps for memory; use fewer workers") from error


def _on_ray(call: Call, arguments: Mapping[str, Any], workers: int, address: str | None) -> Results:
    address = address or os.environ.get("RAY_ADDRESS")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address is None:  # on every system: the cluster of one machine listens to that machine alone
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    try:
        import ray  # which reads the environment now
    except ImportError as error:
        raise BadInput("the executor 'ray' needs Ray: pip install 'tilecast[cluster]'") from error
    ours = not ray.is_initialized()
    if ours:
        _start_ray(workers, address)
    try:
        remote = ray.remote(_undisturbed)
        waiting = iter(arguments.items())
        running = [remote.remote(call, *pair) for pair in islice(waiting, workers)]
        while running:
            done, running = ray.wait(running)
            running += [remote.remote(call, *pair) for pair in islice(waiting, len(done))]
            yield from ray.get(done)
    finally:
        if ours:
            ray.shutdown()


def _start_ray(workers: int, address: str | None) -> None:
    import ray

    quiet: dict[str, Any] = {"logging_level": "error", "log_to_driver": False}
    try:
        if address is None:
            store = _RAY_STORE_BYTES
            ray.init("local", num_cpus=workers, include_dashboard=False, object_store_memory=store, **quiet)
        else:
            ray.init(address, **quiet)
    except (ConnectionError, ValueError) as error:
        raise BadInput(f"no Ray cluster at {address!r}: {str(error).splitlines()[0]}") from error


def _following(leader: int, folder: Path, call: Call, key: str, argument: Any) -> tuple[str, Any]:
    """A process of joblib outlives these calls: it would go on for minutes after its leader was killed, with calls that
    nobody waits for, and look for the files of later calls where the leader was when it began."""
    _end_with(leader)
    os.chdir(folder)
    if threading.current_thread() is threading.main_thread():  # Slurm sends it to every process
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return _undisturbed(call, key, argument)


@cache
def _end_with(leader: int) -> None:
    def watch() -> None:
        while os.getppid() == leader:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _undisturbed(call: Call, key: str, argument: Any) -> tuple[str, Any]:
    """Ctrl-C reaches every process of a terminal; the one that collects the results decides what ends."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    return call(key, argument)
