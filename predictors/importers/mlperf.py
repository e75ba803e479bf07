"""Results of MLPerf inference, text to image (SDXL): of its load generator, and the table of a round's submissions.

- ``mlperf_log_summary.txt``, as LoadGen of v4.0 to v5.1 writes it: the scenario, its metric, and latencies.
- ``summary.csv``, as the submission checker of v4.0 to v5.1 writes it: a row a system, model and scenario.

All measure SDXL at 1024 x 1024 in 20 steps, from the prompt to the picture. *SingleStream* is a request at a time: its
seconds are the mean latency where the file has it, else the 90th percentile. *Offline* is a rate of pictures of all
accelerators, which run batches of their own: a batch takes as long as ``batch x accelerators / rate``. *Server* is the
rate under a bound on the latency, when accelerators may wait, so a batch takes at most as long. Neither says the batch.
"""

from __future__ import annotations

import re
from typing import Any

import pandas as pd

from predictors.importers.contents import FileContents
from predictors.importers.reported import (
    RATE,
    ImportOptions,
    ReportedFile,
    ReportedRow,
    ReportedTime,
    alike,
    shown,
)
from traces.columns import Cells
from traces.errors import BadInput
from traces.exact import is_missing, named, number_of
from traces.files import require_columns
from traces.limits import DEVICES, SPAN, Range
from traces.notes import Note, grave

TITLE = "MLPerf Results Summary"
MODEL = "stable-diffusion-xl"
SIZE = (1024, 1024, 1)
STEPS = 20
LATENCY_NS = Range(0, SPAN.most * 1e9, "ns", above=True)
LATENCY_MS = Range(0, SPAN.most * 1e3, "ms", above=True)

REQUIRED = ("Model", "Scenario", "Result", "accelerator_model_name", "accelerators_per_node", "Units")
FACTS = {
    "Model": "model",
    "Scenario": "scenario",
    "accelerator_model_name": "system",
    "Platform": "platform",
    "Organization": "organization",
    "framework": "engine",
    "version": "version",
    "weight_data_types": "precision",
}
"""Columns of the table, and the circumstances that they say."""

RECORDED = (
    *("number_of_nodes", "Availability", "Division", "SystemType", "SystemName", "MlperfModel", "Accuracy", "Location"),
    *("host_processor_model_name", "host_processors_per_node", "host_processor_core_count", "operating_system"),
    *("notes", "compliance", "errors", "inferred", "has_power"),
)
"""Further columns of the table; of all but the nodes nobody expects an effect."""

UNITS = {"offline": "Samples/s", "server": "Queries/s", "singlestream": "Latency (ms)"}
"""Scenario -> the unit of its result."""

MEAN = "Mean latency (ns)"
_PERCENTILE = re.compile(r"\d+th percentile latency \(ns\)")
_SERVER = "server"
_RATES = {
    "offline": ("Samples per second",),
    _SERVER: ("Completed samples per second", "Scheduled samples per second"),
}
_AT_MOST = grave(
    "MLPerf Server: from the rate under a bound on the latency, so a batch takes at most as long as this says"
)
_TAIL = grave("MLPerf SingleStream: the 90th percentile of the latency, for want of its mean")


def recognises(contents: FileContents) -> bool:
    """Whether it is a summary of the load generator, or the table of submissions."""
    return TITLE in contents.text or {"Scenario", "Result", "accelerator_model_name"} <= set(contents.columns)


def read(contents: FileContents, options: ImportOptions) -> ReportedFile:
    """The results of a file.

    Raises:
        BadInput: a missing column, or a summary of a scenario that measures no batch.
    """
    table, name = contents.table, contents.path.name
    if table is None:
        return ReportedFile([_Summary(contents, options)], "MLPerf inference", name, frozenset({"batch", "gpus"}))
    require_columns(table, REQUIRED, str(contents.path))
    rows = [_Submission(table, position, str(contents.path), options) for position in range(len(table))]
    unused = tuple(column for column in contents.columns if column not in {*REQUIRED, *FACTS, *RECORDED})
    return ReportedFile(rows, "MLPerf inference", name, frozenset({"batch"}), unused)


