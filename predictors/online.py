"""Online correction: a predictor that learns from what launches really took.

A profile is measured once, on a quiet machine; what serves requests is warmer, shared, or another driver version.
So the answer of the profile's table is multiplied by a factor learned while running: one a stage, and one a
composition that starts from its stage's and departs from it as evidence comes in. In logarithms,

    stage        s = n_s / (n_s + k_s) * m_s
    composition  c = s + n_c / (n_c + k_c) * m_c

with m_s the exponentially weighted mean over launches of log(measured / table), m_c that of what is left of it without
s, and n the launches seen: few of them give 1.0, then the stage's factor.

One launch can move a mean only so far as ``clip`` allows, because a stall says nothing about the next launch. When one
launch after another is cut off on the same side it is no stall but a change: each time the limit doubles, and what the
stage's mean was before keeps a quarter of its weight.

The same observations in the same order give the same answers, so a recorded run can be decided again from its
events. But what is known when a launch starts depends on which launches have ended by then: the answers of one
quantum of n steps and of n quanta of one step are not the same, and a simulation step by step equals one by quanta
only without online correction.
"""

from __future__ import annotations

from math import exp, log

from predictors.costs import Batch, CostLayer, CostModel, StepCost


class OnlinePredictor(CostLayer):
    """A predictor corrected by `observe`. Holds the state of one run: make a new one for each.

    Args:
        table: what is corrected, never changed.
        error: the answers are this share too long (0.2) or too short (-0.2) whatever is learned: what if the prediction
            stayed wrong?
        stage_shrink: k_s, launches until half of a stage's mean is believed.
        composition_shrink: k_c, launches until half of a composition's departure from its stage is believed.
        memory: launches over which the weight of an observation falls to 1/e.
        clip: the most by which log(measured / expected) of a launch counts, when the launch before was not cut off.
        tolerance: the stage's factor is passed on to the other compositions when it has moved by more than this share.
    """

    learns = True
    observed = 0

    def __init__(
        self,
        table: CostModel,
        error: float = 0.0,
        stage_shrink: float = 2.0,
        composition_shrink: float = 4.0,
        memory: float = 100.0,
        clip: float = 0.3,
        tolerance: float = 0.005,
    ) -> None:
        super().__init__(table)
        self.error = error
        self.stage_shrink = stage_shrink
        self.composition_shrink = composition_shrink
        self.clip = clip
        self.tolerance = tolerance
        self.keep = exp(-1.0 / memory)
        self._stages: dict[str, _Stage] = {}
        self._costs: dict[tuple[str, Batch], Corrected] = {}

    def step_s(self, stage: str, batch: Batch) -> float:
        """Seconds of one step, corrected by what was observed so far."""
        cost = self._costs.get((stage, batch))
        return (self.step_cost(stage, batch) if cost is None else cost).step_s

    def step_cost(self, stage: str, batch: Batch) -> Corrected:
        """What `step_s` answers, corrected in place."""
        key = (stage, batch)
        cost = self._costs.get(key)
        if cost is None:
            base_s = self.table.step_s(stage, batch) * (1.0 + self.error)
            of_stage = self._stages.get(stage)
            if of_stage is None:
                of_stage = self._stages[stage] = _Stage()
            cost = self._costs[key] = Corrected(self, of_stage, base_s)
        return cost

    def observe(self, stage: str, batch: Batch, predicted_step_s: float, measured_step_s: float, steps: int) -> None:
        """Learn from ``steps`` steps of a launch: seconds a step as `step_s` answered and as they were.

        What it wraps learns nothing from that: it is what is corrected.
        A launch counts once, however many steps it did: what makes one slow usually lasts for all of them.
        """
        self.step_cost(stage, batch).observe(predicted_step_s, measured_step_s, steps)


class _Mean:
    """An exponentially weighted mean, the weight behind it, and how many launches it has seen."""

    __slots__ = ("mean", "seen", "weight")

    def __init__(self) -> None:
        self.mean = 0.0
        self.seen = 0
        self.weight = 0.0

    def add(self, value: float, keep: float) -> None:
        self.seen += 1
        weight = self.weight = keep * self.weight + 1.0
        self.mean += (value - self.mean) / weight

    def shrunk(self, towards_zero: float) -> float:
        return self.seen / (self.seen + towards_zero) * self.mean


class _Stage(_Mean):
    """The mean of a stage, its belief last passed on, how many launches in a row were cut off (below 0: short), and how
    often its belief was passed on."""

    __slots__ = ("cut_off", "passed", "passed_on")

    def __init__(self) -> None:
        super().__init__()
        self.passed_on = 0.0
        self.passed = 0
        self.cut_off = 0

    def limited(self, surprise: float, clip: float) -> float:
        """The surprise as far as it counts."""
        again = surprise * self.cut_off > 0
        limit = clip * 2.0 ** min(abs(self.cut_off), 8) if again else clip
        if abs(surprise) <= limit:
            self.cut_off = 0
            return surprise
        if again:
            self.weight *= 0.25
        else:
            self.cut_off = 0
        self.cut_off += 1 if surprise > 0 else -1
        return limit if surprise > 0 else -limit


class Corrected(_Mean, StepCost):
    """Seconds of a step of one stage for one batch, corrected in place: `OnlinePredictor` has one of each.

    As a mean it is that of the batch's departure from its stage.

    Args:
        predictor: whose it is.
        of_stage: what is known of the stage.
        base_s: what is corrected.
    """

    __slots__ = ("_base_s", "_of_stage", "_passed", "_predictor", "_step_s")

    def __init__(self, predictor: OnlinePredictor, of_stage: _Stage, base_s: float) -> None:
        super().__init__()
        self._predictor = predictor
        self._of_stage = of_stage
        self._base_s = base_s
        self._passed = -1  # how often the stage had passed its belief on when `_step_s` was found; -1: find it anew
        self._step_s = base_s

    @property
    def step_s(self) -> float:
        """Seconds of a step, by all that was observed so far."""
        of_stage = self._of_stage
        if self._passed != of_stage.passed:
            self._passed = of_stage.passed
            departure = self.shrunk(self._predictor.composition_shrink)
            self._step_s = self._base_s * exp(of_stage.passed_on + departure)
        return self._step_s

    def observe(self, predicted_step_s: float, measured_step_s: float, steps: int) -> None:
        """See `OnlinePredictor.observe`."""
        if predicted_step_s <= 0 or measured_step_s <= 0:
            return  # a stage that was not measured has nothing to correct
        predictor, of_stage = self._predictor, self._of_stage
        predictor.observed += 1
        surprise = log(measured_step_s * (1.0 + predictor.error) / predicted_step_s)
        if of_stage.cut_off or abs(surprise) > predictor.clip:
            surprise = of_stage.limited(surprise, predictor.clip)
        value, keep = log(predicted_step_s / self._base_s) + surprise, predictor.keep
        of_stage.add(value, keep)
        believed = of_stage.shrunk(predictor.stage_shrink)
        self.add(value - believed, keep)
        self._passed = -1
        if abs(believed - of_stage.passed_on) > predictor.tolerance:
            of_stage.passed_on = believed
            of_stage.passed += 1
