"""``tilecast check``: any policy, ours or a user's, held to the contract of its kind."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.run_command import refused, run

MINE = '''
import tilecast as tc

class Oldest(tc.SchedulingPolicy):
    """The oldest of a queue, whole."""
    def __init__(self, most: int = 1) -> None:
        self.most = most
    def plan(self, replica, now):
        waiting = list(self.queue)[: self.most] if hasattr(self, "queue") else []
        return None

class Nothing:
    pass

class Late(tc.ScalingPolicy):
    """One replica too many for ever."""
    def replicas(self, pool, now):
        return pool.most + 1
'''


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("fcfs", ["scheduling"]),
        ("round-robin", ["routing", "placement"]),
        ("none", ["caching"]),
        ("lru", ["weights"]),
        ("fixed", ["scaling"]),
    ],
)
def test_a_policy_of_each_kind_is_held_to_its_contract(name: str, kinds: list[str]) -> None:
    said = run("check", name).splitlines()
    assert said == [f"{name} keeps the contract of {kind} policies" for kind in kinds]


def test_a_users_policy_is_found_by_its_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MINE, encoding="utf-8")
    assert "policy Oldest" in refused("check", "mine.py:Oldest", "--set", "most=2")
    assert "no parameter 'least'; it takes: most" in refused("check", "mine.py:Oldest", "--set", "least=2")
    assert "derive it from one of: SchedulingPolicy, RoutingPolicy" in refused("check", "mine.py:Nothing")
    assert "has no class 'oldest'; did you mean 'Oldest'?" in refused("check", "mine.py:oldest")
    assert "there is no file none.py" in refused("check", "none.py:Mine")
    assert "unknown policy 'FCSF'; did you mean 'fcfs'?" in refused("check", "FCSF")
    assert "Late" in refused("check", "mine.py:Late")


def test_the_example_keeps_the_contract() -> None:
    example = Path(__file__).parents[2] / "examples" / "my_policy.py"
    assert "keeps the contract of scheduling policies" in run("check", f"{example}:NewestFirst")
