"""Online correction: a predictor that learns from what launches really took.

A profile is measured once, on a quiet machine; what serves requests is warmer, shared, or another driver version.
So the answer of the profile's table is multiplied by a factor learned while running: one a stage, and one a
composition that starts from its stage's and departs from it as evidence comes in. In logarithms,

    stage        s = n_s / (n_s + k_s) * m_s
    composition  c = s + n_c / (n_c + k_c) * (m_c - s)

with m the exponentially weighted mean of log(measured / table) over launches and n the weight behind it: few
launches give 1.0, then the stage's factor. One launch can move a mean only so far as ``clip`` allows: a stall
says nothing about the next launch.

The same observations in the same order give the same answers, so a recorded run can be decided again from its
events. But what is known when a launch starts depends on which launches have ended by then: the answers of one
quantum of n steps and of n quanta of one step are not the same, and a simulation step by step equals one by quanta
only without online correction.
"""

from __future__ import annotations

from math import exp, log
from typing import Protocol

from traces.composition import Composition
from traces.request import Request

_Key = tuple[str, Composition, float]


class Costs(Protocol):
    """What is corrected: a `predictors.table.LatencyTable`, or anything that answers like one."""

    def seconds(self, stage: str, composition: Composition, guided: float = 1.0) -> float:
        """Seconds of one step."""
        ...


class OnlinePredictor:
    """A predictor corrected by `observe`. Holds the state of one run: make a new one for each.

    Args:
        table: what is corrected, never changed.
        error: the answers are this share too long (0.2) or too short (-0.2) whatever is learned: what if the prediction
            stayed wrong?
        stage_shrink: k_s, launches until half of a stage's mean is believed.
        composition_shrink: k_c, launches until half of a composition's departure from its stage is believed.
        memory: launches over which the weight of an observation falls to 1/e.
        clip: the most by which log(measured / expected) of one launch counts.
        tolerance: the stage's factor is passed on to the other compositions when it has moved by more than this share.
    """

    def __init__(
        self,
        table: Costs,
        error: float = 0.0,
        stage_shrink: float = 4.0,
        composition_shrink: float = 8.0,
        memory: float = 100.0,
        clip: float = 0.3,
        tolerance: float = 0.005,
    ) -> None:
        self.table = table
        self.error = error
        self.stage_shrink = stage_shrink
        self.composition_shrink = composition_shrink
        self.clip = clip
        self.tolerance = tolerance
        self._keep = exp(-1.0 / memory)
        self._stages: dict[str, list[float]] = {}  # weight, mean, and the factor's logarithm last passed on
        self._compositions: dict[_Key, list[float]] = {}  # weight, mean
        self._seconds: dict[_Key, float] = {}

    def seconds(self, stage: str, composition: Composition, guided: float = 1.0) -> float:
        """Seconds of one step, corrected by what was observed so far."""
        key = (stage, composition, guided)
        try:
            return self._seconds[key]
        except KeyError:
            base = self.table.seconds(stage, composition, guided) * (1.0 + self.error)
            value = self._seconds[key] = base * exp(self._log_factor(key)) if self._stages else base
            return value

    def standalone(self, request: Request) -> float:
        """Seconds of a request alone on an idle replica: encode, all its denoising steps, decode."""
        alone = ((request.size, request.images),)
        encode, denoise, decode = (self.seconds(s, alone, request.guided) for s in ("encode", "denoise", "decode"))
        return encode + request.steps * denoise + decode

    def observe(
        self,
        stage: str,
        composition: Composition,
        guided: float,
        predicted_step_s: float,
        measured_step_s: float,
        steps: int,
    ) -> None:
        """Learn from ``steps`` steps of a launch: seconds a step as `seconds` answered and as they were.

        A launch counts once, however many steps it did: what makes one slow usually lasts for all of them.
        """
        if predicted_step_s <= 0 or measured_step_s <= 0:
            return  # a stage that was not measured has nothing to correct
        key = (stage, composition, guided)
        base = self.table.seconds(stage, composition, guided) * (1.0 + self.error)
        surprise = min(self.clip, max(-self.clip, log(measured_step_s * (1.0 + self.error) / predicted_step_s)))
        value = log(predicted_step_s / base) + surprise
        of_stage = self._stages.setdefault(stage, [0.0, 0.0, 0.0])
        of_composition = self._compositions.setdefault(key, [0.0, 0.0])
        for group in (of_stage, of_composition):
            weight = self._keep * group[0] + 1.0
            group[1] += (value - group[1]) / weight
            group[0] = weight
        believed = of_stage[0] / (of_stage[0] + self.stage_shrink) * of_stage[1]
        if abs(believed - of_stage[2]) > self.tolerance:
            of_stage[2] = believed
            self._seconds.clear()
        else:
            self._seconds.pop(key, None)

    def _log_factor(self, key: _Key) -> float:
        of_stage = self._stages.get(key[0])
        if of_stage is None:
            return 0.0
        stage = of_stage[2]
        weight, mean = self._compositions.get(key, (0.0, 0.0))
        return stage + weight / (weight + self.composition_shrink) * (mean - stage)
