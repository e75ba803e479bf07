"""Replicas that are processes, or Ray actors: the same controller, and what becomes of requests when one is lost."""

from __future__ import annotations

import json
import os
import pickle
import queue
import re
import signal
import threading
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest

pytest.importorskip("torch")

from backend.replay import Replay, ReplicasLost
from backend.replicas import stream, worker
from backend.replicas.host import nothing
from backend.replicas.messages import Alive, End, Ended, LaunchOrder, Ready
from backend.replicas.process import ProcessReplica
from backend.replicas.replica import ServingReplica, ThreadReplica
from backend.replicas.stream import Stream
from cli.failures import foreseen
from policies.contract import Outcome, PolicyError
from policies.controller import Controller
from policies.events import EventRecord, check_parity
from policies.faults import Happening
from policies.pool import Pool
from policies.scaling import PoolView, QueueLength, ScalingPolicy
from policies.scaling.elastic import Elastic
from policies.scheduling import FCFS
from policies.weights import ModelSwapping
from predictors.loading import Weights
from tests.backend.replicas.stub import Loading, Sleeper, described, unfit, without_a_file
from tests.nursery import started_anew
from tests.policies.costs import FlatCosts
from tests.waiting import PATIENCE_S, comes_true
from traces.errors import BadInput
from traces.request import Request


def asked(count: int, gap_s: float = 0.0, steps: int = 3) -> list[Request]:
    return [Request(f"r{index}", gap_s * index, 16, 16, steps) for index in range(count)]


def processes(count: int, **options: Any) -> list[ProcessReplica]:
    return [ProcessReplica(partial(Sleeper, **options), described, described) for _ in range(count)]


class Run:
    """A replay, with what it told."""

    def __init__(self, replicas: list[Any], requests: list[Request], **options: Any) -> None:
        self.record = EventRecord()
        self.requests = requests
        self.replicas: list[ServingReplica] = replicas
        self.made: dict[str, float] = {}
        self.elastic: Elastic | None = options.pop("elastic", None)
        self.controller = self._controller(self.record.add)
        self.replay = Replay(self.controller, replicas, deliver=self._take, **options)

    def _take(self, request: Request, pixels: np.ndarray[Any, Any]) -> None:
        self.made[request.request_id] = float(pixels[0, 0, 0, 0])

    def run(self) -> Run:
        self.replay.run(self.requests)
        return self

    @property
    def finished(self) -> list[str]:
        return [job.request.request_id for job in self.controller.jobs if job.state == "finished"]

    @property
    def same_decisions(self) -> bool:
        events = [json.loads(line) for line in self.record.lines]

        return check_parity(events, self.requests, self._controller).same

    def _controller(self, hook: Any) -> Controller:
        return Controller(FCFS(), [Pool(FlatCosts(), len(self.replicas), elastic=self.elastic)], on_event=hook)


def gone(pid: int) -> bool:
    def ended() -> bool:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        return False

    return comes_true(ended)


def test_each_replica_is_a_process_of_its_own_and_leaves_with_the_run() -> None:
    with started_anew():
        run = Run(processes(2), asked(6)).run()
    pids = {int(pid) for pid in run.made.values()}
    assert sorted(run.finished) == sorted(run.made) == [f"r{index}" for index in range(6)]
    assert len(pids) == 2
    assert os.getpid() not in pids
    assert {report.hardware for report in run.replay.reports} == {f"process {pid}" for pid in pids}
    assert run.replay.reports[0].notes == ("0.02 s a step",)
    assert all(gone(pid) for pid in pids)
    assert run.same_decisions
    for launch, outcome, end_s in run.controller.launched:
        assert all(launch.start_s <= border <= end_s for border in outcome.stage_ends_s)
        assert 0 < outcome.device_s[0] <= end_s - launch.start_s + 1e-3


