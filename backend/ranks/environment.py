"""What the environment says of this process: torchrun's variables, which others set too.

PyTorchJob and many ``srun`` scripts set them for every process, also where there is only one, and where what runs there
knows nothing of ranks. So they count only where there are several ranks to be.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from traces.errors import BadInput


class Torchrun(NamedTuple):
    """This process is one of several: rank ``rank`` of ``size``, the ``local``-th on its machine."""

    rank: int
    size: int
    local: int


def torchrun() -> Torchrun | None:
    """This process's place among several; None where it is the only one.

    Raises:
        BadInput: a variable is no number, or no rank of so many.
    """
    if not os.environ.get("RANK") or not os.environ.get("WORLD_SIZE"):
        return None
    size, rank = _number("WORLD_SIZE", 1), _number("RANK", 0)
    local = _number("LOCAL_RANK", 0) if os.environ.get("LOCAL_RANK") else rank
    if rank >= size:
        raise BadInput(f"the environment's RANK is {rank}, expected less than its WORLD_SIZE, which is {size}")
    return None if size == 1 else Torchrun(rank, size, local)


def _number(name: str, least: int) -> int:
    text = os.environ[name]
    if not text.isdecimal() or int(text) < least:
        raise BadInput(f"the environment's {name} is {text!r}, expected a whole number from {least} on")
    return int(text)
