"""What it costs to bring weights back, by the room that they take: GreedyDual-Size with frequency."""

from __future__ import annotations

from collections.abc import Sequence

from policies.weights.contract import WeightsPolicy


class CostAware(WeightsPolicy):
    """Gives up the checkpoint of least worth H = L + F C / S (Cherkasova 1998, after Cao and Irani 1997).

    F is how many of its requests have started since it came, C the seconds to bring it again, S its size. L, the worth
    of the last one given up, is what makes old worth fade: only a checkpoint that is used keeps up with it.
    """

    def reset(self) -> None:
        self._inflation = 0.0
        self._uses: dict[str, int] = {}
        self._worth: dict[str, float] = {}

    def came(self, checkpoint: str, gb: float, load_s: float, now: float) -> None:
        self._uses[checkpoint] = 0
        self._worth[checkpoint] = self._inflation

    def used(self, checkpoint: str, gb: float, load_s: float, now: float) -> None:
        uses = self._uses[checkpoint] = self._uses.get(checkpoint, 0) + 1
        self._worth[checkpoint] = self._inflation + uses * load_s / gb

    def left(self, checkpoint: str) -> None:
        self._inflation = max(self._inflation, self._worth.pop(checkpoint))
        del self._uses[checkpoint]

    def victim(self, loaded: Sequence[str], now: float) -> str:
        return min(loaded, key=lambda checkpoint: self._worth[checkpoint])
