"""The devices of a replica as processes that compute what they are asked to, and the replica's own one that asks.

The replica's process has the requests: their pipelines, samplers and latents. It computes nothing itself: denoiser
calls, text encoders and decoders are asked of the devices of a launch. So launches on other devices of the replica run
side by side (`backend.replicas.hub`), a request's next launch may have any devices, and a lost device costs nothing but
the time to start it again.
"""

from __future__ import annotations

import contextlib
import pickle
import shutil
import socket
import tempfile
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import torch

from backend.coroutine import DenoiserCall
from backend.devices.bands import Undividable
from backend.devices.calls import SentCalls
from backend.devices.decoding import ComponentTask, DecodedAlone, Decoding
from backend.merge import Mixer
from backend.ranks.heartbeat import RankLost, first_line
from backend.ranks.launch import RankProcesses, start_processes
from backend.ranks.workers import Devices
from backend.replicas.hub import LaunchHub
from backend.replicas.stream import Stream

_CONNECT_S = 60.0
TARGET = "backend.devices.server:DeviceServer"
_devices: ContextVar[tuple[int, ...]] = ContextVar("devices", default=(0,))
"""Of the launch that asks, the first of them first."""


class ServerFailed(RuntimeError):  # noqa: N818 - named for what it is
    """A device could not compute what it was asked to; the message is its own."""


class DeviceServers:
    """The devices, as the replica's process has them.

    Args:
        devices: of the replica.
        device: ``cpu``, or ``cuda``: of each a GPU.
        target: what they are: a class, made with ``model``, ``dtype``, ``stages``, ``address`` and the settings.

    Attributes:
        settings: more arguments of the target, fit for JSON.
        hub: where launches wait for them.
        decoding: which calls of decoders they share.
        losses: how often one was lost, which ended all.
    """

    def __init__(self, devices: Devices, device: str = "cpu", target: str = TARGET) -> None:
        self.devices = devices
        self.settings: Mapping[str, Any] = {}
        self.hub = LaunchHub()
        self.decoding = Decoding(self._carried_out)
        self.losses = 0
        self.device = device
        self._target = target
        self._processes: RankProcesses | None = None
        self._connections: list[socket.socket] = []
        self._sent = SentCalls()

    @property
    def running(self) -> bool:
        """Whether they were started, and none was lost since."""
        return self._processes is not None

    @property
    def processes(self) -> dict[int, int]:
        """Process ids, by device."""
        return {} if self._processes is None else self._processes.processes

    def start(self) -> None:
        """Start them, if they do not run. Raises `RankLost`."""
        if self._processes is not None:
            return
        devices = self.devices
        folder = Path(tempfile.mkdtemp(prefix="tilecast-"))  # nobody else may enter
        listener = socket.socket(socket.AF_UNIX)
        try:
            listener.bind(str(folder / "devices"))
            listener.listen(devices.count)
            listener.settimeout(_CONNECT_S)
            given: dict[str, Any] = {"model": devices.model, "dtype": devices.dtype, "stages": list(devices.stages)}
            given["address"] = str(folder / "devices")
            self._processes = start_processes(
                self._target,
                devices.count,
                {**given, **self.settings},
                timeout_s=devices.timeout_s,
                device=self.device,
                threads=torch.get_num_threads(),
            )
            found = {}
            for _ in range(devices.count):
                connection, _ = listener.accept()
                connection.settimeout(None)
                found[int(Stream(connection).receive())] = connection
            self._connections = [found[rank] for rank in range(devices.count)]
        except (TimeoutError, EOFError) as error:
            self.close()
            raise RankLost(f"the devices did not connect ({first_line(error)})") from error
        except BaseException:
            self.close()
            raise
        finally:
            listener.close()
            shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        """End them."""
        if self._processes is not None:
            self._processes.close()
            self._processes = None
        for connection in self._connections:
            connection.close()
        self._connections = []
        self._sent.forget()

    def forward(self, calls: Sequence[DenoiserCall], devices: tuple[int, ...]) -> list[Any]:
        """The outputs of denoiser calls of one `Mixer.key`, of these devices together.

        Raises:
            ServerFailed: they could not.
            NotSendable: they cannot be told.
            RankLost: one is lost.
        """
        self.start()
        order, tensors = self._sent.order(calls, devices)
        for device in devices:
            message = {"verb": "forward", "ranks": list(devices), "tensors": tensors[device], **order}
            self._send(device, message)
        self._forgotten(order["forget"], devices)
        outputs: list[Any] = self._answer(devices[0])
        return outputs

    def functions(self, own: Mapping[str, Callable[..., Any]], pipeline: Any) -> dict[str, Callable[..., Any]]:
        """What stands for functions of a pipeline's networks beside the denoisers, by their names."""
        return {
            name: self.decoding.function(name, getattr(pipeline, name), function, _devices.get)
            for name, function in own.items()
        }

    def _carried_out(self, task: ComponentTask) -> Any:
        """What a network beside the denoisers gives on some devices, see `backend.devices.decoding.Asks`."""
        self.start()
        for device in task.ranks:
            self._send(device, {"verb": "component", "task": task})
        return self._answer(task.ranks[0])

    def order(self, verb: str, **more: Any) -> None:
        """Tell all something that is not answered."""
        for device in range(self.devices.count):
            self._send(device, {"verb": verb, **more})

    def _forgotten(self, numbers: list[int], devices: Sequence[int]) -> None:
        """Tell devices that have not heard of it that tensors are not needed any more."""
        if numbers:
            for device in set(range(self.devices.count)) - set(devices):
                self._send(device, {"verb": "forget", "forget": numbers})

    def _send(self, device: int, message: dict[str, Any]) -> None:
        try:
            Stream(self._connections[device]).send(pickle.dumps(message, protocol=5))
        except OSError as error:
            raise self._lost(device, self._connections[device]) from error

    def _answer(self, device: int) -> Any:
        connection = self._connections[device]
        self.hub.wait_for(connection)
        try:
            kind, value = pickle.loads(Stream(connection).receive())
        except (EOFError, OSError) as error:
            raise self._lost(device, connection) from error
        if kind == "OutOfMemoryError":
            raise torch.OutOfMemoryError(value)
        if kind == Undividable.__name__:
            raise DecodedAlone(value)
        if kind:
            raise ServerFailed(f"{kind}: {value}")
        return value

    def _lost(self, device: int, connection: socket.socket) -> RankLost:
        """One is gone, and all are ended, unless others have been started since."""
        if self._processes is None or connection not in self._connections:
            return RankLost(f"device {device} was lost with another")
        why = self._processes.why_lost(device)
        self.losses += 1
        self.close()
        return RankLost(why)


