"""Tiles through the denoiser of any pipeline.

A pipeline that refines a canvas calls its denoiser with the whole of it. An `Adapter` cuts that call into one call a
window, each exactly what the stock pipeline passes for a picture of the window's size: its latents are the canvas's,
and what else depends on the size is taken from that pipeline itself, which a second run walks through a picture of
the window's size without ever running its denoiser (`backend.tiled.coroutines.WindowRun`). So prompts, guidance,
sampler, conditions and positions stay the pipeline's own code, and no family has code here; what cannot be found out
by walking the pipeline through small pictures (`backend.tiled.probe`) is refused.

How a window's positions are counted (``positions``):

- ``local``: as if the window were a picture of its own.
- ``absolute``: as the stock pipeline counts the same pixels on the whole canvas; where the window's place is no whole
  number of tokens, between two tokens.
- ``ntk``: as ``absolute``, with the rotary base enlarged so that the canvas's positions turn about as far as the native
  size's did in training.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Hashable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import Any

import numpy as np
import torch
from diffusers.models.modeling_outputs import Transformer2DModelOutput

from backend.coroutine import DenoiserCall
from backend.loading import denoiser_name, denoiser_names, first_line
from backend.tiled.layout import Extent
from backend.tiled.positions import Mover, Turning, leaves_of, with_leaves
from backend.tiled.probe import Walker, of_its_size
from policies.tiling.grid import Box
from policies.tiling.recipe import along
from traces.errors import BadInput
from traces.request import Request

_WINDOWS = 16
"""Windows whose positions are kept."""
_ALIKE = 1e-5
"""Share of an output that the precision of angles may change."""
_PRECISE = {torch.float64: 1e-6, torch.float32: 1e-3}
"""Share of an output that rounding may change, by precision."""
_CROPS = ("original_size", "crops_coords_top_left", "target_size")
_MARKS = (131, 137, 139, 149, 151, 157)
"""Arguments of pipelines, (height, width) or (top, left), and numbers by which they are found in a denoiser's call."""
_TRIED = ((4, 6), (6, 8))
"""Patches of a small window, and of a small canvas, with which it is tried whether positions can be moved."""


