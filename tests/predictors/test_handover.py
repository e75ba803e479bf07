"""What stages hand on, in bytes, and the seconds of it."""

from __future__ import annotations

import pytest

from predictors.costs import Batch, CostModel
from predictors.handover import USUAL_PROMPT_NUMBERS, HandedOn, StageCosts
from predictors.link import Link
from predictors.shapes import shape_of, shipped_shapes
from traces.geometry import geometry_of
from traces.request import Request
from traces.stages import RECEIVE

CLIP = (480, 832, 81)
BATCH = Batch("wan-1.3b", ((CLIP, 2),), 0.5)


class Flat(CostModel):
    """A second a step on any of two devices."""

    def step_s(self, stage: str, batch: Batch) -> float:
        return 1.0

    def degrees(self, model: str) -> tuple[int, ...]:
        return 1, 2


def on(*stages: str) -> StageCosts:
    handed_on = HandedOn(geometry_of("wan-1.3b"), shape_of("wan-1.3b"), 2.0)
    return StageCosts(Flat(), stages, handed_on, Link(0.5, 1e6))


def test_a_decoder_gets_latents_and_a_denoiser_embeddings() -> None:
    latents = 4 * 2 * 16 * 21 * 60 * 104
    embeddings = 2 * 3 * 512 * 4096  # a clip has a prompt, with guidance two
    assert on("decode").moved_bytes(RECEIVE, BATCH) == latents
    assert (
        on("denoise").moved_bytes(RECEIVE, BATCH) == on("denoise", "decode").moved_bytes(RECEIVE, BATCH) == embeddings
    )
    assert on("encode", "decode").moved_bytes(RECEIVE, BATCH) == latents
    assert on("encode", "denoise").moved_bytes(RECEIVE, BATCH) == 0.0
    assert on("decode").step_s(RECEIVE, BATCH) == 0.5 + latents / 1e6
    assert not on("decode").extrapolates(RECEIVE, BATCH.composition)


def test_of_all_else_the_table_is_asked() -> None:
    costs = on("encode", "decode")
    assert costs.step_s("decode", BATCH) == 1.0
    assert costs.moved_bytes("reshard", BATCH) == 0.0
    asked = Request("a", 0.0, *CLIP[:2], 20, frames=CLIP[2])
    assert costs.recipe(asked) == (("encode", 1), ("decode", 1))
    assert costs.standalone_s(asked) == 2.0
    assert (costs.degrees("wan-1.3b"), on("encode").degrees("wan-1.3b")) == ((1, 2), (1,))


def test_a_model_that_was_not_counted_has_the_embeddings_of_a_t5() -> None:
    handed_on = HandedOn(geometry_of("wan-1.3b"))
    assert handed_on.bytes("embeddings", BATCH) == 6 * USUAL_PROMPT_NUMBERS


@pytest.mark.parametrize(
    ("model", "numbers"),
    [("sd15", 77 * 768), ("sdxl", 77 * 2048 + 1280 + 6), ("flux", 512 * 4096 + 768), ("wan-1.3b", 512 * 4096)],
)
def test_prompts_are_counted_as_the_denoiser_is_given_them(model: str, numbers: int) -> None:
    assert shipped_shapes()[model].prompt_numbers == numbers
