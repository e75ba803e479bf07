"""The real driver: a controller driven by the wall clock and real devices.

Requests are submitted when their time has come, whether or not earlier ones are done (open loop). Each replica has a
thread that warms it up and runs its launches (libraries keep by thread which kernels they chose for a shape); the main
thread alone talks to the controller, so that its events have one order. A recall reaches a running launch at its next
step boundary.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import Any, NamedTuple

import numpy as np

from backend.executor import Executor, reason
from policies.contract import Launch, Outcome, PolicyError, joined
from policies.controller import Controller
from policies.guard import name_of
from policies.record import INTERRUPTED
from policies.watchdog import CALL_LIMIT_S
from traces.request import Request

_CLOSING_S = 30.0
"""The longest wait for all replicas to free what they hold, at the end of a run."""
_UNSTARTED_S = 2.0
"""And where the run ended while they were being prepared, which has no step boundaries."""

Deliver = Callable[[Request, np.ndarray[Any, Any]], None]


class ReplayStalled(PolicyError):  # noqa: N818
    """Nothing runs and nothing will arrive, but requests wait: the policy leaves them waiting."""


class _Done(NamedTuple):
    launch: Launch
    outcome: Outcome | Exception
    now: float


class _Stop(NamedTuple):
    """In the place of a launch that ended: the run is to end."""


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


class _Worker(threading.Thread):
    """Runs the launches of one replica, one after another."""

    def __init__(
        self,
        executor: Executor,
        done: queue.SimpleQueue[_Done | _Stop],
        clock: Callable[[], float],
        deliver: Deliver | None,
        prepare: Callable[[Executor], None] | None,
    ) -> None:
        super().__init__(daemon=True)
        self.ready = threading.Event()
        self.error: Exception | None = None
        self.orders: queue.SimpleQueue[tuple[Launch, set[str]] | None] = queue.SimpleQueue()
        self.recalled: set[int] = set()
        self._executor = executor
        self._done = done
        self._clock = clock
        self._deliver = deliver
        self._prepare = prepare

    def run(self) -> None:
        try:
            if self._prepare is not None:
                self._prepare(self._executor)
        except Exception as error:
            self.error = error
        self.ready.set()
        while (order := self.orders.get()) is not None:
            launch, resident = order
            outcome = self._launch(launch, resident)
            self.recalled.discard(launch.launch_id)
            self._done.put(_Done(launch, outcome, self._clock()))
        self._executor.close()

    def _launch(self, launch: Launch, resident: set[str]) -> Outcome | Exception:
        """What came of a launch; or what a policy has done wrong, or has made of the requests."""
        try:
            return self._stages(launch, resident)
        except Exception as error:
            return error

    def _stages(self, launch: Launch, resident: set[str]) -> Outcome:
        """Run the stages of a launch one after another, until its end or a recall."""
        requests = [job.request for job in launch.jobs]
        failed: dict[str, str] = {}
        notes: dict[str, str] = {}
        borders: list[float] = []
        busy_s = [0.0]
        done = computed = reused = 0

        def recalled() -> bool:
            return launch.launch_id in self.recalled

        try:
            self._executor.keep_only(resident)
            for segment in launch.segments:
                if done:
                    borders.append(self._clock())
                alive = [request for request in requests if request.request_id not in failed]
                started = time.perf_counter()
                outcome = self._executor.execute(segment.stage, alive, segment.steps, recalled, self._deliver)
                devices_s = outcome.device_s or (time.perf_counter() - started,)
                busy_s = [sum(both) for both in zip_longest(busy_s, devices_s, fillvalue=0.0)]
                failed |= outcome.failed or {}
                for name, note in (outcome.notes or {}).items():
                    notes[name] = joined(notes.get(name, ""), note)
                done += outcome.steps_done
                computed += outcome.computed
                reused += outcome.reused
                if outcome.steps_done < segment.steps or recalled() or len(failed) == len(requests):
                    break
        except PolicyError:
            raise
        except Exception as error:  # a fault of ours must not lose the requests
            failed = {request.request_id: reason(error) for request in requests}
        return Outcome(
            steps_done=done,
            failed=failed or None,
            computed=computed,
            reused=reused,
            device_s=tuple(busy_s),
            stage_ends_s=tuple(borders),
            notes=notes or None,
        )


class Replay:
    """One replay of a trace on real executors.

    Args:
        controller: fresh, nothing submitted, with as many replicas as there are executors.
        executors: one a replica.
        deliver: given the pixels of each finished request, on the replica's thread.
        progress: called with the number of requests that have ended, whenever it changes.
        prepare: called with each executor on its replica's thread, before time starts; see `warm_up`.
        call_limit_s: so long may a policy ask to be woken time and again, when nothing runs and nothing will arrive.
    """

    def __init__(
        self,
        controller: Controller,
        executors: Sequence[Executor],
        deliver: Deliver | None = None,
        progress: Callable[[int], None] | None = None,
        prepare: Callable[[Executor], None] | None = None,
        call_limit_s: float = CALL_LIMIT_S,
    ) -> None:
        self._controller = controller
        self._idle = _Idle(call_limit_s)
        self._done: queue.SimpleQueue[_Done | _Stop] = queue.SimpleQueue()
        self._workers = [_Worker(executor, self._done, self._now, deliver, prepare) for executor in executors]
        self._progress = progress
        self._running: dict[int, Launch] = {}
        self._started = 0.0

    def _now(self) -> float:
        return time.perf_counter() - self._started

    def stop(self) -> None:
        """End the run early, as Ctrl-C does, but between two events of the controller: for signal handlers.

        Raises:
            KeyboardInterrupt: time has not started, so that there is nothing to end.
        """
        if not self._started:
            raise KeyboardInterrupt
        self._done.put(_Stop())  # which a signal handler may do

    def run(self, requests: Sequence[Request], start_s: float = 0.0) -> bool:
        """Replay until every request has ended; True when `stop` or Ctrl-C ended it early.

        Then running launches end at their next step boundary and what has not ended is cancelled.

        Args:
            requests: in order of arrival.
            start_s: where on the trace's clock time starts, seconds; what had arrived by then is submitted at once.

        Raises:
            ReplayStalled: see there.
            PolicyError: the policy broke its contract.
        """
        for worker in self._workers:
            worker.start()
        try:
            for worker in self._workers:
                worker.ready.wait()
                if worker.error is not None:
                    raise worker.error
            self._started = time.perf_counter() - start_s
            with self._controller.audited():
                self._loop(requests)
            return False
        except KeyboardInterrupt:
            self._give_up()
            return True
        finally:
            until = time.monotonic() + (_CLOSING_S if self._started else _UNSTARTED_S)
            for worker in self._workers:
                worker.orders.put(None)
            for worker in self._workers:
                worker.join(max(0.0, until - time.monotonic()))

    def _loop(self, requests: Sequence[Request]) -> None:
        controller = self._controller
        upcoming = 0
        while upcoming < len(requests) or controller.open:
            now = self._now()
            while upcoming < len(requests) and requests[upcoming].arrival_s <= now:
                controller.submit(requests[upcoming], now)
                upcoming += 1
            self._start_work(now)
            next_s = requests[upcoming].arrival_s if upcoming < len(requests) else None
            wakeup_s = controller.wakeup(now)
            if not self._running and next_s is None and controller.open:
                self._idle.ask(controller, now)
            self._wait_until(next_s, wakeup_s if wakeup_s is None or wakeup_s > now else None)

    def _start_work(self, now: float) -> None:
        for launch in self._controller.launches(now):
            self._running[launch.launch_id] = launch
            resident = set(self._controller.resident_on(launch.replica))
            self._workers[launch.replica].orders.put((launch, resident))
        for launch_id in self._controller.recalls(now):
            self._workers[self._running[launch_id].replica].recalled.add(launch_id)

    def _wait_until(self, *times: float | None) -> None:
        """Sleep until one of the times, or until a launch ends; then take in all launches that have ended."""
        due = [t for t in times if t is not None]
        if not due and not self._running:
            if self._controller.open:
                raise ReplayStalled(
                    f"policy {name_of(self._controller.policy)} stalls: {self._controller.open} requests wait, nothing "
                    "runs and nothing will arrive"
                )
            return
        try:
            done = self._done.get(timeout=max(0.0, min(due) - self._now()) if due else None)
            while True:
                self._take_in(done)
                done = self._done.get_nowait()
        except queue.Empty:
            pass

    def _take_in(self, done: _Done | _Stop) -> None:
        if isinstance(done, _Stop):
            raise KeyboardInterrupt
        del self._running[done.launch.launch_id]
        if isinstance(done.outcome, Exception):
            raise done.outcome
        self._controller.complete(done.launch, done.outcome, done.now)
        if self._progress is not None:
            self._progress(len(self._controller.jobs) - self._controller.open)

    def _give_up(self) -> None:
        now = self._now()
        for job in self._controller.jobs:
            if not job.ended:
                self._controller.cancel(job.request.request_id, now, INTERRUPTED)
        for launch_id in self._controller.recalls(now):
            self._workers[self._running[launch_id].replica].recalled.add(launch_id)
        while self._running:
            done = self._done.get()
            if isinstance(done, _Done):
                self._take_in(done)


def warm_up(executors: Sequence[Executor], requests: Sequence[Request], steps: int = 2) -> None:
    """Run one short request of every kind in ``requests`` on every executor, outside any log.

    A kind is a size, guidance, a set of adapters, and whether there is a picture to start from.
    """
    kinds = {(request.shape, request.guided, bool(request.image), request.adapter_set): request for request in requests}
    for executor in executors:
        for kind in sorted(kinds):
            like = kinds[kind]
            short = replace(
                like,
                request_id="warm-up",
                steps=min(steps, like.steps),
                images=1,
                strength=None if like.strength is None else 1.0,  # all of its few steps
                schedule_steps=0,
            )
            for stage, count in executor.recipe(short):
                if executor.execute(stage, [short], count).failed:
                    break
