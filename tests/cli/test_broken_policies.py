"""Whatever is wrong with a user's policy ends a run in one line that names it, and a command with exit code 2.

Each row of a table is a policy that is broken in one way. A line marked ``# here`` is named.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from policies.contract import PolicyError
from predictors.profile import Profile
from tests.cli.run_command import either, ends_with, refused, run
from tests.tilecast.studies.kept_points import kept_points
from tests.tilecast.test_setup import write_profile
from tilecast.scenario import load_scenario, parse_setting
from tilecast.setup import prepare
from tilecast.simulation import run_simulation
from traces.errors import BadInput
from traces.trace import Trace

HEAD = """
from policies.contract import Decision, Launch, Load, PolicyError, SchedulingPolicy
from policies.caching import CachingPolicy, FixedInterval
from policies.placement import PlacementPolicy
from policies.routing import RoutingPolicy
from policies.scheduling import FCFS
from policies.weights import LRU, WeightsPolicy
import abc, collections.abc, functools, itertools, math, sys, threading, time
import numpy as np

class Step(SchedulingPolicy):
    '''One step at a time of the oldest.'''
    def oldest(self, replica):
        return next(iter([*replica.resident.values(), *self.cluster.waiting.values()]))
    def plan(self, replica, now):
        return Decision((self.oldest(replica),), 1)

class Mute(Exception):
    def __str__(self): raise ValueError("no text")

class Odd(BaseException):
    pass

class Evil:
    '''No method of it can be called.'''
    def __getattribute__(self, *other): 1 / 0
    __eq__ = __lt__ = __gt__ = __le__ = __ge__ = __int__ = __float__ = __bool__ = __getattribute__
    __len__ = __iter__ = __str__ = __repr__ = __getattribute__

class Whole(Evil, int): pass
class Number(Evil, float): pass
class Text(Evil, str): pass
class Pair(Evil, tuple): pass
class Answer(Evil, Decision): pass
class Items(Evil, list):
    __getitem__ = __contains__ = Evil.__getattribute__
class Exits(list):
    __iter__ = __len__ = sys.exit
class Array(np.ndarray):
    dtype = shape = ndim = property(lambda self: 1 / 0)
    def __array_finalize__(self, other): pass
    __or__ = __iter__ = __len__ = tolist = copy = __getitem__ = lambda self, *other: 1 / 0
class Sly(str):
    __eq__ = lambda self, other: False
    __ne__ = lambda self, other: True
    __hash__ = lambda self: 1 / 0
class Twice(int):
    '''Another number every time.'''
    said = 0
    def __int__(self):
        self.said += 99
        return self.said - 99
class Endless(collections.abc.Sequence):
    __len__ = lambda self: 1
    def __getitem__(self, at):
        while True: pass

bad = property(lambda self: 1 / 0)
class Opaque(Exception):
    __traceback__ = __class__ = __cause__ = __context__ = __suppress_context__ = __notes__ = args = bad
    __str__ = __repr__ = __bool__ = __eq__ = __hash__ = lambda self, *other: 1 / 0
class OpaqueExit(SystemExit):
    __traceback__ = __class__ = __cause__ = __context__ = code = bad
    __str__ = __repr__ = lambda self: sys.exit(0)
class OpaqueError(PolicyError):
    __traceback__ = __class__ = __cause__ = __context__ = args = bad
    __str__ = __repr__ = lambda self: 1 / 0
class OpaqueFile(OSError):
    __traceback__ = __class__ = strerror = filename = errno = bad
    __str__ = lambda self: 1 / 0
class OpaqueSyntax(SyntaxError):
    __traceback__ = __class__ = lineno = filename = text = bad
    __str__ = lambda self: 1 / 0
class Posing(Exception):
    '''Says that it is an error of ours.'''
    __class__ = PolicyError
class Names(type):
    __name__ = property(lambda cls: 1 / 0)
