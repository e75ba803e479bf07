"""The simulator: a controller driven by SimPy in virtual time.

One event a quantum, not one a step: a launch is a single scheduled end, moved to the next step boundary when the
controller recalls it. ``per_step=True`` runs the same controller one step a launch; it is the oracle that the quantum
mode is tested against, and both give identical completions because the clock is whole picoseconds (see `sim.world`),
unless a client leaves or a pace changes in the very picosecond of a step boundary.

At one instant, launches that end are reported before requests that arrive, and the controller is asked for work once
everything of that instant has been told.

What else may happen, such as a replica that fails, comes as `Happening`s. A change of a replica's pace counts from the
next step boundary on, so that it does not depend on how steps are grouped into launches either.
"""

from __future__ import annotations

import gc
from bisect import bisect_right
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import suppress
from typing import NamedTuple

from simpy.core import EmptySchedule
from simpy.events import NORMAL, URGENT, Event

from policies.contract import Launch, Outcome, PolicyError
from policies.controller import Controller
from policies.guard import has_own, name_of
from sim.clock import Clock, Due, End, Part
from sim.world import PICOSECONDS, World
from traces.request import Request

_NEVER = 10**30
_PATIENCE = 50_000
"""Happenings in which some request has to end, if any waits or runs."""
_MOST_WAKES = 300_000
_MOST_IDLE_WAKES = 20_000
"""How often in a row a policy may ask to be woken and then begin nothing, while something runs and while nothing does:
a policy that looks every millisecond may wait for twenty seconds so."""


class Happening(NamedTuple):
    """Something that happens to the cluster or a client, at a time in seconds.

    ``what`` is ``down`` or ``up`` (``replica`` fails, is repaired), ``pace`` (every step of ``replica`` takes ``pace``
    thousandths of its time from now on), or ``cancel`` (the client of ``request_id`` leaves).
    """

    at_s: float
    what: str
    replica: int = -1
    pace: int = 1000
    request_id: str = ""


class Stalled(PolicyError):  # noqa: N818
    """The simulation has nothing left to do, but requests have not ended: the policy leaves them waiting."""


