"""What a rank that is not the first does of tiled requests: it refines what it is told to, step by step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from backend.inputs import image_use, start_of
from backend.merge import stacked
from backend.ranks.group import Group
from backend.tiled.adapter import Adapter
from backend.tiled.evaluate import evaluate_windows, not_finite
from backend.tiled.run import TiledRun
from backend.tiled.saved import with_tensors
from policies.tiling.recipe import shape_from
from traces.request import Request


class TiledRank:
    """What a rank but the first does of tiled requests.

    Args:
        pipeline: of this rank.
        forwards: its denoisers' own, by their names.
        positions: as for `backend.tiled.adapter.Adapter`, with ``native``.
        batch: windows in one forward at most.
        images: the folder of the pictures that requests start from.

    Attributes:
        verbs: carries out an order of the first rank, by what it says.
    """

    def __init__(
        self,
        pipeline: Any,
        forwards: Mapping[str, Callable[..., Any]],
        positions: str,
        native: list[int],
        batch: int,
        images: str | None = None,
    ) -> None:
        self._pipeline = pipeline
        self._mixer = stacked(forwards)
        self._adapter = Adapter(pipeline, positions, (native[0], native[1]))
        self._batch = batch
        self._images = None if images is None else Path(images)
        self._runs: dict[str, TiledRun] = {}
        self._busy_s = 0.0
        self.verbs: dict[str, Callable[[dict[str, Any], Group], None]] = {
            "open": self._open,
            "step": self._step,
            "gather": self._gather,
            "report": self._report,
            "close": self._close,
        }

    def _step(self, order: dict[str, Any], group: Group) -> None:
        self._busy_s += evaluate_windows(self._named(order), self._mixer, self._batch)[1]

    def _gather(self, order: dict[str, Any], group: Group) -> None:
        self._runs[order["request"]].gather()

    def _report(self, order: dict[str, Any], group: Group) -> None:
        group.gather_objects([self._busy_s, not_finite(self._named(order))])
        self._busy_s = 0.0

    def _close(self, order: dict[str, Any], group: Group) -> None:
        self._runs.pop(order["request"]).close()

    def _named(self, order: dict[str, Any]) -> list[TiledRun]:
        return [self._runs[name] for name in order["requests"]]

    def _open(self, order: dict[str, Any], group: Group) -> None:
        request = Request(**order["request"])
        start = start_of(request, self._images, image_use(self._pipeline) == "required", required=False)
        run = TiledRun(
            pipeline=self._pipeline,
            request=request,
            shape=shape_from(order["shape"]),
            adapter=self._adapter,
            group=group,
            coordinator=None,
            reuse=order["reuse"],
            cached=order["cached"],
            gains=order["gains"],
            arguments=start.arguments,
        )
        tensors = {name: torch.empty(shape, dtype=getattr(torch, dtype)) for name, dtype, shape in order["tensors"]}
        for tensor in tensors.values():
            group.broadcast(tensor)
        run.encode()
        run.begin(with_tensors(order["state"], tensors))
        self._runs[run.request.request_id] = run
