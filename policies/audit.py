"""Whether a policy of a user's has written to what it may only read: noticed in every run that has one.

Jobs, requests and replicas refuse to be written to, but nothing in Python refuses ``object.__setattr__``. So where a
policy is a user's, every job has a twin that no policy sees, and both go through the same transitions. A job that
differs from its twin was written to. That is looked at before each of its transitions; and of all jobs, replicas and
clusters when a run is over, or where it breaks off, as what breaks it may be what was written. Where all policies are
ours there are no twins, and it costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from operator import attrgetter, is_
from typing import Any

from policies import job as transitions
from policies.cluster import ClusterState, set_beside, set_launch, set_up
from policies.contract import Cluster, Launch, Policy, Replica
from policies.guard import broken, is_of, short
from policies.job import Job
from traces.request import Request

_OF_JOBS = tuple(Job.__slots__)
_OF_REPLICAS = tuple(Replica.__slots__)
_OF_CLUSTERS = tuple(Cluster.__slots__)
_OF_REQUESTS = tuple([field.name for field in fields(Request)])
_of_job, _of_request = attrgetter(*_OF_JOBS), attrgetter(*_OF_REQUESTS)
_GONE = object()


@dataclass(frozen=True, slots=True)
class Writer:
    """What writes to the states that policies read; see `policies.job` and `policies.cluster`."""

    start: Callable[[Job, int, float], None] = transitions.start
    set_state: Callable[[Job, str], None] = transitions.set_state
    rest: Callable[[Job, int], None] = transitions.rest
    adapt: Callable[[Sequence[Job], int], int] = transitions.adapt
    finish: Callable[[Job, float], None] = transitions.finish
    end: Callable[[Job, str, str, float], None] = transitions.end
    cancel_soon: Callable[[Job, str], None] = transitions.cancel_soon
    remark: Callable[[Job, str], None] = transitions.remark
    place: Callable[[Job, tuple[int, ...]], None] = transitions.place
    set_launch: Callable[[Replica, Launch | None], None] = set_launch
    set_beside: Callable[[Replica, tuple[Launch, ...]], None] = set_beside
    set_up: Callable[[Replica, bool], None] = set_up


class Audit:
    """The books of one run.

    Args:
        cluster: what the policies see; nothing has happened in it.
        policies: those of a user's.

    Attributes:
        writer: writes to jobs and to their twins.
    """

    def __init__(self, cluster: ClusterState, policies: Sequence[Policy]) -> None:
        self._policies = policies
        self._twins: dict[Job, tuple[Job, tuple[Any, ...]]] = {}  # with the values of the request
        self._replicas = {replica: _values(replica, _OF_REPLICAS) for replica in cluster.view.replicas}
        views = [cluster.view, *[queue.view for queue in dict.fromkeys(cluster.queues)]]
        self._views = [(view, _values(view, _OF_CLUSTERS)) for view in views]
        self.writer = Writer(
            start=self._of_both(transitions.start),
            set_state=self._of_both(transitions.set_state),
            rest=self._of_both(transitions.rest),
            adapt=self._adapt,
            finish=self._of_both(transitions.finish),
            end=self._of_both(transitions.end),
            cancel_soon=self._of_both(transitions.cancel_soon),
            remark=self._of_both(transitions.remark),
            place=self._of_both(transitions.place),
            set_launch=self._of_replica("launch", set_launch),
            set_beside=self._of_replica("beside", set_beside),
            set_up=self._of_replica("up", set_up),
        )

    def submitted(self, job: Job) -> None:
        """A job came: from now on it has a twin."""
        request = job.request
        self._twins[job] = (
            Job(request, job.order, job.recipe, job.earlier, job.adapters_left, job.leg),
            _of_request(request),
        )

    def check(self) -> None:
        """Look at everything.

        Raises:
            PolicyError: something was written to.
        """
        for job, (twin, asked) in self._twins.items():
            try:
                same = type(job) is Job and all(map(is_, _of_job(job), _of_job(twin)))
                same = same and all(map(is_, _of_request(job.request), asked))
            except AttributeError:
                same = False
            if not same:
                self._compare_job(job, twin, asked)
        for replica, expected in self._replicas.items():
            self._compare(f"replica {expected['index']}", replica, expected)
        for view, expected in self._views:
            self._compare("the cluster", view, expected)

    def _of_both(self, transition: Callable[..., None]) -> Callable[..., None]:
        """A transition of a job and of its twin."""

        def run(job: Job, *arguments: Any) -> None:
            twin = self._like_its_twin(job)
            transition(job, *arguments)
            transition(twin, *arguments)

        return run

    def _of_replica(self, name: str, write: Callable[[Replica, Any], None]) -> Callable[[Replica, Any], None]:
        def run(replica: Replica, value: Any) -> None:
            self._compare(f"replica {replica.index}", replica, {name: self._replicas[replica][name]})
            write(replica, value)
            self._replicas[replica][name] = value

        return run

    def _adapt(self, jobs: Sequence[Job], steps: int) -> int:
        transitions.adapt([self._like_its_twin(job) for job in jobs], steps)
        return transitions.adapt(jobs, steps)

    def _like_its_twin(self, job: Job) -> Job:
        """The twin of a job.

        Raises:
            PolicyError: it is another by now.
        """
        twin, asked = self._twins[job]
        try:
            if type(job) is Job and _of_job(job) == _of_job(twin) and _of_request(job.request) == asked:
                return twin
        except Exception:
            pass  # one is gone, or its class has an ``==`` of its own
        self._compare_job(job, twin, asked)
        return twin

    def _compare_job(self, job: Job, twin: Job, asked: tuple[Any, ...]) -> None:
        """PolicyError when a job is another than its twin, or its request another than was asked."""
        what = f"request {dict(zip(_OF_REQUESTS, asked, strict=True))['request_id']!r}"
        self._compare(what, job, {"__class__": Job, **_values(twin, _OF_JOBS)})
        self._compare(what, job.request, dict(zip(_OF_REQUESTS, asked, strict=True)))

    def _compare(self, what: str, seen: object, expected: dict[str, Any]) -> None:
        """PolicyError when an object has other values than expected."""
        for name, value in expected.items():
            found = getattr(seen, name, _GONE)
            if found is not value and not (is_of(found, int) and type(found) is type(value) and found == value):
                others = self._policies[1:]
                now = "is gone" if found is _GONE else f"is {short(found)}"
                said = f"has written to {what}: its {name} {now}, expected {short(value)}"
                raise broken(self._policies[0], f"{said}; policies only read it", *others)


def _values(seen: object, names: Sequence[str]) -> dict[str, Any]:
    return {name: getattr(seen, name) for name in names}
