"""One replica: the queue of each checkpoint, whose turn it is, and which weights make room for others.

The turn passes when a request of the checkpoint that has it ends, or when it has nothing to run; then it goes to the
checkpoint with the most urgent request of those whose weights are there. One that would have to be loaded waits until
nothing else is to do, or until waiting longer might make its most urgent request late. And a load has to pay: weights
that came for requests stay until they have been used for some time, while there is use for them. Both bounds are
``visit`` times what the load takes, so that of a replica with too much to do at most 1 / (1 + visit) goes into loading.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from policies import answers
from policies.contract import Decision, Load, Replica
from policies.guard import ask
from policies.job import Job, ReadOnly
from policies.residency.contract import KeepPolicy
from policies.residency.queue import CheckpointQueue
from predictors.loading import LoadTimes


class LaneView(ReadOnly):
    """A replica as a dispatch policy sees it, see `policies.residency.contract.Lane`."""

    __slots__ = ("_lane", "index")

    index: int
    _lane: ReplicaLane

    def __init__(self, lane: ReplicaLane) -> None:
        object.__setattr__(self, "index", lane.index)
        object.__setattr__(self, "_lane", lane)

    def backlog_s(self, now: float) -> float:
        """See `policies.residency.contract.Lane`."""
        return self._lane.backlog_s(now)

    def load_s(self, checkpoint: str) -> float:
        """See `policies.residency.contract.Lane`."""
        return self._lane.load_s(checkpoint)

    def room_gb(self) -> float:
        """See `policies.residency.contract.Lane`."""
        return self._lane.room_gb()


class ReplicaLane:
    """What is kept of one replica; begins empty.

    Args:
        replica: the controller's.
        make_queue: the queue of a checkpoint on this replica.
        keep: of this replica alone.
        loads: what loading is expected to take, shared by the lanes; None: all weights are always there.
        visit: seconds of use, and of waiting, that a second of loading is worth.

    Attributes:
        index: of the replica.
        view: what a dispatch policy sees of it.
        stale: queues that have had news since they were last asked for recalls.
    """

    def __init__(
        self,
        replica: Replica,
        make_queue: Callable[[str, Replica], CheckpointQueue],
        keep: KeepPolicy,
        loads: LoadTimes | None,
        visit: float,
    ) -> None:
        self.index = replica.index
        self.view = LaneView(self)
        self._replica = replica
        self._make_queue = make_queue
        self._keep = keep
        self._loads = loads
        self._visit = visit
        self.begin(0.0)

    def begin(self, now: float) -> None:
        """Begin with nothing to do: a run begins, or the replica has failed."""
        self.stale: dict[CheckpointQueue, None] = {}
        self._queues: dict[str, CheckpointQueue] = {}
        self._busy: dict[CheckpointQueue, None] = {}  # those that have requests
        self._turn: CheckpointQueue | None = None
        self._turn_s = 0.0  # since when
        self._loading = False  # its weights are on their way, or have just come
        self._passes = False
        self._started: dict[Job, None] = {}
        self._waiting_s = self._started_s = 0.0
        self._seen_s: float | None = None  # when what has started was last looked at; None: nothing runs
        ask(self._keep, "reset")
        for checkpoint in self._replica.loaded:
            self._tell("came", checkpoint, now)

    def backlog_s(self, now: float) -> float:
        """See `policies.residency.contract.Lane`."""
        since_s = 0.0 if self._seen_s is None else now - self._seen_s
        return self._waiting_s + max(0.0, self._started_s - since_s)

    def load_s(self, checkpoint: str) -> float:
        """See `policies.residency.contract.Lane`."""
        queue = self._queues.get(checkpoint)
        if self._loads is None or checkpoint in self._replica.loaded or (queue is not None and queue in self._busy):
            return 0.0
        return self._loads.expected(self.index, checkpoint)

    def room_gb(self) -> float:
        """See `policies.residency.contract.Lane`."""
        if self._loads is None:
            return math.inf
        weights = self._loads.weights
        return weights.memory_gb - sum([weights.gb(checkpoint) for checkpoint in self._replica.loaded])

    def add(self, job: Job, seconds: Mapping[str, float], now: float) -> None:
        """A request is given to this replica."""
        checkpoint = job.request.checkpoint
        queue = self._queues.get(checkpoint)
        if queue is None:
            queue = self._queues[checkpoint] = self._make_queue(checkpoint, self._replica)
        self._waiting_s += job.seconds_left(seconds)
        self._busy[queue] = self.stale[queue] = None
        queue.add(job, seconds, now)

    def returned(self, job: Job, now: float) -> None:
        """A launch of a job ended and it has more to do."""
        queue = self._queues[job.request.checkpoint]
        self.stale[queue] = None
        queue.returned(job, now)

    def ended(self, job: Job, now: float) -> None:
        """A job ended, however."""
        queue = self._queues[job.request.checkpoint]
        self._passes |= queue is self._turn and queue.runs(job)
        if job in self._started:
            del self._started[job]
        else:
            self._waiting_s -= queue.alone_s(job)
        queue.ended(job, now)
        self.stale[queue] = None
        if not queue.jobs:
            del self._busy[queue]
            if queue is self._turn:
                self._end_turn(now)
        if not self._busy:
            self._waiting_s = self._started_s = 0.0
            self._seen_s = None

    def recalls(self, now: float) -> list[int]:
        """Ids of running launches that the policy of their checkpoint recalls."""
        stale, self.stale = self.stale, {}
        if self._turn is not None:
            stale[self._turn] = None
        return [launch_id for queue in stale for launch_id in queue.recalls(now)]

    def wakeup(self, now: float) -> float | None:
        """When the first of the policies wants to be asked again."""
        times = [queue.wakeup(now) for queue in self._busy]
        return min([at_s for at_s in times if at_s is not None], default=None)

    def plan(self, now: float) -> Decision | None:
        """What to do next on the replica, which is idle."""
        turn = self._turn
        if turn in self._busy and (turn.launching or not self._passes):
            decision = self._ask(turn, now)
            if decision is not None:
                return decision
        self._end_turn(now)
        for queue in self._order(now):
            decision = (self._ask if self._here(queue.checkpoint) else self._load)(queue, now)
            if decision is not None:
                return decision
        self._look(None)
        return None

    def _end_turn(self, now: float) -> None:
        if self._turn is not None and not self._loading:
            self._turn.served_s += now - self._turn_s
        self._turn, self._loading, self._passes = None, False, False

    def _order(self, now: float) -> list[CheckpointQueue]:
        """Whose turn it is, the first first; see the module."""
        here: list[tuple[float, int, CheckpointQueue]] = []
        missing: list[tuple[float, int, CheckpointQueue]] = []
        for position, queue in enumerate(self._busy):
            due_s = queue.due_s(now)
            if self._here(queue.checkpoint):
                here.append((due_s, position, queue))
            else:
                missing.append((due_s - self._expected_s(queue), position, queue))
        here.sort()
        missing.sort()
        queues = [queue for _, _, queue in here + missing]
        if here and missing and missing[0] < here[0]:
            due_s, _, queue = missing[0]
            if due_s - queue.first_left_s() < now + self._visit * self._expected_s(queue):
                queues.remove(queue)
                queues.insert(0, queue)
        return queues

    def _here(self, checkpoint: str) -> bool:
        return self._loads is None or checkpoint in self._replica.loaded

    def _expected_s(self, queue: CheckpointQueue) -> float:
        assert self._loads is not None
        return self._loads.expected(self.index, queue.checkpoint)

    def _ask(self, queue: CheckpointQueue, now: float) -> Decision | None:
        """Ask the policy of a checkpoint that is there; it has the turn if it runs anything."""
        decision = queue.plan(now)
        if decision is None:
            return None
        anew = queue is not self._turn or self._loading
        if decision.jobs or queue.launching:
            self._passes = False
            if anew:
                self._turn, self._turn_s, self._loading = queue, now, False
                self._look(now)
        fresh = [job for job in decision.jobs if job not in self._started]
        for job in fresh:
            self._started[job] = None
            self._waiting_s -= queue.alone_s(job)
            self._tell("used", queue.checkpoint, now)
        if fresh:
            self._look(now)
        return decision

    def _load(self, queue: CheckpointQueue, now: float) -> Decision | None:
        """Load a checkpoint, if there is room for it or what lies there has paid."""
        assert self._loads is not None
        checkpoint, weights = queue.checkpoint, self._loads.weights
        loaded, evict = list(self._replica.loaded), []
        while not weights.fit([*loaded, checkpoint]):
            open_to = [held for held in loaded if not self._must_stay(held)]
            if not open_to:
                return None
            unwanted = [held for held in open_to if self._queues.get(held) not in self._busy]
            asked = unwanted or open_to
            victim = answers.victim(self._keep, ask(self._keep, "victim", tuple(asked), now), asked)
            loaded.remove(victim)
            evict.append(victim)
        for victim in evict:
            ask(self._keep, "left", victim)
        load_s = self._loads.seconds(self.index, checkpoint)
        self._tell("came", checkpoint, now)
        queue.load_s, queue.served_s = load_s, 0.0
        self._turn, self._loading = queue, True
        self._look(now)
        self._started_s += load_s
        return Decision(load=Load(checkpoint, tuple(evict), load_s))

    def _must_stay(self, checkpoint: str) -> bool:
        queue = self._queues.get(checkpoint)
        return queue in self._busy and queue.served_s <= self._visit * queue.load_s

    def _tell(self, hook: str, checkpoint: str, now: float) -> None:
        """Tell the keep policy that a checkpoint ``came`` or is ``used``."""
        if self._loads is not None:
            gb = self._loads.weights.gb(checkpoint)
            ask(self._keep, hook, checkpoint, gb, self._loads.expected(self.index, checkpoint), now)

    def _look(self, now: float | None) -> None:
        """Note what is left to do of the requests that have started; None: none of them runs."""
        queues = self._queues
        self._started_s = sum([queues[job.request.checkpoint].left_s(job) for job in self._started])
        self._seen_s = now
