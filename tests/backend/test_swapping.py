"""Several checkpoints on one replica: each computes what it computes alone, and what has left is gone."""

from __future__ import annotations

import functools
import gc
import shutil
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

from backend.checkpoints import check_alike, checkpoint_folders, weights_bytes  # noqa: E402
from backend.executor import Executor  # noqa: E402
from backend.loading import load_pipeline  # noqa: E402
from backend.swapping import SwappingExecutor  # noqa: E402
from policies.caching import FirstBlock  # noqa: E402
from predictors.loading import LoadTimes, Weights  # noqa: E402
from tests.backend import tiny_pipelines  # noqa: E402
from tests.backend.test_lora import files_for  # noqa: E402
from tests.backend.tiny_checkpoints import save_checkpoints  # noqa: E402
from traces.errors import BadInput  # noqa: E402
from traces.request import Request  # noqa: E402

torch.set_num_threads(1)
SIZES = Weights(2.0, 1.0)
"""Room for two checkpoints; the host keeps none."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("checkpoints")
    save_checkpoints(tiny_pipelines.sdxl(), folder, ("day", "night"))
    save_checkpoints(tiny_pipelines.flux(), folder, ("other",))
    return {path.name: path for path in sorted(folder.iterdir())}


def make(pipeline: Any, **options: Any) -> Executor:
    return Executor(pipeline, "whole" if hasattr(pipeline, "unet") else "packed", **options)


def swapping(folders: dict[str, Path], weights: Weights = SIZES, **options: Any) -> SwappingExecutor:
    of = options.pop("make", make)
    return SwappingExecutor(folders, lambda _, pipeline: of(pipeline), weights, dtype="float64", **options)


def asked(name: str, checkpoint: str, **more: Any) -> Request:
    return Request(name, 0.0, 16, 16, **{"steps": 3, "prompt": f"{name} cat", "seed": 7, **more}, checkpoint=checkpoint)


@functools.cache
def alone(folder: Path, request: Request, make: Any = make) -> Any:
    """The picture of a request on its checkpoint, which nothing else has shared a replica with."""
    executor, made = make(load_pipeline(str(folder), dtype="float64")), {}
    for stage, steps in executor.recipe(request):
        outcome = executor.execute(stage, [request], steps, deliver=lambda r, pixels: made.update({r: pixels}))
        assert not outcome.failed
    return made[request]


class Served:
    """Requests on their way through a replica, a step at a time."""

    def __init__(self, replica: SwappingExecutor) -> None:
        self.replica = replica
        self.pictures: dict[str, Any] = {}
        self._left: dict[str, list[str]] = {}

    def run(self, request: Request, steps: int = 99) -> None:
        """So many steps of a request, whose checkpoint lies there."""
        left = self._left.setdefault(
            request.request_id, [stage for stage, count in self.replica.recipe(request) for _ in range(count)]
        )
        for stage in left[:steps]:
            outcome = self.replica.execute(
                stage, [request], deliver=lambda r, pixels: self.pictures.update({r.request_id: pixels})
            )
            assert not outcome.failed, outcome.failed
        del left[:steps]


@pytest.mark.parametrize("host_gb", [0.0, 2.0])
def test_requests_of_several_models_whose_weights_leave_between_their_steps_are_as_alone(
    folders: dict[str, Path], host_gb: float
) -> None:
    replica = swapping(folders, Weights(2.0, 1.0, host_gb=host_gb))
    served = Served(replica)
    a, b, c = asked("a", "day"), asked("b", "night"), asked("c", "other")
    replica.load("day")
    replica.load("night")
    served.run(a, 2)
    served.run(b, 3)
    replica.load("other", ["day"])
    served.run(c, 2)
    assert replica.loaded == ("night", "other")
    replica.load("day", ["night"])
    served.run(a)
    replica.load("night", ["day"])
    served.run(c)
    served.run(b)
    for request in (a, b, c):
        expected = alone(folders[request.checkpoint], request)
        assert np.array_equal(served.pictures[request.request_id], expected)
    assert not np.array_equal(alone(folders["night"], asked("a", "night")), served.pictures["a"])


@pytest.mark.parametrize("host_gb", [0.0, 1.0])
def test_what_leaves_is_freed_with_all_that_was_made_of_it(folders: dict[str, Path], host_gb: float) -> None:
    replica = swapping(folders, Weights(2.0, 1.0, host_gb=host_gb), loaded=["day"])
    assert replica.held_bytes == weights_bytes(folders["day"], "float64") + _buffers(replica)
    Served(replica).run(asked("a", "day"))
    unet = next(iter(replica._known.values()))[0].pipeline.unet
    storages = [weakref.ref(each.data.untyped_storage()) for each in unet.parameters()]
    module = weakref.ref(unet)
    del unet
    replica.load("night", ["day"])
    gc.collect()
    assert not any(ref() for ref in storages)
    assert replica.held_bytes == weights_bytes(folders["night"], "float64") + _buffers(replica)
    assert module() is None  # the host has room for the last alone
    replica.load("other", ["night"])
    assert replica.kept == (("other",) if host_gb else ())
    replica.close()
    assert replica.held_bytes == 0


def _buffers(replica: SwappingExecutor) -> int:
    """Bytes of what is in no file."""
    parts = [part for _, executor in _here(replica) for part in executor.pipeline.components.values()]
    modules = [part for part in parts if isinstance(part, torch.nn.Module)]
    return sum([each.numel() * each.element_size() for part in modules for each in part.buffers()])


def _here(replica: SwappingExecutor) -> Iterator[tuple[str, Executor]]:
    return ((name, replica._known[name][0]) for name in replica.loaded)


def test_a_request_that_ends_while_its_weights_are_away_takes_its_modules_along(folders: dict[str, Path]) -> None:
    replica = swapping(folders, loaded=["day"])
    Served(replica).run(asked("a", "day"), 2)
    module = weakref.ref(next(iter(replica._known.values()))[0].pipeline.unet)
    replica.load("night", ["day"])
    gc.collect()
    assert module() is not None
    assert replica.resident == ["a"]
    replica.keep_only(set())
    gc.collect()
    assert module() is None
    with pytest.raises(RuntimeError, match="checkpoint 'day' of request 'b' is not loaded"):
        replica.execute("encode", [asked("b", "day")])


def test_the_host_keeps_what_it_was_predicted_to_keep_and_loads_from_it(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = Weights(3.0, 1.0, host_gb=2.5, of={"other": 1.2})
    replica, predicted, from_disk = swapping(folders, weights), LoadTimes(weights, [()]), []
    monkeypatch.setattr(
        "backend.swapping.load_pipeline",
        lambda path, *more: from_disk.append(Path(path).name) or load_pipeline(path, *more),
    )
    for name, evict in (
        ("day", ()),
        ("night", ()),
        ("day", ("day",)),
        ("other", ()),
        ("night", ("night",)),
        ("day", ("day",)),
        ("night", ("night",)),
    ):
        before = len(from_disk)
        expected_s = predicted.seconds(0, name)
        replica.load(name, evict)
        assert (len(from_disk) > before) == (expected_s == weights.disk_s(name))
        assert set(replica.kept) == set(predicted.held(0))
    assert from_disk == ["day", "night", "other", "night", "day"]


def test_adapters_come_and_go_with_the_weights_that_they_are_on(folders: dict[str, Path], tmp_path: Path) -> None:
    files = files_for(tiny_pipelines.sdxl(), tmp_path)
    adapted = lambda pipeline: make(pipeline, adapters=files)  # noqa: E731
    replica = swapping(folders, make=adapted, loaded=["day"])
    served = Served(replica)
    a, b = asked("a", "day", adapters="detail:0.5+style.v2"), asked("b", "night", adapters="detail")
    replica.execute("adapt", [a], 2)
    served.run(a, 2)
    replica.load("night", ["day"])
    assert replica.execute("adapt", [b], 1).steps_done == 1
    served.run(b)
    replica.load("day")
    served.run(a)
    for request in (a, b):
        assert np.array_equal(served.pictures[request.request_id], alone(folders[request.checkpoint], request, adapted))


def test_a_cache_does_not_stay_behind(folders: dict[str, Path]) -> None:
    cached = lambda pipeline: Executor(pipeline, "patched", FirstBlock(), cache_bytes=2**20, patch_floor=1)  # noqa: E731
    replica = swapping(folders, make=cached, loaded=["day"])
    served, a = Served(replica), asked("a", "day")
    served.run(a, 3)
    ((_, executor),) = _here(replica)
    assert executor.cache is not None
    assert executor.cache.kept.bytes > 0
    replica.load("night", ["day"])
    assert executor.cache.kept.bytes == 0
    assert replica.cache_peak_bytes > 0
    replica.load("day")
    served.run(a)
    assert np.isfinite(served.pictures["a"]).all()


def test_one_that_is_lent_to_be_warmed_up_is_gone_again(folders: dict[str, Path]) -> None:
    replica = swapping(folders, Weights(2.0, 1.0, host_gb=2.0))
    with replica.lent("day") as executor:
        assert isinstance(executor, Executor)
        assert replica.loaded == ("day",)
    assert replica.loaded == replica.kept == ()
    replica.load("night")
    with replica.lent("night"):
        assert replica.loaded == ("night",)
    with replica.lent("other"):
        assert replica.loaded == ("other",)
    assert replica.loaded == replica.kept == ("night",)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["day", "gone"],
            r"'gone' of the trace: .* has no diffusers folder gone/; it has: day, night, other",
        ),
        (["../day"], r"checkpoint '../day' of the trace lies outside weights.folder"),
        (["/etc"], r"checkpoint '/etc' of the trace lies outside weights.folder"),
        (["."], r"checkpoint '.' of the trace lies outside weights.folder"),
    ],
)
def test_names_that_mean_no_checkpoint(folders: dict[str, Path], names: list[str], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        checkpoint_folders(folders["day"].parent, "tiny-image", names)


def test_folders_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"weights.folder is .*none, which is no folder; expected that of a/"):
        checkpoint_folders(tmp_path / "none", "tiny-image", ["a"])
    with pytest.raises(BadInput, match=r"checkpoint 'a' of the trace has no folder; set weights.folder"):
        checkpoint_folders(None, "tiny-image", ["a"])


def test_checkpoints_of_another_architecture_or_that_are_not_whole(folders: dict[str, Path], tmp_path: Path) -> None:
    check_alike({name: folders[name] for name in ("day", "night")}, "float32")
    with pytest.raises(BadInput, match=r"'other' .* architecture than 'day': its pipeline is FluxPipeline, not"):
        check_alike(folders, "float32")
    wide = tiny_pipelines.sdxl()
    wide.unet.conv_out = torch.nn.Conv2d(16, 6, 3, padding=1)
    wide.save_pretrained(tmp_path / "wide")
    with pytest.raises(BadInput, match=r"than the model: its unet.conv_out.bias has the shape \[6\], not \[4\]"):
        check_alike({"": folders["day"], "wide": tmp_path / "wide"}, "float32")
    shutil.copytree(folders["day"], tmp_path / "torn")
    torn = tmp_path / "torn" / "unet" / "diffusion_pytorch_model.safetensors"
    torn.write_bytes(torn.read_bytes()[:-1])
    with pytest.raises(BadInput, match=r"bytes of the .* that its header tells"):
        check_alike({"torn": tmp_path / "torn"}, "float32")
    torn.rename(torn.with_suffix(".bin"))
    with pytest.raises(BadInput, match="is a pickle"):
        check_alike({"torn": tmp_path / "torn"}, "float32")
