"""What waits for a look-ahead: those with deadlines by due time, those without by due time and by what they take.

They are kept in order as requests come and go, so that a decision looks at the front of it alone, however many wait.
"""

from __future__ import annotations

from bisect import bisect_left, insort

from policies.job import Job
from policies.scheduling.forecast import Due

_LONGEST = 512
"""Jobs in a part of a line; a longer one is split, so that to put one in or take one out moves few others."""
_Place = tuple[float, int, Due]


class _Line:
    """Jobs in order of some seconds, in parts of which none is empty."""

    def __init__(self) -> None:
        self._parts: list[list[_Place]] = []
        self._lasts: list[_Place] = []  # of each part

    def put(self, seconds: float, entry: Due) -> None:
        place = (seconds, entry[1], entry)
        if not self._parts:
            self._parts.append([place])
            self._lasts.append(place)
            return
        at = min(bisect_left(self._lasts, place), len(self._parts) - 1)
        part = self._parts[at]
        insort(part, place)
        if len(part) > _LONGEST:
            half = len(part) // 2
            self._parts[at : at + 1] = part[:half], part[half:]
            self._lasts[at : at + 1] = part[half - 1], part[-1]
        else:
            self._lasts[at] = part[-1]

    def take(self, seconds: float, entry: Due) -> None:
        place = (seconds, entry[1], entry)
        at = bisect_left(self._lasts, place)
        part = self._parts[at]
        del part[bisect_left(part, place)]
        if part:
            self._lasts[at] = part[-1]
        else:
            del self._parts[at], self._lasts[at]

    def first(self, count: int, every: int = 1) -> list[Due]:
        """So many from the front, or every second or third of them."""
        if not self._parts:
            return []
        front: list[_Place] = []
        for part in self._parts:
            front += part[: count * every - len(front)]
            if len(front) == count * every:
                break
        return [entry for _, _, entry in front[::every]]


class WaitingByDue:
    """Jobs that wait and are in no batch yet."""

    def __init__(self) -> None:
        self._urgent, self._patient, self._by_length = _Line(), _Line(), _Line()
        self._entries: dict[Job, tuple[Due, float | None]] = {}

    def __contains__(self, job: Job) -> bool:
        return job in self._entries

    def put(self, job: Job, due_s: float, alone_s: float | None = None) -> None:
        """A job waits; ``alone_s`` is how long it takes, of one that has no deadline to meet."""
        entry = (due_s, job.order, job)
        self._entries[job] = entry, alone_s
        if alone_s is None:
            self._urgent.put(due_s, entry)
        else:
            self._patient.put(due_s, entry)
            self._by_length.put(alone_s, entry)

    def take(self, job: Job) -> None:
        """A job waits no more."""
        entry, alone_s = self._entries.pop(job)
        if alone_s is None:
            self._urgent.take(entry[0], entry)
        else:
            self._patient.take(entry[0], entry)
            self._by_length.take(alone_s, entry)

    def urgent(self, count: int, every: int = 1) -> list[Due]:
        """Those with deadlines that are due first, or every second or third of them."""
        return self._urgent.first(count, every)

    def patient(self, count: int, every: int = 1) -> list[Due]:
        """Of those without, the one that is due first and the shortest."""
        first = self._patient.first(1)
        if not first:
            return []
        return first + [entry for entry in self._by_length.first(count, every) if entry not in first]
