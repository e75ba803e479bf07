"""Adapters: a window is called as the stock pipeline calls its size, and one window a canvas gives the stock result."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import cache
from itertools import cycle
from typing import Any, NamedTuple

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from diffusers.models.modeling_outputs import Transformer2DModelOutput  # noqa: E402
from PIL import Image  # noqa: E402

from backend.coroutine import DenoiserCall, pipeline_arguments  # noqa: E402
from backend.loading import denoiser_name  # noqa: E402
from backend.merge import Stacked, merge_key  # noqa: E402
from backend.packed import Blocks  # noqa: E402
from backend.tiled.adapter import Adapter  # noqa: E402
from backend.tiled.positions import Places, _Turns  # noqa: E402
from backend.tiled.probe import Walker, replaced  # noqa: E402
from policies.tiling.grid import Box, TileGrid  # noqa: E402
from tests.backend import tiny_image_to_video, tiny_pipelines, tiny_unets  # noqa: E402
from tests.sweep import some  # noqa: E402
from traces.errors import BadInput  # noqa: E402
from traces.request import Request  # noqa: E402

torch.set_num_threads(1)

CANVAS, WINDOW = (8, 12), (4, 8)  # latent pixels
PICTURE = Image.fromarray((np.arange(64 * 64 * 3) % 251).astype(np.uint8).reshape(64, 64, 3))


def embedded(**names: tuple[int, ...]) -> dict[str, Any]:
    """Arguments that are random tensors, the same each time."""
    noise = torch.Generator().manual_seed(1)
    return {name: torch.randn(shape, generator=noise, dtype=torch.float64) for name, shape in names.items()}


WAN_I2V = {"image": PICTURE, **embedded(prompt_embeds=(1, 7, 16), negative_prompt_embeds=(1, 7, 16))}
HUNYUAN_I2V = {
    "image": PICTURE,
    "prompt_attention_mask": torch.ones(1, 7),
    **embedded(prompt_embeds=(1, 7, 16), pooled_prompt_embeds=(1, 16)),
}


class Case(NamedTuple):
    """A pipeline to tile; ``more`` arguments of it, clips of ``frames``, ``images`` of a prompt at once."""

    build: Callable[[], Any]
    more: dict[str, Any] = {}  # noqa: RUF012 - never changed
    frames: int = 1
    images: int = 1


IMAGE_TO_VIDEO = {
    "wan-i2v": Case(tiny_image_to_video.wan_image_to_video, WAN_I2V, 5),
    "wan-2.2-5b-i2v": Case(lambda: tiny_image_to_video.wan_image_to_video(expand_timesteps=True), WAN_I2V, 5),
    "cogvideox-1.5-i2v": Case(tiny_image_to_video.cogvideox_image_to_video, {"image": PICTURE}, 9),
    "hunyuan-i2v-concat": Case(
        lambda: tiny_image_to_video.hunyuan_video_image_to_video("latent_concat"), HUNYUAN_I2V, 5
    ),
    "hunyuan-i2v-replace": Case(
        lambda: tiny_image_to_video.hunyuan_video_image_to_video("token_replace"), HUNYUAN_I2V, 5
    ),
}
CASES = {
    "sd15": Case(tiny_unets.sd15, images=2),
    "sdxl": Case(tiny_pipelines.sdxl, images=2),
    "sd3": Case(tiny_pipelines.sd3, images=2),
    "flux": Case(tiny_pipelines.flux, images=2),
    "pixart": Case(tiny_pipelines.pixart, images=2),
    "wan": Case(tiny_pipelines.wan, frames=5, images=2),
    "wan-2.2-5b": Case(lambda: tiny_pipelines.wan(expand_timesteps=True), frames=5),
    "cogvideox": Case(tiny_pipelines.cogvideox, frames=5),
    "cogvideox-2b": Case(lambda: tiny_pipelines.cogvideox(rotary=False), frames=5),
    "hunyuan": Case(tiny_pipelines.hunyuan_video, frames=5, images=2),
    **IMAGE_TO_VIDEO,
}
COGVIDEOX_15 = Case(tiny_image_to_video.cogvideox15, frames=9)
GUIDED_AND_NOT = [(name, True) for name in CASES]
GUIDED_AND_NOT += [(name, False) for name in some(CASES, "sdxl", "flux", "wan", "cogvideox-1.5-i2v")]
APPENDED = ("wan-i2v", "cogvideox-1.5-i2v", "hunyuan-i2v-concat")
MOVABLE = ("sd3", "flux", "wan", "cogvideox", "cogvideox-1.5-i2v", "hunyuan", "hunyuan-i2v-concat")
ROTARY = tuple(name for name in MOVABLE if name != "sd3")
COUNTED_WITHIN = ("wan", "hunyuan", "hunyuan-i2v-concat", "sd3")  # by the denoiser itself


@cache
def pipeline_of(case: str) -> Any:
    return CASES[case].build().to(torch.float64)


@cache
def adapter_of(case: str, positions: str = "local", native: tuple[int, int] = CANVAS) -> Adapter:
    """One of a model's adapters, of which only the first finds out what is the same for all."""
    if positions == "local":
        embeddings = {name: value for name, value in CASES[case].more.items() if name != "image"}
        return Adapter(pipeline_of(case), positions, native, Walker(pipeline_of(case), embeddings))
    assert positions in adapter_of(case).modes
    adapter = copy.copy(adapter_of(case))
    adapter.positions, adapter.native, adapter._arguments = positions, native, {}
    return adapter


