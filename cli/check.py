"""``tilecast check``: whether a policy keeps the contract of its kind."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from reports.console import say
from traces.limits import SEED


def check(
    policy: Annotated[str, typer.Argument(help="The policy: file.py:Class, or the name of one that ships.")],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Make it with this parameter, as name=value; may be given several times."),
    ] = None,
    seed: Annotated[int, SEED, typer.Option(help="Try it on requests drawn from this seed.")] = 0,
) -> None:
    """Hold a policy of any kind to the contract: tilecast check my_policy.py:Mine.

    It is tried on small clusters, with failures, recalls and requests that leave: none is lost or run twice, the same
    seed decides alike, a quantum is a promise that planning anew would keep. Exit code 0: it keeps the contract; 2: it
    does not, and the line says which rule and where.
    """
    from tilecast.checking import check_policy_called
    from tilecast.scenario import parse_setting

    parameters: dict[str, Any] = {
        name: value for name, value in map(parse_setting, settings or []) if value is not None
    }
    for kind in check_policy_called(policy, parameters, seed=seed):
        say(f"{policy} keeps the contract of {kind} policies")
