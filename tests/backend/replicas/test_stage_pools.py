"""What one replica hands on to another reaches it, whatever dies meanwhile, and is kept no longer than it is needed."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from backend.replay import Replay
from backend.replicas.process import ProcessReplica
from policies.contract import Outcome
from policies.controller import Controller
from policies.events import EventRecord
from policies.faults import Happening
from policies.pool import Pool
from policies.scheduling import FCFS
from tests.backend.replicas.stub import Sleeper, described
from tests.backend.replicas.test_processes import asked, gone
from tests.policies.costs import FlatCosts
from traces.request import Request


class Passing(Sleeper):
    """One that serves some stages: it hands its process's id on, and may die when it first gets anything."""

    def __init__(self, marker: str = "", serves: Sequence[str] = (), step_s: float = 0.01) -> None:
        super().__init__(step_s)
        self.marker, self.serves = marker, serves
        self.got: dict[str, bytes] = {}

    def take(self, request: Request, handed: bytes) -> None:
        if self.marker and not Path(self.marker).exists():
            Path(self.marker).write_text("")
            os.kill(os.getpid(), signal.SIGKILL)
        self.got[request.request_id] = handed
        self.resident.add(request.request_id)

    def execute(self, stage: str, requests: Sequence[Request], *launch: Any) -> Outcome:
        if stage not in self.serves:
            raise RuntimeError(f"{stage} is served elsewhere")
        for request in requests:
            if stage != "encode" and request.request_id not in self.resident:
                raise RuntimeError(f"{request.request_id} is not here")
        outcome = super().execute(stage, requests, *launch)
        if stage == self.serves[-1] and stage != "decode":
            for request in requests:
                self.handed[request.request_id] = f"{request.request_id} of {os.getpid()}".encode()
                self.resident.remove(request.request_id)
        return outcome


def run_of(requests: list[Request], marker: Path | None = None, **options: Any) -> tuple[Controller, Replay, list[Any]]:
    front, back = ("encode", "denoise"), ("decode",)
    replicas = [
        ProcessReplica(partial(Passing, serves=front), described, described),
        ProcessReplica(partial(Passing, str(marker or ""), back), described, described),
    ]
    pools = [Pool(FlatCosts(), 1, name=name, stages=frozenset(own)) for name, own in (("a", front), ("b", back))]
    record = EventRecord()
    controller = Controller(FCFS(), pools, on_event=record.add)
    replay = Replay(controller, replicas, **options)
    replay.run(requests)
    return controller, replay, replicas


def test_a_replica_that_is_killed_while_it_takes_something_over_gets_it_again(tmp_path: Path) -> None:
    seen: list[int] = []
    controller, replay, replicas = run_of(asked(2), tmp_path / "died", progress=seen.append)
    states = [(job.request.request_id, job.state) for job in controller.jobs]
    assert sorted(state for name, state in states if name == "r0") == ["finished", "lost", "passed"]
    assert [state for name, state in states if name == "r1"] == ["passed", "finished"]
    made = [launch.stage for launch, _, _ in controller.launched if launch.replica == 0]
    assert made == ["encode", "encode"]  # and on to the denoising
    assert [outcome.moved_bytes for launch, outcome, _ in controller.launched if launch.replica == 1][-1] > 0
    [warning] = replay.warnings
    assert warning.startswith("replica 1 was lost at ")
    assert "SIGKILL" in warning
    assert seen[-1] == 2
    assert replay._kept == {}
    assert all(gone(replica.pid) for replica in replicas)


def test_what_a_request_that_is_given_up_was_handed_on_with_is_not_kept() -> None:
    happenings = [Happening(0.01 * at, "cancel", request_id=f"r{at}") for at in range(6)]
    controller, replay, _ = run_of(asked(6, gap_s=0.005), happenings=happenings)
    last = {job.request.request_id: job.state for job in controller.jobs}
    assert set(last.values()) <= {"finished", "cancelled"}
    assert "cancelled" in last.values()
    assert controller.open == 0
    assert replay._kept == {}
