"""Policies that are broken on purpose, and what a simulation says of one.

`HEAD` is how the file of each begins: classes whose methods raise, lie, exit or never answer.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from policies.contract import PolicyError
from tilecast.scenario import load_scenario
from tilecast.setup import prepare
from tilecast.simulation import run_simulation
from traces.errors import BadInput

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
class Iterating(list):
    def __iter__(self): raise ValueError('not to be looked at')
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


FINE = {
    "CachingPolicy": "def decide(self, signals): return np.ones(len(signals.unit), dtype=bool)",
    "PlacementPolicy": "def assign(self, tiles, devices): return [0] * len(tiles)",
    "RoutingPolicy": "def route(self, job, replicas, now): return replicas[0]",
}
"""What a policy of each base needs; one that is broken elsewhere has it."""


def policy_file(folder: Path, base: str, body: str, name: str = "Bad", before: str = "") -> str:
    """Write a policy derived from ``base``; what a scenario calls it."""
    source = f"{HEAD}\n{before}\nclass {name}({base}):\n    {FINE.get(base, '')}\n    {body}\n"
    (folder / "mine.py").write_text(source)
    return f"{folder}/mine.py:{name}"


def planning(*lines: str) -> str:
    """The hook ``plan`` with these lines, which know the oldest job."""
    return "\n        ".join(["def plan(self, replica, now):", "job = self.oldest(replica)", *lines])


def line_of(folder: Path, kind: str, **settings: Any) -> str:
    """The line that a simulation of a kind's scenario ends with; what `cli.failures` prints, with exit code 2."""
    with pytest.raises((PolicyError, BadInput)) as caught:
        run_simulation(prepare(load_scenario(folder / f"{kind}.toml", settings)))
    line = str(caught.value)
    assert line.isprintable()
    return line


def line_with(folder: Path, kind: str, policy: str, **settings: Any) -> str:
    """The same, with a policy of that kind."""
    return line_of(folder, kind, **{f"policies.{kind}": {"name": policy}}, **settings)


def is_said(folder: Path, kind: str, base: str, body: str, says: str) -> None:
    """Whether the line names the policy and says that, and where the body is marked ``# here`` names that line."""
    policy = policy_file(folder, base, body)
    line = line_with(folder, kind, policy)
    assert re.search(r"\bBad\b", line), line
    assert re.search(says, line), line
    source = (folder / "mine.py").read_text()
    if "# here" in source:
        number = 1 + source[: source.index("# here")].count("\n")
        assert f"mine.py:{number}" in line, line


def short(body: str) -> str:
    """A body as the name of a test."""
    return re.sub(r"\s+", " ", body)[:60]
