"""Importing measurements: each form of file, what it asks for, what is not mixed, and how whole times are divided."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictors.importers.formats import FORMATS, import_measurements
from predictors.importers.names import known_hardware
from predictors.importers.reported import ImportOptions
from predictors.importers.rows import ImportedProfile
from predictors.latency_model import LatencyModel
from predictors.profile import Profile
from tests.predictors.reported_files import (
    CATALOGUE,
    EXAMPLES,
    MIXFUSION_MIXED,
    MLPERF,
    OFFLINE,
    PUBLISHED,
    PUBLISHED_HEADER,
    SERVER,
    SGLANG,
    SGLANG_LOG,
    SINGLE,
    VLLM,
    VLLM_OLD,
    VLLM_RECORD,
    Example,
    mlperf_row,
    mlperf_summary,
    serving_result,
)
from traces.errors import BadInput
from traces.geometry import known_model
from traces.notes import Severity
from traces.request import Request

SHIPPED = Path(str(files("profiles"))) / "published.csv"
H100 = ImportOptions(hardware="h100-sxm", size=(1024, 1024, 1), steps=25, batch=1)


def imported(folder: Path, name: str, text: str, options: ImportOptions | None = None) -> ImportedProfile:
    path = folder / name
    path.write_text(text)
    return import_measurements([path], options=options)


def rows_of(profile: Profile) -> list[tuple[Any, ...]]:
    frame = profile.frame[["model", "stage", "composition", "guided", "steps", "seconds"]]
    return sorted((*row[:-1], round(row[-1], 9)) for row in frame.itertuples(index=False, name=None))


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES)
def test_an_example_of_each_form_is_known_by_its_contents(example: Example, tmp_path: Path) -> None:
    path = example.write(tmp_path)
    profile = import_measurements([path], options=example.said).profile
    named = import_measurements([path], example.form, example.said).profile
    assert profile.content_hash == named.content_hash
    assert profile.models == (example.model,)
    assert path.name in profile.metadata["source"] or profile.metadata["source"] == "a page"
    for other in set(FORMATS) - {example.form}:
        with pytest.raises(BadInput) as caught:
            import_measurements([path], other, example.said)
        assert path.name in str(caught.value)


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES)
def test_a_request_alone_takes_what_was_measured(example: Example, tmp_path: Path) -> None:
    profile = import_measurements([example.write(tmp_path)], options=example.said).profile
    height, width, frames = example.size
    scale = 5.0 if profile.frame["guided"].all() else 1.0
    request = Request("r", 0.0, height, width, example.steps, frames=frames, model=example.model, guidance_scale=scale)
    latency = LatencyModel.fit(profile, example.model, latency_model="linear").standalone_s(request)
    assert latency == pytest.approx(example.whole_s, rel=0.06)


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES)
def test_an_imported_profile_is_the_same_when_it_is_loaded(example: Example, tmp_path: Path) -> None:
    profile = import_measurements([example.write(tmp_path)], options=example.said).profile
    profile.save(tmp_path / "p.parquet")
    loaded = Profile.load(tmp_path / "p.parquet")
    assert loaded.content_hash == profile.content_hash
    assert dict(loaded.metadata) == dict(profile.metadata)


def test_the_stages_of_sglang(tmp_path: Path) -> None:
    options = ImportOptions(hardware="gpu", size=(480, 832, 81))
    wanted = [
        ("wan-1.3b", "decode", "1@480x832x81", True, 1, 0.4),
        ("wan-1.3b", "denoise", "1@480x832x81", True, 8, 4.4),
        ("wan-1.3b", "encode", "1@480x832x81", True, 1, 0.2),
    ]
    dump = imported(tmp_path, "perf.json", json.dumps(SGLANG), options)
    assert rows_of(dump.profile) == wanted
    assert "note" not in dump.profile.metadata
    log = "".join(json.dumps(SGLANG_LOG) + "\n" for _ in range(3))
    logged = imported(tmp_path, "performance.log", log, replace(options, model="wan-1.3b")).profile
    assert len(logged.frame) == 9
    assert set(rows_of(logged)) == set(wanted)


def test_sglang_says_what_its_stages_leave_out(tmp_path: Path) -> None:
    options = ImportOptions(hardware="gpu", size=(480, 832, 81))
    steps = [{"step": 0, "duration_ms": 3000.0}, *({"step": at, "duration_ms": 200.0} for at in range(1, 8))]
    document = SGLANG | {"total_duration_ms": 8000.0, "denoise_steps_ms": steps}
    note = imported(tmp_path, "perf.json", json.dumps(document), options).profile.metadata["note"]
    assert "15.0 times the median step" in note
    assert "38% of a request's time is in none of its stages" in note


def test_sglang_without_a_denoising_stage_takes_its_steps(tmp_path: Path) -> None:
    steps = [{"name": "TextEncodingStage", "duration_ms": 100.0}, {"name": "DecodingStage", "duration_ms": 300.0}]
    options = ImportOptions(hardware="gpu", size=(480, 832, 81))
    profile = imported(tmp_path, "perf.json", json.dumps(SGLANG | {"steps": steps}), options).profile
    assert [row[1:] for row in rows_of(profile)] == [
        ("decode", "1@480x832x81", True, 1, 0.3),
        ("denoise", "1@480x832x81", True, 8, 4.4),
        ("encode", "1@480x832x81", True, 1, 0.1),
    ]


def test_the_stages_of_vllm_omni(tmp_path: Path) -> None:
    wanted = [
        ("flux", "decode", "1@1024x1024", False, 1, 0.5),
        ("flux", "denoise", "1@1024x1024", False, 25, 9.0),
        ("flux", "encode", "1@1024x1024", False, 1, 0.3),
    ]
    result = imported(tmp_path, "vllm.json", json.dumps(VLLM), H100)
    assert rows_of(result.profile) == wanted
    assert "1 images are taken to run together" in result.profile.metadata["note"]
    record = imported(tmp_path, "records.json", json.dumps([VLLM_RECORD]), ImportOptions(hardware="gpu"))
    assert [(*row[2:3], *row[4:]) for row in rows_of(record.profile)] == [
        ("1@768x1024", 1, 0.5),
        ("1@768x1024", 24, 9.0),
        ("1@768x1024", 1, 0.3),
    ]
    assert "note" not in record.profile.metadata


def test_records_of_several_servers_are_not_mixed(tmp_path: Path) -> None:
    """A nightly run of vLLM-Omni tests servers with other arguments, and sizes of each, in one file."""
    small = VLLM_RECORD["benchmark_params"] | {"height": 512, "width": 512, "enable-negative-prompt": True}
    split = {"model": "black-forest-labs/FLUX.1-dev", "serve_args": {"ulysses-degree": 2, "cfg-parallel-size": 2}}
    records = [
        VLLM_RECORD,
        VLLM_RECORD | {"benchmark_params": small},
        VLLM_RECORD | {"test_name": "flux_split", "server_params": split},
    ]
    with pytest.raises(BadInput, match=r"gpus \('1', '4'\); .*test \('flux', 'flux_split'\).*'?test=flux'? "):
        imported(tmp_path, "records.json", json.dumps(records), ImportOptions(hardware="gpu"))
    one = ImportOptions(hardware="gpu", where={"test": "flux"})
    guided = {row[2]: row[3] for row in rows_of(imported(tmp_path, "records.json", json.dumps(records), one).profile)}
    assert guided == {"1@512x512": True, "1@768x1024": False}
    other = ImportOptions(hardware="gpu", where={"test": "flux_split"})
    profile = imported(tmp_path, "records.json", json.dumps(records), other).profile
    assert profile.hardware == "4 x gpu"
    assert "stands for 4 GPUs (ulysses2 cfg2)" in profile.metadata["note"]


def test_a_latency_without_stages_is_divided_by_the_roofline(tmp_path: Path) -> None:
    profile = imported(tmp_path, "old.json", json.dumps(VLLM_OLD), H100).profile
    seconds = {stage: value for _, stage, _, _, _, value in rows_of(profile)}
    assert set(seconds) == {"encode", "denoise", "decode"}
    assert sum(seconds.values()) == pytest.approx(10.0)
    assert seconds["denoise"] > 0.9 * 10.0
    assert "ESTIMATED" in profile.metadata["note"]
    alone = imported(tmp_path, "bench.json", json.dumps(serving_result()), replace(H100, model="flux")).profile
    assert set(alone.frame["software"]) == {"SGLang-Diffusion"}


def test_a_latency_on_an_unknown_chip_is_all_denoising(tmp_path: Path) -> None:
    profile = imported(tmp_path, "old.json", json.dumps(VLLM_OLD), replace(H100, hardware="Abacus")).profile
    assert rows_of(profile) == [("flux", "denoise", "1@1024x1024", False, 25, 10.0)]
    assert "right for requests of 25 steps" in profile.metadata["note"]


def test_mixed_requests_have_no_batch(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="that of no batch"):
        imported(tmp_path, "vllm.json", json.dumps(VLLM | {"dataset": "trace"}), H100)
    two = [{"width": 512, "height": 512}, {"width": 1024, "height": 1024}]
    record = VLLM_RECORD | {"benchmark_params": {"random-request-config": two}}
    with pytest.raises(BadInput, match="random-request-config mixes requests"):
        imported(tmp_path, "records.json", json.dumps([record]), H100)
    both = json.dumps([record | {"test_name": "mixed"}, VLLM_RECORD])
    result = imported(tmp_path, "records.json", both, replace(H100, where={"test": "flux"}))
    assert len(result.profile.frame) == 3
    one = VLLM_RECORD | {"benchmark_params": {"random-request-config": [{**two[0], "num_inference_steps": 4}]}}
    single = imported(tmp_path, "records.json", json.dumps([one]), H100).profile
    assert [row[2] for row in rows_of(single)] == ["1@512x512"] * 3


def test_mlperf_scenarios(tmp_path: Path) -> None:
    options = ImportOptions(hardware="Abacus", batch=8, gpus=2)
    offline = imported(tmp_path, "a.txt", OFFLINE, options).profile
    assert rows_of(offline) == [("sdxl", "denoise", "8@1024x1024", True, 20, 10.0)]
    assert "batches of 8 are taken" in offline.metadata["note"]
    server = imported(tmp_path, "b.txt", SERVER, options).profile
    assert rows_of(server) == [("sdxl", "denoise", "8@1024x1024", True, 20, 12.8)]
    assert "at most as long" in server.metadata["warning"]
    single = imported(tmp_path, "c.txt", SINGLE, ImportOptions(hardware="Abacus")).profile
    assert rows_of(single) == [("sdxl", "denoise", "1@1024x1024", True, 20, 4.0)]
    tail = mlperf_summary("SingleStream", "90th percentile latency (ns) : 4400000000", result="INVALID")
    wrong, plain = imported(tmp_path, "d.txt", tail, ImportOptions(hardware="Abacus")).profile.notes
    assert "the 90th percentile" in wrong.text
    assert "a result is 'INVALID'" in wrong.text
    assert [wrong.severity, plain.severity] == [Severity.GRAVE, Severity.CAUTION]
    assert "taken for denoise alone" in plain.text


def test_the_table_of_mlperf(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="does not say the batch; give"):
        imported(tmp_path, "summary.csv", MLPERF)
    with pytest.raises(BadInput, match=r"scenario \('Offline', 'Server'\).*--where scenario=Offline \(2 rows\)"):
        imported(tmp_path, "summary.csv", MLPERF, ImportOptions(batch=8))
    chosen = ImportOptions(batch=8, where={"scenario": "offline"})
    result = imported(tmp_path, "summary.csv", MLPERF, chosen)
    assert [row[-1] for row in rows_of(result.profile)] == [round(64 / 16.4, 9), 4.0]
    assert result.profile.hardware == "Abacus 9"
    assert "rows of models that are not known: llama2-70b-99 (1)" in result.remarks[0]
    edge = MLPERF.splitlines(keepends=True)[0] + mlperf_row("SingleStream", "4400.0", "Latency (ms)", accelerators="1")
    assert rows_of(imported(tmp_path, "edge.csv", edge).profile)[0][-1] == 4.4


def test_mixfusion_of_any_model(tmp_path: Path) -> None:
    whole = imported(tmp_path, "sm_util_flux_512.csv", EXAMPLES["mixfusion"].text).profile
    assert whole.models == ("flux",)
    assert len(whole.frame) == 6
    mixed = imported(tmp_path, "mine.csv", MIXFUSION_MIXED, ImportOptions(model="sd15", hardware="mine")).profile
    assert mixed.hardware == "mine"
    assert "note" not in mixed.metadata
    assert [row[2] for row in rows_of(mixed)] == ["1@512x512", "1@512x512", "2@512x512+1@768x768", "3@1024x1024"]
    sides = "256 num,640 num,avg unet time\n2,1,1.5\n"
    assert rows_of(imported(tmp_path, "unet_time_sd15.csv", sides).profile) == [
        ("sd15", "denoise", "2@256x256+1@640x640", True, 50, 1.5)
    ]


def test_published_rows_are_divided_by_what_was_measured(tmp_path: Path) -> None:
    result = imported(tmp_path, "results.csv", PUBLISHED)
    assert rows_of(result.profile) == [
        ("flux", "decode", "1@1024x1024", False, 1, 0.6),
        ("flux", "decode", "2@1024x1024", False, 1, 0.7),
        ("flux", "denoise", "1@1024x1024", False, 1, 0.55),
        ("flux", "denoise", "2@1024x1024", False, 1, 1.05),
        ("flux", "encode", "1@1024x1024", False, 1, 0.4),
        ("flux", "encode", "2@1024x1024", False, 1, 0.3),
    ]
    assert "note" not in result.profile.metadata
    assert len(result.remarks) == 1


def published(*rows: str) -> str:
    return PUBLISHED_HEADER + "".join(f"{row}\n" for row in rows)


ROW = "a page,{system},{gpus},{how},{model},1024,1024,1,20,1,{precision},{engine},latency_s,{value},"
ONE = CATALOGUE.rpartition("a page")[0]
USUAL = {"system": "Abacus", "gpus": 1, "how": "none", "model": "sdxl", "precision": "fp16", "engine": "beads"}


def row(value: float = 5.0, **changed: object) -> str:
    return ROW.format(**(USUAL | changed), value=value)


@pytest.mark.parametrize(
    "changed",
    [
        {"system": "Other"},
        {"gpus": 2, "how": "ulysses2"},
        {"how": "ring"},
        {"precision": "fp8"},
        {"engine": "compiled"},
    ],
    ids=str,
)
def test_rows_of_several_kinds_are_not_mixed(changed: dict[str, object], tmp_path: Path) -> None:
    text = published(row(), row(4.0), row(3.0, **changed))
    with pytest.raises(BadInput, match="one profile does not mix them") as caught:
        imported(tmp_path, "r.csv", text)
    renamed = {"parallelism" if name == "how" else name: str(value) for name, value in changed.items()}
    for name, value in renamed.items():
        assert f"{name} (" in str(caught.value)
        assert repr(value) in str(caught.value)
    only = imported(tmp_path, "r.csv", text, ImportOptions(where=renamed)).profile
    assert only.frame["seconds"].sum() == pytest.approx(3.0)


def test_the_catalogue_that_ships_is_read_too(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"remarks \('', 'cached'\).*--where remarks="):
        imported(tmp_path, "r.csv", CATALOGUE)
    for remark, guided, total in (("", True, 5.0), ("cached", False, 3.0)):
        result = imported(tmp_path, "r.csv", CATALOGUE, ImportOptions(where={"remarks": remark}))
        assert set(result.profile.frame["guided"]) == {guided}
        assert result.profile.frame["seconds"].sum() == pytest.approx(total)
        assert set(result.profile.frame["stage"]) == {"encode", "denoise", "decode"}
        assert result.remarks == ()
    chosen = {"hardware": "l20", "devices": "1", "precision": "bfloat16", "model": "flux", "engine": "eager"}
    l20 = import_measurements([SHIPPED], options=ImportOptions(where=chosen | {"remarks": ""})).profile
    assert l20.hardware == "l20"


def test_several_devices_are_one_device_of_the_profile(tmp_path: Path) -> None:
    profile = imported(tmp_path, "r.csv", published(row(gpus=2, how="ulysses2"))).profile
    assert profile.hardware == "2 x Abacus"
    assert "stands for 2 GPUs (ulysses2)" in profile.metadata["note"]


def test_devices_share_the_denoising_alone(tmp_path: Path) -> None:
    seconds = {}
    for gpus in (1, 4):
        line = row(gpus=gpus, how="ring", system="H100 SXM")
        profile = imported(tmp_path, f"{gpus}.csv", published(line)).profile
        seconds[gpus] = dict(zip(profile.frame["stage"], profile.frame["seconds"], strict=True))
        assert sum(seconds[gpus].values()) == pytest.approx(5.0)
    ratio = {stage: seconds[4][stage] / seconds[1][stage] for stage in seconds[1]}
    assert ratio["encode"] == pytest.approx(ratio["decode"])
    assert ratio["denoise"] == pytest.approx(ratio["decode"] / 4)


@pytest.mark.parametrize(("model", "usual"), [("sdxl", True), ("flux.1-dev", False)])
def test_guidance_is_as_said(model: str, usual: bool, tmp_path: Path) -> None:
    text = published(row(model=model, system="H100 SXM"))
    for said, wanted in ((None, usual), (True, True), (False, False)):
        result = imported(tmp_path, "r.csv", text, ImportOptions(guided=said))
        assert set(result.profile.frame["guided"]) == {wanted}
        assert any("guidance is taken to be" in remark for remark in result.remarks) is (said is None)


@pytest.mark.parametrize("name", ["flux", "FLUX.1-dev", "black-forest-labs/FLUX.1-dev"])
def test_a_model_that_is_asked_for_is_called_by_any_of_its_names(name: str, tmp_path: Path) -> None:
    bench = imported(tmp_path, "bench.json", json.dumps(serving_result()), replace(H100, model=name)).profile
    assert bench.models == ("flux",)
    mixed = imported(tmp_path, "mine.csv", MIXFUSION_MIXED, ImportOptions(model=name, hardware="mine")).profile
    assert mixed.models == ("flux",)
    with pytest.raises(BadInput, match=r"unknown model 'flux\.1-def'; did you mean"):
        imported(tmp_path, "mine.csv", MIXFUSION_MIXED, ImportOptions(model="flux.1-def", hardware="mine"))


def test_models_are_kept_apart_and_named(tmp_path: Path) -> None:
    text = published(row(), row(3.0, model="sd15"), row(2.0, model="kandinsky"))
    result = imported(tmp_path, "r.csv", text)
    assert result.profile.models == ("sd15", "sdxl")
    assert "kandinsky (1)" in result.remarks[0]
    with pytest.raises(BadInput, match=r"3 models \('sdxl', 'sd15', 'kandinsky'\).*--where model=sdxl"):
        imported(tmp_path, "r.csv", text, ImportOptions(model="sd3"))
    meant = ImportOptions(model="sd3", where={"model": "kandinsky"})
    assert imported(tmp_path, "r.csv", text, meant).profile.models == ("sd3",)
    with pytest.raises(BadInput, match=r"no row is of a model that is known \('kandinsky'\); --model says which"):
        imported(tmp_path, "r.csv", published(row(model="kandinsky")))


def test_what_has_no_effect_is_named(tmp_path: Path) -> None:
    header, first = PUBLISHED_HEADER.strip() + ",colour\n", row() + ",blue\n"
    result = imported(tmp_path, "r.csv", header + first, ImportOptions(size=(512, 512, 1), batch=3))
    assert "columns that have no effect: colour" in result.remarks
    said = imported(tmp_path, "m.txt", SINGLE, replace(H100, size=(512, 512, 1)))
    assert "options that have no effect, since the files say it: --size, --steps" in said.remarks
    strange = imported(tmp_path, "v.json", json.dumps(VLLM | {"weather": 1}), H100)
    assert "columns that have no effect: weather" in strange.remarks


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ({"engin": "beads"}, "'engin': the files say nothing of that name; did you mean 'engine'?"),
        ({"engine": "abc"}, "no row has engine 'abc'; the files have: 'beads'"),
    ],
)
def test_a_choice_that_means_nothing_is_refused(where: dict[str, str], words: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput) as caught:
        imported(tmp_path, "r.csv", published(row()), ImportOptions(where=where))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (published(row().replace(",5.0,", ",-5.0,")), "row 2 counting the header: value is -5"),
        (published(row().replace(",5.0,", ",nan,")), "row 2 counting the header: value is 'nan'"),
        (published(row(), row().replace(",5.0,", ",,")), "row 3 counting the header: value is empty"),
        (published(row(), row().replace("latency_s", "speed")), "row 3 counting the header: quantity is 'speed', exp"),
        (published(row().replace("1024,1024,1", "1024,1024.5,1")), "row 2 counting the header: width is 1024.5"),
        (published(row().replace(",20,1,", ",1-2,1,")), "row 2 counting the header: steps is '1-2'"),
        (published(row().replace(",20,1,", ",20,,")), "row 2 counting the header does not say the batch; give"),
        (published(row().replace(",20,1,", ",,1,")), "row 2 counting the header does not say the steps; give"),
        (published(row(gpus="x")), "row 2 counting the header: gpus is 'x', expected a whole number"),
        (published(row(system="")), "row 2 counting the header does not say the hardware; give --hardware"),
        (published(row(engine="a\tb")), "row 2 counting the header: engine is 'a\\tb, fp16', exp"),
        (published(row().replace("1024,1024,1", ",,1")), "row 2 counting the header does not say the size; give"),
        (published(row().replace("1024,1024,1", "512,,1")), "row 2 counting the header: width is empty"),
        ("system,quantity,value\nx,step_s,1\n", "no column 'model'"),
        (ONE.replace(",5.0,", ",0,"), "row 2 counting the header: value (column 'seconds') is 0, exp"),
        (ONE.replace(",true,", ",perhaps,"), "row 2 counting the header: guided is 'perhaps', expected true or false"),
        (ONE.replace("measures", "measured"), "no form that is known"),
        (published(), "the file has no rows"),
    ],
)
def test_a_wrong_cell_is_named(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput) as caught:
        imported(tmp_path, "results.csv", text)
    assert words in str(caught.value)
    assert "results.csv" in str(caught.value)


def test_a_wrong_cell_of_rows_that_are_not_meant_does_no_harm(tmp_path: Path) -> None:
    text = published(row(), row(system="Other").replace(",5.0,", ",broken,"))
    profile = imported(tmp_path, "r.csv", text, ImportOptions(where={"system": "Abacus"})).profile
    assert profile.hardware == "Abacus"


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.json", "[]", "an empty list"),
        ("a.json", "{", "is not JSON"),
        ("a.json", "[1]", "has no form that is known"),
        ("a.json", '{"a": 1, "a": 2}', "gives 'a' twice"),
        ("a.json", "[" * 200_000, "is not JSON"),
        ("a.txt", "hello", "has no form that is known"),
        ("a.csv", "a,b\n1,2\n", "(columns 'a', 'b'); --format says which it is: mixfusion, mlperf"),
        ("a.txt", mlperf_summary("MultiStream", "x : 1"), "Scenario is 'MultiStream', expected Offline"),
        ("a.txt", OFFLINE.replace("PerformanceOnly", "AccuracyOnly"), "Mode is 'AccuracyOnly'"),
        ("a.txt", OFFLINE.replace("1.6", "fast"), "Samples per second is 'fast', expected a number above 0"),
        ("a.txt", OFFLINE.replace("Samples per", "Apples per"), "no line 'Samples per second'"),
        ("a.json", json.dumps(SGLANG | {"meta": {"model": 3}}), "model is 3, expected text"),
        ("a.json", json.dumps(SGLANG | {"steps": {"a": 1}}), "steps is {'a': 1}, expected a list"),
        ("a.json", json.dumps(SGLANG | {"steps": [1]}), "steps 1 is 1, expected an object"),
        ("a.json", json.dumps(SGLANG | {"steps": [{"name": "x"}]}), "steps 1: duration_ms is missing"),
        ("a.json", json.dumps(SGLANG | {"denoise_steps_ms": ["x"]}), "denoise_steps_ms 1: duration_ms is 'x'"),
        ("a.json", json.dumps(SGLANG | {"steps": [], "denoise_steps_ms": []}), "no denoising stage takes time"),
        ("a.json", json.dumps(VLLM | {"stage_durations_p50": {"P.diffuse": -1}}), "P.diffuse is -1, expected a number"),
        ("a.json", json.dumps(VLLM_OLD | {"latency_median": float("nan")}), "latency_median is nan"),
        ("a.json", json.dumps(VLLM_OLD | {"latency_median": 10**400}), "latency_median is 1000"),
        ("a.json", json.dumps(VLLM_OLD | {"latency_median": True}), "latency_median is True"),
    ],
)
def test_a_wrong_file_is_named(name: str, text: str, words: str, tmp_path: Path) -> None:
    options = ImportOptions(hardware="gpu", size=(480, 832, 81), steps=8, batch=1, gpus=1)
    with pytest.raises(BadInput) as caught:
        imported(tmp_path, name, text, options)
    assert words in str(caught.value)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no files"):
        import_measurements([])
    with pytest.raises(BadInput, match="no such file"):
        import_measurements([tmp_path / "none.csv"])
    with pytest.raises(BadInput, match="not a file"):
        import_measurements([tmp_path])
    with pytest.raises(BadInput, match="unknown format 'mlpref'; did you mean 'mlperf'"):
        import_measurements([tmp_path / "none.csv"], "mlpref")


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["sdxl", "flux.1-dev", "sd15"]),
            st.sampled_from(["RTX 4090", "H100 SXM", "Abacus"]),
            st.integers(1, 64),
            st.integers(1, 60),
            st.floats(1e-3, 1e6),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_the_seconds_of_whole_requests_are_kept(
    tmp_path_factory: pytest.TempPathFactory, drawn: list[tuple[str, str, int, int, float]]
) -> None:
    """Whatever is divided, the stages of a request add up to what it took."""
    folder = tmp_path_factory.mktemp("division")
    system = drawn[0][1]
    lines = [
        f"a page,{system},1,none,{model},512,768,1,{steps},{batch},bf16,beads,image_s,{seconds!r},"
        for model, _, batch, steps, seconds in drawn
    ]
    profile = imported(folder, "r.csv", published(*lines)).profile
    assert profile.frame["seconds"].sum() == pytest.approx(sum(seconds for *_, seconds in drawn))
    known = known_hardware(system) is not None
    assert set(profile.frame["stage"]) == ({"encode", "denoise", "decode"} if known else {"denoise"})
    for model in profile.models:
        assert profile.divided(model).startswith("by the roofline of " if known else "all to denoise")
        unsaid = {key: value for key, value in profile.metadata.items() if key != "divided"}
        assert replace(profile, metadata=unsaid).divided(model) == "as its note says"
    assert profile.divided("sd3") == ""


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("stabilityai/stable-diffusion-xl-base-1.0", "sdxl"),
        ("/models/Wan2.1-T2V-14B-Diffusers/", "wan-14b"),
        ("SDXL", "sdxl"),
        ("tencent/HunyuanVideo", "hunyuanvideo"),
        ("kandinsky-3", ""),
        ("black-forest-labs/FLUX.1-dev", "flux"),
        ("Qwen/Qwen_Image", "qwen-image"),
        ("", ""),
    ],
)
def test_names_of_models(name: str, model: str) -> None:
    assert known_model(name) == model


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("H100 SXM", "NVIDIA H100 SXM 80GB"),
        ("NVIDIA H100-SXM-80GB", "NVIDIA H100 SXM 80GB"),
        ("NVIDIA H100 PCIe", "NVIDIA H100 PCIe 80GB"),
        ("A100 40GB", "NVIDIA A100 SXM 40GB"),
        ("rtx-4090", "NVIDIA GeForce RTX 4090 24GB"),
        ("AMD EPYC, 1 thread", "AMD EPYC, 1 thread"),
        ("CPU 1core", "AMD EPYC, 1 thread"),
        ("Nobody Z9000 48GB", ""),
        ("Abacus 80GB", ""),
        ("", ""),
    ],
)
def test_names_of_devices(name: str, kind: str) -> None:
    found = known_hardware(name)
    assert (found.name if found else "") == kind
