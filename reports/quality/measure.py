"""All measures of one picture or clip."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from reports.quality.edges import edge_leak
from reports.quality.fidelity import largest_difference, psnr_db, ssim
from reports.quality.flicker import flicker
from reports.quality.frames import Pixels, frames_of
from reports.quality.objects import count_objects, palette_of
from reports.quality.seams import Borders, find_seams, seam_energy
from traces.errors import BadInput


@dataclass(frozen=True, slots=True)
class Quality:
    """Figures of a picture or clip; NaN where one does not apply.

    Attributes:
        psnr_db: decibels to the reference; infinite where equal.
        ssim: structural similarity to the reference, -1..1.
        largest_difference: of a channel of a pixel to the reference, 0..1; 0 only where equal.
        seam_energy: steps along borders against those elsewhere; 1: no seams.
        seams_at: the lines where no borders were given: the grid that stands out most, as "rows 40 + 48 n".
        edge_leak: share of an edge that comes from the opposite one; about 0: none.
        flicker: share of the change between frames that smooth motion does not explain; 0: none.
        objects: regions that are not ground.
        extra_objects: objects beyond those expected, or those of the sketch; negative: some are missing.
    """

    psnr_db: float = math.nan
    ssim: float = math.nan
    largest_difference: float = math.nan
    seam_energy: float = math.nan
    seams_at: str = ""
    edge_leak: float = math.nan
    flicker: float = math.nan
    objects: float = math.nan
    extra_objects: float = math.nan

    def as_json(self) -> dict[str, float | str | None]:
        """The figures by name; None for what is not finite (equal pictures: ``largest_difference`` 0)."""
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in asdict(self).items()
        }


def measure(
    pixels: Pixels,
    reference: Pixels | None = None,
    borders: Borders | None = None,
    sketch: Pixels | None = None,
    expected_objects: float | None = None,
) -> Quality:
    """Measure a picture [height, width, 3] or clip [frames, height, width, 3], floats in 0..1.

    Args:
        pixels: what to judge.
        reference: what it should be, of the same shape.
        borders: where tiles met; without them, regular grids of seams are searched for, which sees less.
        sketch: the picture or clip at native size that the pixels were refined from.
        expected_objects: how many objects there should be, instead of as many as the sketch has.

    Raises:
        BadInput: wrong shapes or values, or a border outside the picture.
    """
    frames = frames_of(pixels)
    fidelity = (math.nan, math.nan, math.nan)
    if reference is not None:
        wanted = frames_of(reference, "reference")
        if wanted.shape != frames.shape:
            raise BadInput(f"reference: frames, height, width {wanted.shape[:3]}, expected {frames.shape[:3]}")
        fidelity = (psnr_db(frames, wanted), ssim(frames, wanted), largest_difference(frames, wanted))
    if borders is None:
        grid = find_seams(frames)
        energy, seams_at = grid.energy, str(grid)
    else:
        energy, seams_at = seam_energy(frames, borders), ""
    drawn, palette = frames, palette_of(frames)
    if sketch is not None:
        drawn = frames_of(sketch, "sketch")
        palette = palette_of(frames, palette_of(drawn))  # a part in a colour that the sketch lacks is an object, too
    objects = count_objects(frames, palette)
    if expected_objects is None:
        expected_objects = math.nan if sketch is None else count_objects(drawn, palette)
    return Quality(
        *fidelity,
        seam_energy=energy,
        seams_at=seams_at,
        edge_leak=edge_leak(frames),
        flicker=flicker(frames),
        objects=objects,
        extra_objects=objects - expected_objects,
    )
