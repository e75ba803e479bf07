"""Workloads: the recipe of a trace, to generate one from, to fit to one, to keep in a TOML file."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from traces.arrivals import Arrivals, Burst, DailyProfile, Gamma, Poisson, parse_arrivals
from traces.errors import BadInput, first_problem
from traces.files import write_document
from traces.geometry import model_called
from traces.marks import OutputKind
from traces.mix import Mix, parse_count, parse_counts
from traces.request import Size
from traces.sizes import format_size, parse_size
from traces.streams import stream
from traces.text import parse_toml, read_text
from traces.trace import Trace

WORKLOAD = OutputKind("workload")
T = TypeVar("T")

POISSON_CV = (0.9, 1.1)
"""Fitted intervals whose CV lies in this range are called Poisson."""


@dataclass(frozen=True)
class Workload:
    """How often requests arrive and what they ask for, every property drawn independently of the others.

    Attributes:
        rate: requests a second, mean over a day.
        sizes: (height, width, frames), px.
        arrivals: the process, and the course of the day.
        steps: denoising steps.
        images: pictures a request.
        model: what all requests ask for.
        guidance_scale: guidance scale of all requests.
        negative_prompt: negative prompt of all requests; true CFG needs one.
    """

    rate: float
    sizes: Mix[Size]
    arrivals: Arrivals = Arrivals(Poisson())  # noqa: RUF009 - frozen
    steps: Mix[int] = Mix((30,), (1.0,))  # noqa: RUF009 - frozen
    images: Mix[int] = Mix((1,), (1.0,))  # noqa: RUF009 - frozen
    model: str = ""
    guidance_scale: float = 5.0
    negative_prompt: str = ""

    @classmethod
    def asking(cls, model: str, rate: float, **given: Any) -> Workload:
        """Requests as the known model ``model`` is asked where nobody says, but for what is ``given``.

        Raises:
            BadInput: no such model.
        """
        known = model_called(model)
        defaults = known.defaults
        by_true_cfg = defaults.guided and known.geometry.guidance == "true"
        asked: dict[str, Any] = {
            "sizes": Mix((defaults.size,), (1.0,)),
            "steps": Mix((defaults.steps,), (1.0,)),
            "guidance_scale": defaults.guidance_scale,
            "negative_prompt": " " if by_true_cfg else "",
        }
        return cls(rate, model=known.geometry.name, **{**asked, **given})

    def generate(self, duration_s: float, rate_scale: float = 1.0, rng: np.random.Generator | None = None) -> Trace:
        """A trace of ``duration_s`` seconds at ``rate_scale`` times the rate.

        Each property is drawn from a child of ``rng`` (default: stream 0 "workload"), so a change in one mix
        leaves everything else as it was.

        Raises:
            BadInput: a rate or duration that is not above 0, or values that no request can have.
        """
        rng = stream(0, "workload") if rng is None else rng
        for_arrivals, for_sizes, for_steps, for_images, for_seeds = rng.spawn(5)
        times = self.arrivals.times(self.rate * rate_scale, duration_s, for_arrivals)
        count = len(times)
        sizes = np.array(self.sizes.draw(count, for_sizes), dtype=np.int64).reshape(count, 3)
        frame = pd.DataFrame(
            {
                "arrival_s": times,
                "height": sizes[:, 0],
                "width": sizes[:, 1],
                "frames": sizes[:, 2],
                "steps": np.array(self.steps.draw(count, for_steps), dtype=np.int64),
                "images": np.array(self.images.draw(count, for_images), dtype=np.int64),
                "model": self.model,
                "seed": for_seeds.integers(2**31, size=count),
                "guidance_scale": self.guidance_scale,
                "negative_prompt": self.negative_prompt,
            }
        )
        return Trace.from_frame(frame, "workload")

    def save(self, path: Path | str) -> None:
        """Write the workload as TOML, to be edited by hand.

        Raises:
            BadInput: a path that must not be written, see `traces.output`.
        """
        write_document(WORKLOAD.comment(self.to_toml(), ".toml"), Path(path), WORKLOAD)

    @classmethod
    def load(cls, path: Path | str) -> Workload:
        """Read a workload that `save` wrote or a person edited.

        Raises:
            BadInput: the file is missing or not TOML, an unknown or missing key, or a bad value.
        """
        return cls.from_toml(read_text(Path(path)), str(path))

    def to_toml(self) -> str:
        """The workload as TOML text."""
        lines = [
            f"rate = {float(self.rate)!r}  # requests a second, mean over a day",
            f'arrivals = "{self.arrivals.burst.spell()}"  # poisson, gamma:CV or mmpp:RATIO:SECONDS',
        ]
        if self.arrivals.profile is not None:
            rates = ", ".join(repr(rate) for rate in self.arrivals.profile.rates)
            lines.append(f"profile = [{rates}]  # relative rates in equal parts of a day, from time 0 of the trace")
        lines += [f"model = {_quoted(self.model)}", f"guidance_scale = {float(self.guidance_scale)!r}"]
        lines += [f"negative_prompt = {_quoted(self.negative_prompt)}"] if self.negative_prompt else []
        lines += [
            "",
            "[sizes]  # height x width [x frames] = weight",
            *_table([format_size(s) for s in self.sizes.values], self.sizes),
        ]
        lines += ["", "[steps]  # denoising steps = weight", *_table(self.steps.values, self.steps)]
        lines += ["", "[images]  # images a request = weight", *_table(self.images.values, self.images)]
        return "\n".join(lines) + "\n"

    @classmethod
    def from_toml(cls, text: str, source: str = "workload") -> Workload:
        """The workload in TOML text; ``source`` names it in messages.

        Raises:
            BadInput: as `load`.
        """
        document = parse_toml(text, source)
        try:
            return _Document.model_validate(document).workload()
        except ValidationError as error:
            raise BadInput(f"{source}: {first_problem(error, _Document)}") from None
        except BadInput as error:
            raise BadInput(f"{source}: {error}") from None


Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Document(BaseModel):
    """A workload in TOML: see `Workload.to_toml`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    rate: float
    sizes: dict[str, Weight]
    arrivals: str = "poisson"
    profile: list[Weight] | None = None
    steps: dict[str, Weight] = {"30": 1.0}
    images: dict[str, Weight] = {"1": 1.0}
    model: str = ""
    guidance_scale: float = 5.0
    negative_prompt: str = ""

    def workload(self) -> Workload:
        arrivals = parse_arrivals(self.arrivals)
        if self.profile is not None:
            if arrivals.profile is not None:
                raise BadInput("both a profile and arrivals with one, expected at most one of them")
            arrivals = Arrivals(arrivals.burst, DailyProfile(tuple(self.profile)))
        return Workload(
            rate=self.rate,
            sizes=_mix(self.sizes, parse_size),
            arrivals=arrivals,
            steps=_mix(self.steps, partial(parse_count, field="steps")),
            images=_mix(self.images, partial(parse_count, field="images")),
            model=self.model,
            guidance_scale=self.guidance_scale,
            negative_prompt=self.negative_prompt,
        )


