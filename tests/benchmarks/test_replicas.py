"""What the benchmark of several replicas says of the machine and of its errors."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip("torch")

from benchmarks import replicas
from benchmarks.replicas import MachineLoad, descendants, error
from tests.waiting import comes_true

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


@LINUX
def test_threads_below_a_process_are_found_and_what_they_waited_is_a_share_of_what_they_ran() -> None:
    load = MachineLoad()
    with subprocess.Popen(["sh", "-c", "sh -c 'while :; do :; done' & echo $!; wait"], stdout=subprocess.PIPE) as shell:
        assert shell.stdout is not None
        busy = int(shell.stdout.readline())
        assert comes_true(lambda: {shell.pid, busy} <= set(descendants(os.getpid())))

        def sampled() -> bool:
            load.sample(os.getpid())
            return load.waiting >= 0.0

        assert comes_true(sampled)
        os.kill(busy, 9)
        shell.kill()


def test_what_misses_its_aim_is_marked() -> None:
    assert error("latency_p50_s", 1.08, 1.0) == "+8.0 %"
    assert error("latency_p95_s", 0.88, 1.0) == "-12.0 % !"
    assert error("slo_attainment", 0.95, 0.93) == "+2.0 points"
    assert error("slo_attainment", 0.95, 0.9) == "+5.0 points !"


def test_what_is_no_number_is_written_as_none() -> None:
    row = {"launcher": "process", "p95": float("inf"), "waiting": float("nan"), "step": 0.5}
    assert replicas._finite(row) == {"launcher": "process", "p95": None, "waiting": None, "step": 0.5}
