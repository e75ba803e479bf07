"""From the rows of files to one profile: which rows, of one system and one engine, and what stage their time is of.

A profile holds what one kind of hardware takes with one engine; rows of several never enter one fit, so who imports
a file that has more says which are meant.

Many files only know whole requests, from text to pixels. What such a time leaves after the stages that the same files
measured of the same batch is divided between the others as the roofline of the device estimates them; where its chip is
in no catalogue, all of it is denoising. Either way the seconds of a request of as many steps come out as measured.
"""

from __future__ import annotations

import shlex
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from statistics import median

import pandas as pd

from predictors.costs import Batch
from predictors.estimate import estimated_table
from predictors.hardware import NUMBER_BYTES
from predictors.importers.names import known_hardware
from predictors.importers.reported import (
    WHOLE,
    ImportOptions,
    ReportedFile,
    ReportedRow,
    ReportedTime,
    require_said,
    shown,
)
from predictors.latency_model import LatencyModel
from predictors.profile import WHOLE_REQUESTS, Profile, metadata_of
from traces.composition import Composition, format_composition
from traces.errors import BadInput, did_you_mean
from traces.geometry import KNOWN_MODELS, geometry_of, known_model
from traces.limits import LABEL
from traces.notes import Note
from traces.stages import ORDINARY, STAGES

AGREE = (
    *("system", "gpus", "parallelism", "precision", "engine", "software", "cache", "compile", "offload", "attention"),
    *("remarks", "task", "test", "scenario", "platform", "organization", "version"),
)
"""Circumstances in which all rows of a profile agree, if the files say them."""

_DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"} | {name: name for name in NUMBER_BYTES}
_MOST_SHOWN = 6
_LONGEST = 60
_SAMPLER = next(stage for stage in ORDINARY if STAGES[stage].sampler)
_LAST = next(stage for stage in ORDINARY if STAGES[stage].finishes)
_OTHERS = tuple(stage for stage in ORDINARY if stage != _SAMPLER)


@dataclass(frozen=True)
class ImportedProfile:
    """A profile that was made from files.

    Attributes:
        profile: the profile; what a reader of figures must know is in its `Profile.notes`.
        remarks: what else the person who imports should know, in sentences.
    """

    profile: Profile
    remarks: tuple[str, ...] = ()


def profile_of(files: Sequence[ReportedFile], options: ImportOptions) -> ImportedProfile:
    """The profile of the rows that are meant.

    Raises:
        BadInput: no row is left, the rows differ in what a profile does not mix, a wrong number, or something that
            neither the files nor the options say.
    """
    remarks: list[str] = []
    rows = _of_known_models(_chosen(files, options), options, remarks)
    for row in rows:
        require_said(row.where, **row.needs())
    _check_agreement(rows, options)
    facts = rows[0].facts
    hardware, software = _hardware(rows[0], options), _software(rows[0])
    models: dict[tuple[str, bool], list[ReportedTime]] = defaultdict(list)
    empty = Counter[str]()
    for row in rows:
        times = row.times()
        models[_model(row, options), _is_guided(row, options)] += times
        if not times:
            empty[row.facts.get("quantity", "")] += 1
    remarks += [f"left out, of no stage of a request: {count} rows of {name}" for name, count in empty.items()]
    notes: list[Note | str] = [note for row in rows for note in row.notes()]
    gpus = _count(facts.get("gpus", "1"))
    if gpus != 1:
        notes.append(f"a device of this profile stands for {_devices(facts)}")
    records: list[dict[str, object]] = []
    divisions: list[str] = []
    for (model, guided), times in models.items():
        division = _Division(model, hardware, _DTYPES.get(facts.get("precision", "").lower(), ""), gpus, guided)
        divided, said, how = division.of(times)
        notes += [f"{model}: {note}" if len(models) > 1 else note for note in said]
        divisions += [f"{model}: {way}" for way in how]
        records += [_record(model, guided, time) for time in divided]
    if not records:
        raise BadInput(f"{rows[0].where}: no stage of a request is measured in the {len(rows)} rows that are meant")
    remarks += _without_effect(files, options)
    assumed = dict.fromkeys(_model(row, options) for row in rows if row.guided is None)
    if options.guided is None and assumed and any("guided" in file.asks for file in files):
        on = [model for model in assumed if KNOWN_MODELS[model].defaults.guided]
        switched = f"on for {', '.join(on)}" + (", else off" if len(on) < len(assumed) else "") if on else "off"
        remarks.append(f"classifier-free guidance is taken to be {switched}; --guided and --no-guided say otherwise")
    frame = pd.DataFrame(records).assign(hardware=hardware, software=software)
    known = {"source": _sources(files, rows)}
    known |= metadata_of(notes)
    if divisions:
        known["divided"] = "; ".join(dict.fromkeys(divisions))
    return ImportedProfile(Profile.from_frame(frame, known), tuple(remarks))


