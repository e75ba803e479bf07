"""What requests say, from a CSV to pictures: simulated, replayed for real, and every decision of it reproduced."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import diffusers
import numpy as np
import pandas as pd
import pytest

torch = pytest.importorskip("torch")

from PIL import Image  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

from backend.profiling import measure_profile  # noqa: E402
from cli.app import app  # noqa: E402
from policies.runlog import read_run  # noqa: E402
from tests.backend import tiny_families, tiny_pipelines  # noqa: E402
from tests.backend.tiny_lora import lora_file  # noqa: E402
from tilecast.recorded import parity_of  # noqa: E402
from traces import references  # noqa: E402
from traces.adapters import same_adapters  # noqa: E402
from traces.errors import BadInput  # noqa: E402


def _sdxl() -> Any:
    return diffusers.StableDiffusionXLImg2ImgPipeline(**tiny_pipelines.sdxl().components)


class Served(NamedTuple):
    """One replay.

    Attributes:
        made: makes the pipeline.
        executor: how its batches run.
        rows: of the trace, beside those that all have.
        steps: denoising steps that are really made, of all requests together.
        compositions: sizes that are seen.
        saved: whether it can be loaded from a folder here: Qwen's processor needs torchvision for that.
    """

    made: Callable[[], Any]
    executor: str
    rows: list[dict[str, Any]]
    steps: int
    compositions: set[str]
    saved: bool = True


SERVED = {
    "sdxl image to image": Served(
        _sdxl, "patched", [{"image": "0.png"}, {"image": "1.png", "strength": 0.55}], 1 + 2, {"32x32"}
    ),
    "flux fill": Served(
        tiny_pipelines.flux_fill,
        "packed",
        [{"image": "0.png", "mask": "mask.png"}, {"image": "1.png", "mask": "mask.png", "strength": 0.5}],
        5 + 3,
        {"32x32"},
    ),
    "kontext": Served(
        tiny_pipelines.kontext,
        "packed",
        [{"image": "0.png"}, {}, {"image": "1.png", "negative_prompt": "red", "true_cfg_scale": 3.0}],
        15,
        {"32x32", "32x32r256"},
    ),
    "qwen-image-edit": Served(
        tiny_families.qwen_image_edit,
        "packed",
        [{"image": "0.png"}, {"image": "0.png;1.png", "negative_prompt": "red"}],
        10,
        {"32x32r1024", "32x32r2048"},
        saved=False,
    ),
    "adapters": Served(
        tiny_pipelines.flux,
        "packed",
        [{"adapters": "style:0.8+detail:0.5"}, {}, {"adapters": "detail:0.5 + style:0.8"}, {"adapters": "style"}],
        20,
        {"32x32"},
    ),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(references, "_KONTEXT_SIDES", tiny_pipelines.KONTEXT_SIDES)
    monkeypatch.setattr(references, "_QWEN_AREA", 32 * 32)
    for index, colour in enumerate([(200, 60, 30), (20, 60, 200)]):
        Image.new("RGB", (32, 32), colour).save(tmp_path / f"{index}.png")
    Image.fromarray(np.tri(32, dtype=np.uint8) * 255).save(tmp_path / "mask.png")
    return tmp_path


@pytest.mark.usefixtures("loads_not_measured")
@pytest.mark.parametrize("name", SERVED)
def test_a_replay_does_what_a_simulation_predicts_and_its_decisions_are_reproduced(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = SERVED[name]
    if name == "adapters":
        pytest.importorskip("peft")
        for seed, adapter in enumerate(("style", "detail")):
            lora_file(served.made(), folder / f"{adapter}.safetensors", seed, ("to_q", "proj_out"))
    if served.saved:
        served.made().save_pretrained(folder / "mine")
    else:
        (folder / "mine").mkdir()
        (folder / "mine" / "model_index.json").write_text("{}")
        for module in ("loading", "profiling"):
            monkeypatch.setattr(f"backend.{module}.load_pipeline", lambda *_: served.made())
    profile = measure_profile(str(folder / "mine"), sizes=[(32, 32, 1)], max_batch=2, repeats=1, mode=served.executor)
    profile.save(folder / "p.parquet")
    common = {"height": 32, "width": 32, "steps": 5, "prompt": "a cat"}
    pd.DataFrame([{"arrival_s": 0.02 * i, **common, **row} for i, row in enumerate(served.rows)]).to_csv(
        folder / "t.csv", index=False
    )
    (folder / "s.toml").write_text(
        f'model = "mine"\ntrace = {{path = "t.csv", images = "."}}\npredictor = {{profile = "p.parquet"}}\n'
        f'cluster = {{threads = 1, executor = "{served.executor}", adapters = "."}}\n'
        'policies = {scheduling = {name = "mixed-fcfs"}}\nslo = {scale = 1e4}\n'
    )
    standalone = []
    for verb in ("simulate", "replay"):
        done = CliRunner().invoke(app, [verb, str(folder / "s.toml"), "-o", str(folder / verb)])
        assert done.exit_code == 0, done.output
        log = read_run(folder / verb)
        assert set(log.requests["status"]) == {"finished"}, list(log.requests["reason"])
        made = log.steps[log.steps["stage"] == "denoise"]
        assert (made["steps"] * made["requests"]).sum() == served.steps
        seen = {part.partition("@")[2] for text in made["composition"] for part in text.split("+")}
        assert seen == served.compositions
        sets = {row.request_id: same_adapters(row.adapters) for row in log.requests.itertuples()}
        for ids in log.steps["request_ids"]:
            assert len({sets[name] for name in ids}) == 1
        standalone.append(log.requests["standalone_s"].tolist())
    assert standalone[0] == standalone[1]
    parity = parity_of(folder / "replay")
    assert parity is not None
    assert parity.decisions >= len(served.rows)
    assert parity.same, parity.difference
    if name == "sdxl image to image":
        (folder / "1.png").unlink()
        command = ["replay", str(folder / "s.toml"), "-o", str(folder / "r")]
        with pytest.raises(BadInput, match=r"request '2': cannot open image '1\.png'"):
            CliRunner().invoke(app, command, catch_exceptions=False)
        assert not (folder / "r").exists()
