"""Pipelines of tests read short texts: else padding, of up to 2048 tokens, is most of what their models compute."""

from __future__ import annotations

import inspect
from typing import Any

MOST_TOKENS = 31
"""No width of a model: tokens are told from channels by their number."""

_SHORT: dict[str, Any] = {
    "max_sequence_length": MOST_TOKENS,
    "complex_human_instruction": ["Say: "],
    "text_encoder_out_layers": (1, 2, 3),  # of encoders with as many layers
}


def read_short(*classes: type) -> None:
    """Give the calls of these pipelines other defaults, for the rest of the process."""
    for cls in classes:
        call: Any = inspect.unwrap(cls.__call__)  # type: ignore[operator]
        for name, parameter in inspect.signature(call).parameters.items():
            if name not in _SHORT:
                continue
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
                call.__kwdefaults__[name] = _SHORT[name]
            else:
                defaulted = call.__code__.co_varnames[: call.__code__.co_argcount][-len(call.__defaults__) :]
                known = dict(zip(defaulted, call.__defaults__, strict=True))
                call.__defaults__ = tuple((known | {name: _SHORT[name]}).values())
