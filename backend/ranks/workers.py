"""The other ranks of a replica as its first one has them: started when they are needed, told what to do, given up.

There is one set of rank processes a replica, whatever is divided over them: tiles, tokens or rows.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from backend.ranks.environment import torchrun
from backend.ranks.group import Group
from backend.ranks.heartbeat import RankLost
from backend.ranks.launch import Ranks, ranks_from_environment, start_ranks
from traces.errors import BadInput

TARGET = "backend.devices.rank:Rank"


@dataclass(frozen=True)
class Devices:
    """The devices of a replica.

    Attributes:
        count: how many; each is a rank.
        model: what the other ranks load, with ``dtype``; needed with several.
        timeout_s: the longest wait for another rank.
        stages: that they are for, see `backend.loading.load_pipeline`; empty: all.

    Raises:
        BadInput: none, or nobody says what to load.
    """

    count: int = 1
    model: str = ""
    dtype: str = "float32"
    timeout_s: float = 60.0
    stages: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.count < 1:
            raise BadInput(f"a replica has at least one device, not {self.count}")
        if self.count > 1 and not self.model:
            raise BadInput("several devices need the name of the model that each loads")


class Workers:
    """The other ranks.

    Args:
        devices: of the replica.
        device: ``cpu`` or ``cuda``.
        target: what they are: a class, made with ``model``, ``dtype`` and the settings.

    Attributes:
        settings: more arguments of the target, fit for JSON.
        losses: how often one was lost, which ended all.
    """

    def __init__(self, devices: Devices, device: str = "cpu", target: str = TARGET) -> None:
        self.devices = devices
        self.losses = 0
        self.settings: Mapping[str, Any] = {}
        self._device = device
        self._target = target
        self._ranks: Ranks | None = None

    @property
    def group(self) -> Group:
        """All ranks, while they run."""
        assert self._ranks is not None
        return self._ranks.group

    @property
    def running(self) -> bool:
        """Whether they were started, and none was lost since."""
        return self._ranks is not None

    @property
    def processes(self) -> dict[int, int]:
        """Process ids of those that this process started, by rank."""
        return {} if self._ranks is None else self._ranks.processes

    def start(self) -> None:
        """Start them, if there are to be any and none run, or one was lost since.

        Raises:
            RankLost: one did not start.
        """
        if self._ranks is not None:
            try:
                self.order("nothing")
            except RankLost:
                self.lost()
        if self._ranks is None:
            devices = self.devices
            if devices.count > 1 and torchrun() is not None:
                self._ranks = ranks_from_environment(devices.timeout_s, self._device)
                self._ranks.group.barrier(patient=True)
            else:
                self._ranks = start_ranks(
                    self._target,
                    devices.count,
                    {"model": devices.model, "dtype": devices.dtype, **self.settings},
                    timeout_s=devices.timeout_s,
                    device=self._device,
                    threads=torch.get_num_threads(),
                )

    def order(self, verb: str, **more: Any) -> None:
        """Tell all what to do. Raises `RankLost`."""
        if self.group.size > 1:
            self.group.broadcast_object({"verb": verb, **more})

    def lost(self) -> None:
        """One is lost: end them all."""
        if self._ranks is not None and self.group.size > 1:
            self._ranks.close()
            self._ranks = None
            self.losses += 1

    def close(self) -> None:
        """End them."""
        if self._ranks is not None:
            with contextlib.suppress(RankLost):
                self.order("end")
            self._ranks.close()
            self._ranks = None
