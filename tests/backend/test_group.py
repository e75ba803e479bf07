"""Ranks in real processes: what they exchange is exact, and a lost one is named and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import torch.distributed as dist  # noqa: E402

from backend.ranks import launch  # noqa: E402
from backend.ranks.environment import torchrun  # noqa: E402
from backend.ranks.group import OneRank, RankLost, Traffic  # noqa: E402
from backend.ranks.heartbeat import Heartbeat, how_it_ended, open_verdict, status_key  # noqa: E402
from backend.ranks.launch import Ranks, connect, end_children, ranks_from_environment, start_ranks  # noqa: E402
from tests.backend import group_targets  # noqa: E402
from tests.nursery import Nursery  # noqa: E402
from tests.waiting import PATIENCE_S, comes_true  # noqa: E402
from traces.errors import BadInput  # noqa: E402

torch.set_num_threads(1)
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def ranks() -> Iterator[Ranks]:
    """Three ranks that do what they are told."""
    with start_ranks(group_targets.serve, 3, timeout_s=PATIENCE_S) as started:
        yield started


def tell(ranks: Ranks, deed: str, **args: Any) -> None:
    ranks.group.broadcast_object({"deed": deed, "args": args})


def impatient(ranks: Ranks, timeout_s: float) -> None:
    """From now on rank 0 alone takes others for lost so soon: what they need for their work is no matter of speed."""
    group: Any = ranks.group
    group.timeout_s = group._heartbeat.timeout_s = timeout_s


def gone(processes: Sequence[int]) -> bool:
    """Whether these end; one that nobody has waited for yet has ended too."""

    def running(process: int) -> bool:
        try:
            return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
        except OSError:
            return False

    return comes_true(lambda: not any(running(process) for process in processes))


def test_exchanged_pieces_equal_direct_indexing_and_are_counted_to_the_byte(ranks: Ranks) -> None:
    group, seeds = ranks.group, 6
    tell(ranks, "check_pieces", seeds=seeds)
    group.traffic.reset()
    assert all(group_targets.exchange_pieces(group, seed) for seed in range(seeds))
    counted = [group.traffic.sent_bytes, group.traffic.received_bytes, group.traffic.messages]
    for rank, told in enumerate(group.gather_objects({"correct": [], "traffic": counted})):
        drawn = [group_targets.pieces(rank, 3, seed) for seed in range(seeds)]
        sent = [piece for sends, _, _ in drawn for _, piece in sends if len(piece)]
        received = [piece for _, _, pieces in drawn for piece in pieces if len(piece)]
        assert all(told["correct"])
        assert told["traffic"] == [
            sum(piece.numel() * piece.element_size() for piece in sent),
            sum(piece.numel() * piece.element_size() for piece in received),
            len(sent) + len(received),
        ]


def test_totals_are_exact_on_every_rank(ranks: Ranks) -> None:
    tell(ranks, "sum_up")
    total = ranks.group.total(group_targets.numbers(0)).tolist()
    assert total == [[3 * 2**60 + 3, -13], [21, 3]]
    assert ranks.group.gather_objects(total) == [total] * 3


@pytest.mark.parametrize("source", [0, 2])
def test_broadcast_reaches_every_rank(ranks: Ranks, source: int) -> None:
    tell(ranks, "spread", source=source)
    tensor = torch.arange(6.0).reshape(2, 3)
    ranks.group.broadcast(tensor, source)
    said = ranks.group.broadcast_object({"from": 0, "shape": (1, 2)} if source == 0 else None, source)
    expected = [(torch.arange(6.0).reshape(2, 3) * (source + 1)).tolist(), {"from": source, "shape": [1, 2]}]
    assert [tensor.tolist(), said] == expected
    assert ranks.group.gather_objects(expected) == [expected] * 3


def test_empty_lists_and_tensors_cost_nothing(ranks: Ranks) -> None:
    ranks.group.traffic.reset()
    ranks.group.exchange([], [])
    ranks.group.exchange([(1, torch.zeros(0))], [(2, torch.zeros(0))])
    assert (ranks.group.traffic.sent_bytes, ranks.group.traffic.messages) == (0, 0)


@pytest.mark.parametrize(
    ("sends", "reason"),
    [
        ([(0, torch.zeros(2))], "rank 0 of 3 cannot exchange with rank 0"),
        ([(3, torch.zeros(2))], "rank 0 of 3 cannot exchange with rank 3"),
        ([(1, torch.zeros(2, 2).T[:1])], "contiguous"),
        ([(1, torch.zeros(2, device="meta"))], "is on meta"),
    ],
)
def test_impossible_pieces_are_refused_before_any_is_sent(ranks: Ranks, sends: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        ranks.group.exchange(sends, [])


def test_patience_has_no_limit(ranks: Ranks) -> None:
    group: Any = ranks.group
    tell(ranks, "wait", seconds=0.3)
    group.timeout_s = 0.0  # others would not be waited for at all
    group._announce(range(3), patient=True)
    group.timeout_s = PATIENCE_S
    group.total(torch.zeros(1, dtype=torch.int64))


def test_killed_rank_is_named() -> None:
    with start_ranks(group_targets.serve, 3, timeout_s=PATIENCE_S) as ranks:
        tell(ranks, "die", rank=2)
        with pytest.raises(RankLost, match=r"^rank 2 died \(killed by signal 9\)$"):
            ranks.group.barrier()
        with pytest.raises(RankLost, match="rank 2 died"):
            ranks.group.exchange([], [])
    assert gone(list(ranks.processes.values()))
    with pytest.raises(RuntimeError, match="closed"):
        ranks.group.barrier()


def test_hung_rank_is_named_not_the_one_that_waits_for_it() -> None:
    with start_ranks(group_targets.serve, 3, timeout_s=PATIENCE_S) as ranks:
        tell(ranks, "stop", rank=1)
        impatient(ranks, 1.0)
        with pytest.raises(RankLost, match=r"^rank 1 has not answered for 1 s \(no sign of life\)$"):
            group_targets.pass_on(ranks.group)
    assert gone(list(ranks.processes.values()))


def test_failing_rank_says_why() -> None:
    with (
        pytest.raises(RankLost, match=r"^rank 1 failed: BadInput: prompt is empty$"),
        start_ranks(group_targets.Server, 2, {"deeds": ["fail"]}, timeout_s=PATIENCE_S) as ranks,
    ):
        ranks.group.barrier()


def test_stopped_and_unwilling_children_are_ended() -> None:
    children = {
        rank: subprocess.Popen(
            ["sh", "-c", f"{trap} echo ready; exec sleep 600"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for rank, trap in enumerate(("", "trap '' TERM;"), start=1)
    }
    for child in children.values():
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        child.send_signal(signal.SIGSTOP)
    end_children(children)
    assert [child.returncode for child in children.values()] == [-signal.SIGTERM, -signal.SIGKILL]


def test_rank_that_cannot_start_is_named(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RankLost, match=r"^rank 1 failed: ModuleNotFoundError: No module named 'nowhere'"):
        start_ranks("nowhere:nothing", 2)
    assert "Traceback" in capfd.readouterr().err


@pytest.mark.parametrize("stops", ["as it is made", "before it has imported anything"])
def test_rank_that_stops_while_it_starts_is_named(stops: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "_SILENT_S", 1.5)
    if stops != "as it is made":
        begin = launch._start

        def stopped(order: launch.Order) -> Any:
            child, pulse = begin(order)
            child.send_signal(signal.SIGSTOP)
            return child, pulse

        monkeypatch.setattr(launch, "_start", stopped)
    with pytest.raises(RankLost, match=r"^rank 1 has not answered for 1.5 s while it started \(no sign of life\)$"):
        start_ranks(group_targets.StopsItself, 2, timeout_s=1.0)


def test_no_rank_outlives_a_killed_parent_not_even_a_stopped_one() -> None:
    parent = subprocess.run(
        [sys.executable, "-c", "from tests.backend.group_targets import orphan; orphan()"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        check=False,
    )
    processes = [int(process) for process in parent.stdout.split()]
    assert parent.returncode == -signal.SIGKILL
    assert len(processes) == 2
    assert gone(processes)


def test_ranks_that_something_else_started(nursery: Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for name, value in {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("RANK", "1")
    with Path(os.devnull).open() as nothing:
        other = nursery.start_child("tests.backend.group_targets", nothing.fileno(), 1)
    monkeypatch.setenv("RANK", "0")
    with ranks_from_environment(timeout_s=PATIENCE_S) as ranks:
        total = ranks.group.total(group_targets.numbers(0)).tolist()
        assert ranks.group.gather_objects(total) == [total] * 2
        assert total == [[2**61 + 1, -4], [7, 2]]
        assert other.wait(timeout=PATIENCE_S) == 0


def test_without_torchrun_the_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(BadInput, match="not started by torchrun: RANK"):
        ranks_from_environment()


@pytest.fixture
def watches(request: pytest.FixtureRequest) -> Iterator[list[Heartbeat]]:
    """The watches of three ranks that live in one process."""
    timeout_s = getattr(request, "param", PATIENCE_S)
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    open_verdict(store)
    for rank in range(3):
        store.set(status_key(rank), "0 0")
    started = [Heartbeat(connect(store.port), rank, 3, timeout_s=timeout_s) for rank in range(3)]
    yield started
    for watch in started:
        watch.stop()


def test_rank_that_lives_but_does_not_come_is_named(watches: list[Heartbeat]) -> None:
    watches[0].exchange, watches[1].exchange, watches[2].exchange = 8, 8, 7
    assert comes_true(lambda: [watches[rank]._come_to(other) for rank, other in ((0, 1), (0, 2), (1, 2))] == [8, 7, 7])
    verdict = f"rank 2 has not answered for {PATIENCE_S:g} s (it lives, but the others wait for it in exchange 8)"
    assert watches[0].timed_out(1) == verdict
    assert watches[1].timed_out(0) == verdict


@pytest.mark.parametrize("watches", [1.0], indirect=True)
def test_rank_without_a_heartbeat_is_lost_and_all_agree_on_it(watches: list[Heartbeat]) -> None:
    watches[1].stop()
    assert comes_true(lambda: None not in (watches[0].lost, watches[2].lost))
    assert watches[0].lost == watches[2].lost == "rank 1 has not answered for 1 s (no sign of life)"
    assert watches[0].broken("rank 2 closed its connection") == watches[0].lost


def test_rank_that_stood_still_itself_takes_no_other_for_lost(watches: list[Heartbeat]) -> None:
    """It could not see them: on a machine that stalls all stand still."""
    watch, ago = watches[0], 2 * PATIENCE_S
    with watch._lock:
        watch._seen = {peer: seen - ago for peer, seen in watch._seen.items()}
        watch._store_seen -= ago
        before = watch._store_seen
    assert comes_true(lambda: watch._store_seen > before + ago)
    watch._look_at_children()
    assert watch.lost is None
    assert min(watch._seen.values()) > before


def test_how_a_process_ended_is_said() -> None:
    assert how_it_ended(3, 1) == "rank 3 died (exit code 1)"
    assert how_it_ended(3, -11) == "rank 3 died (killed by signal 11)"


def test_alone_needs_nobody() -> None:
    ranks = start_ranks("nowhere:nothing", 1)
    group = ranks.group
    assert isinstance(group, OneRank)
    assert group.total(torch.tensor([3, 4])).tolist() == [3, 4]
    assert group.broadcast_object({"a": (1, 2)}) == {"a": [1, 2]}
    assert group.gather_objects((1,)) == [[1]]
    group.exchange([], [])
    group.barrier()
    assert group.traffic == Traffic()
    with pytest.raises(ValueError, match="cannot exchange with rank 1"):
        group.exchange([(1, torch.zeros(1))], [])
    ranks.close()


@pytest.mark.parametrize("size", [0, -1])
def test_no_ranks_are_refused(size: int) -> None:
    with pytest.raises(BadInput, match="at least one rank"):
        start_ranks("nowhere:nothing", size)


def test_target_that_another_process_cannot_import_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be imported"):
        start_ranks(lambda group: None, 2)


def test_only_whole_numbers_are_summed(ranks: Ranks) -> None:
    for group in (ranks.group, OneRank()):
        with pytest.raises(ValueError, match="only int64 on the CPU"):
            group.total(torch.zeros(2))


@pytest.mark.parametrize(
    ("variables", "wrong"),
    [
        ({"RANK": "zero", "WORLD_SIZE": "2"}, "RANK is 'zero', expected a whole number from 0 on"),
        ({"RANK": "0", "WORLD_SIZE": "0"}, "WORLD_SIZE is '0', expected a whole number from 1 on"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK is 2, expected less than its WORLD_SIZE, which is 2"),
        ({"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1.5"}, "LOCAL_RANK is '1.5', expected a whole number"),
    ],
)
def test_impossible_ranks_are_refused(variables: dict[str, str], wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(BadInput, match=wrong):
        torchrun()


@pytest.mark.parametrize(
    "variables", [{}, {"RANK": "0"}, {"RANK": "", "WORLD_SIZE": ""}, {"RANK": "0", "WORLD_SIZE": "1"}]
)
def test_one_process_is_no_rank(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert torchrun() is None
