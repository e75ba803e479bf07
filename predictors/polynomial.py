"""What one row of a batch costs, as a polynomial in its tokens.

Linear layers and convolutions do the same for every token; attention for every pair of tokens, of one frame or of the
whole clip; text, timesteps and launches for every forward. So a handful of coefficients gives back, exactly, what was
counted of a model at any size.
"""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict

TERMS = ("constant", "area", "frames", "tokens", "area_tokens", "tokens_squared")


def term_values(area: float, frames: float) -> dict[str, float]:
    """The value of each of `TERMS` for ``frames`` frames of ``area`` tokens each."""
    tokens = area * frames
    values = (1.0, float(area), float(frames), float(tokens), float(area * tokens), float(tokens * tokens))
    return dict(zip(TERMS, values, strict=True))


class Polynomial(BaseModel):
    """Coefficients of `TERMS`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    constant: float = 0.0
    area: float = 0.0
    frames: float = 0.0
    tokens: float = 0.0
    area_tokens: float = 0.0
    tokens_squared: float = 0.0

    def at(self, area: float, frames: float) -> float:
        """Its value for ``frames`` frames of ``area`` tokens each."""
        return sum([getattr(self, name) * value for name, value in term_values(area, frames).items()])

    @classmethod
    def sum(cls, polynomials: Iterable[Polynomial]) -> Polynomial:
        """The polynomial whose values are the sums of theirs."""
        added = list(polynomials)
        return cls(**{term: sum([getattr(each, term) for each in added]) for term in TERMS})