class Nameless(Exception, metaclass=Names): pass
"""

SCHEDULING_HOOKS = {
    "reset": "cluster",
    "arrived": "job, now",
    "plan": "replica, now",
    "returned": "job, now",
    "ended": "job, now",
    "recalls": "now",
    "wakeup": "now",
    "replica_down": "replica, now",
    "replica_up": "replica, now",
}
FAULTS = {
    "1 / 0": "ZeroDivisionError",
    "{}['x']": "KeyError",
    "raise SystemExit(0)": "SystemExit",
    "raise Odd('odd')": "Odd",
}
FAULTS_OF_PLAN = {
    "sys.exit()": "SystemExit",
    "raise KeyboardInterrupt": "KeyboardInterrupt",
    "raise ValueError('two\\nlines \\x1b[31m')": r"ValueError.*two lines \\x1b",
    "raise Mute": "Mute.*its message cannot be read",
    "assert not replica": "AssertionError",
    "return self.plan(replica, now)": "RecursionError",
    "raise PolicyError('mine')": "PolicyError.*mine",
    "raise MemoryError": "MemoryError",
    "raise FileNotFoundError(2, 'nothing', 'x')": "FileNotFoundError",
    "raise StopIteration": "StopIteration",
    "raise Nameless": "Nameless",
    "return replica.costs.step_s('bake', next(iter(replica.queue.values())).kind.batch)": "unknown stage 'bake'",
    "return self.cluster.predictor": "a cluster has no predictor: ask a replica's costs",
    "return replica.nothing": "AttributeError",
    "open('nowhere/at/all')": "FileNotFoundError",
    "raise Opaque": "plan raised Opaque.*its message cannot be read",
    "raise OpaqueExit": "plan raised OpaqueExit.*its message cannot be read",
    "raise OpaqueError": "plan raised OpaqueError.*its message cannot be read",
    "raise OpaqueFile(2, 'nothing', 'x')": "plan raised OpaqueFile.*its message cannot be read",
    "raise OpaqueSyntax('x', ('a', 1, 2, 'b'))": "plan raised OpaqueSyntax.*its message cannot be read",
    "raise Posing('mine')": "plan raised Posing.*mine",
    "raise Opaque from Opaque()": "plan raised Opaque",
}
WRITES = (
    "job.steps_left = 0",
    "job.state = 'finished'",
    "job.finish_s = 0.0",
    "job.replica = 0",
    "job.first_start_s = 0.0",
    "job.stage_left = 1",
    "job.recipe = (('decode', 1),)",
    "job.steps_done = job.denoise_steps",
    "del job.request",
    "job.advance(3)",
    "job.request.steps = 1",
    "replica.launch = None",
    "replica.up = False",
    "replica.resident.clear()",
    "replica.loaded['x'] = None",
    "self.cluster.waiting.clear()",
    "self.cluster.jobs.popitem()",
    "self.cluster.replicas = ()",
    "replica.costs = None",
)
ANSWERS = {
    "'run it'": "answers plan with 'run it', expected a Decision or None",
    "(job, 1)": "expected a Decision",
    "job": "expected a Decision",
    "True": "expected a Decision",
    "[Decision((job,), 1)]": "expected a Decision",
    "Decision": "expected a Decision",
    "Decision()": "no jobs",
    "Decision(drop=[])": "no jobs",
    "Decision((job,), 1.5)": "steps = 1.5",
    "Decision((job,), 1.0)": "steps = 1.0",
    "Decision((job,), True)": "steps = True",
    "Decision((job,), '1')": "steps = '1'",
    "Decision((job,), None)": "steps = None",
    "Decision((job,), float('nan'))": "steps = nan",
    "Decision((job,), -1)": "asks for -1 steps",
    "Decision((job,), 0)": "asks for 0 steps",
    "Decision((job,), 10**30)": "asks for 1000000",
    "Decision((job, job), 1)": "twice",
    "Decision(job, 1)": "jobs = Job",
    "Decision('ab', 1)": "jobs = 'ab'",
    "Decision(('a',), 1)": "'a', which is no job",
    "Decision((None,), 1)": "None, which is no job",
    "Decision((job.request,), 1)": "is no job",
    "Decision((type(job)(job.request, 0),), 1)": "never submitted",
    "Decision(iter([job]), 1)": "jobs = ",
    "Decision(drop='ab')": "drop = 'ab'",
    "Decision(drop=(job,))": r"expected a \(job, reason\) pair",
    "Decision(drop=((job, ''),))": "without a reason",
    "Decision(drop=((job, 3),))": "without a reason",
    "Decision(drop=((job, 'a'), (job, 'b')))": "which is dropped",
    "Decision(drop=(('r', 'late'),))": r"expected a \(job, reason\) pair",
    "Decision(drop=np.array([1, 2]))": "drop = array",
    "Decision(load=Load('x'))": "loads 'x', but all requests of this run want the same weights",
    "Decision(load='x')": "load = 'x'",
    "Decision(load=Load(3))": "loads 3",
    "Decision(load=Load('x', 'y'))": "evicts 'y'",
    "Decision(load=Load('x', (), math.nan))": "take nan",
    "Decision((object.__new__(type(job)),), 1)": "plan raised AttributeError",
    "Decision((job, object.__new__(type(job))), 1)": "plan raised AttributeError",
    "Decision(drop=((object.__new__(type(job)), 'late'),))": "plan raised AttributeError",
    "Decision(drop=((object.__new__(type(job)), ''),))": "plan raised AttributeError",
    "Decision((object.__new__(type(replica)),), 1)": "is no job",
    "Decision((tuple.__new__(Launch, ()),), 1)": "a Launch, which is no job",
    "object.__new__(type(replica))": "expected a Decision",
    "tuple.__new__(Launch, (1,))": "expected a Decision",
    "tuple.__new__(Decision, ())": "plan raised TypeError",
    "tuple.__new__(Decision, (1, 2, 3, 4, 5, 6))": "plan raised TypeError",
    "tuple.__new__(Decision, ((), 0, (), tuple.__new__(Load, ('x',)), False))": "plan raised ValueError",
}
EVIL = (
    "Evil()",
    "Decision(Evil(), 1)",
    "Decision((Evil(),), 1)",
    "Decision((job,), Whole(1))",
    "Decision((job,), Number(1))",
    "Decision(drop=Evil())",
    "Decision(drop=((Evil(), 'late'),))",
    "Decision(drop=((job, Evil()),))",
    "Decision(load=Evil())",
    "Decision(load=Load(Evil()))",
)
"""Answers that are refused, whatever looking at them raises."""
TAKEN = (
    "Answer((job,), 1)",
    "Decision(Pair((job,)), 1)",
    "Decision(drop=Pair((Pair((job, 'late')),)))",
    "Decision(drop=((job, 'half \\ud800 of a character'),))",
    "Decision(drop=((job, Text('late')),))",
    "Decision(Items((job,)), 1)",
    "Decision(Exits((job,)), np.int64(1))",
    "Decision(drop=Items((Items((job, 'late')),)))",
)
"""Answers of classes of the user's own that are taken for what lies in them."""
WAKEUPS = ("math.inf", "math.nan", "-math.inf", "'soon'", "True", "1e300", "(now,)", "1j", "np.array([1.0, 2.0])")
RECALLS = (
    "Exits([9])",
    "Twice(9)",
    "None",
    "'ab'",
    "3",
    "[0.5]",
    "[True]",
    "[99]",
    "[-1]",
    "['a']",
    "{1: 2}",
    "itertools.count()",
    "[None]",
)
SHAPES = {
    "def plan(self): pass": r"has a plan that is not called as plan\(replica, now\)",
    "def arrived(self, job): pass": "has a arrived",
    "async def plan(self, replica, now): pass": "async",
    "def recalls(self, now): yield 0": "generator",
    "plan = None": "has None in the place of its plan",
    "wakeup = 3.0": "has 3.0 in the place of its wakeup",
    "def __init__(self): self.lock = threading.Lock()": "copying it",
    "def __deepcopy__(self, memo): return None": "copied into None",
    "def __deepcopy__(self, memo): 1 / 0  # here": "ZeroDivisionError",
    "def __init__(self): 1 / 0  # here": "its constructor raised ZeroDivisionError",
    "def __init__(self): sys.exit()  # here": "its constructor raised SystemExit",
    "def __init__(self, needed): pass": "needs the parameter 'needed'",
    "def __new__(cls): return 'text'": "class str",
    "@property\n    def plan(self): 1 / 0  # here": "ZeroDivisionError",
    "def reset(self, cluster): pass": "'cluster'",
    "wakeup = sys.exit": "wakeup raised SystemExit",
    "recalls = functools.partial(sys.exit)": "recalls raised SystemExit",
    "plan = Evil()": "has a Evil in the place of its plan",
    "def __init__(self): self.plan = 3": "has 3 in the place of its plan",
    "def __init__(self): self.wakeup = lambda now: 'soon'": "wakeup with 'soon'",
    "spare = Evil()\n    def plan(self, replica, now): 1 / 0  # here": "plan raised ZeroDivisionError",
    "blamed = bad\n    def plan(self, replica, now): 1 / 0  # here": "plan raised ZeroDivisionError",
    "blamed = bad\n    def plan(self, replica, now): return 3": "answers plan with 3",
    "__module__ = 3\n    def plan(self, replica, now): 1 / 0  # here": "plan raised ZeroDivisionError",
    "__class__ = bad\n    def plan(self, replica, now): return 3": "Bad",
    "__dict__ = bad\n    def plan(self, replica, now): return 3": "Bad",
    "def __getattribute__(self, name): raise SystemExit(0)  # here": "raised SystemExit",
    "def __getattribute__(self, name): raise Opaque  # here": "raised Opaque",
    "def __init__(self, depth: 'sys.exit()' = 1): 1 / 0": "raised (SystemExit|ZeroDivisionError)",
    "def __init__(self): raise Opaque  # here": "its constructor raised Opaque",
    "def __init__(self): raise OpaqueExit  # here": "its constructor raised OpaqueExit",
    "def __new__(cls): return Evil()": "gives an object of class Evil",
    "def plan(self, replica, now): 0\n    plan.__wrapped__ = plan": "stalls|raised ValueError",
}
PROGRESS = {
    "def plan(self, replica, now): return None": "stalls",
    "def plan(self, replica, now): return None\n    def wakeup(self, now): return now + 1.0": "stalls",
    "def plan(self, replica, now): return None\n    def wakeup(self, now): return now + 1e-12": "stalls",
    "def plan(self, replica, now): return None\n    def wakeup(self, now): return now": "stalls",
    "def plan(self, replica, now): return None\n    def wakeup(self, now): return 0.0": "stalls",
    "def plan(self, replica, now): return None\n    def wakeup(self, now): return 2 * now + 1.0": "wakeup|stalls",
    "def plan(self, replica, now): return super().plan(replica, now) if now < 0.2 else None": "stalls",
}


