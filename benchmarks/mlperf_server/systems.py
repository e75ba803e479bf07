"""What was published of MLPerf's SDXL, and the arrivals that went with it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from traces.errors import BadInput, first_problem
from traces.files import read_frame

RESULTS = Path(__file__).parents[1] / "mlperf_sdxl.csv"
NEAR_S = 15.0
"""From this published P99 on a system counts as near the bound; the rates of others were set far from it by hand."""
DURATION_S = 600.0
USUAL_BATCH, USUAL_DELAY_S = 8, 5.0
"""Of a submission whose configuration is not known: as most have it."""

Numbers = npt.NDArray[np.float64]


class System(BaseModel):
    """What was published of one system; rates are pictures a second, times seconds.

    Attributes:
        hardware: the GPU's name in ``tilecast hardware list``.
        devices: GPUs.
        batch, delay_s: most images of a batch in Server, and how long a batch is waited for, as configured.
        offline_per_s, offline_samples, offline_min_s: rate, requests and shortest latency of Offline.
        target_per_s: rate that was asked of the load generator, which seed and least number of requests go with.
        scheduled_per_s, completed_per_s: that came of it.
        source, commit: folder of the result in its repository.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    round: str
    submitter: str
    platform: str
    hardware: str
    devices: int = Field(ge=1)
    precision: str | None = None
    batch: int = Field(USUAL_BATCH, ge=1)
    delay_s: float = Field(USUAL_DELAY_S, ge=0)
    offline_per_s: float = Field(gt=0)
    offline_samples: int = Field(ge=1)
    offline_min_s: float = Field(gt=0)
    target_per_s: float = Field(gt=0)
    min_queries: int = Field(ge=1)
    schedule_seed: int = Field(ge=0, lt=2**64)
    scheduled_per_s: float = Field(gt=0)
    completed_per_s: float = Field(gt=0)
    min_s: float = Field(gt=0)
    mean_s: float
    p50_s: float
    p90_s: float
    p99_s: float
    max_s: float
    source: str = Field(pattern=r"^[^/]+/[^/]+/closed/")
    commit: str = Field(pattern=r"^[0-9a-f]{40}$")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        latencies = (self.min_s, self.p50_s, self.p90_s, self.p99_s, self.max_s)
        if list(latencies) != sorted(latencies) or not self.min_s <= self.mean_s <= self.max_s:
            raise ValueError("min_s to max_s do not rise")
        if self.completed_per_s > self.scheduled_per_s:
            raise ValueError("completed_per_s is more than scheduled_per_s")
        return self

    @property
    def name(self) -> str:
        """Round, submitter and platform, as short as tables need it."""
        platform = self.platform.removesuffix("_TRT").replace("GraceHopper-Superchip_", "").replace("-aarch64", "")
        return f"{self.round[1:]} {self.submitter} {platform}"[:44]

    @property
    def near(self) -> bool:
        """Whether its P99 was near the bound."""
        return self.p99_s > NEAR_S

    @property
    def load(self) -> float:
        """Server rate over Offline rate."""
        return self.scheduled_per_s / self.offline_per_s

    @property
    def offline_batch(self) -> int:
        """Images of a batch in Offline: the first ones are done after so much of the whole rate; a power of two."""
        return int(2 ** round(math.log2(self.offline_min_s * self.offline_per_s / self.devices)))

    @property
    def server_batch(self) -> int:
        """Images of a full batch in Server: without any delay every request is alone."""
        return self.batch if self.delay_s else 1

    @property
    def rebatched(self) -> bool:
        """Whether Offline ran larger batches than Server."""
        return self.offline_batch > self.server_batch

    def arrivals(self, rate: float | None = None, seed: int | None = None) -> Numbers:
        """Seconds of the arrivals that the load generator makes for a rate, by default those of the published run."""
        rate = self.target_per_s if rate is None else rate
        return schedule(self.schedule_seed if seed is None else seed, rate, self.min_queries)


def read_systems(path: Path = RESULTS) -> list[System]:
    """The systems of a table.

    Raises:
        BadInput: a missing or wrong cell, with file and row.
    """
    frame = read_frame(path, text=("round", "precision", "commit"))
    systems = []
    for row, cells in enumerate(frame.to_dict("records"), start=1):
        try:
            known = {str(name): cell for name, cell in cells.items() if not pd.isna(cell) and cell != ""}
            systems.append(System(**known))
        except ValidationError as error:
            raise BadInput(f"{path}: row {row}: {first_problem(error, System)}") from error
    return systems


def schedule(seed: int, rate: float, least: int = 1, duration_s: float = DURATION_S) -> Numbers:
    """Arrival times as MLPerf's load generator draws them (``loadgen.cc``): Poisson, the first at 0 s.

    It uses C++'s ``mt19937``, seeded with the low 32 bits, and libstdc++'s exponential distribution, which makes a
    number in [0, 1) of two draws, the low bits first. Arrivals end with the first after ``duration_s``, but not before
    there are ``least``.

    Args:
        rate: requests a second, in the mean.
    """
    draws = np.random.RandomState(seed % 2**32)
    expected = max(least, duration_s * rate)
    gaps: list[Numbers] = []
    count, end_s = 1, 0.0
    while count < least or end_s < duration_s:
        words = np.frombuffer(draws.bytes(8 * (int(expected / 10) + 100)), dtype="<u4").astype(np.float64)
        gaps.append(-np.log1p(-(words[0::2] + words[1::2] * 2.0**32) / 2.0**64) / rate)
        count, end_s = count + len(gaps[-1]), end_s + float(gaps[-1].sum())
    times = np.concatenate([[0.0], np.cumsum(np.concatenate(gaps))])
    return times[: max(least, int(np.searchsorted(times, duration_s)) + 1)]


def scheduled(times: Numbers) -> float:
    """Requests a second of arrivals as the load generator reports them."""
    return (len(times) - 1) / float(times[-1])
