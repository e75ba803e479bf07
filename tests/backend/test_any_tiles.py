"""Every family that diffusers has, by tiles; exactly what follows from the stock pipeline, in float64.

TILECAST_MIXES=15 does all of it for every family, else some stand for the others.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from backend.coroutine import DenoiserCall  # noqa: E402
from backend.executor import Executor  # noqa: E402
from backend.inputs import image_use  # noqa: E402
from backend.loading import geometry_of_pipeline  # noqa: E402
from backend.tiled.adapter import Adapter  # noqa: E402
from backend.tiled.layout import Layout, numbered, places_of  # noqa: E402
from policies.caching import CachingPolicy, FixedInterval, Flags, Signals  # noqa: E402
from policies.tiling.grid import Box  # noqa: E402
from tests.backend.families import FAMILIES, draw_pictures, started  # noqa: E402
from tests.backend.mixed import sampled_alone  # noqa: E402
from tests.backend.tiled_runs import executor_of, refine, upscaled  # noqa: E402
from tests.sweep import SWEEP  # noqa: E402
from traces.errors import BadInput  # noqa: E402
from traces.request import Request  # noqa: E402

torch.set_num_threads(1)
REFUSED = {
    "SkyReels 2 forcing": "samples each frame by a sampler of its own",
    "LTX-2": "cannot tile LTX2Pipeline: .* it takes more than one output of its denoiser",
}
TILED = [name for name in FAMILIES if name not in REFUSED]
"""Families by tiles."""
QUICK = (
    *("Flux", "FLUX.2 klein", "Qwen-Image-Edit", "Z-Image", "CogView 4", "Lumina-Next", "HiDream", "Wan 2.2 5B"),
    *("LTX image to video", "Kandinsky 5", "Latte"),
)
"""Of which every way to lay latents out, and to be told positions, is one."""
SOME = TILED if SWEEP else QUICK

LARGER = {"Allegro": 2}
"""Whose autoencoder encodes nothing smaller than a tile of its own."""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    draw_pictures(folder)
    return folder


@cache
def adapter_of(name: str) -> Adapter:
    return Adapter(FAMILIES[name].pipeline())


def sizes_of(adapter: Adapter) -> tuple[tuple[int, int], tuple[int, int], int]:
    """A canvas and a window in latent pixels, and the multiple that windows are moved by here."""
    step = adapter.found.multiple // adapter.factor
    return (4 * step, 6 * step), (2 * step, 4 * step), step


def differences(one: Any, other: Any) -> list[float]:
    """How far apart the numbers of two outputs or arguments are; infinite where they are no such numbers."""
    if isinstance(one, torch.Tensor):
        if not isinstance(other, torch.Tensor) or one.shape != other.shape or one.dtype != other.dtype:
            return [float("inf")]
        return [float((one.to(torch.complex128) - other.to(torch.complex128)).abs().max())] if one.numel() else []
    if isinstance(one, dict):
        keys = one.keys() | other.keys()
        return [found for key in keys for found in differences(one.get(key), other.get(key))]
    if isinstance(one, list | tuple):
        pairs = zip(one, other, strict=len(one) == len(other))
        return [found for first, second in pairs for found in differences(first, second)]
    return [] if one == other or not isinstance(one, int | float | str) else [float("inf")]


@pytest.mark.parametrize("name", SOME)
def test_a_window_is_called_as_a_picture_of_its_size(name: str) -> None:
    """With the window's latents, wherever it lies: also across an edge."""
    adapter = adapter_of(name)
    canvas, window, step = sizes_of(adapter)
    walker, factor = adapter._walker, adapter.factor
    noise = torch.Generator().manual_seed(1)
    whole = torch.randn(1, adapter.channels, adapter.found.frames, *canvas, generator=noise, dtype=torch.float64)

    def called(size: tuple[int, int], latents: Any) -> DenoiserCall:
        return walker.call(size[0] * factor, size[1] * factor, start=adapter.found.started.join(latents)[0])

    call, like = called(canvas, whole), walker.call(*(side * factor for side in window), seed=5)
    for top, left in ((0, 0), (step, step), (3 * step, 4 * step)):
        box = Box(top, left, *window)
        rows, columns = np.ix_(box.rows(canvas[0]), box.columns(canvas[1]))
        stock = called(window, whole[..., rows, columns])
        part = adapter.cut(call, box, canvas, like)
        kept = adapter.found.drawn | {adapter.input}  # what is made of a picture of another size is another
        told = [{path: value for path, value in c.kwargs.items() if path not in kept} for c in (part, stock)]
        assert max(differences(*told), default=0.0) == 0.0
        latents = [adapter.sample(c, window) for c in (part, stock)]
        assert torch.equal(*latents)


