"""What of a scenario is fast because it makes other pictures: no time saved by it is a saving alone."""

from __future__ import annotations

from tilecast.scenario import Scenario


def lossy(scenario: Scenario, cached: bool, tiled: bool, tiles_cached: bool) -> str:
    """A sentence that names what changes the pictures; empty: they are those of the stock pipeline.

    Args:
        cached: blocks are reused from step to step.
        tiled: some requests are sketched and refined in tiles.
        tiles_cached: tiles are reused from step to step.
    """
    policies, trace, decode = scenario.policies, scenario.trace, scenario.cluster.decode
    changes = {
        f"policies.caching = {policies.caching.name}": cached,
        f"policies.tile_caching = {policies.tile_caching.name}": tiles_cached,
        f"tiling.refine = {0.0 if scenario.tiling is None else scenario.tiling.refine:g}": tiled,
        f"trace.step_reduction for {trace.step_reduction.share:.0%} of the requests": trace.step_reduction.share > 0,
        f"trace.steps_scale = {trace.steps_scale:g}": trace.steps_scale != 1,
        f"cluster.decode = {decode}": decode in ("tiled", "blended"),
    }
    reasons = [reason for reason, there in changes.items() if there]
    if not reasons:
        return ""
    return (
        f"pictures differ from those made without it ({', '.join(reasons)}): part of the speed is paid for with them; "
        "see how much with tilecast quality, or python -m benchmarks.caches"
    )
