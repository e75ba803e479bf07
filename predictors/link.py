"""What it costs to move state between the devices of a replica."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from traces.errors import BadInput
from traces.geometry import ModelGeometry
from traces.request import Request

LATENT_BYTES = 4
"""Of a number of a latent, which samplers keep in float32."""


@dataclass(frozen=True, slots=True)
class Link:
    """The way in and out of every device: a message costs a latency, its bytes their share of the bandwidth.

    Attributes:
        latency_s: seconds a message.
        bytes_per_s: that one device can send and receive, together.

    Raises:
        BadInput: a negative latency, or no bandwidth.
    """

    latency_s: float = 1e-5
    bytes_per_s: float = 5e10

    def __post_init__(self) -> None:
        if not (self.latency_s >= 0 and math.isfinite(self.latency_s)):
            raise BadInput(f"link latency is {self.latency_s} s, expected at least 0")
        if not self.bytes_per_s > 0:
            raise BadInput(f"link bandwidth is {self.bytes_per_s} bytes/s, expected above 0")

    def seconds(self, byte_count: float, messages: int) -> float:
        """Seconds that one device spends on so many bytes in so many messages, sent and received."""
        return messages * self.latency_s + byte_count / self.bytes_per_s

    def change_s(self, state_bytes: float, before: Sequence[int], after: Sequence[int]) -> float:
        """Seconds to move a request's state to other devices, see `moved_bytes`; 0.0 where nothing moves."""
        moved = moved_bytes(state_bytes, before, after)
        return self.seconds(moved, len({*before, *after}) - 1) if moved else 0.0


def latent_bytes(geometry: ModelGeometry, request: Request) -> float:
    """What moves with a request between two steps: its latents."""
    return float(LATENT_BYTES * request.images * math.prod(geometry.latent_shape(request.size)))


def moved_bytes(state_bytes: float, before: Sequence[int], after: Sequence[int]) -> float:
    """What the busiest device sends and receives when a request goes on on other devices.

    Args:
        state_bytes: of the request: its latents, and what a cache keeps of it. Each device has an equal part.
        before: the devices that had it, in the order of their parts.
        after: the devices that shall have it.
    """
    most = 0.0
    for device in {*before, *after}:
        old, new = _part(before, device), _part(after, device)
        stays = max(0.0, min(old[1], new[1]) - max(old[0], new[0]))
        most = max(most, old[1] - old[0] + new[1] - new[0] - 2 * stays)
    return state_bytes * most


def _part(devices: Sequence[int], device: int) -> tuple[float, float]:
    """Where a device's part begins and ends, as shares; an empty one if it has none."""
    if device not in devices:
        return 0.0, 0.0
    place = list(devices).index(device)
    return place / len(devices), (place + 1) / len(devices)
