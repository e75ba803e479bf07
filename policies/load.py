"""From a name on the command line to a policy object.

A name is one of ours in kebab-case (``least-slack``) or a user's class as ``file.py:Class``.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import Any

from policies.caching import CACHES, CachingPolicy
from policies.contract import Policy, PolicyError, SchedulingPolicy
from policies.guard import Guard, broken, check_form, class_name, files_of, guarded, is_of, name_of_class, one_line
from policies.parameters import Signature, checked_parameters
from policies.placement import PLACEMENTS, PlacementPolicy
from policies.routing import ROUTINGS, RoutingPolicy
from policies.scaling import SCALINGS, ScalingPolicy
from policies.scheduling import SCHEDULERS
from policies.watchdog import watched
from policies.weights import EVICTIONS, WeightsPolicy
from traces.errors import BadInput, did_you_mean, nearest

_IS_ABSTRACT = 1 << 20  # of a class's flags, as in `inspect.isabstract`
_LONGEST = 1000

BASES: dict[str, type[Policy]] = {
    "scheduling": SchedulingPolicy,
    "routing": RoutingPolicy,
    "caching": CachingPolicy,
    "placement": PlacementPolicy,
    "weights": WeightsPolicy,
    "scaling": ScalingPolicy,
}
"""What a policy of each kind is derived from."""

KINDS: dict[str, Mapping[str, type]] = {
    "scheduling": SCHEDULERS,
    "routing": ROUTINGS,
    "caching": CACHES,
    "placement": PLACEMENTS,
    "weights": EVICTIONS,
    "scaling": SCALINGS,
}


def load_policy(kind: str, name: str, parameters: Mapping[str, Any] | None = None, base: Path = Path()) -> Any:
    """The policy of one kind called ``name``, built with ``parameters``.

    ``base`` is the folder that relative files are looked up in.

    Raises:
        BadInput: unknown name, no such file or class, a parameter the policy does not take, or one of a wrong type.
        PolicyError: the user's file or constructor raised, or does not end, or the class is no policy of this kind.
    """
    with watched():
        cls = _user_class(kind, name, base) if ".py:" in name else _shipped_class(kind, name)
        policy = built(cls, parameters or {}, f"{kind} policy {name!r}")
    return checked_policy(kind, policy, f"policy {one_line(name_of_class(cls), 80)}")


def kinds_called(name: str, base: Path = Path()) -> list[str]:
    """The kinds of which there is a policy called ``name``: one of ours may be of several, a class is of one.

    Raises:
        BadInput: there is none of this name, no such file, or no class in it.
        PolicyError: the user's file raised, or does not end, or the class is no policy.
    """
    if ".py:" not in name:
        kinds = [kind for kind, known in KINDS.items() if name in known]
        if not kinds:
            every = dict.fromkeys(each for known in KINDS.values() for each in known)
            raise BadInput(f"unknown policy {name!r}; {did_you_mean(name, [*every, 'file.py:Class'])}")
        return kinds
    with watched():
        cls, path = _class_of_file("policy", name, base)
    kinds = [kind for kind, wanted in BASES.items() if issubclass(cls, wanted)]
    if not kinds:
        named = ", ".join([wanted.__name__ for wanted in BASES.values()])
        called = name.rpartition(":")[2]
        raise PolicyError(f"policy {called} of {path} is no policy; derive it from one of: {named}")
    return kinds


def built(cls: type, parameters: Mapping[str, Any], what: str) -> Any:
    """A policy of a class, with parameters that are checked by their types.

    Args:
        cls: class of ours or a user's.
        parameters: by name.
        what: whose they are, for messages.

    Raises:
        BadInput: a parameter that it does not take, that is missing, or of a wrong type.
        PolicyError: it is abstract, or its constructor raised.
    """
    called = f"policy {one_line(name_of_class(cls), 80)}"
    with Guard(f"{called}: reading its parameters", *files_of(cls)):
        takes = Signature.of(cls)
        abstract = cls.__flags__ & _IS_ABSTRACT
        missing = ", ".join(sorted(getattr(cls, "__abstractmethods__", ()))) if abstract else ""
    given = checked_parameters(takes, parameters, what)
    if missing:
        raise PolicyError(f"{called} is abstract: it has no {missing}")
    shipped = any(cls is each for known in KINDS.values() for each in known.values())
    return _made(cls, given, what, called, shipped)


def checked_policy(kind: str, policy: Any, called: str = "the policy") -> Any:
    """A policy of a kind, as it came.

    Raises:
        PolicyError: it is of another kind, or has not the form of a policy.
    """
    if not is_of(policy, BASES[kind]):
        made, wanted = one_line(class_name(policy), 80), BASES[kind].__name__
        raise PolicyError(f"{called} gives an object of class {made} when it is made, expected a {wanted}")
    with watched():
        check_form(policy)
    return policy


def made_with(policy: Policy) -> dict[str, Any]:
    """What a policy was made with: by the contract its constructor stores every parameter under the parameter's name.

    Raises:
        PolicyError: it does not.
    """
    names = list(Signature.of(type(policy)).needed or ())
    missing = [name for name in names if not hasattr(policy, name)]
    if missing:
        raise broken(policy, f"does not keep its parameter {missing[0]!r} as an attribute of that name")
    return {name: getattr(policy, name) for name in names}


@guarded
def _made(cls: type, given: Mapping[str, Any], what: str, called: str, shipped: bool) -> Any:
    with Guard(f"{called}: its constructor", *files_of(cls)):
        try:
            return cls(**given)
        except BaseException as error:
            if not (is_of(error, BadInput) or (shipped and is_of(error, TypeError, ValueError))):
                raise
            wrong = one_line(error, _LONGEST)
    raise BadInput(f"{what}: {wrong}")


def _shipped_class(kind: str, name: str) -> type:
    known = KINDS[kind]
    if name in known:
        return known[name]
    raise BadInput(f"unknown {kind} policy {name!r}; {did_you_mean(name, [*known, 'file.py:Class'])}")


class _AsItIs(SourceFileLoader):
    """Compiles a file anew: bytecode that is kept beside it may be of another text that it had a moment before."""

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


@guarded
def _class_of_file(what: str, name: str, base: Path) -> tuple[type, Path]:
    """The class called ``file.py:Class``, and its file; ``what`` it is to be, for messages."""
    file, _, called = name.rpartition(":")
    path = (base / file).resolve()
    if not path.is_file():
        raise BadInput(f"{what} {name!r}: there is no file {base / file}")
    name_there = f"user_policy_{path.stem}"
    spec = importlib.util.spec_from_file_location(name_there, path, loader=_AsItIs(name_there, str(path)))
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # where dataclasses look for it
    with Guard(f"{what} {name!r}: the file", str(path)):
        spec.loader.exec_module(module)
        found = getattr(module, called, None)
        there = [each for each, value in vars(module).items() if is_of(value, type)]
    if not is_of(found, type):
        meant = nearest(called, there)
        hint = "" if meant is None else f"; did you mean {meant!r}?"
        raise BadInput(f"{what} {name!r}: {file} has no class {called!r}{hint}")
    return found, path


@guarded
def _user_class(kind: str, name: str, base: Path) -> type:
    cls, path = _class_of_file(f"{kind} policy", name, base)
    wanted = BASES[kind]
    if not issubclass(cls, wanted):
        called = name.rpartition(":")[2]
        raise PolicyError(f"policy {called} of {path} is no {kind} policy; derive it from {wanted.__name__}")
    return cls
