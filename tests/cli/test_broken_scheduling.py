"""Scheduling policies that are broken: each ends a run in one line that names it, what it did, and where.

Each row of a table is a policy that is broken in one way. A line marked ``# here`` is named.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import pytest

from tests.cli.broken import is_said, line_of, line_with, planning, policy_file, short
from tests.cli.run_command import either

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
FORCED_WRITES = {
    "object.__setattr__(job, 'steps_left', 0)": "request '1': its steps_left is 0, expected 5",
    "object.__setattr__(job, 'stage_left', 1)": "request '1': its stage_left is 1, expected 3",
    "object.__setattr__(job, 'state', 'finished')": "request '1': its state is 'finished', expected 'waiting'",
    "object.__setattr__(job, 'recipe', (('decode', 1),))": "request '1': its recipe is .*, expected .*'encode'",
    "object.__setattr__(job, 'finish_s', 0.0)": "request '1': its finish_s is 0.0, expected None",
    "object.__setattr__(job, 'replica', 9)": "request '1': its replica is 9, expected -1",
    "object.__setattr__(job, 'note', 'done')": "request '1': its note is 'done', expected ''",
    "object.__setattr__(job, 'cancelling', Evil())": "request '1': its cancelling is a Evil, expected ''",
    "object.__setattr__(job, 'steps_left', Whole(5))": "request '1': its steps_left is a Whole, expected 5",
    "object.__setattr__(job, 'batch_key', None)": "request '1': its batch_key is None",
    "object.__setattr__(job, 'request', None)": "request '1': its request is None",
    "object.__delattr__(job, 'state')": "request '1': its state is gone, expected 'waiting'",
    "object.__setattr__(job.request, 'steps', 1)": "request '1': its steps is 1, expected 3",
    "object.__setattr__(job.request, 'request_id', 'x')": "request '1': its request_id is 'x'",
    "object.__setattr__(job, '__class__', type('J', (type(job),), {'__slots__': ()}))": "request '1': its __class__ is",
    "type(job).steps_done.__set__(job, 3)": "request '1': its steps_done is 3, expected 0",
    "__import__('policies.job').job.start(job, 1, 0.0)": "request '1': its ",
    "object.__setattr__(replica, 'launch', 3)": "replica 0: its launch is 3, expected None",
    "object.__setattr__(replica, 'up', False)": "replica 0: its up is False, expected True",
    "object.__setattr__(replica, 'index', 5)": "replica 0: its index is 5, expected 0",
    "object.__setattr__(replica, 'costs', None)": "replica 0: its costs is None",
    "object.__setattr__(replica, 'queue', {1: job})": "replica 0: its queue is",
    "object.__setattr__(self.cluster, 'jobs', {})": "the cluster: its jobs is {}",
}
"""Writes that Python lets through, and what is said of each."""
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
    "tuple.__new__(Decision, (1, 2, 3, 4, 5, 6, 7))": "plan raised TypeError",
    "tuple.__new__(Decision, ((), 0, (), tuple.__new__(Load, ('x',)), False, None))": "plan raised ValueError",
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


def _scheduling() -> Iterator[tuple[str, str]]:
    for (hook, arguments), (fault, says) in zip(SCHEDULING_HOOKS.items(), cycle(FAULTS.items()), strict=False):
        yield f"def {hook}(self, {arguments}):\n        {fault}  # here", f"{hook} raised {says}"
    for fault, says in FAULTS_OF_PLAN.items():
        yield f"def plan(self, replica, now):\n        {fault}  # here", says
    for write in WRITES:
        yield planning(f"{write}  # here"), "plan raised"
    for write, says in FORCED_WRITES.items():
        yield planning(write, "return super().plan(replica, now)"), f"has written to {says}.*; policies only read it"
    for answer, says in ANSWERS.items():
        yield planning(f"return {answer}"), says
    for answer in EVIL:
        yield planning(f"return {answer}"), "plan|run|drop|load"
    for answer in (*WAKEUPS, "Number(1)", "Evil()"):
        yield f"def wakeup(self, now): return {answer}", "wakeup"
    for answer in (*RECALLS, "[Whole(0)]", "Evil()"):
        yield f"def recalls(self, now): return {answer}", "recalls"
    yield from SHAPES.items()
    yield from PROGRESS.items()


SCHEDULING = list(_scheduling())


def test_there_are_more_than_a_hundred() -> None:
    assert len(SCHEDULING) > 150


@pytest.mark.parametrize(("body", "says"), SCHEDULING, ids=[short(body) for body, _ in SCHEDULING])
def test_a_broken_scheduling_policy_is_said_in_one_line(policy_folder: Path, body: str, says: str) -> None:
    is_said(policy_folder, "scheduling", "Step", body, says)


@pytest.mark.parametrize("answer", TAKEN)
def test_an_answer_of_a_class_of_ones_own_is_taken_for_what_lies_in_it(
    policy_folder: Path, tmp_path: Path, answer: str
) -> None:
    policy = policy_file(tmp_path, "Step", planning(f"return {answer}"))
    either("simulate", policy_folder / "scheduling.toml", "--scheduler", policy, "-o", tmp_path / "run")


@pytest.mark.parametrize(
    "answer", ["Decision((object.__new__(type(job)),), 1)", "Decision((Evil(),), 1)", "tuple.__new__(Launch, ())"]
)
def test_jobs_of_ones_own_making_are_none_where_many_checkpoints_are_served(policy_folder: Path, answer: str) -> None:
    policy = policy_file(policy_folder, "Step", planning(f"return {answer}"))
    line = line_of(policy_folder, "weights", **{"policies.scheduling": {"name": policy}})
    assert re.search(r"policy Bad (names a (Job|Evil), which is no job|answers plan with a Launch)", line), line


@pytest.mark.parametrize("body", META)
def test_a_metaclass_is_the_policys_doing(policy_folder: Path, body: str) -> None:
    plan = "def plan(self, replica, now): return 'mine'"
    policy = policy_file(policy_folder, "Step, metaclass=Meta", plan, before=f"class Meta(type):\n    {body}")
    line = line_with(policy_folder, "scheduling", policy)
    assert "policy Bad" in line
    assert re.search(META[body], line), line
