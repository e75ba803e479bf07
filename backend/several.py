"""Several models on one replica, all of them there at once: each launch runs on the executor of its requests' model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from backend.executor import Deliver, Executor
from policies.contract import Outcome
from traces.request import Request
from traces.stages import Recipe


class ModelsExecutor:
    """Runs launches of requests for several models. All calls come from one thread.

    Args:
        of: the executor of each model, by the name that requests have for it; all on the same devices.

    Attributes:
        hub: where launches run side by side; None: they run one after another.
        handed: what requests that have done their last stage here are handed on with, by their ids.
    """

    def __init__(self, of: Mapping[str, Executor]) -> None:
        self.of = dict(of)
        self.handed: dict[str, bytes] = {}
        for executor in self.of.values():
            executor.handed = self.handed
        servers = [executor.servers for executor in self.of.values() if executor.servers is not None]
        self.hub = servers[0].hub if servers else None
        for each in servers:
            each.hub = servers[0].hub

    @property
    def computes_on(self) -> torch.device:
        """What they run on."""
        return next(iter(self.of.values())).computes_on

    @property
    def notes(self) -> list[str]:
        """What a reader of its figures must know, a line each."""
        return list(dict.fromkeys([note for executor in self.of.values() for note in executor.notes]))

    @property
    def cache_peak_bytes(self) -> int | None:
        """The most that the cache of one model kept; None: there is none."""
        peaks = [executor.cache_peak_bytes for executor in self.of.values()]
        return max([peak for peak in peaks if peak is not None], default=None)

    @property
    def resident(self) -> list[str]:
        """Ids of the requests whose state lies here."""
        return [name for executor in self.of.values() for name in executor.resident]

    def execute(
        self,
        stage: str,
        requests: Sequence[Request],
        steps: int = 1,
        recalled: Callable[[], bool] = lambda: False,
        deliver: Deliver | None = None,
        devices: Sequence[int] = (0,),
    ) -> Outcome:
        """Run one launch of requests for one model; see `backend.executor.Executor.execute`."""
        return self.of[requests[0].model].execute(stage, requests, steps, recalled, deliver, devices=devices)

    def take(self, request: Request, handed: bytes) -> None:
        """Take over a request that another replica has handed on; see `backend.executor.Executor.take`."""
        self.of[request.model].take(request, handed)

    def recipe(self, request: Request) -> Recipe:
        """(Stage, steps) of a request here."""
        return self.of[request.model].recipe(request)

    def keep_only(self, request_ids: set[str]) -> None:
        """Free every request not named: it ended elsewhere (dropped or cancelled)."""
        for executor in self.of.values():
            executor.keep_only(request_ids)

    def close(self) -> None:
        """Free everything."""
        for executor in self.of.values():
            executor.close()