@pytest.mark.parametrize("name", SOME)
def test_one_tile_is_the_stock_pipeline(name: str, pictures: Path, record_property: Any) -> None:
    """Of a request refined from its first step on: the same latents make the same picture."""
    executor, request = tiling(name, pictures, tile="whole", steps=2, refine=1.0)
    upscaled(executor, request)
    run: Any = executor._runs[request.request_id]
    start = run.active.latents.clone()
    ours = refine(executor, request)[request.request_id]
    stock = FAMILIES[name].pipeline()
    own = run.adapter.admit(stock, request)
    prepare = stock.prepare_latents

    @functools.wraps(prepare)
    def prepared(*args: Any, **kwargs: Any) -> Any:
        made = prepare(*args, **kwargs)
        return (start.clone(), *made[1:]) if isinstance(made, tuple) else start.clone()

    stock.prepare_latents = prepared
    encode, texts = stock.encode_prompt, iter(run._prepared.texts)
    stock.encode_prompt = functools.wraps(encode)(lambda *args, **kwargs: next(texts))
    args, kwargs = run._prepared.schedule  # that of the sketch
    sampler = stock.scheduler
    set_timesteps = functools.partial(sampler.set_timesteps, *args, **kwargs)
    sampler.set_timesteps = functools.wraps(sampler.set_timesteps)(lambda *args, **kwargs: set_timesteps())
    expected = sampled_alone(stock, request, **own, **started(stock, request, pictures))
    error = float((ours - expected).abs().max() / expected.std())
    record_property("error", error)
    assert error <= FAMILIES[name].tolerance
    assert (ours - run.adapter.pack(run.adapter.unpack(start, run.shape.grid.canvas), ours)).abs().max() > 1e-3


def tiling(name: str, pictures: Path, tile: str = "", steps: int = 3, **rule: Any) -> tuple[Executor, Request]:
    """An executor that tiles, and a request of four times the size that its model is said to be trained for."""
    family = FAMILIES[name]
    pipeline = family.pipeline()
    unit = max(family.unit, geometry_of_pipeline(pipeline, "mine").size_multiple, 8)
    unit *= LARGER.get(name, 1)
    use = {"image": "condition" if image_use(pipeline) == "required" else "refine"}
    caching = rule.pop("caching", None)
    if tile == "whole":
        rule["tile"] = (4 * unit, 4 * unit)
    executor = executor_of(pipeline, (2 * unit, 2 * unit), {**use, **rule}, images=pictures, caching=caching)
    executor.images = pictures
    request = family.requests(pipeline)[0]
    return executor, replace(request, height=4 * unit, width=4 * unit, steps=steps, guidance_scale=3.0)


@pytest.mark.parametrize("name", TILED if SWEEP else ("Z-Image", "Wan 2.2 5B", "LTX image to video"))
def test_a_cache_that_computes_all_changes_nothing_and_one_that_does_not_reuses(name: str, pictures: Path) -> None:
    found = []
    for caching in (None, _All(), FixedInterval(2, 1)):
        executor, request = tiling(name, pictures, caching=caching)
        upscaled(executor, request)
        outcome = executor.execute("refine", [request], executor.recipe(request)[-2][1])
        assert outcome.failed is None, outcome.failed
        latents = executor.latents(request.request_id)
        assert latents is not None
        found.append((latents.clone(), outcome.reused))
    (plain, _), (all_of_it, none), (some, reused) = found
    assert torch.equal(plain, all_of_it)
    assert none == 0
    assert reused > 0
    assert torch.isfinite(some).all()
    assert not torch.equal(plain, some)


