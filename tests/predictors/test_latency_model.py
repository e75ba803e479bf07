"""The latency table: right, remembered, marked where it extrapolates, and identified by its data."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from predictors.costs import Batch
from predictors.latency_model import LatencyModel, check_supported
from predictors.profile import Profile
from traces.composition import composition_of, parse
from traces.errors import BadInput
from traces.geometry import ModelGeometry
from traces.request import Request

from .conftest import true_seconds

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def table(made_up: Profile) -> LatencyModel:
    return LatencyModel.fit(made_up, "sd3")


@pytest.mark.parametrize("latency_model", ["linear", "boosted", "paper-linear", "mlp"])
def test_predicts_what_was_measured(made_up: Profile, latency_model: str) -> None:
    table = LatencyModel.fit(made_up, "sd3", "patched", latency_model)
    for text in ("1@512x512", "6@512x512", "3@1024x1024", "3@512x512+1@1024x1024"):
        batch = parse(text)
        tokens = sum(n * (h // 16) * (w // 16) for (h, w, _), n in batch)
        seconds = table.step_s("denoise", Batch("sd3", batch))
        assert type(seconds) is float
        assert seconds == pytest.approx(true_seconds("denoise", tokens), rel=0.08)
        assert table.step_s("denoise", Batch("sd3", batch, False)) < 1.02 * seconds
    assert table.step_s("encode", Batch("sd3", parse("1@512x512"))) == pytest.approx(0.01, rel=0.05)


def test_an_executor_borrows_only_what_it_does_not_change(made_up: Profile) -> None:
    table = LatencyModel.fit(made_up, "sd3", "patched")
    assert table.stage_executors == {"encode": "whole", "denoise": "patched", "decode": "whole"}
    frame = made_up.frame
    no_denoise = frame[(frame["executor"] == "whole") & (frame["stage"] != "denoise")]
    only_denoise = frame[frame["executor"] == "patched"]
    assert LatencyModel.fit(Profile(no_denoise), "sd3").unmeasured_stages == ("denoise",)
    assert LatencyModel.fit(Profile(only_denoise), "sd3", "patched").unmeasured_stages == ("encode", "decode")


def test_an_unmeasured_stage_costs_nothing_and_is_listed(made_up: Profile) -> None:
    frame = made_up.frame
    table = LatencyModel.fit(Profile(frame[frame["stage"] == "denoise"]), "sd3")
    batch = parse("1@512x512")
    assert table.unmeasured_stages == ("encode", "decode")
    assert table.step_s("decode", Batch("sd3", batch)) == 0.0
    assert table.extrapolation("decode", parse("99@4096x4096")) == 1.0
    assert table.noise("decode").ratios == (1.0,)
    assert table.standalone_s(Request("r", 0, 512, 512, 7)) == 7 * table.step_s("denoise", Batch("sd3", batch))


def test_whole_batches_of_several_sizes_take_turns(table: LatencyModel) -> None:
    one, other = parse("2@512x512"), parse("3@1024x1024")
    both = composition_of([*one, *other])
    for stage in ("denoise", "decode"):
        turns = table.step_s(stage, Batch("sd3", one)) + table.step_s(stage, Batch("sd3", other))
        assert table.step_s(stage, Batch("sd3", both)) == turns
        assert not table.extrapolates(stage, both)


def test_standalone_is_all_stages(table: LatencyModel) -> None:
    request = Request("r", 0, 512, 1024, 30, images=2, guidance_scale=1.0)
    alone = (((512, 1024, 1), 2),)
    encode, denoise, decode = (table.step_s(s, Batch("sd3", alone, False)) for s in ("encode", "denoise", "decode"))
    assert table.standalone_s(request) == encode + 30 * denoise + decode == table.standalone_s(request)
    assert table.standalone_s(Request("r", 0, 512, 1024, 30, images=2)) > table.standalone_s(request)


def test_extrapolation_is_the_worst_factor(table: LatencyModel) -> None:
    for inside in ("1@512x512", "8@512x512", "4@1024x1024", "2@768x768"):
        assert table.extrapolation("denoise", parse(inside)) == 1.0
        assert not table.extrapolates("denoise", parse(inside))
    for outside, factor in (
        ("1@2048x1024", 2.0),  # largest image
        ("1@256x512", 2.0),  # smallest image
        ("1@256x256", 4.0),
        ("8@1024x1024", 2.0),  # tokens in all
        ("12@512x512", 1.5),  # images
    ):
        assert table.extrapolation("denoise", parse(outside)) == pytest.approx(factor)
        assert table.extrapolates("denoise", parse(outside))


def test_content_hash_follows_every_measured_second(made_up: Profile, table: LatencyModel) -> None:
    hashes = {table.content_hash}
    rows = range(0, len(made_up.frame), 30)
    for row in rows:
        frame = made_up.frame.copy()
        frame.loc[row, "seconds"] *= 1 + 1e-12
        hashes.add(LatencyModel.fit(Profile(frame), "sd3", latency_model="linear").content_hash)
    assert len(hashes) == 1 + len(rows)
    others = [
        LatencyModel.fit(made_up, "sd3", "patched"),
        LatencyModel.fit(made_up, "sd3", latency_model="mlp"),
        table.scaled(1.2),
    ]
    assert len({table.content_hash, *(other.content_hash for other in others)}) == 4
    shuffled = Profile(made_up.frame.sample(frac=1, random_state=1))
    again = LatencyModel.fit(shuffled, "sd3")
    assert again.content_hash == table.content_hash
    batch = parse("3@512x512")
    assert again.step_s("denoise", Batch("sd3", batch)) == table.step_s("denoise", Batch("sd3", batch))


def test_measured_seconds_do_not_shift(table: LatencyModel) -> None:
    batch = Batch("sd3", parse("2@512x512"))
    assert set(table.log_sds.values()) == {0.0}
    assert table.shifted(2.0).step_s("denoise", batch) == table.step_s("denoise", batch)


def test_scaled_multiplies_every_second(table: LatencyModel) -> None:
    request, batch = Request("r", 0, 512, 512, 10), parse("2@512x512")
    slow = table.scaled(1.25)
    assert slow.step_s("denoise", Batch("sd3", batch)) == pytest.approx(
        1.25 * table.step_s("denoise", Batch("sd3", batch))
    )
    assert slow.standalone_s(request) == pytest.approx(1.25 * table.standalone_s(request))
    assert slow.noise("denoise") == table.noise("denoise")
    assert table.scaled(2).scaled(0.5).content_hash == table.content_hash
    for factor in (0, -1, float("nan"), float("inf")):
        with pytest.raises(BadInput, match="factor"):
            table.scaled(factor)


def test_a_guided_share_costs_its_share(table: LatencyModel) -> None:
    batch = parse("4@512x512")
    none, half, whole = (table.step_s("denoise", Batch("sd3", batch, share)) for share in (False, 0.5, True))
    assert table.step_s("denoise", Batch("sd3", batch, 1.0)) == whole
    assert none < half < whole


def test_a_patch_cache_saves_work_and_costs_bookkeeping(made_up: Profile) -> None:
    frame = made_up.frame[made_up.frame["executor"] == "patched"]
    rows = [frame]
    for share in (0.4, 0.7, 1.0):
        patches = frame["composition"].map(lambda text: sum(2 * n * h * w // 512**2 for (h, w, _), n in parse(text)))
        tokens = frame["composition"].map(lambda text: sum(2 * n * h * w // 256 for (h, w, _), n in parse(text)))
        seconds = 10 * (0.02 + 2e-6 * share * tokens + 1e-3 * patches)
        rows.append(frame.assign(seconds=seconds, computed=share, cached=True))
    table = LatencyModel.fit(Profile.from_frame(pd.concat(rows), {}), "sd3", "patched", "linear")
    batch = parse("3@512x512+1@1024x1024")
    without = table.step_s("denoise", Batch("sd3", batch))
    full, most, least = (table.step_s("denoise", Batch("sd3", batch, 1.0, computed=share)) for share in (1.0, 0.7, 0.4))
    assert least < most < full
    assert full - without == pytest.approx(14 * 1e-3, rel=0.3)
    assert table.step_s("denoise", Batch("sd3", batch, 1.0, computed=0.4012)) == least
    assert table.step_s("decode", Batch("sd3", batch, 1.0, computed=0.4)) == table.step_s("decode", Batch("sd3", batch))


def test_tabulating_changes_no_answer(made_up: Profile, table: LatencyModel) -> None:
    sizes = [(512, 512, 1), (640, 768, 1)]
    fresh = LatencyModel.fit(made_up, "sd3")
    table.tabulate(sizes, 3)
    for size in sizes:
        for images in (1, 2, 3):
            for stage in ("encode", "denoise", "decode"):
                assert table.step_s(stage, Batch("sd3", ((size, images),))) == fresh.step_s(
                    stage, Batch("sd3", ((size, images),))
                )


def test_noise_spans_the_steps_of_a_measurement(table: LatencyModel) -> None:
    assert table.noise("denoise").steps == 10
    assert table.noise("decode").steps == 1
    assert sum(table.noise("denoise").ratios) / len(table.noise("denoise").ratios) == pytest.approx(1, rel=0.01)


def test_far_larger_images_are_refused_by_name(table: LatencyModel) -> None:
    fits = [Request("a", 0, 2048, 2048, 5), (64, 64, 1)]
    check_supported(table, fits)
    with pytest.raises(BadInput, match=r"request 'b': size 4096x4096 has 16\.0 times .* \(1024x1024\)"):
        check_supported(table, [*fits, Request("b", 0, 4096, 4096, 5)])
    with pytest.raises(BadInput, match=r"^size 2048x2048 has 4\.0 times .* at most 3 times"):
        check_supported(table, [(2048, 2048, 1)], limit=3)


def test_what_is_unknown_is_named(made_up: Profile, table: LatencyModel) -> None:
    for arguments, words in (
        ({"model": "sdxl"}, r"no sdxl \(whole\)"),
        ({"model": "sd3", "executor": "packed"}, r"no sd3 \(packed\)"),
        ({"model": "sd3", "latency_model": "oracle"}, "unknown latency model 'oracle'"),
    ):
        with pytest.raises(BadInput, match=words):
            LatencyModel.fit(made_up, **arguments)
    with pytest.raises(BadInput, match="stage 'sketch' is never measured"):
        table.step_s("sketch", Batch("sd3", parse("1@512x512")))
    mine = Profile(made_up.frame.assign(model="mine"))
    with pytest.raises(BadInput, match="unknown model 'mine'"):
        LatencyModel.fit(mine, "mine")
    geometry = ModelGeometry("mine", 8, 16, 16, (1024, 1024), patch=2)
    own = LatencyModel.fit(mine, "mine", geometry=geometry)
    assert own.step_s("denoise", Batch("sd3", parse("1@512x512"))) == table.step_s(
        "denoise", Batch("sd3", parse("1@512x512"))
    )


def test_a_table_can_be_sent_to_another_process(table: LatencyModel) -> None:
    batch = parse("3@512x512")
    assert pickle.loads(pickle.dumps(table)).step_s("denoise", Batch("sd3", batch)) == table.step_s(
        "denoise", Batch("sd3", batch)
    )


def test_importing_the_table_does_not_import_scikit_learn() -> None:
    code = "import sys, predictors.latency_model; sys.exit('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
