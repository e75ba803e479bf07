"""One thing to measure, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from traces.composition import Composition, format_composition, parse
from traces.errors import BadInput

GROUPS = ("ceiling", "kernel", "step", "mix", "decode", "encode", "tile", "cached", "replay")
"""Ceilings of the device; kernels against them; whole denoising steps; mixed batches; the other stages; steps of tiled
and of cached requests; a trace for real and simulated."""

Result = dict[str, Any]
"""JSON: ``failed`` (why, in one line) alone, or what was measured::

    seconds           median of the repeats: one call of the kernel, one step of the batch, one decode, ...
    repeats           all of them, seconds
    first_s           of the first call, compilation included
    rows              of the batch
    peak_bytes        most that was allocated on the device, weights included; None where torch does not count
    activation_bytes  how much of it was not there before
    tflop             of one repeat, 1e12 operations, where known
    bytes             fewest that one repeat moves, where known
    copy_bytes_per_s  reads and writes of a large copy, measured beside a kernel
    error             of the output, relative to that of the stock model or of the plain kernel
    ways              of points that compare: by name what each way took, a result of its own, timed round by round with
                      the others; the point's own way is among them, and ``seconds`` is its
    computed          share of the units that a cached step computed
    tokens            of a mixed batch, or latent pixels of a UNet's
    chosen            of a mix, the fastest of the ways that are served: the own one, ``whole``, ``same-size``
    recorded          forwards that run from recorded graphs; not_recorded: why others do not, and how many
    kept_bytes        what a cache holds after a cached step
    compiled          how a step was compiled; compile_s: how long that took
    tile_s            of a step of tiles, for one
    figures           and more, of a replay: see `benchmarks.gpu_suite.replay.measure_replay`

Ways of a mix are the point's own (``patched`` or ``packed``), the `BASELINES`, ``whole`` (``same-size`` from recorded
graphs), ``reference`` (the own one with plain kernels) and, of packed ones, ``equal-tokens`` (as many tokens in images
of one size). Ways of a kernel are ``fused`` and ``reference``, of attention also ``at-once``; of a cached step its own
and ``uncached``.
"""

BASELINES = ("one-by-one", "same-size", "channels-last")
"""Ways of a mix that the stock model runs: a forward an image; a forward a size; that in the memory format that
convolutions want."""

_NONE = "-"  # in the place of no composition


@dataclass(frozen=True, slots=True)
class Point:
    """One measurement.

    Attributes:
        group: one of `GROUPS`.
        name: of the model (see `benchmarks.gpu_suite.models`), ceiling or kernel.
        way: how it runs, see `benchmarks.gpu_suite.points`.
        composition: the images or clips of the batch, sizes in pixels and frames; of tiles, their sizes; () where there
            is none.
        detail: what else tells it from others: the size of a copy, the model of a kernel, a share that is computed.
    """

    group: str
    name: str
    way: str
    composition: Composition = ()
    detail: str = ""

    @property
    def key(self) -> str:
        """Names it in files of results and on the command line: ``step/sdxl/eager/1@512x512``."""
        parts = [self.group, self.name, self.way, format_composition(self.composition) or _NONE, self.detail]
        while parts[-1] in ("", _NONE):
            parts.pop()
        return "/".join(parts)

    @classmethod
    def of_key(cls, key: str) -> Point:
        """The point of a `key`.

        Raises:
            BadInput: no point has it.
        """
        parts = key.split("/", 4)
        if len(parts) < 3 or parts[0] not in GROUPS:
            raise BadInput(f"{key!r} names no point, expected group/name/way[/composition[/detail]]")
        composition = parse(parts[3]) if len(parts) > 3 and parts[3] != _NONE else ()
        return cls(*parts[:3], composition, parts[4] if len(parts) > 4 else "")
