"""A run in a dozen lines: the answer, the few figures that most ask for, how far to trust them, what is wrong.

Whoever waited for a run reads what stands above the prompt, in a window of 80 columns. So every figure has one line,
and only what is wrong may take more; a warning ends where a clause of it does, and whatever does not fit is counted:
``--all`` has it.
"""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from policies.runlog import REPLAY, Run
from predictors.basis import CALIBRATED, ESTIMATED, MEASURED
from reports.breakdown import by_pool
from reports.comparison import Comparison
from reports.figures import worst_size
from reports.formatting import about, format_value
from reports.notes import format_drift, run_notes
from traces.notes import Note, Severity, ordered
from traces.sizes import format_size

MOST_LINES = 12
WIDTH = 80
"""Columns of a terminal for which everything is laid out; a wider one is used up to `WIDEST`."""
WIDEST = 100

_LABEL = 10
_CLAUSE = re.compile(r"[.;:] |, (?=so |and |not |which |but |outside )")
_ASIDE = re.compile(r" \([^()]*\)")
_FEWEST_WORDS = 5
"""A clause of fewer words says nothing on its own."""
_LEAST_TRUSTED = (ESTIMATED, CALIBRATED, MEASURED)


@dataclass(frozen=True, slots=True)
class Fact:
    """A line of figures that belong together.

    Attributes:
        label: what they are of.
        parts: each with its unit, the most asked for first; the last are left out where the line is full.
        spare: whether the whole line may be left out where there is no room for a warning.
    """

    label: str
    parts: tuple[str, ...]
    spare: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """A line of text; ``severity`` is that of the note that it is part of, ``answers`` marks the answer."""

    text: str
    severity: Severity | None = None
    answers: bool = False


@dataclass(frozen=True, slots=True)
class Brief:
    """What is to be said of one run.

    Attributes:
        answer: a sentence.
        facts: figures, a line each.
        notes: what is wrong, the gravest first; plain remarks are none.
    """

    answer: str
    facts: tuple[Fact, ...]
    notes: tuple[Note, ...]

    @classmethod
    def of(cls, comparison: Comparison) -> Brief:
        """That of the only run of a comparison."""
        (run,), (values,), (arrays,) = comparison.runs, comparison.summaries, comparison.arrays
        notes = [note for note in ordered(run_notes(run, arrays, values)) if note.severity is not Severity.REMARK]
        return cls(comparison.answer(), tuple(fact for fact in _facts(comparison) if fact.parts), tuple(notes))

    def lines(self, ending: Sequence[str] = (), most: int = MOST_LINES, width: int = WIDTH) -> list[Line]:
        """The lines to print: grave notes, the answer, the facts, other notes, and the ending.

        Args:
            ending: sentences for the end, such as where the run was written; each is wrapped.
            most: lines at most, as long as answer and ending leave room for the facts that are not to spare.
            width: columns; only a word that is longer than that, such as a path, reaches beyond.
        """
        answer = _wrapped(self.answer, width)
        last = [line for sentence in ending for line in _wrapped(sentence, width)]
        facts = list(self.facts)
        room = most - len(answer) - len(last) - len(facts)
        wanted = min(2, sum([len(_forms(note, width)[0]) for note in self.notes]))
        for fact in reversed(self.facts):
            if room >= wanted:
                break
            if fact.spare:
                facts.remove(fact)
                room += 1
        told, left_out = _told(self.notes, room, width)
        if left_out:
            told, left_out = _told(self.notes, room - 1, width)  # one line says how many there are
        grave = [line for line in told if line.severity is Severity.GRAVE]
        others = [line for line in told if line.severity is not Severity.GRAVE]
        counted = [Line(f"! {left_out} more warning{'s' * (left_out > 1)}: --all shows them", Severity.CAUTION)]
        return [
            *grave,
            *[Line(text, answers=True) for text in answer],
            *[Line(f"{fact.label:<{_LABEL}}{_fitting(fact.parts, width - _LABEL)}") for fact in facts],
            *others,
            *(counted if left_out > 0 else []),
            *[Line(text) for text in last],
        ]


def _told(notes: Sequence[Note], room: int, width: int) -> tuple[list[Line], int]:
    """Notes in so many lines, and how many are left out: each is begun where there is room for its first clause, and
    the gravest are told in full as far as there is more."""
    begun: list[tuple[Note, list[list[str]]]] = []
    for note in notes:
        forms = _forms(note, width)
        if len(forms[0]) > room:
            break
        begun.append((note, forms))
        room -= len(forms[0])
    lines = []
    for note, forms in begun:
        shown = [form for form in forms if len(form) <= len(forms[0]) + room][-1]
        room -= len(shown) - len(forms[0])
        lines += [Line(text, note.severity) for text in shown]
    return lines, len(notes) - len(begun)


def _forms(note: Note, width: int) -> list[list[str]]:
    """A note as lines, from its first clause alone, without what is in brackets, to the whole of it."""
    text = str(note)
    starts = [0, *[end.end() for end in _CLAUSE.finditer(text)]]
    ends = [
        end.start()
        for start, end in zip(starts, _CLAUSE.finditer(text), strict=False)
        if text[start : end.start()].count(" ") >= _FEWEST_WORDS
    ]
    heads = [f"{text[:end]}." for end in ends if text[:end].count("(") == text[:end].count(")")]
    return [_wrapped(f"! {each}", width, "  ") for whole in (*heads, text) for each in (_ASIDE.sub("", whole), whole)]


