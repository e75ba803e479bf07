"""Users who wait: a closed loop, in which the next request comes when the last is answered.

In an open loop requests come however long the queue is: where more is asked than can be served, waits grow without
end. Forty people at their screens do not do that: each asks, waits, looks at the picture, and asks again, so that a
slow cluster is asked less. What they ask for are the requests of a trace in its order; when is theirs to say.

Each thinks for exponentially distributed seconds, first of all before its first request, so that they do not come all
at once. Their thoughts are drawn a user at a time: they do not depend on how events of one instant are ordered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from traces.request import Request


class Users:
    """So many users of one run. Holds what each waits for; make one a run.

    Args:
        count: how many there are.
        think_s: mean seconds from an answer to the next request of the same user; 0: none.
        requests: what they ask for, in this order; arrival times count no more, deadlines are so long after.
        rng: of their thoughts.
    """

    def __init__(self, count: int, think_s: float, requests: Sequence[Request], rng: np.random.Generator) -> None:
        self._think_s = think_s
        self._requests = requests
        self._of = rng.spawn(count)
        self._asking: dict[str, int] = {}
        self._planned = 0

    def first(self) -> list[tuple[float, int]]:
        """When each asks for the first time, seconds, and who; no more than there are requests."""
        return [(self._thought_s(user), user) for user in range(len(self._of)) if self._plan()]

    def asks(self, user: int, number: int, now_s: float) -> Request:
        """The request that a user asks at a time, the ``number``-th (from 0) of all."""
        asked = self._requests[number]
        deadline_s = None if asked.deadline_s is None else now_s + (asked.deadline_s - asked.arrival_s)
        request = replace(asked, arrival_s=now_s, deadline_s=deadline_s)
        self._asking[request.request_id] = user
        return request

    def answered(self, request_id: str) -> tuple[float, int] | None:
        """Seconds from now until the user asks again whose request has ended, however, and who; None: no request is
        left."""
        user = self._asking.pop(request_id)
        return (self._thought_s(user), user) if self._plan() else None

    def _plan(self) -> bool:
        """Whether there is a request for one more question."""
        left = self._planned < len(self._requests)
        self._planned += left
        return left

    def _thought_s(self, user: int) -> float:
        return float(self._of[user].exponential(self._think_s)) if self._think_s > 0 else 0.0