def _mix(table: Mapping[str, float], value: Callable[[str], T]) -> Mix[T]:
    return Mix(tuple(map(value, table)), tuple(table.values()))


def generate(
    rate: float,
    duration_s: float,
    sizes: Mix[Size],
    *,
    arrivals: str = "poisson",
    steps: str = "30",
    images: str = "1",
    model: str = "",
    seed: int = 0,
) -> Trace:
    """A trace of ``rate`` requests a second for ``duration_s`` seconds; the texts are as on the command line.

    Raises:
        BadInput: a text that spells nothing, or a value out of range.
    """
    workload = Workload(
        rate,
        sizes,
        parse_arrivals(arrivals),
        parse_counts(steps, "steps"),
        parse_counts(images, "images"),
        model,
    )
    return workload.generate(duration_s, rng=stream(seed, "workload"))


def fit(trace: Trace) -> Workload:
    """The workload that is like ``trace``: rate, burstiness, course of the day, and empirical mixes.

    Intervals are called Poisson when their CV is near 1 and gamma otherwise. A trace that touches 48 hours of
    its clock also gives an hourly profile, and its CV is taken with the profile removed. Properties are
    fitted one by one; how they depend on each other is not. Deadlines, prompts, priorities and tenants are
    not fitted; where most requests have a negative prompt, all get one, a space.

    Raises:
        BadInput: fewer than two requests, all at one time, or requests for several models.
    """
    summary = trace.summary()
    if not summary.span_s > 0:
        raise BadInput(
            f"{trace.source}: a workload needs requests at two times or more, the trace has {len(trace)} requests"
        )
    if len(summary.models) > 1:
        models = ", ".join(map(repr, summary.models))
        raise BadInput(f"{trace.source}: requests for several models, expected one: {models}")
    frame = trace.frame
    arrival = frame["arrival_s"].to_numpy()
    profile = DailyProfile.fit(arrival) if _hours_touched(arrival) >= 48 else None
    even = arrival if profile is None else profile.operational(arrival)
    gaps = np.diff(even)
    return Workload(
        rate=len(gaps) / float(even[-1] - even[0]),
        sizes=Mix.of(summary.sizes),
        arrivals=Arrivals(_burst(float(gaps.std() / gaps.mean())), profile),
        steps=Mix.of(summary.steps),
        images=Mix.of(summary.images_per_request),
        model=next(iter(summary.models)),
        guidance_scale=float(frame["guidance_scale"].mode().iloc[0]),
        negative_prompt=" " if (frame["negative_prompt"] != "").mean() > 0.5 else "",
    )


def _hours_touched(arrival: npt.NDArray[Any]) -> int:
    return math.ceil(arrival[-1] / 3600) - math.floor(arrival[0] / 3600)


def _burst(cv: float) -> Burst:
    low, high = POISSON_CV
    return Poisson() if low <= cv <= high else Gamma(round(min(max(cv, 0.01), 100.0), 4))


def _table(keys: Sequence[object], mix: Mix[Any]) -> list[str]:
    return [f'"{key}" = {weight:.17g}' for key, weight in zip(keys, mix.weights, strict=True)]


def _quoted(text: str) -> str:
    """A TOML basic string (JSON's escapes are among TOML's)."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
