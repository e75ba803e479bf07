"""What a reader must know about figures, and how badly: the gravest is told first, wherever figures are shown."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Severity(StrEnum):
    """How badly a reader must know a note; members stand in the order in which notes are told."""

    GRAVE = "grave"
    """A figure is not what it is called: one would decide wrongly by it."""
    CAUTION = "caution"
    """A figure holds under a condition that is easily overlooked."""
    REMARK = "remark"
    """A plain statement; nothing is wrong."""


_ORDER = tuple(Severity)


@dataclass(frozen=True, slots=True)
class Note:
    """A sentence about figures, and its severity."""

    text: str
    severity: Severity = Severity.CAUTION

    @classmethod
    def of(cls, said: object) -> Note:
        """A note as `document` spells it; whatever else, such as a bare sentence, is a caution."""
        if isinstance(said, Note):
            return said
        if isinstance(said, dict) and said.get("severity") in _ORDER:
            return cls(str(said.get("text", "")), Severity(said["severity"]))
        return cls(str(said))

    def document(self) -> Any:
        """As a JSON value: a caution is its sentence, any other a table."""
        return self.text if self.severity is Severity.CAUTION else {"severity": str(self.severity), "text": self.text}

    def __str__(self) -> str:
        return self.text


def grave(text: str) -> Note:
    """A note that is told before the figures."""
    return Note(text, Severity.GRAVE)


def remark(text: str) -> Note:
    """A note that is told after the figures."""
    return Note(text, Severity.REMARK)


def ordered(notes: Iterable[Note | str]) -> list[Note]:
    """The notes, each once, the gravest first and otherwise as they came; a bare sentence is a caution."""
    known = dict.fromkeys(Note.of(note) for note in notes)
    return sorted(known, key=lambda note: _ORDER.index(note.severity))