def patch_of(adapter: Adapter) -> int:
    return max(adapter.found.seen.patch, int(np.max(adapter.config.get("patch_size", 1))))


class Seen(NamedTuple):
    """A run of a pipeline: its denoiser calls, and its final latents."""

    calls: list[DenoiserCall]
    latents: Any


def run(
    adapter: Adapter,
    case: Case,
    size: tuple[int, int],
    guided: bool = True,
    latents: Any = None,
    steps: int = 1,
    instead: Callable[..., Any] | None = None,
) -> Seen:
    """The pipeline on ``size`` latent pixels, from given latents; with something ``instead`` of the denoiser it is
    admitted first, else it is the stock pipeline."""
    own = copy.copy(adapter.pipeline)
    own.scheduler = copy.deepcopy(own.scheduler)
    height, width = (side * adapter.factor for side in size)
    asked = {"frames": case.frames, "images": case.images, "guidance_scale": 4.0 if guided else 1.0}
    request = Request("r", 0.0, height, width, steps=steps, seed=3, prompt="a cat", **asked)
    further = adapter.admit(own, request)
    arguments = {**pipeline_arguments(own, request), **case.more, **further, "output_type": "latent"}
    if latents is not None:
        arguments["latents"] = latents.clone()
    if "prompt_embeds" in case.more:
        del arguments["prompt"]
    calls = []
    forward = adapter.denoiser.forward

    def seen(*args: Any, **kwargs: Any) -> Any:
        calls.append(DenoiserCall(args, kwargs))
        return (instead or forward)(*args, **kwargs)

    with torch.no_grad(), replaced(adapter.denoiser, "forward", seen):
        output = own(**arguments)
    return Seen(calls, output.images if hasattr(output, "images") else output.frames)


@cache
def stock_run(case: str, guided: bool = True, steps: int = 1) -> Seen:
    """The stock pipeline's run on the canvas."""
    return run(adapter_of(case), CASES[case], CANVAS, guided, steps=steps)


@cache
def canvas_call(case: str) -> DenoiserCall:
    """The first denoiser call on the canvas."""
    return stock_run(case).calls[0]


def calls_of(adapter: Adapter, case: Case, size: tuple[int, int], guided: bool = True, steps: int = 1) -> Any:
    """The denoiser calls of the stock pipeline for pictures of ``size`` latent pixels; the denoiser is not run."""

    def nothing(*args: Any, **kwargs: Any) -> Any:
        call = DenoiserCall(args, kwargs)
        return adapter.answer(torch.zeros_like(adapter.sample(call, size)), call)

    return run(adapter, case, size, guided, steps=steps, instead=nothing).calls


def by_tiles(
    adapter: Adapter,
    case: Case,
    boxes: Sequence[tuple[Box, Box]],
    canvas: tuple[int, int],
    guided: bool = True,
    steps: int = 1,
) -> Callable[..., Any]:
    """A denoiser that sees the canvas by windows, of which it keeps the cores."""
    forward = adapter.denoiser.forward
    sizes = {window[2:] for _, window in boxes}
    likes = {size: cycle(calls_of(adapter, case, size, guided, steps)) for size in sizes}

    def tiled(*args: Any, **kwargs: Any) -> Any:
        call = DenoiserCall(args, kwargs)
        like = {size: next(calls) for size, calls in likes.items()}
        whole = torch.full_like(adapter.sample(call, canvas), torch.nan)
        for core, window in boxes:
            part = adapter.cut(call, window, canvas, like[window[2:]])
            with adapter.placed(window, canvas):
                output = forward(*part.args, **part.kwargs)
            prediction = adapter.prediction(output, part, window[2:])
            top, left = core.top - window.top, core.left - window.left
            rows, columns = np.ix_(core.rows(canvas[0]), core.columns(canvas[1]))
            whole[..., rows, columns] = prediction[..., top : top + core.height, left : left + core.width]
        return adapter.answer(whole, call)

    return tiled