def test_a_killed_process_is_a_failed_replica_and_comes_back() -> None:
    replicas = processes(2, step_s=0.1)
    requests = asked(8, steps=4)
    killed: list[int] = []

    def kill(ended: int) -> None:
        if ended == 2 and not killed:
            killed.append(replicas[0].pid)
            os.kill(replicas[0].pid, signal.SIGKILL)

    run = Run(replicas, requests, progress=kill).run()
    assert sorted(run.finished) == sorted(request.request_id for request in requests)
    assert len(killed) == 1
    assert [job.state for job in run.controller.jobs].count("lost") == 1  # it began again, elsewhere or there
    [warning] = run.replay.warnings
    assert warning.startswith("replica 0 was lost at ")
    assert "SIGKILL" in warning
    [(index, _, up_s)] = run.controller.outages
    assert index == 0
    assert up_s is None or replicas[0].pid != killed[0]
    assert gone(killed[0])
    assert gone(replicas[0].pid)
    assert run.same_decisions


def test_a_killed_process_has_lost_its_weights_and_loads_them_again() -> None:
    replica = ProcessReplica(partial(Loading, ["a", "b"]), described, described)
    replica.bare = Loading
    names = "abcabcab"
    requests = [Request(f"r{index}", 0.0, 16, 16, 2, checkpoint=name) for index, name in enumerate(names)]
    killed: list[int] = []

    def kill(ended: int) -> None:
        if ended == 2 and not killed:
            killed.append(replica.pid)
            os.kill(replica.pid, signal.SIGKILL)

    run = Run([replica], requests, progress=kill)
    weights, there = Weights(2.0, 1.0, host_gb=8.0), [["a", "b"]]

    def controller(hook: Any) -> Controller:
        return Controller(ModelSwapping(FCFS()), FlatCosts(), 1, on_event=hook, weights=weights, loaded=there)

    run.controller = controller(run.record.add)
    run.replay = Replay(run.controller, [replica], progress=kill)
    run.run()
    assert sorted(run.finished) == sorted(request.request_id for request in requests)
    [(_, down_s, _)] = run.controller.outages
    loads = [launch for launch, _, _ in run.controller.launched if launch.load]
    after = {launch.load.checkpoint: launch.load.expected_s for launch in loads if launch.start_s > down_s}
    assert {"c"} < after.keys()
    assert set(after.values()) == {0.5}  # from disk: what the host kept was the process's own
    events = [json.loads(line) for line in run.record.lines]
    assert check_parity(events, requests, controller).same


def test_a_load_that_fails_ends_the_run_with_its_reason() -> None:
    class Torn(Loading):
        def load(self, checkpoint: str, evict: Any = ()) -> None:
            raise BadInput(f"{checkpoint}/unet is not whole")

    request = Request("r", 0.0, 16, 16, 1, checkpoint="a")
    controller = Controller(ModelSwapping(FCFS()), FlatCosts(), 1, weights=Weights(1.0, 1.0))
    with pytest.raises(BadInput, match="a/unet is not whole"):
        Replay(controller, [ThreadReplica(Torn)]).run([request])


def test_a_process_that_has_stopped_is_lost_ended_and_replaced() -> None:
    replicas = [
        ProcessReplica(partial(Sleeper, step_s=0.1), described, silence_s=silence_s) for silence_s in (2.0, PATIENCE_S)
    ]
    run = Run(replicas, asked(2, steps=1))
    stopped: list[int] = []

    def stop() -> None:
        stopped.append(replicas[0].pid)
        os.kill(replicas[0].pid, signal.SIGSTOP)

    run.replay.run(run.requests, ready=stop)
    assert sorted(run.finished) == ["r0", "r1"]
    assert [job.state for job in run.controller.jobs].count("lost") == 1
    [warning] = run.replay.warnings
    assert re.fullmatch(r"replica 0 was lost at [\d.]+ s: its process gave no sign of life for 2 s", warning)
    assert gone(stopped[0])
    assert run.same_decisions


class Held(Sleeper):
    """Computes until it is told to go on."""

    go_on = threading.Event()

    def execute(self, stage: str, requests: Sequence[Request], steps: int, *launch: Any) -> Outcome:
        assert self.go_on.wait(PATIENCE_S)
        return Outcome(steps)


