"""What waits for a look-ahead: those with deadlines by due time, those without by due time and by what they take.

The pool is kept in order as requests come and go, so that a decision looks at the front of it alone, however many wait.
"""

from __future__ import annotations

from bisect import bisect_left, insort

from policies.job import Job
from policies.scheduling.forecast import Due


class Pool:
    """Jobs that wait and are in no batch yet."""

    def __init__(self) -> None:
        self._urgent: list[Due] = []
        self._patient: list[Due] = []
        self._by_length: list[tuple[float, int, Due]] = []
        self._entries: dict[Job, tuple[Due, float | None]] = {}

    def __contains__(self, job: Job) -> bool:
        return job in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, job: Job, due_s: float, alone_s: float | None = None) -> None:
        """A job waits; ``alone_s`` is how long it takes, of one that has no deadline to meet."""
        entry = (due_s, job.order, job)
        self._entries[job] = entry, alone_s
        if alone_s is None:
            insort(self._urgent, entry)
        else:
            insort(self._patient, entry)
            insort(self._by_length, (alone_s, job.order, entry))

    def take(self, job: Job) -> None:
        """A job waits no more."""
        entry, alone_s = self._entries.pop(job)
        if alone_s is None:
            del self._urgent[bisect_left(self._urgent, entry)]
        else:
            del self._patient[bisect_left(self._patient, entry)]
            del self._by_length[bisect_left(self._by_length, (alone_s, job.order, entry))]

    def urgent(self, count: int, every: int = 1) -> list[Due]:
        """Those with deadlines that are due first, or every second or third of them."""
        return self._urgent[: count * every : every]

    def patient(self, count: int, every: int = 1) -> list[Due]:
        """Of those without, the one that is due first and the shortest."""
        first = self._patient[:1]
        return first + [entry for _, _, entry in self._by_length[: count * every : every] if entry not in first]
