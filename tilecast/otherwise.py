"""How long the requests of a run would have waited, had there been one more replica, or half as many requests."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from reports.formatting import format_value
from reports.progress import Tell, silent
from tilecast.results import Result
from tilecast.running import simulate
from tilecast.scenario import Scenario
from traces.errors import BadInput

HALF = 0.5


class Otherwise(NamedTuple):
    """A run that was simulated.

    Attributes:
        how: what was otherwise.
        result: what came of it.
    """

    how: str
    result: Result

    def __str__(self) -> str:
        attainment = format_value(self.result.summary()["slo_attainment"], "%")
        return f"{format_value(self.result.waiting.mean_s, 's')} {self.how} ({attainment} in time)"


def otherwise(run: Result, base: Path | str, progress: Tell = silent) -> list[Otherwise]:
    """The scenario of a run simulated anew: as it was, with one more replica, and with half of the requests a second.

    Of several pools it is one more replica of that in which requests waited longest.

    Args:
        run: its log says what the scenario was.
        base: the folder of the scenario's file, in which the files lie that it names.
        progress: told how many requests have been submitted, now and then.

    Raises:
        BadInput: the log does not say what was run, or a file that it names is not there.
    """
    recorded = run.info.get("scenario")
    if not isinstance(recorded, dict):
        raise BadInput(f"{run.log.path}: the log does not say what scenario was run, so none can be simulated anew")
    scenario = Scenario(**recorded, base=Path(base))
    if scenario.pool:
        name = str(run.waiting.by("pool").index[0])
        [pool] = [pool for pool in scenario.pool if pool.name == name]
        more: dict[str, Any] = {f"pool.{name}.replicas": pool.replicas + 1}
        how = f"with one more replica of {name}"
    else:
        more, how = {"cluster.replicas": scenario.cluster.replicas + 1}, "with one more replica"
    asked: dict[str, dict[str, Any]] = {
        "with the scenario unchanged": {},
        how: more,
        "with half the requests a second": {"trace.rate_scale": HALF * scenario.trace.rate_scale},
    }
    return [Otherwise(how, simulate(scenario.replaced(given), progress=progress)) for how, given in asked.items()]
