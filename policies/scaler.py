"""The lives of replicas that come and go, and whom to start and whom to stop.

A scaling policy says how many replicas a pool should have. Which of them, is settled here; what follows from it for the
requests is the controller's, and what for the machines the driver's. All replicas that a pool may have at most are
there from the beginning, as places: a place is in one of these states.

    stopped   nothing is there
    starting  ordered; the driver says when it is ready
    ready     takes requests, unless it has failed
    draining  finishes what it has; then it is given up, or ready again if it was kept meanwhile
    stopping  given up; the driver says when it is gone

Of those to start the ones that drain come first, which are kept, then the places that are stopped. Of those to stop the
ones come first that are starting, the latest first; then those that have failed; then those that hold the fewest
requests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from policies import answers
from policies.contract import Replica
from policies.guard import ask, begun
from policies.job import Job
from policies.pool import Pool
from policies.scaling.contract import PoolView, ScalingPolicy
from policies.scaling.elastic import Elastic, Lifetime, Lifetimes, Resize

Jobs = Mapping[str, Job]


class Members:
    """The replicas of a pool that come and go.

    Args:
        pool: which.
        elastic: how they do.
        replicas: as many as it may have.

    Attributes:
        policy: the copy of the scaling policy that is asked.
        least: how many there are at least.
        initial: places of those that are there in the beginning.
        wakeup_s: when the policy wants to be asked again, seconds; None: never.
    """

    policy: ScalingPolicy

    def __init__(self, pool: Pool, elastic: Elastic, replicas: Sequence[Replica]) -> None:
        self.pool = pool
        self.replicas = replicas
        most = len(replicas)
        self.least = min(elastic.least, most)
        self.start_s = elastic.start_s
        self.wakeup_s: float | None = None
        initial = elastic.initial
        if initial is None:
            first = begun(elastic.policy)
            initial = answers.wanted(first, ask(first, "wanted", self.view(), 0.0), self.least, most)
        self.initial = range(max(self.least, min(initial, most))) if isinstance(initial, int) else initial
        self.policy = begun(elastic.policy)

    def view(self, waiting: Jobs | None = None, jobs: Jobs | None = None, **counts: int) -> PoolView:
        """What the policy sees: by default, a pool without a replica that has nothing to do."""
        one = self.replicas[0]
        found = dict.fromkeys(("ready", "starting", "draining", "failed", "busy"), 0) | counts
        return PoolView(
            name=self.pool.name,
            least=self.least,
            most=len(self.replicas),
            **found,
            waiting=MappingProxyType({} if waiting is None else waiting),
            jobs=MappingProxyType({} if jobs is None else jobs),
            start_s=self.start_s,
            costs=one.costs,
            batch_costs=one.batch_costs,
        )


class Scaler:
    """Keeps the states of replicas that come and go.

    Args:
        members: of every pool in which they do.
        queues: what waits for each replica alone, by its index, where requests are bound to replicas.
        replicas: how many there are in all pools.

    Attributes:
        states: of the replicas that come and go, by index.
    """

    def __init__(self, members: Sequence[Members], queues: Mapping[int, Jobs], replicas: int) -> None:
        self._members = members
        self._queues = queues
        self.states: dict[int, str] = {}
        self._failed: set[int] = set()
        self._kept: set[int] = set()  # of those that drain
        self._starts: dict[int, None] = {}  # those that are starting, in the order in which they were to
        self._replicas: dict[int, Replica] = {}
        for pool in members:
            for place, replica in enumerate(pool.replicas):
                self.states[replica.index] = "ready" if place in pool.initial else "stopped"
                self._replicas[replica.index] = replica
        self._lifetimes = Lifetimes([i for i in range(replicas) if self.states.get(i, "ready") == "ready"])
        self._seen: tuple[int, ...] | None = None
        self._news = True

    @property
    def lifetimes(self) -> list[Lifetime]:
        """Of all replicas, see `Lifetimes.all`."""
        return self._lifetimes.all

    @property
    def wakeup_s(self) -> float | None:
        """When a policy wants to be asked although nothing happens, seconds; None: never."""
        return min([pool.wakeup_s for pool in self._members if pool.wakeup_s is not None], default=None)

    def resizes(self, jobs_of: Callable[[Pool], tuple[Jobs, Jobs]], seen: tuple[int, ...], now: float) -> list[Resize]:
        """What is to change now.

        Args:
            jobs_of: those of a pool that wait, and all not ended.
            seen: counts of which one differs when a request has come, started or ended since.
            now: seconds.

        Raises:
            PolicyError: a policy broke its contract.
        """
        found = self._emptied()
        self.follow(found, now)
        due = self._news or seen != self._seen
        self._seen, self._news = seen, False
        for members in self._members:
            if due or (members.wakeup_s is not None and members.wakeup_s <= now):
                more = self._toward(members, self._wanted(members, *jobs_of(members.pool), now))
                self.follow(more, now)
                found += more
        return found

    def follow(self, resizes: Sequence[Resize], now: float) -> None:
        """Take over what is to become of replicas, decided here or by the run of which this is the record."""
        for index, change in resizes:
            self._kept.discard(index)
            if change == "start":
                self._starts[index] = None
                self._lifetimes.ordered(index, now)
            elif change == "stop":
                self._starts.pop(index, None)
                self._failed.discard(index)
            elif change == "keep":
                self._kept.add(index)
            elif change == "resume":
                self._news = True
            self.states[index] = _BECOMES[change]

    def ready(self, index: int, now: float) -> bool:
        """A replica that was starting takes requests from now on; False: it was given up meanwhile."""
        if self.states[index] != "starting":
            return False
        self.states[index] = "ready"
        self._starts.pop(index, None)
        self._lifetimes.ready(index, now)
        self._news = True
        return True

    def gone(self, index: int, now: float) -> None:
        """A replica that was given up is there no longer."""
        if self.states[index] != "stopping":
            raise ValueError(f"replica {index} is {self.states[index]}, and cannot have been stopped")
        self.states[index] = "stopped"
        self._lifetimes.gone(index, now)

    def failed(self, index: int) -> bool:
        """A replica has failed; True: it took requests until then, and did not only finish what it had."""
        self._failed.add(index)
        self._news = True
        return self.states.get(index, "ready") == "ready"

    def repaired(self, index: int) -> bool:
        """A replica works again; False: it takes no requests, because it was given up meanwhile."""
        self._failed.discard(index)
        self._news = True
        return self.states.get(index, "ready") == "ready"

    @property
    def gave_up(self) -> ScalingPolicy | None:
        """The policy of a pool that has no replica, and wants none; None: there is no such pool."""
        for members in self._members:
            states = {self.states[replica.index] for replica in members.replicas}
            if not states & {"ready", "starting", "draining"}:
                return members.policy
        return None

    def works(self, index: int) -> bool:
        """Whether a replica has not failed, or has been repaired."""
        return index not in self._failed

    def _emptied(self) -> list[Resize]:
        """Those that have finished what they had."""
        return [
            Resize(index, "resume" if index in self._kept else "stop")
            for index, state in self.states.items()
            if state == "draining" and not self._holds(index)
        ]

    def _holds(self, index: int) -> bool:
        replica = self._replicas[index]
        return bool(replica.resident) or replica.launch is not None

    def _wanted(self, pool: Members, waiting: Jobs, unended: Jobs, now: float) -> int:
        states = [self.states[replica.index] for replica in pool.replicas]
        takes = [r for r, state in zip(pool.replicas, states, strict=True) if state == "ready" and r.up]
        kept = len([replica for replica in pool.replicas if replica.index in self._kept])
        view = pool.view(
            waiting,
            unended,
            ready=len(takes),
            starting=states.count("starting") + kept,
            draining=states.count("draining") - kept,
            failed=states.count("ready") - len(takes),
            busy=sum([bool(self._load(replica)) for replica in takes]),
        )
        policy = pool.policy
        wanted = answers.wanted(policy, ask(policy, "wanted", view, now), pool.least, view.most)
        at_s = ask(policy, "wakeup", now)
        pool.wakeup_s = None if at_s is None else answers.wakeup_s(policy, at_s)
        return wanted

    def _load(self, replica: Replica) -> int:
        """Requests that live on a replica or wait for it alone; a load of weights counts as one."""
        loads = replica.launch is not None and replica.launch.load is not None
        own = self._queues.get(replica.index)
        return len(replica.resident) + loads + (0 if own is None else len(own))

    def _toward(self, pool: Members, wanted: int) -> list[Resize]:
        """Come as near to a number of replicas as can be."""
        states, kept = self.states, self._kept
        there = [r for r in pool.replicas if states[r.index] in ("ready", "starting") or r.index in kept]
        if len(there) == wanted:
            return []
        if len(there) > wanted:
            return [self._fewer(replica) for replica in sorted(there, key=self._worth)[: len(there) - wanted]]
        count, indexes = wanted - len(there), [replica.index for replica in pool.replicas]
        found = [Resize(i, "keep") for i in indexes if states[i] == "draining" and i not in kept]
        found += [Resize(i, "start") for i in indexes if states[i] == "stopped"]
        self._news |= len(found) < count  # others are on their way out
        return found[:count]

    def _fewer(self, replica: Replica) -> Resize:
        index = replica.index
        at_once = self.states[index] == "starting" or not self._holds(index)
        return Resize(index, "stop" if at_once else "drain")

    def _worth(self, replica: Replica) -> tuple[int, int, int]:
        """Of those to stop, the one comes first that is worth least."""
        index = replica.index
        if self.states[index] == "starting":
            return 0, -list(self._starts).index(index), 0
        if index in self._failed:
            return 1, 0, -index
        return 2, self._load(replica), -index


_BECOMES = {"start": "starting", "drain": "draining", "keep": "draining", "resume": "ready", "stop": "stopping"}
"""The state of a replica after each change of it."""
