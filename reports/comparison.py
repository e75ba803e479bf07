"""Runs side by side: what every way of showing them has in common."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from policies.run_arrays import RunArrays
from policies.runlog import REPLAY, SIMULATION, Run
from reports.breakdown import breakdowns
from reports.checks import checked
from reports.fidelity import format_range
from reports.figures import LEADING, TOPICS, figure, summary, worst_size
from reports.formatting import format_value
from reports.noise import attainment_range, share_range
from reports.notes import run_notes
from reports.overload import backlogs, served_by
from reports.table import Table
from traces.notes import Note, grave, ordered, remark
from traces.sizes import format_size
from traces.stages import STAGES

_ROUNDING = 1e-6
"""Of times to nanoseconds, as a share of the shortest."""


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table.

    Attributes:
        label: what the cells are.
        cells: one a run.
        best: positions of the best cells; none when all are alike, or when there is no best.
    """

    label: str
    cells: tuple[str, ...]
    best: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Comparison:
    """One or more checked runs with their arrays and summaries; ``names`` tells runs of equally named folders apart."""

    runs: tuple[Run, ...]
    names: tuple[str, ...]
    arrays: tuple[RunArrays, ...]
    summaries: tuple[dict[str, float], ...]

    @classmethod
    def of(cls, runs: list[Run]) -> Comparison:
        """Check and summarise runs.

        Raises:
            BadInput: a log breaks conservation.
        """
        arrays = tuple(checked(run) for run in runs)
        return cls(tuple(runs), names_of(runs), arrays, tuple(summary(run) for run in arrays))

    def setup(self) -> list[Row]:
        """What was run: one row an attribute that at least one run.json names."""
        rows = []
        for key, label in _SETUP.items():
            values = [self._told(key, at) for at in range(len(self.runs))]
            if any(value not in (None, "") for value in values):
                rows.append(Row(label, tuple("–" if value in (None, "") else str(value) for value in values)))
        return rows

    def _told(self, key: str, at: int) -> Any:
        """What a run says of one thing; of what it served, all there is."""
        run, models = self.runs[at], [name for name in self.arrays[at].requests.models if name]
        if key == "model" and len(models) > 1:
            return " and ".join(sorted(models)) if len(models) < 4 else f"{len(models)} models"
        return _predictor(run) if key == "predictor" else run.info.get(key)

    def alike(self) -> str:
        """What was run, as far as it is the same in all runs, in a line."""
        return " · ".join([f"{row.label}: {row.cells[0]}" for row in self.setup() if len(set(row.cells)) == 1])

    def leading(self, names: Iterable[str] = LEADING) -> list[Row]:
        """What answers: how the runs differ in what was run, whether each kept its promise, and the few figures that
        most ask for, or those named."""
        kept = [self.kept(at) for at in range(len(self.runs))]
        promise = [Row("Promise", tuple([said or "–" for said in kept]))] if any(kept) else []
        return [*(row for row in self.setup() if len(set(row.cells)) > 1), *promise, *self._of(names)]

    def topics(self, of: Mapping[str, Sequence[str]] = TOPICS) -> list[tuple[str, list[Row]]]:
        """Every figure that at least one run defines, or those named, by topic."""
        of_stages = list(dict.fromkeys(name for values in self.summaries for name in values if ":" in name))
        topics = [*of.items(), *([("Predictions by stage", of_stages)] if of is TOPICS else [])]
        return [(topic, rows) for topic, names in topics if (rows := self._of(names))]

    def rows(self) -> list[Row]:
        """Every figure that at least one run defines."""
        return self._of(dict.fromkeys(name for values in self.summaries for name in values))

    def _of(self, names: Iterable[str]) -> list[Row]:
        """Rows of figures, without those that no run defines."""
        rows = []
        for name in names:
            described = figure(name)
            values = [self._value(name, at) for at in range(len(self.runs))]
            if all(math.isnan(value) for value in values):
                continue
            cells = [format_value(value, described.unit) for value in values]
            best = _best(values, cells) if described.more_is_better else frozenset[int]()
            if described.unit == "s":
                cells = [
                    _with_lost(cell, value, run) for cell, value, run in zip(cells, values, self.arrays, strict=True)
                ]
            if name == "slo_attainment_worst_size":
                cells = [_with_size(cell, run) for cell, run in zip(cells, self.arrays, strict=True)]
            rows.append(Row(described.label, tuple(cells), best))
        return rows

    def _value(self, name: str, at: int) -> float:
        """A figure of a run; NaN: it defines none, or no more than that a simulation took what was predicted."""
        value, kind = self.summaries[at].get(name, math.nan), self.runs[at].info.get("kind")
        empty = kind == SIMULATION.name and name.startswith("prediction_") and abs(value) < _ROUNDING
        return math.nan if empty else value

    def breakdowns(self) -> list[Table]:
        """Tables by model, by pool and by tenant, each where there are several."""
        return breakdowns(self.arrays, self.names)

    def answer(self) -> str:
        """The comparison in a sentence."""
        if not any(values["requests"] for values in self.summaries):
            return "There are no requests."
        if len(self.runs) == 1:
            kept = self.kept(0)
            return f"{self.names[0]}: {self._score(0)}{f'; promise of {kept}' if kept else ''}."
        attainment = [_or_zero(values["slo_attainment"]) for values in self.summaries]
        order = sorted(range(len(self.runs)), key=lambda at: -attainment[at])
        first, second = order[0], order[1]
        lead = attainment[first] - attainment[second]
        verb, aim = ("met", "deadlines") if self._deadlines() else ("finished", "requests (none has a deadline)")
        if (foretold := self._foretold()) is not None:
            sim, real = foretold
            off = attainment[sim] - attainment[real]
            done = "in time" if self._deadlines() else "finished"
            size = "as many" if not off else f"{100 * abs(off):.1f} points {'more' if off > 0 else 'fewer'} requests"
            return (
                f"{self.names[sim]}, a simulation, has {size} {done} {'than' if off else 'as'} {self.names[real]}, "
                f"which really ran: {self._score(sim)} against {self._score(real)}{self._chance(sim, real)}. How "
                "good the simulation is, tilecast validate says."
            )
        if lead > 0:
            return (
                f"{self.names[first]} {verb} most {aim}: {self._score(first)}, "
                f"{100 * lead:.1f} points more than {self.names[second]}{self._chance(first, second)}."
            )
        level = [self.names[at] for at in order if attainment[at] == attainment[first]]
        together = f"{', '.join(level[:-1])} and {level[-1]}"
        return f"{together} {verb} equally many {aim}: {self._score(first)} each."

    def _foretold(self) -> tuple[int, int] | None:
        """Where the simulation and the real run are, where these are all there is and served the same requests."""
        kinds = [run.info.get("kind") for run in self.runs]
        if sorted(map(str, kinds)) != [REPLAY.name, SIMULATION.name] or not self._same_requests(0, 1):
            return None
        return kinds.index(SIMULATION.name), kinds.index(REPLAY.name)

    def _same_requests(self, one: int, other: int) -> bool:
        return set(self.runs[one].requests["request_id"]) == set(self.runs[other].requests["request_id"])

    def _chance(self, one: int, other: int) -> str:
        """How far the difference of two runs' attainments is sure, as the end of a sentence; empty: they did not serve
        the same requests."""
        if not self._same_requests(one, other):
            return ""
        asked = [self.runs[at].requests.set_index("request_id")["arrival_s"] for at in (one, other)]
        met = [
            pd.Series(self.arrays[at].requests.met, index=each.index)
            for at, each in zip((one, other), asked, strict=True)
        ]
        order = asked[0].sort_values(kind="stable").index
        lies = attainment_range(*[each.loc[order].to_numpy(bool) for each in met])
        if not lies.low < lies.high:
            return ""
        chance = ", which is within chance" if lies.low <= 0 <= lies.high else ""
        return f"{chance} (95 % interval {format_range(lies)} points)"

    def notes(self) -> list[Note]:
        """What a reader must know before trusting the figures, the gravest first."""
        notes: list[Note] = []
        asked = [set(run.requests["request_id"]) for run in self.runs]
        if any(ids != asked[0] for ids in asked):
            notes.append(grave("The runs did not serve the same requests, so their figures are not comparable."))
        hardware = {str(run.info["hardware"]) for run in self.runs if run.info.get("hardware")}
        if len(hardware) > 1:
            notes.append(remark(f"The runs are of different hardware: {', '.join(sorted(hardware))}."))
        about: defaultdict[Note, list[str]] = defaultdict(list)
        for run, name, arrays, values in zip(self.runs, self.names, self.arrays, self.summaries, strict=True):
            for note in run_notes(run, arrays, values):
                about[note].append(name)
        notes += [Note(f"{', '.join(names)}: {note}", note.severity) for note, names in about.items()]
        return ordered(notes)

    def _score(self, at: int) -> str:
        values = self.summaries[at]
        if math.isnan(values["slo_attainment"]):
            return "no requests"
        within = round(values["slo_attainment"] * values["requests"])
        how = "in time" if self._deadlines() else "finished"
        share = format_value(values["slo_attainment"], "%")
        return f"{within:,} of {values['requests']:,.0f} requests {how} ({share})"

    def kept(self, at: int) -> str:
        """What was promised of the deadlines, and whether it was kept; empty: no request has one, or the run does not
        say what is promised."""
        promised = self.promise(at)
        if promised is None:
            return ""
        kept = self.summaries[at]["slo_attainment"] >= promised
        return f"{format_value(promised, '%')} {'kept' if kept else 'broken'}"

    def promise(self, at: int) -> float | None:
        """The share of its requests that a run wants in time; None: no request has a deadline, or it does not say."""
        return _promised(self.runs[at]) if self.summaries[at]["with_deadline"] else None

    def luck(self, at: int) -> str:
        """Where the share in time would lie with other requests of the same kind: ``95.1–98.9``, in percent; empty: no
        request has a deadline, or the queue never drains, so the share would change with the length of the trace."""
        run, arrays = self.runs[at], self.arrays[at]
        left = backlogs(arrays, served_by(run.info))
        if not self.summaries[at]["with_deadline"] or any(each.grows for each in left.values()):
            return ""
        asked = arrays.requests.where(arrays.requests.submitted)
        lies = share_range(asked.met[np.argsort(asked.arrival_s, kind="stable")])
        return f"{100 * lies.low:.1f}–{100 * lies.high:.1f}"

    def _deadlines(self) -> bool:
        return any(values["with_deadline"] for values in self.summaries)


