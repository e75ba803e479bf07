"""What a caching policy will compute of a request, before the request exists: the policy run on modelled signals.

Whether a unit is reused depends on its own request alone (`sim.check.check_policy` holds every policy to that), so
what is computed of a request at each step can be worked out once, by asking the real policy object about every block
of every step, and remembered for all requests that draw the same signals. The simulator takes its steps' work from
here, and a predictor the share to expect.

A reused block hands on what it gave before. So each unit carries the step its data is of: a block downstream of a
reuse sees no change until something upstream is computed again. An up block of a UNet takes the skips of its mirrored
down block and of what comes before that one.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from policies.caching.contract import CachingPolicy, Floats, Signals
from policies.caching.step import decide_block, watches_block
from policies.guard import ask, begun
from predictors.reuse import ReuseModel, SignalTrack, rows_of
from traces.errors import BadInput
from traces.request import Request


class CachePlan(NamedTuple):
    """What is computed of one request.

    Attributes:
        shares: of each step, the share of its work that is computed, blocks weighted by what they cost.
        computed: units computed before each step, and in all; a unit counts once a block.
        units: units of a step.
    """

    shares: tuple[float, ...]
    computed: tuple[int, ...]
    units: int

    @property
    def share(self) -> float:
        """The mean share over the steps."""
        return sum(self.shares) / len(self.shares)


class CachePlans:
    """The plans of a caching policy under a reuse model.

    Args:
        policy: copied.
        reuse: where the signals come from.
        block_weights: what each block costs, in any unit; None: as recorded.
        seed: which draw of the reuse model a request gets.

    Raises:
        BadInput: not one weight a block.
    """

    def __init__(
        self,
        policy: CachingPolicy,
        reuse: ReuseModel,
        block_weights: Sequence[float] | None = None,
        seed: int = 0,
    ) -> None:
        weights = np.array(reuse.block_weights if block_weights is None else block_weights, dtype=np.float64)
        if weights.shape != (reuse.blocks,) or not (weights >= 0).all() or not weights.sum() > 0:
            raise BadInput(f"block_weights are {block_weights}, expected {reuse.blocks} numbers, one a block")
        self._policy = begun(policy)
        self._reuse = reuse
        self._weights: Floats = weights / weights.sum()
        self._seed = seed
        self._plans: dict[tuple[int, int, int, int, bool, int], CachePlan] = {}
        self._draws: dict[str, int] = {}

    def of(self, request: Request) -> CachePlan:
        """The plan of a request."""
        name = request.request_id
        draw = self._draws.get(name)
        if draw is None:
            draw = self._draws[name] = self._reuse.draw_of(name, self._seed)
        return self._plan(request, draw)

    def seeded(self, seed: int) -> CachePlans:
        """Those of another seed; what was worked out serves both."""
        other = copy.copy(self)
        other._seed, other._draws = seed, {}
        return other

    def expected_share(self, request: Request, draws: int | None = None) -> float:
        """The mean computed share of requests like this one, over the first ``draws`` draws; None: over all."""
        count = self._reuse.draws if draws is None else min(draws, self._reuse.draws)
        return sum(self._plan(request, draw).share for draw in range(count)) / count

    def _plan(self, request: Request, draw: int) -> CachePlan:
        rows = rows_of(request)
        key = (request.height, request.width, request.steps, rows, request.guided, draw)
        plan = self._plans.get(key)
        if plan is None:
            track = self._reuse.track(request.size, request.steps, rows, request.guided, draw)
            plan = self._plans[key] = run_plan(self._policy, track, request.steps, self._weights)
        return plan


def run_plan(policy: CachingPolicy, track: SignalTrack, steps: int, weights: Floats) -> CachePlan:
    """Ask ``policy`` about every block of every step of one request; it is told to forget the request in the end."""
    name, units, blocks = "plan", track.units, track.blocks
    of, unit, all_steps = np.zeros(units, dtype=np.int64), np.arange(units), np.full(units, steps)
    shape, nothing = (blocks, units), np.zeros(units)
    output = np.zeros(shape, dtype=np.int64)  # the step that a block's output holds data of
    seen_input, seen_skip = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)  # when it was computed
    shares, computed = [], [0]
    for step in range(steps):
        now = np.full(units, step)
        share, count = 0.0, 0
        for block in range(blocks):
            coming = output[block - 1] if block else now
            mirrored = blocks - 1 - block
            skip = np.maximum(output[mirrored], output[mirrored - 1] if mirrored else now) if mirrored < block else now
            if not step:
                change, skipped = np.full(units, np.inf), nothing
            elif watches_block(policy, block):
                change = track.input_change(block, step, coming - seen_input[block])
                skipped = track.skip_change(block, step, skip - seen_skip[block])
            else:
                change = skipped = nothing
            signals = Signals(
                request_ids=(name,),
                request=of,
                unit=unit,
                block=block,
                blocks=blocks,
                step=now,
                steps=all_steps,
                input_change=change,
                skip_change=skipped,
            )
            flags = decide_block(policy, signals)
            output[block, flags] = seen_input[block, flags] = coming[flags]
            seen_skip[block, flags] = skip[flags]
            done = int(flags.sum())
            count += done
            share += float(weights[block]) * (done / units)
        shares.append(share)
        computed.append(computed[-1] + count)
    ask(policy, "forget", name)
    return CachePlan(tuple(shares), tuple(computed), units * blocks)
