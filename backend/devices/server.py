"""What a device of a replica does: it loads the model, and computes what the replica's own process asks for."""

from __future__ import annotations

import pickle
import socket
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils._pytree import tree_map

from backend.devices.bands import Undividable
from backend.devices.calls import ReceivedCalls
from backend.devices.decoding import ComponentTask
from backend.devices.rank import PipelineRank
from backend.loading import load_pipeline
from backend.ranks.group import Group
from backend.ranks.heartbeat import RankLost, first_line
from backend.replicas.stream import Stream


class DeviceServer:
    """A device: made by loading the model, called with its group to compute what it is asked to.

    Args:
        device: of this rank.
        model: to load, with ``dtype``, for ``stages``; empty: for all.
        address: of the socket on which the replica's process waits.
        settings: see `PipelineRank`.
    """

    def __init__(
        self, device: str, model: str, dtype: str, address: str, stages: Sequence[str] = (), **settings: Any
    ) -> None:
        self._address = address
        self._device = torch.device(device)
        self._prepare(load_pipeline(model, device, dtype, stages or None), settings)

    def _prepare(self, pipeline: Any, settings: Mapping[str, Any]) -> None:
        """Serve a pipeline from now on."""
        self._rank = PipelineRank(pipeline, **settings)
        self._received = ReceivedCalls(self._device, everything=True)

    @torch.no_grad()
    def __call__(self, group: Group) -> None:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(self._address)
        stream = Stream(connection)
        stream.send(str(group.rank).encode())
        while True:
            try:
                message = pickle.loads(stream.receive())
            except (EOFError, OSError):
                return
            answer = self._answer(message, group)
            if answer is not None:
                stream.send(pickle.dumps(answer, protocol=5))

    def _answer(self, message: dict[str, Any], group: Group) -> tuple[str, Any] | None:
        """(What went wrong, what was computed or what is to be said of it); None: nobody waits for it."""
        verb = message["verb"]
        try:
            if verb == "forward":
                return self._forward(message, group)
            if verb == "component":
                return self._component(message["task"], group)
            if verb == "forget":
                self._received.forget(message["forget"])
            return None
        except RankLost:
            raise
        except Exception as error:
            return type(error).__name__, first_line(error)

    def _forward(self, message: dict[str, Any], group: Group) -> tuple[str, Any] | None:
        self._received.forget(message["forget"])
        for empty, given in zip(self._received.new(message, group.rank), message["tensors"], strict=True):
            empty.copy_(given)
        calls, ranks = self._received.calls(message), tuple(message["ranks"])
        leads = group.rank == ranks[0]
        try:
            outputs = self._rank.share(calls, ranks, group)
        except RankLost:
            raise
        except Exception:
            if leads:
                raise
            return None  # the others see that this one does not go on; the first says what it is
        return ("", tree_map(_sent_back, outputs)) if leads else None

    def _component(self, task: ComponentTask, group: Group) -> tuple[str, Any] | None:
        args, kwargs = tree_map(self._here, (task.args, task.kwargs))
        leads = group.rank == task.ranks[0]
        try:
            output = self._rank.component(task._replace(args=args, kwargs=kwargs), group)
        except Undividable:
            if leads:
                raise
            return None
        return ("", tree_map(_sent_back, output)) if leads else None

    def _here(self, leaf: Any) -> Any:
        if isinstance(leaf, torch.Tensor):
            return leaf.to(self._device)
        return self._device if isinstance(leaf, torch.device) else leaf


def _sent_back(leaf: Any) -> Any:
    return leaf.cpu() if isinstance(leaf, torch.Tensor) else leaf