_SETUP = {
    "kind": "Kind",
    "scheduler": "Scheduler",
    "model": "Model",
    "hardware": "Hardware",
    "replicas": "Replicas",
    "seed": "Seed",
    "predictor": "Predictor",
    "speedup": "Speed-up of the trace",
    "started": "Started",
    "tilecast": "Tilecast",
}


def _promised(run: Run) -> float | None:
    """The share of its requests that the scenario of a run wants in time (``plan.attainment``)."""
    scenario = run.info.get("scenario")
    section = scenario.get("plan") if isinstance(scenario, dict) else None
    share = section.get("attainment") if isinstance(section, dict) else None
    return share if isinstance(share, float) and 0 < share < 1 else None


def _predictor(run: Run) -> str:
    """What predicts: how far to trust it, its profile, what was fitted to each stage, the executor."""
    predictor = run.info.get("predictor")
    if not isinstance(predictor, dict):
        return ""
    basis, divided = predictor.get("basis"), predictor.get("divided")
    facts = [
        f"{basis} of whole requests, divided between their stages {divided}" if basis and divided else basis,
        predictor.get("profile"),
        _fitted(predictor),
        f"executor {predictor['executor']}" if predictor.get("executor") else "",
        "oracle" if predictor.get("oracle") else "",
    ]
    return ", ".join([str(fact) for fact in facts if fact])


