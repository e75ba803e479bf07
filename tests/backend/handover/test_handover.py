"""A request that is encoded, denoised and decoded in three replicas gives the picture of one, to the last bit.

Each replica has only the networks of its stages. TILECAST_MIXES=1 tries all pipelines, not a few.
"""

from __future__ import annotations

import functools
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from diffusers import StableDiffusionXLPipeline  # noqa: E402
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution  # noqa: E402
from transformers.modeling_outputs import BaseModelOutput  # noqa: E402

from backend.devices.decoding import ComponentTask  # noqa: E402
from backend.devices.rank import PipelineRank  # noqa: E402
from backend.executor import Executor  # noqa: E402
from backend.handover.absent import is_absent  # noqa: E402
from backend.handover.nests import Form, filled, packed, unpacked, without_numbers  # noqa: E402
from backend.handover.script import HandoverRefused, Script  # noqa: E402
from backend.loading import load_pipeline  # noqa: E402
from tests.backend import test_image_to_image, tiny_pipelines, tiny_stateful  # noqa: E402
from tests.backend.families import FAMILIES, draw_pictures  # noqa: E402
from tests.backend.handover.staged import APART, for_stages, passed_on, pictures  # noqa: E402
from traces.errors import BadInput  # noqa: E402
from traces.request import Request  # noqa: E402
from traces.strength import IMAGE_TO_IMAGE  # noqa: E402

torch.set_num_threads(1)
_ALL = "TILECAST_MIXES" in os.environ
SERVED = [name for name, family in FAMILIES.items() if not family.refused]
FEW = ("Qwen-Image", "Wan 2.1 image to video", "LTX image to video", "Wan 2.2 A14B")
IMAGES = tuple(test_image_to_image.MADE)
HOST = torch.device("cpu")


