"""The real driver: a controller driven by the wall clock and real devices.

Requests are submitted when their time has come, whether or not earlier ones are done (open loop). Replicas are
elsewhere, see `backend.replicas`, and tell this thread what they have done; it alone talks to the controller, so that
its events have one order. A recall reaches a running launch at its next step boundary.

A replica that is lost, because its process was killed or has stopped, or its machine is gone, is a replica that failed:
its requests begin again on another or fail, as the scenario says, and it is started anew. What a scenario has go wrong
is done to the replicas at its times.

Replicas that the controller wants are started, and those that it gives up are told to leave; one that leaves frees what
it holds, and its place can be started again when it has left.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from backend.replicas.messages import (
    Delivered,
    End,
    Ended,
    LaunchOrder,
    Left,
    Lost,
    Ready,
    Recall,
    Report,
    Told,
    Unready,
    order_of,
)
from backend.replicas.replica import ServingReplica
from backend.warming import WarmUps
from policies.contract import Launch, Outcome, PolicyError
from policies.controller import Controller
from policies.faults import Happening
from policies.guard import name_of
from policies.job import Job
from policies.record import INTERRUPTED
from policies.run_arrays import STATUSES
from policies.watchdog import CALL_LIMIT_S
from traces.errors import BadInput
from traces.request import Request
from traces.stages import RECEIVE

_CLOSING_S = 30.0
"""The longest wait for all replicas to free what they hold, at the end of a run."""
_UNSTARTED_S = 2.0
"""And where the run ended while they were being prepared, which has no step boundaries."""
_MOST_LOSSES = 3
"""Of one replica, in a row with no launch carried out between, after which it is not started again."""

Deliver = Callable[[Request, np.ndarray[Any, Any]], None]


class ReplayStalled(PolicyError):  # noqa: N818
    """Nothing runs and nothing will arrive, but requests wait: the policy leaves them waiting."""


class ReplicasLost(BadInput):
    """No replica is left: each was lost several times in a row, or cannot be started again."""


class _Heard(NamedTuple):
    """What a replica told, and when; ``start`` counts how often it was started before."""

    replica: int
    start: int
    told: Told
    now: float


class _Stop(NamedTuple):
    """In the place of what a replica tells: the run is to end."""


class _Place:
    """A replica and what the replay knows of it."""

    def __init__(self, replica: ServingReplica) -> None:
        self.replica = replica
        self.starts = 0
        self.losses = 0  # in a row
        self.failed = False  # and has not come back since
        self.state = "stopped"  # starting, ready, down, stopping; left: it could not be had again
        self.running: dict[int, Launch] = {}  # by their ids, in the order in which they began
        self.cold = False  # it has its model and is not yet warmed up
        self.warm = False  # its warm-up was ordered
        self.warming: list[LaunchOrder] = []  # the orders of that which are left, the first of them under way
        self.report = Report()


class _Idle:
    """Watches a policy while nothing runs and nothing will arrive: waiting for a time is fine, for ever is not."""

    def __init__(self, call_limit_s: float) -> None:
        self._call_limit_s = call_limit_s
        self._at: tuple[int, int] | None = None
        self._since_s = 0.0
        self._times = 0

    def ask(self, controller: Controller, now: float) -> None:
        """The policy was asked for work and for a time, and gave no work.

        Raises:
            ReplayStalled: it has given none for too long, and not because of one time that it waits for.
        """
        at = len(controller.launched), controller.open
        if at != self._at:
            self._at, self._since_s, self._times = at, now, 0
        self._times += 1
        if self._times > 3 and now - self._since_s > self._call_limit_s:
            raise ReplayStalled(
                f"policy {name_of(controller.policy)} stalls: for {self._call_limit_s:g} s nothing runs and nothing "
                f"will arrive, its wakeup only asks for another time; {controller.open} requests wait"
            )


class Replay:
    """One replay of a trace on real replicas.

    Args:
        controller: fresh, nothing submitted.
        replicas: as many as the controller has; not started.
        deliver: given the pixels of each finished request, on a thread of its replica's.
        progress: called with the number of requests that have ended, whenever it changes.
        call_limit_s: so long may a policy ask to be woken time and again, when nothing runs and nothing will arrive.
        happenings: what is to go wrong, in order of time: replicas that go ``down`` and come ``up``, clients that
            leave (``cancel``); may go on for ever.
        in_flight: what becomes of the requests on a replica that fails, ``restart`` or ``fail``.
        warm_ups: warms replicas up that serve some stages each, before time starts and when they come back; None: they
            have done that themselves.

    Attributes:
        warnings: what went wrong with replicas meanwhile, a line each.
        undelivered: why those that were to be delivered again were not, by request id.
    """

    def __init__(
        self,
        controller: Controller,
        replicas: Sequence[ServingReplica],
        deliver: Deliver | None = None,
        progress: Callable[[int], None] | None = None,
        call_limit_s: float = CALL_LIMIT_S,
        happenings: Iterable[Happening] = (),
        in_flight: str = "restart",
        warm_ups: WarmUps | None = None,
    ) -> None:
        self.warnings: list[str] = []
        self.undelivered: dict[str, str] = {}
        self._controller = controller
        self._idle = _Idle(call_limit_s)
        self._heard: queue.SimpleQueue[_Heard | _Stop] = queue.SimpleQueue()
        self._places = [_Place(replica) for replica in replicas]
        self._deliver = deliver
        self._progress = progress
        self._happenings: Iterator[Happening] = iter(happenings)
        self._next: Happening | None = next(self._happenings, None)
        self._in_flight = in_flight
        self._warm_ups = warm_ups
        self._kept: dict[str, bytes] = {}  # what requests were handed on with last, until they have ended
        self._submitted = 0
        self._started = 0.0
        self._over = False

    @property
    def reports(self) -> list[Report]:
        """What each replica last said of itself."""
        return [place.report for place in self._places]

    def _now(self) -> float:
        return time.perf_counter() - self._started

    def stop(self) -> None:
        """End the run early, as Ctrl-C does, but between two events of the controller: for signal handlers.

        Raises:
            KeyboardInterrupt: time has not started, so that there is nothing to end.
        """
        if not self._started:
            raise KeyboardInterrupt
        self._heard.put(_Stop())  # which a signal handler may do

    def run(
        self,
        requests: Sequence[Request],
        start_s: float = 0.0,
        ready: Callable[[], None] = lambda: None,
        again: Sequence[Job] = (),
    ) -> bool:
        """Replay until every request has ended; True when `stop` or Ctrl-C ended it early.

        Then running launches end at their next step boundary and what has not ended is cancelled.

        Args:
            requests: in order of arrival.
            start_s: where on the trace's clock time starts, seconds; what had arrived by then is submitted at once.
            ready: called when all replicas are, before time starts.
            again: what finished in an earlier part of the run and is to be delivered once more, without an event.

        Raises:
            ReplayStalled: see there.
            ReplicasLost: see there; or one was lost before time started.
            PolicyError: the policy broke its contract.
            Exception: a replica could not be started; what it raised.
        """
        try:
            for index in range(len(self._places)):
                if self._controller.state_of(index) == "ready":
                    self._start(index)
            self._await_all()
            ready()
            self._deliver_again(again)
            self._started = time.perf_counter() - start_s
            while self._next is not None and self._next.at_s < start_s:
                self._next = next(self._happenings, None)
            with self._controller.audited():
                self._loop(requests)
            return False
        except KeyboardInterrupt:
            self._give_up()
            return True
        finally:
            self._end()

    def _start(self, index: int) -> None:
        place = self._places[index]
        place.starts += 1
        place.cold, place.warm, place.warming = False, False, []
        place.state, start, deliver = "starting", place.starts, self._deliver

        def hear(told: Told) -> None:
            if not isinstance(told, Delivered):
                self._heard.put(_Heard(index, start, told, self._now()))
            elif deliver is not None and place.state != "starting":
                deliver(told.request, told.pixels)

        place.replica.start(hear, place.failed)

    def _await_all(self) -> None:
        while any(place.state == "starting" for place in self._places):
            heard = self._heard_before_time()
            place = self._places[heard.replica]
            if isinstance(heard.told, Ready):
                self._loaded(heard.replica, heard.told.report)
            elif isinstance(heard.told, Ended):
                self._warmed(place, heard.told)
            elif isinstance(heard.told, Unready):
                raise heard.told.error
            for index, other in enumerate(self._places):
                if other.cold and self._warm(index):
                    other.state = "ready"

    def _loaded(self, index: int, report: Report) -> None:
        """A replica has its model."""
        place = self._places[index]
        place.report, place.cold = report, True

    def _warm(self, index: int) -> bool:
        """Go on with the warm-up of a replica that has its model; whether it is done."""
        place, warm_ups = self._places[index], self._warm_ups
        if place.warming:
            return False
        if warm_ups is not None:
            coming = any(self._places[other].state == "starting" for other in warm_ups.sources(index))
            orders = warm_ups.orders(index, whatever=not coming)
            if orders is None:
                return False
            if orders and not place.warm:
                place.warm, place.warming = True, orders
                place.replica.tell(orders[0])
                return False
        place.cold = False
        return True

    def _warmed(self, place: _Place, told: Ended) -> None:
        """An order of a warm-up has been carried out."""
        assert self._warm_ups is not None
        self._warm_ups.take(told)
        place.warming.pop(0)
        if place.warming:  # one after another: they are of the same requests
            place.replica.tell(place.warming[0])

    def _deliver_again(self, jobs: Sequence[Job]) -> None:
        """Each on the replica where it finished, or if that is not there on another, alone."""
        waiting: dict[int, list[Job]] = {}
        there = [place for place in self._places if place.state == "ready"]
        if not there:
            self.undelivered |= {job.request.request_id: "no replica was there in the beginning" for job in jobs}
            return
        for number, job in enumerate(jobs, start=1):
            waiting[-number] = _legs(job)
            self._go_again(-number, waiting[-number], b"")
        while waiting:
            told = self._heard_before_time().told
            if isinstance(told, Ended):
                legs = waiting.pop(told.launch_id)
                if isinstance(told.outcome, Exception):
                    raise told.outcome
                self.undelivered |= told.outcome.failed or {}
                if len(legs) > 1 and not told.outcome.failed:
                    name = legs[0].request.request_id
                    waiting[told.launch_id] = legs[1:]
                    self._go_again(told.launch_id, legs[1:], told.handed[name])

    def _go_again(self, launch_id: int, legs: Sequence[Job], handed: bytes) -> None:
        """Carry the first of these legs of a request out again, with what the one before has handed on."""
        job, name = legs[0], legs[0].request.request_id
        there = [place for place in self._places if place.state == "ready"]
        own = self._places[job.replica]
        order = LaunchOrder(launch_id, job.recipe, (job.request,), frozenset([name]))
        if handed:
            order = order._replace(stages=((RECEIVE, 1), *job.recipe), handed={name: handed})
        (own if own in there else there[0]).replica.tell(order)

    def _heard_before_time(self) -> _Heard:
        """What a replica tells before time starts.

        Raises:
            ReplicasLost: it is gone.
        """
        heard = self._heard.get()
        assert isinstance(heard, _Heard)  # to stop is an error until then
        if isinstance(heard.told, Lost):
            raise ReplicasLost(f"replica {heard.replica} was lost before the replay began: {heard.told.why}")
        return heard

    def _end(self) -> None:
        """Have all replicas leave, and leave none behind."""
        until = time.monotonic() + (_CLOSING_S if self._started else _UNSTARTED_S)
        for place in self._places:
            if place.starts:
                place.replica.tell(End())
        for place in self._places:
            if place.starts:
                place.replica.join(max(0.0, until - time.monotonic()))
        while not self._heard.empty():
            heard = self._heard.get()
            if isinstance(heard, _Heard) and isinstance(heard.told, Left):
                self._places[heard.replica].report = heard.told.report

    def _loop(self, requests: Sequence[Request]) -> None:
        controller = self._controller
        upcoming = 0
        while upcoming < len(requests) or controller.open:
            now = self._now()
            while upcoming < len(requests) and requests[upcoming].arrival_s <= now:
                controller.submit(requests[upcoming], now)
                upcoming += 1
                self._submitted += 1
            while self._next is not None and self._next.at_s <= now:
                self._happen(self._next, now)
                self._next = next(self._happenings, None)
            self._start_work(now)
            next_s = requests[upcoming].arrival_s if upcoming < len(requests) else None
            wakeup_s = controller.wakeup(now)
            if not self._is_busy() and next_s is None and controller.open:
                self._idle.ask(controller, now)
            self._wait_until(
                next_s,
                wakeup_s if wakeup_s is None or wakeup_s > now else None,
                None if self._next is None else self._next.at_s,
            )

    def _is_busy(self) -> bool:
        """Whether anything runs, or a replica comes or goes."""
        passing = ("starting", "down", "stopping")
        return any(place.running or place.state in passing for place in self._places)

    def _start_work(self, now: float) -> None:
        self._launch(now)
        while resizes := self._controller.resizes(now):
            for index, change in resizes:
                if change == "start":
                    self._places[index].losses = 0
                    self._start(index)
                elif change == "stop":
                    self._stop(index, now)
            self._launch(now)
        self._recall(now)

    def _stop(self, index: int, now: float) -> None:
        """A replica is to leave, which does nothing."""
        place = self._places[index]
        if place.state in ("down", "left"):
            self._stopped(index, now)
        else:
            place.state = "stopping"
            place.replica.tell(End())

    def _stopped(self, index: int, now: float) -> None:
        place = self._places[index]
        place.state, place.failed, place.cold = "stopped", False, False
        self._controller.replica_stopped(index, now)

    def _launch(self, now: float) -> None:
        for launch in self._controller.launches(now):
            place = self._places[launch.replica]
            place.running[launch.launch_id] = launch
            resident = frozenset(self._controller.resident_on(launch.replica))
            place.replica.tell(order_of(launch, resident, self._kept))

    def _recall(self, now: float) -> None:
        for launch_id in self._controller.recalls(now):
            for place in self._places:
                if launch_id in place.running:
                    place.replica.tell(Recall(launch_id))

    def _wait_until(self, *times: float | None) -> None:
        """Sleep until one of the times, or until a replica tells something; then take in all that they have told."""
        due = [t for t in times if t is not None]
        if not due and not self._is_busy():
            if self._controller.open:
                if (gave_up := self._controller.gave_up) is not None:
                    raise ReplayStalled(
                        f"policy {name_of(gave_up)} wants no replica, and {self._controller.open} requests wait for one"
                    )
                raise ReplayStalled(
                    f"policy {name_of(self._controller.policy)} stalls: {self._controller.open} requests wait, nothing "
                    "runs and nothing will arrive"
                )
            return
        try:
            heard = self._heard.get(timeout=max(0.0, min(due) - self._now()) if due else None)
            while True:
                self._take_in(heard)
                heard = self._heard.get_nowait()
        except queue.Empty:
            pass

    def _take_in(self, heard: _Heard | _Stop) -> None:
        if isinstance(heard, _Stop):
            raise KeyboardInterrupt
        place, told = self._places[heard.replica], heard.told
        if heard.start != place.starts or place.state == "left":
            return  # of a process that was killed meanwhile
        if place.state == "stopping":
            if isinstance(told, Left):
                place.report = told.report
            if isinstance(told, Left | Lost | Unready):
                self._stopped(heard.replica, heard.now)
        elif isinstance(told, Ended) and place.cold:
            self._warmed(place, told)
            self._come(heard.now)
        elif isinstance(told, Ended):
            self._take_outcome(place, told, heard.now)
        elif isinstance(told, Ready):
            self._loaded(heard.replica, told.report)
            self._come(heard.now)
        elif isinstance(told, Lost):
            self._lost(heard.replica, told.why, heard.now)
        elif isinstance(told, Unready):
            place.state = "left"
            self._warn(f"replica {heard.replica} could not be started: {told.error}")

    def _come(self, now: float) -> None:
        """Replicas that are warmed up take part from now on."""
        for index, place in enumerate(self._places):
            if place.cold and self._warm(index):
                place.state, place.failed = "ready", False
                come = self._controller.state_of(index) == "starting"
                (self._controller.replica_ready if come else self._controller.replica_up)(index, now)

    def _take_outcome(self, place: _Place, told: Ended, now: float) -> None:
        launch, place.losses = place.running.pop(told.launch_id), 0
        if isinstance(told.outcome, Exception):
            raise told.outcome
        self._kept |= told.handed
        borders = tuple([now - before_s for before_s in told.outcome.stage_ends_s])
        self._controller.complete(launch, told.outcome._replace(stage_ends_s=borders), now)
        for job in launch.jobs:
            if job.state in STATUSES:
                self._kept.pop(job.request.request_id, None)
        if self._progress is not None:
            self._progress(self._submitted - self._controller.open)

    def _lost(self, index: int, why: str, now: float) -> None:
        """A replica is gone that nobody meant to end."""
        place = self._places[index]
        was_up = place.state == "ready"
        place.losses += 1
        place.cold = False
        if was_up:
            self._down(index, now)
        again = place.losses <= _MOST_LOSSES and not self._over
        ends = "" if place.losses <= _MOST_LOSSES else f"; {place.losses} times in a row, it is not started again"
        place.state = "down" if again else "left"
        self._warn(f"replica {index} was lost at {now:.1f} s: {why}{ends}")
        if again:
            self._start(index)

    def _down(self, index: int, now: float) -> None:
        """A replica failed; what it was doing is lost."""
        place = self._places[index]
        running, place.running = place.running, {}
        outcomes = {
            launch_id: Outcome(0, device_s=(now - launch.start_s,) * len(launch.devices))
            for launch_id, launch in running.items()
        }
        place.state, place.failed, place.cold = "down", True, False
        self._controller.replica_down(index, now, self._in_flight, outcomes)

    def _happen(self, happening: Happening, now: float) -> None:
        index = happening.replica
        if happening.what == "cancel":
            self._controller.cancel(happening.request_id, now)
        elif happening.what == "down" and self._places[index].state in ("ready", "starting"):
            place = self._places[index]
            place.starts += 1  # what it still tells is of a replica that is gone
            place.replica.kill()
            if place.state == "ready":
                self._down(index, now)
            place.state, place.cold = "down", False
        elif happening.what == "up" and self._places[index].state == "down":
            self._start(index)

    def _warn(self, warning: str) -> None:
        self.warnings.append(warning)
        if not self._over and all(place.state in ("left", "stopped") for place in self._places):
            raise ReplicasLost(f"no replica is left; the last: {warning}")

    def _give_up(self) -> None:
        now, self._over = self._now(), True
        self._controller.pass_on(now)
        for job in self._controller.jobs:
            if not job.ended:
                self._controller.cancel(job.request.request_id, now, INTERRUPTED)
        self._recall(now)
        while any(place.running for place in self._places):
            heard = self._heard.get()
            if isinstance(heard, _Heard) and isinstance(heard.told, Ended | Lost):
                self._take_in(heard)


def _legs(job: Job) -> list[Job]:
    """The jobs by which a request came to its end: one, or of each pool that serves some of its stages one."""
    legs = [job]
    while (before := legs[0].earlier) is not None:
        if before.state != "passed":
            break
        legs.insert(0, before)
    return legs