def test_a_replica_gives_signs_of_life_while_it_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_PULSE_S", 0.01)
    orders: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    told: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    over = threading.Event()

    def send(message: bytes) -> None:
        if over.is_set():
            raise SystemExit  # of the thread that gives the signs
        told.put(message)

    serving = threading.Thread(target=worker.serve, args=(orders.get, send), daemon=True)
    serving.start()
    orders.put(cloudpickle.dumps((Held, nothing, nothing)))
    orders.put(cloudpickle.dumps(LaunchOrder(0, (("denoise", 3),), tuple(asked(1)), frozenset())))
    kinds = [type(pickle.loads(told.get(timeout=PATIENCE_S))) for _ in range(20)]
    assert set(kinds) == {Alive, Ready}
    Held.go_on.set()
    while type(pickle.loads(told.get(timeout=PATIENCE_S))) is not Ended:
        pass
    orders.put(cloudpickle.dumps(End()))
    serving.join(PATIENCE_S)
    over.set()
    assert not serving.is_alive()


def test_who_stood_still_itself_waits_once_more_for_the_other() -> None:
    """The other may have stood still, too: a machine that stalls loses no replica."""

    class Waking:
        """A socket on which nothing comes in the first wait, which ends so many seconds late, and then a message."""

        def __init__(self, late_s: float) -> None:
            self.waits, self.late_s = 0, late_s
            self.left = len(b"alive").to_bytes(8, "big") + b"alive"

        def gettimeout(self) -> float:
            return 0.0

        def recv_into(self, rest: memoryview) -> int:
            self.waits += 1
            if self.waits == 1:
                time.sleep(self.late_s)
                raise TimeoutError
            rest[:], self.left = self.left[: len(rest)], self.left[len(rest) :]
            return len(rest)

    connection: Any = Waking(stream._STOOD_STILL_S + 0.1)
    assert Stream(connection).receive() == b"alive"
    connection = Waking(0.0)
    with pytest.raises(TimeoutError):
        Stream(connection).receive()


def test_a_replica_that_always_dies_is_given_up() -> None:
    request = Request("deadly", 0.0, 16, 16, 1, prompt="end the process")
    run = Run(processes(1, step_s=0.0), [request])
    with pytest.raises(ReplicasLost, match=r"no replica is left.*exit code 7; 4 times in a row"):
        run.run()


def test_one_that_cannot_start_ends_the_run_with_its_reason() -> None:
    replica = ProcessReplica(Sleeper, unfit)
    with pytest.raises(RuntimeError, match="no kernel image"):
        Run([replica], asked(1)).run()
    assert gone(replica.pid)


def test_what_the_machine_lacks_there_is_told_here_as_what_it_is() -> None:
    """And so ends the command with exit code 2, as the loss of all replicas does."""
    with pytest.raises(FileNotFoundError) as lacking:
        Run([ProcessReplica(Sleeper, without_a_file)], asked(1)).run()
    assert foreseen(lacking.value)
    assert lacking.value.filename == "weights.safetensors"
    assert foreseen(ReplicasLost("no replica is left"))


def test_what_a_policy_does_wrong_there_ends_the_run_here() -> None:
    with pytest.raises(PolicyError, match="policy Mine raised ValueError"):
        Run(processes(1), [Request("a", 0.0, 16, 16, 1, prompt="break the policy")]).run()


@pytest.mark.parametrize("in_flight", ["restart", "fail"])
def test_faults_of_a_scenario_are_done_to_the_processes(in_flight: str) -> None:
    replicas = processes(2, step_s=0.1)
    happenings = [
        Happening(0.4, "down", 1),
        Happening(0.55, "cancel", request_id="r5"),
        Happening(0.9, "up", 1),
    ]
    requests = asked(6, gap_s=0.1, steps=3)
    run = Run(replicas, requests, happenings=happenings, in_flight=in_flight).run()
    states = {}
    for job in run.controller.jobs:
        states[job.request.request_id] = job.state
    lost = [job.state for job in run.controller.jobs if job.reason == "its replica failed"]
    assert states["r5"] == "cancelled"
    assert lost == [{"restart": "lost", "fail": "failed"}[in_flight]]
    assert list(states.values()).count("finished") == {"restart": 5, "fail": 4}[in_flight]
    [(index, down_s, up_s)] = run.controller.outages
    assert index == 1
    assert 0.4 <= down_s < (2 * down_s if up_s is None else up_s)
    assert run.replay.warnings == []
    assert run.same_decisions


