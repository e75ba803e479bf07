"""Calls of policies are ended by the time that they take, not by the time for which the machine serves others."""

from __future__ import annotations

import gc
import time
import weakref

import pytest

from policies import watchdog
from policies.contract import Decision, PolicyError, Replica, SchedulingPolicy
from policies.guard import ask
from policies.watchdog import watched


class Slow(SchedulingPolicy):
    """Computes for some seconds of its own."""

    def __init__(self, computes_s: float) -> None:
        self.computes_s = computes_s

    def plan(self, replica: Replica, now: float) -> Decision | None:
        until = time.thread_time() + self.computes_s
        while time.thread_time() < until:
            pass
        return None


def test_a_call_that_takes_too_long_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "_EVERY_S", 0.02)
    began_s = time.thread_time()
    with watched(0.1), pytest.raises(PolicyError, match=r"plan has not answered for 0\.1 s"):
        ask(Slow(20.0), "plan", None, 0.0)
    assert time.thread_time() - began_s < 10.0  # looked at often, later where the machine is busy


def test_waiting_for_a_processor_is_no_fault_of_a_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "_queued_s", lambda thread: time.monotonic())
    monkeypatch.setattr(watchdog, "_EVERY_S", 0.02)
    with watched(0.1):
        assert ask(Slow(0.3), "plan", None, 0.0) is None


def test_what_has_been_waited_is_known() -> None:
    import threading

    assert watchdog._queued_s(threading.get_ident()) >= 0.0
    assert watchdog._queued_s(-1) == 0.0


def test_what_ran_while_it_looked_is_freed_without_a_search_for_garbage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("policies.watchdog._EVERY_S", 0.001)

    class Held:
        pass

    def run() -> weakref.ref[Held]:
        held = Held()
        with watched():
            time.sleep(0.05)
        return weakref.ref(held)

    gc.disable()
    try:
        assert run()() is None
    finally:
        gc.enable()
