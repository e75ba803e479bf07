"""SuperGen's cache of tiles: what a reuse would cost, by how strongly the tile answers (section 4 of arXiv 2508.17756).

How much a tile's output will have changed is not known before it is computed, but how much its input has, is; and the
last two times the tile was computed say how strongly its output answers. Their ratio, the *gain*, makes one from the
other. The trap is what "last" means: what a reused tile hands on changes just as its input does, so a gain that is
measured on it is 1 whatever the model does, and once there it stays there while the tile is reused (in the published
code at 31 of 34 checks). Here a gain is only of real computations, or else the last one that was.

Published distances are sums of what each step changed. Ours is from the input that the output was computed of, so a
drift that turns back costs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from policies.caching.bounded import BoundedReuse
from policies.caching.contract import Flags, Floats, Ints, Signals
from policies.contract import PolicyError
from policies.parameters import StepCount, Weight


class RegionAware(BoundedReuse):
    """Reuses a tile while its output is expected to have changed, relative to its level, by less than a threshold.

    Each tile has its own: the one whose output level varies most over the steps gets ``threshold * (1 + bonus)``, the
    second ``threshold * (1 + bonus / 2)``, the rest ``threshold``.

    Args:
        threshold: threshold of the expected change: gain * input shift / output level.
        bonus: the paper's a.
        refresh: steps after which the tiles are ranked anew.
        warmup: steps always computed, from the first of refinement.
        max_reuse: steps for which a tile may be reused before it is computed again.

    Raises:
        ValueError: ``bonus`` below 0, or a count below 1.
    """

    needs_gain = True

    def __init__(
        self,
        threshold: Weight = 0.1,
        bonus: Weight = 0.5,
        refresh: StepCount = 5,
        warmup: StepCount = 5,
        max_reuse: StepCount = 4,
    ) -> None:
        super().__init__(warmup, max_reuse)
        if bonus < 0:
            raise ValueError(f"bonus is {bonus}, expected a number of at least 0")
        if refresh < 1:
            raise ValueError(f"refresh is {refresh}, expected a whole number of at least 1")
        self.threshold = threshold
        self.bonus = bonus
        self.refresh = refresh

    def reset(self) -> None:
        super().reset()
        self._of: dict[str, _Tiles] = {}

    def reusable(self, signals: Signals, ages: Ints) -> Flags:
        expected, limit = self.expected_change(signals), np.full(len(signals.unit), float(self.threshold))
        for tiles, at in self._by_request(signals):
            limit[at] *= tiles.leniency[signals.unit[at]]
        return expected < limit

    def expected_change(self, signals: Signals) -> Floats:
        """How much reuse would be off, relative to the level of what would be reused, [units]; infinity: not known."""
        _, shift, level, _ = _of_tiles(signals)
        gain = self.gains(signals)
        known = (level > 0) & ~np.isnan(gain)
        return np.divide(gain * shift, level, out=np.full(len(gain), np.inf), where=known)

    def gains(self, signals: Signals) -> Floats:
        """How strongly the outputs answer their inputs, [units]; NaN: a tile that was not computed twice yet."""
        gain = _measured(signals)
        for tiles, at in self._by_request(signals):
            gain[at] = np.where(np.isnan(gain[at]), tiles.gain[signals.unit[at]], gain[at])
        return gain

    def commit(self, signals: Signals, computed: Flags) -> None:
        super().commit(signals, computed)
        for name in signals.request_ids:
            self._of.setdefault(name, _Tiles())
        gain = _measured(signals)
        _, _, level, _ = _of_tiles(signals)
        for tiles, at in self._by_request(signals):
            tiles.learn(signals.unit[at], gain[at], level[at])
            if (int(signals.step[at[0]]) + 1) % self.refresh == 0:
                tiles.rank(self.bonus)

    def forget(self, request_id: str) -> None:
        super().forget(request_id)
        self._of.pop(request_id, None)

    def _by_request(self, signals: Signals) -> list[tuple[_Tiles, Ints]]:
        """What is known of each request that is known, and where its tiles stand among the signals."""
        known = []
        for index, name in enumerate(signals.request_ids):
            at = np.flatnonzero(signals.request == index)
            if name in self._of and len(at):
                tiles = self._of[name]
                tiles.grow(int(signals.unit[at].max()) + 1)
                known.append((tiles, at))
        return known


@dataclass
class _Tiles:
    """What is known of the tiles of one request, by their index; in ``clamp`` mode some are missing at some steps.

    ``count``, ``mean`` and ``squares`` (the sum of squared deviations) are Welford's, of the output level over steps;
    ``leniency`` multiplies the threshold of reuse.
    """

    gain: Floats = field(default_factory=lambda: np.zeros(0))
    leniency: Floats = field(default_factory=lambda: np.zeros(0))
    count: Floats = field(default_factory=lambda: np.zeros(0))
    mean: Floats = field(default_factory=lambda: np.zeros(0))
    squares: Floats = field(default_factory=lambda: np.zeros(0))

    def grow(self, tiles: int) -> None:
        """Know at least so many tiles."""
        more = max(0, tiles - len(self.gain))
        self.gain = np.append(self.gain, np.full(more, np.nan))
        self.leniency = np.append(self.leniency, np.ones(more))
        self.count, self.mean, self.squares = (
            np.append(values, np.zeros(more)) for values in (self.count, self.mean, self.squares)
        )

    def learn(self, unit: Ints, gain: Floats, level: Floats) -> None:
        """The gains and output levels of one step; NaN and 0 are not known."""
        measured = ~np.isnan(gain)
        self.gain[unit[measured]] = gain[measured]
        unit, level = unit[level > 0], level[level > 0]
        self.count[unit] += 1
        before = level - self.mean[unit]
        self.mean[unit] += before / self.count[unit]
        self.squares[unit] += before * (level - self.mean[unit])

    @property
    def spread(self) -> Floats:
        """Standard deviation of the output level over the steps so far, [tiles]."""
        return np.sqrt(self.squares / np.maximum(self.count, 1))

    def rank(self, bonus: float) -> None:
        """Give the two tiles that vary most a higher threshold; of equal ones the first."""
        self.leniency = np.ones(len(self.gain))
        for tile, share in zip(np.argsort(-self.spread, kind="stable"), (1.0, 0.5), strict=False):
            if self.spread[tile] > 0:
                self.leniency[tile] = 1 + bonus * share


def _of_tiles(signals: Signals) -> tuple[Floats, Floats, Floats, Floats]:
    """(output gain, input shift, output level, input gain).

    Raises:
        PolicyError: these are signals of blocks.
    """
    columns = signals.output_gain, signals.input_shift, signals.output_level, signals.input_gain
    if any(column is None for column in columns):
        raise PolicyError("policy RegionAware caches the tiles of large requests; blocks need another caching policy")
    output_gain, shift, level, input_gain = (np.asarray(column, dtype=np.float64) for column in columns)
    return output_gain, shift, level, input_gain


def _measured(signals: Signals) -> Floats:
    """The gains between the last two computations of each tile, [units]; NaN where there is none."""
    output_gain, _, _, input_gain = _of_tiles(signals)
    return np.divide(output_gain, input_gain, out=np.full(len(input_gain), np.nan), where=input_gain > 0)