def _scheduling() -> Iterator[tuple[str, str]]:
    for hook, arguments in SCHEDULING_HOOKS.items():
        for fault, says in FAULTS.items():
            yield f"def {hook}(self, {arguments}):\n        {fault}  # here", f"{hook} raised {says}"
    for fault, says in FAULTS_OF_PLAN.items():
        yield f"def plan(self, replica, now):\n        {fault}  # here", says
    for write in WRITES:
        job = "job = self.oldest(replica)"
        yield f"def plan(self, replica, now):\n        {job}\n        {write}  # here", "plan raised"
    for answer, says in ANSWERS.items():
        yield f"def plan(self, replica, now):\n        job = self.oldest(replica)\n        return {answer}", says
    for answer in EVIL:
        job = "job = self.oldest(replica)"
        yield f"def plan(self, replica, now):\n        {job}\n        return {answer}", "plan|run|drop|load"
    for answer in (*WAKEUPS, "Number(1)", "Evil()"):
        yield f"def wakeup(self, now): return {answer}", "wakeup"
    for answer in (*RECALLS, "[Whole(0)]", "Evil()"):
        yield f"def recalls(self, now): return {answer}", "recalls"
    yield from SHAPES.items()
    yield from PROGRESS.items()


CACHING = {
    "def decide(self, signals): 1 / 0  # here": "decide raised ZeroDivisionError",
    "def decide(self, signals): return 1": "array of one True or False",
    "def decide(self, signals): return np.ones(len(signals.unit))": "array of one True or False",
    "def decide(self, signals): return np.ones(1 + len(signals.unit), dtype=bool)": "array of one True or False",
    "def commit(self, signals, computed): sys.exit()  # here": "commit raised SystemExit",
    "def reset(self): raise Odd  # here": "reset raised Odd",
    "def watches(self, block): return 'no'": "watches with 'no'",
    "def forget(self, request_id): {}['a']  # here": "forget raised KeyError",
    "decide = CachingPolicy.decide": "has no decide",
    "def decide(self, signals): return Evil()": "array of one True or False",
    "def decide(self, signals): return np.ones(len(signals.unit)).view(Array)": "array of one True or False",
    "def decide(self, signals): raise Opaque  # here": "decide raised Opaque",
    "def watches(self, block): return Evil()": "watches with a Evil",
}
PLACEMENT = {
    "def assign(self, tiles, devices): 1 / 0  # here": "assign raised ZeroDivisionError",
    "def assign(self, tiles, devices): return None": "assign with None",
    "def assign(self, tiles, devices): return [devices] * len(tiles)": "a device from 0",
    "def assign(self, tiles, devices): return [0.5] * len(tiles)": "a device from 0",
    "def assign(self, tiles, devices): return [-1] * len(tiles)": "a device from 0",
    "def assign(self, tiles, devices): return [0]": "a device from 0",
    "def assign(self, tiles, devices): tiles.clear()  # here": "assign raised AttributeError",
    "assign = PlacementPolicy.assign": "has no assign",
    "def assign(self, tiles, devices): return Evil()": "a device from 0",
    "def assign(self, tiles, devices): return Items()": "a device from 0",
    "def assign(self, tiles, devices): return [Evil()] * len(tiles)": "assign raised ZeroDivisionError",
    "def assign(self, tiles, devices): return [Whole(0)] * len(tiles)": "assign raised ZeroDivisionError",
    "def assign(self, tiles, devices): return np.array([[0]] * len(tiles)).view(Array)": "a device from 0",
    "def assign(self, tiles, devices): return np.array([Evil()] * len(tiles))": "assign raised ZeroDivisionError",
    "def assign(self, tiles, devices): return [99] * len(tiles)": "a device from 0",
    "def assign(self, tiles, devices): raise OpaqueExit  # here": "assign raised OpaqueExit",
}
ROUTING = {
    "def route(self, job, replicas, now): 1 / 0  # here": "route raised ZeroDivisionError",
    "def route(self, job, replicas, now): return 0": "routes to 0",
    "def route(self, job, replicas, now): return job": "routes to Job",
    "def route(self, job, replicas, now): replicas[0].up = False  # here": "route raised AttributeError",
    "def route(self, job, replicas, now): job.state = 'finished'  # here": "route raised AttributeError",
    "def route(self, job, replicas, now): self.cluster.jobs.clear()  # here": "route raised AttributeError",
    "route = RoutingPolicy.route": "has no route",
    "def route(self, job, replicas, now): return Evil()": "routes to a Evil",
    "def route(self, job, replicas, now): return object.__new__(type(replicas[0]))": "routes to",
    "def route(self, job, now): return None": "not called as route",
    "async def route(self, job, replicas, now): return None": "async or generator route",
    "def reset(self, cluster): raise Odd  # here": "reset raised Odd",
    "def ended(self, job, now): {}['a']  # here": "ended raised KeyError",
    "def planned(self, replica, jobs, now): raise Opaque  # here": "planned raised Opaque",
    "def replica_down(self, replica, now): sys.exit()  # here": "replica_down raised SystemExit",
    "binds = 'no'": "answers binds with 'no'",
    "binds = property(lambda self: 1 / 0)": "binds raised ZeroDivisionError",
}
WEIGHTS = {
    "def victim(self, loaded, now): 1 / 0  # here": "victim raised ZeroDivisionError",
    "def victim(self, loaded, now): return None": "evicts None",
    "def victim(self, loaded, now): return 'M9'": "evicts 'M9'",
    "def used(self, checkpoint, gb, load_s, now): raise SystemExit(0)  # here": "(came|used) raised SystemExit",
    "def left(self, checkpoint): raise Odd  # here": "left raised Odd",
    "victim = WeightsPolicy.victim": "has no victim",
    "def victim(self, loaded, now): return Sly('M9')": "evicts 'M9'",
    "def victim(self, loaded, now): return Evil()": "evicts a Evil",
    "def victim(self, loaded, now): raise Opaque  # here": "victim raised Opaque",
}
OTHERS = [
    *(("caching", "CachingPolicy", *row) for row in CACHING.items()),
    *(("placement", "PlacementPolicy", *row) for row in PLACEMENT.items()),
    *(("routing", "RoutingPolicy", *row) for row in ROUTING.items()),
    *(("weights", "LRU", *row) for row in WEIGHTS.items()),
]
FINE = {
    "CachingPolicy": "def decide(self, signals): return np.ones(len(signals.unit), dtype=bool)",
    "PlacementPolicy": "def assign(self, tiles, devices): return [0] * len(tiles)",
    "RoutingPolicy": "def route(self, job, replicas, now): return replicas[0]",
    "LRU": "",
}
SCHEDULING = list(_scheduling())
TAKEN_TOO = [
    ("placement", "PlacementPolicy", "def assign(self, tiles, devices): return Items([0] * len(tiles))"),
    ("placement", "PlacementPolicy", "def assign(self, tiles, devices): return Exits([0] * len(tiles))"),
    ("placement", "PlacementPolicy", "def assign(self, tiles, devices): return [Twice(0) for _ in tiles]"),
    ("placement", "PlacementPolicy", "def assign(self, tiles, devices): return np.zeros(len(tiles), int).view(Array)"),
    ("caching", "CachingPolicy", "def decide(self, signals): return np.ones(len(signals.unit), bool).view(Array)"),
    ("weights", "LRU", "def victim(self, loaded, now): return Sly(loaded[0])"),
]
"""Answers of other kinds that are, too."""
META = {
    "def __getattribute__(cls, name): 1 / 0": "ZeroDivisionError",
    "def __getattribute__(cls, name): raise Opaque": "Opaque",
    "def __getattribute__(cls, name): raise SystemExit(0)": "SystemExit",
    "def __call__(cls): 1 / 0": "its constructor raised ZeroDivisionError",
    "def __call__(cls): sys.exit()": "its constructor raised SystemExit",
    "def __call__(cls): return Evil()": "object of class Evil",
    "def __hash__(cls): 1 / 0": "ZeroDivisionError",
    "def __eq__(cls, other): 1 / 0\n    __hash__ = type.__hash__": "mine",
    "__signature__ = bad": "ZeroDivisionError",
    "__mro__ = __dict__ = __bases__ = __name__ = __module__ = __flags__ = bad": "ZeroDivisionError",
}
"""Metaclasses; what a policy of such a class, which answers 'mine', is said to do."""