class _All(CachingPolicy):
    """Holds outputs and never reuses one."""

    def decide(self, signals: Signals) -> Flags:
        return np.ones(len(signals.unit), dtype=bool)


MOVED = {
    "no": "nothing that its denoiser is given or makes tells where a token lies",
    "whole": "tensors used as indices must be long",
    "two": "it has two denoisers",
    "other": "moved as a whole, a picture does not come out moved",
}
LOCAL = {
    "Z-Image": "no", "Lumina 2": "no", "Sana": "no", "HiDream": "no", "Lumina-Next": "no",
    "Kandinsky 5 image": "whole", "Kandinsky 5": "whole", "Wan 2.2 A14B": "two",
    "GLM-Image": "other", "Latte": "other", "Wan VACE": "other",
}  # fmt: skip
"""Families whose positions cannot be moved, and why."""


@pytest.mark.parametrize("name", [name for name in SOME if name not in LOCAL])
def test_a_canvas_rolled_with_its_positions_comes_out_rolled(name: str) -> None:
    """Attention does not know the order of tokens, so what moves is right exactly if all positions are moved."""
    adapter = Adapter(FAMILIES[name].pipeline(), "absolute")
    vars(adapter)["is_relative"], vars(adapter)["_told"] = False, {}  # of no crop
    call, (_, canvas) = adapter._mover.calls[1], adapter._sizes  # type: ignore[union-attr]
    step = adapter.found.multiple // adapter.factor
    stock = adapter.prediction(adapter.denoiser.forward(**call.kwargs), call, canvas)
    for top, left in ((step, 0), (3 * step, 5 * step)):
        part = adapter.cut(call, Box(top, left, *canvas), canvas, call)
        with torch.no_grad(), adapter.placed(Box(top, left, *canvas), canvas):
            rolled = adapter.prediction(adapter.denoiser.forward(**part.kwargs), part, canvas)
        error = (rolled - stock.roll((-top, -left), (-2, -1))).abs().max() / stock.std()
        assert error <= max(1e-9, FAMILIES[name].tolerance)


@pytest.mark.parametrize("name", [name for name in SOME if name in LOCAL])
def test_positions_that_cannot_be_moved_are_refused_in_one_line(name: str) -> None:
    with pytest.raises(BadInput, match=rf"'absolute' is not possible with .*{MOVED[LOCAL[name]]}.*; possible: local$"):
        Adapter(FAMILIES[name].pipeline(), "absolute")


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_tiled_is_refused_in_one_line(name: str, pictures: Path) -> None:
    with pytest.raises(BadInput, match=REFUSED[name]):
        tiling(name, pictures)


@pytest.mark.parametrize("axes", ["c f y x", "f c y x", " y x c", "yx cvu", "fyx c", "yx vuc", "c  y x"])
def test_a_layout_is_found_from_numbered_latents(axes: str) -> None:
    sizes = {"c": 3, "f": 4 if "f" in axes else 1, "y": 4, "x": 6, "v": 2, "u": 2}
    patch = 2 if "v" in axes else 1
    layout = Layout(tuple(axes.split(" ")), patch)
    latents = torch.arange(1, 1 + sizes["c"] * sizes["f"] * 24 * patch**2).reshape(
        1, sizes["c"], sizes["f"], 4 * patch, 6 * patch
    )
    laid_out = layout.join(latents)
    found = Layout.found(places_of(laid_out[0], latents[0]), laid_out.shape[1:])
    assert found == layout
    assert torch.equal(found.split(laid_out, (4 * patch, 6 * patch))[0], latents)
    places = places_of(laid_out[0], latents[0])
    places[0][0, 0, 0, :2] = places[0][0, 0, 0, :2].flip(0)
    if len({int(n) for n in places[0][0, 0, 0, :2]}) > 1:
        with pytest.raises(BadInput, match="laid out in no way that is known"):
            Layout.found(places, laid_out.shape[1:])


def test_numbers_are_read_digit_by_digit() -> None:
    digits = [numbered((7, 9), digit, 16) for digit in (0, 1)]
    assert torch.equal(digits[0] + 16 * digits[1], torch.arange(1.0, 64).reshape(7, 9).double())
