"""What a rank does that is not the first: it loads the model and refines what it is told to, step by step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from backend.coroutine import intercept_denoisers
from backend.inputs import image_use, start_of
from backend.loading import load_pipeline
from backend.merge import stacked
from backend.ranks.group import Group
from backend.tiled.adapter import Adapter
from backend.tiled.evaluate import evaluate_windows, not_finite
from backend.tiled.run import TiledRun
from backend.tiled.saved import with_tensors
from policies.tiling.recipe import shape_from
from traces.request import Request


class Rank:
    """One rank but the first: made by loading the model, called with its group to obey the first.

    Args:
        device: device of this rank.
        model: to load, with ``dtype``.
        positions: as for `backend.tiled.adapter.Adapter`, with ``native``.
        batch: windows in one forward at most.
        images: the folder of the pictures that requests start from.
    """

    def __init__(
        self,
        device: str,
        model: str,
        dtype: str,
        positions: str,
        native: list[int],
        batch: int,
        images: str | None = None,
    ) -> None:
        self._pipeline = load_pipeline(model, device, dtype)
        self._mixer = stacked(intercept_denoisers(self._pipeline))
        self._adapter = Adapter(self._pipeline, positions, (native[0], native[1]))
        self._batch = batch
        self._images = None if images is None else Path(images)
        self._runs: dict[str, TiledRun] = {}
        self._busy_s = 0.0

    @torch.no_grad()
    def __call__(self, group: Group) -> None:
        """Obey the first rank's orders, see `backend.tiled.execution`, until the last one."""
        while True:
            order = group.broadcast_object(patient=True)
            verb = order["verb"]
            if verb == "open":
                self._open(order, group)
            elif verb == "step":
                runs = [self._runs[name] for name in order["requests"]]
                self._busy_s += evaluate_windows(runs, self._mixer, self._batch)[1]
            elif verb == "gather":
                self._runs[order["request"]].gather()
            elif verb == "report":
                group.gather_objects([self._busy_s, not_finite([self._runs[name] for name in order["requests"]])])
                self._busy_s = 0.0
            elif verb == "close":
                self._runs.pop(order["request"]).close()
            elif verb == "end":
                return
            elif verb != "nothing":
                raise ValueError(f"unknown order {verb!r}")

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
