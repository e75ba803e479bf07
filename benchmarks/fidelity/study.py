"""What a fidelity study does to the machine: it measures and runs. What is there already is not done again."""

from __future__ import annotations

import inspect
import json
import math
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.outputs import BENCHMARK
from examples.demo import GUIDANCE_SCALE, HERE, SIZES
from policies.runlog import read_run
from policies.scheduling import SCHEDULERS
from predictors.latency_model import LatencyModel
from predictors.profile import Profile
from traces.errors import BadInput
from traces.files import write_json
from traces.request import Request
from traces.sizes import format_size, parse_sizes
from traces.trace import Trace

SCENARIO = HERE / "tiny_image.toml"
MODEL = "tiny-image"
MAX_BATCH = 4
"""Images in the largest batch, of what is measured and of what policies may run: nothing is extrapolated."""
CACHE_PATCH = 48
"""Latent pixels: images of these sizes are not cut. On a CPU many small patches cost more than they save."""
SLO_SCALE = 5.0
FIRST_ROUNDS = 3
"""Rounds of the profile that is measured before anything runs; policies decide by it in all real runs."""


@dataclass(frozen=True)
class RealRun:
    """One replay: a load, a scheduler, and which repeat it is."""

    load: float
    scheduler: str
    repeat: int

    @property
    def name(self) -> str:
        """What its folder is called."""
        return f"{percent(self.load)}-{self.scheduler}-{self.repeat}"


