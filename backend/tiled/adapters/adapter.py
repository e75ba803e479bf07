"""What one denoiser has to say for its canvas to be refined by tiles.

A pipeline that refines a canvas calls its denoiser with the whole of it. An adapter cuts that call into one call a
window, each exactly what the stock pipeline would pass for a picture of the window's size, and makes one answer of the
outputs. So prompts, guidance, sampler and conditions stay the pipeline's own code, and a family is little more than
its latent layout and its positions.

How a window's positions are counted (``positions``):

- ``local``: as if the window were a picture of its own.
- ``absolute``: as the stock pipeline counts the same pixels on the whole canvas; where the window's place is no whole
  number of tokens, between two tokens.
- ``ntk``: as ``absolute``, with the rotary base enlarged so that the canvas's positions turn about as far as the native
  size's did in training, see `backend.tiled.adapters.rotary.ntk_base`.
"""

from __future__ import annotations

import inspect
from collections.abc import Hashable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from diffusers.models.modeling_outputs import Transformer2DModelOutput

from backend.coroutine import DenoiserCall
from backend.loading import denoiser_name
from policies.tiling.grid import Box
from policies.tiling.recipe import along
from traces.errors import BadInput

Extent = tuple[int, int]
"""(height, width) in latent pixels."""


class Adapter:
    """Base of every family: still pictures, [rows, channels, height, width].

    Args:
        pipeline: whose denoiser is called.
        positions: ``local``, ``absolute`` or ``ntk``.
        native: size that the model was trained at, latent pixels; needed for ``ntk``.

    Attributes:
        input: the argument of the denoiser that holds the latents.
        reads: arguments that a window's call can take over or cut. A call that gives anything else (residuals of a
            ControlNet) is refused.
        output: what the denoiser returns when it is not asked for a tuple.

    Raises:
        BadInput: the model cannot count positions this way.
    """

    input = "hidden_states"
    reads: frozenset[str] = frozenset()
    output: Any = Transformer2DModelOutput

    def __init__(self, pipeline: Any, positions: str = "local", native: Extent | None = None) -> None:
        self.pipeline = pipeline
        self.denoiser = getattr(pipeline, denoiser_name(pipeline))
        self.config = self.denoiser.config
        self.positions = positions
        self.native = native
        self._names = list(inspect.signature(type(self.denoiser).forward).parameters)[1:]
        if positions not in self.modes:
            raise BadInput(
                f"tiling.positions {positions!r} is not possible with {type(pipeline).__name__}; "
                f"possible: {', '.join(self.modes)}"
            )
        if positions == "ntk" and native is None:
            raise BadInput("tiling.positions 'ntk' needs the model's native size")

    @property
    def modes(self) -> tuple[str, ...]:
        """The ways to count positions that this model allows."""
        return ("local",)

    @property
    def channels(self) -> int:
        """Latent channels of a sample and of its prediction."""
        return int(self.config.out_channels or self.config.in_channels)

    @property
    def factor(self) -> int:
        """Pixels per latent pixel."""
        return int(getattr(self.pipeline, "vae_scale_factor_spatial", 0) or self.pipeline.vae_scale_factor)

    def admit(self, own: Any) -> dict[str, Any]:
        """Make a request's own copy of the pipeline take canvases of any size.

        Returns further arguments for its ``__call__``.
        """
        return {}

    def sample(self, call: DenoiserCall, canvas: Extent) -> torch.Tensor:
        """The latents of a call as the denoiser sees them, without appended conditions.

        Returns:
            [rows, channels, frames, height, width]; pictures have one frame. It may share memory with the call.
        """
        return self.unpack(self.argument(call, self.input), canvas)[:, : self.channels]

    def cut(self, call: DenoiserCall, box: Box, canvas: Extent) -> DenoiserCall:
        """The call of one window of a canvas-size call: whose it is, text, timestep and guidance stay as they are.

        Raises:
            BadInput: the call has an argument that cannot be cut, or is not of the canvas's size.
        """
        for name in self._names:
            if name not in self.reads | {self.input, "return_dict"} and self.argument(call, name) is not None:
                raise BadInput(f"{type(self.pipeline).__name__} cannot be tiled with {name!r} in its denoiser calls")
        whole = self.argument(call, self.input)
        window = self.pack(take(self.unpack(whole, canvas), box), whole)
        changes = {self.input: window, **self.conditions(call, box, canvas)}
        args = tuple(changes.pop(name, value) for name, value in zip(self._names, call.args, strict=False))
        return call._replace(args=args, kwargs={**call.kwargs, **changes})

    def conditions(self, call: DenoiserCall, box: Box, canvas: Extent) -> dict[str, Any]:
        """Arguments besides the latents that are not the same in a window's call."""
        return {}

    def prediction(self, output: Any, like: DenoiserCall, size: Extent) -> torch.Tensor:
        """What the denoiser returned for a call of ``size``, [rows, channels, frames, height, width]."""
        return self.unpack(output[0], size)[:, : self.channels]

    def answer(self, prediction: torch.Tensor, call: DenoiserCall) -> Any:
        """A prediction as the denoiser would return it to ``call``."""
        packed = self.pack(prediction, self.argument(call, self.input))
        asked = self.argument(call, "return_dict")
        return (packed,) if asked is False else self.output(sample=packed)

    def unpack(self, latents: torch.Tensor, canvas: Extent) -> torch.Tensor:
        """Latents in the pipeline's layout to [rows, channels, frames, height, width].

        Raises:
            BadInput: they are not of the canvas's size.
        """
        return sized(latents, canvas)[:, :, None]

    def pack(self, latents: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """The way back from `unpack`, in the precision and on the device of ``like``."""
        return latents[:, :, 0].to(like)

    def place(self, box: Box, canvas: Extent) -> Hashable:
        """Windows of equal places may run under one `placed`, and so in one forward."""
        return None

    def placed(self, box: Box, canvas: Extent) -> AbstractContextManager[None]:
        """Positions that live inside the denoiser are the window's meanwhile."""
        return nullcontext()

    def stretch(self, canvas: Extent) -> tuple[float, float]:
        """How much larger than the native size the canvas is along each axis, where that changes positions."""
        if self.positions != "ntk" or self.native is None:
            return 1.0, 1.0
        native = along(self.native, (*canvas, 1))
        return max(1.0, canvas[0] / native[0]), max(1.0, canvas[1] / native[1])

    def argument(self, call: DenoiserCall, name: str) -> Any:
        """An argument of a call by its name in the denoiser's forward; None where it was not given."""
        at = self._names.index(name)
        return call.args[at] if at < len(call.args) else call.kwargs.get(name)


class Clips(Adapter):
    """Base of families whose latents are clips, [rows, channels, frames, height, width]."""

    def unpack(self, latents: torch.Tensor, canvas: Extent) -> torch.Tensor:
        return sized(latents, canvas)

    def pack(self, latents: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        return latents.to(like)


def sized(latents: torch.Tensor, canvas: Extent) -> torch.Tensor:
    """The latents, if they are of the canvas's size.

    Raises:
        BadInput: they are not: some pipelines round a size to one they know.
    """
    if latents.shape[-2:] != canvas:
        found, wanted = (" x ".join(map(str, size)) for size in (latents.shape[-2:], canvas))
        raise BadInput(f"the pipeline made {found} latent pixels of a canvas of {wanted}")
    return latents


def take(latents: torch.Tensor, box: Box) -> torch.Tensor:
    """The pixels of a window, [..., height, width]."""
    rows, columns = box.rows(latents.shape[-2]), box.columns(latents.shape[-1])
    on = latents.device
    return latents.index_select(-2, torch.from_numpy(rows).to(on)).index_select(-1, torch.from_numpy(columns).to(on))


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
