"""The refinement of one request on one rank: every step's tiles decided, fetched, computed and put together.

All ranks of a replica run the same pipeline on the same canvas. Each latent pixel has an owner, the one rank on which
its latents, its sampler's history and what the cache holds of it are right; elsewhere they are leftovers that nobody
reads. Before a step the pixels of a rank's windows travel to it (`policies.tiling.step`), after it the rank owns the
tiles' cores. The sampler works pixel by pixel, so each rank's own pixels come out as if it had the whole canvas, bit
for bit: the published system gathers every prediction on every rank, and still gives another picture on four devices
than on one, because the state of its cache goes stale.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from backend.coroutine import DenoiserCall
from backend.ranks.group import Group
from backend.tiled.adapter import Adapter
from backend.tiled.blend import TileBlend
from backend.tiled.coordinator import Coordinator
from backend.tiled.signals import in_whole_numbers, measured
from policies.caching.contract import Flags
from policies.tiling.grid import Box, Tile
from policies.tiling.recipe import TiledShape
from policies.tiling.step import StepPlan, first_owners, moves_of, owners_after, seen_by

REUSE = ("output", "residual")
"""What a reused tile hands on: the output that is held, or that and how far the input has moved since (SuperGen)."""


class _Transfer(NamedTuple):
    """Pixels that one rank sends to another: rows and columns of the canvas, each [pixels]."""

    source: int
    target: int
    rows: torch.Tensor
    columns: torch.Tensor

    @classmethod
    def of(cls, source: int, target: int, mask: Flags, device: torch.device) -> _Transfer:
        rows, columns = np.nonzero(mask)
        return cls(source, target, torch.from_numpy(rows).to(device), torch.from_numpy(columns).to(device))


class Refinement:
    """See the module.

    Args:
        shape: what the request becomes.
        adapter: adapter of the pipeline.
        group: this rank's view of its replica.
        coordinator: on the first rank what decides each step; None on the others.
        cached: whether a policy may reuse tiles, so that outputs are held.
        gains: whether it looks at gains.
        reuse: one of `REUSE`.

    Attributes:
        plan: the step under way.
        owners: who owns which pixel before it.
        computed: tiles computed so far, by any rank.
        reused: tiles reused so far.
    """

    def __init__(
        self,
        shape: TiledShape,
        adapter: Adapter,
        group: Group,
        coordinator: Coordinator | None,
        cached: bool = False,
        gains: bool = False,
        reuse: str = "output",
    ) -> None:
        self.shape = shape
        self.plan: StepPlan | None = None
        self.owners = first_owners(shape.grid.canvas)
        self.computed = self.reused = 0
        self._adapter = adapter
        self._group = group
        self._coordinator = coordinator
        self._cached = cached
        self._gains = cached and gains
        self._residual = reuse == "residual"
        self._held: list[torch.Tensor] = []  # for each call of a step: [rows, channels, frames, H, W]
        self._now: torch.Tensor | None = None  # the step's input: [images, channels, frames, H, W]
        self._then: torch.Tensor | None = None  # at each pixel the input when what is held of it was computed
        self._changes: dict[int, int] = {}  # by place in the step, how far the outputs of this rank's tiles moved
        self._last = 0  # tiles of the step before
        self._blend: TileBlend | None = None
        self._device = group.device

    def begin(self, step: int, latents: torch.Tensor, others: Sequence[torch.Tensor], scale: float) -> StepPlan:
        """Decide a step and fetch what this rank lacks for it.

        Args:
            step: counted from 0 over the evaluations of the denoiser.
            latents: the pipeline's own tensor; written to.
            others: what else its sampler keeps of every pixel, in the same layout; written to.
            scale: what the sampler multiplies latents by before the denoiser sees them.
        """
        self.settle()
        tiles = self.shape.grid.tiles(self.shape.shifts.at(step))
        canvas = self._adapter.unpack(latents, self.shape.grid.canvas)
        self._device = canvas.device
        if self._cached:
            self._now = self._as_long(canvas * scale)
        self.plan = plan = self._decided(step, tiles)
        self._fetch(plan, [latents, *others], len(canvas))
        if self._cached and self._group.size > 1:
            self._now = self._as_long(self._adapter.unpack(latents, self.shape.grid.canvas) * scale)
        if self.shape.grid.overlap:
            self._blend = TileBlend.of(self.shape, step, plan)
        fresh = int(plan.computed.sum())
        self.computed += fresh
        self.reused += len(tiles) - fresh
        self._changes = {}
        return plan

    @property
    def mine(self) -> list[tuple[int, Tile]]:
        """The tiles that this rank computes in this step, with their places in it."""
        assert self.plan is not None
        places = enumerate(zip(self.plan.tiles, self.plan.devices, strict=True))
        return [(place, tile) for place, (tile, device) in places if device == self._group.rank]

    def calls(self, call: DenoiserCall, like: Callable[[tuple[int, int]], DenoiserCall]) -> list[DenoiserCall]:
        """The denoiser calls of this rank's tiles, from the pipeline's call for the whole canvas.

        ``like`` makes of a window's (height, width) the same call for a picture of its size.
        """
        windows = [tile.window for _, tile in self.mine]
        return [self._adapter.cut(call, box, self.shape.grid.canvas, like((box.height, box.width))) for box in windows]

    def answer(self, call: DenoiserCall, parts: Sequence[DenoiserCall], outputs: Sequence[Any]) -> Any:
        """What the pipeline's call is answered: the outputs of its `calls`, and what is held of the other tiles."""
        windows = {
            place: self._adapter.prediction(output, part, (tile.window.height, tile.window.width))
            for (place, tile), part, output in zip(self.mine, parts, outputs, strict=True)
        }
        sample = self._adapter.sample(call, self.shape.grid.canvas)
        if self._gains and call.part == 0 and self._held:
            self._note_changes(windows)
        whole = self._base(call.part, sample, windows)
        if self._blend is None:
            for place, tile in self.mine:
                whole[self._at(tile.core)] = _core_of(windows[place], tile, self.shape.grid.canvas)
        else:
            self._blend.put_together(whole, windows, self._group)
        if self._cached:
            for _, tile in self.mine:
                at = self._at(tile.core)
                self._held[call.part][at] = whole[at]
        return self._adapter.answer(whole, call)

    def settle(self) -> None:
        """After the last answer of a step: this rank's tiles are owned and their inputs remembered."""
        if self.plan is None:
            return
        if self._cached and self._now is not None:
            if self._then is None:
                self._then = self._now
            for _, tile in self.mine:
                at = self._at(tile.core)
                self._then[at] = self._now[at].to(self._then)
        self.owners = owners_after(self.owners, self.plan)
        self._last = len(self.plan.tiles)
        self.plan = None

    def gather(self, tensors: Sequence[torch.Tensor]) -> None:
        """Bring every pixel to the first rank; ``tensors`` are the pipeline's own and written to there."""
        self.settle()
        held = [*self._held, *([] if self._then is None else [self._then])]
        device = tensors[0].device
        every = [
            _Transfer.of(source, 0, self.owners == source, device)
            for source in range(1, self._group.size)
            if (self.owners == source).any()
        ]
        self._transfer(every, tensors, held)
        self.owners = first_owners(self.shape.grid.canvas)
        changes = self._group.total(self._own_changes())
        self._changes = dict(enumerate(changes.tolist())) if self._group.rank == 0 else {}

    def state(self) -> dict[str, Any]:
        """What the cache holds, to go on from; `gather` has brought all of it to the first rank."""
        return {
            "held": self._held,
            "then": self._then,
            "changes": self._own_changes().tolist(),
            "tiles": [self.computed, self.reused],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state`; it is written to."""
        self._held, self._then = list(state["held"]), state["then"]
        self._last = len(state["changes"])
        self._changes = dict(enumerate(state["changes"])) if self._group.rank == 0 else {}
        self.computed, self.reused = state["tiles"]

    def _decided(self, step: int, tiles: tuple[Tile, ...]) -> StepPlan:
        totals = changes = None
        if self._cached and self._then is not None:
            totals, changes = self._totals(tiles)
        if self._coordinator is not None:
            renewed = self.shape.shifts.renews(step)
            plan = self._coordinator.decide(step, tiles, self.owners, totals, changes, renewed)
            if self._group.size > 1:
                self._group.broadcast(torch.tensor(plan.devices))
            return plan
        devices = torch.empty(len(tiles), dtype=torch.int64)
        self._group.broadcast(devices)
        of_tiles = tuple(devices.tolist())
        return StepPlan(tiles, of_tiles, moves_of(tiles, self.owners, of_tiles), ())

    def _totals(self, tiles: tuple[Tile, ...]) -> tuple[torch.Tensor, torch.Tensor]:
        """The sums of `measured` over all ranks, and how far the outputs of the last step's tiles moved."""
        assert self._now is not None
        assert self._then is not None
        owned = torch.from_numpy(self.owners == self._group.rank)
        own = measured(tiles, owned, self._now, self._then, self._held[0][-len(self._now) :])
        both = self._group.total(torch.cat([own.flatten(), self._own_changes()]))
        return both[: own.numel()].view(own.shape), both[own.numel() :]

    def _as_long(self, canvas: torch.Tensor) -> torch.Tensor:
        """As many frames as the request began with: some samplers are not given the first, which stays as it was."""
        if self._then is None or (before := self._then.shape[2] - canvas.shape[2]) <= 0:
            return canvas
        return torch.cat([self._then[:, :, :before], canvas], dim=2)

    def _own_changes(self) -> torch.Tensor:
        """How far the outputs of the last step's tiles moved, int64 [tiles]; 0 for those of other ranks."""
        return torch.tensor([self._changes.get(place, 0) for place in range(self._last)], dtype=torch.int64)

    def _fetch(self, plan: StepPlan, tensors: Sequence[torch.Tensor], images: int) -> None:
        """Bring this rank the pixels of its windows, and others theirs."""
        held = [self._held[0][-images:]] if self._gains and self._held else []
        moves = [move for move in plan.moves if self._group.rank in (move.source, move.target)]
        seen = {t: seen_by(t, plan.tiles, plan.devices, self.shape.grid.canvas) for t in {m.target for m in moves}}
        device = tensors[0].device
        self._transfer(
            [_Transfer.of(m.source, m.target, seen[m.target] & (self.owners == m.source), device) for m in moves],
            tensors,
            held,
        )

    def _transfer(
        self, transfers: Sequence[_Transfer], tensors: Sequence[torch.Tensor], canonical: Sequence[torch.Tensor]
    ) -> None:
        """Carry out transfers of pixels of the pipeline's ``tensors`` and of ``canonical`` ones, in place."""
        rank, canvas = self._group.rank, self.shape.grid.canvas
        views = [self._adapter.unpack(tensor, canvas) for tensor in tensors]
        every = [*views, *canonical]
        sends: list[tuple[int, torch.Tensor]] = []
        receives: list[tuple[int, torch.Tensor]] = []
        arriving: list[tuple[torch.Tensor, _Transfer, torch.Tensor]] = []
        for transfer in transfers:
            for view in every:
                if transfer.source == rank:
                    sends.append((transfer.target, view[..., transfer.rows, transfer.columns].contiguous()))
                elif transfer.target == rank:
                    pixels = view.new_empty((*view.shape[:-2], len(transfer.rows)))
                    receives.append((transfer.source, pixels))
                    arriving.append((view, transfer, pixels))
        self._group.exchange(sends, receives)  # also with nothing to carry: ranks are watched by their exchanges
        for view, transfer, pixels in arriving:
            view[..., transfer.rows, transfer.columns] = pixels
        if arriving:
            for tensor, view in zip(tensors, views, strict=True):
                if view.untyped_storage().data_ptr() != tensor.untyped_storage().data_ptr():
                    tensor.copy_(self._adapter.pack(view, tensor))

    def _base(self, part: int, sample: torch.Tensor, windows: Mapping[int, torch.Tensor]) -> torch.Tensor:
        """The canvas before this step's tiles are put in: what is held, or nothing."""
        like = next(iter(windows.values()), None)
        if not self._cached or len(self._held) <= part:
            like = sample if like is None else like
            base = like.new_zeros((len(sample), like.shape[1], *sample.shape[2:]))
            if self._cached:
                self._held.append(base.clone())
            return base
        if self._residual and self._then is not None:
            assert self._now is not None
            moved = self._now - self._then
            return self._held[part] + moved.repeat(len(self._held[part]) // len(moved), 1, 1, 1, 1)
        return self._held[part].clone()

    def _note_changes(self, windows: Mapping[int, torch.Tensor]) -> None:
        """How far each tile's output has moved from what is held, before that is replaced."""
        assert self._now is not None
        images = len(self._now)
        for place, tile in self.mine:
            held = self._held[0][-images:][self._at(tile.window)]
            change = (windows[place][-images:] - held).abs().sum((0, 1, 2))
            self._changes[place] = int(in_whole_numbers(change).sum())

    def _at(self, box: Box) -> Any:
        """The index of a box in canvas-size tensors; slices where it does not run past an edge."""
        height, width = self.shape.grid.canvas
        rows: Any = slice(box.top, box.top + box.height)
        columns: Any = slice(box.left, box.left + box.width)
        if rows.stop > height:
            rows = torch.from_numpy(box.rows(height)).to(self._device)
        if columns.stop > width:
            columns = torch.from_numpy(box.columns(width)).to(self._device)
        if isinstance(rows, torch.Tensor) and isinstance(columns, torch.Tensor):
            rows = rows[:, None]
        return ..., rows, columns


def _core_of(window: torch.Tensor, tile: Tile, canvas: tuple[int, int]) -> torch.Tensor:
    """The part of a window's prediction that is the tile's core."""
    top, left = (tile.core.top - tile.window.top) % canvas[0], (tile.core.left - tile.window.left) % canvas[1]
    return window[..., top : top + tile.core.height, left : left + tile.core.width]
