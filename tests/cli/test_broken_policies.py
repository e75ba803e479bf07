"""Whatever is wrong with a user's policy ends every command in one line that names it, and with exit code 2.

What is wrong with policies of each kind stands in `test_broken_scheduling` and `test_broken_kinds`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from predictors.profile import Profile
from tests.cli.broken import line_of, line_with, policy_file
from tests.cli.run_command import either, ends_with, refused
from tests.tilecast.studies.kept_points import kept_points
from tilecast.scenario import parse_setting


@pytest.mark.parametrize(
    "fault",
    ["1 / 0", "raise SystemExit(0)", "return 3", "replica.launch = None", "raise Opaque", "raise OpaqueExit(0)"],
)
def test_a_command_ends_with_exit_code_2_and_no_output(policy_folder: Path, tmp_path: Path, fault: str) -> None:
    scheduler = ("--scheduler", policy_file(tmp_path, "Step", f"def plan(self, replica, now):\n        {fault}"))
    line = refused("simulate", policy_folder / "scheduling.toml", *scheduler, "-o", tmp_path / "run")
    assert line.startswith("error: policy Bad")
    assert not (tmp_path / "run").exists()


def test_ctrl_c_in_a_hook_is_not_the_policys_doing(policy_folder: Path, tmp_path: Path) -> None:
    kill = "def plan(self, replica, now): __import__('os').kill(__import__('os').getpid(), 2)"
    mine = ("--scheduler", policy_file(tmp_path, "Step", kill), "-o", tmp_path / "run")
    assert "interrupted" in ends_with(130, "simulate", policy_folder / "scheduling.toml", *mine)


REPLAYED = {
    "def plan(self, replica, now): 1 / 0  # here": "plan raised ZeroDivisionError at .*mine.py:",
    "def plan(self, replica, now): raise Opaque": "plan raised Opaque",
    "def plan(self, replica, now): return Decision((object.__new__(type(self.oldest(replica))),), 1)": "plan raised",
    "def returned(self, job, now): raise SystemExit(0)": "returned raised SystemExit",
    "def arrived(self, job, now): object.__setattr__(job, 'request', None)": "has written to request .*: its request",
    "def ended(self, job, now): object.__setattr__(job, 'finish_s', 0.0)": "has written to request .*: its finish_s is",
    "def wakeup(self, now): return Evil()": "wakeup raised ZeroDivisionError",
    "def recalls(self, now): return Exits([99])": "recalls 99, which is the id of no launch",
    "plan = Evil()": "has a Evil in the place of its plan",
}
REPLAYED_CACHING = {
    "def decide(self, signals): return Evil()": "must answer an array of one True or False",
    "def decide(self, signals): raise OpaqueExit": "decide raised OpaqueExit",
}


@pytest.mark.parametrize(
    ("kind", "base", "body", "says"),
    [
        *(("scheduling", "Step", *row) for row in REPLAYED.items()),
        *(("caching", "CachingPolicy", *row) for row in REPLAYED_CACHING.items()),
    ],
)
def test_so_does_a_replay(policy_folder: Path, tmp_path: Path, kind: str, base: str, body: str, says: str) -> None:
    pytest.importorskip("torch")
    bad = f'policies.{kind}="{policy_file(tmp_path, base, body)}"'
    some = ("--set", "trace.limit=2", "--set", "cluster.threads=1", "--set", "cluster.replicas=1", "--speedup", 100)
    toml = policy_folder / f"{kind}.toml"
    plain = tmp_path / "plain.toml"
    plain.write_text(
        toml.read_text()
        .partition("[faults]")[0]
        .replace('"trace', f'"{policy_folder}/trace')
        .replace('"profile.', f'"{policy_folder}/profile.')
    )
    line = refused("replay", plain, "--set", bad, *some, "-o", tmp_path / "run")
    assert re.search(f"error: policy Bad:? {says}", line), line


@pytest.mark.parametrize(("workers", "fault"), [(1, "return 'mine'"), (2, "raise Opaque  # here")])
def test_a_study_ends_with_the_line_and_keeps_no_such_answer(
    policy_folder: Path, tmp_path: Path, workers: int, fault: str
) -> None:
    (tmp_path / "grid.toml").write_text("[grid]\nseed = [1, 2]\n")
    (tmp_path / "plan.toml").write_text(
        f'model = "tiny-image"\ntrace.path = "{policy_folder}/trace.parquet"\npredictor.latency_model = "linear"\n'
        "[slo]\nscale = 9.0\n[plan]\nattainment = 0.5\nseeds = 2\nmax_seeds = 2\nrequests = 20\nmax_requests = 20\n"
        f'hardware = [{{ name = "one", profile = "{policy_folder}/profile.parquet", price_per_hour = 1, '
        "max_replicas = 2 }]\n"
    )
    scheduler = policy_file(tmp_path, "Step", f"def plan(self, replica, now):\n        {fault}")
    of_sweep = (policy_folder / "scheduling.toml", "--grid", tmp_path / "grid.toml", "--scheduler", scheduler)
    of_plan = (tmp_path / "plan.toml", "--policies", scheduler)
    for verb, given in (("sweep", of_sweep), ("plan", of_plan)):
        line = refused(verb, *given, "--workers", workers, "-o", tmp_path / verb)
        assert re.search("policy Bad:? (plan raised Opaque at .*mine.py:[0-9]+|answers plan with 'mine')", line), line
        assert (tmp_path / verb / "points.sqlite").is_file()
        assert kept_points(tmp_path / verb) == []


@pytest.mark.parametrize("measured", [("denoise",), ("encode", "denoise")])
def test_an_unmeasured_stage_is_seen_by_policies_all_the_same(
    policy_folder: Path, tmp_path: Path, measured: tuple[str, ...]
) -> None:
    """A simulation and a replay show a policy the same stages, whatever the profile has of them."""
    pytest.importorskip("torch")
    profile = Profile.load(policy_folder / "profile.parquet")
    Profile(profile.frame[profile.frame["stage"].isin(measured)]).save(tmp_path / "profile.parquet")
    see = "def arrived(self, job, now): print(job.recipe, file=open(__file__ + '.seen', 'a'))"
    policy = policy_file(tmp_path, "Step", see)
    (tmp_path / "scenario.toml").write_text(
        f'model = "tiny-image"\n[predictor]\nprofile = "profile.parquet"\nlatency_model = "linear"\n'
        f'[trace]\npath = "{policy_folder}/trace.parquet"\nlimit = 2\n[cluster]\nthreads = 1\n'
    )
    seen = {}
    for verb, more in (("simulate", ()), ("replay", ("--speedup", 100))):
        printed = either(verb, tmp_path / "scenario.toml", "--scheduler", policy, *more, "-o", tmp_path / verb, "--all")
        assert "not in the profile, taken as 0 s" in " ".join(printed.split())
        seen[verb] = (tmp_path / "mine.py.seen").read_text().splitlines()
        (tmp_path / "mine.py.seen").unlink()
    assert seen["replay"] == seen["simulate"] == 2 * ["(('encode', 1), ('denoise', 3), ('decode', 1))"]


FILES: dict[str, tuple[str, str]] = {
    "import sys; sys.exit(0)": ("SystemExit", "mine.py:1"),
    "1 / 0": ("ZeroDivisionError", "mine.py:1"),
    "class Mine(": ("SyntaxError", "mine.py:1"),
    "def __getattr__(name): 1 / 0": ("ZeroDivisionError", "mine.py:1"),
    "def __getattr__(name): raise SystemExit(0)": ("SystemExit", "mine.py:1"),
    "class E(BaseException):\n __class__ = __traceback__ = property(lambda self: 1 / 0)\nraise E": ("E", "mine.py:3"),
    "class E:\n __class__ = property(lambda self: 1 / 0)\nMine = E()": ("Mine", "has no class"),
    "\0": ("Error", "mine.py"),
    "import nothing_of_this_name": ("ModuleNotFoundError", "mine.py:1"),
    "class Mine: pass": ("Mine", "is no scheduling policy; derive it from SchedulingPolicy"),
    "Mine = 3": ("Mine", "has no class"),
    "from policies.caching import ComputeAll as Mine": ("Mine", "is no scheduling policy"),
    "from policies.contract import SchedulingPolicy as Mine": ("SchedulingPolicy", "has no plan"),
    "import abc, policies.scheduling as s\nclass Mine(s.FCFS, abc.ABC):\n @abc.abstractmethod\n def f(self): 0": (
        "Mine",
        "is abstract: it has no f",
    ),
}


@pytest.mark.parametrize("text", FILES)
def test_a_file_without_a_policy_is_said_to_be_one(policy_folder: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "mine.py").write_text(text)
    line = line_with(policy_folder, "scheduling", f"{tmp_path}/mine.py:Mine")
    assert all(part in line for part in FILES[text]), line


@pytest.mark.parametrize(
    "body",
    [
        "while True: pass",
        "time.sleep(99)",
        "while True:\n            try: time.sleep(0.01)\n            except Exception: 0",
    ],
)
def test_a_hook_that_does_not_answer_is_ended(
    policy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str
) -> None:
    monkeypatch.setattr("policies.watchdog._EVERY_S", 0.05)
    policy = policy_file(tmp_path, "Step", f"def arrived(self, job, now):\n        {body}")
    line = line_with(policy_folder, "scheduling", policy, **{"policies.call_limit_s": 0.5})
    assert re.search(r"policy Bad: arrived has not answered for 0.5 s at .*mine.py:\d+", line), line


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("def recalls(self, now): return Endless()", "recalls has not answered"),
        ("def __new__(cls):\n        while True: pass", "its constructor has not answered"),
        ("def reset(self, cluster): raise Slow", "reset raised Slow.*its message cannot be read"),
    ],
)
def test_nor_may_it_take_for_ever_to_look_at_an_answer(
    policy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, says: str
) -> None:
    monkeypatch.setattr("policies.watchdog._EVERY_S", 0.05)
    slow = "class Slow(Exception):\n    def __str__(self):\n        while True: pass"
    policy = policy_file(tmp_path, "Step", body, before=slow)
    line = line_with(policy_folder, "scheduling", policy, **{"policies.call_limit_s": 0.5})
    assert re.search(f"policy Bad: {says}", line), line


PARAMETERS: list[tuple[str, str, Any, str]] = [
    ("scheduling.same-size-dynamic", "max_batch", '"x"', "a whole number of 1 to"),
    ("scheduling.same-size-continuous", "max_batch", "2.5", "a whole number of 1 to"),
    ("scheduling.edf", "max_batch", "true", "a whole number of 1 to"),
    ("scheduling.least-slack", "max_batch", "0", "a whole number of 1 to"),
    ("scheduling.srpt", "max_batch", "-1", "a whole number of 1 to"),
    ("scheduling.clockwork", "max_batch", "1e300", "a whole number of 1 to"),
    ("scheduling.nirvana", "max_batch", "[1]", "a whole number of 1 to"),
    ("scheduling.mixed-fcfs", "max_batch", "nan", "a whole number of 1 to"),
    ("scheduling.lookahead", "margin", "nan", "a number of 0 to"),
    ("scheduling.lookahead", "drop_late", '"yes"', "a valid boolean"),
    ("scheduling.patchedserve", "relaxed_slack", '"nearest"', "a number of 0 to"),
    ("scheduling.rounds", "degrees", '[1, "x"]', "a whole number of 1 to"),
    ("scheduling.rounds", "degrees", "[]", "expected at least one width"),
    ("scheduling.same-size-dynamic", "window_s", "-1.0", "a number of 0 to"),
    ("caching.interval", "every", "1", "a whole number of 2 to"),
    ("caching.threshold", "threshold", "inf", "a number of 0 to"),
    ("caching.first-block", "warmup", '"x"', "a whole number of 1 to"),
    ("placement.cache-guided", "tolerance", '"x"', "a number of 0 to"),
    ("placement.planned", "bytes_per_s", "0", "a number above 0"),
    ("routing.affinity", "load_weight", "true", "a number of 0 to"),
    ("weights.lfu", "half_life_s", "0", "a number of 0.001 to"),
    ("weights.pin", "checkpoints", "[1]", "a valid string"),
    ("weights.pin", "checkpoints", '"a"', "a valid "),
]


@pytest.mark.parametrize(("policy", "key", "value", "wanted"), PARAMETERS)
def test_a_parameter_is_of_the_type_that_the_policy_names(
    policy_folder: Path, policy: str, key: str, value: str, wanted: str
) -> None:
    kind, name = policy.split(".")
    at = f"policies.{kind}"
    line = line_of(policy_folder, kind, **{at: {"name": name}}, **dict([parse_setting(f"{at}.{key}={value}")]))
    assert f"{kind} policy {name!r}: {key}" in line
    assert wanted in line


def test_parameters_of_a_users_class_are_checked_too(policy_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import policies.scheduling as s\n"
        "class Mine(s.FCFS):\n"
        "    def __init__(self, depth: int = 1): self.depth = depth\n"
    )
    mine = {"policies.scheduling": {"name": f"{tmp_path}/mine.py:Mine", "depth": "deep"}}
    assert "depth is 'deep', expected a valid integer" in line_of(policy_folder, "scheduling", **mine)
