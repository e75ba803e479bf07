"""What files report of the times that batches took, before it is a profile.

A reader of a format makes a `ReportedRow` of every row or record of a file: its circumstances as text, by which it is
chosen or left out, and what it asks for; its numbers are read after that. So a table of a thousand systems may have a
torn row of another system than the one that is meant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from traces.composition import Composition, composition_of
from traces.errors import BadInput
from traces.geometry import known_model
from traces.limits import DEVICES, FRAMES, IMAGES, SIDE, SPAN, STEPS, Range
from traces.notes import Note
from traces.request import Size

SECONDS = Range(0, SPAN.most, "s", above=True)
RATE = Range(0, 1e9, "images a second", above=True)
WHOLE = ""
"""In the place of a stage: the whole request, from its text to its pixels."""

_ASKED = {
    "model": "--model NAME",
    "hardware": "--hardware NAME, what ran it",
    "size": "--size HEIGHTxWIDTH[xFRAMES]",
    "steps": "--steps N, denoising steps of a request",
    "batch": "--batch N, images that ran together",
    "gpus": "--gpus N",
}


@dataclass(frozen=True, slots=True)
class ReportedTime:
    """A time that a batch took.

    Attributes:
        seconds: of the batch, over all ``steps``.
        composition: what ran together.
        stage: a measured stage, or `WHOLE`.
        steps: denoising steps that the time covers; 1 of a stage without a sampler.
        executor: how the batch ran, see `predictors.profile.EXECUTORS`.
    """

    seconds: float
    composition: Composition
    stage: str = WHOLE
    steps: int = 1
    executor: str = "whole"


class ReportedRow:
    """A row or record of a file. Its numbers are looked at when they are asked for, so after it was chosen.

    Attributes:
        where: the file and the row, for messages.
        facts: its circumstances by name, as text: ``model`` as the file calls it, ``system``, ``engine`` and so on.
        guided: whether classifier-free guidance was on; None: the file does not say it.
    """

    where: str
    facts: Mapping[str, str]
    guided: bool | None = None

    def needs(self) -> dict[str, Any]:
        """What must be known of it, by names of `ImportOptions`; None and empty: nobody says it."""
        return {}

    def times(self) -> list[ReportedTime]:
        """The times that it reports; empty: nothing of it is a stage of a request.

        Raises:
            BadInput: a wrong or missing number.
        """
        raise NotImplementedError

    def notes(self) -> list[Note | str]:
        """What a reader of figures must know of it; grave where they are not what they are called."""
        return []


@dataclass(frozen=True)
class ReportedFile:
    """A file that was read.

    Attributes:
        rows: its rows.
        origin: what wrote it, for the profile's ``source`` where the rows do not say it.
        name: the file's name.
        asks: names of `ImportOptions` that its format does not say, so that they have an effect.
        unused: names of columns or fields that have no effect.
    """

    rows: Sequence[ReportedRow]
    origin: str
    name: str
    asks: frozenset[str] = frozenset()
    unused: tuple[str, ...] = ()


@dataclass(frozen=True)
class ImportOptions:
    """What a person says of files: what they leave open, and which of their rows are meant.

    Attributes:
        model: the model, by any name that `traces.geometry.known_model` knows, kept as that of `KNOWN_MODELS`; empty:
            as the files say.
        hardware: what ran it; empty: as the files say.
        size: (height, width, frames) in pixels, of files without sizes.
        steps: denoising steps of a request, of files without steps.
        batch: images that ran together, of files that do not say it.
        gpus: devices that the times are of, of files that do not say it.
        guided: whether classifier-free guidance was on; None: as the files say, or where the model has it by a guidance
            scale.
        where: values that circumstances must have, by name; other rows are left out.
    """

    model: str = ""
    hardware: str = ""
    size: Size | None = None
    steps: int | None = None
    batch: int | None = None
    gpus: int | None = None
    guided: bool | None = None
    where: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", known_model(self.model) or self.model)
        for name, value, limit in (
            ("steps", self.steps, STEPS),
            ("batch", self.batch, IMAGES),
            ("gpus", self.gpus, DEVICES),
        ):
            if value is not None and not limit.holds(value):
                raise BadInput(f"{name} is {value}, expected {limit}")
        if self.size is not None and not is_size(self.size):
            raise BadInput(f"size is {self.size}, expected sides of {SIDE} and {FRAMES}")

    @property
    def given(self) -> set[str]:
        """The names of what is said, of those that files may leave open."""
        return {name for name in _ASKED if getattr(self, name)}


def is_size(size: Size) -> bool:
    """Whether a size is one that a request may have."""
    height, width, frames = size
    return SIDE.holds(height) and SIDE.holds(width) and FRAMES.holds(frames)


def alike(size: Size, images: int) -> Composition:
    """The composition of ``images`` images of one size."""
    return composition_of([(size, images)])


def require_said(where: str, **values: Any) -> None:
    """Ask for all at once that a file leaves open.

    Args:
        where: the file, and the row.
        values: names of `ImportOptions`, with what is known of each; None and empty: nothing.

    Raises:
        BadInput: something is not known.
    """
    missing = [name for name, value in values.items() if value is None or value == ""]
    if missing:
        options = "; ".join(_ASKED[name] for name in missing)
        raise BadInput(f"{where} does not say the {', '.join(missing)}; give {options}")


def number_in(document: Mapping[str, Any], name: str, where: str, limit: Range) -> float:
    """A number of a JSON object.

    Raises:
        BadInput: there is none, or not one of ``limit``.
    """
    if name not in document:
        raise BadInput(f"{where}: {name} is missing, expected {limit}")
    value = document[name]
    if not limit.holds(value):
        raise BadInput(f"{where}: {name} is {shown(value)}, expected {limit}")
    return float(value)


def text_in(document: Mapping[str, Any], name: str, where: str) -> str:
    """A text of a JSON object; empty where there is none.

    Raises:
        BadInput: it is no text.
    """
    value = document.get(name)
    if value is not None and not isinstance(value, str):
        raise BadInput(f"{where}: {name} is {shown(value)}, expected text")
    return (value or "").strip()


def object_in(document: Mapping[str, Any], name: str, where: str) -> Mapping[str, Any]:
    """An object in a JSON object; empty where there is none.

    Raises:
        BadInput: it is no object.
    """
    value = document.get(name)
    if value is not None and not isinstance(value, dict):
        raise BadInput(f"{where}: {name} is {shown(value)}, expected an object")
    return value or {}


def shown(value: object) -> str:
    """A value in a message, on one line and not too long."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of ten thousand digits, a list of lists of lists
        text = f"a {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:57]}..."
