"""Denoising on several ranks, which are real processes, equals that on one, whatever is cut where; bytes as computed.

Two ranks and some families stand for all; TILECAST_MIXES=15 tries every family, on three and four ranks too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from backend.executor import Executor  # noqa: E402
from backend.loading import geometry_of_pipeline  # noqa: E402
from backend.packed import shard_attention  # noqa: E402
from backend.profiling import measure  # noqa: E402
from backend.ranks.workers import Devices, Workers  # noqa: E402
from predictors.shards import expected_bytes, expected_exchanges  # noqa: E402
from tests.backend.families import FAMILIES  # noqa: E402
from tests.backend.family_rank import TARGET, pipeline_of  # noqa: E402
from traces.request import Request  # noqa: E402

torch.set_num_threads(1)
SWEEP = int(os.environ.get("TILECAST_MIXES", "2")) > 2
UNITS = {"pixart": 128, "sd3": 4, "flux": 4, "sdxl": 32}
PACKED = ("flux", "pixart")
BY_ROWS = ("Sana", "Lumina-Next", "Mochi", "Allegro")
"""Families whose blocks cannot be packed, so that only rows are divided."""
if SWEEP:
    given_more = ("Qwen-Image-Edit", "GLM-Image", *[name for name in FAMILIES if "image to video" in name])
    PACKED += ("sd3", "hunyuan_video", "cogvideox")
    PACKED += tuple(name for name, each in FAMILIES.items() if not each.refused and name not in given_more)


@pytest.fixture(scope="module", params=(2, 3, 4) if SWEEP else (2,))
def workers(request: pytest.FixtureRequest) -> Iterator[Workers]:
    """Ranks that compute with one pipeline after another."""
    made = Workers(Devices(request.param, "flux"), target=TARGET)
    yield made
    made.close()


def executor_on(workers: Workers, family: str, mode: str, decode: str = "whole") -> Executor:
    """An executor whose other ranks have the same pipeline."""
    executor = Executor(pipeline_of(family), mode, decode=decode, workers=workers)
    if workers.running:
        workers.order("family", family=family, settings=workers.settings)
    workers.devices = Devices(workers.devices.count, family)
    return executor


def requests_of(family: str) -> list[Request]:
    """Sizes, steps, prompts, guidance and numbers of pictures all differ."""
    if family in FAMILIES:
        return FAMILIES[family].requests(pipeline_of(family))
    unit = UNITS.get(family, 16)
    clip = {"frames": 5} if unit == 16 else {}
    images = 2 if unit != 16 else 1
    return [
        Request("square", 0.0, 2 * unit, 2 * unit, steps=3, seed=1, prompt="a cat", **clip),
        Request(
            "two", 0.0, 3 * unit, unit, steps=3, seed=2, prompt="two dogs", images=images, guidance_scale=3.0, **clip
        ),
        Request("unguided", 0.0, unit, 2 * unit, steps=2, seed=3, prompt="a small bird", guidance_scale=1.0, **clip),
    ]


def latents_on(executor: Executor, requests: list[Request], degrees: list[int]) -> dict[str, Any]:
    """Last latents of requests that join one by one and leave when they are done, a step a launch, on as many ranks as
    ``degrees`` says in turn."""
    left = {each.request_id: each.steps for each in requests}
    arriving, joined, final, launch = list(requests), [], {}, 0
    while any(left.values()):
        if arriving:
            joined.append(arriving.pop(0))
            assert executor.execute("encode", [joined[-1]]).failed is None
        active = [each for each in joined if left[each.request_id]]
        outcome = executor.execute("denoise", active, 1, devices=range(degrees[launch % len(degrees)]))
        assert outcome.failed is None, outcome.failed
        launch += 1
        for each in active:
            left[each.request_id] -= 1
            latents = executor.latents(each.request_id)
            assert latents is not None
            final[each.request_id] = latents.clone()
    executor.keep_only(set())
    return final


def difference(one: dict[str, Any], other: dict[str, Any]) -> float:
    """Largest, in standard deviations."""
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max() / one[name].std()) for name in one)


@pytest.mark.parametrize(("family", "mode"), [(name, "packed") for name in PACKED] + [("sdxl", "patched")])
def test_any_number_of_ranks_from_step_to_step_makes_what_one_makes(workers: Workers, family: str, mode: str) -> None:
    requests, most = requests_of(family), workers.devices.count
    expected = latents_on(Executor(pipeline_of(family), mode), requests, [1])
    executor = executor_on(workers, family, mode)
    found = latents_on(executor, requests, [most, most, 1, 2])
    found |= latents_on(executor, requests, [most])
    assert difference(expected, found) <= (FAMILIES[family].tolerance if family in FAMILIES else 1e-12)
    assert not any("instead of several" in note for note in executor.notes)
    divided: Any = executor.divided
    assert (divided.traffic.divided >= 3) == (mode == "packed" and family not in BY_ROWS)


def denoised(executor: Executor, requests: list[Request], devices: int) -> dict[str, Any]:
    """Latents after one step of all."""
    assert executor.execute("encode", requests).failed is None
    assert executor.execute("denoise", requests, 1, devices=range(devices)).failed is None
    final = {each.request_id: executor.latents(each.request_id) for each in requests}
    executor.keep_only(set())
    return final


def test_bytes_and_exchanges_are_those_of_the_formula(workers: Workers) -> None:
    executor, most = executor_on(workers, "flux", "packed"), workers.devices.count
    requests = requests_of("flux")[:2]  # three rows, which no cut between rows divides evenly
    denoised(executor, requests, most)  # which they learn from
    assert executor.execute("encode", requests).failed is None
    calls = [executor._runs[each.request_id].pending for each in requests]  # type: ignore[union-attr]
    shapes = sorted(call.kwargs["hidden_states"].shape for call in calls if call is not None)
    text = 9 if calls[0] is None else calls[0].kwargs["encoder_hidden_states"].shape[1]
    rows = [(tokens, text) for count, tokens, _ in shapes for _ in range(count)]
    config = executor.pipeline.transformer.config
    layers = config.num_layers + config.num_single_layers
    divided: Any = executor.divided
    before = divided.traffic
    assert executor.execute("denoise", requests, 1, devices=range(most)).failed is None
    executor.keep_only(set())
    expected = expected_bytes(
        rows=rows,
        devices=most,
        layers=layers,
        heads=config.num_attention_heads,
        channels=config.attention_head_dim,
        given_channels=config.in_channels,
        item_bytes=8,
    )
    assert divided.traffic.sent_bytes - before.sent_bytes == expected[0] > 0
    assert divided.traffic.exchanges - before.exchanges == expected_exchanges(rows, most, layers) > 1


def decoded(executor: Executor, devices: int) -> Any:
    """Pixels of a request whose decoding so many ranks share."""
    request = Request("odd", 0.0, 5 * UNITS["sdxl"], 64, steps=1, seed=4, prompt="a cat", images=2)
    pixels: dict[str, Any] = {}
    for stage in ("encode", "denoise", "decode"):
        on = range(devices) if stage == "decode" else (0,)
        outcome = executor.execute(stage, [request], 1, deliver=lambda r, x: pixels.update(made=x), devices=on)
        assert outcome.failed is None
    return pixels["made"]


@pytest.mark.parametrize("way", ["whole", "patched"])
def test_ranks_share_decoding(workers: Workers, way: str) -> None:
    executor = executor_on(workers, "sdxl", "whole", decode=way)
    expected, found = decoded(executor, 1), decoded(executor, workers.devices.count)
    divided: Any = executor.divided
    assert divided.decoding.divided == 1
    assert executor.notes == []
    assert abs(found - expected).max() <= 1e-9  # of float32 pixels in 0..1


def test_a_profile_has_rows_of_each_degree_that_a_batch_can_have(workers: Workers) -> None:
    executor = executor_on(workers, "sdxl", "whole")
    geometry = geometry_of_pipeline(executor.pipeline, "tiny")
    one, two = ((32, 32, 1), 1), ((32, 32, 1), 2)
    profile = measure(executor, replace(geometry, guidance="never"), [(one,), (two,)], repeats=1)
    several = profile.frame[profile.frame["devices"] > 1]
    rows = several[several["stage"] == "denoise"]
    bands = several[several["stage"] == "decode"]
    assert set(bands["parallel"]) == {"bands"}
    assert list(bands["devices"][:2]) == [2, 2]  # of one picture, and of two
    assert len(several) == len(rows) + len(bands)
    assert (rows["composition"].iloc[0], rows["devices"].iloc[0], rows["parallel"].iloc[0]) == ("2@32x32", 2, "data2")
    assert len(profile.frame) == 6 + len(several)


def test_what_other_ranks_send_matters(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the tests of equality could not fail."""
    requests = requests_of("flux")[:2]
    executor = executor_on(workers, "flux", "packed")
    expected = denoised(executor, requests, 1)
    denoised(executor, requests, workers.devices.count)  # which they learn from
    swapped = shard_attention.ShardAttention._swapped

    def without(attention: Any, given: Any, numbers: Any) -> Any:
        received = swapped(attention, given, numbers)
        own = attention.pack.shard.rank
        return [part if rank == own else torch.zeros_like(part) for rank, part in enumerate(received)]

    monkeypatch.setattr(shard_attention.ShardAttention, "_swapped", without)
    found = denoised(executor, requests, workers.devices.count)
    assert difference(expected, found) > 1e-6


def test_a_rank_that_fails_among_others_leaves_and_the_first_goes_on_alone(workers: Workers) -> None:
    """The last test of these ranks."""
    requests, most = requests_of("flux")[:2], workers.devices.count
    executor = executor_on(workers, "flux", "packed")
    expected = denoised(executor, requests, 1)
    denoised(executor, requests, most)  # which they learn from
    workers.order("fail")
    assert difference(expected, denoised(executor, requests, most)) <= 1e-12
    assert not workers.running
    assert workers.losses == 1
