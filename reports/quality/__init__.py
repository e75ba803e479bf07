"""What tiling, caching and other shortcuts do to pictures and clips, in figures that a planted fault raises.

An average score does not see a seam, a leak or a copied object, so each kind of damage has a measure of its own. All
work on plain arrays: floats in 0..1, ``[height, width, 3]`` a picture, ``[frames, height, width, 3]`` a clip.
"""

from reports.quality.measure import Quality, measure
from reports.quality.seams import Borders

__all__ = ["Borders", "Quality", "measure"]
