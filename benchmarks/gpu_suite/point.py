"""One thing to measure, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from traces.composition import Composition, spell

GROUPS = ("ceiling", "kernel", "step", "mix", "decode", "encode", "tile", "cached", "replay")
"""Ceilings of the device; kernels against them; whole denoising steps; mixed batches; the other stages; steps of tiled
and of cached requests; a trace for real and simulated."""

Result = dict[str, Any]
"""JSON: at least ``seconds`` (median) and ``repeats`` (all of them), or ``failed`` (why, in one line) alone."""


@dataclass(frozen=True, slots=True)
class Point:
    """One measurement.

    Attributes:
        group: one of `GROUPS`.
        name: of the model (see `benchmarks.gpu_suite.models`), ceiling or kernel.
        way: how it runs: ``eager``, ``compiled``, ``one-by-one``, ``same-size``, ``patched``, ``packed``, ...
        composition: the images or clips of the batch, sizes in pixels and frames; () where there is none.
        detail: what else tells it from others, such as the data type of a copy or a scheduler's name.
    """

    group: str
    name: str
    way: str
    composition: Composition = ()
    detail: str = ""

    @property
    def key(self) -> str:
        """Names it in files of results and on the command line."""
        parts = (self.group, self.name, self.way, spell(self.composition) if self.composition else "", self.detail)
        return "/".join(part for part in parts if part)
