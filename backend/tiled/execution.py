"""The tiled requests of one executor: on this device alone, or on this and further ranks.

The first rank is the executor's own process and thread. It tells the others, one order at a time, what they do
(`backend.tiled.rank`), decides every step, and has all latents again when refinement ends: sketching, enlarging and
decoding are its own work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from backend.inputs import Start
from backend.merge import stacked
from backend.ranks.group import Group, RankLost, Traffic
from backend.ranks.workers import Devices, Workers
from backend.tiled.adapter import Adapter
from backend.tiled.coordinator import Coordinator
from backend.tiled.evaluate import evaluate_windows, not_finite
from backend.tiled.refine import REUSE
from backend.tiled.run import TiledRun
from backend.tiled.saved import Saved, made_by, save, without_tensors
from policies.caching import CachingPolicy, ComputeAll
from policies.caching.step import needs_gain
from policies.guard import begun
from policies.placement import Contiguous, PlacementPolicy
from policies.tiling.recipe import TiledShape, TilingRule
from traces.errors import BadInput
from traces.request import Request


def by_pixels(request: Request) -> Callable[[int, int], float]:
    """What windows cost where nobody knows: their latent pixels."""
    return lambda height, width: float(height * width)


@dataclass(frozen=True)
class Tiling:
    """How an executor runs tiled requests.

    Attributes:
        rule: which they are, and what becomes of them.
        positions: how windows' positions are counted, see `backend.tiled.adapter`.
        caching: decides which tiles are computed; None: all.
        reuse: what a reused tile hands on, see `backend.tiled.refine.REUSE`.
        placement: assigns tiles to devices.
        seconds: of a request, the predicted seconds of its windows of (height, width) latent pixels; the placement
            policy balances them.
        batch: windows in one forward at most. With more than one a tile's bits depend on how many share its forward.
        devices: ranks of the replica.
        model: what the other ranks load, with ``dtype``; needed with several devices.
        timeout_s: the longest wait for another rank.
        images: the folder of the pictures that requests start from.

    Raises:
        BadInput: a value that makes no sense.
    """

    rule: TilingRule
    positions: str = "local"
    caching: CachingPolicy | None = None
    reuse: str = "output"
    placement: PlacementPolicy = Contiguous()  # noqa: RUF009 - it has no state
    seconds: Callable[[Request], Callable[[int, int], float]] = by_pixels
    batch: int = 1
    devices: int = 1
    model: str = ""
    dtype: str = "float32"
    timeout_s: float = 60.0
    images: Path | None = None

    def __post_init__(self) -> None:
        if self.reuse not in REUSE:
            raise BadInput(f"tiling.reuse is {self.reuse!r}, expected one of {', '.join(REUSE)}")
        if self.batch < 1 or self.devices < 1:
            raise BadInput(f"tiling.batch is {self.batch} and devices {self.devices}, expected at least 1")
        if self.devices > 1 and not self.model:
            raise BadInput("several devices need the name of the model that each loads")

    @property
    def native(self) -> tuple[int, int]:
        """(height, width) in latent pixels that the model was trained at."""
        factor = self.rule.geometry.latent_factor
        height, width = self.rule.geometry.native_size
        return height // factor, width // factor

    @property
    def ranks(self) -> Devices:
        """The devices of the replica."""
        return Devices(self.devices, self.model, self.dtype, self.timeout_s)

    @property
    def rank_settings(self) -> dict[str, Any]:
        """What another rank is told: arguments of `backend.tiled.rank.TiledRank`."""
        return {
            "positions": self.positions,
            "native": list(self.native),
            "batch": self.batch,
            "images": None if self.images is None else str(self.images),
        }


class TiledExecution:
    """Walks tiled requests through the stages that ordinary ones do not have.

    Args:
        pipeline: the executor's.
        forwards: its denoisers' own, by their names.
        tiling: how.
        workers: the other ranks of the replica.
        adapter: one of the pipeline that counts positions in this way; None: it is found out.
    """

    def __init__(
        self,
        pipeline: Any,
        forwards: Mapping[str, Callable[..., Any]],
        tiling: Tiling,
        workers: Workers,
        adapter: Adapter | None = None,
    ) -> None:
        self.tiling = tiling
        self._pipeline = pipeline
        self._forwards = forwards
        self._mixer = stacked(forwards)
        self._adapter = adapter or Adapter(pipeline, tiling.positions, tiling.native)
        caching = tiling.caching
        self._caching = None if caching is None or isinstance(caching, ComputeAll) else begun(caching)
        self._workers = workers
        self._losses = workers.losses
        self._open: set[str] = set()  # requests that the other ranks know
        self._busy_s = 0.0

    def otherwise(self, tiling: Tiling) -> TiledExecution:
        """Tile otherwise with the ranks that run already; this one is not used any more.

        Model, positions, batch and devices must be the same, and no request under way.
        """
        same = (tiling.positions, tiling.native) == (self.tiling.positions, self.tiling.native)
        adapter = self._adapter if same else None
        self._workers.devices = tiling.ranks
        return TiledExecution(self._pipeline, self._forwards, tiling, self._workers, adapter)

    @property
    def traffic(self) -> Traffic:
        """What this rank has sent and received."""
        return self._group.traffic

    def run_of(self, request: Request, start: Start) -> TiledRun:
        """A tiled request, not begun."""
        self._start()
        return self._run(request, self.tiling.rule.shape(request.size, request.steps), start)

    def _run(self, request: Request, shape: TiledShape, start: Start) -> TiledRun:
        tiling = self.tiling
        order = self._pipeline.scheduler.order
        _, frames, _, _ = tiling.rule.geometry.latent_shape(request.size)
        coordinator = Coordinator(
            request_id=request.request_id,
            steps=shape.refine_steps * order - (order - 1),
            values=request.images * frames * self._adapter.channels,
            devices=tiling.devices,
            placement=tiling.placement,
            seconds=tiling.seconds(request),
            caching=self._caching,
        )
        return TiledRun(
            pipeline=self._pipeline,
            request=request,
            shape=shape,
            adapter=self._adapter,
            group=self._group,
            coordinator=coordinator,
            reuse=tiling.reuse,
            cached=self._caching is not None,
            gains=self._caching is not None and needs_gain(self._caching),
            arguments=start.arguments,
            sketch=start.pixels,
        )

    def upscale(self, run: TiledRun) -> None:
        """Enlarge a finished sketch, and tell the other ranks about the request."""
        self._start()
        run.group = self._group
        run.upscale()
        self._open_elsewhere(run, None)

    def step(self, runs: Sequence[TiledRun]) -> dict[str, BaseException]:
        """One refinement step of each request; by request id what went wrong.

        Raises:
            RankLost: a rank is lost, and with it what all requests had there.
        """
        errors: dict[str, BaseException] = {}
        whole = [run for run in runs if self._is_whole(run, errors)]
        if not whole:
            return errors
        self._order("step", requests=[run.request.request_id for run in whole])
        failed, busy_s = evaluate_windows(whole, self._mixer, self.tiling.batch)
        self._busy_s += busy_s
        return errors | failed

    def gather(self, run: TiledRun) -> None:
        """Bring all of a request's latents here.

        Raises:
            RankLost: a part of them is lost.
        """
        errors: dict[str, BaseException] = {}
        if not self._is_whole(run, errors):
            raise errors[run.request.request_id]
        self._order("gather", request=run.request.request_id)
        run.gather()

    def save(self, run: TiledRun, folder: Path) -> None:
        """Write a request to a folder, see `backend.tiled.saved`. It can go on all the same."""
        if run.is_refining:
            self.gather(run)
        save(run, folder)

    def resume(self, saved: Saved, start: Start) -> TiledRun:
        """A saved request, where it was.

        Raises:
            BadInput: it was made otherwise.
        """
        self._start()
        run = self._run(saved.request, saved.shape, start)
        name = run.request.request_id
        for what, now in made_by(run).items():
            if (then := saved.made_by.get(what)) != now:
                raise BadInput(f"cannot resume request {name!r}: {what} was {then}, and is {now} here")
        run.encode()
        if saved.state is None:
            assert saved.sketch is not None
            run.sketch = saved.sketch.to(self._pipeline.device)
        else:
            run.group = self._group
            run.begin(saved.state)
            self._open_elsewhere(run, {**saved.state, "coordinator": {}})
        return run

    def report(self, runs: Sequence[TiledRun]) -> tuple[tuple[float, ...], set[str]]:
        """Seconds that each device computed tiles since this was asked last, and whose latents are not finite."""
        if not runs:
            return (), set()
        self._order("report", requests=[run.request.request_id for run in runs])
        every = self._group.gather_objects([self._busy_s, not_finite(runs)])
        self._busy_s = 0.0
        return tuple([busy_s for busy_s, _ in every]), {name for _, names in every for name in names}

    def release(self, request_id: str) -> None:
        """Tell the other ranks that a request has ended."""
        known = request_id in self._open and self._workers.running and self._losses == self._workers.losses
        self._open.discard(request_id)
        if known:
            try:
                self._order("close", request=request_id)
            except RankLost:
                self.lost()

    def lost(self) -> None:
        """A rank is lost: end them all. The next request starts new ones."""
        self._workers.lost()

    def _start(self) -> None:
        self._workers.start()
        if self._losses != self._workers.losses:  # what the new ones have never heard of
            self._losses = self._workers.losses
            self._open.clear()

    @property
    def _group(self) -> Group:
        return self._workers.group

    def _is_whole(self, run: TiledRun, errors: dict[str, BaseException]) -> bool:
        """Whether all ranks that hold a part of a request live."""
        if self._workers.running and run.group is self._group:
            return True
        name = run.request.request_id
        errors[name] = RankLost(f"a part of request {name!r} was lost with a rank of its replica")
        return False

    def _open_elsewhere(self, run: TiledRun, state: Mapping[str, Any] | None) -> None:
        """Begin a request on the other ranks; they are given the whole ``state`` that it goes on from."""
        if self._group.size == 1:
            return
        tensors: dict[str, torch.Tensor] = {}
        self._order(
            "open",
            request=asdict(run.request),
            shape=asdict(run.shape),
            cached=run.cached,
            gains=run.gains,
            reuse=run.reuse,
            state=without_tensors(state, tensors, "state"),
            tensors=[[name, str(t.dtype).removeprefix("torch."), list(t.shape)] for name, t in tensors.items()],
        )
        self._open.add(run.request.request_id)
        for tensor in tensors.values():
            self._group.broadcast(tensor.cpu().contiguous())

    def _order(self, verb: str, **more: Any) -> None:
        self._workers.order(verb, **more)
