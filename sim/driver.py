"""The simulator: a controller driven by SimPy in virtual time.

One event a quantum, not one a step: a launch is a single timeout until its end, and one more until a step boundary when
the controller recalls it. ``per_step=True`` runs the same controller one step a launch; it is the oracle that the
quantum mode is tested against, and both give identical completions because the clock is whole picoseconds (see
`sim.timeline`), unless a client leaves or a slowdown changes in the very picosecond of a step boundary.

At one instant, launches that end are reported first, then requests that arrive, then whatever else happens to them or
to replicas; the controller is asked for work once everything of that instant has been told. SimPy has its events of one
instant in the order they were made, so every event but the last of an instant leaves the asking, and the telling of
arrivals, to those behind it.

Replicas that the controller starts are ready after seconds that are handed in; those that it stops are gone at once. A
failure of a replica that is starting delays it until it is repaired; one that is stopped has nothing that could fail.

In a closed loop (`traces.users`) a request comes when its user has been answered the last one and thought; what has
ended is asked of the controller whenever it is asked for work.

What else may happen, such as a replica that fails, comes as `Happening`s. A change of a replica's slowdown counts from
the next step boundary on, so that it does not depend on how steps are grouped into launches either.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any

import simpy

from policies.controller import Controller
from policies.faults import Happening
from policies.guard import has_own, name_of
from sim.durations import Durations
from sim.growing import growing
from sim.stalled import Stalled
from sim.timeline import PICOSECONDS, Timeline
from traces.request import Request
from traces.users import Users

_NEVER = 10**30
_MOST_HAPPENINGS = 50_000
"""Happenings in which some request has to end, if any waits or runs."""
_MOST_WAKES = 300_000
_MOST_IDLE_WAKES = 20_000
"""How often in a row a policy may ask to be woken and then begin nothing, while something runs and while nothing does:
a policy that looks every millisecond may wait for twenty seconds so."""


class Simulation:
    """One run of a controller over a trace in virtual time. Holds no module state; make one a run.

    Args:
        controller: fresh, nothing submitted.
        world: how long launches take.
        per_step: end every launch at its first step boundary.
        progress: called with the number of requests submitted so far, now and then.
        happenings: in order of time; may go on for ever.
        in_flight: what becomes of the requests on a replica that fails, see `policies.controller.IN_FLIGHT`.
        users: whose requests they are, who ask when they have been answered; None: all come at times of their own.
        start_s: what each replica takes from the order to start it until it is ready, seconds; needed where some come
            and go.
    """

    def __init__(
        self,
        controller: Controller,
        world: Durations,
        per_step: bool = False,
        progress: Callable[[int], None] | None = None,
        happenings: Iterable[Happening] | None = None,
        in_flight: str = "restart",
        start_s: Sequence[float] = (),
        users: Users | None = None,
    ) -> None:
        self._controller = controller
        self._users = users
        self._askers: list[int] = []  # by their times of asking: who asks next
        self._world = world
        self._progress = progress
        self._env = simpy.Environment()
        self._requests: Sequence[Request] = ()
        self._times: list[int] = []  # of the requests' arrivals, picoseconds, and never
        self._arrived = 0
        self._running: dict[int, Timeline] = {}  # by launch id
        self._scales = controller.scales
        self._start_s = start_s
        self._starts: dict[int, int] = {}  # of the replicas that are starting, when they are ready
        self._sleeps = self._scales or has_own(controller.policy, "wakeup")
        self._alarm: int | None = None
        self._wakes = 0  # in a row, with nothing begun or ended since
        self._at_last_wake: tuple[int, ...] = ()
        self._news = False  # something was told that the controller has not been asked about yet
        self._happenings = happenings
        self._in_flight = in_flight
        self._steps = 1 if per_step else None
        self._slowdowns = [1000] * world.replicas
        self._down: set[int] = set()
        self._over = self._env.event()  # all requests have ended, or never will
        self._over.callbacks.append(simpy.core.StopSimulation.callback)

    def run(self, requests: Sequence[Request]) -> float:
        """Simulate until every request has ended; the seconds of virtual time that took.

        Raises:
            Stalled: nothing is left to happen, but requests wait.
            PolicyError: the policy broke its contract.
        """
        env = self._env
        self._requests = requests
        if self._users is None:
            self._times = [round(request.arrival_s * PICOSECONDS) for request in requests]
            first = self._times[0] if requests else 0
            env.timeout(first, first).callbacks.append(self._arrive)
            self._times.append(_NEVER)
        else:
            self._controller.answered = []
            self._times = [_NEVER]
            for thought_s, user in self._users.first():
                self._will_ask(user, round(thought_s * PICOSECONDS), 0)
        if self._happenings is not None:
            env.process(self._happen(self._happenings)).callbacks.append(self._happened)
        with self._controller.audited(), growing():
            env.run()
        if self._controller.open:
            waiting = [job.request.request_id for job in self._controller.jobs if not job.ended]
            if (gave_up := self._controller.gave_up) is not None:
                raise Stalled(f"policy {name_of(gave_up)} wants no replica, and {len(waiting)} requests wait for one")
            if self._down:
                raise Stalled(f"{len(waiting)} requests wait for replicas that are down and are never repaired")
            raise Stalled(
                f"policy {name_of(self._controller.policy)} stalls: {len(waiting)} requests have not ended and "
                f"nothing is running at {env.now / PICOSECONDS:.6g} s; first: {waiting[0]!r}"
            )
        return env.now / PICOSECONDS

    def _arrive(self, timeout: Any) -> None:
        self._news = True
        self._settle(timeout.value)

    def _submit(self, now: int) -> None:
        """Submit the requests whose time has come."""
        if self._users is not None:
            self._ask(self._users, now)
            return
        submit, requests, times, now_s = self._controller.submit, self._requests, self._times, now / PICOSECONDS
        count = self._arrived
        while times[count] <= now:
            submit(requests[count], now_s)
            if self._progress is not None and count % 1024 == 0:
                self._progress(count)
            count += 1
        self._arrived = count
        if count < len(requests):
            self._env.timeout(times[count] - now, times[count]).callbacks.append(self._arrive)
        elif self._progress is not None:
            self._progress(count)

    def _ask(self, users: Users, now: int) -> None:
        """Submit what users ask whose time has come."""
        while self._times[self._arrived] <= now:
            at_s, user = self._times[self._arrived] / PICOSECONDS, self._askers.pop(0)
            self._controller.submit(users.asks(user, self._arrived, at_s), now / PICOSECONDS)
            self._arrived += 1
            if self._progress is not None and self._arrived % 1024 == 0:
                self._progress(self._arrived)

    def _will_ask(self, user: int, at: int, now: int) -> None:
        """A user asks at a time; of several at one time, who thought of it first."""
        place = bisect_right(self._times, at, self._arrived, len(self._times) - 1)
        self._times.insert(place, at)
        self._askers.insert(place - self._arrived, user)
        self._env.timeout(at - now, at).callbacks.append(self._arrive)

    def _think(self, users: Users, now: int) -> None:
        """Let those think who have been answered."""
        answered = self._controller.answered
        while answered:
            if (thinks := users.answered(answered.pop(0))) is not None:
                self._will_ask(thinks[1], now + round(thinks[0] * PICOSECONDS), now)

    def _happen(self, happenings: Iterable[Happening]) -> Generator[simpy.Event, None, None]:
        env, controller = self._env, self._controller
        fruitless, ended, most = 0, 0, max(_MOST_HAPPENINGS, 10 * len(self._slowdowns))
        for happening in happenings:
            before, ended = ended, self._arrived - controller.open
            fruitless = fruitless + 1 if controller.open and ended == before else 0
            if fruitless > most:
                raise Stalled(
                    f"{controller.open} requests wait or run, and none has ended while replicas failed, recovered or "
                    f"changed their slowdown {most:,} times until {env.now / PICOSECONDS:.6g} s: they fail sooner "
                    "than any request is done"
                )
            at = round(happening.at_s * PICOSECONDS)
            if at > env.now:
                self._settle(int(env.now))
                if self._is_stuck():
                    self._over.succeed()
                    return
                yield env.timeout(at - env.now)
                if env.peek() <= env.now:
                    yield env.timeout(0)  # launches that end now come first
            now = int(env.now)
            if self._times[self._arrived] <= now:
                self._submit(now)
            if happening.what == "cancel":
                controller.cancel(happening.request_id, now / PICOSECONDS)
            elif happening.what == "down":
                self._fail(happening.replica, now)
            elif happening.what == "up":
                self._repair(happening.replica, now)
            else:
                self._slowdowns[happening.replica] = happening.slowdown
                for timeline in list(self._running.values()):
                    if timeline.launch.replica == happening.replica:
                        self._recall(timeline, now)
            self._news = True

    def _happened(self, process: simpy.Event) -> None:
        """There are no more happenings; or there was an error, which SimPy raises."""
        if process.ok:
            self._settle(int(self._env.now))

    def _is_stuck(self) -> bool:
        """Whether nothing that can still happen makes the policy run anything."""
        idle = not (self._running or self._down or self._starts or self._news) and (
            self._alarm is None or self._alarm <= self._env.now
        )
        return idle and self._arrived == len(self._requests) and self._controller.open > 0

    def _fail(self, replica: int, now: int) -> None:
        """A replica goes down; a step under way is lost."""
        state = self._controller.state_of(replica)
        if replica in self._down or state == "stopped":
            return
        self._down.add(replica)
        if state == "starting":
            return
        outcomes = {}
        for timeline in list(self._running.values()):
            if timeline.launch.replica == replica:
                del self._running[timeline.launch.launch_id]
                outcomes[timeline.launch.launch_id] = timeline.outcome(now)
                self._world.put_back(timeline, now)
        self._world.lost(replica)
        self._controller.replica_down(replica, now / PICOSECONDS, self._in_flight, outcomes)

    def _repair(self, replica: int, now: int) -> None:
        """A replica works again, if it is still wanted; one that was starting goes on with that."""
        if replica in self._down:
            self._down.discard(replica)
            if self._controller.state_of(replica) != "starting":
                self._controller.replica_up(replica, now / PICOSECONDS)
            elif self._starts[replica] <= now:
                self._now_ready(replica, now)

    def _order(self, replica: int, now: int) -> None:
        """A replica starts."""
        takes = round(self._start_s[replica] * PICOSECONDS)
        self._starts[replica] = now + takes
        self._env.timeout(takes, (replica, now + takes)).callbacks.append(self._started)

    def _started(self, timeout: Any) -> None:
        _, at = timeout.value
        if self._env.peek() <= at:
            self._env.timeout(0, timeout.value).callbacks.append(self._come)  # launches that end now come first
        else:
            self._come(timeout)

    def _come(self, timeout: Any) -> None:
        """A replica is ready, if it was not given up and has not failed meanwhile."""
        replica, at = timeout.value
        if self._starts.get(replica) == at and replica not in self._down:
            if self._times[self._arrived] <= at:
                self._submit(at)
            self._now_ready(replica, at)
        self._settle(at)

    def _now_ready(self, replica: int, now: int) -> None:
        del self._starts[replica]
        self._world.came(replica)
        self._controller.replica_ready(replica, now / PICOSECONDS)
        self._news = True

    def _resize(self, now: int) -> None:
        """Ask which replicas come and go, and for work that follows from it."""
        controller, now_s = self._controller, now / PICOSECONDS
        while resizes := controller.resizes(now_s):
            for replica, change in resizes:
                if change == "start":
                    self._order(replica, now)
                elif change == "stop":
                    self._starts.pop(replica, None)
                    self._down.discard(replica)
                    self._world.lost(replica)
                    controller.replica_stopped(replica, now_s)
            self._launch(now)

    def _launch(self, now: int) -> None:
        for launch in self._controller.launches(now / PICOSECONDS):
            self._run(self._world.timeline(launch, now, self._slowdowns[launch.replica], self._steps), now)

    def _settle(self, now: int) -> None:
        """Ask for work, unless something else is still to be told of this instant."""
        env, controller = self._env, self._controller
        if self._users is not None:
            self._think(self._users, now)
        if not self._news or env.peek() <= now:
            return
        if self._times[self._arrived] <= now:
            self._submit(now)
        self._news = False
        now_s = now / PICOSECONDS
        for launch in controller.launches(now_s):
            self._run(self._world.timeline(launch, now, self._slowdowns[launch.replica], self._steps), now)
        if self._scales:
            self._resize(now)
        for launch_id in controller.recalls(now_s):
            self._recall(self._running[launch_id], now)
        if self._sleeps:
            self._sleep(controller.wakeup(now_s), now)
        if self._users is not None:
            self._think(self._users, now)  # whose requests were dropped
        if not controller.open and self._arrived == len(self._requests):
            self._over.succeed()

    def _run(self, timeline: Timeline, now: int) -> None:
        """Let a launch run to the end of its timeline."""
        self._running[timeline.launch.launch_id] = timeline
        self._env.timeout(timeline.end - now, timeline).callbacks.append(self._ended)

    def _recall(self, timeline: Timeline, now: int) -> None:
        """Have a launch end at the first step boundary after now."""
        earlier = timeline.ended_after(now)
        if earlier is not timeline:
            self._world.put_back(timeline, earlier.end)
            self._run(earlier, now)

    def _ended(self, timeout: Any) -> None:
        timeline: Timeline = timeout.value
        launch_id, now = timeline.launch.launch_id, timeline.end
        if self._running.get(launch_id) is timeline:  # otherwise it has ended earlier
            del self._running[launch_id]
            self._controller.complete(timeline.launch, timeline.outcome(now), now / PICOSECONDS)
            self._news = True
        if self._news:
            self._settle(now)

    def _sleep(self, wakeup_s: float | None, now: int) -> None:
        if wakeup_s is None or len(self._down) == len(self._slowdowns):
            return
        if not self._controller.open and not (self._scales and self._arrived < len(self._requests)):
            return
        at = int(wakeup_s * PICOSECONDS)
        while at / PICOSECONDS < wakeup_s:
            at += 1
        if at <= now or (self._alarm is not None and now < self._alarm <= at):
            return
        self._alarm = at
        self._env.timeout(at - now).callbacks.append(self._wake)

    def _wake(self, _: simpy.Event) -> None:
        controller = self._controller
        at = len(controller.jobs), controller.open, len(controller.launched), len(self._running)
        self._wakes = self._wakes + 1 if at == self._at_last_wake and controller.open else 0
        self._at_last_wake = at
        if self._wakes > (_MOST_WAKES if self._running else _MOST_IDLE_WAKES):
            raise Stalled(
                f"policy {name_of(controller.policy)} stalls: woken {self._wakes:,} times in a row, until "
                f"{self._env.now / PICOSECONDS:.6g} s, it began nothing and nothing ended; {controller.open} wait"
            )
        self._news = True
        self._settle(int(self._env.now))
