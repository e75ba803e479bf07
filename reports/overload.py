"""Whether more was asked of a run than it served: then no figure of it is one of a steady state.

The trap: a trace ends, the queue is worked off, and the run log of a cluster that is asked for three times what it can
do looks like any other, with a latency that only says how long the trace was. So the log is asked whether a backlog
grew for as long as requests arrived.

The backlog is of *late* requests: those that are still there when, alone on an idle replica, they would have ended.
What a cluster merely has in hand is none, however short the trace. The time of the arrivals is cut into equal slices;
the backlog grows when its mean increase a slice is surely above zero by Student's interval over slices
(`reports.output_analysis.interval`). A burst raises one slice, a peak in the middle is worked off again, starting empty
raises the first slice: none of these makes the mean significant. Of requests that are dropped no backlog stays; see
`reports.notes`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from policies.run_arrays import RequestArrays
from reports.output_analysis import interval

SLICES = 20
CONFIDENCE = 0.95

LEAST_SHARE = 0.04
"""A backlog of a smaller share of what arrived is no overload: 4 % more than is served."""

MOST_WAITING = 0.2
"""A trace that ends with a larger share of its requests late is too short to say anything lasting."""

FEW = 4
"""A backlog of so few requests says nothing."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """What was left undone when the last request arrived.

    Attributes:
        arrived: requests that would have ended by then, had each been alone.
        late: of these, those that had not.
        grows: whether the backlog grew all the time, so that it has no end.
    """

    arrived: int
    late: int
    grows: bool

    @property
    def load(self) -> float:
        """How many times as fast requests arrived as they were served; 1: the queue did not grow."""
        served = self.arrived - self.late
        return self.arrived / served if served else float("inf")


def backlog(requests: RequestArrays) -> Backlog:
    """The backlog of a run at its last arrival, or when it was interrupted."""
    asked = requests.where(requests.submitted)
    if not len(asked):
        return Backlog(0, 0, False)
    arrival_s = asked.arrival_s
    due_s = np.sort(np.minimum(arrival_s + np.nan_to_num(asked.standalone_s), asked.finish_s))
    end_s = np.sort(asked.finish_s)
    edges = np.linspace(arrival_s.min(), arrival_s.max(), SLICES + 1)
    due = np.searchsorted(due_s, edges, side="right")
    late = due - np.searchsorted(end_s, edges, side="right")
    arrived, left = int(due[-1]), int(late[-1])
    grows = left > max(FEW, LEAST_SHARE * arrived) and interval(np.diff(late).tolist(), CONFIDENCE).low > 0
    return Backlog(arrived, left, grows)
