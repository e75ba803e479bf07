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
        least, initial: how many there are at least, and are there in the beginning.
        wakeup_s: when the policy wants to be asked again, seconds; None: never.
    """

    policy: ScalingPolicy

    def __init__(self, pool: Pool, elastic: Elastic, replicas: Sequence[Replica]) -> None:
        self.pool = pool
        self.replicas = replicas
        most = len(replicas)
        self.least = min(elastic.least, most)
        self.initial = self.least if elastic.initial is None else max(self.least, min(elastic.initial, most))
        self.start_s = elastic.start_s
        self.policy = begun(elastic.policy)
        self.wakeup_s: float | None = None


class Scaler:
    """Keeps the states of replicas that come and go.

    Args:
        members: of every pool in which they do.
        queues: what waits for each replica alone, by its index, where requests are bound to replicas.

    Attributes:
        states: of the replicas that come and go, by index.
    """

    def __init__(self, members: Sequence[Members], queues: Mapping[int, Jobs]) -> None:
        self._members = members
        self._queues = queues
        self.states: dict[int, str] = {}
        self._failed: set[int] = set()
        self._kept: set[int] = set()  # of those that drain
        self._starts: dict[int, None] = {}  # those that are starting, in the order in which they were to
        self._replicas: dict[int, Replica] = {}
        for pool in members:
            for place, replica in enumerate(pool.replicas):
                self.states[replica.index] = "ready" if place < pool.initial else "stopped"
                self._replicas[replica.index] = replica
        self._lifetimes = Lifetimes([index for index, state in self.states.items() if state == "ready"])
        self._seen: tuple[int, ...] | None = None
        self._news = True

    @property
    def lifetimes(self) -> list[Lifetime]:
        """Of all replicas that come and go, see `Lifetimes.all`."""
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
        due = self._news or seen != self._seen
        self._seen, self._news = seen, False
        for members in self._members:
            if due or (members.wakeup_s is not None and members.wakeup_s <= now):
                found += self._toward(members, self._wanted(members, *jobs_of(members.pool), now), now)
        return found

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

    def _emptied(self) -> list[Resize]:
        """Those that have finished what they had."""
        found = []
        for index, state in self.states.items():
            if state == "draining" and not self._holds(index):
                if index in self._kept:
                    self._kept.discard(index)
                    self.states[index] = "ready"
                    self._news = True
                    if index not in self._failed:
                        found.append(Resize(index, "resume"))
                else:
                    found.append(self._give_up(index))
        return found

    def _holds(self, index: int) -> bool:
        replica = self._replicas[index]
        return bool(replica.resident) or replica.launch is not None

    def _give_up(self, index: int) -> Resize:
        self.states[index] = "stopping"
        self._failed.discard(index)
        self._kept.discard(index)
        self._starts.pop(index, None)
        return Resize(index, "stop")

    def _wanted(self, pool: Members, waiting: Jobs, unended: Jobs, now: float) -> int:
        states = [self.states[replica.index] for replica in pool.replicas]
        takes = [r for r, state in zip(pool.replicas, states, strict=True) if state == "ready" and r.up]
        kept = len([replica for replica in pool.replicas if replica.index in self._kept])
        one = pool.replicas[0]
        view = PoolView(
            name=pool.pool.name,
            least=pool.least,
            most=len(pool.replicas),
            ready=len(takes),
            starting=states.count("starting") + kept,
            draining=states.count("draining") - kept,
            failed=states.count("ready") - len(takes),
            busy=sum([bool(self._load(replica)) for replica in takes]),
            waiting=MappingProxyType(waiting),  # type: ignore[arg-type]
            jobs=MappingProxyType(unended),  # type: ignore[arg-type]
            start_s=pool.start_s,
            costs=one.costs,
            batch_costs=one.batch_costs,
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

    def _toward(self, pool: Members, wanted: int, now: float) -> list[Resize]:
        """Come as near to a number of replicas as can be."""
        states = self.states
        there = [r for r in pool.replicas if states[r.index] in ("ready", "starting") or r.index in self._kept]
        if len(there) < wanted:
            return self._more(pool, wanted - len(there), now)
        return [self._fewer(replica) for replica in sorted(there, key=self._worth)[: len(there) - wanted]]

    def _worth(self, replica: Replica) -> tuple[int, int, int]:
        """Of those to stop, the one comes first that is worth least."""
        index = replica.index
        if self.states[index] == "starting":
            return 0, -list(self._starts).index(index), 0
        if index in self._failed:
            return 1, 0, -index
        return 2, self._load(replica), -index

    def _more(self, pool: Members, count: int, now: float) -> list[Resize]:
        found = []
        indexes = [replica.index for replica in pool.replicas]
        for index in [i for i in indexes if self.states[i] == "draining" and i not in self._kept][:count]:
            self._kept.add(index)
            found.append(Resize(index, "keep"))
        for index in [i for i in indexes if self.states[i] == "stopped"][: count - len(found)]:
            self.states[index] = "starting"
            self._starts[index] = None
            self._lifetimes.ordered(index, now)
            found.append(Resize(index, "start"))
        self._news |= len(found) < count and "stopping" in self.states.values()
        return found

    def _fewer(self, replica: Replica) -> Resize:
        index = replica.index
        if index in self._kept:
            self._kept.discard(index)
        elif self.states[index] == "starting" or not self._holds(index):
            return self._give_up(index)
        self.states[index] = "draining"
        return Resize(index, "drain")
