"""Finds out how a pipeline can be tiled by walking it through small pictures without running its denoiser.

What the walks tell (`PipelineFacts`): how the latents lie in what the sampler keeps and in what the denoiser is given,
what the decoder is given of them, and which other arguments are told by the noise, the picture or the step rather than
by the size alone. No model is known here by its name.
"""

from __future__ import annotations

import functools
import inspect
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from PIL import Image

from backend.coroutine import DenoiserCall, pipeline_arguments
from backend.inputs import image_use, takes_mask
from backend.isolation import own_pipeline
from backend.loading import denoiser_names, first_line, geometry_of_pipeline
from backend.tiled.layout import Layout, numbered, places_of
from traces.errors import BadInput
from traces.request import Request

_BASES = {torch.bfloat16: 16, torch.float16: 16}
_USUAL_BASE = 4096
"""Digits of numbers that a precision tells apart when they have been scaled and back."""
_PREPARES_POSITIONS = re.compile("^_?prepare_.*(rotary|position)")
"""Methods of pipelines whose positions reach only so far, as those of CogVideoX 1.5 do."""
_TOKENS = (4, 6)
"""Patches of the pictures that are tried."""


class _Decoding(BaseException):
    """The pipeline has come to its decoder."""


class _Call(NamedTuple):
    """A call of a denoiser in a walk: sampler steps before it, calls of its step before it, arguments by name."""

    step: int
    part: int
    arguments: dict[str, Any]


@dataclass
class _Walk:
    """What was seen of a pipeline on its way.

    Attributes:
        calls: its denoiser's calls.
        given: what its decoder was given.
        latents: what it began with.
        sample: what its sampler was given, in its first step.
        output: what of the denoiser's output its sampler was given there.
    """

    calls: list[_Call] = field(default_factory=list)
    given: torch.Tensor | None = None
    latents: torch.Tensor | None = None
    sample: torch.Tensor | None = None
    output: torch.Tensor | None = None


@dataclass(frozen=True)
class PipelineFacts:
    """How a pipeline can be tiled.

    Attributes:
        frames: latent frames of the clips that it was tried with; 1: pictures.
        input: the denoiser's argument that holds the latents.
        started: layout of what the pipeline begins with.
        sampled: layout of what its sampler makes, which some pipelines give another form, without the first frame.
        seen: layout of what the denoiser is given.
        channels: channels of a sample.
        factor: pixels along the side of a latent pixel.
        variance: whether the denoiser is asked for twice as many channels, the second half of which is thrown away.
        scale: what the decoder is given of a 1 in the latents more than of a 0, and what of a 0, for each place in a
            patch: [channels, patch, patch] each.
        clips: whether the decoder is given clips, [rows, channels, frames, height, width], rather than pictures.
        drawn: arguments that are others for another seed or picture, by their path.
        timed: arguments that are others in another step.
        multiple: pixels that the sides of what it makes are multiples of.
    """

    frames: int
    input: str
    started: Layout
    sampled: Layout
    seen: Layout
    channels: int
    factor: int
    variance: bool
    scale: tuple[torch.Tensor, torch.Tensor]
    clips: bool
    drawn: frozenset[str]
    timed: frozenset[str]
    multiple: int


def of_its_size(pipeline: Any, request: Request) -> dict[str, Any]:
    """Keep a request's own copy of a pipeline from making another size than the request's, as some do that know few.

    Returns further arguments for its ``__call__``.
    """
    height, width = request.height, request.width
    known = inspect.signature(type(pipeline).__call__).parameters
    if hasattr(pipeline, "resolutions"):
        pipeline.resolutions = [(width, height)]
    if "height" in known and hasattr(pipeline, "default_sample_size"):
        scale = getattr(pipeline, "vae_scale_factor", 1)
        pipeline.default_sample_size = math.sqrt(height * width) * (1 + 1e-9) / scale
    for name in dir(type(pipeline)):
        if _PREPARES_POSITIONS.search(name) and callable(method := getattr(pipeline, name)):
            setattr(pipeline, name, _or_nothing(method))
    return {"use_resolution_binning": False} if "use_resolution_binning" in known else {}


def _or_nothing(prepare: Any) -> Any:
    """Positions, or nothing where there are none for a size: those of a whole canvas are not needed."""

    @functools.wraps(prepare)
    def prepared(*args: Any, **kwargs: Any) -> Any:
        try:
            return prepare(*args, **kwargs)
        except Exception:
            return None

    return prepared


def leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """The tensors and plain values of a nest with their paths: names of dictionaries, nothing for places in lists."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from leaves(item, f"{path}.{name}" if path else name)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from leaves(item, path)
    else:
        yield path, value


@contextmanager
def replaced(module: Any, name: str, value: Any) -> Iterator[None]:
    """An attribute of one object changed, and back as it was afterwards."""
    own = vars(module)
    had, stock = name in own, own.get(name)
    own[name] = value
    try:
        yield
    finally:
        if had:
            own[name] = stock
        else:
            del own[name]


class Walker:
    """Walks a pipeline through pictures without running its denoiser or decoder. The pipeline is left as it was.

    Args:
        pipeline: to walk through.
        more: further arguments of its ``__call__``, such as embeddings where it has no encoder.
    """

    def __init__(self, pipeline: Any, more: Mapping[str, Any] | None = None) -> None:
        self._more = dict(more or {})
        self._pipeline = pipeline
        self._names = denoiser_names(pipeline)
        self._texts: list[Any] = []
        geometry = geometry_of_pipeline(pipeline, "probed")
        self._unit, self._factor, factor = geometry.size_multiple, geometry.latent_factor, geometry.frame_factor
        known = inspect.signature(type(pipeline).__call__).parameters
        lengths = (known[name].default for name in ("num_frames", "video_length") if name in known)
        self._frames = 1 + 3 * factor if factor > 1 else next(lengths, 1) or 1
        self._multiple, self._base = 0, _USUAL_BASE

    def found(self) -> PipelineFacts:
        """Find out how the pipeline can be tiled.

        Raises:
            BadInput: it cannot be, and why.
        """
        nothing = self._first()
        assert nothing.latents is not None
        shape = nothing.latents.shape[1:]
        walks = [nothing, self._walk(torch.ones(shape))]
        shown = [nothing.latents, nothing.given, *leaves(nothing.calls[0].arguments, "")]
        dtypes = [
            value.dtype for value in (s[1] if isinstance(s, tuple) else s for s in shown) if torch.is_tensor(value)
        ]
        base = self._base = min(_BASES.get(dtype, _USUAL_BASE) for dtype in dtypes)
        digits = 1 + int(math.log(math.prod(shape), base))
        walks += [self._walk(numbered(shape, digit, base)) for digit in range(digits)]
        name = self._input(walks[0], walks[1])
        given = [walk.given for walk in walks]
        at, scale, clips = self._decoded([g for g in given if g is not None])
        seen = [walk.calls[0].arguments[name] for walk in walks]
        listed = isinstance(seen[0], list | tuple)
        numbers = _read([value[0] for value in seen], base)
        started = Layout.found(places_of(torch.arange(1, math.prod(shape) + 1).reshape(shape), at), shape)
        kept = _read([walk.sample[0] for walk in walks if walk.sample is not None], base)
        sampled = Layout.found(places_of(kept, at), kept.shape)
        given_to = Layout.found(places_of(numbers, at), numbers.shape, listed)
        other = self._walk(torch.zeros(shape), seed=1)
        drawn = _differing(nothing.calls[0], other.calls[0])
        if image_use(self._pipeline) == "required":
            drawn |= _differing(nothing.calls[0], self._walk(torch.zeros(shape), picture=1).calls[0])
        second = next((call for call in nothing.calls if call.step > 0 and call.part == 0), None)
        timed = _differing(nothing.calls[0], second) if second is not None else frozenset()
        frames = started.split(nothing.latents, (at.shape[2], at.shape[3]))[0].shape[2]
        return PipelineFacts(
            frames=frames,
            input=name,
            started=started,
            sampled=sampled,
            seen=given_to,
            channels=at.shape[0],
            factor=_TOKENS[0] * self._multiple // at.shape[2],
            variance=_is_halved(seen[0], nothing.output, given_to),
            scale=self._of_patch(scale, started.patch),
            clips=clips,
            drawn=drawn - {name},
            timed=timed - {name},
            multiple=self._multiple,
        )

    def call(
        self,
        height: int,
        width: int,
        seed: int = 0,
        start: torch.Tensor | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> DenoiserCall:
        """The first call of the denoiser for a picture of so many pixels, of a pipeline that is `found` already.

        Args:
            height: of the picture, pixels.
            width: of the picture, pixels.
            seed: of its noise.
            start: latents that it begins with, as the pipeline lays out one row, without its axis; None: its own.
            more: further arguments of the pipeline.
        """
        try:
            walk = self._walked(start, seed, 0, (height, width), more)
        except Exception as error:
            raise self._refused(error) from error
        return DenoiserCall((), walk.calls[0].arguments, denoiser=self._names[0])

    def _first(self) -> _Walk:
        """The first walk that comes to its end: some pipelines want larger multiples than they say."""
        failed: Exception | None = None
        for times in (1, 2, 4, 8):
            self._multiple = self._unit * times
            self._texts = []
            try:
                walk = self._walked(None, 0, 0)
            except Exception as error:
                failed = failed or error
                continue
            if walk.given is not None and walk.calls and walk.latents is not None:
                self._shape = walk.latents.shape[1:]
                return self._walk(torch.zeros(self._shape))
            failed = failed or RuntimeError("it comes to no decoder")
        assert failed is not None
        raise self._refused(failed)

    def _walk(self, latents: torch.Tensor, seed: int = 0, picture: int = 0) -> _Walk:
        try:
            walk = self._walked(latents, seed, picture)
        except Exception as error:
            raise self._refused(error) from error
        if walk.given is None or not walk.calls:
            raise self._refused(RuntimeError("it comes to no decoder"))
        return walk

    def _refused(self, error: Exception) -> BadInput:
        if isinstance(error, ValueError) and "values to unpack" in str(error):
            error = BadInput("it takes more than one output of its denoiser, as those do that make sound too")
        said = first_line(error) if isinstance(error, BadInput) else f"{type(error).__name__}: {first_line(error)}"
        return BadInput(f"cannot tile {type(self._pipeline).__name__}: walked through a small picture, {said}")

    def _request(self, seed: int, size: tuple[int, int] | None) -> Request:
        down, across = size or (side * self._multiple for side in _TOKENS)
        return Request(
            "probe", 0.0, down, across, steps=2, seed=seed, frames=self._frames, prompt="a", guidance_scale=3.0
        )

    @torch.no_grad()
    def _walked(
        self,
        start: torch.Tensor | None,
        seed: int,
        picture: int,
        size: tuple[int, int] | None = None,
        further: Mapping[str, Any] | None = None,
    ) -> _Walk:
        """Walk the pipeline through a picture.

        Args:
            start: the latents that it begins with, one row without its axis; None: its own.
            seed: of its noise.
            picture: which picture it is shown.
            size: (height, width) in pixels; None: a small one.
            further: more arguments of the pipeline.
        """
        walk, request = _Walk(), self._request(seed, size)
        own = own_pipeline(self._pipeline)
        more = of_its_size(own, request)
        if image_use(self._pipeline) == "required":
            more["image"] = _picture(request, picture)
            if takes_mask(self._pipeline):
                more["mask_image"] = more["image"].convert("L")
        texts, told, steps = iter(self._texts), list(self._texts), 0
        encode, prepare, step = own.encode_prompt, own.prepare_latents, own.scheduler.step
        signature = inspect.signature(type(own.scheduler).step)

        @functools.wraps(encode)
        def encode_prompt(*args: Any, **kwargs: Any) -> Any:
            if told:
                return next(texts)
            self._texts.append(encode(*args, **kwargs))
            return self._texts[-1]

        @functools.wraps(prepare)
        def prepare_latents(*args: Any, **kwargs: Any) -> Any:
            made = prepare(*args, **kwargs)
            walk.latents = latents = made[0] if isinstance(made, tuple) else made
            if start is not None:
                walk.latents = latents = start.to(latents)[None].expand_as(latents).clone()
            return (latents, *made[1:]) if isinstance(made, tuple) else latents

        @functools.wraps(step)
        def stand(*args: Any, **kwargs: Any) -> Any:
            nonlocal steps
            steps += 1
            bound = signature.bind(own.scheduler, *args, **kwargs).arguments
            sample = bound["sample"]
            if walk.sample is None:
                walk.sample, walk.output = sample, bound.get("model_output")
            return (sample, sample) if bound.get("return_dict") is False else SimpleNamespace(prev_sample=sample)

        def called(names: list[str]) -> Any:
            def hand_back(*args: Any, **kwargs: Any) -> Any:
                arguments = {**dict(zip(names, args, strict=False)), **kwargs}
                part = sum(call.step == steps for call in walk.calls)
                walk.calls.append(_Call(steps, part, arguments))
                first = next(value for value in arguments.values() if value is not None)
                rows = list(first) if isinstance(first, list | tuple) else None
                zeros = torch.zeros_like(first) if rows is None else [torch.zeros_like(row) for row in rows]
                return (zeros,) if arguments.get("return_dict") is False else Transformer2DModelOutput(sample=zeros)

            return hand_back

        def decode(latents: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            walk.given = latents
            raise _Decoding

        own.encode_prompt, own.prepare_latents = encode_prompt, prepare_latents
        own.scheduler.step = stand
        arguments = {**pipeline_arguments(own, request), **more, **self._more, **(further or {}), "output_type": "pt"}
        if "prompt_embeds" in self._more:
            del arguments["prompt"]
        vae = self._pipeline.vae
        with ExitStack() as stack:
            stack.enter_context(suppress(_Decoding))
            stack.enter_context(torch.random.fork_rng(devices=[]))  # some draw without the request's generator
            stack.enter_context(_all_replaced(self._pipeline, self._names, called))
            stack.enter_context(replaced(vae, "decode", decode))
            own(**arguments)
        return walk

    def _input(self, nothing: _Walk, ones: _Walk) -> str:
        """The argument that the latents are in."""
        found = {path.split(".")[0] for path in _differing(nothing.calls[0], ones.calls[0])}
        if len(found) != 1:
            which = ", ".join(sorted(found)) or "nothing"
            raise self._refused(RuntimeError(f"its denoiser is given its latents as {which}, expected one argument"))
        return found.pop()

    def _decoded(self, given: list[torch.Tensor]) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor], bool]:
        """Of what the decoder is given of numbered latents: the numbers, and how it is scaled."""
        clips = given[0].ndim == 5
        values = [g.double().cpu() if clips else g.double().cpu().unsqueeze(2) for g in given]
        if not clips and len(values[0]) > 1:  # frames are decoded one by one
            values = [value.transpose(0, 2) for value in values]
        if len(values[0]) != 1:
            raise self._refused(RuntimeError(f"its decoder is given {tuple(given[0].shape)} of one picture"))
        numbers = _read(values, self._base)[0]
        zero, slope = values[0][0], (values[1] - values[0])[0]
        frames = (numbers > 0).transpose(0, 1).flatten(1).all(1)
        if not frames.any():
            raise self._refused(RuntimeError("its decoder is given no latents as they are"))
        return numbers, (slope[:, frames], zero[:, frames]), clips

    def _of_patch(self, scale: tuple[torch.Tensor, ...], patch: int) -> tuple[torch.Tensor, torch.Tensor]:
        """How a patch is scaled, [channels, patch, patch] each, from how all of the picture is."""
        found = []
        for whole in scale:
            patches = whole.unflatten(3, (-1, patch)).unflatten(2, (-1, patch))
            mean = patches.mean((1, 2, 4))
            if (patches - mean[:, None, None, :, None]).abs().max() > 0.05 * scale[0].abs().max():
                raise self._refused(RuntimeError("its latents are not scaled alike everywhere before they are decoded"))
            found.append(mean)
        return found[0], found[1]


def _read(values: list[torch.Tensor], base: int) -> torch.Tensor:
    """The numbers of numbered latents, from what is made of a 0, of a 1 and of each of their digits; 0: no latent."""
    zero, *others = (value.double().cpu() for value in values)
    slope = others[0] - zero
    steady = slope.abs() > 1e-6
    safe = torch.where(steady, slope, 1.0)
    read = [torch.where(steady, ((digit - zero) / safe).round(), 0.0).long() for digit in others[1:]]
    numbers = torch.zeros_like(read[0])
    for place, digit in enumerate(read):
        numbers += digit * base**place
    return numbers


def _is_halved(given: Any, taken: torch.Tensor | None, layout: Layout) -> bool:
    """Whether a pipeline takes half of the channels of an output that has as many as what the denoiser is given."""
    at = next((at for at, names in enumerate(layout.axes, 1) if "c" in names), None)
    if taken is None or at is None or layout.listed or taken.ndim != given.ndim:
        return False
    return bool(2 * taken.shape[at] == given.shape[at])


def _differing(one: _Call, other: _Call) -> frozenset[str]:
    """Paths of the arguments that are not the same in two calls."""
    first, second = (list(leaves(call.arguments, "")) for call in (one, other))
    paths = {path for path, _ in (*first, *second)}
    by_path = [{path: [v for p, v in found if p == path] for path in paths} for found in (first, second)]
    return frozenset(path for path in paths if not _same(by_path[0][path], by_path[1][path]))


def _same(one: list[Any], other: list[Any]) -> bool:
    if len(one) != len(other):
        return False
    for first, second in zip(one, other, strict=True):
        if isinstance(first, torch.Tensor) != isinstance(second, torch.Tensor):
            return False
        if isinstance(first, torch.Tensor):
            if first.shape != second.shape or not torch.equal(first, second):
                return False
        elif isinstance(first, int | float | str | None) and first != second:
            return False
    return True


def _picture(request: Request, which: int) -> Image.Image:
    """A picture to show."""
    small = Image.linear_gradient("L").resize((request.width, request.height))
    return Image.merge("RGB", [small, small.transpose(Image.Transpose.ROTATE_180), small][which:] + [small] * which)


@contextmanager
def _all_replaced(pipeline: Any, names: list[str], called: Any) -> Iterator[None]:
    """All denoisers' forwards replaced."""
    if not names:
        yield
        return
    denoiser = getattr(pipeline, names[0])
    arguments = list(inspect.signature(type(denoiser).forward).parameters)[1:]
    with replaced(denoiser, "forward", called(arguments)), _all_replaced(pipeline, names[1:], called):
        yield