def _fitted(predictor: dict[str, Any]) -> object:
    """The latency model that was fitted, with the stages it is of where they differ: ``auto`` is none, but chooses."""
    fitted = predictor.get("fitted_models")
    if not isinstance(fitted, dict) or not fitted:
        return predictor.get("latency_model")
    stages: defaultdict[str, list[str]] = defaultdict(list)
    for stage in [*(name for name in STAGES if name in fitted), *(name for name in fitted if name not in STAGES)]:
        stages[str(fitted[stage])].append(stage)
    if len(stages) == 1:
        return next(iter(stages))
    return ", ".join([f"{name} ({' and '.join(of)})" for name, of in stages.items()])


def names_of(runs: list[Run]) -> tuple[str, ...]:
    """Folder names, with the parent's where two are equal, and a number where that is not enough."""
    names = [run.name for run in runs]
    twice = Counter(names)
    names = [f"{run.path.parent.name}/{run.name}" if twice[run.name] > 1 else run.name for run in runs]
    twice, seen = Counter(names), Counter[str]()
    for at, name in enumerate(names):
        if twice[name] > 1:
            seen[name] += 1
            names[at] = f"{name} ({seen[name]})"
    return tuple(names)


def _with_size(cell: str, run: RunArrays) -> str:
    _, size = worst_size(run)
    return cell if size is None or len(run.requests.sizes) == 1 else f"{cell} ({format_size(size)})"


def _with_lost(cell: str, value: float, run: RunArrays) -> str:
    lost = int((~run.requests.finished & run.requests.submitted).sum())
    return f"{cell} ({lost:,} never)" if math.isinf(value) and lost else cell


def _best(values: list[float], cells: list[str]) -> frozenset[int]:
    """Where the best values are, and those that are not told apart from them; none where all look alike."""
    top = cells[max(range(len(values)), key=lambda at: -math.inf if math.isnan(values[at]) else values[at])]
    best = frozenset(at for at, cell in enumerate(cells) if cell == top)
    known = sum(not math.isnan(value) for value in values)
    return best if len(best) < known else frozenset()


def _or_zero(value: float) -> float:
    return 0.0 if math.isnan(value) else value