def _sources(files: Sequence[ReportedFile], rows: Sequence[ReportedRow]) -> str:
    """Where the rows are from: as they say, or the files by their origin."""
    said = [source for row in rows if (source := row.facts.get("source", ""))]
    names: dict[str, list[str]] = defaultdict(list)
    for file in files:
        if not any(row.facts.get("source") for row in file.rows):
            names[file.origin].append(file.name)
    return "; ".join([*dict.fromkeys(said), *(f"{origin}: {', '.join(own)}" for origin, own in names.items())])


def _record(model: str, guided: bool, time: ReportedTime) -> dict[str, object]:
    return {
        "model": model,
        "executor": time.executor,
        "stage": time.stage,
        "composition": format_composition(time.composition),
        "guided": guided,
        "steps": time.steps,
        "seconds": time.seconds,
    }


def _chosen(files: Sequence[ReportedFile], options: ImportOptions) -> list[ReportedRow]:
    """The rows that have what ``where`` says."""
    rows = [row for file in files for row in file.rows]
    for name, value in options.where.items():
        known = dict.fromkeys(fact for row in rows for fact in row.facts)
        if name not in known:
            raise BadInput(f"--where {shown(name)}: the files say nothing of that name; {did_you_mean(name, known)}")
        left = [row for row in rows if row.facts.get(name, "").casefold() == value.strip().casefold()]
        if not left:
            have = _listed(row.facts.get(name, "") for row in rows)
            raise BadInput(f"--where: no row has {name} {shown(value)}; the files have: {have}")
        rows = left
    if not rows:
        raise BadInput("the files hold no measurement")
    return rows


def _of_known_models(rows: list[ReportedRow], options: ImportOptions, remarks: list[str]) -> list[ReportedRow]:
    """The rows of models whose geometry is known; the others are left out, and counted in ``remarks``."""
    if options.model:
        geometry_of(options.model)
        names = list(dict.fromkeys(row.facts.get("model", "") for row in rows))
        if len(names) > 1:
            raise BadInput(
                f"the rows are of {len(names)} models ({_listed(names)}), which are not all {options.model!r}; "
                f"choose one, like --where {shlex.quote(f'model={names[0][:_LONGEST]}')}"
            )
        return rows
    known = [row for row in rows if known_model(row.facts.get("model", ""))]
    unknown = Counter(row.facts.get("model", "") for row in rows if not known_model(row.facts.get("model", "")))
    if not known:
        require_said(rows[0].where, **rows[0].needs())
        raise BadInput(
            f"{rows[0].where}: no row is of a model that is known ({_listed(unknown)}); --model says which of "
            f"{', '.join(KNOWN_MODELS)} it is"
        )
    if unknown:
        counted = [f"{name[:_LONGEST] or 'none'} ({count})" for name, count in unknown.most_common(_MOST_SHOWN)]
        more = f" and {len(unknown) - _MOST_SHOWN} more" if len(unknown) > _MOST_SHOWN else ""
        remarks.append(f"left out, rows of models that are not known: {', '.join(counted)}{more}")
    return known


