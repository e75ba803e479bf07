"""The decoder of an AutoencoderKL on patches, exactly and in less memory: no seams, and no layer whole beside another.

Decoding takes its memory where the picture has its full size: the stock decoder holds the input of a layer, its
normalised copy, the activated copy of that and the convolved one, each of the whole picture. Here a picture is a list
of patches, bands of its full width, and every layer replaces them one by one: what a patch was is freed before the
next is computed. Three things make that exact, those of `backend.patched.hooks`:

- a convolution sees the lines of the bands above and below; the one above has been replaced by then, so its last line
  is kept;
- GroupNorm normalises by the moments of the whole picture, pooled over the bands, each weighted by its pixels;
- self-attention, at the size of the latents, runs over the whole picture.

Bands, not squares: they fit pictures of any size, have two neighbours instead of eight, and their edges are lines.

Where several ranks share a picture (`backend.devices.bands`), each does so with its rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own abbreviation
from diffusers.models.attention_processor import Attention
from diffusers.models.autoencoders.vae import Decoder
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.unets.unet_2d_blocks import UNetMidBlock2D, UpDecoderBlock2D
from diffusers.models.upsampling import Upsample2D

from backend.kernels.stitch import moments
from backend.patched.around import around
from backend.patched.hooks import Unpatchable

Bands = list[torch.Tensor]
"""[1, channels, lines, width] each, from top to bottom; whoever is given a list may use it up."""

Pointwise = Callable[[torch.Tensor], torch.Tensor]


class PatchedDecoder:
    """The forward of a diffusers ``Decoder``, picture by picture and band by band.

    Args:
        decoder: its modules are used, and stay as they are.
        lines: height of a band in latent pixels. Lower bands need less memory.

    Raises:
        Unpatchable: the decoder has a module of an unknown kind.
    """

    def __init__(self, decoder: Decoder, lines: int = 4) -> None:
        self._lines = lines
        self._decoder = decoder
        self._layers = layers_of(decoder)

    def __call__(self, sample: torch.Tensor, latent_embeds: None = None) -> torch.Tensor:
        """[pictures, latent channels, height, width] latents -> [pictures, channels, height x factor, width x factor].

        Pictures are decoded one after the other.
        """
        pictures = [self._picture(latents) for latents in sample.split(1)]
        return torch.cat(pictures) if len(pictures) > 1 else pictures[0]

    def _picture(self, latents: torch.Tensor) -> torch.Tensor:
        decoder = self._decoder
        bands = convolved(list(latents.split(self._lines, dim=2)), decoder.conv_in)
        for layer in self._layers:
            bands = _PASSES[type(layer)](bands, layer)
        assert isinstance(decoder.conv_norm_out, torch.nn.GroupNorm)
        normalise = whole_norm(bands, decoder.conv_norm_out)
        bands = convolved(bands, decoder.conv_out, lambda x: decoder.conv_act(normalise(x)))
        return torch.cat(bands, dim=2)


def layers_of(decoder: Decoder) -> list[torch.nn.Module]:
    """What a decoder does between its first and last convolution: residual blocks, attentions and upsamplers."""
    middle = decoder.mid_block
    if not isinstance(middle, UNetMidBlock2D) or not isinstance(decoder.conv_norm_out, torch.nn.GroupNorm):
        raise Unpatchable(f"its decoder has a {type(middle).__name__} and a {type(decoder.conv_norm_out).__name__}")
    layers: list[torch.nn.Module] = [middle.resnets[0]]
    for attention, resnet in zip(middle.attentions, middle.resnets[1:], strict=True):
        layers += [resnet] if attention is None else [attention, resnet]
    for block in decoder.up_blocks:
        if not isinstance(block, UpDecoderBlock2D):
            raise Unpatchable(f"its decoder has a {type(block).__name__}")
        layers += [*block.resnets, *(block.upsamplers or [])]
    for layer in layers:
        _check(layer)
    for conv in (decoder.conv_in, decoder.conv_out):
        _check_conv(conv)
    return layers


def framed(bands: Bands, activate: Pointwise) -> Iterator[torch.Tensor]:
    """Each band between a line of the band above and one of the band below, activated; zeros outside the picture.

    A band may be replaced as soon as its frame is there. ``activate`` may work in place.
    """
    others = around()
    above, last = (None, None) if others is None else others.neighbours(bands[0][:, :, :1], bands[-1][:, :, -1:])
    for index, band in enumerate(bands):
        edge = torch.zeros_like(band[:, :, :1])
        below = bands[index + 1][:, :, :1] if index + 1 < len(bands) else edge if last is None else last
        frame = activate(torch.cat([edge if above is None else above, band, below], dim=2))
        if above is None:
            frame[:, :, :1] = 0
        if below is edge:
            frame[:, :, -1:] = 0
        above = band[:, :, -1:].clone()
        del band, below
        yield frame
        del frame


def convolved(bands: Bands, conv: torch.nn.Conv2d, activate: Pointwise = lambda x: x) -> Bands:
    """Bands replaced by what a 3x3 convolution makes of them, activated."""
    for index, frame in enumerate(framed(bands, activate)):
        bands[index] = _conv(conv, frame)
    return bands


def whole_norm(bands: Bands, norm: torch.nn.GroupNorm) -> Pointwise:
    """GroupNorm by the moments of the whole picture, for any part of it, in place.

    The variance of a picture is the mean of its bands' variances plus the variance of their means, each band
    weighted by its pixels.
    """
    means, variances = torch.cat([moments(band, norm) for band in bands]).unbind(1)  # [bands, groups] each
    lines = torch.tensor([band.shape[2] for band in bands], dtype=means.dtype, device=means.device)
    share = (lines / lines.sum())[:, None]
    mean = (share * means).sum(0)
    variance = (share * (variances + (means - mean).square())).sum(0)
    if (others := around()) is not None:
        mean, variance = others.pooled(mean, variance)
    each = norm.num_channels // norm.num_groups
    scale = (variance + norm.eps).rsqrt().repeat_interleave(each)
    shift = -mean.repeat_interleave(each) * scale
    if norm.affine:
        weight, bias = norm.weight.to(scale.dtype), norm.bias.to(scale.dtype)
        scale, shift = scale * weight, torch.addcmul(bias, shift, weight)
    factor, offset = scale[:, None, None], shift[:, None, None]
    if scale.dtype == bands[0].dtype:
        return lambda x: x.mul_(factor).add_(offset)
    return lambda x: torch.addcmul(offset, x, factor, out=x)  # of half precision: rounded once, at the end


def _residual(bands: Bands, block: ResnetBlock2D) -> Bands:
    normalise = whole_norm(bands, block.norm1)
    hidden: Bands = []
    for index, frame in enumerate(framed(bands, lambda x: block.nonlinearity(normalise(x)))):
        hidden.append(_conv(block.conv1, frame))
        if block.conv_shortcut is not None:
            bands[index] = block.conv_shortcut(bands[index])
    again = whole_norm(hidden, block.norm2)
    for index, frame in enumerate(framed(hidden, lambda x: block.nonlinearity(again(x)))):
        hidden[index] = frame.new_empty(0)
        out = bands[index].add_(_conv(block.conv2, frame))
        bands[index] = out.div_(block.output_scale_factor) if block.output_scale_factor != 1 else out
    return bands


def _attended(bands: Bands, attention: Attention) -> Bands:
    lines = [band.shape[2] for band in bands]
    picture = torch.cat(bands, dim=2)
    bands.clear()
    return list(attention(picture).split(lines, dim=2))


def _upsampled(bands: Bands, upsample: Upsample2D) -> Bands:
    assert isinstance(upsample.conv, torch.nn.Conv2d)
    for index, frame in enumerate(framed(bands, lambda x: x)):
        doubled = F.interpolate(frame, scale_factor=2.0, mode="nearest")[:, :, 1:-1]
        bands[index] = _conv(upsample.conv, doubled)
    return bands


_PASSES: dict[type, Callable[..., Bands]] = {
    ResnetBlock2D: _residual,
    Attention: _attended,
    Upsample2D: _upsampled,
}


def _conv(conv: torch.nn.Conv2d, frame: torch.Tensor) -> torch.Tensor:
    return F.conv2d(frame, conv.weight, conv.bias, padding=(0, 1))


def _check(layer: torch.nn.Module) -> None:
    if isinstance(layer, ResnetBlock2D):
        if not (layer.time_emb_proj is layer.upsample is layer.downsample is None):
            raise Unpatchable("its decoder has a residual block with a time embedding or a change of size")
        _check_conv(layer.conv1)
        _check_conv(layer.conv2)
    elif isinstance(layer, Upsample2D):
        if layer.use_conv_transpose or not layer.use_conv or layer.norm is not None or layer.name != "conv":
            raise Unpatchable("its decoder upsamples otherwise than by doubling and a convolution")
        _check_conv(layer.conv)
    elif type(layer) not in _PASSES:
        raise Unpatchable(f"its decoder has a {type(layer).__name__}")


def _check_conv(conv: torch.nn.Conv2d) -> None:
    if (conv.kernel_size, conv.padding, conv.stride, conv.groups) != ((3, 3), (1, 1), (1, 1), 1):
        raise Unpatchable(f"its decoder has a convolution of kernel {conv.kernel_size} and padding {conv.padding}")
