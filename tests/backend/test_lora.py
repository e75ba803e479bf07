"""Adapters: each request in a mix of sets is what diffusers makes of it alone, and one set is on at a time."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

from backend.executor import Executor  # noqa: E402
from backend.lora import adapter_files  # noqa: E402
from tests.backend import tiny_pipelines  # noqa: E402
from tests.backend.mixed import largest_difference, latents_alone, latents_together  # noqa: E402
from tests.backend.tiny_families import qwen_image  # noqa: E402
from tests.backend.tiny_lora import lora_file  # noqa: E402
from traces.errors import BadInput  # noqa: E402
from traces.request import Request  # noqa: E402

torch.set_num_threads(1)


def _seeded() -> Any:
    torch.manual_seed(0)
    return qwen_image()


MADE: dict[str, Callable[[], Any]] = {
    "flux": tiny_pipelines.flux,
    "sdxl": tiny_pipelines.sdxl,
    "qwen-image": _seeded,
}
LAYERS = {"style.v2": ("to_q", "to_out.0", "q_proj"), "detail": ("to_q", "to_k", "proj_out", "net.2")}


def asked(name: str, adapters: str = "", **more: Any) -> Request:
    return Request(
        name,
        0.0,
        **{"height": 32, "width": 32, "steps": 3, "prompt": f"{name} cat", "seed": 7, **more},
        adapters=adapters,
    )


def files_for(pipeline: Any, folder: Path) -> dict[str, Path]:
    return {
        name: lora_file(pipeline, folder / f"{name}.safetensors", seed, layers)
        for seed, (name, layers) in enumerate(LAYERS.items())
    }


def alone(make: Callable[[], Any], files: dict[str, Path], request: Request) -> torch.Tensor:
    """Final latents of the stock pipeline with the adapters of a request, as anybody would put them on."""
    pipeline = make().to(torch.float64)
    if request.adapters:
        for index, (name, _) in enumerate(request.adapter_set):
            pipeline.load_lora_weights(str(files[name].parent), weight_name=files[name].name, adapter_name=f"x{index}")
        weights = [weight for _, weight in request.adapter_set]
        pipeline.set_adapters([f"x{index}" for index in range(len(weights))], weights)
        pipeline.to(torch.float64)
    return latents_alone(pipeline, request)


@pytest.mark.parametrize(
    ("name", "mode"), [("flux", "whole"), ("flux", "packed"), ("qwen-image", "packed"), ("sdxl", "patched")]
)
def test_requests_of_several_sets_together_are_each_as_alone(name: str, mode: str, tmp_path: Path) -> None:
    pipeline = MADE[name]().to(torch.float64)
    files = files_for(pipeline, tmp_path)
    requests = [
        asked("one", "style.v2:0.8"),
        asked("both", "style.v2:0.8 + detail:-0.5", width=48, steps=4),
        asked("none"),
        asked("same", "detail:-0.5+style.v2:.8", height=48),
        asked("last", "style.v2:0.8", width=48),
    ]
    executor = Executor(pipeline, mode, adapters=files)
    together = latents_together(executor, requests, pause="both")
    assert largest_difference({r.request_id: alone(MADE[name], files, r) for r in requests}, together) <= 1e-12
    for request in ("one", "both"):
        plain = alone(
            MADE[name],
            files,
            asked(request, width=48 if request == "both" else 32, steps=4 if request == "both" else 3),
        )
        assert (together[request] - plain).abs().max() > 1e-3 * plain.std()


def test_a_set_is_put_on_once_a_launch_and_taken_off_for_those_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = tiny_pipelines.flux()
    executor = Executor(pipeline, "packed", adapters=files_for(pipeline, tmp_path))
    said: list[str] = []
    for verb in ("set_adapters", "disable_lora"):
        stock = getattr(pipeline, verb)
        monkeypatch.setattr(pipeline, verb, lambda *given, verb=verb, stock=stock: (said.append(verb), stock(*given)))
    requests = [asked("a", "detail"), asked("b", "detail:1.0", width=48)]
    for stage, steps in executor.recipe(requests[0]):
        assert not executor.execute(stage, requests, steps).failed
    assert said == ["set_adapters"]
    plain = asked("c")
    for stage, steps in executor.recipe(plain):
        assert not executor.execute(stage, [plain], steps).failed
    assert said == ["set_adapters", "disable_lora"]
    assert executor.recorder.weights == ()


def test_adapters_that_cannot_be_put_on_are_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "loras").mkdir()
    pipeline = tiny_pipelines.flux()
    files = files_for(pipeline, tmp_path / "loras")
    request = asked("r", "detail+other")
    (tmp_path / "x.safetensors").write_bytes(files["detail"].read_bytes())
    (tmp_path / "loras" / "away.safetensors").symlink_to(tmp_path / "x.safetensors")
    for folder, wanted, words in (
        (None, request, r"names adapter 'detail'; set cluster\.adapters to the folder of detail\.safetensors"),
        (tmp_path / "loras", request, r"'other', but .* has no other\.safetensors; it has: away, detail, style\.v2"),
        (tmp_path / "loras", asked("r", "away"), r"'away', whose file lies outside"),
    ):
        with pytest.raises(BadInput, match=words):
            adapter_files(folder, [wanted])
    assert adapter_files(tmp_path / "loras", [asked("r", "detail"), asked("s")]) == {
        "detail": files["detail"].resolve()
    }
    with pytest.raises(BadInput, match="request 'r': adapter 'other' is not loaded; loaded: detail"):
        Executor(pipeline, adapters={"detail": files["detail"]}).check(request)
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(BadInput, match=r"cannot load .*bad\.safetensors"):
        Executor(tiny_pipelines.flux(), adapters={"bad": bad})
    with pytest.raises(BadInput, match=r"bad|no weights for the layers of FluxPipeline"):
        Executor(tiny_pipelines.flux(), adapters={"bad": lora_file(pipeline, bad, 0, ("nothing",))})
    with pytest.raises(BadInput, match="PixArtSigmaPipeline takes no adapters, which requests name: detail"):
        Executor(tiny_pipelines.pixart(), adapters={"detail": files["detail"]})