def _check_agreement(rows: Sequence[ReportedRow], options: ImportOptions) -> None:
    """Refuse rows that one profile does not mix, and say how to choose."""
    values = {name: Counter(row.facts.get(name, "") for row in rows) for name in AGREE}
    differ = [name for name in AGREE if len(values[name]) > 1]
    if not differ:
        return
    found = Counter(tuple(row.facts.get(name, "") for name in differ) for row in rows).most_common()
    example, count = min(found, key=lambda each: max(map(len, each[0])) > _LONGEST)  # the most common that can be typed
    choice = " ".join(
        f"--where {shlex.quote(f'{name}={value[:_LONGEST]}')}" for name, value in zip(differ, example, strict=True)
    )
    what = "; ".join(f"{name} ({_listed(values[name])})" for name in differ)
    raise BadInput(
        f"{len(rows)} rows differ in {what}: one profile does not mix them; choose, like {choice} ({count} rows)"
    )


def _hardware(row: ReportedRow, options: ImportOptions) -> str:
    name = options.hardware or row.facts.get("system", "")
    require_said(row.where, hardware=name)
    gpus = _count(row.facts.get("gpus", "1"))
    if gpus < 1:
        raise BadInput(f"{row.where}: gpus is {shown(row.facts['gpus'])}, expected a whole number of at least 1")
    whole = f"{gpus} x {name}" if gpus > 1 else name
    return _label(whole, row, "hardware")


def _software(row: ReportedRow) -> str:
    facts = row.facts
    said = [facts.get(name, "") for name in ("engine", "software", "precision", "cache", "scenario")]
    if _count(facts.get("gpus", "1")) > 1:
        said.append(_devices(facts))
    return _label(", ".join(text for text in said if text) or "not stated", row, "engine")


def _label(text: str, row: ReportedRow, what: str) -> str:
    if not LABEL.holds(text):
        raise BadInput(f"{row.where}: {what} is {shown(text)}, expected {LABEL}")
    return text


def _devices(facts: Mapping[str, str]) -> str:
    how = facts.get("parallelism", "")
    return f"{facts['gpus']} GPUs" + (f" ({how})" if how and how != "none" else "")


