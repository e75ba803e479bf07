"""A replay that was begun before, in the folder that it is to be written to."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from policies.events import Event, Ledger, read_events
from policies.livelog import EVENTS, still_open
from policies.runlog import UNFINISHED, read_run
from tilecast.setup import Prepared, what_differs
from traces.errors import BadInput
from traces.request import Request
from traces.trace import Trace


class Begun(NamedTuple):
    """What its log says.

    Attributes:
        info: its ``run.json``.
        events: of it.
        left: the requests that it has not come to the end of.
        now: time of its last event, seconds.
    """

    info: dict[str, Any]
    events: list[Event]
    left: list[Request]
    now: float

    @property
    def interrupted(self) -> bool:
        """Whether it was ended early."""
        return bool(self.info.get("interrupted"))

    @property
    def resumed(self) -> list[Any]:
        """When it was resumed before."""
        return list(self.info.get("resumed", ()))


def begun(folder: Path, prepared: Prepared, resume: bool) -> Begun | None:
    """The replay of a folder that is to be resumed; None: this one begins.

    Raises:
        BadInput: the folder's is interrupted and not to be resumed, or is one of something else.
    """
    if not all((folder / name).is_file() for name in ("run.json", "trace.parquet", "requests.parquet", EVENTS)):
        return None  # or was killed while it began
    info = read_run(folder).info
    if not resume and not info.get("interrupted"):
        return None
    if resume and (difference := what_differs(prepared, folder)):
        raise BadInput(f"{folder} is the log of another replay: {difference}; choose another -o, or leave out --resume")
    events = read_events(folder / EVENTS)
    requests = Trace.load(folder / "trace.parquet").requests()
    ledger = Ledger(requests, info["replicas"])
    for event in events:
        ledger.tell(event)
    left = still_open(ledger, requests)
    ended = len(requests) - len(left)
    if not ended:
        return None
    if not resume:
        raise BadInput(
            f"{folder} holds a replay that was interrupted when {ended} of {len(requests)} requests had ended; "
            "--resume goes on with it; to start over, remove the folder or choose another -o"
        )
    info = {key: value for key, value in info.items() if key not in ("generator", UNFINISHED)}
    return Begun(info, events, left, ledger.now)