def _short(body: str) -> str:
    return re.sub(r"\s+", " ", body)[:60]


def test_there_are_more_than_a_hundred() -> None:
    assert len(SCHEDULING) + len(OTHERS) > 150


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scenario of each kind, a trace of a few requests, and a file with all the broken policies."""
    folder = tmp_path_factory.mktemp("broken")
    write_profile(folder / "profile.parquet")
    profile = Profile.load(folder / "profile.parquet")
    Profile(pd.concat([profile.frame, profile.frame.assign(executor="patched")])).save(folder / "profile.parquet")
    made = ("trace", "generate", "--model", "tiny-image", "--rate", 4, "--duration", 2, "--steps", 3)
    run(*made, "--sizes", "64x64", "-o", folder / "trace.parquet")
    run(*made, "--sizes", "384x384", "-o", folder / "large.parquet")
    frame = Trace.load(folder / "trace.parquet").frame.copy()
    frame["checkpoint"] = [f"M{index % 4}" for index in range(len(frame))]
    Trace(frame, "many").save(folder / "many.parquet")
    common = 'model = "tiny-image"\n[predictor]\nprofile = "profile.parquet"\nlatency_model = "linear"\n[trace]\n'
    weights = "[weights]\nmemory_gb = 2.5\nweights_gb = 1.0\n"
    for name, trace, more in (
        ("scheduling", "trace", "[cluster]\nreplicas = 2\n[faults]\noutages = ['0.1:0:0.2']\n"),
        ("routing", "trace", "[cluster]\nreplicas = 2\n[faults]\noutages = ['0.1:0:0.2']\n"),
        ("caching", "trace", "[cluster]\nexecutor = 'patched'\n"),
        ("placement", "large", "[tiling]\nrefine = 0.5\nmode = 'clamp'\n[cluster]\ndevices = 2\n"),
        ("weights", "many", weights),
    ):
        (folder / f"{name}.toml").write_text(f'{common}path = "{trace}.parquet"\n{more}')
    return folder


def _line(folder: Path, kind: str, **settings: Any) -> str:
    """The line that a simulation of a kind's scenario ends with; what `cli.failures` prints, with exit code 2."""
    with pytest.raises((PolicyError, BadInput)) as caught:
        run_simulation(prepare(load_scenario(folder / f"{kind}.toml", settings)))
    line = str(caught.value)
    assert line.isprintable()
    return line