def _count(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0


def _model(row: ReportedRow, options: ImportOptions) -> str:
    return options.model or known_model(row.facts["model"])


def _is_guided(row: ReportedRow, options: ImportOptions) -> bool:
    by_model = KNOWN_MODELS[_model(row, options)].defaults.guided
    return next((said for said in (options.guided, row.guided) if said is not None), by_model)


def _without_effect(files: Sequence[ReportedFile], options: ImportOptions) -> list[str]:
    """What was said in vain: columns of the files, and options."""
    unused = dict.fromkeys(name for file in files for name in file.unused)
    asked = {"hardware", "model"}.union(*(file.asks for file in files))
    remarks = [f"columns that have no effect: {', '.join(unused)}"] if unused else []
    idle = [f"--{name}" for name in sorted(options.given - asked)]
    return remarks + ([f"options that have no effect, since the files say it: {', '.join(idle)}"] if idle else [])


def _listed(values: Iterable[str]) -> str:
    """Distinct values in a message, in quotes, the first few."""
    distinct = list(dict.fromkeys(values))
    more = f" and {len(distinct) - _MOST_SHOWN} more" if len(distinct) > _MOST_SHOWN else ""
    return ", ".join(shown(value) for value in distinct[:_MOST_SHOWN]) + more


@dataclass(frozen=True)
class _Division:
    """How the seconds of whole requests of a model are divided between its stages.

    Attributes:
        model: the model.
        hardware: what was measured.
        dtype: the data type that it ran in; empty: not known.
        gpus: devices that share the denoising.
        guided: whether classifier-free guidance was on.
    """

    model: str
    hardware: str
    dtype: str
    gpus: int
    guided: bool

    def of(self, times: Sequence[ReportedTime]) -> tuple[list[ReportedTime], list[str], list[str]]:
        """The times of stages, notes on how those of whole requests were divided, and the ways in a few words each."""
        measured: dict[tuple[Composition, str], list[float]] = defaultdict(list)
        for time in times:
            measured[time.composition, time.stage].append(time.seconds / time.steps)
        divided: list[ReportedTime] = []
        counts = Counter[str]()
        steps: set[int] = set()
        for time in times:
            if time.stage != WHOLE:
                divided.append(time)
                continue
            known = {s: median(found) for s in ORDINARY if (found := measured.get((time.composition, s)))}
            spent = sum(seconds * (time.steps if stage == _SAMPLER else 1) for stage, seconds in known.items())
            rest, missing = time.seconds - spent, [stage for stage in ORDINARY if stage not in known]
            if rest <= 0 or not missing:
                counts["left out"] += 1
                continue
            shares = self._shares(time, missing)
            kind = "estimated" if len(shares) > 1 else "whole" if _SAMPLER in shares and len(missing) > 1 else "rest"
            counts[kind if len(missing) > 1 else "exact"] += 1
            steps.add(time.steps)
            for stage, share in shares.items():
                covers = time.steps if stage == _SAMPLER else 1
                divided.append(replace(time, stage=stage, steps=covers, seconds=rest * share))
        return divided, self._notes(counts, steps), self._ways(counts)

    def _shares(self, time: ReportedTime, missing: list[str]) -> dict[str, float]:
        """The share of each stage that was not measured; of one alone where the device is not known."""
        table = _roofline(self.model, self.hardware, self.dtype)
        if table is None:
            return {_SAMPLER if _SAMPLER in missing else _LAST if _LAST in missing else missing[0]: 1.0}
        batch = Batch(self.model, time.composition, float(self.guided))
        seconds = {stage: table.step_s(stage, batch) for stage in missing}
        if _SAMPLER in seconds:
            seconds[_SAMPLER] *= time.steps / self.gpus
        total = sum(seconds.values())
        return {stage: part / total for stage, part in seconds.items()}

    def _ways(self, counts: Counter[str]) -> list[str]:
        ways = {
            "estimated": f"by the roofline of {self._like}",
            "whole": f"all to {_SAMPLER}",
            "rest": f"what is left to {_LAST}",
        }
        return [way for kind, way in ways.items() if counts[kind]]

    @property
    def _like(self) -> str:
        """The device of the catalogue by whose roofline times are divided; empty: there is none."""
        kind = known_hardware(self.hardware)
        return kind.name if kind is not None else ""

    def _notes(self, counts: Counter[str], steps: set[int]) -> list[str]:
        notes = []
        if counts["estimated"]:
            notes.append(
                f"{WHOLE_REQUESTS}: {_times(counts['estimated'])} divided by "
                f"the roofline of {self._like}, so that each stage alone is ESTIMATED and their sum measured"
            )
        if counts["whole"]:
            covered = ", ".join(map(str, sorted(steps)))
            notes.append(
                f"{WHOLE_REQUESTS}, and no data sheet of {self.hardware} is "
                f"known: {_times(counts['whole'])} taken for {_SAMPLER} alone, right for requests of {covered} steps"
            )
        if counts["rest"]:
            notes.append(
                f"what whole requests took beside the measured stages ({_times(counts['rest'])} so divided) is in "
                f"{_LAST}, and not told apart"
            )
        if counts["left out"]:
            notes.append(f"whole requests whose stages were measured: {_times(counts['left out'])} left out")
        return notes


def _times(count: int) -> str:
    return "1 time is" if count == 1 else f"{count} times are"


@cache
def _roofline(model: str, hardware: str, dtype: str) -> LatencyModel | None:
    """What is expected of a model on the device; None: its chip is in no catalogue."""
    kind = known_hardware(hardware)
    if kind is None:
        return None
    usable = dtype if dtype and getattr(kind, f"{dtype}_flops") is not None else kind.dtype
    return estimated_table(model, kind, "whole", usable)