class Adapter:
    """See the module.

    Args:
        pipeline: whose denoiser is called.
        positions: ``local``, ``absolute`` or ``ntk``.
        native: (height, width) in latent pixels that the model was trained at; needed for ``ntk``.
        walker: walks the pipeline; None: with nothing but a prompt and a picture.

    Attributes:
        input: the argument of the denoiser that holds the latents.
        channels: latent channels of a sample and of its prediction.
        factor: pixels along the side of a latent pixel.

    Raises:
        BadInput: the pipeline cannot be tiled, or the model cannot count positions this way.
    """

    def __init__(
        self, pipeline: Any, positions: str = "local", native: Extent | None = None, walker: Walker | None = None
    ) -> None:
        self.pipeline = pipeline
        self.denoiser = getattr(pipeline, denoiser_name(pipeline))
        self.config = self.denoiser.config
        self.positions = positions
        self.native = native
        self._names = list(inspect.signature(type(self.denoiser).forward).parameters)[1:]
        self._arguments: dict[Any, dict[str, torch.Tensor]] = {}  # positions by window
        self._walker = walker or Walker(pipeline)
        self.found = self._walker.found()
        self.input, self.channels, self.factor = self.found.input, self.found.channels, self.found.factor
        if positions != "local" and positions not in self.modes:
            raise BadInput(
                f"tiling.positions {positions!r} is not possible with {type(pipeline).__name__}"
                f"{f' ({self._why_not})' if self._why_not else ''}; possible: {', '.join(self.modes)}"
            )
        if positions == "ntk" and native is None:
            raise BadInput("tiling.positions 'ntk' needs the model's native size")
        if positions == "absolute":
            _ = self.is_relative  # it is found out now, by running the denoiser, and not between requests

    @cached_property
    def modes(self) -> tuple[str, ...]:
        """The ways to count positions that this model allows."""
        if self._why_not:
            return ("local",)
        return (
            ("local", "absolute", "ntk") if self._mover is not None and self._mover.can_turn else ("local", "absolute")
        )

    @cached_property
    def _mover(self) -> Mover | None:
        """Moves windows; None: nothing tells positions."""
        multiple = self.found.multiple
        sizes = tuple((down * multiple, across * multiple) for down, across in _TRIED)
        mover = Mover(self._walker, self.denoiser, (sizes[0], sizes[1]), self.found)
        return mover if mover.can_move else None

    @cached_property
    def _why_not(self) -> str:
        """Why positions cannot be moved; empty: they can."""
        if len(denoiser_names(self.pipeline)) > 1:
            return "it has two denoisers"
        try:
            if self._mover is None:
                told = "nothing that its denoiser is given or makes tells where a token lies"
                return "" if self._told else told
            self._tried(1, 1)
            return "" if self._rolls() else "moved as a whole, a picture does not come out moved"
        except Exception as error:
            return f"tried on small pictures, its denoiser fails: {type(error).__name__}: {first_line(error)}"

    @torch.no_grad()
    def _rolls(self) -> bool:
        """Whether a canvas that is rolled over its edges, its positions with it, comes out as it did, but rolled."""
        assert self._mover is not None
        tried, (_, call), (_, canvas) = self._trying(), self._mover.calls, self._sizes
        step = self.found.multiple // self.factor
        box = Box(2 * step, 3 * step, *canvas)
        part = tried.cut(call, box, canvas, call)
        with tried.placed(box, canvas):
            moved = self.prediction(self.denoiser.forward(**part.kwargs), part, canvas)
        stock = take(self.prediction(self.denoiser.forward(**call.kwargs), call, canvas), box)
        least = _PRECISE.get(stock.dtype, 0.1)
        return bool((moved - stock).abs().max() <= least * stock.abs().max())

    @cached_property
    def is_relative(self) -> bool:
        """Whether only the distances of tokens matter, so that a window that crosses no edge needs no moving."""
        if self._why_not or self._mover is None:
            return False
        near, far = self._tried(0, 0), self._tried(2, 3)
        return bool((near - far).abs().max() <= _ALIKE * near.abs().max())

    @torch.no_grad()
    def _tried(self, top: int, left: int) -> torch.Tensor:
        """What the denoiser makes of a small picture as if it were a window of a small canvas."""
        assert self._mover is not None
        tried, (like, call), (small, canvas) = self._trying(), self._mover.calls, self._sizes
        box = Box(top, left, *small)
        part = tried.cut(call, box, canvas, like)
        with tried.placed(box, canvas):
            output = self.denoiser.forward(**{**part.kwargs, self.input: self.argument(like, self.input)})
        return self.prediction(output, part, small)

    def _trying(self) -> Adapter:
        """An adapter that moves every window, with which it is found out whether that works."""
        tried = copy.copy(self)
        tried.positions, tried._arguments = "absolute", {}
        vars(tried)["is_relative"], vars(tried)["_told"] = False, {}
        return tried

    @property
    def _sizes(self) -> tuple[Extent, Extent]:
        """A small window and a small canvas in latent pixels."""
        small, canvas = (
            (down * self.found.multiple // self.factor, across * self.found.multiple // self.factor)
            for down, across in _TRIED
        )
        return small, canvas

    def admit(self, own: Any, request: Request) -> dict[str, Any]:
        """Make a request's own copy of the pipeline take its size, whatever it is.

        Returns further arguments for its ``__call__``.
        """
        return of_its_size(own, request)

    def sample(self, call: DenoiserCall, canvas: Extent) -> torch.Tensor:
        """The latents of a call as the denoiser sees them, without appended conditions.

        Returns:
            [rows, channels, frames, height, width]; pictures have one frame. It may share memory with the call.
        """
        return self.given(call, canvas)[:, : self.channels]

    def given(self, call: DenoiserCall, canvas: Extent) -> torch.Tensor:
        """The latents of a call and the conditions that are appended to their channels, as `sample`."""
        return self.found.seen.split(self.argument(call, self.input), canvas)[0]

    def cut(self, call: DenoiserCall, box: Box, canvas: Extent, like: DenoiserCall) -> DenoiserCall:
        """The call of one window of a canvas-size call: whose it is, text, timestep and guidance stay as they are.

        Args:
            call: of the pipeline on its canvas.
            box: the window.
            canvas: (height, width) in latent pixels.
            like: the same call of the same pipeline for a picture of the window's size.

        Raises:
            BadInput: the call has an argument that cannot be cut, or is not of the canvas's size.
        """
        named, alike = self._named(call), self._named(like)
        latents, more = self.found.seen.split(named[self.input], canvas)
        cutter = _Cutter(self, box, canvas, latents.shape[2])
        changes = {
            name: cutter.cut(value, alike.get(name), name) for name, value in named.items() if name != self.input
        }
        if self._moves(box, canvas):
            assert self._mover is not None
            changes = self._moved(changes, named, alike, box, canvas)
            if self._mover.used(self.positions == "ntk"):
                self._mover.note(named, canvas, latents.shape[2])
        if self.positions != "local" and self._told:
            changes = self._cropped(changes, box, canvas)
        changes[self.input] = self.found.seen.join(take(latents, box), more)
        args = tuple(changes.pop(name, value) for name, value in zip(self._names, call.args, strict=False))
        return call._replace(args=args, kwargs=changes)

    def prediction(self, output: Any, like: DenoiserCall, size: Extent) -> torch.Tensor:
        """What the denoiser returned for a call of ``size``, [rows, channels, frames, height, width]."""
        return self.found.seen.split(output[0], size)[0][:, : self.channels]

    def answer(self, prediction: torch.Tensor, call: DenoiserCall) -> Any:
        """A prediction as the denoiser would return it to ``call``.

        The variance that some models learned beside the noise is what their pipelines throw away.
        """
        return self._output(prediction, call)

    def nothing(self, call: DenoiserCall, size: Extent) -> Any:
        """What the denoiser would return to a call of ``size`` if it predicted nothing."""
        return self._output(torch.zeros_like(self.sample(call, size)), call)

    def _output(self, prediction: torch.Tensor, call: DenoiserCall) -> Any:
        sample = self.argument(call, self.input)
        if self.found.variance:
            prediction = torch.cat([prediction, torch.zeros_like(prediction)], dim=1)
        like = sample[0] if self.found.seen.listed else sample
        packed = self.found.seen.join(prediction.to(like))
        asked = self.argument(call, "return_dict")
        return (packed,) if asked is False else Transformer2DModelOutput(sample=packed)

    def unpack(self, latents: torch.Tensor, canvas: Extent) -> torch.Tensor:
        """Latents as the pipeline begins with them, or its sampler makes them, to
        [rows, channels, frames, height, width].

        Raises:
            BadInput: they are not of the canvas's size.
        """
        started, sampled = self.found.started, self.found.sampled
        layout = started if started == sampled or latents.ndim == len(started.axes) + 1 else sampled
        return layout.split(latents, canvas)[0][:, : self.channels]

    def pack(self, latents: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """The way back from `unpack`, in the precision and on the device of ``like``.

        What ``like`` has beside the latents of a canvas of this size (conditions behind its channels, frames that lie
        before all that is decoded) is kept.
        """
        canvas = latents.shape[-2], latents.shape[-1]
        layout = self.found.started if like.ndim == len(self.found.started.axes) + 1 else self.found.sampled
        more = None
        if layout.holds(like, canvas):
            whole, more = layout.split(like, canvas)
            latents = latents.to(like)
            if len(whole) == len(latents):
                before, after = whole.shape[2] - latents.shape[2], whole[:, latents.shape[1] :]
                latents = torch.cat([whole[:, : latents.shape[1], :before], latents], dim=2) if before > 0 else latents
                latents = torch.cat([latents, after], dim=1) if after.shape[1] else latents
        packed: torch.Tensor = layout.join(latents, more)
        return packed.to(like)

    def encoded(self, pixels: torch.Tensor) -> torch.Tensor:
        """Latents as the sampler keeps them, [images, channels, frames, H, W].

        The mean of the autoencoder's distribution, one picture or clip at a time, so that memory is that of one, and
        scaled so that the pipeline hands its decoder what the encoder made. An autoencoder that overflows in float16
        and says so encodes in float32, as it decodes in the stock pipelines.

        Args:
            pixels: [images, 3, frames, h, w] in 0..1.

        Raises:
            BadInput: the autoencoder does not encode such pictures.
        """
        vae = self.pipeline.vae
        precision = vae.dtype
        upcast = precision == torch.float16 and vae.config.get("force_upcast", False)
        if upcast:
            vae.to(torch.float32)
        try:
            pixels = (2.0 * pixels - 1.0).to(vae.dtype)
            parts = []
            for one in pixels.split(1):
                made = vae.encode(one if self.found.clips else one[0].transpose(0, 1))
                told = made.latent_dist.mode() if hasattr(made, "latent_dist") else made.latent
                parts.append(told if self.found.clips else told.transpose(0, 1)[None])
        finally:
            if upcast:
                vae.to(precision)
        latents = torch.cat(parts)
        height, width = (side // self.factor for side in pixels.shape[-2:])
        if latents.shape[1] != self.channels or latents.shape[-2:] != (height, width):
            raise BadInput(
                f"{type(vae).__name__} makes latents of {tuple(latents.shape[1:])} of a picture, and "
                f"{type(self.pipeline).__name__} wants {self.channels} channels of {height} x {width}"
            )
        patch = self.found.started.patch
        slope, zero = (
            part.to(latents).repeat(1, latents.shape[-2] // patch, latents.shape[-1] // patch)[:, None]
            for part in self.found.scale
        )
        return (latents - zero) / slope

    def place(self, box: Box, canvas: Extent) -> Hashable:
        """Windows of equal places may run under one `placed`, and so in one forward."""
        return (box, canvas) if self._moves_inside(box, canvas) else None

    def _moves(self, box: Box, canvas: Extent) -> bool:
        """Whether a window's positions are others than those of a picture of its size, as far as that matters."""
        if self.positions == "local" or self._mover is None:
            return False
        crosses = box.top + box.height > canvas[0] or box.left + box.width > canvas[1]
        return crosses or self.positions == "ntk" or not self.is_relative

    def _moves_inside(self, box: Box, canvas: Extent) -> bool:
        """Whether they are replaced inside the denoiser."""
        if not self._moves(box, canvas):
            return False
        assert self._mover is not None
        return bool(self._mover.used(self.positions == "ntk"))

    def placed(self, box: Box, canvas: Extent) -> AbstractContextManager[None]:
        """Positions that live inside the denoiser are the window's meanwhile, of a canvas of which one was `cut`."""
        if not self._moves_inside(box, canvas):
            return nullcontext()
        assert self._mover is not None
        return self._mover.placed(box, canvas, self._turning(canvas))

    def _turning(self, canvas: Extent) -> Turning | None:
        if self.positions != "ntk" or self.native is None:
            return None
        height, width = along(self.native, (*canvas, 1))
        return Turning((height, width), self.stretch(canvas))

    def _moved(
        self, changes: dict[str, Any], named: dict[str, Any], like: dict[str, Any], box: Box, canvas: Extent
    ) -> dict[str, Any]:
        """Arguments with the window's positions; windows of one place share them."""
        assert self._mover is not None
        if not self._mover.arguments:
            return changes
        shapes = {path: tuple(leaf.shape) for path, leaf in leaves_of(like).items() if isinstance(leaf, torch.Tensor)}
        key = (box, canvas, *(shapes.get(path) for table in self._mover.arguments for path in table.keys))
        if key not in self._arguments:
            while len(self._arguments) >= _WINDOWS:
                self._arguments.pop(next(iter(self._arguments)))
            self._arguments[key] = self._mover.moved_arguments(named, like, box, canvas, self._turning(canvas))
        moved: dict[str, Any] = with_leaves(changes, self._arguments[key])
        return moved

    def stretch(self, canvas: Extent) -> tuple[float, float]:
        """How much larger than the native size the canvas is along each axis, where that changes positions."""
        if self.positions != "ntk" or self.native is None:
            return 1.0, 1.0
        native = along(self.native, (*canvas, 1))
        return max(1.0, canvas[0] / native[0]), max(1.0, canvas[1] / native[1])

    @cached_property
    def _told(self) -> dict[str, list[tuple[int, int]]]:
        """Where the denoiser is told a picture's size, where it was cropped from and the size that is wanted.

        By argument, the entries of its last axis and which of these numbers they are. SDXL (arXiv 2307.01952, section
        2.2) and models after it are told so, by arguments of their pipelines.
        """
        known = inspect.signature(type(self.pipeline).__call__).parameters
        asked = {name: _MARKS[2 * at : 2 * at + 2] for at, name in enumerate(_CROPS) if name in known}
        if "crops_coords_top_left" not in asked:
            return {}
        side = 4 * self.found.multiple
        leaves = leaves_of(self._walker.call(side, side, more=asked).kwargs)
        rows = {path: leaf[0] for path, leaf in leaves.items() if isinstance(leaf, torch.Tensor) and leaf.ndim == 2}
        found = {
            path: [(at, _MARKS.index(int(number))) for at, number in enumerate(row.tolist()) if number in _MARKS]
            for path, row in rows.items()
        }
        return {path: entries for path, entries in found.items() if entries}

    def _cropped(self, changes: dict[str, Any], box: Box, canvas: Extent) -> dict[str, Any]:
        """Arguments that tell a window that it was cropped from its canvas."""
        sides = (*canvas, box.top % canvas[0], box.left % canvas[1], box.height, box.width)
        leaves = leaves_of(changes)
        cropped = {path: leaves[path].clone() for path in self._told if path in leaves}
        for path, leaf in cropped.items():
            for at, which in self._told[path]:
                leaf[..., at] = self.factor * sides[which]
        told: dict[str, Any] = with_leaves(changes, cropped)
        return told

    def argument(self, call: DenoiserCall, name: str) -> Any:
        """An argument of a call by its name in the denoiser's forward; None where it was not given."""
        at = self._names.index(name)
        return call.args[at] if at < len(call.args) else call.kwargs.get(name)

    def _named(self, call: DenoiserCall) -> dict[str, Any]:
        return {**dict(zip(self._names, call.args, strict=False)), **call.kwargs}


class _Cutter:
    """Makes a window's arguments of the canvas's and of those of a picture of its size.

    What the size alone tells is taken from the picture. What is drawn, or made of a picture, is the canvas's: cut
    where it has the canvas's pixels or tokens, else whole, for it speaks of the whole canvas as a text does.
    """

    def __init__(self, adapter: Adapter, box: Box, canvas: Extent, frames: int) -> None:
        self._adapter, self._box, self._canvas, self._frames = adapter, box, canvas, frames

    def cut(self, whole: Any, like: Any, path: str) -> Any:
        found = self._adapter.found
        if whole is None and path not in found.drawn:
            return like
        if isinstance(whole, torch.Tensor):
            drawn = path in found.drawn
            if isinstance(like, torch.Tensor) and whole.ndim == like.ndim:
                if whole.shape == like.shape:
                    return whole if drawn else like
                if drawn or path in found.timed:
                    return self._spatial(whole, like, path)
                return like
            raise self._refused(path)
        if isinstance(whole, Mapping) and isinstance(like, Mapping):
            return {name: self.cut(value, like.get(name), f"{path}.{name}") for name, value in whole.items()}
        if isinstance(whole, list | tuple) and isinstance(like, list | tuple) and len(whole) == len(like):
            items = [self.cut(value, other, path) for value, other in zip(whole, like, strict=True)]
            return items if isinstance(whole, list) else tuple(items)
        return like if isinstance(whole, int | float | str | list | tuple) and like is not None else whole

    def _spatial(self, whole: torch.Tensor, like: torch.Tensor, path: str) -> torch.Tensor:
        """The window's pixels or tokens of an argument."""
        box, canvas = self._box, self._canvas
        times = whole.shape[-2] // canvas[0] if whole.ndim > 2 else 0
        if times and whole.shape[-2:] == (canvas[0] * times, canvas[1] * times):
            return take(whole, Box(*(side * times for side in box)))
        axes = [at for at, (n, m) in enumerate(zip(whole.shape, like.shape, strict=True)) if n != m]
        found = self._tokens(whole.shape[axes[0]], like.shape[axes[0]]) if len(axes) == 1 else None
        if found is None:
            raise self._refused(path)
        return whole.index_select(axes[0], torch.from_numpy(found).to(whole.device))

    def _tokens(self, of_canvas: int, of_window: int) -> np.ndarray[Any, Any] | None:
        """Which of so many tokens of a canvas are those of a window, in their order; None: they are no tokens."""
        box, canvas = self._box, self._canvas
        possible: dict[
            int, np.ndarray[Any, Any]
        ] = {}  # by frames: for a patch twice as large they are four times as many
        for patch in range(1, min(box[2:]) + 1):
            if any(side % patch for side in (*canvas, *box[2:])):
                continue
            rows = tokens(box.rows(canvas[0]), canvas[0], patch)
            columns = tokens(box.columns(canvas[1]), canvas[1], patch)
            across = canvas[1] // patch
            grid = canvas[0] // patch * across
            frames = of_canvas // grid
            if frames and frames * grid == of_canvas and frames * len(rows) * len(columns) == of_window:
                places = np.arange(frames)[:, None, None] * grid + rows[:, None] * across + columns
                possible.setdefault(frames, places.ravel())
        return possible.get(self._frames, next(iter(possible.values()), None))

    def _refused(self, path: str) -> BadInput:
        name = type(self._adapter.pipeline).__name__
        return BadInput(f"{name} cannot be tiled with {path!r} in its denoiser calls")


def tokens(pixels: np.ndarray[Any, Any], extent: int, patch: int) -> np.ndarray[Any, Any]:
    """The tokens in which a window's tokens begin, along one axis of a canvas."""
    found: np.ndarray[Any, Any] = pixels[::patch] // patch % (extent // patch)
    return found


def take(latents: torch.Tensor, box: Box) -> torch.Tensor:
    """The pixels of a window, [..., height, width]."""
    rows, columns = box.rows(latents.shape[-2]), box.columns(latents.shape[-1])
    on = latents.device
    return latents.index_select(-2, torch.from_numpy(rows).to(on)).index_select(-1, torch.from_numpy(columns).to(on))
