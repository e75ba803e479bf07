"""The suite's replay against its simulation, profiles made of its points, and the example they are for."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from predictors.costs import Batch

pytest.importorskip("torch")

import torch
import transformers

from backend.executor import Executor
from benchmarks.gpu_suite.bench import Bench
from benchmarks.gpu_suite.point import Point, Result
from benchmarks.gpu_suite.profiles import MOST_REPEATS, main, profile_of
from benchmarks.gpu_suite.replay import FIGURES, LOAD, capacity, measure_replay, trace_of
from benchmarks.gpu_suite.served import CLIP_TOKENS, TRIALS, Served, sdxl_pipeline
from benchmarks.gpu_suite.store import Store, Suite
from predictors.basis import CALIBRATED, ESTIMATED, MEASURED
from predictors.latency_model import LatencyModel
from predictors.profile import Profile
from reports.plan.result import Plan
from tests.backend import tiny_pipelines
from tests.cli.run_command import run
from traces.composition import composition_of, format_composition, parse
from traces.errors import BadInput
from traces.geometry import geometry_of
from traces.request import Request
from traces.stages import ORDINARY

FACTS = {
    "hardware": "a GPU", "driver": "600.1", "cuda": "13.0", "torch": "2.11.0", "triton": "3.6.0", "diffusers": "0.42.1",
    "date": "2026-12-01T10:00:00+00:00", "dtype": "bfloat16", "kernels": "auto", "models": "real",
}  # fmt: skip


@pytest.fixture(scope="module")
def bench() -> Bench:
    torch.set_num_threads(1)
    return Bench(torch.device("cpu"), torch.float32, "auto", smoke=True)


@pytest.fixture(scope="module")
def replayed(bench: Bench) -> Result:
    return measure_replay(Point("replay", "tiny-image", "lookahead"), bench)


def test_a_replay_is_held_against_its_simulation(replayed: Result, bench: Bench) -> None:
    trial = TRIALS["tiny-image"]
    assert json.loads(json.dumps(replayed, allow_nan=False)) == replayed
    assert replayed["requests"] == len(replayed["repeats"]) == trial.requests
    assert min(replayed["repeats"]) <= replayed["seconds"] <= max(replayed["repeats"])
    assert set(replayed["figures"]) == set(FIGURES)
    for name, figure in replayed["figures"].items():
        scale = 1.0 if name == "slo_attainment" else figure["real"]
        assert figure["error"] == pytest.approx((figure["sim"] - figure["real"]) / scale)
    assert replayed["reproduced"] is True
    assert replayed["decisions"] >= trial.requests
    of_stages = [replayed["speed"][f"speed_{stage}"] for stage in ORDINARY]
    assert 0 < min(of_stages) <= replayed["speed"]["speed"] <= max(of_stages)
    done = [(composition, steps) for stage, composition, steps, *_ in replayed["launches"] if stage == "denoise"]
    images = [sum(n for _, n in parse(composition)) for composition, _ in done]
    assert max(images) <= trial.max_batch
    assert sum(n * steps for n, (_, steps) in zip(images, done, strict=True)) == trial.steps * trial.requests


def test_every_batch_that_can_form_is_measured_before(replayed: Result) -> None:
    measured = {(stage, composition) for stage, composition, _, _ in replayed["profile"]["rows"]}
    batches = {format_composition(batch) for batch in TRIALS["tiny-image"].batches}
    assert len(batches) == 2 + 3
    assert measured == {(stage, batch) for stage in ("encode", "denoise", "decode") for batch in batches}
    assert {composition for _, composition, *_ in replayed["launches"]} <= batches


def test_the_next_scheduler_of_a_bench_is_given_the_same_trace(replayed: Result, bench: Bench) -> None:
    def never() -> Any:
        raise AssertionError("the trace was made anew")

    trace = bench.kept("replay", TRIALS["tiny-image"], never)
    assert replayed["rate"] == len(trace) / trace.frame["arrival_s"].max()


def test_a_trace_is_as_heavy_as_asked_for() -> None:
    table, real = LatencyModel.fit(profile_of(suite())[0], "sdxl"), TRIALS["sdxl"]
    trace = trace_of(real, table)
    assert trace.frame["arrival_s"].max() <= real.span_s
    assert len(trace) == pytest.approx(LOAD * capacity(real, table) * real.span_s, rel=0.5)
    assert {request.size for request in trace} == set(real.sizes.values)


@pytest.mark.parametrize(("name", "way"), [("tiny-image", "nobody"), ("flux", "fcfs")])
def test_what_cannot_be_replayed_is_refused_before_anything_is_built(bench: Bench, name: str, way: str) -> None:
    with pytest.raises(BadInput, match="expected one of"):
        measure_replay(Point("replay", name, way), bench)


def test_batches_are_all_multisets_of_the_sizes() -> None:
    batches = TRIALS["sdxl"].batches
    assert len(batches) == len(set(batches)) == 3 + 6 + 10
    assert all(sum(n for _, n in batch) <= 3 for batch in batches)


def test_profile_and_launches_run_on_one_thread(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    served = Served(TRIALS["tiny-image"], "whole", bench)
    seen: set[int] = set()
    original = Executor.execute

    def noted(*given: Any, **named: Any) -> Any:
        seen.add(threading.get_ident())
        return original(*given, **named)

    monkeypatch.setattr(Executor, "execute", noted)
    request = Request("one", 0.0, 64, 64, 2)
    try:
        served.warm_up([request])
        asked = threading.Thread(target=served.execute, args=("encode", [request]))
        asked.start()
        asked.join()
        assert served.execute("denoise", [request], 2).failed is None
        served.close()
    finally:
        served.end()
    assert len(seen) == 1
    assert threading.get_ident() not in seen


def test_a_profile_that_is_no_longer_wanted_ends(bench: Bench) -> None:
    served = Served(TRIALS["tiny-image"], "whole", bench)
    served.end()
    with pytest.raises(InterruptedError):
        served._go_on()


def clip(kind: type, width: int, vocabulary: int) -> Any:
    config = transformers.CLIPTextConfig(
        hidden_size=width, intermediate_size=width, num_hidden_layers=2, num_attention_heads=2, projection_dim=16,
        vocab_size=vocabulary, eos_token_id=vocabulary - 1, bos_token_id=0,
    )  # fmt: skip
    return kind(config).eval()


def networks(vocabulary: int) -> tuple[Any, Any, Any, Any]:
    """Parts of a narrow SDXL whose widths fit together: 16 and 16 are the 32 of the cross-attention."""
    made = tiny_pipelines.sdxl()
    text = made.unet.config.cross_attention_dim
    pooled = made.unet.add_embedding.linear_1.in_features - 6 * made.unet.config.addition_time_embed_dim
    one = clip(transformers.CLIPTextModel, text // 2, vocabulary)
    two = clip(transformers.CLIPTextModelWithProjection, text - text // 2, vocabulary)
    two.text_projection = torch.nn.Linear(text - text // 2, pooled, bias=False)
    two.config.projection_dim = pooled
    return one, two, made.unet.eval(), made.vae.eval()


def test_networks_without_weights_of_their_own_make_pictures_as_a_pipeline() -> None:
    pipeline = sdxl_pipeline(*networks(64))
    assert pipeline.tokenizer.model_max_length == CLIP_TOKENS
    executor = Executor(pipeline, "patched", patch_floor=4)
    factor = 2 * pipeline.vae_scale_factor * 4
    requests = [Request("a", 0.0, factor, factor, 2), Request("b", 0.0, 2 * factor, factor, 2)]
    shapes = {}
    for stage, steps in (("encode", 1), ("denoise", 2), ("decode", 1)):
        outcome = executor.execute(stage, requests, steps, deliver=lambda r, p: shapes.update({r.request_id: p.shape}))
        assert outcome.failed is None
    assert shapes == {"a": (1, factor, factor, 3), "b": (1, 2 * factor, factor, 3)}


def test_a_text_encoder_with_too_few_words_is_refused() -> None:
    with pytest.raises(BadInput, match="knows 8 tokens"):
        sdxl_pipeline(*networks(8))


def seconds(model: str, composition: str) -> float:
    """Made up: some for starting, the rest for the work."""
    tokens = sum(n * geometry_of(model).tokens(size) for size, n in parse(composition))
    return 0.01 + 2e-6 * tokens


def measured(
    group: str, name: str, way: str, composition: str, factor: float = 1.0, n: int = 20
) -> tuple[Point, Result]:
    usual = factor * seconds(name, composition)
    repeats = [usual * (1 + 0.01 * (index % 3)) for index in range(n)]
    return Point(group, name, way, parse(composition)), {"seconds": usual, "repeats": repeats}


def suite(*more: tuple[Point, Result]) -> Suite:
    """SDXL as a whole run measures it, with whatever else."""
    batches = ("1@512x512", "2@768x768", "4@512x512", "1@1024x1024", "8@1024x1024")
    points = [measured("step", "sdxl", "eager", batch) for batch in batches]
    points += [measured("mix", "sdxl", "patched", batch) for batch in ("1@512x512+1@1024x1024", "8@768x768")]
    points += [measured("step", "sdxl", "patched", "1@1024x1024"), measured("step", "sdxl", "compiled", "1@1024x1024")]
    points += [measured("decode", "sdxl", "whole", "1@1024x1024"), measured("encode", "sdxl", "eager", "1@1024x1024")]
    points += [measured("tile", "sdxl", "tiled", "2@1024x1024")]
    return Suite(FACTS, dict([*points, *more]))


def test_points_become_a_profile_that_says_where_it_is_from(tmp_path: Path) -> None:
    profile, notes = profile_of(suite())
    assert notes == []
    assert profile.hardware == "a GPU"
    assert profile.metadata["software"] == "torch 2.11.0, triton 3.6.0, diffusers 0.42.1, bfloat16"
    assert {"driver": "600.1", "cuda": "13.0", "date": "2026-12-01", "kernels": "auto"}.items() <= dict(
        profile.metadata
    ).items()
    assert profile.metadata["source"] == "benchmarks.gpu_suite"
    assert profile.executors("sdxl") == ("whole", "patched")
    steps = profile.frame[profile.frame["stage"] == "denoise"]
    assert set(steps[steps["executor"] == "patched"]["composition"]) == {
        "1@512x512+1@1024x1024", "8@768x768", "1@1024x1024",
    }  # fmt: skip
    assert steps.groupby(["executor", "composition"]).size().max() == MOST_REPEATS
    profile.save(tmp_path / "p.parquet")
    again = Profile.load(tmp_path / "p.parquet")
    assert again.content_hash == profile.content_hash
    assert again.metadata == profile.metadata


def test_images_are_decoded_one_after_another_and_prompts_of_any_size_cost_the_same() -> None:
    frame = profile_of(suite())[0].frame
    decodes = frame[frame["stage"] == "decode"].groupby("composition")["seconds"].median()
    assert set(decodes.index) == {"1@1024x1024", "2@1024x1024", "4@1024x1024"}
    assert decodes["4@1024x1024"] == pytest.approx(4 * decodes["1@1024x1024"], rel=0.02)
    encodes = frame[frame["stage"] == "encode"].groupby("composition")["seconds"].median()
    assert encodes["1@512x512"] == encodes["1@1024x1024"]
    table = LatencyModel.fit(profile_of(suite())[0], "sdxl")
    size = (1024, 1024, 1)
    alone, eight = (table.step_s("decode", Batch("sd3", composition_of([(size, n)]))) for n in (1, 8))
    assert eight == pytest.approx(8 * alone, rel=0.1)


def test_what_is_nearest_to_serving_counts() -> None:
    recorded = measured("step", "sdxl", "graph", "1@512x512", factor=0.5)
    rows = [["denoise", "1@1024x1024", 4, 4.0], ["decode", "1@1024x1024", 1, 1.0], ["decode", "1@512x512", 1, 0.5]]
    of_replay = (Point("replay", "sdxl", "fcfs"), {"executor": "whole", "profile": {"rows": rows}, "repeats": [1.0]})
    frame = profile_of(suite(recorded, of_replay))[0].frame
    whole = frame[frame["executor"] == "whole"]

    def fastest(stage: str, composition: str) -> float:
        return float(whole[(whole["stage"] == stage) & (whole["composition"] == composition)]["seconds"].min())

    assert fastest("denoise", "1@512x512") == pytest.approx(0.5 * seconds("sdxl", "1@512x512"))
    assert fastest("denoise", "1@1024x1024") == 4.0
    assert fastest("denoise", "2@768x768") == pytest.approx(seconds("sdxl", "2@768x768"))
    assert fastest("decode", "1@1024x1024") == 1.0
    plain = Suite({**FACTS, "kernels": "reference"}, suite(recorded).results)
    frame = profile_of(plain)[0].frame
    steps = frame[(frame["stage"] == "denoise") & (frame["composition"] == "1@512x512")]
    assert steps["seconds"].min() == pytest.approx(seconds("sdxl", "1@512x512"))


def test_what_is_too_little_for_a_profile_is_left_out_and_said() -> None:
    clips, images = ("1@480x832x17", "1@480x832x81"), ("1@512x512", "1@768x768", "1@1024x1024", "2@1024x1024")
    few = [measured("step", "wan-1.3b", "eager", batch) for batch in clips]
    few += [measured("decode", "wan-1.3b", "whole", clips[0]), measured("encode", "wan-1.3b", "eager", clips[0])]
    few += [measured("step", "flux", "eager", batch) for batch in images]
    few += [measured("mix", "sd3.5-medium", "packed", f"1@512x512+{batch}") for batch in images[1:]]
    few += [measured("step", "sd3.5-medium", "eager", "1@1024x1024")]
    few += [measured(*stage, "1@1024x1024") for stage in (("decode", "sd3.5-medium", "whole"), ("encode", "sd3.5-medium", "eager"))]  # fmt: skip  # noqa: E501
    failed = (Point("step", "sdxl", "eager", parse("16@1024x1024")), {"failed": "out of memory"})
    profile, notes = profile_of(suite(*few, failed))
    assert profile.models == ("sd3.5-medium", "sdxl")
    assert profile.executors("sd3.5-medium") == ("packed",)
    assert profile.stages("sd3.5-medium") == ("encode", "denoise", "decode")
    assert notes == [
        "flux is left out: no encode and no decode was measured",
        "sd3.5-medium (whole) is left out: steps of 1 batches were measured, expected at least 3",
        "wan-1.3b (whole) is left out: steps of 2 batches were measured, expected at least 3",
    ]
    with pytest.raises(BadInput, match="too few for a profile: flux is left out"):
        profile_of(Suite(FACTS, dict(few[4:8])))


def test_of_narrow_models_nothing_but_the_replay_is_kept(replayed: Result) -> None:
    point = Point("replay", "tiny-image", "lookahead")
    profile, notes = profile_of(Suite({**FACTS, "models": "narrow"}, {**suite().results, point: replayed}))
    assert profile.models == ("tiny-image",)
    assert profile.executors("tiny-image") == ("patched",)
    assert len(profile.frame) == len(replayed["profile"]["rows"])
    assert notes == [f"{len(suite().results)} points of narrow models are left out"]


def test_the_commands_take_the_profile(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Store(tmp_path / "suite", FACTS) as store:
        for point, result in suite(measured("step", "flux", "eager", "1@512x512")).results.items():
            store.add(point, result)
    profile, trace = tmp_path / "gpu.parquet", tmp_path / "t.parquet"
    main([str(tmp_path / "suite"), "-o", str(profile)])
    said = capsys.readouterr()
    assert "flux is left out" in said.err
    assert "a GPU:" in said.out
    assert profile.stat().st_size < 200_000
    (tmp_path / "s.toml").write_text('model = "sdxl"\n[slo]\nscale = 5.0\n')
    generate(trace, "512x512:1,1024x1024:1", 8)
    for executor in ("whole", "patched"):
        given = (tmp_path / "s.toml", "--trace", trace, "--profile", profile, "--set", f"cluster.executor={executor}")
        run("simulate", *given, "-o", tmp_path / executor)
        info = json.loads((tmp_path / executor / "run.json").read_text())
        assert info["predictor"]["basis"] == MEASURED
        assert info["hardware"] == "a GPU"
        assert not [warning for warning in info["warnings"] if "not in the profile" in warning]
    # A trace of 60 requests cannot show more than nine tenths, even if all are in time.
    asked = {"seeds": 2, "max_seeds": 2, "requests": 50, "max_requests": 50, "attainment": 0.85}
    small = [f"plan.{key}={value}" for key, value in asked.items()]
    given = (tmp_path / "s.toml", "--trace", trace, "--profile", profile, *(f"--set={setting}" for setting in small))
    run("plan", *given, "--policies", "fcfs", "--workers", 1, "-o", tmp_path / "plan")
    plan = Plan.from_json((tmp_path / "plan" / "plan.json").read_text())
    assert plan.answer is not None
    assert plan.answer.figures.attainment.low >= 0.85


def test_a_folder_that_is_none_of_the_suite_ends_with_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path), "-o", str(tmp_path / "p.parquet")])
    assert ended.value.code == 2
    assert "suite.json" in capsys.readouterr().err
    assert not (tmp_path / "p.parquet").exists()


def generate(trace: Path, sizes: str, steps: int, model: str = "sdxl", rate: float = 2.0) -> None:
    run("trace", "generate", "--rate", rate, "--duration", 60 / rate, "--sizes", sizes, "--steps", steps,
        "--model", model, "-o", trace)  # fmt: skip


@pytest.mark.parametrize(
    ("model", "executor", "sizes"),
    [("sdxl", "patched", "512x512:1,1024x1024:2"), ("flux", "packed", "512x512:1,1024x1024:2"),
     ("wan-1.3b", "packed", "480x832x33:2,480x832x81:1")],
)  # fmt: skip
def test_the_example_for_an_h200_is_estimated(tmp_path: Path, model: str, executor: str, sizes: str) -> None:
    generate(tmp_path / "t.parquet", sizes, 8, model)
    given = ("examples/sdxl_h200.toml", "--trace", tmp_path / "t.parquet", "--set", f"model={model}")
    run("simulate", *given, "--set", f"cluster.executor={executor}", "-o", tmp_path / "run")
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    assert info["predictor"]["basis"] == ESTIMATED
    assert info["hardware"] == "NVIDIA H200 SXM 141GB"
    assert any("ESTIMATED from the data sheet" in warning for warning in info["warnings"])


def test_with_a_profile_the_example_is_calibrated(tmp_path: Path) -> None:
    profile_of(suite())[0].save(tmp_path / "p.parquet")
    generate(tmp_path / "t.parquet", "512x512:1,1024x1024:2", 8)
    given = ("examples/sdxl_h200.toml", "--trace", tmp_path / "t.parquet", "--profile", tmp_path / "p.parquet")
    run("simulate", *given, "-o", tmp_path / "run")
    assert json.loads((tmp_path / "run" / "run.json").read_text())["predictor"]["basis"] == CALIBRATED
