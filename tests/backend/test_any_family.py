"""Every family that diffusers has, through the executor: mixes of sizes, prompts and steps, each as its pipeline alone.

All requests of a family together; of some families two of as many tokens, too. TILECAST_MIXES=15 makes fifteen mixes.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from backend.executor import Executor  # noqa: E402
from tests.backend.families import FAMILIES, draw_pictures, mixes, started  # noqa: E402
from tests.backend.mixed import largest_difference, latents_together, sampled_alone  # noqa: E402
from traces.errors import BadInput  # noqa: E402

torch.set_num_threads(1)
MIXES = int(os.environ.get("TILECAST_MIXES", "0"))
TWO_MIXES = ("Flux", "Qwen-Image", "Z-Image", "PixArt-sigma", "Sana", "Wan 2.1", "HunyuanVideo", "LTX")
SERVED = [name for name, family in FAMILIES.items() if not family.refused]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    draw_pictures(folder)
    return folder


@pytest.mark.parametrize("name", SERVED)
def test_equals_the_stock_pipeline_run_alone(name: str, pictures: Path, record_property: pytest.RecordProperty) -> None:
    """Requests join, leave and pause. As any transformer, and by the adapter where there is one."""
    family = FAMILIES[name]
    pipeline = family.pipeline()
    requests = family.requests(pipeline)
    alone = {r.request_id: sampled_alone(pipeline, r, **started(pipeline, r, pictures)) for r in requests}
    assert largest_difference({"b": alone["r0"]}, {"b": alone[requests[-1].request_id]}) > 1e-3  # prompts matter
    worst = 0.0
    executor = Executor(pipeline, "packed", images=pictures)
    for mix in mixes(requests, MIXES or (2 if name in TWO_MIXES else 1)):
        together = latents_together(executor, mix, pause=mix[0].request_id)
        worst = max(worst, largest_difference({r: alone[r] for r in together}, together))
    record_property("error", worst)
    assert worst <= family.tolerance


@pytest.mark.parametrize("name", FAMILIES.keys() - set(SERVED))
def test_what_cannot_be_served_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(BadInput, match=FAMILIES[name].refused):
        Executor(FAMILIES[name].pipeline())