def _is_said(folder: Path, kind: str, base: str, body: str, says: str) -> None:
    source = f"{HEAD}\nclass Bad({base}):\n    {FINE.get(base, '')}\n    {body}\n"
    (folder / "mine.py").write_text(source)
    line = _line(folder, kind, **{f"policies.{kind}": {"name": f"{folder}/mine.py:Bad"}})
    assert re.search(r"\bBad\b", line), line
    assert re.search(says, line), line
    if "# here" in source:
        number = 1 + source[: source.index("# here")].count("\n")
        assert f"mine.py:{number}" in line, line


@pytest.mark.parametrize(("body", "says"), SCHEDULING, ids=[_short(body) for body, _ in SCHEDULING])
def test_a_broken_scheduling_policy_is_said_in_one_line(folder: Path, body: str, says: str) -> None:
    _is_said(folder, "scheduling", "Step", body, says)


@pytest.mark.parametrize("answer", TAKEN)
def test_an_answer_of_a_class_of_ones_own_is_taken_for_what_lies_in_it(
    folder: Path, tmp_path: Path, answer: str
) -> None:
    body = f"def plan(self, replica, now):\n        job = self.oldest(replica)\n        return {answer}"
    (tmp_path / "mine.py").write_text(f"{HEAD}\nclass Mine(Step):\n    {body}\n")
    either("simulate", folder / "scheduling.toml", "--scheduler", f"{tmp_path}/mine.py:Mine", "-o", tmp_path / "run")