@dataclass(frozen=True)
class Study:
    """A study in a folder. All but loads, schedulers and repeats must be the same when it is taken up again.

    Attributes:
        folder: holds everything.
        loads: shares of the time for which requests alone, one after another, would keep the replica busy.
        schedulers: their names.
        repeats: real runs of each load and scheduler.
        requests: of each trace.
        steps: denoising steps of each.
        executor: `cluster.executor`.
        patch_floor: `cluster.patch_floor`.
        caching: `policies.caching`; None: no cache.
        seed: of the traces.
    """

    folder: Path
    loads: tuple[float, ...]
    schedulers: tuple[str, ...]
    repeats: int
    requests: int
    steps: int
    executor: str
    patch_floor: int | None
    caching: str | None
    seed: int

    @property
    def runs(self) -> list[RealRun]:
        """All real runs, in order: repeats of one policy lie far apart, so that they meet different spells."""
        return [
            RealRun(load, scheduler, repeat)
            for load in self.loads
            for repeat in range(self.repeats)
            for scheduler in self.schedulers
        ]

    @property
    def settings(self) -> dict[str, object]:
        """What may not change, as JSON values."""
        return {
            name: value
            for name, value in asdict(self).items()
            if name not in ("folder", "loads", "schedulers", "repeats")
        }

    @property
    def first_profile(self) -> Path:
        """The profile that policies decide by in the real runs."""
        return self.folder / "profile.parquet"

    def real(self, run: RealRun) -> Path:
        """The run folder of a replay."""
        return self.folder / "real" / run.name

    def around(self, run: RealRun) -> tuple[Path, Path]:
        """The profiles measured just before and just after a replay; the second may be missing after a kill."""
        slices = self.folder / "slices"
        return slices / f"{run.name}-before.parquet", slices / f"{run.name}-after.parquet"

    def trace(self, load: float) -> Path:
        """The trace of a load."""
        return self.folder / f"trace-{percent(load)}.parquet"

    def overrides(self, scheduler: str) -> dict[str, object]:
        """Scenario keys of a run, but for trace and profile."""
        given: dict[str, object] = {"cluster.executor": self.executor}
        if "max_batch" in inspect.signature(SCHEDULERS[scheduler]).parameters:
            given["policies.scheduling.max_batch"] = MAX_BATCH
        if self.patch_floor is not None:
            given["cluster.patch_floor"] = self.patch_floor
        if self.caching is not None:
            given |= {"policies.caching": self.caching, "cluster.cache_patch": CACHE_PATCH}
        return given

    def unfinished(self) -> list[RealRun]:
        """The runs that are not there, or were ended by Ctrl-C."""
        return [run for run in self.runs if not self.real(run).exists() or read_run(self.real(run)).info["interrupted"]]

    def carry_out(self, say: Callable[[str], None]) -> None:
        """Measure and run whatever is not there yet.

        Raises:
            BadInput: the folder holds a study with other settings.
        """
        self._begin()
        self._first_profile()
        for load in self.loads:
            self._generate(load)
        left = self.unfinished()
        pace = _Pace([_span_s(self.trace(run.load)) for run in left])
        say(f"{len(self.runs) - len(left)} of {len(self.runs)} runs are there")
        measured: Path | None = None
        for run in left:
            say(f"{run.name}, {pace.spell()}")
            before, after = self.around(run)
            with pace.one():
                if measured is None:
                    self._measure(before, 1)
                else:
                    before.write_bytes(measured.read_bytes())
                after.unlink(missing_ok=True)
                given = [f"--set={key}={value}" for key, value in self.overrides(run.scheduler).items()]
                shutil.rmtree(self.real(run), ignore_errors=True)  # one that was interrupted: half of it is no run
                tilecast("replay", SCENARIO, "--trace", self.trace(run.load), "--profile", self.first_profile,
                         "--scheduler", run.scheduler, *given, "-o", self.real(run))  # fmt: skip
                self._measure(after, 1)
                measured = after

    def _begin(self) -> None:
        path = self.folder / "study.json"
        if not path.exists():
            write_json(self.settings, path, BENCHMARK)
        begun = json.loads(path.read_text(encoding="utf-8"))
        for name, value in self.settings.items():
            if begun.get(name) != value:
                raise BadInput(f"{path}: {name} was {begun.get(name)}, now it is {value}; choose another -o")

    def _first_profile(self) -> None:
        if not self.first_profile.exists():
            self._measure(self.first_profile, FIRST_ROUNDS)

    def _measure(self, path: Path, rounds: int) -> None:
        options: list[object] = ["--executor", self.executor]
        if self.patch_floor is not None:
            options += ["--patch-floor", self.patch_floor]
        if self.caching is not None:
            options += ["--caching", self.caching, "--cache-patch", CACHE_PATCH]
        sizes = ",".join(format_size(size) for size in parse_sizes(SIZES).values)
        tilecast("profile", "--model", MODEL, "--threads", 1, "--sizes", sizes, "--max-batch", MAX_BATCH,
                 "--repeats", rounds, "--minutes", 60, *options, "-o", path)  # fmt: skip

    def _generate(self, load: float) -> None:
        """A trace with deadlines, of which no request was measured."""
        path = self.trace(load)
        if path.exists():
            return
        table = LatencyModel.fit(Profile.load(self.first_profile), MODEL, self.executor)
        mix = parse_sizes(SIZES)
        alone_s = [table.standalone_s(Request("one", 0.0, h, w, self.steps)) for h, w, _ in mix.values]
        mean_s = sum(s * p for s, p in zip(alone_s, mix.weights, strict=True)) / sum(mix.weights)
        enough = self.requests + 5 * math.sqrt(self.requests) + 10
        generated = self.folder / "generated.parquet"
        tilecast("trace", "generate", "--rate", f"{load / mean_s:.4f}", "--duration", f"{enough * mean_s / load:.1f}",
                 "--arrivals", "poisson", "--sizes", SIZES, "--steps", self.steps, "--model", MODEL,
                 "--guidance-scale", GUIDANCE_SCALE, "--prompts", HERE / "prompts.txt",
                 "--seed", 100 * self.seed + percent(load), "-o", generated)  # fmt: skip
        trace = Trace.load(generated).head(self.requests)
        trace.with_slo(scale=SLO_SCALE, standalone=table.standalone_s).save(path)
        generated.unlink()


def percent(load: float) -> int:
    """0.7 -> 70."""
    return round(100 * load)


def tilecast(*arguments: object) -> None:
    """Run one command; what it prints is shown only when it fails."""
    command = shutil.which("tilecast", path=str(Path(sys.executable).parent))
    assert command is not None
    done = subprocess.run([command, *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.stderr.write(done.stdout + done.stderr)
        done.check_returncode()


def _span_s(trace: Path) -> float:
    return float(Trace.load(trace).frame["arrival_s"].max())


class _Pace:
    """How long the runs that are left will take: the spans of their traces, and what the last ones took beyond."""

    def __init__(self, spans_s: list[float]) -> None:
        self._left_s = spans_s
        self._beyond_s: list[float] = []

    def spell(self) -> str:
        """The time left, in words."""
        beyond_s = sum(self._beyond_s) / len(self._beyond_s) if self._beyond_s else 20.0
        minutes = (sum(self._left_s) + beyond_s * len(self._left_s)) / 60
        return f"{len(self._left_s)} left, about {minutes:.0f} minutes"

    @contextmanager
    def one(self) -> Iterator[None]:
        """One run."""
        started = time.monotonic()
        yield
        self._beyond_s.append(time.monotonic() - started - self._left_s.pop(0))