class _Result(ReportedRow):
    """A result of one scenario."""

    options: ImportOptions

    @property
    def scenario(self) -> str:
        return self.facts["scenario"].lower()

    def needs(self) -> dict[str, Any]:
        asked = {"hardware": self.options.hardware or self.facts["system"]}
        return asked | ({"batch": self.options.batch} if self.scenario in _RATES else {})

    def notes(self) -> list[Note | str]:
        if self.scenario not in _RATES:
            return []
        said = f"MLPerf {self.facts['scenario']}: batches of {self.options.batch} are taken, as --batch says"
        return [said, *([_AT_MOST] if self.scenario == _SERVER else [])]

    def batch(self, accelerators: float, rate: float) -> ReportedTime:
        """A batch of all accelerators' that run at a rate, images a second."""
        images = self.options.batch or 1
        return ReportedTime(images * accelerators / rate, alike(SIZE, images), steps=STEPS)


class _Summary(_Result):
    """What the load generator says of a run."""

    def __init__(self, contents: FileContents, options: ImportOptions) -> None:
        self.where = str(contents.path)
        if TITLE not in contents.text:
            raise BadInput(f"{self.where}: no line {TITLE!r}, expected mlperf_log_summary.txt")
        self.said: dict[str, str] = {}
        for line in contents.text.partition(TITLE)[2].splitlines():
            key, colon, value = line.partition(":")
            if colon:
                self.said.setdefault(key.strip(), value.strip())
        mode, scenario = self.said.get("Mode", ""), self.said.get("Scenario", "")
        if "performance" not in mode.lower():
            raise BadInput(f"{self.where}: Mode is {shown(mode)}, expected PerformanceOnly")
        if scenario.lower() not in UNITS:
            raise BadInput(f"{self.where}: Scenario is {shown(scenario)}, expected Offline, Server or SingleStream")
        self.facts = {"model": MODEL, "system": options.hardware, "engine": "MLPerf", "scenario": scenario}
        self.options = options

    def needs(self) -> dict[str, Any]:
        return super().needs() | ({"gpus": self.options.gpus} if self.scenario in _RATES else {})

    def times(self) -> list[ReportedTime]:
        if rates := _RATES.get(self.scenario):
            rate = self.number(next((name for name in rates if name in self.said), rates[0]), RATE)
            return [self.batch(self.options.gpus or 1, rate)]
        return [ReportedTime(self.number(self._latency(), LATENCY_NS) / 1e9, alike(SIZE, 1), steps=STEPS)]

    def notes(self) -> list[Note | str]:
        notes = super().notes()
        if self.scenario not in _RATES and self._latency() != MEAN:
            notes.append(_TAIL)
        if (result := self.said.get("Result is", "VALID")) != "VALID":
            notes.append(grave(f"MLPerf: a result is {shown(result)}"))
        return notes

    def number(self, name: str, limit: Range) -> float:
        if name not in self.said:
            raise BadInput(f"{self.where}: no line {name!r}, expected {limit}")
        number: Any = number_of(self.said[name])
        if not limit.holds(number):
            raise BadInput(f"{self.where}: {name} is {shown(self.said[name])}, expected {limit}")
        return float(number)

    def _latency(self) -> str:
        return MEAN if MEAN in self.said else next(filter(_PERCENTILE.fullmatch, self.said), MEAN)


class _Submission(_Result):
    """A row of the table of submissions."""

    def __init__(self, table: pd.DataFrame, position: int, source: str, options: ImportOptions) -> None:
        self.table = table
        self.position = position
        self.cells = Cells(source)
        self.where = self.cells.at(position)
        self.facts = {fact: self.text(column) for column, fact in FACTS.items() if column in table}
        self.options = options

    def times(self) -> list[ReportedTime]:
        if self.scenario not in UNITS:
            raise self.cells.bad(self.position, "Scenario", self.facts["scenario"], "Offline, Server or SingleStream")
        unit = self.text("Units")
        if unit != (right := UNITS[self.scenario]):
            raise self.cells.bad(self.position, "Units", unit, f"{right}, as text to image has")
        if self.scenario not in _RATES:
            return [ReportedTime(self.number("Result", LATENCY_MS) / 1e3, alike(SIZE, 1), steps=STEPS)]
        nodes = self.number("number_of_nodes", DEVICES) if "number_of_nodes" in self.table else 1
        return [self.batch(self.number("accelerators_per_node", DEVICES) * nodes, self.number("Result", RATE))]

    def notes(self) -> list[Note | str]:
        return super().notes() or [_TAIL]

    def text(self, column: str) -> str:
        value = self.table[column].iat[self.position]
        return "" if is_missing(value) else named(value).strip()

    def number(self, column: str, limit: Range) -> float:
        value = self.table[column].iat[self.position]
        number: Any = number_of(value)
        if not limit.holds(number):
            raise self.cells.bad(self.position, column, value, str(limit))
        return float(number)
