"""The table of stages: what a request goes through, and all that anybody asks of a stage by its name.

Nothing else compares names of stages. A stage to add is a row here, a place in the recipe of the requests that go
through it, and a handler in `backend.executor`; what batches, counts, costs and reports asks the row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from traces.errors import BadInput, did_you_mean
from traces.request import Request

Recipe = tuple[tuple[str, int], ...]
"""The stages of a request in order, with the steps of each."""

ORDINARY = ("encode", "denoise", "decode")
"""What a request that is not tiled goes through: text to embeddings, the denoising steps, latents to pixels."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage.

    Attributes:
        name: as recipes, profiles and run logs spell it.
        network: the part of a model that runs: ``text``, ``denoiser``, ``vae``, or ``""`` for none. Classifier-free
            guidance doubles the work of the first two.
        prepares: comes before the first denoising step; a request that waits does it before it can join a batch.
        finishes: comes after the last denoising step; a request that only needs this goes first, to free its place.
        sampler: its steps are those of a sampler, and count as denoising steps.
        mixes: requests of several sizes can share its launches.
        resumes: a request whose replica failed can be asked for again with only the steps that it lacks.
        weights: brings weights onto a replica, and takes what it is said to take, without noise.
        moves: brings what lies of requests onto other devices, and takes what it is said to take, without noise.
        receives: brings what another replica has handed on.
        hands_on: what the next stage needs of it, when that runs elsewhere.
        serves: its launches hold requests.
        devices: a step shares out tiles over all devices of a replica; other stages of tiled requests run on the first.
        divides: a step can be divided over the devices of its launch: one of a sampler is, another where its costs say
            that this is faster. Other stages run on the first of them.
        cache: what a cache counts its work in, ``blocks`` or ``tiles``; ``""``: none looks after it.
        canvas: what it sees of a tiled request: the ``whole`` canvas, its ``sketch`` or its ``tiles``.
        measured: profiles have rows of it.
        priced_as: the measured stage whose seconds and noise stand for its own; ``""``: itself.
        turn: whose turn it is when requests that run together are in several stages, the least first.
    """

    name: str
    network: str = ""
    prepares: bool = False
    finishes: bool = False
    sampler: bool = False
    mixes: bool = True
    resumes: bool = True
    weights: bool = False
    moves: bool = False
    receives: bool = False
    hands_on: str = ""
    serves: bool = True
    devices: bool = False
    divides: bool = False
    cache: str = ""
    canvas: str = "whole"
    measured: bool = False
    priced_as: str = ""
    turn: int = 0

    @property
    def guided(self) -> bool:
        """Whether classifier-free guidance doubles its work."""
        return self.network in ("text", "denoiser")

    @property
    def by_executor(self) -> bool:
        """Whether the executor of a model decides how its batches run; other stages run whole."""
        return self.network == "denoiser" and self.mixes

    @property
    def costs_of(self) -> str:
        """The measured stage whose seconds and noise are its own."""
        return self.priced_as or self.name


class Stages(dict[str, Stage]):
    """Stages by name.

    Raises:
        BadInput: a name that is none, when it is looked up.
    """

    def __missing__(self, name: str) -> Stage:
        raise BadInput(f"unknown stage {name!r}; {did_you_mean(name, self)}")

    def named(self, chosen: Callable[[Stage], object]) -> tuple[str, ...]:
        """The names of the stages for which ``chosen`` holds, in the order of the table."""
        return tuple([name for name, stage in self.items() if chosen(stage)])


_ROWS = (
    Stage("load", weights=True, serves=False),
    Stage("adapt", weights=True),
    Stage("receive", moves=True, receives=True),
    Stage("reshard", moves=True),
    Stage("encode", "text", prepares=True, hands_on="embeddings", canvas="sketch", measured=True, turn=1),
    Stage(
        "denoise",
        "denoiser",
        sampler=True,
        hands_on="latents",
        divides=True,
        cache="blocks",
        measured=True,
        turn=5,
    ),
    Stage("sketch", "denoiser", sampler=True, mixes=False, resumes=False, canvas="sketch", priced_as="denoise", turn=4),
    Stage("upscale", "vae", mixes=False, resumes=False, measured=True, turn=2),
    Stage(
        "refine",
        "denoiser",
        sampler=True,
        mixes=False,
        resumes=False,
        devices=True,
        cache="tiles",
        canvas="tiles",
        measured=True,
        priced_as="denoise",
        turn=3,
    ),
    Stage("decode", "vae", finishes=True, divides=True, measured=True, turn=0),
)
STAGES = Stages({row.name: row for row in _ROWS})
"""Every stage, in the order in which a request meets them."""


(RECEIVE,) = STAGES.named(lambda stage: stage.receives)
"""The stage in which a replica gets what another has handed on."""


def ordinary(request: Request) -> Recipe:
    """The recipe of a request that is not tiled."""
    return (("encode", 1), ("denoise", request.steps), ("decode", 1))
