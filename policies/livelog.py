"""The log of a run while it runs: there is no moment at which a kill loses what had ended.

Every event is appended to ``events.jsonl`` before the next (see `policies.events`); the tables are made of the events
by a thread of their own and take their places whole, twice a second or as seldom as keeps that below two hundredths of
the time. What the tables of a killed run lack is in its events: `recovered` has them as they would have been. From its
first event to its end ``run.json`` says ``unfinished``.
"""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import pandas as pd

from policies.contract import Launch
from policies.events import Event, EventRecord, Ledger, read_events
from policies.record import INTERRUPTED, request_table, step_table
from policies.run_arrays import STATUSES
from policies.runlog import UNFINISHED, write_info, write_table
from traces.errors import BadInput
from traces.lines import append_line, whole_lines
from traces.output import Folder
from traces.request import Request
from traces.trace import Trace

EVENTS = "events.jsonl"
LOADED = "loaded"
"""What ``run.json`` calls the checkpoints that lay on each replica from the beginning, where weights are loaded."""
INITIAL = "initial"
"""What ``run.json`` calls the replicas that were there in the beginning, where some come and go."""
_EVERY_S = 0.5
_SHARE = 0.02

Standalone = Callable[[Request], float]


class LiveLog(EventRecord):
    """Keeps the log of a run from its first event to its end; pass its `add` as the controller's ``on_event``.

    A context manager: left by an error, it keeps what there is, as interrupted, unless no request has ended.

    Args:
        folder: claimed. What an earlier run left in it goes when the first event comes, not before.
        requests: all of the run's trace.
        replicas: replicas of the run.
        standalone: seconds that a request takes alone.
        extrapolates: see `policies.events.EventRecord`.
        info: ``run.json``, but for how the run ended.
        inputs: puts what the run was given into the folder; answers what that adds to ``info``.
        before: the events of the run that this one resumes.
    """

    def __init__(
        self,
        folder: Folder,
        requests: Sequence[Request],
        replicas: int,
        standalone: Standalone,
        extrapolates: Callable[[str, Launch], bool],
        info: dict[str, Any],
        inputs: Callable[[], dict[str, Any]] = dict,
        before: Sequence[Event] = (),
    ) -> None:
        super().__init__(extrapolates)
        self.info = info
        self._folder = folder
        self._requests = requests
        self._standalone = standalone
        self._inputs = inputs
        self._resumes = bool(before)
        self._ledger = Ledger(requests, replicas, info.get(LOADED), info.get(INITIAL))
        for event in before:
            self._ledger.tell(event)
        self._file: IO[bytes] | None = None
        self._told: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._refresh, daemon=True)

    def __enter__(self) -> LiveLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and self._file is not None:
            self.close(interrupted=True, error=str(error))

    @property
    def ended(self) -> int:
        """How many requests have ended for good; of a run that is closed."""
        return len(self._requests) - len(still_open(self._ledger, self._requests))

    def take(self, event: Event, line: str) -> None:
        """See `EventRecord`.

        Raises:
            BadInput: the log cannot be written.
        """
        if self._file is None:
            self._begin()
        assert self._file is not None
        append_line(self._file, line)
        self._told.put(event)

    def settle(self) -> Ledger:
        """The run is over: what came of it."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()
        self._take_in()
        return self._ledger

    def close(self, interrupted: bool, **more: Any) -> None:
        """The run is over: complete its log, with ``more`` in ``run.json``.

        Raises:
            BadInput: it cannot be written; the events are there all the same.
        """
        self.settle()
        if self._file is not None:
            self._file.close()
        if interrupted and not self._resumes and not self.ended:
            if self._file is not None:
                self._folder.clear()
            return
        self._write_tables()
        self.info = {**self.info, **more, "interrupted": interrupted}
        write_info(self._folder, self.info)

    def _begin(self) -> None:
        if not self._resumes:
            self._folder.clear()
            self.info |= self._inputs()
        write_info(self._folder, {**self.info, "interrupted": True, UNFINISHED: True})
        self._write_tables()
        self._file = self._folder.append(EVENTS)
        whole_lines(self._file)
        if self._resumes:
            event = {"now": self._ledger.now, "resumed": self.info["resumed"][-1]["started"]}
            append_line(self._file, json.dumps(event))
            self._told.put(event)
        self._thread.start()

    def _refresh(self) -> None:
        pause_s = _EVERY_S
        while not self._closing.wait(pause_s):
            began_s = time.thread_time()
            try:
                if self._take_in():
                    self._write_tables()
            except BadInput:  # a full disk: the events say so first, or there is room again the next time
                pass
            pause_s = max(_EVERY_S, (time.thread_time() - began_s) / _SHARE)

    def _take_in(self) -> bool:
        found = False
        while not self._told.empty():
            self._ledger.tell(self._told.get())
            found = True
        return found

    def _write_tables(self) -> None:
        requests, steps = _tables(self._ledger, self._requests, self._standalone)
        write_table(self._folder, "steps.parquet", steps)
        write_table(self._folder, "requests.parquet", requests)


def still_open(ledger: Ledger, requests: Sequence[Request]) -> list[Request]:
    """Those of ``requests`` that a run has not come to the end of: never submitted, under way, or cut off."""
    last = {job.request.request_id: job for job in ledger.jobs}
    ended = {
        name
        for name, job in last.items()
        if job.state in STATUSES and not (job.state == "cancelled" and job.reason == INTERRUPTED)
    }
    return [request for request in requests if request.request_id not in ended]


def recovered(folder: Path, info: dict[str, Any], requests: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The tables of an unfinished run as its events have them: (requests, steps).

    Args:
        folder: folder of the run.
        info: its ``run.json``.
        requests: its table of some moment.

    Raises:
        BadInput: the events are not those of this run's trace, or cannot be read.
    """
    trace = Trace.load(folder / "trace.parquet").requests()
    standalone = dict(zip(requests["request_id"], requests["standalone_s"], strict=True))
    ledger = Ledger(trace, info["replicas"], info.get(LOADED), info.get(INITIAL))
    for event in read_events(folder / EVENTS):
        ledger.tell(event)
    return _tables(ledger, trace, lambda request: float(standalone[request.request_id]))


def _tables(ledger: Ledger, requests: Sequence[Request], standalone: Standalone) -> tuple[pd.DataFrame, pd.DataFrame]:
    steps = step_table(ledger, ledger.extrapolates)
    return request_table(ledger, requests, steps, standalone, ledger.now), steps
