"""Seconds of a whole request alone, stage by stage; the same sum for whatever answers for the stages."""

from __future__ import annotations

from typing import Protocol

from traces.composition import Composition
from traces.request import Request
from traces.stages import Recipe, ordinary


class StageSeconds(Protocol):
    """What answers for a step of a stage.

    One that knows of other requests than ordinary ones also has ``recipe(request)``: the (stage, steps) of a request.
    """

    def seconds(self, stage: str, composition: Composition, guided: float = 1.0) -> float:
        """Seconds of one step."""
        ...


def recipe_of(costs: StageSeconds, request: Request) -> Recipe:
    """The (stage, steps) of a request, as ``costs`` knows them; by default encode, its denoising steps, decode."""
    known = getattr(costs, "recipe", None)
    if known is None:
        return ordinary(request)
    recipe: Recipe = known(request)
    return recipe


def standalone(costs: StageSeconds, request: Request) -> float:
    """Seconds of a request alone on an idle replica."""
    alone = ((request.size, request.images),)
    whole_s = 0.0
    for stage, steps in recipe_of(costs, request):
        whole_s += steps * costs.seconds(stage, alone, request.guided)
    return whole_s