def _wrapped(text: str, width: int, indent: str = "") -> list[str]:
    return textwrap.wrap(text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False) or [""]


def _fitting(parts: Sequence[str], width: int) -> str:
    """As many of the parts as fit, at least the first; only one that no line could hold is cut."""
    line = parts[0] if len(parts[0]) <= width else f"{parts[0][: width - 1].rstrip()}…"
    for part in parts[1:]:
        if len(longer := f"{line} · {part}") > width:
            break
        line = longer
    return line


def _facts(comparison: Comparison) -> Iterable[Fact]:
    (run,), (values,), (arrays,) = comparison.runs, comparison.summaries, comparison.arrays
    seen = _Spelled(values)
    yield Fact("Served by", tuple(_served_by(run, arrays.requests.models)))
    if not values["requests"]:
        return
    _, size = worst_size(arrays)
    worst = "" if size is None or len(arrays.requests.sizes) == 1 else format_size(size)
    yield Fact(
        "In time" if values["with_deadline"] else "Finished",
        seen.parts(
            ("slo_attainment", f"{{}} ({luck} by chance)" if (luck := comparison.luck(0)) else "{}"),
            *([] if not worst else [("slo_attainment_worst_size", f"{{}} of the worst size ({worst})")]),
            ("jain_attainment", "Jain's index over tenants {}"),
        ),
    )
    yield Fact(
        "Latency",
        seen.parts(
            ("latency_p50_s", "P50 {}"),
            ("latency_p95_s", "P95 {}"),
            ("latency_p99_s", "P99 {}"),
            ("slowdown_mean", "{} times the latency alone"),
        ),
    )
    images = [("images_per_s", "images {}")] if values["images_per_s"] != values["throughput_rps"] else []
    yield Fact(
        "Goodput",
        seen.parts(("goodput_rps", "{}"), ("throughput_rps", "finished {}"), *images),
    )
    yield Fact(
        "Devices",
        seen.parts(
            ("utilisation", "{} busy"),
            ("batch_mean", "{} requests a launch"),
            ("device_s_per_image", "{} of device time an image"),
            ("cost", "cost {}"),
        ),
    )
    yield Fact(
        "Replicas",
        seen.parts(
            ("replicas_mean", f"{{}} paid for in the mean, of at most {arrays.replicas:,}"),
            ("starts", "{} started"),
            ("saved", "{} saved"),
        ),
    )
    if len(arrays.pools) > 1:
        pools = by_pool(arrays).sort_values("slo_attainment", kind="stable")
        parts = tuple(f"{name} {format_value(share, '%')} in time" for name, share in pools["slo_attainment"].items())
        nowhere = int((arrays.requests.submitted & (arrays.requests.replica < 0)).sum())
        yield Fact("Pools", (*([f"{nowhere:,} requests ran in none"] if nowhere else []), *parts), spare=True)
    yield Fact(
        "Beside",
        seen.parts(
            ("availability", "replicas in working order {}"),
            ("restarts", "{} requests begun again"),
            ("loads", "{} loads of weights"),
            ("loading", "{} of the time loading"),
            ("resident", "{} found their weights loaded"),
            *([("reuse", "{} reused from caches")] if values["reuse"] > 0 else []),
        ),
        spare=True,
    )
    yield Fact("Trust", tuple(_trust(run, values)))


@dataclass(frozen=True, slots=True)
class _Spelled:
    """Figures of a run in words; those that it does not define are none."""

    values: dict[str, float]

    def parts(self, *asked: tuple[str, str]) -> tuple[str, ...]:
        from reports.figures import figure

        known = [(name, words) for name, words in asked if not math.isnan(self.values[name])]
        return tuple(words.format(format_value(self.values[name], figure(name).unit)) for name, words in known)


def _served_by(run: Run, models: Sequence[str]) -> Iterable[str]:
    info, named = run.info, sorted(name for name in models if name)
    count = info.get("replicas")
    how_many = "" if not isinstance(count, int) else f"{count:,} replica{'s' * (count != 1)}"
    model = " and ".join(named) if len(named) in (2, 3) else f"{len(named)} models" if named[1:] else info.get("model")
    for part in (info.get("scheduler"), model, how_many, info.get("hardware")):
        if part:
            yield str(part)


def _trust(run: Run, values: dict[str, float]) -> Iterable[str]:
    """What the seconds of a run rest on."""
    predictor = run.info.get("predictor")
    predictor = predictor if isinstance(predictor, dict) else {}
    pools = run.info.get("pools")
    bases = {
        str(basis)
        for pool in (pools if isinstance(pools, list) else [])
        for basis in (pool.get("models") or {}).values()
    } or {str(predictor.get("basis") or "")}
    basis = next((basis for basis in _LEAST_TRUSTED if basis in bases), "")
    if run.info.get("kind") == REPLAY.name:
        yield "ran on real devices"
        drift = run.info.get("drift")
        if isinstance(drift, int | float) and math.isfinite(drift):
            yield f"steps took {format_drift(drift)} than the profile says"
    elif basis:
        yield f"times are {basis}" + (", least trusted of the pools'" if len(bases) > 1 else "")
    if predictor.get("profile"):
        yield f"profile {predictor['profile']}"
    extrapolated = values["extrapolated_time"]
    if extrapolated > 0:
        yield f"{about(extrapolated)} of launch time extrapolated"
    elif values["launches"] and basis != ESTIMATED:
        yield "all within the measured range"
