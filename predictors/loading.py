"""What weights take: memory on a device, and time to get there.

A checkpoint comes onto a replica from disk, or faster from the memory of its host when that still holds it. The host
keeps what was loaded last, in the replica's own process, so that a replica that fails loses that, too.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from predictors.costs import Batch, CostLayer, CostModel
from traces.composition import Composition
from traces.errors import BadInput
from traces.request import Request
from traces.stages import STAGES, Recipe

_ROUNDING_GB = 1e-9


@dataclass(frozen=True)
class Weights:
    """Sizes and rates of one cluster; all replicas are alike. GB are 10^9 bytes.

    Attributes:
        memory_gb: device memory that weights may take: what is left beside the working set of a batch.
        weights_gb: a checkpoint.
        host_gb: host memory in which a replica keeps weights; 0: none.
        disk_gb_per_s: from disk onto the device.
        host_gb_per_s: from host memory onto the device.
        load_s: seconds that any load takes beside that.
        of: checkpoints that have another size.
        host_load_s: seconds that a load from host memory takes beside that; None: as any.

    Raises:
        BadInput: a size or a rate that cannot be, or a checkpoint larger than the memory.
    """

    memory_gb: float
    weights_gb: float
    host_gb: float = 0.0
    disk_gb_per_s: float = 2.0
    host_gb_per_s: float = 20.0
    load_s: float = 0.0
    of: Mapping[str, float] = field(default_factory=dict)
    host_load_s: float | None = None

    def __post_init__(self) -> None:
        for name in ("memory_gb", "weights_gb", "disk_gb_per_s", "host_gb_per_s"):
            if not getattr(self, name) > 0:
                raise BadInput(f"weights.{name} is {getattr(self, name)}, expected a number above 0")
        sizes = {**{f"checkpoint {c!r}": gb for c, gb in self.of.items()}, "weights.weights_gb": self.weights_gb}
        for what, gb in sizes.items():
            if not 0 < gb <= self.memory_gb:
                raise BadInput(f"{what} is {gb} GB, expected more than 0 and at most memory_gb, {self.memory_gb}")

    def gb(self, checkpoint: str) -> float:
        """The size of a checkpoint."""
        return self.of.get(checkpoint, self.weights_gb)

    def disk_s(self, checkpoint: str) -> float:
        """Seconds of a load from disk."""
        return self.load_s + self.gb(checkpoint) / self.disk_gb_per_s

    def host_s(self, checkpoint: str) -> float:
        """Seconds of a load from host memory."""
        beside_s = self.load_s if self.host_load_s is None else self.host_load_s
        return beside_s + self.gb(checkpoint) / self.host_gb_per_s

    def fit(self, checkpoints: Sequence[str]) -> bool:
        """Whether these lie on a device together."""
        return sum([self.gb(checkpoint) for checkpoint in checkpoints]) <= self.memory_gb + _ROUNDING_GB

    def most_fitting(self, checkpoints: Iterable[str]) -> int:
        """How many of these lie on a device together at most, at least one."""
        smallest = sorted(checkpoints, key=self.gb)
        return max([count for count in range(1, len(smallest) + 1) if self.fit(smallest[:count])], default=1)


class LoadRate(NamedTuple):
    """What a load takes: ``s`` seconds, and its bytes at so many GB a second."""

    gb_per_s: float
    s: float = 0.0

    @classmethod
    def fitted(cls, parts: Sequence[tuple[float, float]], gb: float, seconds: float) -> LoadRate:
        """The rate of loads that were measured.

        Args:
            parts: (GB, seconds) of single components, which say what a byte more takes.
            gb: of a whole checkpoint.
            seconds: of loading it, which is met.
        """
        mean_gb, mean_s = (sum(each) / len(parts) for each in zip(*parts, strict=True))
        spread = sum([(size - mean_gb) ** 2 for size, _ in parts])
        along = sum([(size - mean_gb) * (took_s - mean_s) for size, took_s in parts])
        slope = along / spread if spread > 0 else 0.0
        if not 0 < slope * gb < seconds:
            slope = seconds / gb
        return cls(1.0 / slope, max(0.0, seconds - slope * gb))


class LoadRates(NamedTuple):
    """What loads take from disk, and from host memory, as they were measured."""

    disk: LoadRate
    host: LoadRate

    @property
    def text(self) -> str:
        """As the metadata of a profile has it."""
        return json.dumps({name: rate._asdict() for name, rate in self._asdict().items()})

    @classmethod
    def of(cls, text: str) -> LoadRates:
        """What such metadata says.

        Raises:
            BadInput: it says nothing of the kind.
        """
        try:
            said = {
                name: LoadRate(**{key: float(value) for key, value in of.items()})
                for name, of in json.loads(text).items()
            }
            rates = cls(**said)
        except (ValueError, TypeError, AttributeError) as error:
            raise BadInput(f"the profile's loads are {text[:80]!r}, expected rates from disk and host") from error
        if not all(0 < rate.gb_per_s < math.inf and 0 <= rate.s < math.inf for rate in rates):
            raise BadInput(f"the profile's loads are {text[:80]!r}, expected rates above 0")
        return rates


class LoadTimes:
    """How long loads take in one run; remembers what each replica's host holds, the latest last.

    Args:
        weights: weights of all replicas, or of each.
        loaded: what lies on each replica from the beginning, and so in its host's memory, too.

    Attributes:
        of: weights of each replica.
    """

    def __init__(self, weights: Weights | Sequence[Weights], loaded: Sequence[Sequence[str]]) -> None:
        self.of = [weights] * len(loaded) if isinstance(weights, Weights) else list(weights)
        self._hosts: list[dict[str, None]] = [{} for _ in loaded]
        self._loaded = loaded
        for replica in range(len(loaded)):
            self.came(replica)

    def expected(self, replica: int, checkpoint: str) -> float:
        """Seconds that a load would take now."""
        weights = self.of[replica]
        return weights.host_s(checkpoint) if checkpoint in self._hosts[replica] else weights.disk_s(checkpoint)

    def held(self, replica: int) -> tuple[str, ...]:
        """The checkpoints that a replica's host keeps, the latest last."""
        return tuple(self._hosts[replica])

    def seconds(self, replica: int, checkpoint: str) -> float:
        """Seconds of a load that begins now."""
        seconds = self.expected(replica, checkpoint)
        self._keep(replica, checkpoint)
        return seconds

    def lost(self, replica: int) -> None:
        """A replica failed, and its process with it: its host's memory holds nothing."""
        self._hosts[replica].clear()

    def came(self, replica: int) -> None:
        """A replica has come with what lies there from the beginning."""
        for checkpoint in self._loaded[replica]:
            self._keep(replica, checkpoint)

    def _keep(self, replica: int, checkpoint: str) -> None:
        host, weights = self._hosts[replica], self.of[replica]
        host.pop(checkpoint, None)
        if weights.gb(checkpoint) > weights.host_gb:
            return
        host[checkpoint] = None
        while sum([weights.gb(held) for held in host]) > weights.host_gb + _ROUNDING_GB:
            del host[next(iter(host))]


