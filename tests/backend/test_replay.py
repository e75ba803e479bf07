"""A real run: real pipeline, real clock, the same controller."""

from __future__ import annotations

import functools
import json
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from backend.executor import Executor  # noqa: E402
from backend.packed import trust  # noqa: E402
from backend.pictures import PictureFolder  # noqa: E402
from backend.replay import Replay, ReplayStalled  # noqa: E402
from backend.replicas.host import nothing  # noqa: E402
from backend.replicas.messages import Report  # noqa: E402
from backend.replicas.replica import ThreadReplica  # noqa: E402
from backend.warming import warm_up  # noqa: E402
from policies.contract import Decision, Replica, SchedulingPolicy  # noqa: E402
from policies.controller import Controller  # noqa: E402
from policies.events import EventRecord, check_parity  # noqa: E402
from policies.job import ENDED  # noqa: E402
from policies.scheduling import EDF, FCFS, SCHEDULERS  # noqa: E402
from tests.backend import tiny_pipelines  # noqa: E402
from tests.policies.costs import FlatCosts  # noqa: E402
from traces.request import Request  # noqa: E402

torch.set_num_threads(1)


def burst(count: int, gap_s: float = 0.02) -> list[Request]:
    return [
        Request(
            f"r{i}",
            gap_s * i,
            16,
            32 if i % 3 == 2 else 16,
            steps=1 + i % 4,
            seed=i,
            prompt="x",
            slo_s=0.2 + i % 5 if i % 2 else None,  # which a machine that stalls may miss
        )
        for i in range(count)
    ]


def _same(executor: Executor) -> Executor:
    return executor


@functools.cache
def executor_of(replica: int) -> Executor:
    """That of a replica; what earlier runs dropped may still be resident."""
    return Executor(tiny_pipelines.sdxl())


def replay(
    policy: SchedulingPolicy, requests: list[Request], prepare: Any = nothing, **options: Any
) -> tuple[Controller, EventRecord, bool]:
    record = EventRecord()
    executors = [executor_of(index) for index in range(options.pop("replicas", 1))]
    for executor in executors:
        executor.keep_only(set())
    controller = Controller(policy, FlatCosts(), len(executors), on_event=record.add)
    replicas = [ThreadReplica(partial(_same, executor), prepare) for executor in executors]
    interrupted = Replay(controller, replicas, **options).run(requests)
    for executor in executors:
        assert set(executor.resident) <= {job.request.request_id for job in controller.jobs if job.ended}
    return controller, record, interrupted


def test_a_replica_is_prepared_on_the_thread_that_serves_it() -> None:
    threads: list[int] = []

    def deliver(request: Request, pixels: np.ndarray[Any, Any]) -> None:
        threads.append(threading.get_ident())

    def prepare(executor: Executor) -> Report:
        threads.append(threading.get_ident())
        return Report()

    replay(FCFS(), burst(1), deliver=deliver, prepare=prepare)
    assert len(threads) == 2
    assert threads[0] == threads[1] != threading.get_ident()


def test_a_replica_that_cannot_be_prepared_ends_the_run() -> None:
    def broken(executor: Executor) -> Report:
        raise RuntimeError("no kernel image")

    with pytest.raises(RuntimeError, match="no kernel image"):
        replay(FCFS(), burst(1), prepare=broken)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_decision_of_a_real_run_is_reproduced_from_its_events(name: str) -> None:
    requests = burst(7)
    controller, record, interrupted = replay(SCHEDULERS[name](), requests, replicas=2 if name == "edf" else 1)
    assert not interrupted
    for job in controller.jobs:
        assert job.state == "finished" or (job.state == "dropped" and job.reason)
        assert (job.steps_done == job.request.steps) == (job.state == "finished")
    assert sum(job.state == "finished" for job in controller.jobs) > 3

    def again(hook: Any) -> Controller:
        return Controller(SCHEDULERS[name](), FlatCosts(), 2 if name == "edf" else 1, on_event=hook)

    parity = check_parity([json.loads(line) for line in record.lines], requests, again)
    assert parity.difference is None
    assert parity.decisions >= len(controller.launched) >= 5


