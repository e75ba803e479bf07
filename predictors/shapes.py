"""What models compute and move: ``profiles/shapes.toml``, counted from their real configurations.

``python -m backend.shapes`` writes the table; this reads it, without torch.
"""

from __future__ import annotations

from functools import cache, cached_property
from importlib.resources import files
from pathlib import Path

from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveInt

from predictors.catalogue import entry_of, load_entries
from predictors.polynomial import Polynomial
from traces.geometry import ModelGeometry, model_called
from traces.request import Size
from traces.stages import STAGES

KINDS = ("products", "convolutions", "attention", "elementwise")
"""Kinds of operators, which reach different shares of a device's peaks: products of matrices (linear layers, and
convolutions of single pixels), other convolutions, scaled dot-product attention, and everything that moves numbers and
hardly computes."""


COUNTED_BYTES = 2
"""Of a number, in what models move."""


class KindShape(BaseModel):
    """What the operators of one of `KINDS` do in a stage.

    Attributes:
        parameters: parameters that they read in a forward; tables of embeddings are looked up, not read.
        flops: a row, multiply-adds counted twice.
        padding: a row, what fused attention computes beside them, because it rounds the width of a head up.
        bytes: a row, read and written by operators one by one in a type of two bytes, parameters left out.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    parameters: NonNegativeInt = 0
    flops: Polynomial = Polynomial()
    padding: Polynomial = Polynomial()
    bytes: Polynomial = Polynomial()


class SequenceShape(BaseModel):
    """The attention over all tokens of a row, which several devices share by heads where they share the row's tokens.

    Attributes:
        layers: that have it, each with one exchange before and one after it.
        heads: of each.
        bytes: a row, queries, keys, values and outputs of all layers, of two bytes a number.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    layers: PositiveInt
    heads: PositiveInt
    bytes: Polynomial


class BandsShape(BaseModel):
    """What devices exchange that decode a picture or clip together, each a band of its rows.

    Attributes:
        exchanges: in which they meet, over the tokens of a frame and the frames.
        edge_bytes: a row, of what lies at one edge of a band, over its latent pixels and frames: over all convolutions
            that see beyond it, of two bytes a number.
        moment_bytes: a row, of the moments of a band, over all norms.
        key_bytes: a row, keys and values of the whole picture, over all attentions, of two bytes a number.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    exchanges: Polynomial
    edge_bytes: Polynomial
    moment_bytes: Polynomial = Polynomial()
    key_bytes: Polynomial = Polynomial()


class StageShape(BaseModel):
    """One stage of a model.

    Attributes:
        parameters: parameters of its networks, which a device holds.
        products, convolutions, attention, elementwise: what operators of each kind do. Attention is the fused kernel:
            it reads queries, keys and values and writes its output.
        launches: a forward, whatever the rows.
        peak_bytes: a row, most bytes that activations hold at once, of two bytes a number.
        sequence: what a row's tokens exchange where several devices share them; None: a row cannot be shared.
        bands: what bands of a picture exchange that several devices decode; None: they do not share it.
        note: what a reader must know.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    parameters: PositiveInt
    products: KindShape = KindShape()
    convolutions: KindShape = KindShape()
    attention: KindShape = KindShape()
    elementwise: KindShape = KindShape()
    launches: Polynomial
    peak_bytes: Polynomial
    sequence: SequenceShape | None = None
    bands: BandsShape | None = None
    note: str = ""

    @cached_property
    def kinds(self) -> dict[str, KindShape]:
        """By the names of `KINDS`."""
        return {kind: getattr(self, kind) for kind in KINDS}

    @cached_property
    def flops(self) -> Polynomial:
        """A row, of all kinds."""
        return Polynomial.sum([kind.flops for kind in self.kinds.values()])

    @cached_property
    def bytes(self) -> Polynomial:
        """A row, of all kinds."""
        return Polynomial.sum([kind.bytes for kind in self.kinds.values()])


class ModelShape(BaseModel):
    """The stages of a model.

    Attributes:
        source: whose configuration was counted.
        guidance_rows: rows of an image in a call with guidance: 2, or 1 where the denoiser takes the scale as an input
            (true CFG calls it twice).
        frame_patch: latent frames of a token of the denoiser.
        prompt_numbers: numbers of a row's prompt that the denoiser is given: embeddings of every token, and pooled.
        upcasts: its decoder overflows in float16, so that it runs in float32 where the others run in float16.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str
    guidance_rows: PositiveInt = 2
    frame_patch: PositiveInt = 1
    upcasts: bool = False
    prompt_numbers: PositiveInt
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
        height, width, _, *seen = size
        is_denoiser = STAGES[stage].network == "denoiser"
        area = geometry.tokens((height, width, 1, *seen) if is_denoiser else (height, width, 1))
        frames = geometry.latent_shape(size)[1]
        return area, -(-frames // self.frame_patch) if is_denoiser else frames


@cache
def shipped_shapes() -> dict[str, ModelShape]:
    """The models that were counted; models that have all networks of another one are not among them."""
    return load_entries(Path(str(files("profiles"))) / "shapes.toml", ModelShape)


def shape_of(model: str) -> ModelShape:
    """The shape of the known model that ``model`` means, see `traces.geometry.known_model`.

    Raises:
        BadInput: there is no such model, or it was not counted.
    """
    return entry_of(shipped_shapes(), model_called(model).shape, "model shape")