def one_window(
    adapter: Adapter, case: Case, canvas: tuple[int, int], guided: bool = True, steps: int = 1
) -> Callable[..., Any]:
    box = Box(0, 0, *canvas)
    return by_tiles(adapter, case, [(box, box)], canvas, guided, steps)


@cache
def window_call(case: str, size: tuple[int, int] = WINDOW) -> DenoiserCall:
    """The first denoiser call for a picture of a window's size."""
    return calls_of(adapter_of(case), CASES[case], size)[0]


def cut(case: str, adapter: Adapter, box: Box, call: DenoiserCall | None = None) -> DenoiserCall:
    """The first call of a window."""
    return adapter.cut(call or canvas_call(case), box, CANVAS, window_call(case, box[2:]))


@pytest.mark.parametrize(("name", "guided"), GUIDED_AND_NOT)
def test_one_window_is_the_stock_result(name: str, guided: bool) -> None:
    adapter, case = adapter_of(name), CASES[name]
    stock = stock_run(name, guided, 2)
    tiled = run(adapter, case, CANVAS, guided, steps=2, instead=one_window(adapter, case, CANVAS, guided, 2))
    assert len(stock.calls) == len(tiled.calls)
    assert torch.equal(stock.latents, tiled.latents)


def flat(value: Any, name: str = "") -> dict[str, Any]:
    """All tensors and plain values of a nest by their path."""
    if isinstance(value, dict):
        return {k: v for key, item in value.items() for k, v in flat(item, f"{name}.{key}").items()}
    if isinstance(value, list | tuple):
        return {k: v for at, item in enumerate(value) for k, v in flat(item, f"{name}.{at}").items()}
    return {name: value}


def assert_same_calls(first: DenoiserCall, second: DenoiserCall, without: str = "") -> None:
    one, other = (flat((call.args, call.kwargs)) for call in (first, second))
    assert one.keys() == other.keys()
    for name, value in one.items():
        if torch.is_tensor(value):
            assert value.dtype == other[name].dtype, name
            assert value.shape == other[name].shape, name
            assert name == without or torch.equal(value, other[name]), name
        else:
            assert value == other[name], name


@pytest.mark.parametrize(("name", "guided"), GUIDED_AND_NOT)
def test_a_local_window_is_called_as_a_picture_of_its_size(name: str, guided: bool) -> None:
    adapter, case = adapter_of(name), CASES[name]
    box = Box(3, 1, *WINDOW)
    frames = adapter.sample(canvas_call(name), CANVAS).shape[2]
    noise = torch.randn(case.images, adapter.channels, frames, *CANVAS, dtype=torch.float64)
    canvas = adapter.pack(noise, noise.flatten())
    window = adapter.pack(noise[..., 3:7, 1:9], noise.flatten())
    on_canvas = run(adapter, case, CANVAS, guided, canvas, instead=one_window(adapter, case, CANVAS, guided))
    stock = run(adapter, case, WINDOW, guided, window)
    assert len(stock.calls) == len(on_canvas.calls)
    # What an image encoder and a VAE make of a picture depends on its size, so there latents are equal in shape alone.
    without = f".1.{adapter.input}" if name in IMAGE_TO_VIDEO else ""
    likes = calls_of(adapter, case, WINDOW, guided)
    for whole, expected, like in zip(on_canvas.calls, stock.calls, likes, strict=True):
        assert_same_calls(adapter.cut(whole, box, CANVAS, like), expected, without)


def latents_of(adapter: Adapter, call: DenoiserCall, size: tuple[int, int]) -> Any:
    """All channels that the denoiser is given, conditions too."""
    return adapter.given(call, size)