@pytest.mark.parametrize(("kind", "base", "body", "says"), OTHERS, ids=[_short(row[2]) for row in OTHERS])
def test_so_is_one_of_another_kind(folder: Path, kind: str, base: str, body: str, says: str) -> None:
    _is_said(folder, kind, base, body, says)


@pytest.mark.parametrize(("kind", "base", "body"), TAKEN_TOO, ids=[_short(row[2]) for row in TAKEN_TOO])
def test_so_is_an_answer_of_another_kind(folder: Path, kind: str, base: str, body: str) -> None:
    (folder / "mine.py").write_text(f"{HEAD}\nclass Mine({base}):\n    {body}\n")
    mine = {f"policies.{kind}": {"name": f"{folder}/mine.py:Mine"}}
    controller = run_simulation(prepare(load_scenario(folder / f"{kind}.toml", mine)))
    assert {job.state for job in controller.jobs} == {"finished"}


@pytest.mark.parametrize("body", META)
def test_a_metaclass_is_the_policys_doing(folder: Path, tmp_path: Path, body: str) -> None:
    plan = "def plan(self, replica, now): return 'mine'"
    (tmp_path / "mine.py").write_text(
        f"{HEAD}\nclass Meta(type):\n    {body}\nclass Bad(Step, metaclass=Meta):\n    {plan}\n"
    )
    line = _line(folder, "scheduling", **{"policies.scheduling": {"name": f"{tmp_path}/mine.py:Bad"}})
    assert "policy Bad" in line
    assert re.search(META[body], line), line


