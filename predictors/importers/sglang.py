"""What SGLang-Diffusion writes of the time of a request: its performance dump, its log, and its serving benchmark.

- ``--perf-dump-path``, sglang.multimodal_gen of 2025 and 2026: a JSON object with ``steps`` (stages with their
  ``duration_ms``), ``denoise_steps_ms`` and ``total_duration_ms``, and the model's path in ``meta``.
- ``performance.log`` (SGLANG_PERF_LOG_DIR): an object a line, with ``stages`` (``execution_time_ms``) and ``steps``.
- ``bench_serving``: see `predictors.importers.serving`.

Stages before the first denoising stage, such as the encoding of the text and the preparation of latents, make up
*encode*; those after the last one *decode*. What the total has above them is of no stage.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Any

from predictors.importers import serving
from predictors.importers.contents import FileContents
from predictors.importers.reported import (
    SECONDS,
    ImportOptions,
    ReportedFile,
    ReportedRow,
    ReportedTime,
    alike,
    number_in,
    object_in,
    shown,
    text_in,
)
from traces.errors import BadInput
from traces.limits import SPAN, STEPS, Range
from traces.notes import Note

DURATION_MS = Range(0, SPAN.most * 1e3, "ms")
WARM = 3.0
"""How many times the median step the first may take before it is said that the engine was not warm."""
_USED = {"steps", "stages", "denoise_steps_ms", "total_duration_ms", "meta"}
_RECORDED = {"tag", "request_id", "timestamp", "commit_hash", "memory_checkpoints", "memory_snapshots"}
"""What else a request has; nobody expects an effect of it."""


def recognises(contents: FileContents) -> bool:
    """Whether it is a dump, a log or a benchmark of SGLang-Diffusion."""
    if serving.recognises_sglang(contents):
        return True
    first = contents.documents[0][1] if contents.documents else None
    return isinstance(first, dict) and "total_duration_ms" in first and ("steps" in first or "stages" in first)


def read(contents: FileContents, options: ImportOptions) -> ReportedFile:
    """The requests of a file.

    Raises:
        BadInput: no JSON objects, or a field of another kind.
    """
    if serving.recognises_sglang(contents):
        return serving.read(contents, options, serving.SGLANG)
    rows, unused = [], dict[str, None]()
    for where, document in contents.objects():
        rows.append(_Request(where, document, options))
        unused |= dict.fromkeys(name for name in document if name not in _USED | _RECORDED)
    asks = {"size", "batch", "gpus", "guided", *(() if all(row.steps_said for row in rows) else ("steps",))}
    return ReportedFile(rows, serving.SGLANG, contents.path.name, frozenset(asks), tuple(unused))


class _Request(ReportedRow):
    """One request: its stages, in order, and its denoising steps."""

    def __init__(self, where: str, document: Mapping[str, Any], options: ImportOptions) -> None:
        self.where = where
        self.document = document
        self.options = options
        model = text_in(object_in(document, "meta", where), "model", where)
        self.facts = {
            "model": model,
            "system": options.hardware,
            "engine": serving.SGLANG,
            "gpus": str(options.gpus or 1),
        }

    @property
    def steps_said(self) -> bool:
        """Whether the file has the denoising steps one by one."""
        return bool(self.document.get("steps" if "stages" in self.document else "denoise_steps_ms"))

    def needs(self) -> dict[str, Any]:
        model = self.options.model or self.facts["model"]
        needs = {"model": model, "hardware": self.options.hardware, "size": self.options.size}
        return needs if self.steps_said else {**needs, "steps": self.options.steps}

    def stages(self) -> list[tuple[str, float]]:
        """(Name, milliseconds) of the stages, steps of the denoising left out."""
        key, unit = ("stages", "execution_time_ms") if "stages" in self.document else ("steps", "duration_ms")
        found = []
        for at, stage in enumerate(self._list(key), start=1):
            where = f"{self.where}: {key} {at}"
            if not isinstance(stage, dict):
                raise BadInput(f"{where} is {shown(stage)}, expected an object with name and {unit}")
            name = text_in(stage, "name", where)
            if not name.startswith("denoising_step_"):
                found.append((name, number_in(stage, unit, where, DURATION_MS)))
        return found

    def durations(self) -> list[float]:
        """Milliseconds of each denoising step; empty: the file has none."""
        key = "steps" if "stages" in self.document else "denoise_steps_ms"
        found = []
        for at, step in enumerate(self._list(key), start=1):
            said = step if isinstance(step, dict) else {"duration_ms": step}
            found.append(number_in(said, "duration_ms", f"{self.where}: {key} {at}", DURATION_MS))
        if len(found) > STEPS.most:
            raise BadInput(f"{self.where}: {key} has {len(found)} entries, expected {STEPS}")
        return found

    def times(self) -> list[ReportedTime]:
        assert self.options.size is not None
        batch = alike(self.options.size, self.options.batch or 1)
        durations = self.durations()
        before, denoise, after = self._parts()
        spent = denoise or sum(durations)
        if spent <= 0:
            raise BadInput(f"{self.where}: no denoising stage takes time, expected one with 'Denoising' in its name")
        steps = len(durations) or self.options.steps or 1
        times = [ReportedTime(spent / 1e3, batch, "denoise", steps)]
        if before > 0:
            times.append(ReportedTime(before / 1e3, batch, "encode"))
        if after > 0:
            times.append(ReportedTime(after / 1e3, batch, "decode"))
        if any(not SECONDS.holds(time.seconds) for time in times):
            raise BadInput(
                f"{self.where}: the stages take {shown(sum(t.seconds for t in times))} s, expected {SECONDS}"
            )
        return times

    def notes(self) -> list[Note | str]:
        notes: list[Note | str] = []
        durations = self.durations()
        if len(durations) > 2 and durations[0] > WARM * median(durations) > 0:
            times = durations[0] / median(durations)
            notes.append(f"SGLang-Diffusion: a first step took {times:.1f} times the median step, as if not warmed up")
        total = number_in(self.document, "total_duration_ms", self.where, DURATION_MS)
        if (covered := sum(self._parts())) < serving.COVERED * total:
            notes.append(f"SGLang-Diffusion: {1 - covered / total:.0%} of a request's time is in none of its stages")
        return notes

    def _parts(self) -> tuple[float, float, float]:
        """Milliseconds before, in and after denoising."""
        stages = self.stages()
        at = [position for position, (name, _) in enumerate(stages) if "denois" in name.lower()]
        first, last = (at[0], at[-1] + 1) if at else self._between(stages)
        parts = (stages[:first], stages[first:last], stages[last:])
        before, denoise, after = (sum([ms for _, ms in part]) for part in parts)
        return before, denoise or sum(self.durations()), after

    def _between(self, stages: list[tuple[str, float]]) -> tuple[int, int]:
        """Where denoising would stand, which is no stage of its own: before what decodes."""
        at = next((n for n, (name, _) in enumerate(stages) if "decod" in name.lower()), len(stages))
        return at, at

    def _list(self, key: str) -> list[Any]:
        found = self.document.get(key)
        if found is not None and not isinstance(found, list):
            raise BadInput(f"{self.where}: {key} is {shown(found)}, expected a list")
        return found or []
