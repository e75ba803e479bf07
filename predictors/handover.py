"""What one stage hands on to the next when that runs on another replica, in bytes, and the seconds that it takes.

Where a pool serves some stages (`policies.legs`), a request that begins there brings along what the stage before has
made: the embeddings of its prompt (with classifier-free guidance those of two), or its latents.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from predictors.costs import Batch, CostLayer, CostModel
from predictors.degrees import latent_bytes
from predictors.link import Link
from predictors.shapes import ModelShape
from traces.composition import Composition
from traces.geometry import ModelGeometry
from traces.request import Request
from traces.stages import ORDINARY, STAGES, Recipe

USUAL_PROMPT_NUMBERS = 512 * 4096
"""Numbers of a prompt's embeddings, of a model of which they were not counted: 512 tokens of a T5, as Flux and Wan
have."""


@dataclass(frozen=True)
class HandedOn:
    """What the stages of a model hand on; every picture counts as one with a prompt of its own.

    Attributes:
        geometry: of the model.
        shape: of the model; None: it was not counted.
        number_bytes: bytes of a number of embeddings.
    """

    geometry: ModelGeometry
    shape: ModelShape | None = None
    number_bytes: float = 2.0

    def bytes(self, what: str, batch: Batch) -> float:
        """Of the requests of a batch: their ``embeddings`` or their ``latents``."""
        if what == "latents":
            return latent_bytes(self.geometry, batch.composition)
        images = sum([count for _, count in batch.composition])
        numbers = USUAL_PROMPT_NUMBERS if self.shape is None else self.shape.prompt_numbers
        return images * (1 + batch.guided_share) * numbers * self.number_bytes


class StageCosts(CostLayer):
    """What steps of one model cost on a pool that serves some stages of it, and what comes to it from others.

    Args:
        table: seconds of all stages.
        stages: that it serves.
        handed_on: what the model's stages hand on.
        link: by which it comes.
    """

    def __init__(self, table: CostModel, stages: Collection[str], handed_on: HandedOn, link: Link) -> None:
        super().__init__(table)
        self.stages = frozenset(stages)
        self.handed_on = handed_on
        self.link = link
        before = dict(zip(ORDINARY[1:], ORDINARY, strict=False))
        received = [before[stage] for stage in ORDINARY[1:] if stage in stages and before[stage] not in stages]
        self._received = [STAGES[stage].hands_on for stage in received]

    def step_s(self, stage: str, batch: Batch) -> float:
        if STAGES[stage].receives:
            return self.link.seconds(self.moved_bytes(stage, batch), 1)
        return self.table.step_s(stage, batch)

    def moved_bytes(self, stage: str, batch: Batch) -> float:
        if STAGES[stage].receives:
            return sum([self.handed_on.bytes(what, batch) for what in self._received])
        return self.table.moved_bytes(stage, batch)

    def recipe(self, request: Request) -> Recipe:
        """What a request goes through here."""
        return tuple([each for each in self.table.recipe(request) if each[0] in self.stages])

    def degrees(self, model: str) -> tuple[int, ...]:
        """One device where no stage is divided here."""
        return self.table.degrees(model) if any(STAGES[stage].divides for stage in self.stages) else (1,)

    def extrapolation(self, stage: str, composition: Composition) -> float:
        return 1.0 if STAGES[stage].moves else super().extrapolation(stage, composition)
