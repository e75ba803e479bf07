"""The event record of a run, and the parity check that feeds it back.

A real run writes everything its controller was told and everything it answered, one JSON object a line. Feeding
the same events to the same policy in a fresh controller must reproduce every decision; `check_parity` does that
and reports the first difference. This is what "the same policy objects run unchanged" means, tested. A predictor
that learns while running decides too, so the end of a launch is recorded with the borders between its stages: what
the predictor observed follows from them, to the last bit.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from policies.contract import Launch, Outcome
from policies.controller import Controller
from traces.errors import BadInput
from traces.request import Request
from traces.text import read_text


class EventRecord:
    """Collects a controller's events as JSON lines; pass its `add` as the controller's ``on_event``."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, verb: str, payload: Any, now: float) -> None:
        """Take one event."""
        if verb == "launches":
            payload = [_spell_launch(launch) for launch in payload]
        elif verb == "complete":
            launch_id, outcome = payload
            payload = {"launch": launch_id, "steps": outcome.steps_done, "failed": outcome.failed}
            if outcome.borders_s:
                payload["borders"] = outcome.borders_s
        elif verb == "down":
            replica, in_flight, outcome = payload
            payload = {"replica": replica, "in_flight": in_flight}
            if outcome is not None:
                payload["steps"] = outcome.steps_done
        self.lines.append(json.dumps({"now": now, verb: payload}))


def _spell_launch(launch: Launch) -> list[Any]:
    if launch.load is not None:
        return [launch.launch_id, launch.replica, launch.load.checkpoint, list(launch.load.evict)]
    names = [job.request.request_id for job in launch.jobs]
    return [launch.launch_id, launch.replica, launch.stage, launch.steps, names]


@dataclass(frozen=True)
class Parity:
    """Result of a parity check: decisions compared, and the first that differed (None: all equal)."""

    decisions: int
    difference: str | None

    @property
    def same(self) -> bool:
        """Whether every decision was reproduced."""
        return self.difference is None


def read_events(path: Path) -> list[dict[str, Any]]:
    """Read ``events.jsonl``; BadInput names the line that is no event."""
    events = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        try:
            event = json.loads(line)
            float(event["now"])
        except (ValueError, KeyError, TypeError) as error:
            raise BadInput(f"{path}, line {number}: not an event of a run log") from error
        events.append(event)
    return events


def check_parity(
    events: Iterable[dict[str, Any]],
    requests: Sequence[Request],
    make_controller: Callable[[Callable[[str, Any, float], None]], Controller],
) -> Parity:
    """Feed recorded events to a fresh controller and compare every answer with the recorded one.

    ``make_controller`` is given the ``on_event`` hook and builds the controller as the run did: same policy, same
    predictor (fresh, if it learns), same replicas.
    """
    answers = EventRecord()
    controller = make_controller(answers.add)
    by_id = {request.request_id: request for request in requests}
    running: dict[int, Launch] = {}
    decisions = 0
    for event in events:
        now = event["now"]
        if "submit" in event:
            controller.submit(by_id[event["submit"]], now)
        elif "cancel" in event:
            controller.cancel(event["cancel"], now)
        elif "complete" in event:
            done = event["complete"]
            launch = running.pop(done["launch"])
            outcome = Outcome(done["steps"], done["failed"], borders_s=tuple(done.get("borders", ())))
            controller.complete(launch, outcome, now)
        elif "down" in event:
            down = event["down"]
            lost = Outcome(down["steps"]) if "steps" in down else None
            running = {key: launch for key, launch in running.items() if launch.replica != down["replica"]}
            controller.replica_down(down["replica"], now, down["in_flight"], lost)
        elif "up" in event:
            controller.replica_up(event["up"], now)
        else:
            verb = "launches" if "launches" in event else "recalls"
            if verb == "launches":
                started = controller.launches(now)
                running.update((launch.launch_id, launch) for launch in started)
                answer: Any = [_spell_launch(launch) for launch in started]
            else:
                answer = controller.recalls(now)
            decisions += 1
            if answer != event[verb]:
                return Parity(decisions, f"at {now} s, {verb}: recorded {event[verb]}, now {answer}")
    return Parity(decisions, None)
