"""So many replicas by the hour of the day."""

from __future__ import annotations

import re

from policies.parameters import Wait
from policies.scaling.contract import PoolView, ScalingPolicy
from traces.errors import BadInput

_DAY_S = 86_400
_ENTRY = re.compile(r"(\d{1,2}):(\d\d)=(\d{1,5})")
_TIME = re.compile(r"(\d{1,2}):(\d\d)")


class DaySchedule(ScalingPolicy):
    """The same course every day.

    Args:
        hours: like ``08:00=4 20:00=1``: from 8 o'clock on four, from 20 o'clock until the next morning one.
        begins: what time of the day it is at second 0 of the run, like ``06:30``.
        ahead_s: replicas are started so long before they are to be there.

    Raises:
        BadInput: no such course or time.
    """

    def __init__(self, hours: str, begins: str = "00:00", ahead_s: Wait = 0.0) -> None:
        self.hours = hours
        self.begins = begins
        self.ahead_s = ahead_s
        _course(hours)
        _second(begins, "begins")

    def reset(self) -> None:
        self._course = _course(self.hours)
        self._begins = _second(self.begins, "begins")

    def wanted(self, pool: PoolView, now: float) -> int:
        clock_s = self._clock_s(now)
        return max(self._count_at(clock_s), self._count_at((clock_s + self.ahead_s) % _DAY_S))

    def wakeup(self, now: float) -> float | None:
        if len(self._course) == 1:
            return None
        clock_s = self._clock_s(now)
        changes = [at - ahead_s for at, _ in self._course for ahead_s in {0.0, self.ahead_s}]
        return now + min([((at - clock_s) % _DAY_S) or _DAY_S for at in changes])

    def _clock_s(self, now: float) -> float:
        """The second of the day, to the microsecond, so that a change named by `wakeup` has come when it is asked."""
        return round(self._begins + now, 6) % _DAY_S

    def _count_at(self, clock_s: float) -> int:
        _, count = self._course[-1]  # of the day before
        for at, of_entry in self._course:
            if at <= clock_s:
                count = of_entry
        return count


def _course(hours: str) -> list[tuple[int, int]]:
    """(Second of the day, replicas) in order."""
    found = []
    for text in hours.replace(",", " ").split():
        if not (parts := _ENTRY.fullmatch(text)):
            raise BadInput(f"hours has {text!r}, expected times with replicas, like 08:00=4 20:00=1")
        hour, minute, count = map(int, parts.groups())
        found.append((_seconds(hour, minute, text, "hours"), count))
    if not found:
        raise BadInput("hours is empty, expected times with replicas, like 08:00=4 20:00=1")
    if len({at for at, _ in found}) < len(found):
        raise BadInput(f"hours is {hours!r}, expected every time once")
    return sorted(found)


def _second(time: str, field: str) -> int:
    if not (parts := _TIME.fullmatch(time)):
        raise BadInput(f"{field} is {time!r}, expected a time of the day, like 06:30")
    hour, minute = map(int, parts.groups())
    return _seconds(hour, minute, time, field)


def _seconds(hour: int, minute: int, text: str, field: str) -> int:
    if hour > 23 or minute > 59:
        raise BadInput(f"{field} has {text!r}, expected a time from 00:00 to 23:59")
    return 3600 * hour + 60 * minute