class Simulation:
    """One run of a controller over a trace in virtual time. Holds no module state; make one a run.

    Args:
        controller: fresh, nothing submitted.
        world: how long launches take.
        per_step: end every launch at its first step boundary.
        progress: called with the number of requests submitted so far, now and then.
        happenings: in order of time; may go on for ever.
        in_flight: what becomes of the requests on a replica that fails, see `policies.controller.IN_FLIGHT`.
    """

    def __init__(
        self,
        controller: Controller,
        world: World,
        per_step: bool = False,
        progress: Callable[[int], None] | None = None,
        happenings: Iterable[Happening] | None = None,
        in_flight: str = "restart",
    ) -> None:
        self._controller = controller
        self._world = world
        self._per_step = per_step
        self._progress = progress
        self._env = Clock(initial_time=0)
        self._requests: Sequence[Request] = ()
        self._times: list[int] = []  # of the requests' arrivals, picoseconds
        self._arrived = 0
        self._ends: dict[int, End] = {}
        self._sleeps = has_own(controller.policy, "wakeup")
        self._alarm: int | None = None
        self._wakes = 0  # in a row, with nothing begun or ended since
        self._at_last_wake: tuple[int, ...] = ()
        self._news = False  # something was told that the controller has not been asked about yet
        self._happenings = happenings
        self._in_flight = in_flight
        self._paces = [1000] * len(world.clocks)
        self._down: set[int] = set()
        self._all_ended: Event | None = None if happenings is None else self._env.event()
        self._all_arrived = False
        self._asked_again = False

    def run(self, requests: Sequence[Request]) -> float:
        """Simulate until every request has ended; the seconds of virtual time that took.

        Raises:
            Stalled: nothing is left to happen, but requests wait.
            PolicyError: the policy broke its contract.
        """
        env = self._env
        self._requests = requests
        self._times = [round(request.arrival_s * PICOSECONDS) for request in requests]
        env.schedule(Due(env, self._arrive), URGENT, self._times[0] if requests else 0)  # before whatever else happens
        self._times.append(_NEVER)
        if self._happenings is not None:
            env.process(self._happen(self._happenings))
        collecting = gc.isenabled()
        gc.disable()  # the log grows and nothing in it is garbage: collections would only walk it again and again
        try:
            if self._all_ended is None:
                env.run_callbacks()
            else:
                self._run_until(self._all_ended)
        finally:
            if collecting:
                gc.enable()
        if self._controller.open:
            waiting = [job.request.request_id for job in self._controller.jobs if not job.ended]
            if self._down:
                raise Stalled(f"{len(waiting)} requests wait for replicas that are down and are never repaired")
            raise Stalled(
                f"policy {name_of(self._controller.policy)} stalls: {len(waiting)} requests have not ended and "
                f"nothing is running at {env.now / PICOSECONDS:.6g} s; first: {waiting[0]!r}"
            )
        return env.now / PICOSECONDS

    def _run_until(self, done: Event) -> None:
        step = self._env.step
        with suppress(EmptySchedule):
            while not done.triggered:
                step()

    def _arrive(self, arrival: Event) -> None:
        """Submit the requests whose time has come; the same event comes again for the next."""
        env, submit, requests, times = self._env, self._controller.submit, self._requests, self._times
        now, count = int(env.now), self._arrived
        while times[count] <= now:
            submit(requests[count], now / PICOSECONDS)
            if self._progress is not None and count % 1024 == 0:
                self._progress(count)
            count += 1
        self._news = True
        self._arrived = count
        self._settle(now)
        if count < len(requests):
            arrival.callbacks = [self._arrive]
            env.schedule(arrival, NORMAL, times[count] - now)
            return
        if self._progress is not None:
            self._progress(count)
        self._all_arrived = True
        self._end_if_done()

    def _happen(self, happenings: Iterable[Happening]) -> Generator[Event, None, None]:
        env, controller = self._env, self._controller
        fruitless, ended, patience = 0, 0, max(_PATIENCE, 10 * len(self._paces))
        for happening in happenings:
            before, ended = ended, self._arrived - controller.open
            fruitless = fruitless + 1 if controller.open and ended == before else 0
            if fruitless > patience:
                raise Stalled(
                    f"{controller.open} requests wait or run, and none has ended while replicas failed, recovered or "
                    f"changed their pace {patience:,} times until {env.now / PICOSECONDS:.6g} s: they fail sooner than "
                    "any request is done"
                )
            at = round(happening.at_s * PICOSECONDS)
            if at > env.now:
                self._settle(int(env.now))
                if self._is_stuck():
                    return
                yield env.timeout(at - env.now)
            now = int(env.now)
            if happening.what == "cancel":
                controller.cancel(happening.request_id, now / PICOSECONDS)
            elif happening.what == "down":
                self._fail(happening.replica, now)
            elif happening.what == "up":
                self._down.discard(happening.replica)
                controller.replica_up(happening.replica, now / PICOSECONDS)
            else:
                self._paces[happening.replica] = happening.pace
                for end in list(self._ends.values()):
                    if end.launch.replica == happening.replica:
                        self._recall(end, now)
            self._news = True
            self._end_if_done()
        self._settle(int(env.now))

    def _is_stuck(self) -> bool:
        """Whether nothing that can still happen makes the policy run anything."""
        env = self._env
        idle = not (self._ends or self._down or self._news) and (self._alarm is None or self._alarm <= env.now)
        stuck = self._all_arrived and idle and self._controller.open > 0
        if stuck and self._all_ended is not None:
            self._all_ended.succeed()
        return stuck

    def _fail(self, replica: int, now: int) -> None:
        """A replica goes down; a step under way is lost."""
        if replica in self._down:
            return
        self._down.add(replica)
        outcome = None
        for launch_id, end in list(self._ends.items()):
            if end.launch.replica == replica:
                del self._ends[launch_id]
                outcome = self._done_by(end, now)
        self._controller.replica_down(replica, now / PICOSECONDS, self._in_flight, outcome)

    def _end_if_done(self) -> None:
        done = self._all_ended
        if done is not None and self._all_arrived and not self._controller.open and not done.triggered:
            done.succeed()

    def _settle(self, now: int) -> None:
        """Ask for work, unless something else is still to be told of this instant."""
        if not self._news:
            return
        env, controller = self._env, self._controller
        if env.peek() <= now:
            if self._all_ended is not None and not self._asked_again:
                self._asked_again = True  # what is still to come may be no more than the end of a process
                env.timeout(0).callbacks.append(self._settle_again)
            return
        self._news = False
        now_s = now / PICOSECONDS
        for launch in controller.launches(now_s):
            self._start(launch, now)
        for launch_id in controller.recalls(now_s):
            self._recall(self._ends[launch_id], now)
        if self._sleeps:
            self._sleep(controller.wakeup(now_s), now)

    def _settle_again(self, _: Event) -> None:
        self._asked_again = False
        self._settle(int(self._env.now))

    def _start(self, launch: Launch, now: int) -> None:
        launch_id, replica, _, segments, steps_ahead, composition, guided, _, load = launch
        world, per_step = self._world, self._per_step
        step_ns = world.step_ns(composition, guided) if load is None else world.load_ns(launch)
        pace, clocks, uneven = self._paces[replica], world.clocks[replica], world.uneven
        parts: list[Part] = []
        delay = 0
        for stage, steps, _ in segments:
            if per_step:
                steps = 1
            clock = clocks[stage]
            if stage in uneven:
                ns, borders = 0, world.borders(launch, stage, steps)
                if pace != 1000:
                    borders = [border * pace // 1000 for border in borders]
                whole = borders[-1]
            else:
                ns, borders = step_ns[stage], []
                if pace != 1000:
                    ns = max(1, ns * pace // 1000)
                whole = ns * clock.sum_to(steps)
            parts.append((stage, steps, whole, ns, clock, borders))
            delay += whole
            if per_step:
                break
        steps = 1 if per_step else steps_ahead
        self._ends[launch_id] = end = End(self._env, self._ended, launch, now, parts, steps)
        self._env.schedule(end, URGENT, delay)

    def _recall(self, end: End, now: int) -> None:
        """Move the end of a launch to the first step boundary after now."""
        before, done = end.start, 0
        for index, (stage, steps, whole, ns, clock, borders) in enumerate(end.parts):
            if before + whole > now:
                since = now - before
                more = bisect_right(borders, since) + 1 if borders else clock.steps_beyond(since // ns)
                if done + more < end.steps:
                    reached = borders[more - 1] if borders else ns * clock.sum_to(more)
                    delay = before + reached - now
                    parts = [*end.parts[:index], (stage, more, reached, ns, clock, borders[:more])]
                    earlier = End(self._env, self._ended, end.launch, end.start, parts, done + more)
                    self._ends[end.launch.launch_id] = earlier
                    self._env.schedule(earlier, URGENT, delay)
                return
            before += whole
            done += steps

    def _ended(self, end: End) -> None:
        launch, now = end.launch, int(self._env.now)
        launch_id = launch.launch_id
        if self._ends.get(launch_id) is end:  # otherwise a recall has moved it
            del self._ends[launch_id]
            self._controller.complete(launch, self._done_by(end, now), now / PICOSECONDS)
            self._news = True
        self._settle(now)
        if self._all_ended is not None:
            self._end_if_done()

    def _done_by(self, end: End, now: int) -> Outcome:
        """What a launch has done by now. A step under way is not done, but its devices were busy with it."""
        at, done, refined, refine_ps = end.start, 0, 0, 0
        borders = []
        for stage, steps, whole, ns, clock, ends in end.parts:
            borders.append(at / PICOSECONDS)
            until = at + whole
            if until > now:
                since = now - at
                reached = bisect_right(ends, since) if ends else clock.steps_beyond(since // ns) - 1
                clock.done += reached
                done += reached
                if stage == "refine":
                    refined, refine_ps = reached + 1, since
                at = now
                break
            clock.done += steps
            done += steps
            at = until
            if stage == "refine":
                refined, refine_ps = steps, whole
        others_s = (at - end.start - refine_ps) / PICOSECONDS
        computed, reused, device_s = self._world.work(end.launch, done, refined, refine_ps / PICOSECONDS, others_s)
        return Outcome(done, None, computed, reused, device_s, tuple(borders[1:]))

    def _sleep(self, wakeup_s: float | None, now: int) -> None:
        if wakeup_s is None or not self._controller.open or len(self._down) == len(self._paces):
            return
        at = int(wakeup_s * PICOSECONDS)
        while at / PICOSECONDS < wakeup_s:
            at += 1
        if at <= now or (self._alarm is not None and now < self._alarm <= at):
            return
        self._alarm = at
        self._env.timeout(at - now).callbacks.append(self._wake)

    def _wake(self, _: Event) -> None:
        controller = self._controller
        at = len(controller.jobs), controller.open, len(controller.launched), len(self._ends)
        self._wakes = self._wakes + 1 if at == self._at_last_wake else 0
        self._at_last_wake = at
        if self._wakes > (_MOST_WAKES if self._ends else _MOST_IDLE_WAKES):
            raise Stalled(
                f"policy {name_of(controller.policy)} stalls: woken {self._wakes:,} times in a row, until "
                f"{self._env.now / PICOSECONDS:.6g} s, it began nothing and nothing ended; {controller.open} wait"
            )
        self._news = True
        self._settle(int(self._env.now))
