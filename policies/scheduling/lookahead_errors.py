"""How far off predictions have been: what plans are made with instead of the bare answer.

A predictor that is a fifth off shows as measured over predicted seconds, and plans are made with the running ratio. How
much single batches differ from it, by repeat noise or by what the predictor does not know of them, is the room that a
plan leaves: where durations are exact every second can be used, where they are not a request that is to be finished
just in time is late half of the time.
"""

from __future__ import annotations

_TRUST_STEPS, _FORGET_STEPS = 50.0, 400.0
_WEIGHT = 0.1
"""Of one batch in the running error."""
_AT_FIRST, _LEAST = 0.01, 0.005
_ERRORS = 2.0
"""A plan leaves room for so many times the usual error."""


class Errors:
    """What was measured over what was predicted.

    Attributes:
        ratio: of them, running.
        usual: by how much a batch differs from the ratio, running mean.
    """

    def __init__(self) -> None:
        self.ratio = 1.0
        self.usual = _AT_FIRST
        self._steps = 0.0

    @property
    def margin(self) -> float:
        """The share by which predictions are to be taken to be too small."""
        return _LEAST + _ERRORS * self.usual

    def learn(self, predicted_s: float, measured_s: float, steps: int) -> None:
        """A batch was predicted to take ``predicted_s`` for some steps, and took ``measured_s``."""
        if predicted_s <= 0.0 or not steps:
            return
        off = measured_s / predicted_s - self.ratio
        self.usual += _WEIGHT * (abs(off) - self.usual)
        self._steps = min(self._steps + steps, _FORGET_STEPS)
        self.ratio += off * min(1.0, steps / (_TRUST_STEPS + self._steps))
