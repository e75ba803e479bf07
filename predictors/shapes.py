"""What models compute and move: ``profiles/shapes.toml``, counted from their real configurations.

``python -m backend.shapes`` writes the table; this reads it, without torch.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path

from pydantic import BaseModel, ConfigDict, PositiveInt

from predictors.catalogue import entry_of, load_entries
from predictors.polynomial import Polynomial
from traces.geometry import ModelGeometry
from traces.request import Size
from traces.stages import STAGES


class StageShape(BaseModel):
    """One stage of a model.

    Attributes:
        parameters: parameters of its networks.
        flops: a row, multiply-adds counted twice.
        bytes: a row, read and written by operators one by one in a type of two bytes, parameters left out.
        launches: a forward, whatever the rows.
        peak_bytes: a row, most bytes that activations hold at once, likewise of two bytes.
        note: what a reader must know.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    parameters: PositiveInt
    flops: Polynomial
    bytes: Polynomial
    launches: Polynomial
    peak_bytes: Polynomial
    note: str = ""


class ModelShape(BaseModel):
    """The stages of a model.

    Attributes:
        source: whose configuration was counted.
        guidance_rows: rows of an image in a call with guidance: 2, or 1 where the denoiser takes the scale as an input
            (true CFG calls it twice).
        frame_patch: latent frames of a token of the denoiser.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str
    guidance_rows: PositiveInt = 2
    frame_patch: PositiveInt = 1
    encode: StageShape
    denoise: StageShape
    decode: StageShape

    def stage(self, name: str) -> StageShape:
        """One of encode, denoise and decode."""
        shape: StageShape = getattr(self, name)
        return shape

    @property
    def parameters(self) -> int:
        """Of the whole pipeline."""
        return self.encode.parameters + self.denoise.parameters + self.decode.parameters

    def tokens(self, stage: str, geometry: ModelGeometry, size: Size) -> tuple[int, int]:
        """(tokens of a frame, frames) of one image or clip, as the polynomials of ``stage`` count them."""
        height, width, _ = size
        area = geometry.tokens((height, width, 1))
        frames = geometry.latent_shape(size)[1]
        return area, -(-frames // self.frame_patch) if STAGES[stage].network == "denoiser" else frames


@cache
def shipped_shapes() -> dict[str, ModelShape]:
    """The models that were counted."""
    return load_entries(Path(str(files("profiles"))) / "shapes.toml", ModelShape)


def shape_of(model: str) -> ModelShape:
    """The shape of the model called so.

    Raises:
        BadInput: it was not counted.
    """
    return entry_of(shipped_shapes(), model, "model shape")
