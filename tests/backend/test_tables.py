"""Tables of positions are made once, and every step has those that it would make itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from backend.coroutine import DenoiserCall  # noqa: E402
from backend.kernels.graphs import Recorder  # noqa: E402
from backend.packed import Blocks, tables  # noqa: E402
from backend.recent import Recent  # noqa: E402
from tests.backend.test_any_transformer import mix, parts_of  # noqa: E402
from tests.backend.tiny_transformers import FAMILIES  # noqa: E402

torch.set_num_threads(1)
ALONE = ("flux.2 dev", "chroma", "ovis-image", "cogview 4", "glm-image", "hunyuan video 1.5", "skyreels 2")


def calls_at(name: str, time: float) -> list[dict[str, Any]]:
    """Three calls of different sizes and texts; only what is denoised and the time differ from another time's."""
    return [{**FAMILIES[name].call(one._replace(rows=1, time=time)), "return_dict": False} for one in mix(0)[:3]]


def counted(blocks: Blocks) -> Counter[str]:
    """How often layers whose tables are kept are run."""
    seen: Counter[str] = Counter()

    def watch(name: str, forward: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            seen[name] += 1
            return forward(*args, **kwargs)

        return run

    for layer in blocks.tables.layers:
        layer.forward = watch(type(layer).__name__, layer.forward)
    return seen


@torch.no_grad()
def difference(blocks: Blocks, model: Any, calls: list[dict[str, Any]], step: int) -> float:
    """Largest difference of any output from the model's own, in standard deviations."""
    alone = [parts_of(model(**call)) for call in calls]
    together = blocks.run_in_step([DenoiserCall((), call, step=step) for call in calls])
    pairs = [
        (a, b) for mine, its in zip(alone, together, strict=True) for a, b in zip(mine, parts_of(its), strict=True)
    ]
    return max(float((a - b).abs().max() / a.std()) for a, b in pairs)


@pytest.mark.parametrize("name", ALONE)
def test_later_steps_make_no_tables(name: str) -> None:
    model = FAMILIES[name].model()
    blocks = Blocks(model)
    for step in range(4):
        if step == 2:
            seen = counted(blocks)
        assert difference(blocks, model, calls_at(name, 0.9 - 0.2 * step), step) <= 1e-12
    made = sum(seen.values())  # by the model alone
    assert blocks.tables.layers
    assert made
    blocks.run_in_step([DenoiserCall((), call, step=4) for call in calls_at(name, 0.1)])
    assert sum(seen.values()) == made


class PosEmbed(torch.nn.Module):
    """Named as a table of positions is, of whatever numbers it is given."""

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return ids.cumsum(0).sin()


class Model(torch.nn.Module):
    """Its tables are of its positions, or, ``moving``, of the time too."""

    def __init__(self, moving: bool = False) -> None:
        super().__init__()
        self.pos_embed = PosEmbed()
        self.moving = moving

    def forward(self, hidden_states: torch.Tensor, img_ids: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        ids = img_ids + timestep if self.moving else img_ids.clone()
        return hidden_states + self.pos_embed(ids) + self.pos_embed(2 * ids)


def steps_of(model: Model, count: int = 4) -> tuple[Blocks, list[float], int]:
    """Differences from the model alone in each step, and how often it made tables in the last one."""
    blocks, ids = Blocks(model), [torch.rand(tokens, 2) for tokens in (3, 4)]
    worst = []
    for step in range(count):
        seen = counted(blocks) if step == count - 1 else Counter()
        calls = [
            {"hidden_states": torch.rand(1, len(one), 2), "img_ids": one, "timestep": torch.tensor(step / 7)}
            for one in ids
        ]
        given = blocks.run_in_step([DenoiserCall((), call, step=step) for call in calls])
        made = seen.total()
        worst.append(max(float((model(**call) - out).abs().max()) for call, out in zip(calls, given, strict=True)))
    return blocks, worst, made


def test_tables_of_one_shape_and_other_numbers_are_told_apart() -> None:
    _, worst, made = steps_of(Model())
    assert worst == [0.0] * 4
    assert made == 0


def test_a_table_that_changes_with_the_time_is_found_out() -> None:
    _, worst, made = steps_of(Model(moving=True))
    assert worst == [0.0] * 4
    assert made == 4


def test_on_a_device_numbers_are_compared_in_three_steps_and_then_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bool] = []
    same = torch.equal
    monkeypatch.setattr(torch, "equal", lambda a, b: compared.append(True) or same(a, b))
    monkeypatch.setattr(tables, "_waits", lambda numbers: True)
    for count in (3, 6):
        compared.clear()
        _, worst, _ = steps_of(Model(), count)
        assert worst == [0.0] * count
        assert len(compared) == 2 + 2 * 4  # what matters, once for each of two shapes; four tables, in two steps more
    assert steps_of(Model(moving=True))[1] == [0.0] * 4


def test_a_table_that_was_written_to_is_made_anew() -> None:
    model = Model()
    blocks, worst, _ = steps_of(model)
    assert worst[-1] == 0.0
    for table, _ in blocks.tables._kept._kept.values():
        table.made.add_(1)
    call = {"hidden_states": torch.zeros(1, 3, 2), "img_ids": torch.rand(3, 2), "timestep": torch.tensor(0.0)}
    (given,) = blocks.run_in_step([DenoiserCall((), call)])
    assert torch.equal(given, model(**call))


def test_tables_are_freed_with_recordings() -> None:
    recorder = Recorder()
    model = FAMILIES["ovis-image"].model()
    blocks = Blocks(model, recorder=recorder)
    for step in range(2):
        difference(blocks, model, calls_at("ovis-image", 0.5), step)
    assert blocks.tables._kept.held_bytes > 0
    assert blocks.trust.packed_tables._kept.held_bytes > 0
    recorder.clear()
    assert blocks.tables._kept.held_bytes == blocks.trust.packed_tables._kept.held_bytes == 0
    assert difference(blocks, model, calls_at("ovis-image", 0.5), 2) <= 1e-12


def test_what_is_kept_has_a_limit_in_number_and_bytes() -> None:
    kept: Recent[str, int] = Recent(3, limit_bytes=10)
    for name, size in (("a", 4), ("b", 4), ("c", 4)):
        kept.keep(name, size, size)
    assert kept.get("a") is None
    assert kept.held_bytes == 8
    kept.keep("d", 11, 11)
    assert [kept.get(name) for name in "bcd"] == [4, 4, None]
    kept.keep("b", 6, 6)
    assert kept.held_bytes == 10
    for name in "efg":
        kept.keep(name, 0)
    assert (len(kept), kept.held_bytes) == (3, 0)
