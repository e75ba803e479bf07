"""What SuperGen (arXiv 2508.17756) reports of 8 H100s, 41 frames: seconds of the refinement stage unless said.

Facts of its evaluation and ablation sections, in a form to compute with. Canvases are latent pixels; a tile of 90 x 160
is 720p, so 2K has 4 tiles and 4K 9.
"""

from __future__ import annotations

TILE = (90, 160)
FRAMES = 41
STEPS = 45
FIRST_STEP = 5
"""Refinement steps, and where in the sampler's schedule of 50 they begin."""

WARM_UP = 5
"""Steps in which the cache computes everything, as it does in the last one."""

GRIDS = {"2K": (2, 2), "4K": (3, 3)}

UNCACHED_S = {
    ("CogVideoX-1.5", "2K"): {1: 531.0, 2: 267.0, 4: 135.0},
    ("CogVideoX-1.5", "4K"): {1: 1408.0, 2: 667.0, 4: 400.0, 8: 321.0},
    ("HunyuanVideo", "2K"): {1: 949.0, 2: 479.0, 4: 240.0},
    ("HunyuanVideo", "4K"): {1: 2129.0, 2: 1187.0, 4: 704.0, 8: 542.0},
}
"""By model and canvas, then by GPUs."""

CACHED_S = {
    "CogVideoX-1.5": {2: (506.0, 439.0), 4: (340.0, 252.0), 8: (264.0, 187.0)},
    "HunyuanVideo": {2: (921.0, 796.0), 4: (573.0, 432.0), 8: (411.0, 289.0)},
}
"""4K with the cache: by model, then by GPUs (without, with) redistribution of the computed tiles."""

TILE_COUNT_S = {(3, 3): 400.0, (3, 4): 265.0, (3, 5): 258.0, (5, 5): 228.0}
"""CogVideoX-1.5 at 4K on 4 GPUs without cache. The paper names counts; these are the grids that divide the canvas."""

TRAFFIC_TILES = 14.0
"""Tile-equivalents that a step exchanges with redistribution."""

MODELS = tuple(CACHED_S)
