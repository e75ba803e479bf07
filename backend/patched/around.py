"""What lies around the rows of a picture that a decoder has, where other ranks have the others."""

from __future__ import annotations

from contextvars import ContextVar, Token
from typing import Protocol

import torch


class Around(Protocol):
    """The other ranks' rows."""

    def neighbours(self, first: torch.Tensor, last: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """The rows next to the first and the last of this rank's; None at the edge of the picture."""
        ...

    def pooled(self, mean: torch.Tensor, variance: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Moments of the whole picture from those of this rank's rows."""
        ...


_around: ContextVar[Around | None] = ContextVar("around", default=None)


def around() -> Around | None:
    """What lies around the rows that are computed just now; None: they are the whole picture."""
    return _around.get()


def around_of(ranks: Around) -> Token[Around | None]:
    """From now on, these have the rows around; until the token is given to `no_longer_around`."""
    return _around.set(ranks)


def no_longer_around(token: Token[Around | None]) -> None:
    """As it was before."""
    _around.reset(token)