@pytest.mark.parametrize("name", CASES)
def test_windows_may_cross_the_edges(name: str) -> None:
    adapter, call = adapter_of(name), canvas_call(name)
    box = Box(6, 7, *WINDOW)
    window = latents_of(adapter, cut(name, adapter, box), WINDOW)
    rolled = latents_of(adapter, call, CANVAS).roll((-6, -7), (-2, -1))
    assert torch.equal(window, rolled[..., : WINDOW[0], : WINDOW[1]])
    assert (window.shape[1] > adapter.channels) == (name in APPENDED)
    assert torch.equal(adapter.sample(call, CANVAS), latents_of(adapter, call, CANVAS)[:, : adapter.channels])


def test_the_condition_of_a_window_is_the_window_of_the_condition() -> None:
    for name in APPENDED:
        adapter, call = adapter_of(name), canvas_call(name)
        condition = latents_of(adapter, call, CANVAS)[:, adapter.channels :]
        window = latents_of(adapter, cut(name, adapter, Box(2, 3, *WINDOW)), WINDOW)[:, adapter.channels :]
        assert torch.equal(window, condition[..., 2:6, 3:11])
        elsewhere = latents_of(adapter, cut(name, adapter, Box(4, 0, *WINDOW)), WINDOW)[:, adapter.channels :]
        assert not torch.equal(window, elsewhere)


def test_a_timestep_a_token_is_cut_with_the_tokens() -> None:
    adapter, call = adapter_of("wan-2.2-5b-i2v"), canvas_call("wan-2.2-5b-i2v")
    numbered = torch.arange(2 * 4 * 6).reshape(1, 2, 4, 6)
    call = call._replace(kwargs={**call.kwargs, "timestep": numbered.flatten(1)})
    given = cut("wan-2.2-5b-i2v", adapter, Box(6, 2, *WINDOW), call).kwargs["timestep"]
    assert torch.equal(given.reshape(1, 2, 2, 4), numbered.roll((-3, -1), (2, 3))[:, :, :2, :4])
    between = cut("wan-2.2-5b-i2v", adapter, Box(7, 3, *WINDOW), call).kwargs["timestep"]
    assert torch.equal(between, given)  # the token in which a window's token begins


@pytest.mark.parametrize("name", CASES)
def test_packing_is_the_way_back(name: str) -> None:
    adapter, case = adapter_of(name), CASES[name]
    own = stock_run(name).latents
    latents = adapter.unpack(own, CANVAS)
    assert (*latents.shape[:2], *latents.shape[3:]) == (case.images, adapter.channels, *CANVAS)
    assert torch.equal(adapter.pack(latents, own), own)
    others = torch.randn_like(latents)
    assert torch.equal(adapter.unpack(adapter.pack(others, own), CANVAS), others)
    assert adapter.pack(latents, own.float()).dtype == torch.float32


def moving(case: str, positions: str, native: tuple[int, int] = CANVAS) -> Adapter:
    """An adapter that moves every window, also of models for which it makes no difference."""
    adapter = copy.copy(adapter_of(case, positions, native))
    vars(adapter)["is_relative"] = False
    return adapter