@pytest.mark.parametrize(
    "answer", ["Decision((object.__new__(type(job)),), 1)", "Decision((Evil(),), 1)", "tuple.__new__(Launch, ())"]
)
def test_jobs_of_ones_own_making_are_none_where_many_checkpoints_are_served(folder: Path, answer: str) -> None:
    body = f"def plan(self, replica, now):\n        job = self.oldest(replica)\n        return {answer}"
    (folder / "mine.py").write_text(f"{HEAD}\nclass Bad(Step):\n    {body}\n")
    line = _line(folder, "weights", **{"policies.scheduling": {"name": f"{folder}/mine.py:Bad"}})
    assert re.search(r"policy Bad (names a (Job|Evil), which is no job|answers plan with a Launch)", line), line


@pytest.mark.parametrize(
    "fault",
    ["1 / 0", "raise SystemExit(0)", "return 3", "replica.launch = None", "raise Opaque", "raise OpaqueExit(0)"],
)
def test_a_command_ends_with_exit_code_2_and_no_output(folder: Path, tmp_path: Path, fault: str) -> None:
    (tmp_path / "mine.py").write_text(f"{HEAD}\nclass Bad(Step):\n    def plan(self, replica, now):\n        {fault}\n")
    scheduler = ("--scheduler", f"{tmp_path}/mine.py:Bad")
    line = refused("simulate", folder / "scheduling.toml", *scheduler, "-o", tmp_path / "run")
    assert line.startswith("error: policy Bad")
    assert not (tmp_path / "run").exists()


def test_ctrl_c_in_a_hook_is_not_the_policys_doing(folder: Path, tmp_path: Path) -> None:
    kill = "def plan(self, replica, now): __import__('os').kill(__import__('os').getpid(), 2)"
    (tmp_path / "mine.py").write_text(f"{HEAD}\nclass Mine(Step):\n    {kill}\n")
    mine = ("--scheduler", f"{tmp_path}/mine.py:Mine", "-o", tmp_path / "run")
    assert "interrupted" in ends_with(130, "simulate", folder / "scheduling.toml", *mine)


