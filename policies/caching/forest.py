"""PatchedServe's cache: a forest predicts what a reuse would cost (section 3 of arXiv 2501.09253)."""

from __future__ import annotations

from policies.caching.bounded import BoundedReuse
from policies.caching.contract import Flags, Ints, Signals
from policies.parameters import StepCount, Weight
from predictors.forest import Forest, features
from predictors.shipped import find


class ForestReuse(BoundedReuse):
    """Reuses a unit where the forest expects its output to be wrong by less than ``threshold``.

    The error is a mean square relative to the output's, as `predictors.recording` measures it. Unlike the published
    forest, ours also sees how old the output is, and has trees of its own for every block.

    Args:
        forest: a file written by ``tilecast cache fit``, or the name of one that ships.
        threshold: largest expected error of a reuse (published: 0.1 of an error that is not relative).
        warmup: steps always computed, from the first.
        max_reuse: steps for which data may be reused (published: 4 reuses in a row for SDXL, 2 for SD3).
    """

    def __init__(
        self, forest: str = "tiny-image", threshold: Weight = 0.05, warmup: StepCount = 2, max_reuse: StepCount = 2
    ) -> None:
        super().__init__(warmup, max_reuse)
        self.forest = forest
        self.threshold = threshold

    def reset(self) -> None:
        super().reset()
        self._fitted = Forest.load(find(self.forest, "forest"))

    def reusable(self, signals: Signals, ages: Ints) -> Flags:
        x = features(signals.step, signals.steps, ages, signals.input_change, signals.skip_change)
        return self._fitted.output_change(signals.block, x) < self.threshold
