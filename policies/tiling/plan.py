"""What refining a simulated request will take, before the request exists: the real policies run on modelled signals.

Which tiles are reused depends on their own request alone, and which device computes them on that; so all steps of a
request can be planned once, and remembered for all requests that draw the same signals.
"""

from __future__ import annotations

from policies.caching.contract import CachingPolicy
from policies.guard import begun
from policies.tiling.costs import TiledCosts
from policies.tiling.signals import TileSignals
from policies.tiling.timing import Timing, refine
from predictors.costs import alone
from traces.errors import BadInput
from traces.request import Request


class TilePlans:
    """The plans of tiled requests.

    Args:
        costs: the rule, the devices, and what a tile costs.
        caching: decides which tiles are computed, copied; None: all.
        signals: what the tiles of simulated requests show.

    Raises:
        BadInput: a caching policy and no signals to show it.
    """

    def __init__(
        self, costs: TiledCosts, caching: CachingPolicy | None = None, signals: TileSignals | None = None
    ) -> None:
        if caching is not None and signals is None:
            raise BadInput(
                f"caching policy {type(caching).__name__} decides by signals of tiles, and none were recorded for this "
                "model; record some, or compute all tiles"
            )
        self.costs = costs
        self._caching = None if caching is None else begun(caching)
        self._signals = signals
        self._plans: dict[tuple[object, ...], Timing] = {}
        self._of_request: dict[str, Timing] = {}

    def of(self, request: Request) -> Timing:
        """The plan of a tiled request."""
        if self._caching is None or self._signals is None:
            return self._plan(request, None)
        plan = self._of_request.get(request.request_id)
        if plan is None:
            plan = self._of_request[request.request_id] = self._plan(request, self._signals.draw_of(request))
        return plan

    def expected_share(self, request: Request, draws: int | None = None) -> float:
        """The seconds that refining requests like this one takes, over those it takes without a cache.

        The mean over the first ``draws`` draws of the signals; None: over all.
        """
        if self._caching is None or self._signals is None:
            return 1.0
        count = self._signals.draws if draws is None else min(draws, self._signals.draws)
        with_cache_s = sum(self._plan(request, draw).seconds for draw in range(count)) / count
        return with_cache_s / self._plan(request, None).seconds

    def _plan(self, request: Request, draw: int | None) -> Timing:
        key = (request.size, request.steps, request.images, request.guided, draw)
        plan = self._plans.get(key)
        if plan is None:
            plan = self._plans[key] = self._planned(request, draw)
        return plan

    def _planned(self, request: Request, draw: int | None) -> Timing:
        costs, size, images = self.costs, request.size, request.images
        steps = costs.rule.refine_steps(request.steps)
        modelled = None if draw is None or self._signals is None else self._signals.of(request, steps, draw)
        return refine(
            shape=costs.rule.shape(size, request.steps),
            steps=steps,
            devices=costs.devices,
            seconds=costs.window_s(alone(request)),
            pixel_numbers=costs.pixel_numbers(size, images),
            caching=None if modelled is None else self._caching,
            modelled=modelled,
        )
