"""The models that are known by name, and what they are asked for where nobody says."""

from __future__ import annotations

import pytest

from traces.errors import BadInput
from traces.geometry import KNOWN_MODELS, geometry_of, known_model, model_called
from traces.request import Request
from traces.workload import Workload


def test_a_name_means_one_model() -> None:
    aliases = [alias for known in KNOWN_MODELS.values() for alias in known.aliases]
    assert len(set(aliases)) == len(aliases)
    assert not set(aliases) & set(KNOWN_MODELS)
    assert all(known_model(alias) == name for name, known in KNOWN_MODELS.items() for alias in known.aliases)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("flux.1-dev", "flux"),
        ("black-forest-labs/FLUX.1-schnell", "flux-schnell"),
        ("stable-diffusion-xl", "sdxl"),
        ("Wan2.2-A14B", "wan-2.2-a14b"),
        ("Wan-AI/Wan2.2-T2V-A14B-Diffusers", "wan-2.2-a14b"),
        ("/models/Qwen_Image/", "qwen-image"),
        ("THUDM/CogVideoX-5b", "cogvideox-5b"),
        ("nothing", ""),
    ],
)
def test_names_as_people_write_them(written: str, meant: str) -> None:
    assert known_model(written) == meant


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(BadInput, match=r"unknown model 'qwen-imag'; did you mean 'qwen-image'\?"):
        model_called("qwen-imag")


@pytest.mark.parametrize("model", KNOWN_MODELS)
def test_a_model_can_make_what_it_is_asked_for_by_default(model: str) -> None:
    known = KNOWN_MODELS[model]
    height, width, frames = known.defaults.size
    known.geometry.check(Request("r", 0.0, height, width, known.defaults.steps, frames=frames))
    assert (frames > 1) == (known.defaults.fps > 0)
    assert known.shape in KNOWN_MODELS
    assert KNOWN_MODELS[known.shape].shape == known.shape
    shared = geometry_of(known.shape)
    for field in ("latent_factor", "latent_channels", "frame_factor", "patch"):
        assert getattr(known.geometry, field) == getattr(shared, field)


@pytest.mark.parametrize("model", KNOWN_MODELS)
def test_requests_of_a_workload_are_guided_as_the_model_is_by_default(model: str) -> None:
    known = KNOWN_MODELS[model]
    trace, lost = Workload.asking(model, 2.0).generate(10.0).guided_as(known.geometry)
    assert lost == []
    assert {request.guided for request in trace} == {known.defaults.guided}
    assert {(r.height, r.width, r.frames) for r in trace} == {known.defaults.size}
    assert {r.steps for r in trace} == {known.defaults.steps}


def test_what_is_given_goes_before_what_is_known() -> None:
    from traces.mix import parse_counts

    workload = Workload.asking("flux.1-dev", 2.0, steps=parse_counts("8", "steps"))
    assert (workload.model, workload.steps.values, workload.sizes.values) == ("flux", (8,), ((1024, 1024, 1),))
    assert Workload.from_toml(Workload.asking("qwen-image", 1.0).to_toml()) == Workload.asking("qwen-image", 1.0)
