"""What it costs to move state between the devices of a replica."""

from __future__ import annotations

import math
from dataclasses import dataclass

from traces.errors import BadInput


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