REPLAYED = {
    "def plan(self, replica, now): 1 / 0  # here": "plan raised ZeroDivisionError at .*mine.py:",
    "def plan(self, replica, now): raise Opaque": "plan raised Opaque",
    "def plan(self, replica, now): return Decision((object.__new__(type(self.oldest(replica))),), 1)": "plan raised",
    "def returned(self, job, now): raise SystemExit(0)": "returned raised SystemExit",
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
def test_so_does_a_replay(folder: Path, tmp_path: Path, kind: str, base: str, body: str, says: str) -> None:
    pytest.importorskip("torch")
    (tmp_path / "mine.py").write_text(f"{HEAD}\nclass Bad({base}):\n    {body}\n")
    bad = f'policies.{kind}="{tmp_path}/mine.py:Bad"'
    some = ("--set", "trace.limit=2", "--set", "cluster.threads=1", "--set", "cluster.replicas=1", "--speedup", 100)
    toml = folder / f"{kind}.toml"
    plain = tmp_path / "plain.toml"
    plain.write_text(
        toml.read_text()
        .partition("[faults]")[0]
        .replace('"trace', f'"{folder}/trace')
        .replace('"profile.', f'"{folder}/profile.')
    )
    line = refused("replay", plain, "--set", bad, *some, "-o", tmp_path / "run")
    assert re.search(f"error: policy Bad:? {says}", line), line


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("fault", ["raise Opaque  # here", "return 'mine'"])
def test_a_study_ends_with_the_line_and_keeps_no_such_answer(
    folder: Path, tmp_path: Path, workers: int, fault: str
) -> None:
    (tmp_path / "mine.py").write_text(f"{HEAD}\nclass Bad(Step):\n    def plan(self, replica, now):\n        {fault}\n")
    (tmp_path / "grid.toml").write_text("[grid]\nseed = [1, 2]\n")
    (tmp_path / "plan.toml").write_text(
        f'model = "tiny-image"\n[predictor]\nlatency_model = "linear"\n[trace]\npath = "{folder}/trace.parquet"\n'
        "[slo]\nscale = 9.0\n[plan]\nattainment = 0.5\nseeds = 2\nmax_seeds = 2\nrequests = 20\nmax_requests = 20\n"
        f'hardware = [{{ name = "one", profile = "{folder}/profile.parquet", price_per_hour = 1, max_replicas = 2 }}]\n'
    )
    scheduler = f"{tmp_path}/mine.py:Bad"
    of_sweep = (folder / "scheduling.toml", "--grid", tmp_path / "grid.toml", "--scheduler", scheduler)
    of_plan = (tmp_path / "plan.toml", "--policies", scheduler)
    for verb, given in (("sweep", of_sweep), ("plan", of_plan)):
        line = refused(verb, *given, "--workers", workers, "-o", tmp_path / verb)
        assert re.search("policy Bad:? (plan raised Opaque at .*mine.py:[0-9]+|answers plan with 'mine')", line), line
        assert (tmp_path / verb / "points.sqlite").is_file()
        assert kept_points(tmp_path / verb) == []


@pytest.mark.parametrize("measured", [("denoise",), ("encode", "denoise")])
def test_an_unmeasured_stage_is_seen_by_policies_all_the_same(
    folder: Path, tmp_path: Path, measured: tuple[str, ...]
) -> None:
    """A simulation and a replay show a policy the same stages, whatever the profile has of them."""
    pytest.importorskip("torch")
    profile = Profile.load(folder / "profile.parquet")
    Profile(profile.frame[profile.frame["stage"].isin(measured)]).save(tmp_path / "profile.parquet")
    see = "def arrived(self, job, now): print(job.recipe, file=open(__file__ + '.seen', 'a'))"
    (tmp_path / "mine.py").write_text(f"{HEAD}\nclass Mine(Step):\n    {see}\n")
    (tmp_path / "scenario.toml").write_text(
        f'model = "tiny-image"\n[predictor]\nprofile = "profile.parquet"\nlatency_model = "linear"\n'
        f'[trace]\npath = "{folder}/trace.parquet"\nlimit = 2\n[cluster]\nthreads = 1\n'
    )
    seen = {}
    for verb, more in (("simulate", ()), ("replay", ("--speedup", 100))):
        scheduler = ("--scheduler", f"{tmp_path}/mine.py:Mine")
        printed = either(verb, tmp_path / "scenario.toml", *scheduler, *more, "-o", tmp_path / verb)
        assert "not in the profile, taken as 0 s" in printed
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
def test_a_file_without_a_policy_is_said_to_be_one(folder: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "mine.py").write_text(text)
    line = _line(folder, "scheduling", **{"policies.scheduling": {"name": f"{tmp_path}/mine.py:Mine"}})
    assert all(part in line for part in FILES[text]), line


@pytest.mark.parametrize(
    "body",
    [
        "while True: pass",
        "time.sleep(99)",
        "while True:\n            try: time.sleep(0.01)\n            except Exception: 0",
    ],
)
def test_a_hook_that_does_not_answer_is_ended(folder: Path, tmp_path: Path, body: str) -> None:
    (tmp_path / "mine.py").write_text(f"{HEAD}\nclass Hangs(Step):\n    def arrived(self, job, now):\n        {body}\n")
    hangs = {"policies.scheduling": {"name": f"{tmp_path}/mine.py:Hangs"}}
    line = _line(folder, "scheduling", **hangs, **{"policies.call_limit_s": 0.5})
    assert re.search(r"policy Hangs: arrived has not answered for 0.5 s at .*mine.py:\d+", line), line


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("def recalls(self, now): return Endless()", "recalls has not answered"),
        ("def __new__(cls):\n        while True: pass", "its constructor has not answered"),
        ("def reset(self, cluster): raise Slow", "reset raised Slow.*its message cannot be read"),
    ],
)
def test_nor_may_it_take_for_ever_to_look_at_an_answer(folder: Path, tmp_path: Path, body: str, says: str) -> None:
    slow = "class Slow(Exception):\n    def __str__(self):\n        while True: pass"
    (tmp_path / "mine.py").write_text(f"{HEAD}\n{slow}\nclass Hangs(Step):\n    {body}\n")
    hangs = {"policies.scheduling": {"name": f"{tmp_path}/mine.py:Hangs"}}
    line = _line(folder, "scheduling", **hangs, **{"policies.call_limit_s": 0.5})
    assert re.search(f"policy Hangs: {says}", line), line


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
    folder: Path, policy: str, key: str, value: str, wanted: str
) -> None:
    kind, name = policy.split(".")
    at = f"policies.{kind}"
    line = _line(folder, kind, **{at: {"name": name}}, **dict([parse_setting(f"{at}.{key}={value}")]))
    assert f"{kind} policy {name!r}: {key}" in line
    assert wanted in line


def test_parameters_of_a_users_class_are_checked_too(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import policies.scheduling as s\n"
        "class Mine(s.FCFS):\n"
        "    def __init__(self, depth: int = 1): self.depth = depth\n"
    )
    mine = {"policies.scheduling": {"name": f"{tmp_path}/mine.py:Mine", "depth": "deep"}}
    assert "depth is 'deep', expected a valid integer" in _line(folder, "scheduling", **mine)
