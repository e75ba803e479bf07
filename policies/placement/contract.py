"""What a placement policy is asked and may answer.

Before a tiled step the executor knows what each tile will cost and which device holds its state. The policy assigns
tiles to devices. It is a pure function of what it is shown, so that every rank of a replica comes to the same answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from policies.contract import Policy


class TileWork(NamedTuple):
    """One tile of a step.

    Attributes:
        tile: index in the step's grid, row by row.
        seconds: predicted cost; 0 for a tile that is reused.
        owner: device that holds most of its state, -1 for none.
        held: latent pixels of its window that each device holds, one a device; empty where that is not known.
    """

    tile: int
    seconds: float
    owner: int
    held: tuple[int, ...] = ()

    def missing(self, device: int) -> int:
        """Pixels that ``device`` would have to fetch; where nobody knows, 0 for the owner and 1 for others."""
        return sum(self.held) - self.held[device] if self.held else int(device != self.owner)


class PlacementPolicy(Policy):
    """Base of every placement policy. The constructor only stores parameters."""

    required = ("assign",)

    def assign(self, tiles: Sequence[TileWork], devices: int) -> list[int]:
        """The device, 0 .. devices - 1, of each tile."""
        raise NotImplementedError
