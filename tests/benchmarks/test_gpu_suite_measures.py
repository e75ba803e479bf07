"""What the suite's measurements measure: models, calls, ways that agree, shares, tokens. On narrow models."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from backend.shapes.models import MODELS  # noqa: E402
from benchmarks.gpu_suite.bench import Bench  # noqa: E402
from benchmarks.gpu_suite.ceilings import measure_ceiling  # noqa: E402
from benchmarks.gpu_suite.kernels import measure_kernel  # noqa: E402
from benchmarks.gpu_suite.mixes import equal_shapes, measure_mix, token_count  # noqa: E402
from benchmarks.gpu_suite.models import NARROW, Random, build, denoiser_calls, latent_shape, model_of  # noqa: E402
from benchmarks.gpu_suite.point import Point  # noqa: E402
from benchmarks.gpu_suite.steps import measure_decode, measure_encode, measure_step  # noqa: E402
from benchmarks.gpu_suite.tiles import FixedShare, measure_cached, measure_tile, share_of  # noqa: E402
from benchmarks.gpu_suite.ways import Denoiser, relative_error, together, wrong  # noqa: E402
from policies.caching import Signals  # noqa: E402
from traces.composition import parse  # noqa: E402
from traces.errors import BadInput  # noqa: E402
from traces.geometry import geometry_of  # noqa: E402

torch.set_num_threads(1)
CPU = torch.device("cpu")


@pytest.fixture
def bench() -> Bench:
    return Bench(CPU, torch.float32, smoke=True)


def test_every_narrow_model_stands_for_a_real_one() -> None:
    for name, narrow in NARROW.items():
        real = MODELS[name]
        assert (narrow.guidance_rows, narrow.frame_patch, narrow.video) == (
            real.guidance_rows, real.frame_patch, real.video,
        )  # fmt: skip
        assert narrow.stages.keys() == real.stages.keys()
        for title, stage in narrow.stages.items():
            assert (stage.tiles, stage.method) == (real.stages[title].tiles, real.stages[title].method)
    with pytest.raises(BadInput, match="the suite has no model 'sd9'; known: sdxl"):
        model_of("sd9", narrow=True)


@pytest.mark.parametrize("name", NARROW)
def test_a_built_denoiser_is_as_diffusers_loads_it(name: str, tmp_path: Path) -> None:
    """In bfloat16: the types of parameters, and the types and contents of tables."""
    torch.manual_seed(0)
    (built,) = build(NARROW[name].stages["denoise"], CPU, torch.bfloat16)
    built.save_pretrained(tmp_path)
    loaded = type(built).from_pretrained(tmp_path, torch_dtype=torch.bfloat16)
    assert not built.training
    assert {n: p.dtype for n, p in built.named_parameters()} == {n: p.dtype for n, p in loaded.named_parameters()}
    tables = dict(loaded.named_buffers())
    for label, table in built.named_buffers():
        assert table.dtype == tables[label].dtype
        torch.testing.assert_close(table, tables[label], rtol=0, atol=0)


@pytest.mark.parametrize("name", NARROW)
def test_calls_are_those_of_the_pipeline(name: str) -> None:
    model = NARROW[name]
    stage = model.stages["denoise"]
    (module,) = build(stage, CPU, torch.float32)
    size = (64, 96, 9 if model.video else 1)
    shape = latent_shape(name, size, frame_patch=model.frame_patch)
    rounds = denoiser_calls(name, model, module, [shape, shape], Random(CPU, torch.float32))
    assert [len(calls) for calls in rounds] == ([2, 2] if name == "wan-1.3b" else [2])
    assert sum(len(call.args[0]) for calls in rounds for call in calls) == 2 * model.guidance_rows
    mixer = together(Denoiser.of(name, Bench(CPU, torch.float32, smoke=True)).whole(), rounds)
    with torch.no_grad():
        outputs = mixer()
        alone = [module(*call.args, **call.kwargs)[0] for calls in rounds for call in calls]
    assert len(outputs) == len(alone)
    first, second = rounds[0]
    assert not torch.equal(first.args[0], second.args[0])
    assert all(output.isfinite().all() and 0.01 < output.std() < 100 for output in alone)


def test_frames_are_padded_to_whole_tokens_for_the_denoiser_alone() -> None:
    assert latent_shape("cogvideox-1.5", (64, 64, 17), frame_patch=2) == (6, 8, 8)
    assert latent_shape("cogvideox-1.5", (64, 64, 17), "decode") == (5, 8, 8)


@pytest.mark.parametrize(
    ("name", "way", "composition"),
    [
        ("sdxl", "patched", "1@64x64+1@128x64"),
        ("flux", "packed", "1@64x64+1@64x96"),
        ("wan-1.3b", "packed", "1@64x64x5+1@64x64x9"),
    ],
)
def test_ways_of_a_mix_agree_and_are_timed_in_the_same_rounds(
    bench: Bench, name: str, way: str, composition: str
) -> None:
    result = measure_mix(Point("mix", name, way, parse(composition)), bench)
    json.dumps(result)
    other = "channels-last" if way == "patched" else "equal-tokens"
    assert result["ways"].keys() == {way, "reference", "one-by-one", "same-size", other}
    assert len({len(of["repeats"]) for of in result["ways"].values()}) == 1
    assert result["seconds"] == result["ways"][way]["seconds"]
    assert result["rows"] == 2 * model_of(name, True).guidance_rows
    assert max(of.get("error", 0.0) for of in result["ways"].values()) < 1e-4
    served = {which: result["ways"][which]["seconds"] for which in (way, "same-size")}
    assert result["chosen"] == min(served, key=served.__getitem__)


def test_a_mix_of_another_kind_is_refused(bench: Bench) -> None:
    with pytest.raises(BadInput, match="images of flux are mixed 'packed', not 'patched'"):
        measure_mix(Point("mix", "flux", "patched", parse("1@64x64")), bench)


class Off:
    """A mixer whose outputs are off by a share of themselves."""

    def __init__(self, mixer: Any, by: float) -> None:
        self._mixer, self._by, self.recorder = mixer, by, mixer.recorder
        self.key = mixer.key

    def run(self, calls: Any) -> list[Any]:
        return [(sample * (1 + self._by),) for (sample,) in self._mixer.run(calls)]


@pytest.mark.parametrize(("by", "failed"), [(0.02, False), (0.1, True), (math.nan, True)])
def test_a_way_that_differs_from_the_stock_model_fails_its_point(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, by: float, failed: bool
) -> None:
    mixed = Denoiser.mixed
    monkeypatch.setattr(Denoiser, "mixed", lambda self, kernels: Off(mixed(self, kernels), by))
    result = measure_mix(Point("mix", "flux", "packed", parse("1@64x64+1@32x64")), bench)
    if failed:
        assert result.keys() == {"failed"}
        assert "differs from the stock path" in result["failed"]
    else:
        assert result["error"] == pytest.approx(by, rel=1e-3)


def test_the_largest_error_counts_and_no_number_is_the_largest() -> None:
    one = torch.ones(4)
    assert relative_error([one * 1.5, one * 1.1], [one, one]) == pytest.approx(0.5)
    assert math.isnan(relative_error([one * math.nan, one * 1.1], [one, one]))
    assert wrong("packed", math.nan) is not None
    assert wrong("packed", 0.01) is None


class Refusing:
    """A mixer with room for one call at a time."""

    def key(self, call: Any) -> int:
        return 0

    def run(self, calls: Any) -> list[Any]:
        if len(calls) > 1:
            raise torch.OutOfMemoryError("too large")
        return [(torch.zeros(1),)]


def test_a_batch_that_fails_is_not_measured_call_by_call(bench: Bench) -> None:
    rounds = Denoiser.of("flux", bench).rounds(parse("2@64x64"))
    with pytest.raises(torch.OutOfMemoryError):
        together(Refusing(), rounds)()


SIDES = st.integers(1, 40)


@given(
    st.lists(st.tuples(st.integers(1, 12), SIDES, SIDES), min_size=1, max_size=6), st.sampled_from(["flux", "wan-1.3b"])
)
@settings(deadline=None)
def test_equal_images_have_as_many_tokens_together(shapes: list[tuple[int, int, int]], name: str) -> None:
    geometry = geometry_of(name)
    shapes = [(1 if name == "flux" else frames, 16 * height, 16 * width) for frames, height, width in shapes]
    equal = equal_shapes(shapes, geometry, 1)
    assert len(equal) == len(shapes)
    assert len(set(equal)) == 1
    total, found = (sum(token_count(shape, geometry, 1) for shape in of) for of in (shapes, equal))
    frames, height, _ = equal[0]
    assert abs(found - total) <= len(shapes) * frames * (height // geometry.patch) / 2


@given(st.lists(st.integers(1, 40), min_size=1, max_size=4), st.sampled_from([0.0, 0.25, 0.3, 0.5, 1.0]))
def test_a_fixed_share_of_every_request_is_computed(units: list[int], share: float) -> None:
    of = np.repeat(np.arange(len(units)), units)
    unit, none = np.concatenate([np.arange(count) for count in units]), np.zeros(len(of))
    steps = np.ones(len(of), dtype=np.int64)
    names = tuple(f"image{index}" for index in range(len(units)))
    flags = FixedShare(share).decide(Signals(names, of, unit, 0, 1, steps, steps + 2, none, none))
    for index, count in enumerate(units):
        assert flags[of == index].sum() == math.floor(count * share + 1e-9)


@pytest.mark.parametrize("detail", ["share=1.5", "share=", "part=0.5", ""])
def test_a_share_that_is_none_is_refused(detail: str) -> None:
    with pytest.raises(BadInput, match=r"expected one like share=0\.5"):
        share_of(detail)


@pytest.mark.parametrize(("name", "way"), [("sdxl", "patched"), ("sd3.5-medium", "packed")])
def test_cached_steps_compute_their_share_and_give_the_same(bench: Bench, name: str, way: str) -> None:
    composition = parse("1@256x512") if way == "packed" else parse("1@128x512")
    result = measure_cached(Point("cached", name, way, composition, "share=0.5"), bench)
    json.dumps(result)
    assert result["computed"] == 0.5
    assert result["ways"].keys() == {way, "uncached"}
    assert result["error"] < 1e-4
    assert result["kept_bytes"] > 0


@pytest.mark.parametrize(
    ("name", "way"),
    [("sdxl", "eager"), ("flux", "graph"), ("sdxl", "reference"), ("flux", "packed"), ("flux", "compiled")],
)
def test_steps(bench: Bench, name: str, way: str) -> None:
    result = measure_step(Point("step", name, way, parse("2@64x64")), bench)
    json.dumps(result)
    assert result["rows"] == 2 * model_of(name, True).guidance_rows
    assert result["seconds"] > 0
    assert result.get("error", 0.0) < 1e-4


def test_a_step_of_no_known_way_is_refused(bench: Bench) -> None:
    with pytest.raises(BadInput, match="no step of flux that is 'patched'; known: eager, compiled, graph, packed"):
        measure_step(Point("step", "flux", "patched", parse("1@64x64")), bench)


@pytest.mark.parametrize("way", ["whole", "patched"])
def test_decoding(bench: Bench, way: str) -> None:
    result = measure_decode(Point("decode", "sdxl", way, parse("2@64x64")), bench)
    assert result["rows"] == 2
    assert result.get("error", 0.0) < 1e-4


def test_clips_are_decoded_in_tiles_where_the_pipeline_needs_them(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    (vae,) = bench.networks("hunyuanvideo", "decode")
    tiled: list[bool] = []
    monkeypatch.setattr(type(vae), "decode", lambda self, z, return_dict: tiled.append(self.use_tiling))
    measure_decode(Point("decode", "hunyuanvideo", "whole", parse("1@64x64x5")), bench)
    assert all(tiled)
    assert not vae.use_tiling


def test_encoding_counts_a_prompt_and_its_absence(bench: Bench) -> None:
    assert measure_encode(Point("encode", "sdxl", "eager", parse("3@64x64")), bench)["rows"] == 6
    assert measure_encode(Point("encode", "flux", "eager", parse("3@64x64")), bench)["rows"] == 3


@pytest.mark.parametrize(
    ("name", "model"),
    [("stitch", "sdxl"), ("moments", "sdxl"), ("modulate", "sd3.5-medium"), ("gated", "flux"), ("attention", "flux")],
)
def test_kernels_stand_beside_their_references(bench: Bench, name: str, model: str) -> None:
    result = measure_kernel(Point("kernel", name, "fused", parse("1@64x64+1@64x128"), model), bench)
    json.dumps(result)
    assert result["ways"].keys() == {"fused", "reference"}
    assert result["error"] < 1e-5
    assert result["copy_bytes_per_s"] > 0
    tokens = {"sdxl": 2 * (64 + 128), "sd3.5-medium": 2 * (16 + 32), "flux": 16 + 32}[model]
    moved = {
        "stitch": 32 * (tokens + 2 * 3 * 10 * 10),  # three patches a row pair of 8x8 latent pixels, framed
        "moments": 32 * tokens,
        "modulate": 2 * 32 * tokens,
        "gated": 3 * 32 * tokens,
        "attention": 4 * 32 * (tokens + 2 * 24),
    }[name]
    assert result["bytes"] == 4 * moved


def test_kernels_of_no_model_are_refused(bench: Bench) -> None:
    with pytest.raises(BadInput, match=r"no kernels of 'wan-1\.3b'; known: sdxl"):
        measure_kernel(Point("kernel", "stitch", "fused", parse("1@64x64"), "wan-1.3b"), bench)
    with pytest.raises(BadInput, match="no kernel 'sort'; known: stitch"):
        measure_kernel(Point("kernel", "sort", "fused", parse("1@64x64"), "sdxl"), bench)


def test_tiles_share_a_forward(bench: Bench) -> None:
    result = measure_tile(Point("tile", "flux", "tiled", parse("3@64x64")), bench)
    assert result["tile_s"] == pytest.approx(result["seconds"] / 3)


def test_ceilings_say_what_they_did(bench: Bench) -> None:
    product = measure_ceiling(Point("ceiling", "matmul", "float32", detail="64"), bench)
    assert product["tflop"] == pytest.approx(2 * 64**3 / 1e12)
    copy = measure_ceiling(Point("ceiling", "copy", "device", detail="1"), bench)
    assert copy["bytes"] == 2 * 2**20
    with pytest.raises(BadInput, match="no ceiling 'copy' of 'upwards'"):
        measure_ceiling(Point("ceiling", "copy", "upwards", detail="1"), bench)