class Served:
    """A `Mixer` whose calls the devices of the launch run.

    Args:
        mixer: whose calls they are.
        servers: the devices.
        tokens: whether these divide the tokens of a row; else whole rows.

    Attributes:
        again: forwards that were asked for again, by why.
    """

    def __init__(self, mixer: Mixer, servers: DeviceServers, tokens: bool) -> None:
        self._mixer = mixer
        self._servers = servers
        self._tokens = tokens
        self.again: Counter[str] = Counter()

    @property
    def decoding(self) -> Decoding:
        """Which calls of decoders the devices share."""
        return self._servers.decoding

    @property
    def notes(self) -> list[str]:
        """What a reader of its figures must know, a line each."""
        again = [f"{count} forwards were computed again: {why}" for why, count in self.again.items()]
        return [*again, *self._servers.decoding.notes]

    def most(self, rows: int) -> int:
        """On how many devices a batch of so many rows can run."""
        count = self._servers.devices.count
        return count if self._tokens else min(count, rows)

    @contextlib.contextmanager
    def on(self, devices: Sequence[int]) -> Iterator[None]:
        """Meanwhile, in this launch, these devices compute."""
        token = _devices.set(tuple(devices))
        try:
            yield
        finally:
            _devices.reset(token)

    def key(self, call: DenoiserCall) -> Hashable:
        return self._mixer.key(call)

    def run(self, calls: Sequence[DenoiserCall]) -> list[Any]:
        devices = _devices.get()
        try:
            return self._servers.forward(calls, devices)
        except RankLost as error:  # nothing is lost with it but time
            self.again[str(error)] += 1
            return self._servers.forward(calls, devices)
