"""Writes ``docs/reference/families.md``: which way of running works for which family of diffusion transformers.

    python -m tools.families [FAMILY ...]

Every way is really tried on a small random-weight pipeline of each family (`tests/backend/families.py`); where it is
refused, the table gives the executor's own words. With names, only their rows are printed. Takes some minutes.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers.utils import logging

from backend.coroutine import DenoiserCall, RequestRun, intercept_denoisers
from backend.executor import Executor
from backend.inputs import image_use
from backend.loading import first_line, geometry_of_pipeline
from backend.merge import merge_key
from policies.caching import FixedInterval
from tests.backend.families import FAMILIES, Family, draw_pictures, mixes, started
from tests.backend.mixed import largest_difference, latents_together, sampled_alone
from tests.backend.tiled_runs import decoded, executor_of, refine, upscaled
from traces.errors import BadInput
from traces.request import Request

TABLE = Path(__file__).parents[1] / "docs" / "reference" / "families.md"
WAYS = ("whole", "packed", "tiled", "cached", "several devices")
HEADER = """\
# Families

Which way of running works for which family of diffusion transformers, as `python -m tools.families` finds it on small
random-weight pipelines of all of them, each of its real classes. Nothing here is written by hand.

- **whole**: requests of one size that share a forward.
- **packed**: requests of any sizes, prompts and steps in one forward, each as its pipeline makes it alone: to 1e-12 of
  the spread of the final latents in float64, to 1e-4 where a pipeline cannot compute in it. *Blocks* run once for all
  of them; where blocks cannot, their *layers* do, all but attention.
- **tiled**: pictures and clips larger than a model was trained for, refined by tiles.
- **cached**: blocks computed at every second step only, decided by a caching policy; *no* where nothing is reused.
- **several devices**: tiles on several devices at once.