def same(one: dict[str, np.ndarray[Any, Any]], other: dict[str, np.ndarray[Any, Any]]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def parts(made: Any, stages: tuple[tuple[str, ...], ...] = APART, **options: Any) -> list[Executor]:
    return [Executor(for_stages(made(), own), stages=own, **options) for own in stages]


@pytest.mark.parametrize("name", SERVED if _ALL else FEW)
def test_three_replicas_make_the_picture_of_one(name: str, tmp_path: Path) -> None:
    draw_pictures(tmp_path)
    family = FAMILIES[name]
    pipeline = family.pipeline()
    requests = [replace(request, steps=2) for request in family.requests(pipeline)[: 4 if _ALL else 2]]
    whole, apart = [Executor(pipeline, images=tmp_path)], parts(family.pipeline, images=tmp_path)
    for request in requests:
        assert same(pictures(apart, [request]), pictures(whole, [request]))
    assert not [each for executor in apart for each in executor.resident]


@pytest.mark.parametrize("name", IMAGES if _ALL else ("sdxl heun", "sdxl inpaint", "flux fill"))
def test_so_do_they_from_a_picture(name: str, tmp_path: Path) -> None:
    """The autoencoder encodes where the prompt is; what it encoded is drawn with the request's own noise everywhere."""
    test_image_to_image.pictures.__wrapped__(tmp_path)

    def made() -> Any:
        torch.manual_seed(0)  # the same weights in every replica
        return test_image_to_image.MADE[name]()

    pipeline = made()
    strength = 0.55 if type(pipeline).__name__ in IMAGE_TO_IMAGE else None
    steps = 4 if strength is None else IMAGE_TO_IMAGE[type(pipeline).__name__].steps(4, strength)
    mask = "mask0.png" if "inpaint" in name or "fill" in name else ""
    request = Request(
        "r", 0.0, 32, 32, steps, prompt="a cat", image="0.png", mask=mask, strength=strength, schedule_steps=4
    )
    one = pictures([Executor(pipeline, images=tmp_path)], [request])
    apart = parts(made, images=tmp_path)
    assert same(pictures(apart, [request]), one)
    assert is_absent(apart[1].pipeline.vae)


@pytest.mark.parametrize(
    "stages",
    [(("encode", "denoise"), ("decode",)), (("encode",), ("denoise", "decode")), (("encode", "decode"), ("denoise",))],
)
def test_requests_of_a_batch_go_on_together_wherever_the_stages_are_divided(stages: Any) -> None:
    """Of mixed sizes, guided and not, with several pictures, of which the lengths of prompts differ."""
    requests = [
        Request("a", 0.0, 32, 16, 2, prompt="a cat", negative_prompt="blue"),
        Request("b", 0.0, 16, 16, 2, prompt="a very red cat", guidance_scale=1.0, seed=1),
        Request("c", 0.0, 16, 16, 2, prompt="a red cat", images=2, seed=2),
    ]
    one = pictures([Executor(tiny_pipelines.sd3(), "packed")], requests)
    assert same(pictures(parts(tiny_pipelines.sd3, stages, mode="packed"), requests), one)


def test_a_replica_has_the_weights_of_its_stages_alone() -> None:
    def bytes_of(stages: tuple[str, ...] | None) -> dict[str, int]:
        pipeline = load_pipeline("tiny-image", stages=stages)
        if stages is not None:
            executors.append(Executor(pipeline, stages=stages))
        return {name: held(part) for name, part in pipeline.components.items() if isinstance(part, torch.nn.Module)}

    def held(part: torch.nn.Module) -> int:
        return sum([each.nbytes for each in part.parameters() if not each.is_meta])

    executors: list[Executor] = []
    whole = bytes_of(None)
    needed = {"encode": {"text_encoder", "text_encoder_2"}, "denoise": {"unet"}, "decode": {"vae"}}
    for (stage,) in APART:
        found = bytes_of((stage,))
        assert {name for name, size in found.items() if size} == needed[stage] & whole.keys()
        assert all(found[name] == whole[name] for name in needed[stage] & whole.keys())
    request = Request("r", 0.0, 64, 64, 2, prompt="a red circle")
    sizes: list[int] = []
    made: dict[str, Any] = {}
    sizes += passed_on(executors, [request], lambda request, pixels: made.update({request.request_id: pixels}))
    assert same(made, pictures([Executor(load_pipeline("tiny-image"))], [request]))
    assert is_absent(executors[2].pipeline.text_encoder_2)
    assert is_absent(executors[2].pipeline.unet)
    assert is_absent(executors[1].pipeline.vae)
    latents = 4 * 8 * 8 * 4
    assert latents < sizes[1] < 2 * latents + 8192
    with pytest.raises(RuntimeError, match="this replica is not for"):
        executors[2].pipeline.unet(torch.zeros(1))
    rank = PipelineRank(load_pipeline("tiny-image", stages=("decode",)))
    task = ComponentTask("vae", (torch.zeros(1, 4, 8, 8),), {"return_dict": False}, (0,), torch.float32)
    assert torch.equal(rank.component(task, None)[0], load_pipeline("tiny-image").vae.decode(task.args[0]).sample)


def test_a_safety_checker_looks_where_pictures_are_decoded() -> None:
    def made() -> Any:
        return tiny_stateful.stable_diffusion(checked=True)

    apart, notes = parts(made), {}
    request = Request("a", 0.0, 16, 16, 1, prompt="red cat " * 60)
    handed = b""
    for executor, stage in zip(apart, ("encode", "denoise", "decode"), strict=True):
        if handed:
            executor.take(request, handed)
        outcome = executor.execute(stage, [request])
        notes[stage] = (outcome.notes or {}).get("a", "")
        handed = executor.handed.pop("a", b"")
    assert notes["encode"].startswith("the prompt was longer than the text encoder reads")
    assert notes["denoise"] == ""
    assert notes["decode"] == "the picture was blacked out by the safety checker"
    assert [is_absent(executor.pipeline.safety_checker) for executor in apart] == [True, True, False]


def test_what_is_not_the_request_that_was_handed_on_is_refused() -> None:
    encoder, denoiser, _ = parts(tiny_pipelines.sdxl)
    request = Request("a", 0.0, 16, 16, 1, prompt="a red cat")
    assert encoder.execute("encode", [request]).failed is None
    handed = encoder.handed["a"]
    with pytest.raises(HandoverRefused, match=r"asks text_encoder\.forward now and asked text_encoder\.forward before"):
        denoiser.take(replace(request, prompt="a blue cat"), handed)
    with pytest.raises(HandoverRefused, match="asks its denoiser something else"):
        denoiser.take(replace(request, seed=1), handed)
    assert denoiser.resident == []
    for bad in (b"", handed[:40], handed.replace(b"modeling_", b"nothing__")):
        with pytest.raises(ValueError, match="what was handed over cannot be read"):
            denoiser.take(request, bad)


class Tinted(StableDiffusionXLPipeline):
    """One whose pictures depend on the embeddings of the text once more, after the denoising."""

    def encode_prompt(self, *args: Any, **kwargs: Any) -> Any:
        found = super().encode_prompt(*args, **kwargs)
        self._tint = found[0].mean()
        return found

    @functools.wraps(StableDiffusionXLPipeline.__call__)
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        made = super().__call__(*args, **kwargs)
        made.images = made.images * float(self._tint)
        return made


def test_a_picture_that_lacks_what_was_not_handed_on_is_never_delivered() -> None:
    def made() -> Any:
        pipeline = tiny_pipelines.sdxl()
        pipeline.__class__ = Tinted
        return pipeline

    request = Request("a", 0.0, 16, 16, 1, prompt="a red cat")
    assert np.isfinite(pictures([Executor(made())], [request])["a"]).all()
    apart = parts(made)
    with pytest.raises(AssertionError, match="not a number in the decoded picture"):
        pictures(apart, [request])


def test_tiles_and_adapters_stay_on_one_pool(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="adapters are put on: a request that is handed from pool to pool"):
        Executor(tiny_pipelines.sdxl(), stages=("encode",), adapters={"a": tmp_path / "a.safetensors"})


def test_nests_travel_as_they_are() -> None:
    plane = torch.arange(12.0).reshape(3, 4)
    nest = {
        "half": plane.to(torch.bfloat16).T,
        "twice": [plane, plane],
        "tokens": (torch.tensor(7), torch.zeros(0, 3, dtype=torch.int64), torch.tensor([True, False])),
        "one": torch.ones(1).expand(1, 1),
        "plain": [None, True, 2, 0.1, "text"],
        "output": BaseModelOutput(last_hidden_state=plane, hidden_states=(plane, plane + 1)),
        "drawn": DiagonalGaussianDistribution(torch.linspace(-1, 1, 32).reshape(1, 8, 2, 2)),
        "form": Form(plane, HOST),
    }
    data = packed(nest, HOST)
    assert len(data) < len(packed({**nest, "other": plane + 2}, HOST)) < len(data) + 300
    found = unpacked(data, HOST)
    assert torch.equal(found["half"], nest["half"])
    assert found["half"].stride() == nest["half"].stride()
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(found["tokens"], nest["tokens"], strict=True))
    assert found["plain"] == nest["plain"]
    assert type(found["output"]) is BaseModelOutput
    assert torch.equal(found["output"].hidden_states[1], plane + 1)
    draws = [each["drawn"].sample(torch.Generator().manual_seed(0)) for each in (nest, found)]
    assert torch.equal(*draws)
    hollow = filled(without_numbers(found, HOST), HOST)
    assert hollow["half"].isnan().all()
    assert hollow["form"].shape == plane.shape
    assert torch.equal(hollow["tokens"][0], nest["tokens"][0])
    strange = unpacked(packed({"cache": object()}, HOST), HOST)["cache"]
    with pytest.raises(AttributeError, match="a object cannot be handed to another replica, and its 'keys' is wanted"):
        strange.keys()


def test_a_message_names_outputs_of_the_libraries_and_no_other_code() -> None:
    data = packed(BaseModelOutput(last_hidden_state=torch.ones(2)), HOST)
    own = f"{BaseModelOutput.__module__}:{BaseModelOutput.__qualname__}".encode()
    for other in (b"transformers.utils.hub:os", b"diffusers.models:UNet2DConditionModel", b"os:system"):
        with pytest.raises(ValueError, match="cannot be read"):
            unpacked(data.replace(own, other.ljust(len(own))), HOST)


def test_what_a_network_draws_of_a_requests_noise_is_drawn_everywhere() -> None:
    """The noise that comes after it is the same, whether the network runs or its answer is known."""

    def after(script: Script) -> float:
        noise = torch.Generator().manual_seed(0)

        def compute() -> torch.Tensor:
            return torch.rand(5, generator=noise)

        script.answer("vae", "encode", compute, ((), {"generator": noise}), True)
        return float(torch.rand(1, generator=noise))

    first = Script(HOST)
    drawn = after(first)
    assert (
        after(Script.of(first.packed(), HOST))
        == drawn
        != float(torch.rand(1, generator=torch.Generator().manual_seed(0)))
    )
