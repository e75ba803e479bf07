"""When the steps of a launch end: all arithmetic on time that the simulator does.

Time is whole picoseconds on the simulation's clock, so that a quantum of n steps ends exactly when n quanta of one step
do, however it is divided.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence

from policies.contract import Launch, Outcome
from traces.stages import STAGES

PICOSECONDS = 10**12
"""In a second."""

Part = tuple[str, int, int, int, Sequence[int], int]
"""The steps of a launch in one stage: the stage, how many, when the last of them ends, and when each does: step k of
them ``unit * (sums[first + k] - sums[first])`` picoseconds after the stage begins, for ``unit``, ``sums``, ``first``.
``sums`` rises from step to step.
"""
Account = Callable[[Launch, int, int, float, float], tuple[int, int, tuple[float, ...]]]
"""Of a launch, the steps done, the steps of refinement begun, and the seconds of these and of its other steps: what it
computed, what it reused, and the busy seconds of each device.
"""


class Timeline:
    """The step ends of a launch: when each of the steps ends that it runs.

    Args:
        launch: which.
        start: when it begins.
        parts: its stages in order, with one step at least.
        steps: steps of all of them.
        images: pictures in each step.
        account: what was computed and which devices were busy, where steps are not alike; None: every step computes
            each of its images, on one device.
        moved: bytes that each of its first steps brings from elsewhere.

    Attributes:
        launch, start, steps: as given.
        end: when the last of its steps ends.
    """

    __slots__ = ("_account", "_images", "_moved", "_parts", "end", "launch", "start", "steps")

    def __init__(
        self,
        launch: Launch,
        start: int,
        parts: Sequence[Part],
        steps: int,
        images: int,
        account: Account | None = None,
        moved: tuple[int, ...] = (),
    ) -> None:
        self.launch = launch
        self.start = start
        self.end = parts[-1][2]
        self.steps = steps
        self._parts = parts
        self._images = images
        self._account = account
        self._moved = moved

    def steps_by(self, time: int) -> int:
        """How many steps have ended by a time from its start on, one that ends just then among them."""
        return sum([steps for _, steps, _ in self.stages_by(time)])

    def stages_by(self, time: int) -> list[tuple[str, int, int]]:
        """(stage, steps ended, picoseconds) until a time from its start on, of each stage that had begun before it."""
        reached = []
        began = self.start
        for stage, steps, end, unit, sums, first in self._parts:
            if time <= began:
                break
            done = steps if end <= time else _steps_within(time - began, unit, sums, first)
            reached.append((stage, done, min(end, time) - began))
            began = end
        return reached

    def boundary_after(self, time: int) -> int:
        """When the first of its steps ends that ends after a time from its start until its end."""
        return self.ended_after(time).end

    def ended_after(self, time: int) -> Timeline:
        """The same launch, ended by the first of its steps that ends after a time from its start until its end."""
        began, before = self.start, 0
        for index, (stage, steps, end, unit, sums, first) in enumerate(self._parts):
            if end > time:
                run = _steps_within(time - began, unit, sums, first) + 1
                if before + run == self.steps:
                    break
                last = (stage, run, began + unit * (sums[first + run] - sums[first]), unit, sums, first)
                parts = [*self._parts[:index], last]
                return Timeline(
                    self.launch, self.start, parts, before + run, self._images, self._account, moved=self._moved
                )
            began = end
            before += steps
        return self

    def left(self, time: int) -> list[tuple[str, int]]:
        """(stage, steps) of what has not ended by a time from its start on, the last stage first."""
        left = []
        for index in range(len(self._parts) - 1, -1, -1):
            stage, steps, end, unit, sums, first = self._parts[index]
            if end <= time:
                break
            began = self._parts[index - 1][2] if index else self.start
            left.append((stage, steps if time <= began else steps - _steps_within(time - began, unit, sums, first)))
        return left

    def outcome(self, time: int) -> Outcome:
        """What it has come to by a time until its end. A step under way is not done, but its devices were busy."""
        start = self.start
        steps = self.steps if time == self.end else self.steps_by(time)
        stage_ends_s = tuple([end / PICOSECONDS for _, _, end, _, _, _ in self._parts if end < time])
        moved = sum(self._moved[:steps]) if self._moved else 0
        if self._account is None:
            device_s: tuple[float, ...] = ((time - start) / PICOSECONDS,)
            if len(self.launch.devices) > 1:
                device_s = self._divided_s(time)
            return _new(Outcome, (steps, None, self._images * steps, 0, device_s, stage_ends_s, None, moved))
        begun, refining = self._refining(time)
        others = time - start - refining
        computed, reused, device_s = self._account(
            self.launch, steps, begun, refining / PICOSECONDS, others / PICOSECONDS
        )
        if len(device_s) == 1 < len(self.launch.devices):
            device_s = self._divided_s(time)
        return Outcome(steps, None, computed, reused, device_s, stage_ends_s, moved_bytes=moved)

    def _divided_s(self, time: int) -> tuple[float, ...]:
        """Busy seconds of each of its devices until a time: of the first always, of others where a stage uses them."""
        work = self.launch.work
        busy = [0] * (work.batch.devices or 1)
        for (_, _, spent), degree in zip(self.stages_by(time), work.degrees, strict=False):
            for device in range(degree):
                busy[device] += spent
        return ((time - self.start) / PICOSECONDS, *[spent / PICOSECONDS for spent in busy[1:]])

    def _refining(self, time: int) -> tuple[int, int]:
        """Steps of refinement begun before a time, and the picoseconds that they had by then."""
        for (stage, done, spent), (*_, unit, sums, first) in zip(self.stages_by(time), self._parts, strict=False):
            if STAGES[stage].devices:
                return done + (unit * (sums[first + done] - sums[first]) < spent), spent
        return 0, 0


def _steps_within(span: int, unit: int, sums: Sequence[int], first: int) -> int:
    """Steps of a stage that end within a span from its beginning, for one that goes on beyond it."""
    return bisect_right(sums, sums[first] + span // unit, first) - first - 1


_new = tuple.__new__  # of a named tuple, it takes a third of the time that its class takes
