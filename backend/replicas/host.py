"""The side of a replica on which its model lies: one thread, which loads the model and carries out orders on it.

Libraries keep by thread which kernels they chose for a shape, so the thread that warms the model up serves it.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import zip_longest
from typing import Any

from backend.replicas.hub import LaunchHub
from backend.replicas.messages import (
    Asked,
    Delivered,
    End,
    Ended,
    LaunchOrder,
    Left,
    Ready,
    Recall,
    Report,
    Runs,
    Told,
    Unready,
)
from policies.contract import Load, Outcome, PolicyError, joined
from traces.request import Request
from traces.stages import STAGES

Make = Callable[[], Any]
"""Makes what carries out launches, in its own process and on its own thread."""
Describe = Callable[[Any], Report]
"""What that says of itself."""


def nothing(_: Any) -> Report:
    """Of something that has nothing to say."""
    return Report()


class Host:
    """Carries out the orders of one replica on the thread that calls `run`, one after another or side by side.

    Args:
        make: makes the executor.
        prepare: warms it up; called once.
        describe: asked again at the end.
        tell: given what the replay must know; to be called from this thread alone.
    """

    def __init__(
        self,
        make: Make,
        prepare: Describe = nothing,
        describe: Describe = nothing,
        tell: Callable[[Told], None] = print,
    ) -> None:
        self._make = make
        self._prepare = prepare
        self._describe = describe
        self._tell = tell
        self._orders: queue.SimpleQueue[LaunchOrder | End] = queue.SimpleQueue()
        self._recalled: set[int] = set()
        self._hub: LaunchHub | None = None
        self._taking = threading.Lock()

    def take(self, message: Asked) -> None:
        """Take a message, on any thread."""
        if isinstance(message, Recall):
            self._recalled.add(message.launch_id)
            return
        self._orders.put(message)
        with self._taking:
            if self._hub is not None:
                self._hub.wake()

    def run(self) -> None:
        """Serve until told to end."""
        try:
            executor = self._make()
            report = self._prepare(executor)
        except Exception as error:
            self._tell(Unready(error))
            return
        self._tell(Ready(report))
        with self._taking:
            self._hub = executor.hub
        if self._hub is not None:
            self._hub.run(self._orders, partial(self._do, executor), lambda order: isinstance(order, LaunchOrder))
        else:
            while isinstance(order := self._orders.get(), LaunchOrder):
                self._do(executor, order)
        report = self._describe(executor)
        executor.close()
        self._tell(Left(report))

    def _do(self, executor: Runs, order: LaunchOrder) -> None:
        outcome: Outcome | Exception
        handed: dict[str, bytes] = {}
        try:
            outcome = self._carry_out(executor, order)
            names = [request.request_id for request in order.requests]
            handed = {name: executor.handed.pop(name) for name in names if name in executor.handed}
        except Exception as error:
            outcome = error
        self._recalled.discard(order.launch_id)
        self._tell(Ended(order.launch_id, outcome, handed))

    def _carry_out(self, executor: Runs, order: LaunchOrder) -> Outcome:
        """The stages of a launch one after another, until its end or a recall."""
        if order.load is not None:
            return _loaded(executor, order.load, order.resident)
        failed: dict[str, str] = {}
        notes: dict[str, str] = {}
        borders: list[float] = []
        busy_s = [0.0]
        done = computed = reused = moved_bytes = 0

        def recalled() -> bool:
            return order.launch_id in self._recalled

        def deliver(request: Any, pixels: Any) -> None:
            self._tell(Delivered(request, pixels))

        try:
            executor.keep_only(set(order.resident))
            degrees = order.degrees or (len(order.devices),) * len(order.stages)
            for (stage, steps), degree in zip(order.stages, degrees, strict=True):
                if done:
                    borders.append(time.perf_counter())
                alive = [request for request in order.requests if request.request_id not in failed]
                started = time.perf_counter()
                if STAGES[stage].receives:
                    failed |= _received(executor, alive, order.handed)
                    moved_bytes = sum([len(handed) for handed in order.handed.values()])
                    busy_s = [sum(both) for both in zip_longest(busy_s, [time.perf_counter() - started], fillvalue=0.0)]
                    done += steps
                    if recalled() or len(failed) == len(order.requests):
                        break
                    continue
                if STAGES[stage].moves:  # what lies of requests is with the first rank, whatever computes
                    done += steps
                    continue
                devices = order.devices[:degree]
                outcome = executor.execute(stage, alive, steps, recalled, deliver, devices)
                devices_s = outcome.device_s or (time.perf_counter() - started,) * len(devices)
                busy_s = [sum(both) for both in zip_longest(busy_s, devices_s, fillvalue=0.0)]
                failed |= outcome.failed or {}
                for name, note in (outcome.notes or {}).items():
                    notes[name] = joined(notes.get(name, ""), note)
                done += outcome.steps_done
                computed += outcome.computed
                reused += outcome.reused
                if outcome.steps_done < steps or recalled() or len(failed) == len(order.requests):
                    break
        except PolicyError:
            raise
        except Exception as error:  # a fault of ours must not lose the requests
            from backend.executor import reason  # which imports torch, as whoever gets here has done

            failed = {request.request_id: reason(error) for request in order.requests}
        ended = time.perf_counter()
        return Outcome(
            steps_done=done,
            failed=failed or None,
            computed=computed,
            reused=reused,
            device_s=tuple(busy_s),
            stage_ends_s=tuple([ended - border for border in borders]),
            notes=notes or None,
            moved_bytes=moved_bytes,
        )


def _received(executor: Runs, requests: Sequence[Request], handed: Mapping[str, bytes]) -> dict[str, str]:
    """Take requests over that another replica has handed on; by their ids, why some cannot go on."""
    from backend.executor import reason  # which imports torch, as whoever gets here has done

    failed: dict[str, str] = {}
    for request in requests:
        if request.request_id in handed:
            try:
                executor.take(request, handed[request.request_id])
            except Exception as error:
                failed[request.request_id] = reason(error)
    return failed


def _loaded(executor: Any, load: Load, resident: frozenset[str]) -> Outcome:
    """Bring weights. What keeps them from coming is no request's fault, and ends the run."""
    started = time.perf_counter()
    executor.keep_only(set(resident))
    executor.load(load.checkpoint, load.evict)
    return Outcome(1, device_s=(time.perf_counter() - started,))
