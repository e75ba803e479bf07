"""Weigh work against traffic, in seconds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np

from policies.parameters import Wait
from policies.placement.balance import Assignment, fewest_moved, improved, loads
from policies.placement.contract import PlacementPolicy, TileWork
from predictors.link import Link
from traces.errors import BadInput
from traces.limits import Range


class Planned(PlacementPolicy):
    """Takes the assignment whose step is predicted to be the shortest, exchange of pixels included.

    Where moving a tile takes longer than waiting for its owner, it stays. A step is as long as the busiest device
    exchanges and then the busiest computes. On a link so fast that the exchange is less than a share of ``worth`` of
    the step, nothing is searched: the balanced assignment that moves the fewest pixels is taken. Otherwise the better
    of that and the one that moves least is improved, in a few milliseconds for 9 tiles and some ten for 25.

    Args:
        latency_s: seconds a message between two devices.
        bytes_per_s: that one device sends and receives, together.
        pixel_bytes: bytes of a latent pixel over all channels and frames, and of what the cache holds of it.
        worth: share of a step's seconds that predictions are not trusted to tell apart.

    Raises:
        BadInput: a value that makes no sense.
    """

    def __init__(
        self,
        latency_s: Wait = 1e-5,
        bytes_per_s: Annotated[float, Range(0, 1e18, "bytes a second", above=True)] = 5e10,
        pixel_bytes: Annotated[int, Range(1, 10**12, "bytes", whole=True)] = 704,
        worth: Annotated[float, Range(0, 1, below=True)] = 0.01,
    ) -> None:
        if pixel_bytes < 1:
            raise BadInput(f"pixel_bytes is {pixel_bytes}, expected at least 1")
        if not 0 <= worth < 1:
            raise BadInput(f"worth is {worth}, expected 0 to below 1")
        self.link = Link(latency_s, bytes_per_s)
        self.pixel_bytes = pixel_bytes
        self.worth = worth
        self._pixel_s = self.link.seconds(pixel_bytes, 0)

    def assign(self, tiles: Sequence[TileWork], devices: int) -> list[int]:
        answer = [max(tile.owner, 0) for tile in tiles]
        busy = [i for i, tile in enumerate(tiles) if tile.seconds > 0]
        work = [tiles[i] for i in busy]
        if not work:
            return answer

        seconds, held, pixel_s = [tile.seconds for tile in work], np.zeros((len(work), devices)), self._pixel_s
        for row, tile in zip(held, work, strict=True):
            row[: len(tile.held)] = tile.held
        everyone = np.arange(devices)[:, None]

        def predicted(assignment: Assignment) -> tuple[float, float]:
            """(Seconds of the step, pixels moved)."""
            flow = (everyone == np.array(assignment)) @ held  # to each device from each
            flow.ravel()[:: devices + 1] = 0.0
            pixels, messages = flow.sum(0) + flow.sum(1), (flow > 0).sum(0) + (flow > 0).sum(1)
            exchange = (messages * self.link.latency_s + pixels * pixel_s).max()
            return max(loads(seconds, assignment, devices)) + float(exchange), float(pixels.sum())

        balanced = fewest_moved(work, devices, 0.0)
        found = balanced
        if max(loads(seconds, balanced, devices)) < (1 - self.worth) * predicted(balanced)[0]:
            resting = [min(range(devices), key=tile.missing) for tile in work]
            found = improved(min(balanced, resting, key=predicted), devices, predicted)
        for i, device in zip(busy, found, strict=True):
            answer[i] = device
        return answer
