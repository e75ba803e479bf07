"""Replicas on the machines of a Ray cluster: an actor each, which answers as a process of this machine does."""

from __future__ import annotations

import os
import queue
import threading
from typing import Any

from backend.replicas.host import Describe, Make, nothing
from backend.replicas.remote import SILENCE_S, RemoteReplica
from traces.errors import BadInput

_QUIET: dict[str, Any] = {"logging_level": "error", "log_to_driver": False}


class RayReplica(RemoteReplica):
    """A replica that is a Ray actor. The cluster is that of ``RAY_ADDRESS``, or else one on this machine.

    Args:
        make: makes what carries out launches; the model's folder must be there on every machine of the cluster.
        prepare: warms it up.
        describe: what it says of itself at the end.
        threads: processor cores of the actor, and CPU threads of torch in it; None: one.
        gpus: GPUs of the actor.
        silence_s: so long may it give no sign of life, once it has given one; until then it may wait for a machine.
    """

    def __init__(
        self,
        make: Make,
        prepare: Describe = nothing,
        describe: Describe = nothing,
        threads: int | None = None,
        gpus: int = 0,
        silence_s: float = SILENCE_S,
    ) -> None:
        super().__init__(make, prepare, describe, silence_s)
        self._threads = threads or 1
        self._gpus = gpus

    def connect(self) -> _Actor:
        return _Actor(self._threads, self._gpus, self.silence_s)


class RayCluster:
    """Ray, while the block runs. What others began before is left as it is.

    Args:
        cores: of a cluster of this machine, which is begun where ``RAY_ADDRESS`` names none.

    Raises:
        BadInput: Ray is not installed, or there is no cluster at ``RAY_ADDRESS``.
    """

    def __init__(self, cores: int) -> None:
        self._cores = cores
        self._ours = False

    def __enter__(self) -> RayCluster:
        address = os.environ.get("RAY_ADDRESS")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
        except ImportError as error:
            raise BadInput("cluster.launcher 'ray' needs Ray: pip install 'tilecast[cluster]'") from error
        if ray.is_initialized():
            return self
        try:
            if address is None:
                ray.init("local", num_cpus=self._cores, include_dashboard=False, **_QUIET)
            else:
                ray.init(address, **_QUIET)
        except (ConnectionError, ValueError) as error:
            raise BadInput(f"no Ray cluster at {address!r}: {str(error).splitlines()[0]}") from error
        self._ours = True
        return self

    def __exit__(self, *_: object) -> None:
        if self._ours:
            import ray

            ray.shutdown()


class _Server:
    """The actor: messages in, messages out, and the host on a thread of its own."""

    def __init__(self, threads: int) -> None:
        os.environ["OMP_NUM_THREADS"] = str(threads)
        self._asked: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._told: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        threading.Thread(target=self._serve, daemon=True).start()

    def send(self, message: bytes) -> None:
        self._asked.put(message)

    def receive(self) -> bytes:
        return self._told.get()

    def pid(self) -> int:
        return os.getpid()

    def _serve(self) -> None:
        from backend.replicas.worker import serve

        serve(self._asked.get, self._told.put)


class _Actor:
    """A Ray actor, as a channel."""

    def __init__(self, threads: int, gpus: int, silence_s: float) -> None:
        import ray

        server: Any = ray.remote(_Server)
        self._ray = ray
        self.actor: Any = server.options(num_cpus=threads, num_gpus=gpus, max_concurrency=3).remote(threads)
        self._silence_s = silence_s
        self._wait_s: float | None = None

    def send(self, message: bytes) -> None:
        try:
            self.actor.send.remote(message)
        except self._ray.exceptions.RayError as error:
            raise OSError(str(error)) from error

    def receive(self) -> bytes:
        try:
            message: bytes = self._ray.get(self.actor.receive.remote(), timeout=self._wait_s)
        except self._ray.exceptions.GetTimeoutError as error:
            raise TimeoutError(f"its Ray actor gave no sign of life for {self._silence_s:g} s") from error
        except self._ray.exceptions.RayError as error:
            raise EOFError("its Ray actor died") from error
        self._wait_s = self._silence_s
        return message

    def kill(self) -> None:
        self._ray.kill(self.actor)

    def close(self, timeout_s: float) -> None:
        self._ray.kill(self.actor)
