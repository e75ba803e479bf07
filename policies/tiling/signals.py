"""The signals of a simulated request's tiles, as `plan_step` and a caching policy are shown them.

The grid moves, so what a tile would reuse is of several ages: some of its pixels were another tile's a step ago. As on
a device the step at which each pixel was computed is kept on the canvas, and a tile's magnitudes are means over the
ages of its window. Gains are of real computations only, as there.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from policies.caching.contract import Flags, Ints, Signals
from policies.tiling.grid import Tile
from predictors.tile_reuse import Magnitudes, TileReuse, TileTrack
from traces.request import Request

_NEVER = -1


class TileSignals:
    """Where simulated requests get the signals of their tiles.

    Args:
        reuse: what they look like.
        seed: which draw of it a request gets.
    """

    def __init__(self, reuse: TileReuse, seed: int = 0) -> None:
        self._reuse = reuse
        self._seed = seed

    @property
    def draws(self) -> int:
        """Draws that differ."""
        return self._reuse.draws

    def draw_of(self, request: Request) -> int:
        """The draw of a request; those of one size, steps and draw have the same signals."""
        return self._reuse.draw_of(request.request_id, self._seed)

    def of(self, request: Request, steps: int, draw: int | None = None) -> ModelledTiles:
        """The tiles of a request before the first of ``steps`` refinement steps; None: its own draw."""
        track = self._reuse.track(request.size, steps, self.draw_of(request) if draw is None else draw)
        factor = self._reuse.latent_factor
        return ModelledTiles(request.request_id, track, (request.height // factor, request.width // factor), steps)


class ModelledTiles:
    """The tiles of one request; asked and told of every step, in order.

    Args:
        name: the request's id.
        track: what they would show.
        canvas: (height, width) in latent pixels.
        steps: steps of refinement.
    """

    def __init__(self, name: str, track: TileTrack, canvas: tuple[int, int], steps: int) -> None:
        self._name, self._track, self._canvas, self._steps = name, track, canvas, steps
        self._held: Ints = np.full(canvas, _NEVER)  # the step at which each pixel was computed
        self._gains: dict[int, tuple[float, float]] = {}

    def signals(self, step: int, tiles: Sequence[Tile], renewed: bool = False) -> Signals:
        """What is known of the tiles of ``step`` before any is computed. ``renewed``: nothing is to be reused."""
        count = len(tiles)
        held, now = self._seen(step, tiles)
        held &= not renewed
        gains = np.array([self._gains.get(tile.index, (0.0, 0.0)) for tile in tiles])
        return Signals(
            request_ids=(self._name,),
            request=np.zeros(count, dtype=np.int64),
            unit=np.array([tile.index for tile in tiles]),
            block=0,
            blocks=1,
            step=np.full(count, step),
            steps=np.full(count, self._steps),
            input_change=np.where(held, now.input_change, np.inf),
            skip_change=np.zeros(count),
            input_shift=np.where(held, now.input_shift, np.inf),
            output_level=np.where(held, now.output_level, 0.0),
            output_gain=gains[:, 0],
            input_gain=gains[:, 1],
        )

    def done(self, step: int, tiles: Sequence[Tile], computed: Flags) -> None:
        """Which of the tiles of ``step`` were computed."""
        held, now = self._seen(step, tiles)
        gains = zip(now.output_shift.tolist(), now.input_shift.tolist(), strict=True)
        for tile, fresh, known, gain in zip(tiles, computed, held, gains, strict=True):
            if fresh and known:
                self._gains[tile.index] = gain
            if fresh:
                self._held[np.ix_(tile.core.rows(self._canvas[0]), tile.core.columns(self._canvas[1]))] = step

    def _seen(self, step: int, tiles: Sequence[Tile]) -> tuple[Flags, Magnitudes]:
        """Which tiles could be reused whole, and the means over the ages of what each would reuse, [tiles]."""
        height, width = self._canvas
        windows = [tile.window for tile in tiles]
        steps = [self._held[np.ix_(window.rows(height), window.columns(width))] for window in windows]
        held = np.array([(of != _NEVER).all() for of in steps])
        counts = np.array([np.bincount((step - of[of != _NEVER]).ravel(), minlength=step + 1) for of in steps])
        ages = np.flatnonzero(counts.any(axis=0))
        if not len(ages):
            return held, Magnitudes(*np.zeros((4, len(tiles))))
        share = counts[:, ages] / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        place = np.array(
            [
                ((window.top + window.height / 2) / height % 1, (window.left + window.width / 2) / width % 1)
                for window in windows
            ]
        )
        return held, Magnitudes(*((of * share).sum(axis=1) for of in self._track.magnitudes(step, place, ages)))
