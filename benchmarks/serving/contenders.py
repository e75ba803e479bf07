"""Who is compared: every scheduler with the batches and the drops of ours where it has the choice, and PatchedServe in
every reading of what its publication leaves open.
"""

from __future__ import annotations

import inspect
from typing import Any, NamedTuple

from policies.contract import SchedulingPolicy
from policies.scheduling import SCHEDULERS

OURS = "lookahead"

FAIR = {"max_batch": 12, "drop_late": True}
"""What every scheduler gets that takes it: what memory allows, and no time for what is lost."""


class Contender(NamedTuple):
    """A scheduler by its name, and what its constructor is given."""

    scheduler: str
    parameters: dict[str, Any]

    @classmethod
    def of(cls, scheduler: str, **parameters: Any) -> Contender:
        """A scheduler with these parameters, and what is fair."""
        takes = inspect.signature(SCHEDULERS[scheduler]).parameters
        return cls(scheduler, {name: value for name, value in FAIR.items() if name in takes} | parameters)

    def policy(self) -> SchedulingPolicy:
        """A fresh one."""
        return SCHEDULERS[self.scheduler](**self.parameters)


PUBLISHED = {
    "patchedserve": Contender.of("patchedserve"),
    "patchedserve-seconds": Contender.of("patchedserve", slack="seconds"),
    "patchedserve-relaxed": Contender.of("patchedserve", relaxed_slack=0.0),
    "patchedserve-relaxed-seconds": Contender.of("patchedserve", relaxed_slack=0.0, slack="seconds"),
}
"""PatchedServe without joins: slack in multiples of a request's latency as the text has it, or in seconds; relaxed with
half a latency (or second) of slack, or with any. Comparisons quote the strongest of these."""

CONTENDERS = {
    **{name: Contender.of(name) for name in SCHEDULERS if name not in PUBLISHED and name != OURS},
    **PUBLISHED,
    "patchedserve-joins-seconds": Contender.of("patchedserve-joins", slack="seconds"),
    f"{OURS}-fair": Contender.of(OURS, fair=0.9),
    OURS: Contender.of(OURS),
}
"""All, by the names in tables; ``lookahead-fair`` holds a floor under the attainment of every size."""
