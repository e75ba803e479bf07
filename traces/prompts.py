"""Prompts to give to requests that have none."""

from __future__ import annotations

from pathlib import Path

from traces.errors import BadInput
from traces.limits import PROMPT
from traces.text import read_text


def load_prompts(path: Path) -> list[str]:
    """The prompts in a text file, one a line; blank lines are skipped.

    Raises:
        BadInput: the file is missing, not text, or holds no prompt.
    """
    prompts = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    for number, prompt in enumerate(prompts, 1):
        if not PROMPT.holds(prompt):
            raise BadInput(f"{path}: prompt {number} is {prompt[:60]!r}, expected {PROMPT}")
    if not prompts:
        raise BadInput(f"{path}: no prompts, expected one a line")
    return prompts
