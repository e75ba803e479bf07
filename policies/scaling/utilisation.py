"""As many replicas as keep each of them busy for a share of its time."""

from __future__ import annotations

from typing import Annotated

from policies.parameters import Spare, Wait
from policies.scaling.busy import BusyMean
from policies.scaling.contract import PoolView
from policies.scaling.steady import Steady
from traces.limits import POSITIVE_SPAN, Range


class Utilisation(Steady):
    """Replicas busy on average over the last seconds, divided by the share of its time that each is to be busy.

    A replica is busy while a request lives on it or waits for it alone. When all are busy all the time, the next look
    demands ``1 / target`` times as many.

    Args:
        target: the share.
        window_s: seconds that are averaged over.
        keep_alive_s, delay_s, cooldown_s, buffer: see `policies.scaling.steady.Steady`.
    """

    def __init__(
        self,
        target: Annotated[float, Range(0.01, 1)] = 0.7,
        window_s: Annotated[float, POSITIVE_SPAN] = 60.0,
        keep_alive_s: Wait = 300.0,
        delay_s: Wait = 0.0,
        cooldown_s: Wait = 0.0,
        buffer: Spare = 0,
    ) -> None:
        super().__init__(keep_alive_s, delay_s, cooldown_s, buffer)
        self.target = target
        self.window_s = window_s

    def reset(self) -> None:
        super().reset()
        self._busy = BusyMean(self.window_s)

    def demand(self, pool: PoolView, now: float) -> float:
        return self._busy.tell(pool.busy, now) / self.target

    def look_again(self, now: float) -> float:
        return self._busy.look_again(now)
