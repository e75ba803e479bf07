"""A rank whose pipeline is made where it is, so that one set of processes tries one family after another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from backend.devices.rank import PipelineRank
from backend.devices.server import DeviceServer
from backend.packed.shard_attention import ShardAttention
from backend.ranks.group import Group
from tests.backend import tiny_pipelines
from tests.backend.families import FAMILIES

TARGET = "tests.backend.family_rank:FamilyRank"


def pipeline_of(name: str) -> Any:
    """A small pipeline in float64, with the same weights wherever it is made."""
    return FAMILIES[name].pipeline() if name in FAMILIES else getattr(tiny_pipelines, name)().to(torch.float64)


def _failing(*_: Any, **__: Any) -> torch.Tensor:
    raise ValueError("as the test wants")


class FamilyRank:
    """Obeys the first rank, which also says which pipeline is next."""

    def __init__(self, device: str, model: str, dtype: str, **settings: Any) -> None:
        self._rank: PipelineRank | None = None
        self.next(model, **settings)

    def next(self, family: str, mode: str = "", **settings: Any) -> None:
        """The pipeline that it computes with from now on."""
        self._rank = PipelineRank(pipeline_of(family), mode, **settings) if family else None

    def __call__(self, group: Group) -> None:
        while (order := group.broadcast_object(patient=True))["verb"] != "end":
            if order["verb"] == "family":
                self.next(order["family"], **order["settings"])
            elif order["verb"] == "fail":
                ShardAttention._by_heads = _failing  # type: ignore[method-assign]
            elif self._rank is not None:
                self._rank.obey(order, group)


class FamilyServer(DeviceServer):
    """A device that serves a small pipeline, which it makes where it is."""

    def __init__(
        self, device: str, model: str, dtype: str, address: str, stages: Sequence[str] = (), **settings: Any
    ) -> None:
        self._address = address
        self._device = torch.device(device)
        self._prepare(pipeline_of(model), settings)
