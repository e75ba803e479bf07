"""What a number or a name may be: defined once, for scenario keys, requests, columns of traces and options alike.

Limits are generous: they keep out what no service can mean (an arrival in the year 2500, ten thousand pictures of one
prompt) and what would end in an overflow, a machine without memory or a command without an end. As metadata of an
annotated type, ``Annotated[float, SPAN]``, they are what pydantic checks, and what documents are made of.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from numbers import Real
from typing import Annotated, Any


@dataclass(frozen=True, slots=True)
class Range:
    """Finite numbers from ``least`` to ``most``, both in it unless said otherwise.

    Attributes:
        least: the smallest.
        most: the largest.
        unit: what they count, like ``s``; empty: a plain number.
        whole: whether they are whole numbers.
        above: whether ``least`` itself is left out.
        below: whether ``most`` itself is left out.
    """

    least: float
    most: float
    unit: str = ""
    whole: bool = False
    above: bool = False
    below: bool = False

    def __str__(self) -> str:
        """What would be right, for messages: ``a number of 0 to 10 s``."""
        kind = "a whole number" if self.whole else "a number"
        unit = f" {self.unit}" if self.unit else ""
        least, most = _spell(self.least), _spell(self.most)
        if not (self.above or self.below):
            return f"{kind} of {least} to {most}{unit}"
        low = f"above {least}" if self.above else f"of at least {least}"
        return f"{kind} {low} and {'below' if self.below else 'at most'} {most}{unit}"

    def holds(self, value: object) -> bool:
        """Whether ``value`` is one of these numbers; truth values, NaN and infinity never are."""
        if isinstance(value, bool) or not isinstance(value, Real):
            return False
        number: Any = value
        return bool(self.mask(number)) and not (self.whole and number % 1)

    def mask(self, values: Any) -> Any:
        """Which numbers of an array lie between ``least`` and ``most``, an array of truth values."""
        low = values > self.least if self.above else values >= self.least
        return low & (values < self.most if self.below else values <= self.most)

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import ValidationError, core_schema

        def check(value: Any, validate: Any) -> Any:
            try:
                number = None if isinstance(value, bool | str) else validate(value)
            except ValidationError:
                number = None
            if not self.holds(number):
                raise ValueError(f"expected {self}")
            return number

        return core_schema.no_info_wrap_validator_function(check, handler(source))


@dataclass(frozen=True, slots=True)
class Text:
    """Text of a limited length without control characters, which would reach the terminal and split lines of logs.

    Attributes:
        most: characters.
        least: characters.
        controls: whether tabs, ends of lines and the like may stand in it, as in prompts; NUL never may.
    """

    most: int
    least: int = 0
    controls: bool = False

    def __str__(self) -> str:
        """What would be right, for messages."""
        kind = "text" if self.controls else "text without control characters"
        return f"{kind}, of {self.least} to {self.most:,} characters"

    def holds(self, value: object) -> bool:
        """Whether ``value`` is such a text."""
        if not isinstance(value, str) or not self.least <= len(value) <= self.most:
            return False
        if value.isascii() and value.isprintable():
            return True
        return not any(self._is_bad(character) for character in value)

    def _is_bad(self, character: str) -> bool:
        if character == "\0" or "\ud800" <= character <= "\udfff":
            return True
        return not self.controls and is_control(character)

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        def check(value: str) -> str:
            if not self.holds(value):
                raise ValueError(f"expected {self}")
            return value

        return core_schema.no_info_after_validator_function(check, handler(source))


def is_control(character: str) -> bool:
    """Whether a character steers a terminal or the direction of text, rather than to be seen."""
    return unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") or character in _DIRECTIONS


_DIRECTIONS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def _spell(number: float) -> str:
    return f"{number:,}" if isinstance(number, int) else f"{number:,.15g}"


MOST_REQUESTS = 10_000_000
"""Of a trace. A million take about a gigabyte."""
MOST_PIXELS = 2**37
"""Height x width x frames of one picture or clip: 8k at 4,000 frames."""
PIXELS = Range(0, MOST_PIXELS, "pixels", whole=True)

INSTANT = Range(0, 1e10, "s")
"""A point on a clock; seconds since 1970 are among them until the year 2286, milliseconds are not."""
SPAN = Range(0, 1e9, "s")
"""How long something takes: at most thirty years."""
POSITIVE_SPAN = Range(1e-3, 1e9, "s")
"""How long something takes that takes time."""
INTERVAL = Range(1, 1e9, "s")
"""Mean time between things that happen for ever."""
SHARE = Range(0, 1)
FACTOR = Range(1e-6, 1e6, "times")
"""What something is multiplied by."""
SLOWDOWN = Range(1e-3, 1e6, "times")
SEED = Range(0, 2**63 - 1, whole=True)
SEED32 = Range(0, 2**32 - 1, whole=True)
"""What scikit-learn and numpy's older generators take."""
REQUESTS = Range(1, MOST_REQUESTS, "requests", whole=True)
SIDE = Range(1, 65_536, "pixels", whole=True)
STEPS = Range(1, 10_000, "steps", whole=True)
FRAMES = Range(1, 100_000, "frames", whole=True)
IMAGES = Range(1, 1_000, "images", whole=True)
GUIDANCE = Range(0, 1_000)
PRIORITY = Range(-(2**31), 2**31 - 1, whole=True)
REPLICAS = Range(1, 20_000, "replicas", whole=True)
DEVICES = Range(1, 1_024, "devices", whole=True)
THREADS = Range(1, 4_096, "threads", whole=True)
WORKERS = Range(1, 4_096, "processes", whole=True)
RATE = Range(1e-9, 1e6, "requests a second")

NAME = Text(300, least=1)
"""Of a request, a policy, a hardware kind: short enough for a file's name or a cell."""
LABEL = Text(300)
PATH = Text(4096, least=1)
MODEL = Text(4096)
"""A model, which may be a folder; or a picture."""
PROMPT = Text(100_000, controls=True)

Name = Annotated[str, NAME]
PathText = Annotated[str, PATH]
Instant = Annotated[float, INSTANT]
Span = Annotated[float, SPAN]
PositiveSpan = Annotated[float, POSITIVE_SPAN]
Interval = Annotated[float, INTERVAL]
Share = Annotated[float, SHARE]
Factor = Annotated[float, FACTOR]
Seed = Annotated[int, SEED]