"""


@dataclass
class Row:
    """What was found of a family: a word for each of `WAYS`, and why not where it is refused."""

    family: str
    pipeline: str
    cells: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)

    def line(self, numbers: dict[str, int]) -> str:
        """A line of the table. Reasons are told by their number; new ones are added."""
        cells = []
        for way in WAYS:
            reason = self.reasons.get(way, "")
            number = f" [{numbers.setdefault(reason, len(numbers) + 1)}]" if reason else ""
            cells.append(f"{self.cells[way]}{number}")
        return "| " + " | ".join((self.family, self.pipeline, *cells)) + " |"

    @property
    def text(self) -> str:
        """The row with its reasons written out."""
        told = (f"{self.cells[way]}: {self.reasons[way]}" if way in self.reasons else self.cells[way] for way in WAYS)
        return "\n".join((f"{self.family} ({self.pipeline})", *map(": ".join, zip(WAYS, told, strict=True))))


def tried(family: Family, name: str, folder: Path, ways: Sequence[str] = WAYS) -> Row:
    """The row of a family, of these ways.

    Args:
        family: a family.
        name: what it is called.
        folder: an empty folder for what is written meanwhile.
        ways: some of `WAYS`.
    """
    torch.set_num_threads(1)
    draw_pictures(folder)
    pipeline = family.pipeline()
    row = Row(name, type(pipeline).__name__)
    transformer = type(pipeline.transformer).__name__
    for way in ways:
        try:
            row.cells[way] = _ATTEMPTS[way](row, family, folder)
        except BadInput as error:
            row.cells[way], row.reasons[way] = "no", str(error).replace(transformer, "its transformer")
        except Exception as error:
            row.cells[way], row.reasons[way] = "no", f"{type(error).__name__}: {first_line(error)}"
    return row


def _whole(row: Row, family: Family, folder: Path) -> str:
    pipeline = family.pipeline()
    Executor(family.pipeline(), images=folder)
    intercept_denoisers(pipeline)
    first, *_, last = family.requests(pipeline)  # of one size

    def key(request: Request, prompt: str) -> Any:
        asked = Request(**{**_fields(request), "prompt": prompt, "guidance_scale": 3.0, "image": first.image})
        call = RequestRun(pipeline, asked, started(pipeline, asked, folder)).resume()
        assert isinstance(call, DenoiserCall)
        return merge_key(call)

    if key(first, "a cat") == key(last, "two dogs by the sea"):
        return "yes"
    return "prompts of one length" if key(first, "a cat") == key(last, "a dog") else "no"


def _fields(request: Request) -> dict[str, Any]:
    return {name: getattr(request, name) for name in type(request).__dataclass_fields__}


def _packed(row: Row, family: Family, folder: Path) -> str:
    pipeline = family.pipeline()
    executor = Executor(family.pipeline(), "packed", images=folder)
    requests = family.requests(pipeline)
    alone = {r.request_id: sampled_alone(pipeline, r, **started(pipeline, r, folder)) for r in requests}
    for mix in mixes(requests, 2):
        together = latents_together(executor, mix)
        error = largest_difference({name: alone[name] for name in together}, together)
        if error > family.tolerance:
            raise BadInput(f"wrong by {error:.0e}")
    unpacked = _unpacked(executor)
    if unpacked:
        row.reasons["packed"] = unpacked
    in_blocks = any(getattr(mixer, "packed", True) for mixer in _mixers(executor))
    return "layers" if not in_blocks else "blocks, layers" if unpacked else "blocks"


def _mixers(executor: Executor) -> list[Any]:
    return list(getattr(executor._mixer, "mixers", {"": executor._mixer}).values())


def _unpacked(executor: Executor) -> str:
    """Which blocks ran layer by layer, and why; sizes are left out."""
    reasons = {
        f"{block} layer by layer: {re.sub(r'[([][0-9, ()[]*[])]|[0-9]+ tokens', '...', reason)}"
        for mixer in _mixers(executor)
        for block, reason in getattr(mixer, "unpacked", {})
    }
    return "; ".join(sorted(reasons))


def _tiled(row: Row, family: Family, folder: Path) -> str:
    executor, request = _canvas(family.pipeline(), family, folder)
    _made(executor, request)
    return "yes"


def _several_devices(row: Row, family: Family, folder: Path) -> str:
    if row.cells["tiled"] == "no":
        return "no"
    if family.unfit_for_a_folder:
        return f"not tried: {family.unfit_for_a_folder}"
    pipeline = family.make()
    pipeline.save_pretrained(folder / "model")
    pipeline.set_progress_bar_config(disable=True)
    executor, request = _canvas(pipeline, family, folder, devices=2, model=str(folder / "model"))
    try:
        _made(executor, request)
    finally:
        executor.close()
    return "yes"


def _canvas(pipeline: Any, family: Family, folder: Path, **tiling: Any) -> tuple[Executor, Request]:
    """An executor that tiles, and a request of four times the size that its model is said to be trained for."""
    use = image_use(pipeline)
    unit = max(family.unit, geometry_of_pipeline(pipeline, "mine").size_multiple, 8)
    rule = {"image": "condition" if use == "required" else "refine"}
    executor = executor_of(pipeline, (4 * unit, 4 * unit), rule, images=folder, **tiling)
    executor.images = folder
    request = family.requests(pipeline)[0]
    size = {"height": 8 * unit, "width": 8 * unit, "steps": 3, "guidance_scale": 3.0}
    return executor, Request(**{**_fields(request), **size})


def _made(executor: Executor, request: Request) -> None:
    upscaled(executor, request)
    refine(executor, request)
    decoded(executor, request)


def _cached(row: Row, family: Family, folder: Path) -> str:
    executor = Executor(family.pipeline(), "packed", FixedInterval(2, 1), images=folder)
    requests = [Request(**{**_fields(r), "steps": 3}) for r in family.requests(executor.pipeline)[:2]]
    reused = 0
    for stage, steps in (("encode", 1), ("denoise", 3)):
        outcome = executor.execute(stage, requests, steps)
        for reason in (outcome.failed or {}).values():
            raise BadInput(reason)
        reused += outcome.reused
    if reused:
        return "yes"
    row.reasons["cached"] = _unpacked(executor) or "every block is computed at every step"
    return "no"


_ATTEMPTS: dict[str, Callable[[Row, Family, Path], str]] = {
    "whole": _whole,
    "packed": _packed,
    "tiled": _tiled,
    "cached": _cached,
    "several devices": _several_devices,
}


def document(rows: list[Row]) -> str:
    """The whole page."""
    numbers: dict[str, int] = {}
    names = ("family", "pipeline", *WAYS)
    lines = [f"| {' | '.join(names)} |", "|" + " --- |" * len(names), *(row.line(numbers) for row in rows)]
    reasons = [f"{number}. {reason}" for reason, number in numbers.items()]
    return HEADER + "\n".join(lines) + "\n\nWhy not, in the executor's words:\n\n" + "\n".join(reasons) + "\n"


def row_of(name: str, ways: Sequence[str] = WAYS) -> Row:
    """The row of a family, tried now."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return tried(FAMILIES[name], name, Path(folder), ways)


def main() -> None:
    """Try all families and write the page, or print the rows of some."""
    parser = argparse.ArgumentParser(prog="python -m tools.families", description="Try what works for which family.")
    parser.add_argument("family", nargs="*", help="; ".join(FAMILIES))
    names = parser.parse_args().family
    if unknown := [name for name in names if name not in FAMILIES]:
        parser.error(f"unknown family {unknown[0]!r}; known: {'; '.join(FAMILIES)}")
    rows = []
    for name in names or FAMILIES:
        rows.append(row_of(name))
        print(rows[-1].text, flush=True)
    if not names:
        TABLE.write_text(document(rows))


if __name__ == "__main__":
    main()
