"""A policy that does not answer is ended: an endless loop in a hook must not hold a run for ever.

A thread looks, twice a second, where the others are. One that is inside the same call of the same policy's hook, or of
what else `policies.guard` knows to run a user's code (its file is read, its answer is looked at), for longer than is
allowed has `policies.guard.TooLong` raised there. Time in which it waits for a processor, on a machine that has others
to serve, does not count where the system tells it (Linux). Nothing is wrapped and nothing counted, so calls cost
nothing; the price is that a loop inside a library written in C, which hears of nothing, is not ended.
"""

from __future__ import annotations

import ctypes
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from policies.contract import Policy
from policies.guard import GUARDED, TooLong, codes_of, frames_of, is_of

CALL_LIMIT_S = 6.0
"""The longest call of a hook, unless a scenario says otherwise; seconds in which it computes or sleeps."""
_EVERY_S = 0.5
_AGAIN_S = 2.0  # the policy may have caught it


@contextmanager
def watched(call_limit_s: float = CALL_LIMIT_S) -> Iterator[None]:
    """End calls of policies that take longer than ``call_limit_s`` while the block runs, in all threads."""
    watch = _Watch(call_limit_s)
    by_signal = threading.current_thread() is threading.main_thread() and hasattr(signal, "SIGALRM")
    before = signal.signal(signal.SIGALRM, watch.ring) if by_signal else None
    watch.start()
    try:
        yield
    finally:
        watch.stopped.set()
        watch.join()
        if by_signal:
            signal.signal(signal.SIGALRM, before)


class _Watch(threading.Thread):
    def __init__(self, call_limit_s: float) -> None:
        super().__init__(daemon=True, name="policies.watchdog")
        self.stopped = threading.Event()
        self._call_limit_s = call_limit_s
        self._main = threading.main_thread().ident
        self._by_signal = threading.current_thread() is threading.main_thread() and hasattr(signal, "SIGALRM")
        # of each thread, the call it is in, for how long, and how long it has waited for a processor
        self._seen: dict[int, tuple[FrameType, float, float]] = {}

    def run(self) -> None:
        looked_s = time.monotonic()
        while not self.stopped.wait(_EVERY_S):
            now_s = time.monotonic()
            passed_s, looked_s = now_s - looked_s, now_s
            self._look(passed_s)
        self._seen.clear()

    def _look(self, passed_s: float) -> None:
        """See where the others are, so many seconds after the last time."""
        seen = {}
        frames = sys._current_frames()
        del frames[threading.get_ident()]  # this very one: it would hold itself, and through the others a whole run
        for thread, innermost in frames.items():
            call = _call(innermost)
            if call is None:
                continue
            queued_s = _queued_s(thread)
            before, for_s, before_s = self._seen.get(thread, (None, 0.0, queued_s))
            for_s = for_s + max(0.0, passed_s - (queued_s - before_s)) if before is call else 0.0
            if for_s >= self._call_limit_s:
                self._end(thread)
                for_s -= _AGAIN_S
            seen[thread] = (call, for_s, queued_s)
        self._seen = seen

    def _end(self, thread: int) -> None:
        if thread == self._main and self._by_signal:  # which also ends a sleep
            signal.pthread_kill(thread, signal.SIGALRM)
        else:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(TooLong))

    def ring(self, number: int, frame: FrameType | None) -> None:
        """In the main thread: unless it has answered meanwhile."""
        if _call(frame) is not None:
            raise TooLong(f"has not answered for {self._call_limit_s:g} s")


def _queued_s(thread: int) -> float:
    """How long a thread has been ready to run and waited for a processor, seconds since it began; 0: nobody knows."""
    native = next((each.native_id for each in threading.enumerate() if each.ident == thread), None)
    try:
        _, queued_ns, _ = Path(f"/proc/self/task/{native}/schedstat").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return 0.0
    return int(queued_ns) / 1e9


def _call(innermost: FrameType | None) -> FrameType | None:
    """The outermost call that a thread is in of a policy's method, or of what runs a user's code."""
    found = None
    for frame in frames_of(innermost):
        code = frame.f_code
        first = frame.f_locals.get(code.co_varnames[0]) if code.co_argcount else None
        if code in GUARDED or (is_of(first, Policy) and any(code is each for each in codes_of(first))):
            found = frame
    return found
