"""Where a window's tokens lie on the canvas, in whatever form a model is told.

A model is told positions by arguments (ids, rotary tables, coordinates) or makes them itself, in a module whose output
depends on the size and on nothing else, or that adds a table to what it is given. Which of them it is, and along which
axes tokens are counted, is found by comparing the calls of pictures of two sizes and of two contents; then the table
that the stock model has for the whole canvas is looked up at the window's tokens. Between two tokens, angles are
turned, and all else is interpolated.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

import torch
from torch.utils._pytree import keystr, tree_flatten_with_path, tree_map, tree_map_with_path

from backend.loading import first_line
from backend.tiled.layout import Extent
from backend.tiled.probe import PipelineFacts, Walker, replaced
from policies.tiling.grid import Box
from traces.errors import BadInput

_NEAR = 1e-6
"""Angles that far apart are the same."""
_CANVASES = 8
"""Canvases whose positions are kept."""


class Places(NamedTuple):
    """Where the tokens of a window begin on the canvas, in tokens: down, [tokens], and across, [tokens]."""

    down: torch.Tensor
    across: torch.Tensor

    @classmethod
    def of(cls, box: Box, canvas: Extent, patch: int) -> Places:
        """The places of a window of a canvas, both in latent pixels, for tokens of ``patch`` latent pixels a side."""
        down = torch.from_numpy(box.rows(canvas[0])[::patch]) / patch
        across = torch.from_numpy(box.columns(canvas[1])[::patch]) / patch
        return cls(down.double(), across.double())


class Span(NamedTuple):
    """How a tensor counts tokens: along ``axis`` by rows (``y``), by columns (``x``) or both (``yx``, for each of its
    frames), for tokens of ``patch`` latent pixels a side; ``before`` entries of others come first, ``after`` last."""

    axis: int
    counts: str
    patch: int
    before: int
    after: int

    @classmethod
    def found(cls, values: tuple[torch.Tensor, torch.Tensor], sizes: tuple[Extent, Extent], frames: int) -> Span | None:
        """How a tensor counts tokens, from the tensors of two sizes (latent pixels); None: it does not."""
        first, second = values
        if first.ndim != second.ndim or first.shape == second.shape:
            return None
        axes = [at for at, (n, m) in enumerate(zip(first.shape, second.shape, strict=True)) if n != m]
        if len(axes) != 1:
            return None
        (axis,) = axes
        lengths = first.shape[axis], second.shape[axis]
        clips = sorted((f for f in range(1, frames + 1) if frames % f == 0), reverse=True)
        for more, counts, clip, patch in product((False, True), ("yx", "y", "x"), clips, (1, 2, 4, 8)):
            if any(side % patch for size in sizes for side in size):
                continue
            tokens = [
                {"y": h // patch, "x": w // patch, "yx": clip * (h // patch) * (w // patch)}[counts] for h, w in sizes
            ]
            others = lengths[0] - tokens[0]
            if others == lengths[1] - tokens[1] and (others > 0 if more else others == 0):
                leads = torch.equal(first.narrow(axis, 0, others), second.narrow(axis, 0, others))
                return cls(axis, counts, patch, others if leads else 0, 0 if leads else others)
        return None

    def grid(self, canvas: Extent) -> tuple[int, int]:
        """Rows and columns of tokens of a canvas that it counts."""
        down, across = (side // self.patch for side in canvas)
        return down if "y" in self.counts else 1, across if "x" in self.counts else 1

    def tokens(self, table: torch.Tensor, canvas: Extent) -> torch.Tensor | None:
        """The tokens of a canvas's table, [frames, rows, columns, ...]; None: it is of another size."""
        down, across = self.grid(canvas)
        length = table.shape[self.axis] - self.before - self.after
        if length <= 0 or length % (down * across):
            return None
        own = table.narrow(self.axis, self.before, length).movedim(self.axis, 0)
        return own.unflatten(0, (-1, down, across))

    def put(self, tokens: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """A window's table of these tokens, with the others of ``like``."""
        own = tokens.flatten(0, 2).movedim(0, self.axis)
        parts = [like.narrow(self.axis, 0, self.before), own]
        parts.append(like.narrow(self.axis, like.shape[self.axis] - self.after, self.after))
        whole = [part for part in parts if part.shape[self.axis]]
        return torch.cat([part.to(own) for part in whole], dim=self.axis)


class _Turns:
    """The linear turning of a rotary table: positions and frequencies of each axis, read off the table."""

    def __init__(self, tokens: torch.Tensor) -> None:
        """``tokens``: complex of modulus 1, [frames, rows, columns, ...]."""
        self._axes = [self._axis(tokens.select(3 - at, 0)[0]) for at in (1, 2)]

    def _axis(self, line: torch.Tensor) -> tuple[torch.Tensor, float, float, torch.Tensor]:
        """Of a line of tokens: which entries turn, the first position, the distance and the frequencies."""
        first, step = line[0].angle(), (line[1] / line[0]).angle() if len(line) > 1 else torch.zeros_like(line[0]).real
        turning = step.abs() > 1e-9 if step.dtype == torch.float64 else step.abs() > 1e-7
        if not turning.any():
            return turning, 0.0, 0.0, step
        fastest = step.abs().flatten().argmax()
        distance = float(step.flatten()[fastest])
        return turning, float(first.flatten()[fastest]), distance, step / distance

    def at(self, places: Places, stretch: tuple[float, float], tokens: torch.Tensor) -> torch.Tensor:
        """The table of a window, whose other axes are those of ``tokens``, [frames, rows, columns, ...].

        With a stretch s the base is enlarged: theta' = theta * s^(d / (d - 2)), so that the slowest of an axis's d
        channels turns s times slower, and ends where it did, and the fastest as before, so that neighbours stay told
        apart ("NTK-Aware Scaled RoPE", bloc97, 2023).
        """
        frames, down, across = tokens.shape[:3]
        found = tokens[:, :1, :1].expand(frames, down, across, *tokens.shape[3:]).clone()
        for at, (turning, first, distance, frequency) in enumerate(self._axes):
            if not turning.any():
                continue
            slowest = frequency[turning].abs().min()
            share = torch.where(turning, frequency.abs(), 1.0).log() / slowest.log() if slowest < 1 else 0.0
            slower = frequency * stretch[at] ** (-share if slowest < 1 else 0.0)
            positions = first + places[at] * distance
            shape = [1] * tokens.ndim
            shape[1 + at] = len(positions)
            angles = positions.reshape(shape).to(slower) * slower
            turned = torch.polar(torch.ones_like(angles), angles).to(tokens)
            found = torch.where(turning, turned.expand_as(found), found)
        return found


def looked_up(tokens: torch.Tensor, places: Places, is_angle: bool, is_linear: bool) -> torch.Tensor:
    """The entries of a canvas's tokens, [frames, rows, columns, ...], at the places of a window.

    Between two tokens angles (complex of modulus 1) are turned and others interpolated; beyond the last token, angles
    and what grows evenly go on as before it, and others stay.
    """
    for axis, place in ((1, places.down), (2, places.across)):
        last = tokens.shape[axis] - 1
        low = place.floor().long().clamp(max=last)
        share = (place - low).to(tokens.device)
        start = tokens.index_select(axis, low.to(tokens.device))
        if not share.any():
            tokens = start
            continue
        goes_on = (is_angle or is_linear) and last > 0
        high = torch.where(low < last, low + 1, last)
        before = torch.where(low < last, low, max(0, last - 1)) if goes_on else low
        end, begin = (tokens.index_select(axis, at.to(tokens.device)) for at in (high, before))
        shape = [1] * tokens.ndim
        shape[axis] = -1
        if is_angle:
            turn = (end / begin).angle() * share.reshape(shape).to(end.real)
            tokens = start * torch.polar(torch.ones_like(turn), turn)
        else:
            wide = start if start.dtype == torch.float64 else start.float()  # half precision has no halves beyond 128
            tokens = wide + (end.to(wide) - begin.to(wide)) * share.reshape(shape).to(wide)
    return tokens


@dataclass(frozen=True)
class PositionTable:
    """Tensors that tell positions together: one, or cosines and sines.

    Attributes:
        keys: where they are among the leaves of what holds them.
        span: how each counts tokens.
        is_angle: whether they are angles: complex, or cosines and sines.
        is_linear: whether they grow evenly from token to token.
    """

    keys: tuple[str, ...]
    span: Span
    is_angle: bool
    is_linear: bool

    def of(self, leaves: dict[str, Any]) -> torch.Tensor:
        """The tensors as one: complex, where they are angles."""
        own = [leaves[key] for key in self.keys]
        if len(own) == 2 and own[0].dtype in (torch.bfloat16, torch.float16):
            own = [part.float() for part in own]
        return torch.complex(own[0], own[1]) if len(own) == 2 else own[0]

    def given(self, table: torch.Tensor, like: dict[str, Any]) -> dict[str, torch.Tensor]:
        """The way back, in the precision of ``like``."""
        parts = (table.real, table.imag) if len(self.keys) == 2 else (table,)
        return {
            key: part if self.is_linear else part.to(like[key].dtype)
            for key, part in zip(self.keys, parts, strict=True)
        }


def tables_of(one: Any, other: Any, sizes: tuple[Extent, Extent], frames: int) -> list[PositionTable]:
    """The tables of positions in two nests, of pictures of two sizes (latent pixels)."""
    first, second = leaves_of(one), leaves_of(other)
    found: list[PositionTable] = []
    pending: tuple[str, Span] | None = None
    for key, value in first.items():
        other_value = second.get(key)
        if not isinstance(value, torch.Tensor) or not isinstance(other_value, torch.Tensor):
            pending = None
            continue
        span = Span.found((value, other_value), sizes, frames)
        if span is None:
            pending = None
            continue
        if pending is not None and pending[1] == span and _are_turns(first[pending[0]], value):
            found[-1] = PositionTable((pending[0], key), span, True, False)
            pending = None
            continue
        tokens = span.tokens(value, sizes[0])
        if tokens is None or torch.equal(tokens, tokens[:, :1, :1].expand_as(tokens)):
            pending = None  # it says the same of all tokens
            continue
        is_angle = value.is_complex() and bool(torch.allclose(value.abs(), torch.ones_like(value.abs()), atol=1e-4))
        found.append(PositionTable((key,), span, is_angle, not is_angle and _grows_evenly(value, span, sizes[0])))
        pending = (key, span)
    return found


def leaves_of(value: Any) -> dict[str, Any]:
    """The leaves of a nest by where they are."""
    return {keystr(path): leaf for path, leaf in tree_flatten_with_path(value)[0]}


def with_leaves(value: Any, changed: dict[str, torch.Tensor]) -> Any:
    """A nest with some of its leaves exchanged."""
    return tree_map_with_path(lambda path, leaf: changed.get(keystr(path), leaf), value)


def _are_turns(cos: torch.Tensor, sin: torch.Tensor) -> bool:
    if cos.shape != sin.shape or not cos.is_floating_point() or not sin.is_floating_point():
        return False
    return bool(torch.allclose(cos.double() ** 2 + sin.double() ** 2, torch.ones(()).double(), atol=1e-2))


def _grows_evenly(value: torch.Tensor, span: Span, size: Extent) -> bool:
    tokens = span.tokens(value, size)
    if tokens is None or value.is_complex() or value.dtype == torch.bool:
        return False
    tokens = tokens.double()
    return all(tokens.shape[axis] < 3 or bool(tokens.diff(n=2, dim=axis).abs().max() < 1e-4) for axis in (1, 2))


@dataclass(frozen=True)
class Maker:
    """A module of the denoiser that makes positions.

    Attributes:
        name: the module's.
        adds: whether it adds them to what it is given, rather than returning nothing else.
        tables: in what it returns.
    """

    name: str
    adds: bool
    tables: tuple[PositionTable, ...]


class _Stopped(BaseException):
    """All makers have been called."""


def watched(denoiser: Any, names: Sequence[str], run: Callable[[], Any], stop: bool) -> dict[str, tuple[Any, Any, Any]]:
    """What modules are given and return in a forward, in their first calls: arguments, keyword arguments and output.

    Args:
        denoiser: whose modules.
        names: of the modules.
        run: runs the forward.
        stop: whether to end it once all of them were called.
    """
    seen: dict[str, tuple[Any, Any, Any]] = {}
    modules = dict(denoiser.named_modules())

    def recorder(name: str) -> Callable[..., Any]:
        forward = modules[name].forward

        def recorded(*args: Any, **kwargs: Any) -> Any:
            output = forward(*args, **kwargs)
            seen.setdefault(name, (args, kwargs, output))
            if stop and len(seen) == len(names):
                raise _Stopped
            return output

        return recorded

    with ExitStack() as stack:
        for name in names:
            stack.enter_context(replaced(modules[name], "forward", recorder(name)))
        with suppress(_Stopped):
            run()
    return seen


def makers_in(
    denoiser: Any, runs: Sequence[Callable[[], Any]], sizes: tuple[Extent, Extent], frames: int
) -> list[Maker]:
    """The modules of a denoiser that make positions.

    Args:
        denoiser: a denoiser.
        runs: run its forward: for a picture of the first size, for another content of that size, and for one of the
            second size.
        sizes: two sizes in latent pixels.
        frames: latent frames of what is run.
    """
    names = [name for name, _ in denoiser.named_modules() if name]
    first, other, large = (watched(denoiser, names, run, stop=False) for run in runs)
    modules = dict(denoiser.named_modules())
    found: list[Maker] = []
    for name in names:
        if any(name.startswith(f"{maker.name}.") for maker in found) or not all(
            name in s for s in (first, other, large)
        ):
            continue
        outputs = [seen[name][2] for seen in (first, other, large)]
        adds = not _equal(outputs[0], outputs[1])
        if not adds and (_has_weights(modules[name]) or not _ignores_pictures(modules[name], first[name], sizes[0])):
            continue
        if adds:
            given = first[name]
            if not _takes_a_picture(given, sizes[0]):
                continue
            nothing, wide = (_of_nothing(modules[name], seen[name]) for seen in (first, large))
            if nothing is None or wide is None or not _is_added(modules[name], given, nothing):
                continue
            outputs = [nothing, None, wide]
        tables = tables_of(outputs[0], outputs[2], sizes, frames)
        if tables:
            found.append(Maker(name, adds, tuple(tables)))
    return found


def _equal(one: Any, other: Any) -> bool:
    first, second = leaves_of(one), leaves_of(other)
    pairs = [(first[key], second.get(key)) for key in first]
    if not any(isinstance(value, torch.Tensor) for value, _ in pairs):
        return False
    return all(
        isinstance(b, torch.Tensor) and a.shape == b.shape and torch.equal(a, b)
        for a, b in pairs
        if isinstance(a, torch.Tensor)
    )


def _takes_a_picture(seen: tuple[Any, Any, Any], size: Extent) -> bool:
    args, kwargs, output = seen
    return len(args) == 1 and not kwargs and _is_picture(args[0], size) and isinstance(output, torch.Tensor)


def _is_picture(value: Any, size: Extent) -> bool:
    return isinstance(value, torch.Tensor) and value.ndim in (4, 5) and value.shape[-2:] == size


def _of_nothing(module: Any, seen: tuple[Any, Any, Any]) -> torch.Tensor | None:
    """What a module makes of zeros: what it adds."""
    made = module.forward(torch.zeros_like(seen[0][0]))
    return made if isinstance(made, torch.Tensor) else None


def _is_added(module: Any, seen: tuple[Any, Any, Any], nothing: torch.Tensor) -> bool:
    """Whether the module adds the same whatever it is given."""
    given = seen[0][0]
    twice = module.forward(2 * given)
    expected = 2 * (seen[2] - nothing)
    least = 0.05 if given.dtype in (torch.bfloat16, torch.float16) else 1e-3
    return bool((twice - nothing - expected).abs().max() <= least * expected.abs().max())


def _has_weights(module: Any) -> bool:
    return next(module.parameters(), None) is not None


def _ignores_pictures(module: Any, seen: tuple[Any, Any, Any], size: Extent) -> bool:
    """Whether a module returns the same whatever the pictures are that it is given."""
    noise = torch.Generator().manual_seed(0)

    def other(value: Any) -> Any:
        if not _is_picture(value, size) or not value.is_floating_point():
            return value
        return torch.randn(value.shape, generator=noise).to(value)

    args, kwargs, output = seen
    return _equal(output, module.forward(*tree_map(other, args), **tree_map(other, kwargs)))


@contextmanager
def replacing(denoiser: Any, makers: dict[str, Callable[[Callable[..., Any]], Callable[..., Any]]]) -> Iterator[None]:
    """The forwards of some modules replaced by what is made of them."""
    modules = dict(denoiser.named_modules())
    with ExitStack() as stack:
        for name, made in makers.items():
            stack.enter_context(replaced(modules[name], "forward", made(modules[name].forward)))
        yield


class Turning(NamedTuple):
    """How a rotary base is enlarged: the native size in latent pixels, and how much larger the canvas is, along each
    axis."""

    native: Extent
    stretch: tuple[float, float]


class Sources(NamedTuple):
    """Leaves that tell positions, by where they are: of the whole canvas, of a picture of the window's size, and of one
    of the native size, where the rotary base is enlarged."""

    whole: dict[str, Any]
    like: dict[str, Any]
    native: dict[str, Any] | None


def moved_table(
    table: PositionTable,
    sources: Sources,
    box: Box,
    canvas: Extent,
    turning: Turning | None,
    exact: bool = False,
) -> dict[str, torch.Tensor] | None:
    """The leaves of a window's table.

    Args:
        table: which.
        sources: what is known of it.
        box: the window.
        canvas: (height, width) in latent pixels.
        turning: how it is enlarged.
        exact: whether the canvas must have as many frames.

    Returns:
        None where the canvas has no such positions.
    """
    whole, like, native = sources
    span = table.span
    places, size = Places.of(box, canvas, span.patch), (box.height, box.width)
    local = table.of(like)
    tokens = span.tokens(local, size)
    if tokens is None:
        return None
    known = all(isinstance(whole.get(key), torch.Tensor) for key in table.keys)
    of_canvas = span.tokens(table.of(whole), canvas) if known else None
    if exact and (of_canvas is None or of_canvas.shape[0] != tokens.shape[0]):
        return None
    found = None
    if of_canvas is not None and of_canvas.shape[0] == tokens.shape[0]:
        if of_canvas.shape[3:] != tokens.shape[3:]:  # windows that share a forward are more rows than the canvas was
            of_canvas = of_canvas[:, :, :, :1].expand(*of_canvas.shape[:3], *tokens.shape[3:])
        down, across = (
            place if name in span.counts else place[:1] * 0 for place, name in zip(places, "yx", strict=True)
        )
        found = looked_up(of_canvas, Places(down, across), table.is_angle, table.is_linear)
    if table.is_angle and (found is None or turning is not None):
        reference, reference_size = (like, size) if native is None or turning is None else (native, turning.native)
        of_reference = span.tokens(table.of(reference), reference_size)
        if of_reference is None:
            return None
        turned = _Turns(of_reference).at(places, turning.stretch if turning else (1.0, 1.0), tokens)
        found = turned if found is None else torch.where((turned - found).abs() < _NEAR, found, turned)
    return None if found is None else table.given(span.put(found, local), like)


class Mover:
    """Moves the windows of one pipeline's denoiser to where they lie on their canvas.

    Args:
        walker: of the pipeline.
        denoiser: the pipeline's.
        sizes: (height, width) in pixels of two small pictures that the pipeline makes.
        found: what is known of the pipeline.

    Attributes:
        calls: of pictures of these sizes.
        arguments: the tables among the arguments of the denoiser.
        makers: the modules of the denoiser that make positions.
    """

    def __init__(self, walker: Walker, denoiser: Any, sizes: tuple[Extent, Extent], found: PipelineFacts) -> None:
        self._walker, self._denoiser, self._factor = walker, denoiser, found.factor
        self._forward = denoiser.forward
        frames, content = found.frames, {found.input, *(path.split(".")[0] for path in found.drawn | found.timed)}
        small, large = sizes
        calls = [walker.call(*small), walker.call(*small, seed=1), walker.call(*large)]
        self.calls = calls[0], calls[2]
        latent = (self._latent(small), self._latent(large))
        told = [{name: value for name, value in call.kwargs.items() if name not in content} for call in calls]
        tables = tables_of(told[0], told[2], latent, frames)
        angles = any(table.is_angle for table in tables)  # whole numbers beside them count the tokens of their tables
        leaves = leaves_of(told[0])
        self.arguments = [t for t in tables if not angles or leaves[t.keys[0]].is_floating_point() or t.is_angle]
        with torch.no_grad():
            runs = [functools.partial(denoiser.forward, **call.kwargs) for call in calls]
            self.makers = makers_in(denoiser, runs, latent, frames)
        self._made: dict[Any, dict[str, Any]] = {}  # by canvas what makers made for it
        self._native: dict[Extent, tuple[dict[str, Any], dict[str, Any]]] = {}

    def _latent(self, size: Extent) -> Extent:
        return size[0] // self._factor, size[1] // self._factor

    @property
    def can_move(self) -> bool:
        """Whether positions are found at all."""
        return bool(self.arguments or self.makers)

    @property
    def can_turn(self) -> bool:
        """Whether they are angles, whose base can be enlarged."""
        return any(table.is_angle for table in (*self.arguments, *(t for m in self.makers for t in m.tables)))

    def used(self, ntk: bool) -> list[Maker]:
        """The modules whose positions are replaced; where arguments tell them, only to turn otherwise."""
        if not self.arguments:
            return self.makers
        turned = any(table.is_angle for table in self.arguments)
        return [m for m in self.makers if any(t.is_angle for t in m.tables)] if ntk and not turned else []

    def native(self, size: Extent) -> tuple[dict[str, Any], dict[str, Any]]:
        """What arguments and makers tell of a picture of the native size (latent pixels): leaves by where they are."""
        if size not in self._native:
            call = self._walker.call(size[0] * self._factor, size[1] * self._factor)
            self._native[size] = (leaves_of(call.kwargs), self._making(call.kwargs))
        return self._native[size]

    def note(self, named: dict[str, Any], canvas: Extent, frames: int) -> None:
        """Find what the makers make for a canvas, from a call for it.

        Raises:
            BadInput: they cannot.
        """
        if (canvas, frames) in self._made:
            return
        while len(self._made) >= _CANVASES:
            self._made.pop(next(iter(self._made)))
        try:
            self._made[canvas, frames] = self._making(named)
        except Exception as error:
            raise BadInput(
                f"tiling.positions is not possible on a canvas of {canvas[0]} x {canvas[1]} latent pixels: this model "
                f"makes no positions for it ({first_line(error)})"
            ) from error

    @torch.no_grad()
    def _making(self, named: dict[str, Any]) -> dict[str, Any]:
        names = [maker.name for maker in self.makers]
        seen = watched(self._denoiser, names, lambda: self._forward(**named), stop=True)
        modules = dict(self._denoiser.named_modules())
        made = {}
        for maker in self.makers:
            output = _of_nothing(modules[maker.name], seen[maker.name]) if maker.adds else seen[maker.name][2]
            made[maker.name] = leaves_of(output)
        return made

    def moved_arguments(
        self, named: dict[str, Any], like: dict[str, Any], box: Box, canvas: Extent, turning: Turning | None
    ) -> dict[str, torch.Tensor]:
        """The leaves of a window's arguments that tell positions, by where they are.

        Args:
            named: arguments of the canvas's call.
            like: arguments of the call for a picture of the window's size.
            box: the window.
            canvas: (height, width) in latent pixels.
            turning: how the rotary base is enlarged; None: not at all.

        Raises:
            BadInput: they are not known.
        """
        whole, alike = leaves_of(named), leaves_of(like)
        found: dict[str, torch.Tensor] = {}
        for table in self.arguments:
            native = self.native(turning.native)[0] if turning is not None and table.is_angle else None
            moved = moved_table(table, Sources(whole, alike, native), box, canvas, turning)
            if moved is None:
                raise BadInput(
                    f"tiling.positions is not possible on a canvas of {canvas[0]} x {canvas[1]} latent pixels: the "
                    f"pipeline passes no {', '.join(table.keys)} for all of it"
                )
            found |= moved
        return found

    def placed(self, box: Box, canvas: Extent, turning: Turning | None) -> AbstractContextManager[None]:
        """The makers make a window's positions meanwhile, of a canvas that is noted."""

        def instead(maker: Maker, forward: Callable[..., Any]) -> Callable[..., Any]:
            native = self.native(turning.native)[1][maker.name] if turning is not None else None

            def made(*args: Any, **kwargs: Any) -> Any:
                output = forward(*args, **kwargs)
                alike = forward(torch.zeros_like(args[0])) if maker.adds else output
                own = leaves_of(alike)
                changed: dict[str, torch.Tensor] = {}
                for table in maker.tables:
                    for (size, _), whole in self._made.items():
                        if size == canvas and not changed.keys() & set(table.keys):
                            changed |= (
                                moved_table(
                                    table, Sources(whole[maker.name], own, native), box, canvas, turning, exact=True
                                )
                                or {}
                            )
                if not changed:
                    return output
                return output + (changed[""] - alike).to(output) if maker.adds else with_leaves(output, changed)

            return made

        makers: dict[str, Callable[[Callable[..., Any]], Callable[..., Any]]] = {
            m.name: functools.partial(instead, m) for m in self.used(turning is not None)
        }
        return replacing(self._denoiser, makers)
