"""Traces: what was, or will be, asked of a server, in order of arrival."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from traces.columns import DTYPES, OPTIONAL, TEXT, Cells, canonical
from traces.errors import BadInput
from traces.exact import stacked
from traces.files import read_frame, write_frame
from traces.geometry import GEOMETRIES, ModelGeometry
from traces.limits import POSITIVE_SPAN
from traces.marks import OutputKind
from traces.mix import Mix
from traces.references import UNKNOWN, Reference, Sides, pictures_of
from traces.request import Request, Size
from traces.sizes import scaled_sides
from traces.strength import ImageToImage
from traces.summary import Summary, summarise

TRACE = OutputKind("trace", columns=tuple(DTYPES))

_SKIPPED_OF = 50
_FIELDS = tuple(field.name for field in fields(Request))
_BY_ITSELF = ("request_id", "arrival_s", "prompt", "seed", "deadline_s", "slo_s", "priority", "tenant")
"""What can differ between requests of which the same is computed."""
_COMPUTED = [name for name in _FIELDS if name not in _BY_ITSELF]


class Trace:
    """Requests in order of arrival, immutable.

    A trace is a table with one column per field of `Request`; further columns (what an importer kept, say
    ``exec_s``) go along through every transformation and file. ``source`` names where it came from, for
    messages. Every transformation returns a new trace.
    """

    __slots__ = ("_frame", "_requests", "source")

    def __init__(self, frame: pd.DataFrame, source: str) -> None:
        """For a frame that is canonical already; otherwise use `from_frame`, `from_requests` or `load`."""
        self._frame = frame
        self._requests: list[Request] | None = None
        self.source = source

    def __reduce__(self) -> tuple[type[Trace], tuple[pd.DataFrame, str]]:
        """A copy, or what another process is given, makes its requests itself."""
        return Trace, (self._frame, self.source)

    @classmethod
    def from_frame(
        cls,
        frame: pd.DataFrame,
        source: str = "trace",
        *,
        rows: Sequence[int] | None = None,
        columns: Mapping[str, str] | None = None,
    ) -> Trace:
        """The trace in a table, checked and sorted by arrival.

        Args:
            frame: needs arrival_s, height, width and steps; request_id defaults to the row number.
            source: what messages call the table, usually the file.
            rows: the data row in the user's file of each row, if they are not 1, 2, 3, ...
            columns: the user's column that a field was made from, where the names differ.

        Raises:
            BadInput: a missing column, or the first bad cell (source, row, field, value, what is right).
        """
        return cls(canonical(frame, Cells(source, rows, columns)), source)

    @classmethod
    def from_requests(cls, requests: Iterable[Request], source: str = "requests") -> Trace:
        """The trace of these requests.

        Raises:
            BadInput: two requests with the same id.
        """
        listed = list(requests)
        columns = {name: [getattr(request, name) for request in listed] for name in _FIELDS}
        return cls.from_frame(pd.DataFrame(columns), source)

    @classmethod
    def load(cls, path: Path | str) -> Trace:
        """Read a .parquet, .csv or .jsonl file (the latter two also as .gz).

        Raises:
            BadInput: the file is missing, empty, damaged or of another type, or holds a bad cell.
        """
        return cls.from_frame(read_frame(Path(path), text=TEXT), str(path))

    def save(self, path: Path | str) -> None:
        """Write a .parquet, .csv or .jsonl file, whole or not at all.

        Raises:
            BadInput: another suffix, or a path that must not be written, see `traces.output`.
        """
        write_frame(self._frame, Path(path), TRACE)

    @property
    def frame(self) -> pd.DataFrame:
        """A copy of the table: the canonical columns, then the extra ones; sorted by arrival_s."""
        return self._frame.copy()

    @property
    def span(self) -> tuple[float, float]:
        """First and last arrival, seconds on the trace's clock; (0, 0) without requests."""
        arrival = self._frame["arrival_s"]
        return (float(arrival.iloc[0]), float(arrival.iloc[-1])) if len(arrival) else (0.0, 0.0)

    def requests(self) -> list[Request]:
        """The requests, in order of arrival: the same objects every time, in a list of the caller's own."""
        if self._requests is None:
            self._requests = [Request(*row) for row in self._cells(_FIELDS)]
        return list(self._requests)

    def one_of_each_kind(self) -> list[Request]:
        """The first request of each kind: of all of which the same is computed but for prompt and seed."""
        first, _ = self._kinds()
        return self._rows(first).requests()

    def _kinds(self) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """The row of the first request of each kind, in order, and the kind of every row."""
        kinds: dict[tuple[Any, ...], int] = {}
        kind = np.array([kinds.setdefault(row, len(kinds)) for row in self._cells(_COMPUTED)], dtype=np.intp)
        return np.unique(kind, return_index=True)[1], kind

    def _cells(self, names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        """What every row has in these columns, None where nothing is given."""
        columns = [
            [None if value != value else value for value in self._frame[name].tolist()]
            if name in OPTIONAL
            else self._frame[name].tolist()
            for name in names
        ]
        return zip(*columns, strict=True)

    def __len__(self) -> int:
        return len(self._frame)

    def __iter__(self) -> Iterator[Request]:
        return iter(self.requests())

    def __repr__(self) -> str:
        return f"Trace({self.source!r}, {len(self)} requests)"

    def summary(self) -> Summary:
        """What is asked, in figures."""
        return summarise(self._frame)

    def check(self, geometry: ModelGeometry) -> None:
        """Raise BadInput for the first request whose size the model cannot make."""
        f, m = self._frame, geometry.size_multiple
        wrong = (f["height"] % m != 0) | (f["width"] % m != 0) | ((f["frames"] - 1) % geometry.frame_factor != 0)
        if wrong.any():
            position = int(np.argmax(wrong.to_numpy()))
            [request] = self._rows(np.array([position])).requests()
            try:
                geometry.check(request)
            except BadInput as error:
                raise BadInput(f"{self.source}: {error}") from None

    def slice(self, start_s: float = 0.0, end_s: float = math.inf, *, rebase: bool = True) -> Trace:
        """The requests that arrive in [start_s, end_s); with ``rebase``, ``start_s`` becomes time 0.

        Raises:
            BadInput: the span is empty or starts before 0.
        """
        if not 0 <= start_s < end_s:
            raise BadInput(f"slice from {start_s} to {end_s} s, expected 0 <= start < end")
        arrival = self._frame["arrival_s"].to_numpy()
        part = self._rows(np.flatnonzero((arrival >= start_s) & (arrival < end_s)))
        return part._arriving(part._frame["arrival_s"].to_numpy() - start_s) if rebase else part

    def rebased(self) -> tuple[Trace, float]:
        """The same requests with time 0 at the first arrival, and the seconds that were taken off every time."""
        first_s, _ = self.span
        return self._arriving(self._frame["arrival_s"].to_numpy() - first_s), first_s

    def head(self, n: int) -> Trace:
        """The first ``n`` requests."""
        if n < 0:
            raise BadInput(f"the first {n} requests, expected a number of at least 0")
        return self._rows(np.arange(min(n, len(self))))

    def scale_rate(self, factor: float) -> Trace:
        """The same requests ``factor`` times as fast: arrivals are divided by it, spans to deadlines stay.

        Raises:
            BadInput: a factor that is not above 0, or so small that times overflow.
        """
        if not (factor > 0 and math.isfinite(factor)):
            raise BadInput(f"rate factor is {factor}, expected a number above 0")
        with np.errstate(over="ignore"):
            arrival = self._frame["arrival_s"].to_numpy() / factor
        if not np.isfinite(arrival).all():
            raise BadInput(f"rate factor {factor} moves arrivals beyond what a number can hold")
        return self._arriving(arrival)

    def scale_sizes(
        self,
        to: ModelGeometry,
        factor: float | None = None,
        *,
        minimum: int | None = None,
        maximum: int | None = None,
    ) -> Trace:
        """The same requests in sizes that the model ``to`` can make, and asking for that model.

        Args:
            to: the model that shall run them.
            factor: factor of each side; by default the ratio of the two models' native sizes, per request.
            minimum: no side below this, px.
            maximum: no side above this, px.

        Frames are rounded down to what ``to`` can make. See `traces.sizes.scaled_sides` for the rounding.

        Raises:
            BadInput: no factor, and a request whose model is not known; a bad factor or limits.
        """
        f = self._frame
        factors: npt.NDArray[Any] | float = self._native_factors(to) if factor is None else factor
        sides = scaled_sides(f[["height", "width"]].to_numpy(), factors, to, minimum, maximum)
        frames = 1 + (f["frames"] - 1) // to.frame_factor * to.frame_factor
        return self._with(height=sides[:, 0], width=sides[:, 1], frames=frames, model=to.name)

    def with_steps(self, scale: float) -> Trace:
        """The same requests with ``scale`` times the denoising steps, rounded, at least 1."""
        if not (scale > 0 and math.isfinite(scale)):
            raise BadInput(f"steps factor is {scale}, expected a number above 0")
        steps = np.clip(np.floor(self._frame["steps"] * scale + 0.5), 1, np.iinfo("int32").max)
        return self._with(steps=steps)

    def with_schedules(self, image_to_image: ImageToImage) -> Trace:
        """The same requests with the denoising steps that an image-to-image pipeline makes of those asked for.

        Strengths that are not given become the pipeline's own. Requests that have a schedule already stay.

        Raises:
            BadInput: a strength that leaves no step.
        """
        frame = self._frame
        strength = frame["strength"].fillna(image_to_image.strength)
        known = frame["schedule_steps"].to_numpy() > 0
        steps = [
            asked if has else image_to_image.steps(asked, share)
            for asked, share, has in zip(frame["steps"].tolist(), strength.tolist(), known.tolist(), strict=True)
        ]
        if 0 in steps:
            row = frame.iloc[steps.index(0)]
            raise BadInput(
                f"{self.source}: request {row['request_id']!r}: strength {strength.iloc[steps.index(0)]} of "
                f"{row['steps']} steps leaves none to make; expected more strength or steps"
            )
        schedule = np.where(known, frame["schedule_steps"], frame["steps"])
        return self._with(steps=np.array(steps), strength=strength, schedule_steps=schedule)

    def with_references(self, reference: Reference, multiple: int, sides: Callable[[str], Sides]) -> Trace:
        """The same requests with the pixels that an editing pipeline sees of their pictures.

        Requests that say so themselves stay.

        Args:
            reference: the pipeline's way.
            multiple: pixels of a token along one side.
            sides: of a picture, by its name.

        Raises:
            BadInput: a request with several pictures for a pipeline that sees one.
        """
        frame = self._frame
        asked = frame["image"]
        seen: dict[str, int] = {}
        for image in asked.unique():
            names = pictures_of(image)
            if len(names) > 1 and not reference.several:
                name = frame["request_id"].iloc[int(np.argmax((asked == image).to_numpy()))]
                raise BadInput(
                    f"{self.source}: request {name!r}: image names {len(names)} pictures, expected one: the pipeline "
                    "sees no more"
                )
            shown = [sides(name) for name in names] or [UNKNOWN] * reference.needed
            seen[image] = reference.pixels(shown, multiple)
        given = frame["reference_pixels"].to_numpy()
        return self._with(reference_pixels=np.where(given > 0, given, asked.map(seen).to_numpy(dtype=np.int64)))

    def with_step_reduction(self, share: float, skip: Mix[int], rng: np.random.Generator) -> Trace:
        """The same requests where some skip their first denoising steps, as NIRVANA does (NSDI 2024).

        NIRVANA looks for a similar earlier picture and starts from its latents. Here a ``share`` of the requests finds
        one, whichever they ask for, and skips a number of steps drawn from ``skip``, counted in steps of 50 and scaled
        to the steps it asks for; at least one is left. A larger share only adds to the requests that skip, by as much
        as before. Deadlines stay.

        Raises:
            BadInput: a share that is not in 0..1, or a skip of 50 or more.
        """
        if not 0 <= share <= 1:
            raise BadInput(f"share of requests that skip steps is {share}, expected 0 to 1")
        if max(skip.values) >= _SKIPPED_OF:
            raise BadInput(f"skip is {max(skip.values)} of {_SKIPPED_OF} steps, expected fewer than {_SKIPPED_OF}")
        finds = rng.random(len(self)) < share
        skipped = np.where(finds, np.asarray(skip.draw(len(self), rng), dtype=float) / _SKIPPED_OF, 0.0)
        steps = self._frame["steps"].to_numpy()
        return self._with(steps=np.maximum(1, steps - np.floor(steps * skipped + 0.5)))

    def resample(self, n: int, rng: np.random.Generator) -> Trace:
        """``n`` requests drawn with replacement, arriving at intervals drawn with replacement (a bootstrap).

        Ids are row numbers again; the first request arrives one interval after 0.

        Raises:
            BadInput: fewer than 2 requests to draw from, or ``n`` below 1.
        """
        if len(self) < 2 or n < 1:
            raise BadInput(f"{self.source}: cannot draw {n} requests from {len(self)}, expected at least 1 from 2")
        gaps = rng.choice(np.diff(self._frame["arrival_s"].to_numpy()), size=n)
        return self.rearranged(rng.integers(len(self), size=n), np.cumsum(gaps))

    def rearranged(self, rows: npt.NDArray[np.intp], arrival_s: npt.NDArray[np.float64]) -> Trace:
        """These requests, by position and as often as named, at these times (ascending); ids are row numbers again."""
        ids = [str(row) for row in range(1, len(rows) + 1)]
        return self._rows(rows)._with(request_id=ids)._arriving(arrival_s)

    def merge(self, *others: Trace) -> Trace:
        """All requests of this trace and of others on one clock; ids become ``0:id``, ``1:id``, ..."""
        parts = [
            part._frame.assign(request_id=[f"{number}:{name}" for name in part._frame["request_id"]])
            for number, part in enumerate((self, *others))
        ]
        return Trace.from_frame(stacked(parts), "+".join(part.source for part in (self, *others)))

    def by_part(self, part_of: Sequence[str], change: Callable[[str, Trace], Trace]) -> Trace:
        """The same requests in the same order, where each part of them was changed by itself.

        Args:
            part_of: of each request, the name of the part that it belongs to.
            change: the requests of a part, by its name, as they shall be.
        """
        names = np.asarray(part_of, dtype=object)
        rows = {name: np.flatnonzero(names == name) for name in dict.fromkeys(names)}
        changed = [change(name, self._rows(at))._frame for name, at in rows.items()]
        order = np.argsort(np.concatenate(list(rows.values())))
        return Trace(pd.concat(changed, ignore_index=True).iloc[order].reset_index(drop=True), self.source)

    def with_model(self, name: str) -> Trace:
        """The same requests, all asking for the model ``name``."""
        return self._with(model=name)

    def with_checkpoint(self, name: str) -> Trace:
        """The same requests, where those that name no checkpoint want the one called ``name``."""
        return self._with(checkpoint=self._frame["checkpoint"].mask(self._frame["checkpoint"] == "", name))

    def guided_as(self, geometry: ModelGeometry) -> tuple[Trace, list[str]]:
        """The same requests, guided in the way of the model ``geometry``, and what of theirs has no effect there.

        A true CFG scale is left to requests of models that have it, all of which get one, and to no others.
        """
        frame = self._frame
        scale, negative = frame["true_cfg_scale"], frame["negative_prompt"] != ""
        if geometry.guidance == "scale":
            lost = {"true_cfg_scale": scale.notna(), "negative_prompt": negative & (frame["guidance_scale"] <= 1)}
            why = "is guided by a guidance_scale above 1 alone"
            used = np.full(len(self), np.nan)
        elif geometry.guidance == "true":
            used = scale.fillna(geometry.true_cfg_scale).to_numpy()
            lost = {"true_cfg_scale": (scale > 1) & ~negative, "negative_prompt": negative & (used <= 1)}
            why = "needs a negative_prompt and a true_cfg_scale above 1"
        else:
            lost = {"true_cfg_scale": scale.notna(), "negative_prompt": negative}
            why = "evaluates no negative prompt"
            used = np.ones(len(self))
        counts = {name: int(mask.sum()) for name, mask in lost.items() if mask.any()}
        notes = [f"{name} of {count} requests has no effect: {geometry.name} {why}" for name, count in counts.items()]
        return self._with(true_cfg_scale=used), notes

    def with_prompts(self, prompts: Sequence[str], rng: np.random.Generator) -> Trace:
        """The same requests, each with a prompt drawn from ``prompts``."""
        if not prompts:
            raise BadInput("no prompts to draw from, expected at least one")
        return self._with(prompt=[prompts[index] for index in rng.integers(len(prompts), size=len(self))])

    def with_slo(
        self,
        seconds: float | Mapping[Size, float] | None = None,
        *,
        scale: float | None = None,
        standalone: Callable[[Request], float] | None = None,
        overwrite: bool = False,
        priority_factor: float = 1.0,
    ) -> Trace:
        """The same requests with an SLO: ``seconds``, or ``scale`` times the standalone latency.

        Args:
            seconds: one span for all requests, or one per size (height, width, frames).
            scale: SLO scale, the multiple of the standalone latency.
            standalone: predicted seconds of a request alone on an idle replica, asked of one of each kind.
            overwrite: replace the deadlines that requests have; otherwise only requests without one get one.
            priority_factor: what the span is divided by for each level of priority, and multiplied by below 0.

        Raises:
            BadInput: a span that is not above 0, or a size that has none; or one out of bounds for its priority.
            TypeError: neither or both of ``seconds`` and ``scale`` with ``standalone``.
        """
        if (seconds is None) == (scale is None) or (scale is None) != (standalone is None):
            raise TypeError("with_slo takes either seconds, or scale and standalone")
        f = self._frame
        fill = np.flatnonzero(np.ones(len(f), bool) if overwrite else (f["deadline_s"].isna() & f["slo_s"].isna()))
        slo, deadline = f["slo_s"].to_numpy(copy=True), f["deadline_s"].to_numpy(copy=True)
        deadline[fill] = np.nan
        first, kind = self._rows(fill)._kinds()
        spans = np.empty(len(first))
        for number, request in enumerate(self._rows(fill[first]).requests()):
            if scale is not None and standalone is not None:
                span = scale * standalone(request)
            elif isinstance(seconds, Mapping):
                span = seconds.get(request.size, math.nan)
            else:
                span = float(seconds)  # type: ignore[arg-type]
            if not (span > 0 and math.isfinite(span)):
                which = f"the SLO of size {request.size} is {'not given' if math.isnan(span) else span}"
                raise BadInput(f"{self.source}: request {request.request_id!r}: {which}, expected a span above 0 s")
            spans[number] = span
        slo[fill] = self._by_priority(fill, spans[kind], priority_factor)
        return self._with(slo_s=slo, deadline_s=deadline)

    def _by_priority(self, rows: npt.NDArray[Any], spans: npt.NDArray[Any], factor: float) -> npt.NDArray[Any]:
        """Spans of some rows, divided by ``factor`` to the power of their priorities."""
        if factor == 1.0:
            return spans
        priority = self._frame["priority"].to_numpy()[rows]
        with np.errstate(over="ignore", under="ignore", divide="ignore"):
            divided = spans / np.float64(factor) ** priority
        wrong = np.flatnonzero(~((divided >= POSITIVE_SPAN.least) & (divided <= POSITIVE_SPAN.most)))
        if len(wrong):
            at = int(wrong[0])
            raise BadInput(
                f"{self.source}: request {self._frame['request_id'].iloc[rows[at]]!r}: its SLO of {spans[at]:g} s over "
                f"{factor:g} to the power of its priority, {priority[at]}, is {divided[at]:g} s, expected "
                f"{POSITIVE_SPAN.least:g} to {POSITIVE_SPAN.most:g} s"
            )
        return divided

    def _native_factors(self, to: ModelGeometry) -> npt.NDArray[Any]:
        """Native side of ``to`` over native side of each request's model; a side is the root of the area."""
        factors = {}
        for model in self._frame["model"].unique():
            if model not in GEOMETRIES:
                raise BadInput(
                    f"{self.source}: the native size of model {model!r} is not known; give a factor, or name "
                    f"one of these models: {', '.join(sorted(GEOMETRIES))}"
                )
            factors[model] = math.sqrt(math.prod(to.native_size) / math.prod(GEOMETRIES[model].native_size))
        return np.array([factors[model] for model in self._frame["model"]], dtype=float)

    def _rows(self, positions: npt.NDArray[np.intp]) -> Trace:
        return Trace(self._frame.iloc[positions].reset_index(drop=True), self.source)

    def _arriving(self, arrival: npt.NDArray[Any]) -> Trace:
        """The same requests at other times, in the same order, with the same spans to their deadlines."""
        span = self._frame["deadline_s"].to_numpy() - self._frame["arrival_s"].to_numpy()
        deadline = np.maximum(arrival + span, np.nextafter(arrival, np.inf))
        return self._with(arrival_s=arrival, deadline_s=deadline)

    def _with(self, **columns: Any) -> Trace:
        rows = self._frame.index
        dtypes: dict[str, Any] = DTYPES
        typed = {name: pd.Series(values, rows).astype(dtypes[name]) for name, values in columns.items()}
        return Trace(self._frame.assign(**typed), self.source)
