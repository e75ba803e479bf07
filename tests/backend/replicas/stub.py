"""An executor that computes nothing, for what is to be seen of processes; to be imported by them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from backend.replicas.messages import Report
from policies.contract import Outcome, PolicyError
from traces.request import Request


class Sleeper:
    """Every step takes ``step_s``; a picture's pixels are the process's id."""

    hub = None

    def __init__(self, step_s: float = 0.02) -> None:
        self.step_s = step_s
        self.resident: set[str] = set()
        self.handed: dict[str, bytes] = {}

    def execute(
        self,
        stage: str,
        requests: Sequence[Request],
        steps: int,
        recalled: Callable[[], bool],
        deliver: Callable[[Request, Any], None],
        devices: Sequence[int] = (0,),
    ) -> Outcome:
        done = 0
        for _ in range(steps):
            time.sleep(self.step_s)
            done += 1
            if recalled():
                break
        for request in requests:
            self.resident.add(request.request_id)
            if request.prompt == "break the policy":
                raise PolicyError("policy Mine raised ValueError")
            if request.prompt == "end the process":
                os._exit(7)
            if stage == "decode":
                deliver(request, np.full((1, 4, 4, 3), float(os.getpid())))
        return Outcome(done)

    def keep_only(self, request_ids: set[str]) -> None:
        self.resident &= request_ids

    def close(self) -> None:
        self.resident.clear()


def described(executor: Sleeper) -> Report:
    """Where it runs."""
    return Report(hardware=f"process {os.getpid()}", notes=(f"{executor.step_s:g} s a step",))


def unfit(executor: Sleeper) -> Report:
    """A model that cannot be warmed up."""
    raise RuntimeError("no kernel image")


def without_a_file(executor: Sleeper) -> Report:
    """A model of which a file is missing."""
    raise FileNotFoundError(2, "No such file or directory", "weights.safetensors")


class Loading(Sleeper):
    """One that refuses requests whose weights it lacks, and loads of weights that lie there."""

    def __init__(self, loaded: Sequence[str] = (), step_s: float = 0.02) -> None:
        super().__init__(step_s)
        self.loaded = set(loaded)

    def load(self, checkpoint: str, evict: Sequence[str] = ()) -> None:
        """Bring a checkpoint."""
        for name in evict:
            self.loaded.remove(name)
        if checkpoint in self.loaded:
            raise RuntimeError(f"{checkpoint} lies there already")
        self.loaded.add(checkpoint)

    def execute(self, stage: str, requests: Sequence[Request], *launch: Any) -> Outcome:
        """See `Sleeper`."""
        if lacking := {request.checkpoint for request in requests} - self.loaded:
            raise RuntimeError(f"{lacking} is not loaded")
        return super().execute(stage, requests, *launch)
