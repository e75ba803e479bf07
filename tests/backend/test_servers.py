"""Devices of a replica as processes of their own: launches side by side, and requests that move, as on one device."""

from __future__ import annotations

import os
import queue
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from backend.devices.servers import DeviceServers  # noqa: E402
from backend.executor import Executor  # noqa: E402
from backend.ranks.workers import Devices  # noqa: E402
from backend.replicas.host import Host  # noqa: E402
from backend.replicas.messages import Delivered, End, Ended, LaunchOrder, Left, Recall  # noqa: E402
from policies.caching import Threshold  # noqa: E402
from tests.backend.family_rank import pipeline_of  # noqa: E402
from tests.waiting import PATIENCE_S  # noqa: E402
from traces.errors import BadInput  # noqa: E402
from traces.request import Request  # noqa: E402

torch.set_num_threads(1)
MANY = 10_000
REQUESTS = [
    Request("a", 0.0, 8, 8, steps=4, seed=1, prompt="a cat"),
    Request("b", 0.0, 12, 4, steps=4, seed=2, prompt="two dogs", images=2),
]
Pixels = dict[str, np.ndarray[Any, Any]]


@pytest.fixture(scope="module")
def executor() -> Iterator[Executor]:
    """One whose two devices are processes."""
    servers = DeviceServers(Devices(2, "flux"), target="tests.backend.family_rank:FamilyServer")
    made = Executor(pipeline_of("flux"), "packed", servers=servers)
    yield made
    made.close()


@pytest.fixture(scope="module")
def expected() -> Pixels:
    """What one device makes."""
    return pictures(Executor(pipeline_of("flux"), "packed"), [(0,)])


def pictures(executor: Executor, places: list[tuple[int, ...]]) -> Pixels:
    """Pixels of requests whose every step is on other devices of the replica."""
    found: Pixels = {}
    stages = [("encode", 1), *[("denoise", 1)] * 4, ("decode", 1)]
    for launch, (stage, steps) in enumerate(stages):
        devices = places[launch % len(places)]
        outcome = executor.execute(
            stage, REQUESTS, steps, deliver=lambda r, x: found.update({r.request_id: x}), devices=devices
        )
        assert outcome.failed is None
    return found


def test_requests_move_between_devices_from_step_to_step(executor: Executor, expected: Pixels) -> None:
    for places in [(1,)], [(0, 1)], [(0,), (1, 0), (1,), (0, 1)]:
        found = pictures(executor, places)
        for name, pixels in expected.items():
            assert np.abs(found[name] - pixels).max() <= 1e-9  # of float32 pixels in 0..1
    assert executor.notes == []
    servers: Any = executor.servers
    assert servers.decoding.divided >= 2


def test_launches_on_other_devices_run_side_by_side(executor: Executor, expected: Pixels) -> None:
    """The one that began first goes on until the other, which is asked for later, has ended."""
    told: queue.SimpleQueue[Any] = queue.SimpleQueue()
    long = Request("long", 0.0, 8, 8, steps=MANY, seed=1, prompt="a cat")
    both = frozenset(["long", "a", "b"])
    host = Host(lambda: executor, tell=told.put)
    thread = threading.Thread(target=host.run, daemon=True)
    thread.start()
    host.take(LaunchOrder(1, (("encode", 1), ("denoise", MANY - 1)), (long,), both, devices=(0,)))
    stages = (("encode", 1), ("denoise", 4), ("decode", 1))
    host.take(LaunchOrder(2, stages, tuple(REQUESTS), both, devices=(1,)))
    delivered, ended = {}, []
    while len(ended) < 2:
        message = told.get(timeout=PATIENCE_S)
        if isinstance(message, Delivered):
            delivered[message.request.request_id] = message.pixels
        elif isinstance(message, Ended):
            ended.append(message)
            host.take(Recall(1))
    assert [message.launch_id for message in ended] == [2, 1]
    outcomes = [message.outcome for message in ended]
    assert [outcome.failed for outcome in outcomes] == [None, None]
    assert 0 < outcomes[1].steps_done < MANY
    assert len(outcomes[0].device_s) == 1
    for name, pixels in expected.items():
        assert np.abs(delivered[name] - pixels).max() <= 1e-9
    host.take(End())
    while not isinstance(told.get(timeout=PATIENCE_S), Left):
        pass
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    assert executor.servers is not None
    assert not executor.servers.running


def test_what_several_devices_cannot_do_is_refused() -> None:
    servers = DeviceServers(Devices(2, "flux"))
    with pytest.raises(BadInput, match="adapters are not put on by all ranks"):
        Executor(pipeline_of("flux"), "packed", adapters={"a": Path("a.safetensors")}, servers=servers)
    with pytest.raises(BadInput, match="no caching policy is asked by several devices"):
        Executor(pipeline_of("flux"), "packed", caching=Threshold(0.1), servers=servers)


def test_a_lost_device_costs_nothing_but_time(executor: Executor, expected: Pixels) -> None:
    """The last test of these devices."""
    servers: Any = executor.servers
    assert executor.execute("encode", REQUESTS).failed is None
    assert executor.execute("denoise", REQUESTS, 2, devices=(1,)).failed is None
    os.kill(servers.processes[1], signal.SIGKILL)
    assert executor.execute("denoise", REQUESTS, 2, devices=(0, 1)).failed is None
    found: Pixels = {}
    executor.execute("decode", REQUESTS, deliver=lambda r, x: found.update({r.request_id: x}))
    for name, pixels in expected.items():
        assert np.abs(found[name] - pixels).max() <= 1e-9
    assert servers.losses == 1
    assert executor.notes == ["1 forwards were computed again: rank 1 died (killed by signal 9)"]