class AdapterCosts(CostLayer):
    """Costs of a model whose requests come with adapters: a step of the stage ``adapt`` puts on one of them.

    Args:
        table: what all other stages cost.
        adapter_s: seconds an adapter.
    """

    def __init__(self, table: CostModel, adapter_s: float) -> None:
        super().__init__(table)
        self.adapter_s = adapter_s

    def step_s(self, stage: str, batch: Batch) -> float:
        """Seconds of one step."""
        return self.adapter_s if STAGES[stage].weights else self.table.step_s(stage, batch)

    def recipe(self, request: Request) -> Recipe:
        """(Stage, steps) of a request: its adapters, and what the table knows."""
        return with_adapters(request, self.table.recipe(request))

    def extrapolation(self, stage: str, composition: Composition) -> float:
        """See `CostModel.extrapolation`; adapters take what they are said to."""
        return 1.0 if STAGES[stage].weights else self.table.extrapolation(stage, composition)

    def scaled(self, factor: float) -> AdapterCosts:
        """The same with every second multiplied."""
        return AdapterCosts(self.table.scaled(factor), factor * self.adapter_s)


def with_adapters(request: Request, recipe: Recipe) -> Recipe:
    """The recipe of a request that puts on its adapters first."""
    return (("adapt", len(request.adapter_set)), *recipe) if request.adapters else recipe