def test_a_user_policy_that_nobody_can_import_travels_with_its_replica(tmp_path: Path) -> None:
    from policies.load import load_policy

    (tmp_path / "mine.py").write_text(
        "from policies.caching import ComputeAll\n\n\nclass Mine(ComputeAll):\n    def __init__(self, most: int = 3):\n"
        "        self.most = most\n"
    )
    policy = load_policy("caching", f"{tmp_path}/mine.py:Mine", {"most": 5}, tmp_path)

    def made() -> Sleeper:
        return Sleeper(step_s=0.001 * policy.most)

    run = Run([ProcessReplica(made, described)], asked(1)).run()
    assert run.replay.reports[0].hardware != f"process {os.getpid()}"


def test_threads_cannot_be_killed() -> None:
    with pytest.raises(RuntimeError, match="cannot be killed"):
        ThreadReplica(Sleeper).kill()


def test_ray_actors_serve_and_are_replaced_like_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    from backend.replicas.rays import RayCluster, RayReplica

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    requests = asked(8, steps=4)
    killed: list[int] = []
    with RayCluster(2):
        replicas = [RayReplica(partial(Sleeper, step_s=0.1), described, described) for _ in range(2)]

        def kill(ended: int) -> None:
            if ended == 2 and not killed:
                killed.append(int(run.replay.reports[0].hardware.removeprefix("process ")))
                os.kill(killed[0], signal.SIGKILL)

        run = Run(replicas, requests, progress=kill)
        run.run()
        pids = {int(pid) for pid in run.made.values()}
    assert sorted(run.finished) == sorted(request.request_id for request in requests)
    assert len(pids) >= 2
    assert os.getpid() not in pids
    [warning] = run.replay.warnings
    assert "Ray actor died" in warning
    assert run.same_decisions
    assert all(gone(pid) for pid in pids)


def test_replicas_come_and_go_as_the_policy_decides() -> None:
    """One in the beginning, two for the burst, none in the quiet that follows, and one for the last request."""
    requests = [*asked(6), Request("last", 6.0, 16, 16, 3)]
    queue = QueueLength(waiting=2.0, keep_alive_s=0.3)
    run = Run(processes(2), requests, elastic=Elastic(queue, 0, 1)).run()
    assert sorted(run.finished) == sorted(request.request_id for request in requests)
    lifetimes = sorted(run.controller.lifetimes, key=lambda life: (life[1] or -1.0, life[0]))
    first, second, last = lifetimes
    assert first[1:3] == (None, None)
    assert second[0] == 1
    assert second[1] + queue.keep_alive_s <= second[3] < 6.0
    assert second[2] is None or second[1] < second[2]
    assert 6.0 <= last[1] < last[2]
    assert last[3] is None
    assert len({int(pid) for pid in run.made.values()}) >= 2
    assert run.same_decisions
    for launch, _, end_s in run.controller.launched:
        spans = [(life[2] or -1.0, life[3] or 1e9) for life in lifetimes if life[0] == launch.replica]
        assert any(came <= launch.start_s and end_s <= left for came, left in spans)


class OneThenNone(ScalingPolicy):
    def wanted(self, pool: PoolView, now: float) -> int:
        return int(now < 0.1)


def test_a_policy_that_wants_no_replica_is_told_in_a_line() -> None:
    with pytest.raises(PolicyError, match=r"policy OneThenNone wants no replica, and 1 requests wait for one"):
        Run(processes(1), asked(2, gap_s=1.0), elastic=Elastic(OneThenNone(), 0, 1)).run()
