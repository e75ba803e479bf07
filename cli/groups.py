"""Under which heading ``--help`` shows an option: one table for all commands, so that the same option is found alike.

A command that takes a handful of options shows them in one list; this is for the others.
"""

from __future__ import annotations

from collections.abc import Iterable

FEW = 5
"""A command with no more options than this has no headings."""

HEADINGS: dict[str, tuple[str, ...]] = {
    "Scenario": ("trace", "profile", "scheduler", "seed", "settings"),
    "Promise": ("within", "attainment", "rate", "throughput", "headroom", "growth", "months"),
    "Search": ("seeds", "replicas", "hardware", "policies", "grid", "by", "top", "bisections", "psnr", "policy"),
    "Running": (
        *("device", "dtype", "threads", "kernels", "workers", "executor", "ray_address", "devices", "engine"),
        *("per_step", "speedup", "resume"),
    ),
    "Requests": (
        *("model", "sizes", "size", "steps", "images", "batch", "requests", "prompts", "guidance_scale", "guidance"),
        *("like", "arrivals", "duration", "canvases", "caching", "guided", "users", "think", "slo", "with_model"),
    ),
    "Columns": ("mapping", "constant", "statuses"),
    "Selection": ("start", "end", "rebase", "head", "limit", "merge", "resample", "spread_seconds", "where", "add"),
    "Scaling": (
        *("rate_scale", "scale_rate", "scale_sizes", "size_factor", "min_side", "max_side", "scale_steps"),
        *("overwrite_slo",),
    ),
    "Measuring": (
        *("max_batch", "repeats", "minutes", "mixes", "cache_patch", "patch_floor", "patch", "max_age", "units"),
        *("file_format", "gpus"),
    ),
    "Tiles": ("tile", "refine", "mode", "overlap", "stand", "reuse"),
    "Output": ("output", "keep_logs", "every", "save_images", "timelines"),
}
"""The headings in the order of a page, and the parameters under each."""

_HEADING = {name: heading for heading, names in HEADINGS.items() for name in names}


def headings(names: Iterable[str]) -> dict[str, str]:
    """The heading of each option of a command by the parameter's name; empty where there are few of them."""
    names = list(names)
    return {} if len(names) <= FEW else {name: _HEADING[name] for name in names if name in _HEADING}