def positions_of(
    adapter: Adapter, call: DenoiserCall, box: Box, like: DenoiserCall, canvas: tuple[int, int] = CANVAS
) -> Any:
    """What a window's tokens are told of their places, [frames, rows, columns, channels]."""
    part = adapter.cut(call, box, canvas, like)
    denoiser, latents = adapter.denoiser, adapter.argument(part, adapter.input)
    with adapter.placed(box, canvas):
        if "image_rotary_emb" in part.kwargs:
            told = part.kwargs["image_rotary_emb"][0]
        elif "img_ids" in part.kwargs:
            texts = part.kwargs["txt_ids"].to(part.kwargs["img_ids"])
            told = denoiser.pos_embed(torch.cat([texts, part.kwargs["img_ids"]]))[0][len(texts) :]
        elif hasattr(denoiser, "rope"):
            told = denoiser.rope(latents)[0].flatten(0, -2)
        else:
            told = denoiser.pos_embed(torch.zeros_like(latents[:1]))[0] - denoiser.pos_embed.proj.bias
    patch = patch_of(adapter)
    return told.reshape(-1, box.height // patch, box.width // patch, told.shape[-1])


def positions(case: str, adapter: Adapter, box: Box) -> Any:
    """`positions_of` a window of the case's canvas."""
    return positions_of(adapter, canvas_call(case), box, window_call(case, box[2:]))


@pytest.mark.parametrize("name", MOVABLE)
def test_absolute_positions_are_those_of_the_stock_canvas(name: str) -> None:
    absolute = moving(name, "absolute")
    canvas = positions(name, adapter_of(name), Box(0, 0, *CANVAS))
    step = patch_of(absolute)
    for top, left in ((0, 0), (2, 4), (6, 6)):
        window = positions(name, absolute, Box(top, left, *WINDOW))
        expected = canvas.roll((-top // step, -left // step), (1, 2))[:, : WINDOW[0] // step, : WINDOW[1] // step]
        torch.testing.assert_close(window, expected, rtol=0, atol=1e-6)
    assert torch.equal(  # a window's own do not depend on its place
        positions(name, adapter_of(name), Box(6, 6, *WINDOW)), positions(name, adapter_of(name), Box(0, 0, *WINDOW))
    )


@pytest.mark.parametrize("name", MOVABLE)
def test_absolute_positions_of_the_whole_canvas_are_local_ones(name: str) -> None:
    case = CASES[name]
    stock = stock_run(name, steps=2)
    absolute = moving(name, "absolute")
    tiled = run(absolute, case, CANVAS, steps=2, instead=one_window(absolute, case, CANVAS, steps=2))
    torch.testing.assert_close(tiled.latents, stock.latents, rtol=0, atol=1e-5)


def test_a_window_that_crosses_no_edge_need_not_be_moved_where_only_distances_matter() -> None:
    """Of Wan, whose text has no positions: as if it were a picture of its own, and so in one forward with others."""
    absolute, boxes = adapter_of("wan", "absolute"), (Box(2, 4, *WINDOW), Box(3, 1, *WINDOW))
    assert absolute.is_relative
    assert [adapter_of(name, "absolute").is_relative for name in ("hunyuan", "flux", "sd3")] == [False] * 3
    parts = [cut("wan", absolute, box) for box in boxes]
    assert absolute.place(boxes[0], CANVAS) is absolute.place(boxes[1], CANVAS) is None
    assert absolute.place(Box(5, 1, *WINDOW), CANVAS) is not None
    for box, part in zip(boxes, parts, strict=True):
        with torch.no_grad(), moving("wan", "absolute").placed(box, CANVAS):
            moved = absolute.denoiser(*part.args, **part.kwargs)[0]
        with torch.no_grad(), absolute.placed(box, CANVAS):
            torch.testing.assert_close(absolute.denoiser(*part.args, **part.kwargs)[0], moved, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in ROTARY if name != "hunyuan"])  # a token a pixel
def test_a_window_between_two_tokens_is_told_so(name: str) -> None:
    """The first channel of an axis turns by one a position."""
    told = positions(name, moving(name, "absolute"), Box(5, 11, *WINDOW))[0].double()
    rows, columns = torch.tensor([5, 7]).double() / 2, torch.tensor([11, 1, 3, 5]).double() / 2  # modulo the canvas
    if name == "cogvideox":  # lays 1 x 2 positions, the shape of the canvas in the 2 x 2 of its training, over 4 x 6
        rows, columns = rows / 4, columns / 3
    of_frames, of_rows = {"flux": (4, 4), "wan": (4, 4), "hunyuan-i2v-concat": (2, 4)}.get(name, (4, 6))
    torch.testing.assert_close(told[:, 0, of_frames], rows.cos(), rtol=0, atol=1e-6)
    torch.testing.assert_close(told[0, :, of_frames + of_rows], columns.cos(), rtol=0, atol=1e-6)


def test_a_table_of_positions_is_interpolated_between_two_tokens() -> None:
    adapter, call = adapter_of("sd3", "absolute"), canvas_call("sd3")
    canvas = positions("sd3", adapter_of("sd3"), Box(0, 0, *CANVAS))
    between = positions("sd3", adapter, Box(3, 2, *WINDOW))
    torch.testing.assert_close(between, (canvas[:, 1:3, 1:5] + canvas[:, 2:4, 1:5]) / 2, rtol=0, atol=1e-12)
    call = call._replace(kwargs={**call.kwargs, "hidden_states": torch.zeros(1, 4, 48, 48).double()})  # its whole table
    edge = positions_of(adapter, call, Box(0, 0, 48, 48), call, (48, 48))
    torch.testing.assert_close(edge.flatten(0, 2), adapter.denoiser.pos_embed.pos_embed[0], rtol=0, atol=1e-12)
    last = positions_of(adapter, call, Box(1, 0, 48, 48), call, (48, 48))[0, -1]
    torch.testing.assert_close(last, edge[0, -1], rtol=0, atol=1e-12)
    large = call._replace(kwargs={**call.kwargs, "hidden_states": torch.zeros(1, 4, 50, 48).double()})
    with pytest.raises(BadInput, match=r"canvas of 50 x 48 latent pixels: this model makes no positions for it"):
        adapter.cut(large, Box(0, 0, 8, 8), (50, 48), window_call("sd3", (8, 8)))


@pytest.mark.parametrize("name", ROTARY)
def test_ntk_on_the_native_size_is_absolute(name: str) -> None:
    native = (4, 4) if name == "cogvideox" else CANVAS  # else its positions lie closer than in training
    call, box = window_call(name, native), Box(0, 0, *native)
    ntk, absolute = (positions_of(moving(name, p, native), call, box, call, native) for p in ("ntk", "absolute"))
    torch.testing.assert_close(ntk, absolute, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ROTARY)
def test_ntk_turns_the_slowest_channel_no_further_than_in_training(name: str) -> None:
    """On a canvas of twice the native height: its last channel of rows ends there, its first is as without."""
    native = (4, 12)
    ntk, absolute = (positions(name, moving(name, p, native), Box(0, 0, *CANVAS)) for p in ("ntk", "absolute"))
    of_frames, of_rows = {"flux": (4, 4), "wan": (4, 4)}.get(name, (2, 4) if "hunyuan" in name else (4, 6))
    axis = slice(of_frames, of_frames + of_rows)
    if name != "cogvideox":  # its absolute positions lie closer
        assert torch.equal(ntk[..., of_frames], absolute[..., of_frames])
        assert torch.equal(ntk[..., of_frames + of_rows :], absolute[..., of_frames + of_rows :])
        assert torch.equal(ntk[..., :of_frames], absolute[..., :of_frames])
        torch.testing.assert_close(
            ntk[:, ::2, :, axis.stop - 1], absolute[:, : ntk.shape[1] // 2, :, axis.stop - 1], rtol=0, atol=1e-6
        )
    assert not torch.allclose(ntk[..., axis], absolute[..., axis], atol=1e-5)


def test_ntk_counts_cogvideox_at_the_native_distance() -> None:
    """Not at the smaller one of the canvas: the first channel of an axis turns by one a token, as at 4 x 4."""
    told = positions("cogvideox", adapter_of("cogvideox", "ntk", (4, 4)), Box(4, 0, *WINDOW))[0].double()
    torch.testing.assert_close(told[:, 0, 4], torch.tensor([2, 3]).double().cos(), rtol=0, atol=1e-6)
    torch.testing.assert_close(told[0, :, 10], torch.arange(4).double().cos(), rtol=0, atol=1e-6)


def test_the_base_is_enlarged_as_ntk_has_it() -> None:
    """theta' = theta * s^(d / (d - 2)), of a model with 64 channels an axis."""
    places, theta, stretch, channels = torch.arange(5).double(), 10000.0, 3.0, 64
    enlarged = theta * stretch ** (channels / (channels - 2))

    def table(base: float) -> Any:
        angles = places[:, None] * base ** (-torch.arange(0, channels, 2).double() / channels)
        return torch.polar(torch.ones_like(angles), angles)[None, :, None]

    found = _Turns(table(theta)).at(Places(places, torch.zeros(1)), (stretch, 1.0), table(theta))
    torch.testing.assert_close(found, table(enlarged), rtol=0, atol=1e-9)
    lying, upright = adapter_of("wan", "ntk", (4, 6)), adapter_of("wan", "ntk", (6, 4))
    assert lying.stretch((8, 6)) == upright.stretch((8, 6)) == (8 / 6, 6 / 4)
    assert lying.stretch((4, 12)) == (1.0, 2.0)


def test_sdxl_is_told_where_an_absolute_window_was_cropped_from() -> None:
    call, box = canvas_call("sdxl"), Box(6, 7, *WINDOW)

    def told(positions: str) -> Any:
        return cut("sdxl", adapter_of("sdxl", positions), box).kwargs["added_cond_kwargs"]["time_ids"]

    assert torch.unique(told("absolute"), dim=0).tolist() == [[16, 24, 12, 14, 8, 16]]
    assert torch.unique(told("local"), dim=0).tolist() == [[8, 16, 0, 0, 8, 16]]
    assert len(told("local")) == 4  # a guided pair
    whole = cut("sdxl", adapter_of("sdxl", "absolute"), Box(0, 0, *CANVAS))
    assert_same_calls(whole, call)


@pytest.mark.parametrize("name", CASES)
def test_windows_of_one_size_share_a_forward(name: str) -> None:
    adapter = adapter_of(name)
    boxes = (Box(0, 0, *WINDOW), Box(3, 9, *WINDOW))
    parts = [cut(name, adapter, box) for box in boxes]
    assert adapter.place(boxes[0], CANVAS) == adapter.place(boxes[1], CANVAS)
    assert merge_key(parts[0]) == merge_key(parts[1])
    forward = adapter.denoiser.forward
    with torch.no_grad():
        alone = [forward(*part.args, **part.kwargs) for part in parts]
        together = Stacked(forward).run(parts)
    for one, other, part in zip(alone, together, parts, strict=True):
        expected, found = (adapter.prediction(output, part, WINDOW) for output in (one, other))
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", MOVABLE)
def test_windows_at_other_places_are_kept_apart(name: str) -> None:
    """By their place where the denoiser counts positions, else because what they are told differs."""
    adapter, boxes = moving(name, "absolute"), (Box(0, 0, *WINDOW), Box(2, 2, *WINDOW))
    keys = [merge_key(cut(name, adapter, box)) for box in boxes]
    places = [adapter.place(box, CANVAS) for box in boxes]
    assert (places[0] != places[1]) == (name in COUNTED_WITHIN)
    assert (keys[0] != keys[1]) == (name not in COUNTED_WITHIN)


@pytest.mark.parametrize("name", ["sd3", "flux", "wan", "cogvideox", "hunyuan"])
def test_a_pack_counts_the_window_too(name: str) -> None:
    adapter = adapter_of(name, "absolute")
    window = Box(7, 10, *WINDOW)
    part = cut(name, adapter, window)
    with torch.no_grad(), adapter.placed(window, CANVAS):
        (packed,) = Blocks(adapter.denoiser).run_in_step([part])
        alone = adapter.denoiser(*part.args, **part.kwargs)
    local = adapter.denoiser(*part.args, **part.kwargs)
    torch.testing.assert_close(packed[0], alone[0], rtol=0, atol=1e-12)
    if name in COUNTED_WITHIN:
        assert (local[0] - alone[0]).abs().max() > 1e-6  # and afterwards it is the stock model again


def test_a_placed_model_is_left_as_it_was_even_when_it_fails() -> None:
    for name in COUNTED_WITHIN:
        adapter = adapter_of(name, "absolute")
        before = [dict(vars(module)) for module in adapter.denoiser.modules()]
        cut(name, adapter, Box(7, 10, *WINDOW))
        with pytest.raises(RuntimeError), adapter.placed(Box(7, 10, *WINDOW), CANVAS):
            raise RuntimeError
        assert [dict(vars(module)) for module in adapter.denoiser.modules()] == before


def test_cogvideox_15_takes_canvases_beyond_its_positions() -> None:
    pipeline, canvas = COGVIDEOX_15.build().to(torch.float64), (8, 20)
    tiles = TileGrid(canvas, (4, 4), (10, 10), "clamp", multiple=2).tiles((1, 3))
    for positions in ("local", "absolute", "ntk"):
        adapter = Adapter(pipeline, positions, (8, 8))
        boxes = [(tile.core, tile.window) for tile in tiles]
        tiled = by_tiles(adapter, COGVIDEOX_15, boxes, canvas, steps=2)
        refined = run(adapter, COGVIDEOX_15, canvas, steps=2, instead=tiled).latents
        assert refined.shape[-2:] == canvas
        assert torch.isfinite(refined).all()
    local = Adapter(pipeline)
    stock = run(local, COGVIDEOX_15, (8, 8), steps=2)
    tiled = run(local, COGVIDEOX_15, (8, 8), steps=2, instead=one_window(local, COGVIDEOX_15, (8, 8), steps=2))
    assert torch.equal(stock.latents, tiled.latents)


@pytest.mark.parametrize("name", some(CASES, "sdxl", "flux", "wan"))
def test_half_precision_is_kept(name: str) -> None:
    case = CASES[name]
    adapter = Adapter(case.build().to(torch.bfloat16), "absolute")
    tiles = TileGrid(CANVAS, (4, 4), (4, 4, 4)).tiles((3, 5))
    instead = by_tiles(adapter, case, [(tile.core, tile.window) for tile in tiles], CANVAS)
    for call, stock in zip(
        run(adapter, case, CANVAS, instead=instead).calls, run(adapter, case, CANVAS).calls, strict=True
    ):
        with torch.no_grad():
            output, expected = instead(*call.args, **call.kwargs), adapter.denoiser(*stock.args, **stock.kwargs)
        assert output[0].dtype == expected[0].dtype == torch.bfloat16
        assert output[0].shape == expected[0].shape
        assert torch.isfinite(output[0]).all()


def test_calls_keep_whose_they_are_and_answers_their_kind() -> None:
    adapter, call = adapter_of("wan"), canvas_call("wan")
    call = call._replace(request_id="r", step=2, steps=9, part=1, denoiser="transformer")
    part = cut("wan", adapter, Box(0, 0, *WINDOW), call)
    assert part[2:] == ("r", 2, 9, 1, "transformer", ())
    prediction = adapter.sample(call, CANVAS)
    assert isinstance(adapter.answer(prediction, call), tuple)
    asked = call._replace(kwargs={**call.kwargs, "return_dict": True})
    answer = adapter.answer(prediction, asked)
    assert isinstance(answer, Transformer2DModelOutput)
    assert torch.equal(adapter.prediction(answer, asked, CANVAS), prediction)


@pytest.mark.parametrize(
    ("name", "positions", "possible"),
    [
        ("sd15", "absolute", "local"),
        ("sdxl", "ntk", "local, absolute"),
        ("sd3", "ntk", "local, absolute"),
        ("pixart", "ntk", "local, absolute"),
        ("cogvideox-2b", "ntk", "local"),
        ("wan", "relative", "local, absolute, ntk"),
    ],
)
def test_a_model_says_which_positions_it_allows(name: str, positions: str, possible: str) -> None:
    with pytest.raises(
        BadInput, match=rf"positions '{positions}' is not possible with \w+( \(.*\))?; possible: {possible}$"
    ):
        Adapter(pipeline_of(name), positions, CANVAS)


def test_what_cannot_be_tiled_is_refused() -> None:
    with pytest.raises(BadInput, match="'ntk' needs the model's native size"):
        Adapter(pipeline_of("wan"), "ntk")
    two = copy.copy(pipeline_of("wan"))
    two.register_modules(transformer_2=two.transformer)
    with pytest.raises(BadInput, match=r"is not possible with WanPipeline \(it has two denoisers\); possible: local$"):
        Adapter(two, "absolute")
    unlike = copy.copy(pipeline_of("wan"))
    unlike.transformer = pipeline_of("sdxl").unet
    with pytest.raises(BadInput, match="cannot tile WanPipeline: walked through a small picture"):
        Adapter(unlike)
    assert denoiser_name(pipeline_of("sdxl")) == "unet"
    call = canvas_call("sdxl")
    controlled = call._replace(kwargs={**call.kwargs, "mid_block_additional_residual": torch.zeros(1)})
    with pytest.raises(BadInput, match="cannot be tiled with 'mid_block_additional_residual'"):
        cut("sdxl", adapter_of("sdxl"), Box(0, 0, *WINDOW), controlled)
    with pytest.raises(BadInput, match="made 8 x 12 latent pixels of a canvas of 8 x 16"):
        adapter_of("sdxl").cut(call, Box(0, 0, *WINDOW), (8, 16), window_call("sdxl"))
    with pytest.raises(BadInput, match="made 24 tokens of a canvas of 8 x 16"):
        adapter_of("flux").cut(canvas_call("flux"), Box(0, 0, *WINDOW), (8, 16), window_call("flux"))


def test_learned_positions_know_one_size_of_window() -> None:
    pipeline = tiny_image_to_video.cogvideox_image_to_video(learned=True).to(torch.float64)
    adapter = Adapter(pipeline)
    case = Case(lambda: pipeline, {"image": PICTURE}, 9)
    tiles = TileGrid((12, 8), (6, 6), (4, 4), multiple=2).tiles((3, 1))
    boxes = [(tile.core, tile.window) for tile in tiles]
    refined = run(adapter, case, (12, 8), instead=by_tiles(adapter, case, boxes, (12, 8))).latents
    assert torch.isfinite(refined).all()
    with pytest.raises(ValueError, match="not possible to generate videos at a different resolution"):
        run(adapter, case, (12, 8), instead=by_tiles(adapter, case, [(Box(0, 0, 8, 4),) * 2], (12, 8)))
    with pytest.raises(BadInput, match=r"possible: local$"):
        Adapter(pipeline, "absolute")
