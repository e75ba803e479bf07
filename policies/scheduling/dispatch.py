"""Which replica an arriving request goes to.

`least_pixels` is what PatchedServe publishes: the replica with the fewest outstanding pixels. A pixel of a request
that is nearly done counts as much as one of a request that has not begun, and a large image's pixels cost less each.
`earliest_completion` compares seconds instead: when would the replica be done with everything it has and the request?
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from policies.contract import Cluster
from policies.job import Job
from policies.scheduling.mixing import BatchCosts, Kind

Rule = Literal["pixels", "completion"]
RULES: tuple[Rule, ...] = ("pixels", "completion")
_SHARED_BY = 4


class Dispatcher:
    """Assigns every request to a replica that works when it arrives, by one of `RULES`.

    Args:
        rule: ``pixels`` or ``completion``.
        cluster: of the run.
        costs: of the run.

    Raises:
        ValueError: another rule.
    """

    def __init__(self, rule: str, cluster: Cluster, costs: BatchCosts) -> None:
        self._replicas = cluster.replicas
        count = len(cluster.replicas)
        self._by_completion = check_rule(rule) == "completion" and count > 1
        self._costs = costs
        self._pixels = [0] * count
        self._waiting_s = [0.0] * count
        self._resident_s = [0.0] * count
        self._seen_s = [0.0] * count
        self._replica_of: dict[Job, tuple[int, float]] = {}

    def assign(self, job: Job, now: float) -> int:
        """The index of the replica that an arriving job goes to."""
        kind = self._costs.kind(job)
        index, share_s = 0, 0.0
        if self._by_completion:
            index, share_s = self.earliest_completion(kind, now), self._share_s(kind)
            self._waiting_s[index] += share_s
        elif len(self._pixels) > 1:
            index = self.least_pixels()
        self._pixels[index] += kind.pixels
        self._replica_of[job] = (index, share_s)
        return index

    def replica_of(self, job: Job) -> int:
        """The index of the replica that a job not ended was assigned to."""
        return self._replica_of[job][0]

    def release(self, index: int) -> list[Job]:
        """Take the waiting jobs from a replica that has failed, in their order; each is to be assigned anew."""
        released = [job for job, (at, _) in self._replica_of.items() if at == index and job.state == "waiting"]
        for job in released:
            self.ended(job)
        self._resident_s[index] = 0.0
        return released

    def _open(self) -> list[int]:
        """The replicas that work; all of them when none does."""
        return [replica.index for replica in self._replicas if replica.up] or list(range(len(self._replicas)))

    def least_pixels(self) -> int:
        """The replica with the fewest pixels in requests that have not ended; the first of several."""
        return min(self._open(), key=self._pixels.__getitem__)

    def earliest_completion(self, kind: Kind, now: float) -> int:
        """The replica that would be done first with what it has and a request of this kind; the first of several.

        What waits is taken to run in company of its own kind, four to a step; what has started is as `planned` saw it
        last, less the seconds since. A request that finds little company takes as long as it does alone.
        """
        share_s, alone_s = self._share_s(kind), self._costs.whole_s(kind)
        ends = []
        for index in self._open():
            resident_s = max(0.0, self._resident_s[index] - (now - self._seen_s[index]))
            ends.append((max(alone_s, resident_s + self._waiting_s[index] + share_s), index))
        return min(ends)[1]

    def planned(self, index: int, jobs: Iterable[Job], now: float) -> None:
        """A replica's policy has thought anew: note how much what it has started, or starts now, still needs."""
        if not self._by_completion:
            return
        resident_s = 0.0
        for job in jobs:
            share_s = self._replica_of[job][1]
            if share_s:
                self._waiting_s[index] -= share_s
                self._replica_of[job] = (index, 0.0)
            kind = self._costs.kind(job)
            resident_s += self._share_s(kind) * job.denoise_left / kind.steps
        self._resident_s[index] = resident_s
        self._seen_s[index] = now

    def ended(self, job: Job) -> None:
        """A job has ended, however."""
        index, share_s = self._replica_of.pop(job)
        self._pixels[index] -= self._costs.kind(job).pixels
        self._waiting_s[index] -= share_s

    def _share_s(self, kind: Kind) -> float:
        """Seconds of a whole request in company of its own kind, or alone if it is tiled."""
        costs = self._costs
        if kind.tiled:
            return costs.whole_s(kind)
        batch = costs.empty
        for _ in range(_SHARED_BY):
            batch = costs.plus(batch, kind)
        alone = costs.alone(kind)
        return alone.encode_s + kind.steps * costs.step_s(batch) / _SHARED_BY + alone.decode_s


def check_rule(rule: str) -> str:
    """The rule, if there is one of this name.

    Raises:
        ValueError: there is none.
    """
    if rule not in RULES:
        raise ValueError(f"dispatch is {rule!r}, expected one of: {', '.join(RULES)}")
    return rule