def test_another_policy_is_caught_by_parity() -> None:
    requests = burst(8, gap_s=0.001)
    _, record, _ = replay(SCHEDULERS["same-size-continuous"](), requests)
    parity = check_parity(
        [json.loads(line) for line in record.lines],
        requests,
        lambda hook: Controller(FCFS(), FlatCosts(), 1, on_event=hook),
    )
    assert not parity.same


def test_requests_arrive_in_open_loop_and_times_are_kept() -> None:
    requests = [Request("a", 0.05, 16, 16, 2), Request("b", 0.4, 16, 16, 2)]
    controller, _, _ = replay(FCFS(), requests)
    for job in controller.jobs:
        assert job.first_start_s is not None
        assert job.finish_s is not None
        assert job.request.arrival_s <= job.first_start_s < job.finish_s
    for launch, outcome, end_s in controller.launched:
        assert 0 < outcome.device_s[0] <= end_s - launch.start_s + 0.001


def test_pictures_are_saved_under_safe_names(tmp_path: Path) -> None:
    requests = [Request("../../evil", 0.0, 16, 16, 2, images=2), Request("b", 0.0, 16, 16, 2)]
    pictures = PictureFolder(tmp_path / "images", requests)
    replay(FCFS(), requests, deliver=pictures.save)
    assert sorted(p.name for p in tmp_path.rglob("*.png")) == ["000000-1.png", "000000.png", "000001.png"]


def test_a_clip_is_saved_to_play_and_as_a_strip(tmp_path: Path) -> None:
    request = Request("clip", 0.0, 16, 16, 2, frames=2, images=2)
    PictureFolder(tmp_path, [request]).save(request, np.zeros((2, 2, 16, 16, 3)))
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "000000-1-strip.png",
        "000000-1.webp",
        "000000-strip.png",
        "000000.webp",
    ]


def test_a_bad_request_fails_alone() -> None:
    requests = [Request("bad", 0.0, 17, 16, 2), *burst(3)]
    controller, _, _ = replay(EDF(), requests)
    assert [job.state for job in controller.jobs] == ["failed", "finished", "finished", "finished"]
    assert "divisible" in controller.jobs[0].reason


def test_ctrl_c_ends_cleanly_with_what_there_is() -> None:
    requests = burst(30, gap_s=0.001)

    def interrupt(ended: int) -> None:
        if ended >= 3:
            raise KeyboardInterrupt

    controller, _, interrupted = replay(FCFS(), requests, progress=interrupt)
    assert interrupted
    states = [job.state for job in controller.jobs]
    assert set(states) <= ENDED
    assert states.count("finished") == 3
    reasons = {job.reason for job in controller.jobs if job.state == "cancelled"}
    assert reasons == {"the run was interrupted"}


def test_a_policy_that_leaves_requests_waiting_is_named() -> None:
    class Sleeper(SchedulingPolicy):
        def plan(self, replica: Replica, now: float) -> Decision | None:
            return None

    with pytest.raises(ReplayStalled, match="1 requests wait"):
        replay(Sleeper(), [Request("a", 0.0, 16, 16, 1)])


def test_warm_up_leaves_nothing_behind() -> None:
    executor = Executor(tiny_pipelines.sdxl())
    warm_up([executor], burst(4))
    assert executor.resident == []


def test_what_only_a_mixed_batch_needs_is_done_before_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks are checked against themselves alone when calls first meet at them."""
    checks: list[int] = []
    compare = trust._compare
    monkeypatch.setattr(trust, "_compare", lambda *given: checks.append(1) or compare(*given))
    executor = Executor(tiny_pipelines.sd3(), "packed")
    requests = [replace(request, steps=3) for request in burst(3)]
    warm_up([executor], requests)
    assert checks
    checks.clear()
    executor.execute("encode", requests)
    executor.execute("denoise", requests, 2)
    assert not checks
    assert executor.resident == ["r0", "r1", "r2"]
